//! Latencies in buckets that grow: percentiles without keeping values.

/// Each bucket ends 5 % above the one before: a percentile is exact to 2.5 %.
const GROWTH: f64 = 1.05;

/// Counts of latencies, from 1 ms up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    counts: Vec<u32>,
}

impl Histogram {
    pub(crate) fn add(&mut self, value_ms: f64) {
        self.count(bucket(value_ms));
    }

    /// Adds a value whose [`bucket`] is known.
    pub(crate) fn count(&mut self, bucket: usize) {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
    }

    /// The value at `percentile` of what was added since `earlier` was cloned from this; `None` if nothing was.
    pub(crate) fn since(&self, earlier: Option<&Self>, percentile: f64) -> Option<f64> {
        let before = |bucket: usize| {
            earlier
                .and_then(|earlier| earlier.counts.get(bucket))
                .copied()
                .unwrap_or(0)
        };
        let added = |bucket: usize, count: u32| u64::from(count - before(bucket));
        let total: u64 = self
            .counts
            .iter()
            .enumerate()
            .map(|(bucket, &count)| added(bucket, count))
            .sum();
        let rank = (percentile * total as f64).max(1.0);
        let mut below = 0;
        self.counts.iter().enumerate().find_map(|(bucket, &count)| {
            below += added(bucket, count);
            (total > 0 && below as f64 >= rank).then(|| GROWTH.powf(bucket as f64 + 0.5))
        })
    }

    /// The value at `percentile` of everything; `None` if there is nothing.
    pub(crate) fn at(&self, percentile: f64) -> Option<f64> {
        self.since(None, percentile)
    }
}

/// The bucket of a value.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and a logarithm is small"
)]
pub(crate) fn bucket(value_ms: f64) -> usize {
    (value_ms.max(1.0).ln() / GROWTH.ln()) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn percentiles_are_within_a_bucket_of_the_values_added_since() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.at(0.5), None);
        (0..100).for_each(|_| histogram.add(5.0));
        let earlier = histogram.clone();
        (1..=100).for_each(|value| histogram.add(f64::from(value) * 100.0));
        for (percentile, value) in [(0.5, 5_000.0), (0.9, 9_000.0), (1.0, 10_000.0)] {
            let found = histogram.since(Some(&earlier), percentile).unwrap();
            assert!((found / value - 1.0).abs() < 0.03, "{percentile}: {found}");
        }
        assert_eq!(histogram.since(Some(&histogram), 0.5), None);
    }
}
