//! What a pool's sources have counted over the last minutes.
//!
//! Pure. Sources count since their own start and may start again at any time; the ledger adds up what each of them added
//! from one answer to the next. A source that is seen for the first time only sets its starting point, because what it
//! counted before is not recent; a *series* that a known source shows for the first time began at zero.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pomarium_kernel::forecast::Counts;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Arrivals, Demand, LengthMix, Measured, Metric, Objective};
use pomarium_kernel::strategy::learning::{Answered, Counted};
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Rate;

use super::histogram::{Histogram, length_mix, mean_lengths};
use super::scrape::{Counter, Cumulative, Distribution, Names, Scrape};

/// How far back samples are kept.
const MEMORY: Span = Span::from_minutes(5);
/// The shorter of the two windows.
const MINUTE: Span = Span::from_minutes(1);
/// Most samples kept, whatever their spacing.
const MAX_SAMPLES: usize = 64;
/// Fewer requests than this say little about lengths.
const ENOUGH_FOR_LENGTHS: f64 = 20.0;
/// Prompt length that is assumed of engines that count tokens but not requests (llama.cpp). The load in tokens per second
/// is right whatever this is; how it is cut into requests is a guess.
const NOMINAL_PROMPT: f64 = 512.0;

/// Names one process that counts: the uid of a Pod, or nothing for a gateway.
pub(crate) type Source = String;

/// Everything counted since the ledger was opened.
#[derive(Clone, Debug, Default, PartialEq)]
struct Totals {
    counters: BTreeMap<Counter, f64>,
    distributions: BTreeMap<Distribution, Histogram>,
}

impl Totals {
    fn counter(&self, counter: Counter) -> Option<f64> {
        self.counters.get(&counter).copied()
    }

    fn counter_since(&self, earlier: &Self, counter: Counter) -> Option<f64> {
        let before = earlier.counter(counter).unwrap_or_default();
        Some((self.counter(counter)? - before).max(0.0))
    }

    fn since(&self, earlier: &Self, distribution: Distribution) -> Option<Histogram> {
        let now = self.distributions.get(&distribution)?;
        Some(match earlier.distributions.get(&distribution) {
            Some(before) => now.since(before),
            None => now.clone(),
        })
    }
}

impl Totals {
    /// Requests that were answered, and those that missed each objective; an objective that is not measured misses nothing.
    fn answered(&self, objectives: &[Objective]) -> Option<Answered> {
        let of = |objective: &Objective| self.distributions.get(&distribution(objective.metric));
        let first = self.distributions.get(&Distribution::TimeToFirstToken);
        let all = first.or_else(|| objectives.iter().find_map(of))?;
        let seen = objectives.iter().map(|objective| {
            let seen = of(objective)?;
            let attained = seen.attained(objective.threshold.as_secs_f64())?;
            Some((seen.count(), seen.count() * (1.0 - attained.get())))
        });
        let (measured, missed) = seen.map(Option::unwrap_or_default).unzip();
        Some(Answered {
            objectives: objectives.to_vec(),
            requests: all.count(),
            measured,
            missed,
        })
    }
}

/// What a pool's sources have counted lately.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    opened: Timestamp,
    seen: BTreeMap<Source, Scrape>,
    totals: Totals,
    samples: VecDeque<(Timestamp, Totals)>,
    /// Rounds since the last complete one in which only a part of the sources answered.
    partial: VecDeque<(Timestamp, Totals)>,
    /// Why the last round could not be completed.
    problem: Option<Problem>,
}

impl Ledger {
    /// Nothing counted yet.
    pub(crate) fn open(now: Timestamp) -> Self {
        Self {
            opened: now,
            seen: BTreeMap::new(),
            totals: Totals::default(),
            samples: VecDeque::new(),
            partial: VecDeque::new(),
            problem: None,
        }
    }

    /// Adds what `source` has counted since its last answer.
    pub(crate) fn absorb(&mut self, source: Source, scrape: Scrape) {
        if let Some(before) = self.seen.get(&source) {
            for (key, now) in &scrape.counters {
                let before = before.counters.get(key).copied().unwrap_or_default();
                let added = if *now < before { *now } else { now - before };
                *self.totals.counters.entry(key.0).or_default() += added;
            }
            for (key, now) in &scrape.distributions {
                let total = self.totals.distributions.entry(key.0).or_default();
                add_growth(total, before.distributions.get(key), now);
            }
        } else {
            // Present from now on, even while nothing is added: measured and zero is not unknown.
            for (counter, _) in scrape.counters.keys() {
                self.totals.counters.entry(*counter).or_default();
            }
            for (distribution, _) in scrape.distributions.keys() {
                self.totals.distributions.entry(*distribution).or_default();
            }
        }
        self.seen.insert(source, scrape);
    }

    /// Forgets the starting points of sources that are gone. What they counted stays counted.
    pub(crate) fn keep_sources(&mut self, keep: &BTreeSet<Source>) {
        self.seen.retain(|source, _| keep.contains(source));
    }

    /// Ends a round in which every source answered.
    pub(crate) fn complete(&mut self, at: Timestamp) {
        self.problem = None;
        self.partial.clear();
        self.samples.push_back((at, self.totals.clone()));
        // One sample beyond the window stays: a rate over five minutes needs both of its ends.
        while self.samples.len() > MAX_SAMPLES
            || self
                .samples
                .get(1)
                .is_some_and(|(second, _)| at.since(*second) >= MEMORY)
        {
            self.samples.pop_front();
        }
    }

    /// Whether the last complete round was so long ago.
    pub(crate) fn is_due(&self, now: Timestamp, spacing: Span) -> bool {
        self.samples.back().is_none_or(|(at, _)| now.since(*at) >= spacing)
    }

    /// Ends a round in which something is missing: nothing may be concluded from it.
    pub(crate) fn incomplete(&mut self, problem: Problem) {
        self.problem = Some(problem);
    }

    /// Ends a round in which a part of the sources answered: what they counted is the least that arrived.
    pub(crate) fn incomplete_at(&mut self, at: Timestamp, problem: Problem) {
        self.problem = Some(problem);
        self.partial.push_back((at, self.totals.clone()));
        while self.partial.len() > MAX_SAMPLES {
            self.partial.pop_front();
        }
    }

    /// Arrivals as of `now`, unless the newest sample is older than `stale`.
    pub(crate) fn demand(&self, pool: &PoolId, now: Timestamp, stale: Span) -> Demand {
        self.arrivals(now, stale).unwrap_or_else(|| Demand::Unknown {
            since: self.samples.back().map_or(self.opened, |(at, _)| *at),
            problem: self.problem(pool),
            at_least: self.at_least(now, stale),
        })
    }

    /// Requests per second of those that answered, over the last minute or as much of it as has been seen.
    fn at_least(&self, now: Timestamp, stale: Span) -> Option<Rate> {
        let (at, newest) = self.partial.back().filter(|(at, _)| now.since(*at) <= stale)?;
        let earlier = self.partial.len().saturating_sub(1);
        let rounds = || self.samples.iter().chain(self.partial.iter().take(earlier));
        let recent = |(start, _): &&(Timestamp, Totals)| at.since(*start) <= MEMORY;
        let (start, oldest) = rounds()
            .filter(recent)
            .rfind(|(start, _)| at.since(*start) >= MINUTE)
            .or_else(|| rounds().find(recent))?;
        let secs = at.since(*start).as_secs_f64();
        (secs > 0.0).then_some(())?;
        Some(Rate::per_second(requests_between(oldest, newest)? / secs))
    }

    fn arrivals(&self, now: Timestamp, stale: Span) -> Option<Demand> {
        let (at, newest) = self.fresh(now, stale)?;
        let rate = |window| {
            let (start, oldest) = self.oldest_within(window)?;
            let secs = at.since(*start).as_secs_f64();
            (secs > 0.0).then_some(())?;
            Some(Rate::per_second(requests_between(oldest, newest)? / secs))
        };
        let (_, oldest) = self.oldest_within(MEMORY)?;
        Some(Demand::Known(Arrivals {
            rate_1m: rate(MINUTE)?,
            rate_5m: rate(MEMORY)?,
            lengths: lengths_between(oldest, newest),
            at: *at,
        }))
    }

    /// One objective over the last five minutes. `names` tells whether the source can know at all.
    pub(crate) fn measured(
        &self,
        objective: &Objective,
        names: &Names,
        pool: &PoolId,
        now: Timestamp,
        stale: Span,
    ) -> Measured {
        let distribution = distribution(objective.metric);
        if !names.has(distribution) {
            return Measured::ModelOnly;
        }
        self.attainment(objective, distribution, now, stale)
            .unwrap_or_else(|| Measured::Unknown {
                problem: self.problem(pool),
            })
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of requests"
    )]
    fn attainment(
        &self,
        objective: &Objective,
        distribution: Distribution,
        now: Timestamp,
        stale: Span,
    ) -> Option<Measured> {
        let (at, newest) = self.fresh(now, stale)?;
        let (_, oldest) = self.oldest_within(MEMORY)?;
        let seen = newest.since(oldest, distribution)?;
        Some(Measured::Known {
            value_ms: seen.percentile(objective.percentile)? * 1_000.0,
            attained: seen.attained(objective.threshold.as_secs_f64())?,
            samples: seen.count().round() as u64,
            at: *at,
        })
    }

    /// Everything counted since the ledger was opened, as of the newest complete round. `None` if the sources do not count requests.
    pub(crate) fn counted(&self, objectives: &[Objective]) -> Option<Counted> {
        let (at, totals) = self.samples.back()?;
        let nothing = Totals::default();
        let tokens = |counter, lengths| {
            let counted = totals.counter(counter);
            counted.or_else(|| Some(totals.distributions.get(&lengths)?.sum()))
        };
        Some(Counted {
            at: *at,
            arrived: Counts {
                requests: whole(requests_between(&nothing, totals)?),
                prompt_tokens: whole(tokens(Counter::PromptTokens, Distribution::PromptLength).unwrap_or_default()),
                output_tokens: whole(tokens(Counter::OutputTokens, Distribution::OutputLength).unwrap_or_default()),
            },
            answered: totals.answered(objectives),
        })
    }

    fn fresh(&self, now: Timestamp, stale: Span) -> Option<&(Timestamp, Totals)> {
        self.samples.back().filter(|(at, _)| now.since(*at) <= stale)
    }

    /// The start of a window that ends with the newest sample: the newest sample that is at least `window` older, or the
    /// oldest there is. `None` with a single sample.
    fn oldest_within(&self, window: Span) -> Option<&(Timestamp, Totals)> {
        let (newest, _) = self.samples.back()?;
        let earlier = self.samples.len().checked_sub(1)?;
        let mut candidates = self.samples.iter().take(earlier).rev();
        let oldest = self.samples.front().filter(|_| earlier > 0)?;
        Some(candidates.find(|(at, _)| newest.since(*at) >= window).unwrap_or(oldest))
    }

    fn problem(&self, pool: &PoolId) -> Problem {
        self.problem.clone().unwrap_or_else(|| {
            let what = match self.samples.len() {
                0 => "no source has counted anything yet",
                1 => "one sample is not enough for a rate",
                _ => "too few requests, or the last sample is too old",
            };
            Problem::new(Reason::MetricsUnavailable, format!("metrics of {pool}: {what}"))
        })
    }
}

fn distribution(metric: Metric) -> Distribution {
    match metric {
        Metric::TimeToFirstToken => Distribution::TimeToFirstToken,
        Metric::InterTokenLatency => Distribution::InterTokenLatency,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates; a count that is no number counts as none"
)]
pub(super) fn whole(count: f64) -> u64 {
    count as u64
}

/// Requests that arrived between two samples.
fn requests_between(oldest: &Totals, newest: &Totals) -> Option<f64> {
    newest
        .counter_since(oldest, Counter::Requests)
        .or_else(|| {
            newest
                .since(oldest, Distribution::TimeToFirstToken)
                .map(|seen| seen.count())
        })
        .or_else(|| {
            newest
                .counter_since(oldest, Counter::PromptTokens)
                .map(|tokens| tokens / NOMINAL_PROMPT)
        })
}

fn lengths_between(oldest: &Totals, newest: &Totals) -> Option<LengthMix> {
    let requests = requests_between(oldest, newest)?;
    let prompts = newest.since(oldest, Distribution::PromptLength);
    let outputs = newest.since(oldest, Distribution::OutputLength);
    if let (Some(prompts), Some(outputs)) = (prompts, outputs) {
        let enough = prompts.count().min(outputs.count()) >= ENOUGH_FOR_LENGTHS;
        return enough.then(|| length_mix(&prompts, &outputs)).flatten();
    }
    let prompt = newest.counter_since(oldest, Counter::PromptTokens)?;
    let output = newest.counter_since(oldest, Counter::OutputTokens)?;
    (requests >= ENOUGH_FOR_LENGTHS).then(|| mean_lengths(prompt / requests, output / requests))
}

/// Adds to `total` what a histogram gained from `before` to `now`.
fn add_growth(total: &mut Histogram, before: Option<&Cumulative>, now: &Cumulative) {
    let nothing = Cumulative::default();
    let mut before = before.unwrap_or(&nothing);
    let old = |before: &Cumulative, bound| before.buckets.get(bound).copied().unwrap_or_default();
    if now.buckets.iter().any(|(bound, count)| *count < old(before, bound)) {
        // The source began anew: all that it has now is new.
        before = &nothing;
    }
    let mut below = 0.0_f64;
    for (bound, count) in &now.buckets {
        let gained = count - old(before, bound);
        total.add(*bound, (gained - below).max(0.0));
        below = below.max(gained);
    }
    total.add_sum((now.sum - before.sum).max(0.0));
}

#[cfg(test)]
mod tests;
