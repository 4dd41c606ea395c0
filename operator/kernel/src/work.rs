//! How much there is to do for requests.
//!
//! Requests differ: a thousand short questions are less than fifty long documents. What arrives is forecast, and its bursts are recorded, as work;
//! capacity is measured in requests of a pool's present lengths, and what is expected is told in such requests. Whoever counts requests alone
//! takes a surge of short ones for a surge, and does not see long ones come.
//!
//! The unit is the work of a thousand prompt tokens.

/// An output token keeps a server busy for as long as so many prompt tokens, when batches are full: (α + β · slots) ÷ slots over δ is 3.1 on an M2 Ultra,
/// 2.9 on an M4 Max and 2.5 on an M4 Pro with the figures of `examples/scenarios/hybrid-week` and 16 slots.
const PROMPT_TOKENS_PER_OUTPUT_TOKEN: f64 = 3.0;

const UNIT: f64 = 1_000.0;

/// The work of so many prompt and output tokens.
pub fn of_tokens(prompt: f64, output: f64) -> f64 {
    (prompt + PROMPT_TOKENS_PER_OUTPUT_TOKEN * output) / UNIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::Counts;
    use crate::snapshot::LengthMix;

    #[test]
    fn many_short_requests_are_less_than_few_long_ones() {
        let short = Counts {
            requests: 1_000,
            prompt_tokens: 20_000,
            output_tokens: 5_000,
        };
        let long = Counts {
            requests: 50,
            prompt_tokens: 400_000,
            output_tokens: 20_000,
        };
        assert!(short.work() < long.work() / 10.0);
    }

    #[test]
    fn requests_whose_tokens_nobody_counts_are_taken_to_be_as_long_as_it_is_assumed() {
        let uncounted = Counts {
            requests: 10,
            ..Counts::default()
        };
        assert!((uncounted.work() - 10.0 * LengthMix::assumed().work()).abs() < 1e-9);
        assert!(Counts::default().work().abs() < 1e-9);
        assert!((of_tokens(700.0, 100.0) - 1.0).abs() < 1e-9);
    }
}
