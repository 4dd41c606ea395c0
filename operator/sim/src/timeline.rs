//! What happened in a simulation, in buckets of time: what a report draws.
//!
//! Its size grows with the simulated time, not with requests: latencies are kept in histograms while a bucket is recent,
//! and as percentiles afterwards.

use std::collections::VecDeque;

use pomarium_kernel::snapshot::{Metric, Objective};
use serde::Serialize;

use crate::histogram::Histogram;
use crate::machines::{Machine, Phase};
use crate::score::Answered;
use crate::world::{Command, Scenario};

/// Five minutes.
const BUCKET_MS: u64 = 300_000;
/// Histograms are kept for so many buckets, two hours; whoever answers later only counts.
const RECENT: usize = 24;
/// At most so many decisions are told per bucket: a rule that flaps would fill the report.
const NOTES_PER_BUCKET: usize = 4;

/// The whole time line of one simulation.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// The start of the first bucket, in ms from the trace's start.
    pub start_ms: i64,
    /// Length of a bucket, in ms.
    pub bucket_ms: u64,
    /// Names of the groups, in the order of placement.
    pub groups: Vec<String>,
    /// One after the other, without gaps.
    pub buckets: Vec<Bucket>,
    /// Decisions, oldest first.
    pub decisions: Vec<Decided>,
    #[serde(skip)]
    objectives: Vec<Objective>,
    #[serde(skip)]
    recent: VecDeque<Recent>,
    /// Buckets before this one are closed.
    #[serde(skip)]
    open: usize,
}

/// What happened in one bucket. Requests count where they arrive, whenever they are answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Requests that arrived.
    pub arrivals: u64,
    /// Those of them that were answered.
    pub served: u64,
    /// Those of them that missed each objective, in the order of the scenario.
    pub misses: Vec<u64>,
    /// Median time to first token, in ms.
    pub ttft_p50_ms: Option<f64>,
    /// Its 95th percentile, in ms.
    pub ttft_p95_ms: Option<f64>,
    /// The 95th percentile of the inter-token latency, in ms.
    pub itl_p95_ms: Option<f64>,
    /// Per group, machines paid for, on average.
    pub paid: Vec<f64>,
    /// Per group, machines that took requests, on average.
    pub serving: Vec<f64>,
    /// Leases and energy so far, at the bucket's end.
    pub cost: f64,
    /// Requests per second that the policy expected when the bucket began: lower quantile, median, upper quantile.
    pub expected: Option<[f64; 3]>,
    #[serde(skip)]
    samples: u32,
}

/// One decision, as told to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// When, in ms from the trace's start.
    pub t_ms: i64,
    /// What: such as `lease 2 hosted, drain owned-3`.
    pub what: String,
    /// Why, in the policy's words; may be empty.
    pub why: String,
}

#[derive(Clone, Debug, Default)]
struct Recent {
    ttft: Histogram,
    itl: Histogram,
}

impl Timeline {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn begin(&mut self, scenario: &Scenario) {
        *self = Self {
            start_ms: scenario.start_ms,
            bucket_ms: BUCKET_MS,
            groups: scenario.groups.iter().map(|group| group.name.clone()).collect(),
            objectives: scenario.objectives.clone(),
            ..Self::default()
        };
    }

    fn index(&self, ms: i64) -> usize {
        usize::try_from(ms.saturating_sub(self.start_ms).unsigned_abs() / BUCKET_MS).unwrap_or(usize::MAX)
    }

    fn grow_to(&mut self, index: usize) {
        while self.buckets.len() <= index {
            self.buckets.push(Bucket {
                misses: vec![0; self.objectives.len()],
                paid: vec![0.0; self.groups.len()],
                serving: vec![0.0; self.groups.len()],
                ..Bucket::default()
            });
            self.recent.push_back(Recent::default());
            if self.recent.len() > RECENT {
                self.settle_oldest();
            }
        }
    }

    fn settle_oldest(&mut self) {
        let index = self.buckets.len() - self.recent.len();
        if let Some(recent) = self.recent.pop_front() {
            let bucket = &mut self.buckets[index];
            bucket.ttft_p50_ms = recent.ttft.at(0.5);
            bucket.ttft_p95_ms = recent.ttft.at(0.95);
            bucket.itl_p95_ms = recent.itl.at(0.95);
        }
    }

    fn at(&mut self, arrival_ms: u64) -> usize {
        let index = self.index(i64::try_from(arrival_ms).unwrap_or(i64::MAX));
        self.grow_to(index);
        index
    }

    pub(crate) fn arrived(&mut self, arrival_ms: u64) {
        let index = self.at(arrival_ms);
        self.buckets[index].arrivals += 1;
    }

    pub(crate) fn answered(&mut self, request: &Answered) {
        let index = self.at(request.arrival_ms);
        let bucket = &mut self.buckets[index];
        bucket.served += 1;
        for (misses, objective) in bucket.misses.iter_mut().zip(&self.objectives) {
            let value_ms = match objective.metric {
                Metric::TimeToFirstToken => Some(request.ttft_ms),
                Metric::InterTokenLatency => request.itl_ms,
            };
            *misses += u64::from(value_ms.is_some_and(|value_ms| value_ms > objective.threshold.as_millis() as f64));
        }
        let oldest = self.buckets.len() - self.recent.len();
        if let Some(recent) = index.checked_sub(oldest).and_then(|index| self.recent.get_mut(index)) {
            recent.ttft.add(request.ttft_ms);
            if let Some(itl_ms) = request.itl_ms {
                recent.itl.add(itl_ms);
            }
        }
    }

    pub(crate) fn missed(&mut self, arrival_ms: u64) {
        let index = self.at(arrival_ms);
        for misses in &mut self.buckets[index].misses {
            *misses += 1;
        }
    }

    /// Whether a bucket has ended since the last call of [`Self::close_until`].
    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        self.buckets.is_empty() || self.index(now_ms) > self.open
    }

    /// Closes the accounts of every bucket that has ended, and notes what is expected of the one that begins.
    pub(crate) fn close_until(&mut self, now_ms: i64, cost: f64, expected: Option<[f64; 3]>) {
        let index = self.index(now_ms);
        self.grow_to(index);
        for bucket in &mut self.buckets[self.open..index] {
            bucket.cost = cost;
        }
        self.open = index;
        self.buckets[index].cost = cost;
        self.buckets[index].expected = expected;
    }

    /// Counts the machines as they are now, into the bucket that is open.
    pub(crate) fn sample(&mut self, live: &[usize], machines: &[Machine]) {
        let Some(bucket) = self.buckets.get_mut(self.open) else {
            return;
        };
        bucket.samples += 1;
        for &machine in live {
            let Machine { group, phase, .. } = machines[machine];
            bucket.paid[group] += 1.0;
            bucket.serving[group] += f64::from(u8::from(phase == Phase::Serving));
        }
    }

    pub(crate) fn decided(&mut self, now_ms: i64, commands: &[Command], why: String, machines: &[Machine]) {
        let bucket = self.index(now_ms);
        let of_bucket = self
            .decisions
            .iter()
            .rev()
            .take_while(|decided| self.index(decided.t_ms) == bucket)
            .count();
        if of_bucket < NOTES_PER_BUCKET {
            let what = self.describe(commands, machines);
            self.decisions.push(Decided {
                t_ms: now_ms,
                what,
                why,
            });
        }
    }

    fn describe(&self, commands: &[Command], machines: &[Machine]) -> String {
        let group_of = |machine: usize| machines.get(machine).map_or(usize::MAX, |machine| machine.group);
        let mut counts: Vec<(&str, usize, u32)> = Vec::new();
        for command in commands {
            let (verb, group) = match *command {
                Command::Lease { group } => ("lease", group),
                Command::Serve { machine } => ("start", group_of(machine)),
                Command::Drain { machine } => ("drain", group_of(machine)),
                Command::Resume { machine } => ("resume", group_of(machine)),
                Command::Release { machine } => ("release", group_of(machine)),
            };
            match counts.iter_mut().find(|(known, of, _)| (*known, *of) == (verb, group)) {
                Some((_, _, count)) => *count += 1,
                None => counts.push((verb, group, 1)),
            }
        }
        let words = counts.iter().map(|&(verb, group, count)| {
            let name = self.groups.get(group).map_or("?", String::as_str);
            format!("{verb} {count} {name}")
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// The simulation has ended and cost so much: turns what is left into percentiles and averages.
    pub(crate) fn finish(&mut self, cost: f64) {
        while !self.recent.is_empty() {
            self.settle_oldest();
        }
        for bucket in self.buckets.iter_mut().skip(self.open) {
            bucket.cost = cost;
        }
        for bucket in &mut self.buckets {
            let samples = f64::from(bucket.samples.max(1));
            bucket
                .paid
                .iter_mut()
                .chain(&mut bucket.serving)
                .for_each(|count| *count /= samples);
        }
    }
}
