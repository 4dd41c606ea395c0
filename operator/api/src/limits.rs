//! Longest texts and lists in statuses and plans. The schemas carry them, so a writer that does not clip is refused by the API server.

/// `status.summary`: one line of a table.
pub const SUMMARY: usize = 256;
/// Messages of decisions and of what they rejected.
pub const MESSAGE: usize = 1024;
/// Alternatives that a decision rejected.
pub const REJECTED: usize = 8;
/// Classes of request lengths that a pool remembers.
pub const LENGTHS: usize = 64;
/// Actions of a plan.
pub const ACTIONS: usize = 64;

/// `text`, shortened to at most `longest` characters; an ellipsis stands for what is missing.
pub fn clip(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(longest.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shortened_by_characters_and_not_by_bytes() {
        assert_eq!(clip("p95 ≤ 10 s", 10), "p95 ≤ 10 s");
        assert_eq!(clip("p95 ≤ 10 s", 6), "p95 ≤…");
        assert_eq!(clip("≤≤≤", 2), "≤…");
    }
}
