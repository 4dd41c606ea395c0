//! What the page draws, as small as it can be: columns of short numbers, and every text once.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::timeline::{Bucket, Decided, Timeline};

/// A chart is no wider than this: longer time lines are drawn coarser.
const MOST_POINTS: usize = 2_400;
/// Decisions of all policies together: more would make the page slow, and nobody would read them.
const MOST_DECISIONS: usize = 8_000;

/// One policy's time line, by column.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Series {
    /// The start of the first point, in ms from the trace's start.
    start: i64,
    /// From one point to the next, in ms.
    step: u64,
    /// Requests per second.
    rate: Vec<f64>,
    /// Expected requests per second: lower quantile, median, upper quantile.
    expected: Option<[Vec<Option<f64>>; 3]>,
    /// Per group, servers that took requests.
    serving: Vec<Vec<f64>>,
    /// Servers that were paid for, of all groups.
    paid: Vec<f64>,
    /// Median TTFT, in s.
    ttft50: Vec<Option<f64>>,
    /// Its 95th percentile, in s.
    ttft95: Vec<Option<f64>>,
    /// 95th percentile of the ITL, in s.
    itl95: Vec<Option<f64>>,
    /// Leases and energy so far.
    cost: Vec<f64>,
    /// Times of decisions, in s from the first point.
    at: Vec<i64>,
    /// What was decided: indices into the words.
    what: Vec<usize>,
    /// Why, likewise.
    why: Vec<usize>,
    /// All texts, each once.
    words: Vec<String>,
    /// How many decisions there were.
    decisions: usize,
}

impl Series {
    pub(super) fn of(timeline: &Timeline, policies: usize) -> Self {
        let merged = timeline.buckets.len().div_ceil(MOST_POINTS).max(1);
        let points: Vec<&[Bucket]> = timeline.buckets.chunks(merged).collect();
        let step = timeline.bucket_ms * merged as u64;
        let column = |value: &dyn Fn(&[Bucket]) -> f64| points.iter().map(|point| short(value(point))).collect();
        let latency = |value: fn(&Bucket) -> Option<f64>| {
            points
                .iter()
                .map(|point| weighted(point, value).map(|ms| short(ms / 1e3)))
                .collect()
        };
        let kept = thin(&timeline.decisions, MOST_DECISIONS / policies.max(1));
        let mut words = Words::default();
        Self {
            start: timeline.start_ms,
            step,
            rate: column(&|point| {
                let arrivals: u64 = point.iter().map(|bucket| bucket.arrivals).sum();
                arrivals as f64 * 1e3 / step as f64
            }),
            expected: expected(&points),
            serving: (0..timeline.groups.len())
                .map(|group| column(&|point| mean(point, |bucket| bucket.serving.get(group).copied().unwrap_or(0.0))))
                .collect(),
            paid: column(&|point| mean(point, |bucket| bucket.paid.iter().sum())),
            ttft50: latency(|bucket| bucket.ttft_p50_ms),
            ttft95: latency(|bucket| bucket.ttft_p95_ms),
            itl95: latency(|bucket| bucket.itl_p95_ms),
            cost: column(&|point| point.last().map_or(0.0, |bucket| bucket.cost)),
            at: kept
                .iter()
                .map(|decided| (decided.t_ms - timeline.start_ms) / 1_000)
                .collect(),
            what: kept.iter().map(|decided| words.index(&decided.what)).collect(),
            why: kept.iter().map(|decided| words.index(&decided.why)).collect(),
            words: words.texts,
            decisions: timeline.decisions.len(),
        }
    }
}

fn expected(points: &[&[Bucket]]) -> Option<[Vec<Option<f64>>; 3]> {
    let any = points
        .iter()
        .any(|point| point.iter().any(|bucket| bucket.expected.is_some()));
    let quantile = |index: usize| {
        let of = |point: &&[Bucket]| {
            point
                .iter()
                .find_map(|bucket| bucket.expected)
                .map(|band| short(band[index]))
        };
        points.iter().map(of).collect()
    };
    any.then(|| [quantile(0), quantile(1), quantile(2)])
}

fn mean(point: &[Bucket], value: impl Fn(&Bucket) -> f64) -> f64 {
    point.iter().map(value).sum::<f64>() / point.len().max(1) as f64
}

/// Mean over the buckets that have a value, weighted by their requests.
fn weighted(point: &[Bucket], value: fn(&Bucket) -> Option<f64>) -> Option<f64> {
    let known = point
        .iter()
        .filter_map(|bucket| Some((value(bucket)?, bucket.served.max(1) as f64)));
    let (sum, weight) = known.fold((0.0, 0.0), |(sum, weight), (value, requests)| {
        (sum + value * requests, weight + requests)
    });
    (weight > 0.0).then(|| sum / weight)
}

/// Four figures: a pixel shows less.
fn short(value: f64) -> f64 {
    if value.abs() < 1e-9 || !value.is_finite() {
        return 0.0;
    }
    let digits = 3.0 - value.abs().log10().floor();
    let factor = 10_f64.powf(digits.min(6.0));
    (value * factor).round() / factor
}

/// At most `most` decisions: all that cost or save money before those that only move replicas, and of the rest every n-th.
fn thin(decisions: &[Decided], most: usize) -> Vec<&Decided> {
    let about_money = |decided: &&Decided| decided.what.contains("lease");
    let money = decisions.iter().filter(about_money).count();
    let others = decisions.len() - money;
    let every = |count: usize, room: usize| {
        if room == 0 {
            usize::MAX
        } else {
            count.div_ceil(room).max(1)
        }
    };
    let (every_money, every_other) = (every(money, most), every(others, most.saturating_sub(money)));
    let (mut seen_money, mut seen_others) = (0, 0);
    decisions
        .iter()
        .filter(|decided| {
            let (seen, every) = if about_money(decided) {
                (&mut seen_money, every_money)
            } else {
                (&mut seen_others, every_other)
            };
            *seen += 1;
            every != usize::MAX && (*seen - 1) % every == 0
        })
        .collect()
}

/// Texts, each once.
#[derive(Default)]
struct Words {
    texts: Vec<String>,
    known: BTreeMap<String, usize>,
}

impl Words {
    fn index(&mut self, text: &str) -> usize {
        if let Some(&index) = self.known.get(text) {
            return index;
        }
        self.known.insert(text.to_owned(), self.texts.len());
        self.texts.push(text.to_owned());
        self.texts.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_figures() {
        for (value, expected) in [
            (0.0, 0.0),
            (1.234_56, 1.235),
            (12_345.6, 12_350.0),
            (0.000_123_456, 0.000_123),
        ] {
            assert!(
                (short(value) - expected).abs() < 1e-12,
                "{value} became {}",
                short(value)
            );
        }
    }

    #[test]
    fn decisions_about_money_are_the_last_to_be_left_out() {
        let decided = |index: usize| Decided {
            t_ms: i64::try_from(index).unwrap_or(0),
            what: if index.is_multiple_of(10) {
                "lease 1 hosted"
            } else {
                "start 1 hosted"
            }
            .to_owned(),
            why: String::new(),
        };
        let all: Vec<Decided> = (0..1_000).map(decided).collect();
        let kept = thin(&all, 200);
        assert!(kept.len() <= 200, "{}", kept.len());
        assert_eq!(
            kept.iter().filter(|decided| decided.what.contains("lease")).count(),
            100
        );
        assert!(kept.is_sorted_by_key(|decided| decided.t_ms));
        assert_eq!(thin(&all, 5_000).len(), 1_000);
    }
}
