//! Arithmetic of histograms: percentiles, attainment, and the lengths of requests.
//!
//! Pure. A histogram here holds what was *added* over some time, per bucket and not cumulative, so that the histograms
//! of many servers, and of servers that restarted, may simply be added up.

use std::collections::BTreeMap;

use pomarium_kernel::snapshot::LengthMix;
use pomarium_kernel::units::Fraction;

/// Equally likely classes that lengths are summarised into. Sixteen keep a p95 prompt apart from the median.
const CLASSES: u32 = 16;

/// An upper bound of a bucket, ordered. Never NaN, never negative; infinite for the last bucket.
///
/// The bits of such numbers sort as the numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bound(u64);

impl Bound {
    /// The bound `value`, or none if it cannot be one.
    pub(crate) fn new(value: f64) -> Option<Self> {
        // Zero has two signs; the bits of the negative one would sort last.
        (!value.is_nan() && value >= 0.0).then(|| Self((value + 0.0).abs().to_bits()))
    }

    /// Reads a label `le`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::new)
    }

    pub(crate) fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// Observations per bucket, with their sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    /// Observations in each bucket, by its upper bound.
    buckets: BTreeMap<Bound, f64>,
    /// Sum of all observations.
    sum: f64,
}

impl Histogram {
    /// Adds observations to the bucket that ends at `bound`.
    pub(crate) fn add(&mut self, bound: Bound, count: f64) {
        *self.buckets.entry(bound).or_default() += count;
    }

    /// Adds to the sum of all observations.
    pub(crate) fn add_sum(&mut self, sum: f64) {
        self.sum += sum;
    }

    /// How many observations there are.
    pub(crate) fn count(&self) -> f64 {
        self.buckets.values().sum()
    }

    /// Their sum.
    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    /// Their mean, if there are any.
    pub(crate) fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0.0).then(|| self.sum / count)
    }

    /// What was added since `earlier`, which must be an earlier state of this histogram.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |bound| earlier.buckets.get(bound).copied().unwrap_or_default();
        Self {
            buckets: self
                .buckets
                .iter()
                .map(|(bound, count)| (*bound, (count - before(bound)).max(0.0)))
                .collect(),
            sum: (self.sum - earlier.sum).max(0.0),
        }
    }

    /// The value below which `share` of the observations lie, interpolated within its bucket. Beyond the last finite
    /// bound it is that bound: more is not known. `None` without observations.
    pub(crate) fn percentile(&self, share: Fraction) -> Option<f64> {
        let rank = share.get() * self.count();
        let mut below = 0.0;
        let mut last = None;
        for (low, high, count) in self.spans() {
            if count > 0.0 {
                let value = if high.is_finite() {
                    low + (high - low) * ((rank - below) / count).clamp(0.0, 1.0)
                } else {
                    low
                };
                if below + count >= rank {
                    return Some(value);
                }
                last = Some(value);
            }
            below += count;
        }
        last
    }

    /// The share of observations within `threshold`, interpolated within its bucket. Observations in the bucket without
    /// an upper bound count as over any threshold: better to doubt an objective than to believe it.
    pub(crate) fn attained(&self, threshold: f64) -> Option<Fraction> {
        let total = self.count();
        if total <= 0.0 {
            return None;
        }
        let within: f64 = self
            .spans()
            .map(|(low, high, count)| {
                if high <= threshold {
                    count
                } else if high.is_finite() && low < threshold {
                    count * (threshold - low) / (high - low)
                } else {
                    0.0
                }
            })
            .sum();
        Some(Fraction::new(within / total))
    }

    /// Mean of each of `classes` equally likely quantile ranges, scaled so that their mean is the true one.
    fn class_means(&self, classes: u32) -> Vec<f64> {
        const POINTS: u32 = 8;
        let quantile = |share: f64| self.percentile(Fraction::new(share)).unwrap_or_default();
        let means: Vec<f64> = (0..classes)
            .map(|class| {
                let points = (0..POINTS).map(|point| {
                    let within = (f64::from(point) + 0.5) / f64::from(POINTS);
                    quantile((f64::from(class) + within) / f64::from(classes))
                });
                points.sum::<f64>() / f64::from(POINTS)
            })
            .collect();
        let guessed = means.iter().sum::<f64>() / f64::from(classes);
        // Interpolation guesses where in a bucket the observations lie; the sum knows. A factor far from 1 says that
        // the two do not belong together, and the buckets are believed.
        let factor = match self.mean() {
            Some(mean) if guessed > 0.0 && (0.5..=2.0).contains(&(mean / guessed)) => mean / guessed,
            _ => 1.0,
        };
        means.into_iter().map(|mean| mean * factor).collect()
    }

    /// Each bucket's lower bound, upper bound and count.
    fn spans(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let lows = std::iter::once(0.0).chain(self.buckets.keys().map(|bound| bound.get()));
        lows.zip(&self.buckets)
            .map(|(low, (bound, count))| (low, bound.get(), *count))
    }
}

/// Lengths of requests from the histograms of their prompts and outputs, in tokens.
///
/// The two histograms say nothing about which prompt had which output: every class takes the mean output.
pub(crate) fn length_mix(prompts: &Histogram, outputs: &Histogram) -> Option<LengthMix> {
    let output = tokens(outputs.mean()?);
    if prompts.count() <= 0.0 {
        return None;
    }
    let classes = prompts.class_means(CLASSES).into_iter();
    Some(LengthMix {
        classes: classes.map(|prompt| (tokens(prompt), output)).collect(),
    })
}

/// Lengths of requests of which only the means are known.
pub(crate) fn mean_lengths(prompt: f64, output: f64) -> LengthMix {
    LengthMix {
        classes: vec![(tokens(prompt), tokens(output))],
    }
}

/// A whole number of tokens, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and NaN becomes 0"
)]
fn tokens(value: f64) -> u32 {
    (value.round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]

    use super::*;

    fn histogram(buckets: &[(f64, f64)], sum: f64) -> Histogram {
        let mut histogram = Histogram::default();
        for (bound, count) in buckets {
            histogram.add(Bound::new(*bound).unwrap(), *count);
        }
        histogram.add_sum(sum);
        histogram
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn a_percentile_is_interpolated_within_its_bucket() {
        let seen = histogram(&[(1.0, 50.0), (2.0, 40.0), (4.0, 10.0), (INF, 0.0)], 120.0);
        for (share, expected) in [(0.25, 0.5), (0.5, 1.0), (0.7, 1.5), (0.9, 2.0), (0.95, 3.0), (1.0, 4.0)] {
            assert!(
                (seen.percentile(Fraction::new(share)).unwrap() - expected).abs() < 1e-9,
                "{share}"
            );
        }
    }

    #[test]
    fn nothing_is_made_up_beyond_the_last_bound() {
        let seen = histogram(&[(1.0, 1.0), (INF, 9.0)], 0.0);
        assert_eq!(seen.percentile(Fraction::new(0.95)), Some(1.0));
        assert_eq!(seen.attained(1000.0), Some(Fraction::new(0.1)));
    }

    #[test]
    fn attainment_is_interpolated_at_the_threshold() {
        let seen = histogram(&[(1.0, 50.0), (2.0, 40.0), (4.0, 10.0)], 0.0);
        for (threshold, expected) in [(0.5, 0.25), (1.0, 0.5), (1.5, 0.7), (3.0, 0.95), (4.0, 1.0), (9.0, 1.0)] {
            assert!(
                (seen.attained(threshold).unwrap().get() - expected).abs() < 1e-9,
                "{threshold}"
            );
        }
    }

    #[test]
    fn an_empty_histogram_knows_nothing() {
        let empty = histogram(&[(1.0, 0.0), (INF, 0.0)], 0.0);
        assert_eq!(empty.percentile(Fraction::new(0.5)), None);
        assert_eq!(empty.attained(1.0), None);
        assert_eq!(empty.mean(), None);
        assert_eq!(length_mix(&empty, &empty), None);
    }

    #[test]
    fn layouts_that_differ_add_up() {
        let mut sum = histogram(&[(1.0, 2.0), (4.0, 2.0)], 0.0);
        sum.add(Bound::parse("2").unwrap(), 4.0);
        assert_eq!(sum.count(), 8.0);
        assert_eq!(sum.attained(2.0), Some(Fraction::new(0.75)));
    }

    #[test]
    fn lengths_keep_their_spread_and_their_mean() {
        let prompts = histogram(&[(100.0, 50.0), (1000.0, 40.0), (4000.0, 10.0)], 100.0 * 620.0);
        let outputs = histogram(&[(500.0, 100.0)], 100.0 * 210.0);
        let mix = length_mix(&prompts, &outputs).unwrap();
        assert_eq!(mix.classes.len(), CLASSES as usize);
        assert!(mix.classes.is_sorted());
        assert!(mix.classes.iter().all(|(_, output)| *output == 210));
        let mean = mix.classes.iter().map(|(prompt, _)| f64::from(*prompt)).sum::<f64>() / f64::from(CLASSES);
        assert!((mean - 620.0).abs() < 2.0, "{mean}");
        let (shortest, longest) = (mix.classes[0].0, mix.classes[15].0);
        assert!(shortest < 20 && longest > 2000, "{shortest} {longest}");
    }

    #[test]
    fn bounds_sort_as_numbers_and_refuse_what_is_none() {
        assert!(Bound::parse("0.5") < Bound::parse("1") && Bound::parse("1e9") < Bound::parse("+Inf"));
        for bad in ["NaN", "-1", "x", ""] {
            assert_eq!(Bound::parse(bad), None, "{bad}");
        }
        assert_eq!(Bound::parse("-0"), Bound::parse("0"));
    }
}
