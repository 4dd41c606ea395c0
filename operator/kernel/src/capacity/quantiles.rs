//! A measured distribution, as its quantiles.

/// Shares of requests at which a measured distribution is kept; dense where objectives are.
pub(super) const LEVELS: [f64; 26] = [
    0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.875, 0.9, 0.92, 0.935, 0.95, 0.96,
    0.97, 0.98, 0.985, 0.99, 0.995, 1.0,
];

/// Bisection steps for a level of a mixture: exact to some millionths of the largest latency.
const BISECTIONS: u32 = 24;

/// Latencies in ms at [`LEVELS`]; linear in between. Never falls from one level to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quantiles([f64; LEVELS.len()]);

impl Quantiles {
    /// Everything takes no time.
    pub(super) const ZERO: Self = Self([0.0; LEVELS.len()]);

    /// Of latencies in ns, in any order. [`Self::ZERO`] of none.
    pub(super) fn of(latencies_ns: &mut [u64]) -> Self {
        latencies_ns.sort_unstable();
        let Some(last) = latencies_ns.len().checked_sub(1) else {
            return Self::ZERO;
        };
        Self(LEVELS.map(|level| {
            let position = level * latencies_ns.len() as f64 - 0.5;
            let (below, rest) = split(position.clamp(0.0, last as f64));
            let (low, high) = (latencies_ns[below], latencies_ns[(below + 1).min(last)]);
            (low as f64 + (high - low) as f64 * rest) / 1e6
        }))
    }

    /// Of requests of several kinds, each with its weight.
    pub(super) fn mixture(parts: &[(&Self, f64)]) -> Self {
        if let [(alone, _)] = parts {
            return **alone;
        }
        let all: f64 = parts.iter().map(|(_, weight)| weight).sum();
        let within = |ms: f64| parts.iter().map(|(part, weight)| weight * part.within(ms)).sum::<f64>() / all;
        let least = parts.iter().map(|(part, _)| part.0[0]).fold(f64::INFINITY, f64::min);
        let most = parts
            .iter()
            .map(|(part, _)| part.0[LEVELS.len() - 1])
            .fold(0.0, f64::max);
        let mut from = least;
        Self(LEVELS.map(|level| {
            let (mut low, mut high) = (from, most);
            for _ in 0..BISECTIONS {
                let middle = f64::midpoint(low, high);
                if within(middle) >= level {
                    high = middle;
                } else {
                    low = middle;
                }
            }
            from = if level > 0.0 { high } else { least };
            from
        }))
    }

    /// Between two distributions, level by level: `self` at a `weight` of zero, `other` at one.
    pub(super) fn blend(&self, other: &Self, weight: f64) -> Self {
        let mut blended = *self;
        for (value, other) in blended.0.iter_mut().zip(other.0) {
            *value += (other - *value) * weight;
        }
        blended
    }

    /// Level by level, and the level itself.
    pub(super) fn map(&self, mut of: impl FnMut(f64, f64) -> f64) -> Self {
        let mut mapped = *self;
        for (value, level) in mapped.0.iter_mut().zip(LEVELS) {
            *value = of(*value, level);
        }
        mapped
    }

    pub(super) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.0
    }

    pub(super) fn values(&self) -> &[f64] {
        &self.0
    }

    /// The latency in ms that this share of requests stays within.
    pub(super) fn at(&self, share: f64) -> f64 {
        let above = LEVELS
            .partition_point(|level| *level < share)
            .clamp(1, LEVELS.len() - 1);
        let (low, high) = (LEVELS[above - 1], LEVELS[above]);
        let weight = ((share - low) / (high - low)).clamp(0.0, 1.0);
        self.0[above - 1] + (self.0[above] - self.0[above - 1]) * weight
    }

    /// The share of requests within `ms`.
    pub(super) fn within(&self, ms: f64) -> f64 {
        let above = self.0.partition_point(|value| *value <= ms);
        match (above.checked_sub(1), self.0.get(above)) {
            (None, _) => 0.0,
            (Some(_), None) => 1.0,
            (Some(below), Some(high)) => {
                let weight = (ms - self.0[below]) / (high - self.0[below]);
                LEVELS[below] + (LEVELS[above] - LEVELS[below]) * weight.clamp(0.0, 1.0)
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in a list"
)]
fn split(position: f64) -> (usize, f64) {
    (position.floor() as usize, position - position.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_thousand_equal_steps_are_where_they_should_be() {
        let mut latencies: Vec<u64> = (1..=1_000).rev().map(|ms| ms * 1_000_000).collect();
        let quantiles = Quantiles::of(&mut latencies);
        for (share, expected) in [(0.05, 50.5), (0.5, 500.5), (0.95, 950.5), (0.965, 965.5), (0.99, 990.5)] {
            assert!(
                (quantiles.at(share) - expected).abs() < 1e-6,
                "{share}: {}",
                quantiles.at(share)
            );
            assert!((quantiles.within(expected) - share).abs() < 1e-9, "{expected}");
        }
        assert!((quantiles.at(0.0) - 1.0).abs() < 1e-9 && (quantiles.at(1.0) - 1_000.0).abs() < 1e-9);
        assert!(quantiles.within(0.9) <= 0.0 && quantiles.within(1_000.0) >= 1.0);
    }

    #[test]
    fn many_requests_that_take_equally_long_are_all_within_it() {
        let quantiles = Quantiles::of(&mut [5_000_000; 40]);
        assert!(quantiles.within(5.0) >= 1.0 && quantiles.within(4.999) <= 0.0);
        assert!((quantiles.at(0.3) - 5.0).abs() < 1e-12);
        assert_eq!(Quantiles::of(&mut []), Quantiles::ZERO);
    }
}
