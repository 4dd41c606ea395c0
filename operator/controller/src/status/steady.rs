//! When two texts with figures say the same.
//!
//! Pure. Measured figures move in every pass. Writing each movement would wake every watcher of the object, ours
//! included, for nothing.

/// Figures that differ by less are the same.
const TOLERANCE: f64 = 0.1;
/// Whole numbers from here on are measurements, such as milliseconds.
const LARGE: f64 = 100.0;

/// `new`, unless `old` says the same with figures that are close to it: then `old`.
pub(super) fn steady(old: Option<&str>, new: String) -> String {
    match old {
        Some(old) if says_the_same(old, &new) => old.to_owned(),
        _ => new,
    }
}

/// Whether both texts have the same words, and figures that are close to each other.
fn says_the_same(old: &str, new: &str) -> bool {
    let (mut old, mut new) = (pieces(old), pieces(new));
    // A figure stands by itself; digits that follow a letter, a dash or a colon belong to a name or a time.
    let mut by_itself = true;
    loop {
        match (old.next(), new.next()) {
            (None, None) => return true,
            (Some(Piece::Words(old)), Some(Piece::Words(new))) if old == new => {
                by_itself = old.ends_with([' ', '(', '~']);
            }
            (Some(Piece::Figure(old)), Some(Piece::Figure(new))) if old == new => {}
            (Some(Piece::Figure(old)), Some(Piece::Figure(new))) if by_itself && is_close(old, new) => {}
            _ => return false,
        }
    }
}

/// Small whole numbers are counts and must agree; fractions and large numbers are measurements. Zero is close to nothing
/// else.
fn is_close(old: &str, new: &str) -> bool {
    let measured = |text: &str, value: f64| text.contains('.') || value >= LARGE;
    match (old.parse::<f64>(), new.parse::<f64>()) {
        (Ok(a), Ok(b)) => measured(old, a) && measured(new, b) && (a - b).abs() <= TOLERANCE * a.max(b),
        _ => false,
    }
}

#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Words(&'a str),
    Figure(&'a str),
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let figure = first.is_ascii_digit();
        let belongs = |c: char| {
            if figure {
                c.is_ascii_digit() || c == '.'
            } else {
                !c.is_ascii_digit()
            }
        };
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some(if figure {
            Piece::Figure(piece.trim_end_matches('.'))
        } else {
            Piece::Words(piece)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_movements_of_measured_figures_are_no_news() {
        for (old, new, same) in [
            ("p95 TTFT 3.1s ≤ 10s", "p95 TTFT 3.2s ≤ 10s", true),
            ("p95 TTFT 3.1s ≤ 10s", "p95 TTFT 4.1s ≤ 10s", false),
            ("p95 TTFT 9.9s ≤ 10s", "p95 TTFT 10.1s > 10s", false),
            ("5.3", "5.4", true),
            ("5.3", "6.3", false),
            ("0.0", "0.1", false),
            ("needs 5 replicas", "needs 6 replicas", false),
            ("chat-hosted-1", "chat-hosted-2", false),
            ("unknown", "5.3", false),
            ("", "", true),
            ("1.5 of 2.", "1.45 of 2.", true),
            ("p95 TTFT 3100 ms of 10000 ms", "p95 TTFT 3200 ms of 10000 ms", true),
            ("chat-hosted-200 drains", "chat-hosted-201 drains", false),
            (
                "until 2026-03-01T09:00:00.250Z",
                "until 2026-03-01T09:00:00.251Z",
                false,
            ),
        ] {
            assert_eq!(says_the_same(old, new), same, "{old:?} → {new:?}");
        }
    }

    #[test]
    fn the_old_text_stays_only_while_it_is_close() {
        assert_eq!(steady(Some("5.3"), "5.4".to_owned()), "5.3");
        assert_eq!(steady(Some("5.3"), "9.0".to_owned()), "9.0");
        assert_eq!(steady(None, "9.0".to_owned()), "9.0");
    }
}
