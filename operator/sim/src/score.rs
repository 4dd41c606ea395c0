//! What became of the requests: attainment of every objective, over the trace, per window and per hour.

use pomarium_kernel::snapshot::{Metric, Objective};
use serde::Serialize;

const HOUR_MS: u64 = 3_600_000;
/// Windows with fewer requests say nothing about a percentile and are left out.
const LEAST_REQUESTS: u64 = 50;
/// Each bucket of the histogram of latencies is wider than the one before by this factor: values are exact to 0.5 %.
const BUCKET_GROWTH: f64 = 1.01;

/// Counts of requests, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Those of the scored part of the trace that no model could refuse.
    pub total: u64,
    /// Answered to the last token.
    pub completed: u64,
    /// Ended by the loss of their server.
    pub cut: u64,
    /// Still waiting or running when the simulation ended.
    pub never_served: u64,
    /// Longer than the model's context; not part of `total`.
    pub rejected: u64,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// When it arrived, in ms from the start of the scored part.
    pub arrival_ms: u64,
    /// Its prompt.
    pub prompt_tokens: u32,
    /// Its answer.
    pub output_tokens: u32,
    /// Until its first token.
    pub ttft_ms: f64,
    /// Mean time between its tokens; `None` with fewer than two.
    pub itl_ms: Option<f64>,
}

/// How well one objective was met.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectiveScore {
    /// `TimeToFirstToken` or `InterTokenLatency`.
    pub metric: Metric,
    /// Such as 0.95.
    pub percentile: f64,
    /// The bound on one request.
    pub threshold_seconds: f64,
    /// Share of requests within the threshold, over the whole trace.
    pub attainment: f64,
    /// The latency at the percentile, over the whole trace; `None` if it is infinite, because too many had no answer.
    pub value_seconds: Option<f64>,
    /// Share of requests within the threshold in the worst hour with at least 50 requests.
    pub worst_hour: Option<f64>,
    /// The same for the worst of the objective's own windows.
    pub worst_window: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    within: u64,
    total: u64,
}

impl Share {
    fn get(self) -> f64 {
        if self.total == 0 {
            1.0
        } else {
            self.within as f64 / self.total as f64
        }
    }
}

/// Keeps the score of one objective. Its size grows with hours, not with requests.
#[derive(Clone, Debug)]
pub(crate) struct Scorer {
    objective: Objective,
    all: Share,
    hours: Vec<Share>,
    windows: Vec<Share>,
    histogram: Vec<u64>,
}

impl Scorer {
    pub(crate) fn new(objective: Objective) -> Self {
        Self {
            objective,
            all: Share::default(),
            hours: Vec::new(),
            windows: Vec::new(),
            histogram: Vec::new(),
        }
    }

    pub(crate) fn answered(&mut self, request: &Answered) {
        let value = match self.objective.metric {
            Metric::TimeToFirstToken => Some(request.ttft_ms),
            Metric::InterTokenLatency => request.itl_ms,
        };
        if let Some(value_ms) = value {
            self.count(
                request.arrival_ms,
                value_ms <= self.objective.threshold.as_millis() as f64,
            );
            let bucket = bucket(value_ms);
            if self.histogram.len() <= bucket {
                self.histogram.resize(bucket + 1, 0);
            }
            self.histogram[bucket] += 1;
        }
    }

    /// A request without an answer misses every objective.
    pub(crate) fn missed(&mut self, arrival_ms: u64) {
        self.count(arrival_ms, false);
    }

    fn count(&mut self, arrival_ms: u64, within: bool) {
        let window_ms = self.objective.window.as_millis().max(1);
        for (shares, length_ms) in [(&mut self.hours, HOUR_MS), (&mut self.windows, window_ms)] {
            let index = usize::try_from(arrival_ms / length_ms).unwrap_or(usize::MAX);
            if shares.len() <= index {
                shares.resize(index + 1, Share::default());
            }
            shares[index].total += 1;
            shares[index].within += u64::from(within);
        }
        self.all.total += 1;
        self.all.within += u64::from(within);
    }

    pub(crate) fn score(&self) -> ObjectiveScore {
        ObjectiveScore {
            metric: self.objective.metric,
            percentile: self.objective.percentile.get(),
            threshold_seconds: self.objective.threshold.as_secs_f64(),
            attainment: self.all.get(),
            value_seconds: self.value_ms().map(|ms| ms / 1_000.0),
            worst_hour: worst(&self.hours),
            worst_window: worst(&self.windows),
        }
    }

    /// Nearest rank: the smallest value such that at least the percentile of all requests are at or below it.
    fn value_ms(&self) -> Option<f64> {
        let rank = self.objective.percentile.get() * self.all.total as f64;
        let mut below = 0_u64;
        self.histogram.iter().enumerate().find_map(|(bucket, &count)| {
            below += count;
            (count > 0 && below as f64 >= rank).then(|| bucket_middle_ms(bucket))
        })
    }
}

fn worst(shares: &[Share]) -> Option<f64> {
    shares
        .iter()
        .filter(|share| share.total >= LEAST_REQUESTS)
        .map(|share| share.get())
        .reduce(f64::min)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and a logarithm is small"
)]
fn bucket(value_ms: f64) -> usize {
    (value_ms.max(1.0).ln() / BUCKET_GROWTH.ln()) as usize
}

fn bucket_middle_ms(bucket: usize) -> f64 {
    BUCKET_GROWTH.powf(bucket as f64 + 0.5)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pomarium_kernel::time::Span;
    use pomarium_kernel::units::Fraction;

    use super::*;

    #[test]
    fn the_value_is_exact_to_half_a_percent_and_shares_are_exact() {
        for percentile in [0.5, 0.9, 0.95, 0.99] {
            let mut scorer = Scorer::new(Objective {
                metric: Metric::TimeToFirstToken,
                percentile: Fraction::new(percentile),
                threshold: Span::from_millis(3_000),
                window: Span::from_hours(1),
            });
            // Values from 2 ms to an hour, each a little above the one before.
            let value_ms = |index: u32| 2.0 * 1.001_44_f64.powi(index.cast_signed());
            for index in 0..10_000 {
                scorer.answered(&Answered {
                    arrival_ms: u64::from(index * 7_919 % 10_000) * 1_000,
                    prompt_tokens: 1,
                    output_tokens: 1,
                    ttft_ms: value_ms(index),
                    itl_ms: None,
                });
            }
            let score = scorer.score();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
            let exact = value_ms((percentile * 10_000.0).ceil() as u32 - 1) / 1e3;
            let value = score.value_seconds.unwrap();
            assert!(
                (value / exact - 1.0).abs() < 0.005,
                "p{percentile}: {value} and {exact}"
            );
            let within = (0..10_000).filter(|index| value_ms(*index) <= 3_000.0).count();
            assert!((score.attainment - within as f64 / 1e4).abs() < 1e-12);
        }
    }
}
