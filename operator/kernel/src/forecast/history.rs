//! What arrived at one pool: counts in aligned buckets of 5 minutes for 2 days and of an hour for 28 days.
//!
//! A bucket knows how much of it was measured. What was not measured is a gap and never a zero: rates are counts over
//! measured time, and a bucket that was hardly measured has no rate at all. Bounded: old buckets fall out at the end.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::buckets::Buckets;
use super::packing;
use crate::snapshot::LengthMix;
use crate::time::{Span, Timestamp};
use crate::work;

/// What arrived in some span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that arrived.
    pub requests: u64,
    /// Prompt tokens of them.
    pub prompt_tokens: u64,
    /// Output tokens of them.
    pub output_tokens: u64,
}

/// The work of a request of which nobody counts tokens. Every empty bucket of every history asks for it.
static ASSUMED: LazyLock<f64> = LazyLock::new(|| LengthMix::assumed().work());

impl Counts {
    /// How much there is to do for them, see [`work`]. As much as is assumed where nobody counts tokens.
    pub fn work(self) -> f64 {
        if self.prompt_tokens == 0 && self.output_tokens == 0 {
            self.requests as f64 * *ASSUMED
        } else {
            work::of_tokens(self.prompt_tokens as f64, self.output_tokens as f64)
        }
    }

    fn zip(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: combine(self.requests, other.requests),
            prompt_tokens: combine(self.prompt_tokens, other.prompt_tokens),
            output_tokens: combine(self.output_tokens, other.output_tokens),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    fn minus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// The part of an evenly spread count that falls into the first `elapsed` of `whole` ms, rounded down.
    fn first(self, elapsed: u64, whole: u64) -> Self {
        let part = |count: u64| {
            let share = u128::from(count) * u128::from(elapsed.min(whole)) / u128::from(whole.max(1));
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        Self {
            requests: part(self.requests),
            prompt_tokens: part(self.prompt_tokens),
            output_tokens: part(self.output_tokens),
        }
    }
}

/// One aligned span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// What was counted.
    pub counts: Counts,
    /// How many ms of it were measured; 0 is a gap.
    pub measured_ms: u32,
}

/// A bucket has a rate from this share of its span on: with less, one request too many would be a surge.
const LEAST_MEASURED: f64 = 0.2;

impl Bucket {
    /// Work per second while it was measured; `None` if hardly any of `span` was.
    pub fn work_per_s(&self, span: Span) -> Option<f64> {
        let measured = f64::from(self.measured_ms);
        let enough = self.measured_ms > 0 && measured >= LEAST_MEASURED * span.as_millis() as f64;
        enough.then(|| self.counts.work() * 1_000.0 / measured)
    }
}

/// Buckets of one span without holes in their numbering; bucket `n` is `[n · span, (n + 1) · span)` of Unix time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    pub(crate) span: Span,
    pub(crate) capacity: usize,
    /// The number of the first bucket.
    pub(crate) first: i64,
    pub(crate) buckets: Buckets,
}

impl Series {
    const fn new(span: Span, capacity: usize) -> Self {
        Self {
            span,
            capacity,
            first: 0,
            buckets: Buckets::new(),
        }
    }

    /// The number of the bucket that contains `at`.
    pub(crate) fn number(&self, at: Timestamp) -> i64 {
        at.as_millis().div_euclid(self.span.as_millis().cast_signed().max(1))
    }

    /// When bucket `number` begins.
    pub(crate) fn start_of(&self, number: i64) -> Timestamp {
        Timestamp::from_millis(number.saturating_mul(self.span.as_millis().cast_signed()))
    }

    /// The number after the last bucket's.
    pub(crate) fn end(&self) -> i64 {
        self.first
            .saturating_add(i64::try_from(self.buckets.len()).unwrap_or(i64::MAX))
    }

    /// Changes bucket `number`, made if it is new; the oldest ones go. Nothing if it is older than what is kept.
    fn change(&mut self, number: i64, change: impl FnOnce(&mut Bucket)) {
        let room = i64::try_from(self.capacity).unwrap_or(i64::MAX);
        if self.buckets.is_empty() || number.saturating_sub(self.end()) >= room {
            self.buckets.clear();
            self.first = number;
        }
        while self.end() <= number {
            self.buckets.push_back(Bucket::default());
        }
        while self.buckets.len() > self.capacity {
            self.buckets.pop_front();
            self.first += 1;
        }
        if let Ok(index) = usize::try_from(number.saturating_sub(self.first)) {
            self.buckets.change(index, change);
        }
    }

    /// Adds counts of `[from, until)`, spread evenly.
    fn add(&mut self, from: Timestamp, until: Timestamp, counts: Counts) {
        let whole = until.since(from).as_millis();
        let (mut at, mut given) = (from, Counts::default());
        while at < until {
            let number = self.number(at);
            let next = self.start_of(number.saturating_add(1)).min(until);
            let due = counts.first(next.since(from).as_millis(), whole);
            let span = self.span.as_millis();
            self.change(number, |bucket| {
                let measured = u64::from(bucket.measured_ms) + next.since(at).as_millis();
                bucket.measured_ms = u32::try_from(measured.min(span)).unwrap_or(u32::MAX);
                bucket.counts = bucket.counts.plus(due.minus(given));
            });
            (at, given) = (next, due);
        }
    }

    /// Takes over from `other` every bucket that it has measured more of.
    fn merge(&mut self, other: &Self) {
        for (number, theirs) in (other.first..).zip(other.buckets.iter()) {
            if theirs.measured_ms == 0 || (number < self.first && !self.prepend(number)) {
                continue;
            }
            self.change(number, |ours| {
                if ours.measured_ms < theirs.measured_ms {
                    *ours = theirs;
                }
            });
        }
    }

    /// Makes buckets down to `number`, if there is room for them.
    fn prepend(&mut self, number: i64) -> bool {
        let wanted = usize::try_from(self.end().saturating_sub(number)).unwrap_or(usize::MAX);
        if wanted > self.capacity {
            return false;
        }
        if let Ok(missing) = usize::try_from(self.first.saturating_sub(number)) {
            self.buckets.prepend(missing);
            self.first = self.first.min(number);
        }
        true
    }

    /// Forgets everything from `at` on.
    fn truncate(&mut self, at: Timestamp) {
        let keep = self.number(at).saturating_add(1).saturating_sub(self.first).max(0);
        self.buckets.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }
}

/// A measurement was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// It ends before it begins, or when it begins.
    #[error("recording a measurement over no time")]
    Empty,
    /// It is so long that nobody can tell when its requests arrived.
    #[error("recording a measurement over more than an hour")]
    TooLong,
    /// All of its time is recorded already.
    #[error("recording a measurement of a time that is recorded already")]
    Late,
    /// It lies so far from 1970 that its time cannot be reckoned with.
    #[error("recording a measurement of no time that can be")]
    Unreal,
}

/// What arrived at one pool, lately and in the last four weeks.
///
/// # Guarantees
/// Bounded (1,248 buckets), and never counts one moment twice. Serialises compactly, mostly below 15 kB of JSON, and
/// reads back as the same value; damaged text is an error, not a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "packing::Packed", into = "packing::Packed")]
pub struct History {
    pub(crate) fine: Series,
    pub(crate) coarse: Series,
    /// Everything before is recorded, or is a gap.
    pub(crate) until: Option<Timestamp>,
}

/// The span of a fine bucket.
pub const FINE: Span = Span::from_minutes(5);
/// The span of a coarse bucket.
pub const COARSE: Span = Span::from_hours(1);
/// Two days.
pub(crate) const FINE_BUCKETS: usize = 2 * 288;
/// Four weeks.
pub(crate) const COARSE_BUCKETS: usize = 28 * 24;

/// Bursts of minutes are averaged out over so long.
const LATELY: Span = Span::from_minutes(30);

/// A longer measurement tells nothing about when within it requests arrived.
const LONGEST: Span = Span::from_hours(1);

/// A clock that runs back by less is not believed: the measurement is late. By more, the clock was wrong before, and what was
/// recorded for times that have not come is forgotten.
const CLOCK_SET_BACK: Span = Span::from_hours(1);

/// Some million years around 1970: far enough from the ends of `i64` that no sum overflows.
const REAL_MS: u64 = 1 << 58;

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// Nothing recorded yet.
    pub const fn new() -> Self {
        Self {
            fine: Series::new(FINE, FINE_BUCKETS),
            coarse: Series::new(COARSE, COARSE_BUCKETS),
            until: None,
        }
    }

    /// Adds what arrived in `[from, until)`, spread evenly over it. Time that is recorded already is cut off, with its share
    /// of the counts. Time between the last measurement and `from` stays a gap.
    pub fn record(&mut self, from: Timestamp, until: Timestamp, counts: Counts) -> Result<(), NotRecorded> {
        if until <= from {
            return Err(NotRecorded::Empty);
        }
        if from.as_millis().unsigned_abs() > REAL_MS || until.as_millis().unsigned_abs() > REAL_MS {
            return Err(NotRecorded::Unreal);
        }
        if until.since(from) > LONGEST {
            return Err(NotRecorded::TooLong);
        }
        let (mut from, mut counts) = (from, counts);
        if let Some(recorded) = self.until {
            if recorded.since(until) > CLOCK_SET_BACK {
                self.fine.truncate(from - FINE);
                self.coarse.truncate(from - COARSE);
            } else if until <= recorded {
                return Err(NotRecorded::Late);
            } else if from < recorded {
                let cut = counts.first(recorded.since(from).as_millis(), until.since(from).as_millis());
                (from, counts) = (recorded, counts.minus(cut));
            }
        }
        self.fine.add(from, until, counts);
        self.coarse.add(from, until, counts);
        self.until = Some(until);
        Ok(())
    }

    /// Fills gaps from `other`, such as a history read from Prometheus: for each bucket, whichever has measured more of it.
    pub fn merge(&mut self, other: &Self) {
        self.fine.merge(&other.fine);
        self.coarse.merge(&other.coarse);
        self.until = self.until.max(other.until);
    }

    /// Up to when measurements are recorded. `None` if nothing is.
    pub fn recorded_until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Work per second over the last half hour before `now`, as far as it was measured. `None` if hardly any of it was.
    pub fn lately(&self, now: Timestamp) -> Option<f64> {
        let recent = self.fine().filter(|(start, _)| now.since(*start) <= LATELY);
        let mut all = Bucket::default();
        for (_, bucket) in recent {
            all.counts = all.counts.plus(bucket.counts);
            all.measured_ms = all.measured_ms.saturating_add(bucket.measured_ms);
        }
        all.work_per_s(FINE)
    }

    /// The buckets of 5 minutes with their starts, oldest first.
    pub fn fine(&self) -> impl Iterator<Item = (Timestamp, Bucket)> {
        (self.fine.first..)
            .map(|number| self.fine.start_of(number))
            .zip(self.fine.buckets.iter())
    }

    /// The hourly buckets with their starts, oldest first.
    pub fn hourly(&self) -> impl Iterator<Item = (Timestamp, Bucket)> {
        (self.coarse.first..)
            .map(|number| self.coarse.start_of(number))
            .zip(self.coarse.buckets.iter())
    }

    /// Mean prompt and output tokens of a request: over the last 6 hours that have any, else over all. `None` without any.
    pub fn mean_lengths(&self) -> Option<(f64, f64)> {
        let recent = 6 * 12;
        [
            self.fine.buckets.last(recent).collect::<Vec<_>>(),
            self.coarse.buckets.iter().collect(),
        ]
        .into_iter()
        .find_map(|buckets| {
            let sum = buckets
                .iter()
                .fold(Counts::default(), |sum, bucket| sum.plus(bucket.counts));
            let known = sum.requests > 0 && (sum.prompt_tokens > 0 || sum.output_tokens > 0);
            let per_request = |tokens: u64| tokens as f64 / sum.requests as f64;
            known.then(|| (per_request(sum.prompt_tokens), per_request(sum.output_tokens)))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn ms(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn minutes(minutes: i64) -> Timestamp {
        ms(minutes * 60_000)
    }

    fn requests(requests: u64) -> Counts {
        Counts {
            requests,
            prompt_tokens: requests * 1_000,
            output_tokens: requests * 200,
        }
    }

    fn rates(history: &History) -> Vec<Option<f64>> {
        history
            .fine()
            .map(|(_, bucket)| {
                let each = requests(1).work();
                bucket.work_per_s(FINE).map(|work| (work / each * 1e6).round() / 1e6)
            })
            .collect()
    }

    #[test]
    fn a_gap_is_a_gap_and_silence_is_zero() {
        let mut history = History::new();
        history.record(minutes(0), minutes(5), requests(300)).unwrap();
        history.record(minutes(10), minutes(15), requests(0)).unwrap();
        assert_eq!(rates(&history), [Some(1.0), None, Some(0.0)]);
    }

    #[test]
    fn a_bucket_that_was_half_measured_keeps_its_rate() {
        let mut history = History::new();
        history.record(minutes(0), minutes(2), requests(120)).unwrap();
        // A restart of the operator; the next measurement comes two minutes later.
        let text = serde_json::to_string(&history).unwrap();
        let mut history: History = serde_json::from_str(&text).unwrap();
        history.record(minutes(4), minutes(5), requests(60)).unwrap();
        assert_eq!(rates(&history), [Some(1.0)]);
        let bucket = history.fine().next().unwrap().1;
        assert_eq!((bucket.counts.requests, bucket.measured_ms), (180, 180_000));
    }

    #[test]
    fn a_measurement_over_a_boundary_is_split_without_loss() {
        let mut history = History::new();
        history.record(minutes(4), minutes(7), requests(100)).unwrap();
        let counts: Vec<_> = history.fine().map(|(_, bucket)| bucket.counts.requests).collect();
        assert_eq!(counts, [33, 67]);
    }

    #[test]
    fn no_moment_counts_twice() {
        let mut history = History::new();
        history.record(minutes(0), minutes(5), requests(300)).unwrap();
        assert_eq!(
            history.record(minutes(1), minutes(4), requests(180)),
            Err(NotRecorded::Late)
        );
        history.record(minutes(4), minutes(6), requests(120)).unwrap();
        assert_eq!(
            history
                .fine()
                .map(|(_, bucket)| bucket.counts.requests)
                .collect::<Vec<_>>(),
            [300, 60]
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut history = History::new();
        for (from, until, error) in [
            (5, 5, NotRecorded::Empty),
            (5, 4, NotRecorded::Empty),
            (i64::MIN, i64::MAX, NotRecorded::Unreal),
            (i64::MAX - 1, i64::MAX, NotRecorded::Unreal),
            (0, 3_600_001, NotRecorded::TooLong),
        ] {
            assert_eq!(history.record(ms(from), ms(until), requests(1)), Err(error));
        }
        assert_eq!(history, History::new());
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_the_times_that_have_not_come() {
        let mut history = History::new();
        history.record(minutes(0), minutes(5), requests(300)).unwrap();
        history
            .record(minutes(60 * 24), minutes(60 * 24 + 5), requests(900))
            .unwrap();
        history.record(minutes(5), minutes(10), requests(600)).unwrap();
        assert_eq!(rates(&history), [Some(1.0), Some(2.0)]);
        assert_eq!(history.recorded_until(), Some(minutes(10)));
    }

    #[test]
    fn a_gap_longer_than_the_memory_leaves_only_the_new() {
        let mut history = History::new();
        history.record(minutes(0), minutes(5), requests(300)).unwrap();
        let years = 60 * 24 * 365 * 100;
        history.record(minutes(years), minutes(years + 5), requests(9)).unwrap();
        assert_eq!((history.fine().count(), history.hourly().count()), (1, 1));
    }

    #[test]
    fn gaps_are_filled_from_another_history() {
        let (mut ours, mut theirs) = (History::new(), History::new());
        theirs.record(minutes(0), minutes(5), requests(300)).unwrap();
        theirs.record(minutes(5), minutes(10), requests(600)).unwrap();
        theirs.record(minutes(10), minutes(11), requests(1)).unwrap();
        ours.record(minutes(10), minutes(15), requests(900)).unwrap();
        ours.merge(&theirs);
        assert_eq!(rates(&ours), [Some(1.0), Some(2.0), Some(3.0)]);
    }

    #[test]
    fn lengths_are_means_of_the_last_hours_with_traffic() {
        let mut history = History::new();
        assert_eq!(history.mean_lengths(), None);
        history.record(minutes(0), minutes(5), requests(10)).unwrap();
        assert_eq!(history.mean_lengths(), Some((1_000.0, 200.0)));
        history
            .record(minutes(60 * 12), minutes(60 * 12 + 5), requests(0))
            .unwrap();
        assert_eq!(history.mean_lengths(), Some((1_000.0, 200.0)));
    }

    proptest! {
        #[test]
        fn whatever_is_recorded_is_bounded_and_reads_back_the_same(
            steps in prop::collection::vec((any::<i32>(), 0_i64..4_000_000, any::<u64>(), any::<u64>()), 0..60)
        ) {
            let mut history = History::new();
            for (start, length, count, tokens) in steps {
                let from = i64::from(start) * 1_000;
                let counts = Counts { requests: count, prompt_tokens: tokens, output_tokens: count ^ tokens };
                let _ = history.record(ms(from), ms(from + length), counts);
                prop_assert!(history.fine.buckets.len() <= FINE_BUCKETS);
                prop_assert!(history.coarse.buckets.len() <= COARSE_BUCKETS);
            }
            let text = serde_json::to_string(&history).unwrap();
            prop_assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
        }

        #[test]
        fn in_order_measurements_are_all_kept(counts in prop::collection::vec(0_u64..10_000, 1..100), step in 1_000_i64..900_000) {
            let mut history = History::new();
            for (at, count) in (0..).map(|index| index * step).zip(&counts) {
                history.record(ms(at), ms(at + step), requests(*count)).unwrap();
            }
            let kept = |buckets: Vec<Bucket>| buckets.iter().map(|bucket| bucket.counts.requests).sum::<u64>();
            prop_assert_eq!(kept(history.hourly().map(|(_, bucket)| bucket).collect()), counts.iter().sum::<u64>());
        }
    }
}
