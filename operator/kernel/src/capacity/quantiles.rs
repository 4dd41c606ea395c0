//! A measured distribution, as its quantiles.

/// Shares of requests at which a measured distribution is kept; dense where objectives are.
pub(super) const LEVELS: [f64; 26] = [
    0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.875, 0.9, 0.92, 0.935, 0.95, 0.96,
    0.97, 0.98, 0.985, 0.99, 0.995, 1.0,
];

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

    /// Of requests of several kinds, each with its weight: shares add up, not latencies.
    pub(super) fn mixture(parts: &[(&Self, f64)]) -> Self {
        let parts: Vec<(&Self, f64)> = parts.iter().filter(|(_, weight)| *weight > 0.0).copied().collect();
        if let [(alone, _)] = parts[..] {
            return *alone;
        }
        let all: f64 = parts.iter().map(|(_, weight)| weight).sum();
        let share = |of: &dyn Fn(&Self) -> f64| parts.iter().map(|(part, weight)| weight * of(part)).sum::<f64>() / all;
        let mut knots: Vec<f64> = parts.iter().flat_map(|(part, _)| part.0).collect();
        knots.sort_unstable_by(f64::total_cmp);
        knots.dedup_by(|a, b| a.total_cmp(b).is_eq());
        let mut knots = knots.into_iter();
        // Between two knots the share is a straight line; at a knot it may jump.
        let (mut before, mut before_share) = (0.0, 0.0);
        let mut knot = knots.next().unwrap_or(0.0);
        let (mut below, mut within) = (0.0, share(&|part| part.within(knot)));
        Self(LEVELS.map(|level| {
            while within < level
                && let Some(next) = knots.next()
            {
                (before, before_share) = (knot, within);
                knot = next;
                (below, within) = (share(&|part| part.below(knot)), share(&|part| part.within(knot)));
            }
            if level < below && below > before_share {
                before + (knot - before) * ((level - before_share) / (below - before_share)).clamp(0.0, 1.0)
            } else {
                knot
            }
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

    /// The mean latency in ms.
    pub(super) fn mean(&self) -> f64 {
        let pairs = self.0.windows(2).zip(LEVELS.windows(2));
        pairs
            .map(|(values, levels)| f64::midpoint(values[0], values[1]) * (levels[1] - levels[0]))
            .sum()
    }

    /// The share of requests within `ms`.
    pub(super) fn within(&self, ms: f64) -> f64 {
        self.share(ms, self.0.partition_point(|value| *value <= ms))
    }

    /// The share of requests that take less than `ms`.
    fn below(&self, ms: f64) -> f64 {
        self.share(ms, self.0.partition_point(|value| *value < ms))
    }

    /// `above` is the first level whose latency is above `ms`.
    fn share(&self, ms: f64, above: usize) -> f64 {
        match (above.checked_sub(1), self.0.get(above)) {
            (None, _) => 0.0,
            (Some(_), None) => 1.0,
            (Some(below), Some(high)) => {
                let step = high - self.0[below];
                let weight = if step > 0.0 {
                    ((ms - self.0[below]) / step).clamp(0.0, 1.0)
                } else {
                    1.0
                };
                LEVELS[below] + (LEVELS[above] - LEVELS[below]) * weight
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
    fn the_mean_is_that_of_the_latencies() {
        let mut steps: Vec<u64> = (1..=1_000).map(|step| step * 1_000_000).collect();
        assert!((Quantiles::of(&mut steps).mean() - 500.5).abs() < 1.0);
        let mut equal = vec![7_000_000; 50];
        assert!((Quantiles::of(&mut equal).mean() - 7.0).abs() < 1e-9);
    }

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

    #[test]
    fn shares_of_a_mixture_add_up_at_every_latency() {
        let mut low: Vec<u64> = (0..200).map(|index| 5_000_000 + index * index * 1_000).collect();
        let (low, atom) = (Quantiles::of(&mut low), Quantiles::of(&mut [20_000_000]));
        let mixed = Quantiles::mixture(&[(&low, 3.0), (&atom, 1.0)]);
        for level in LEVELS {
            let ms = mixed.at(level);
            let (within, below) = (
                0.75 * low.within(ms) + 0.25 * atom.within(ms),
                0.75 * low.below(ms) + 0.25 * atom.below(ms),
            );
            assert!(
                below - 1e-9 <= level && level <= within + 1e-9,
                "{level}: {ms} ms, {below} to {within}"
            );
        }
        assert!(mixed.0.is_sorted());
        assert_eq!(Quantiles::mixture(&[(&low, 1.0), (&atom, 0.0)]), low);
        assert_eq!(
            Quantiles::mixture(&[(&low, 1.0), (&low, 2.0)]).at(0.0).to_bits(),
            low.at(0.0).to_bits()
        );
    }
}
