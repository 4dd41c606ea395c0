//! What a pool's [`Past`] learns from measurements.
//!
//! Whoever measures hands in everything counted so far, again and again; what was added since the last time is learnt. Arrivals are
//! recorded every time. What was burnt is compared with what was expected every few minutes only: over less, chance says more than
//! load.
//!
//! # Guarantees
//! A gap between two measurements stays a gap: what was counted in it is not learnt, because what restarted meanwhile has lost a part of
//! it. A count that falls, or other objectives, begin anew. Nothing is learnt of a pool before its first request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ahead::{PoolAhead, REPLAN};
use super::past::{Load, Past};
use crate::forecast::{Counts, Event};
use crate::names::GroupName;
use crate::snapshot::Objective;
use crate::time::{Span, Timestamp};

/// Up to this load, what some minutes burnt can be compared with what is expected of them. Beyond it a backlog grows: what it burns is
/// expected of the time in which it arises and measured when it is worked off.
const COMPARABLE: f64 = 0.9;

/// Everything that was counted for a pool up to a moment, since the same moment as the time before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Up to when.
    pub at: Timestamp,
    /// What arrived; tokens as far as they are counted.
    pub arrived: Counts,
    /// What was answered; `None` if the source cannot tell.
    pub answered: Option<Answered>,
}

/// Requests that were answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// What was promised for them.
    pub objectives: Vec<Objective>,
    /// All of them.
    pub requests: f64,
    /// Per objective, what is measured against it: requests with at least two tokens have an inter-token latency, and some engines count tokens.
    pub measured: Vec<f64>,
    /// What of that missed it.
    pub missed: Vec<f64>,
}

impl Answered {
    /// What was added since `before`: requests, and per objective as many of them as the share that missed it. `None` if something else was
    /// promised then.
    fn since(&self, before: &Self) -> Option<(f64, Vec<f64>)> {
        (self.objectives == before.objectives).then_some(())?;
        let requests = (self.requests - before.requests).max(0.0);
        let added = |now: &[f64], then: &[f64]| -> Vec<f64> {
            let both = now.iter().zip(then);
            both.map(|(now, then)| (now - then).max(0.0)).collect()
        };
        let (measured, missed) = (
            added(&self.measured, &before.measured),
            added(&self.missed, &before.missed),
        );
        let share = |(missed, measured): (&f64, &f64)| if *measured > 0.0 { missed / measured } else { 0.0 };
        let missed = missed.iter().zip(&measured).map(share);
        Some((requests, missed.map(|share| requests * share.min(1.0)).collect()))
    }
}

/// What is known of a pool beside what was counted.
#[derive(Clone, Debug)]
pub struct Circumstances<'a> {
    /// Events that are known to change its demand.
    pub events: &'a [Event],
    /// Replicas that serve now, by group.
    pub serving: &'a BTreeMap<GroupName, u32>,
    /// The strategic plan for it.
    pub ahead: Option<&'a PoolAhead>,
    /// Measurements that are further apart have a gap between them.
    pub gap: Span,
}

/// Learns from one measurement after the other. Not worth keeping: after a restart it begins with the next measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learner {
    /// The last measurement.
    last: Option<Counted>,
    /// The one up to which burn was compared.
    compared: Option<Counted>,
    /// Serving replicas by group, summed over the measurements since then, and how many those were.
    served: BTreeMap<GroupName, f64>,
    measurements: f64,
    /// Prompt and output tokens, at most zero: so many more than were counted since have been recorded.
    owed: [f64; 2],
}

impl Learner {
    /// Learns what was added since the last measurement. False if `past` stays as it is.
    pub fn learn(&mut self, past: &mut Past, counted: &Counted, seen: &Circumstances<'_>) -> bool {
        let Some(last) = self.last.replace(counted.clone()) else {
            self.begin(counted);
            return false;
        };
        if counted.at == last.at {
            return false;
        }
        let Some(arrived) = added(&last, counted).filter(|_| counted.at.since(last.at) <= seen.gap) else {
            self.begin(counted);
            self.owed = [0.0; 2];
            return false;
        };
        let nothing_yet = past.history.recorded_until().is_none() && arrived.requests == 0;
        if nothing_yet {
            self.begin(counted);
            return false;
        }
        let arrived = self.with_tokens(past, &last, counted, arrived);
        past.arrived(last.at, counted.at, arrived, seen.events);
        self.compare(past, counted, seen);
        true
    }

    /// What arrived, with its tokens. Sources count tokens when they are read or written, and what has just arrived waits for that, the longer
    /// the more there is: as long as it is not answered it is taken to be as long as others lately, and what proves to be too much or too little
    /// then is made up for.
    fn with_tokens(&mut self, past: &Past, last: &Counted, counted: &Counted, arrived: Counts) -> Counts {
        let answered = |counted: &Counted| Some(counted.answered.as_ref()?.requests);
        let (Some(was), Some(is), Some((prompt, output))) =
            (answered(last), answered(counted), past.history.mean_lengths())
        else {
            return arrived;
        };
        let more_wait = arrived.requests as f64 - (is - was).max(0.0);
        let tokens = |counted: u64, each: f64, owed: &mut f64| {
            let tokens = counted as f64 + more_wait * each + *owed;
            *owed = tokens.min(0.0);
            whole(tokens)
        };
        let [prompts, outputs] = &mut self.owed;
        Counts {
            prompt_tokens: tokens(arrived.prompt_tokens, prompt, prompts),
            output_tokens: tokens(arrived.output_tokens, output, outputs),
            ..arrived
        }
    }

    fn begin(&mut self, counted: &Counted) {
        self.compared = Some(counted.clone());
        self.served.clear();
        self.measurements = 0.0;
    }

    /// Compares what was burnt with what was expected.
    fn compare(&mut self, past: &mut Past, counted: &Counted, seen: &Circumstances<'_>) {
        for (group, serving) in seen.serving {
            *self.served.entry(group.clone()).or_default() += f64::from(*serving);
        }
        self.measurements += 1.0;
        let Some(before) = &self.compared else { return };
        let length = counted.at.since(before.at);
        if length < REPLAN {
            return;
        }
        if let (Some(was), Some(is)) = (&before.answered, &counted.answered)
            && let Some((answered, missed)) = is.since(was)
        {
            // The rate around: bursts are in the table.
            let lately = past.history.lately(counted.at);
            let load = seen.ahead.zip(lately);
            let load = load.and_then(|(ahead, work_per_s)| self.load(ahead, work_per_s));
            past.ledger
                .answered(counted.at, &is.objectives, answered, &missed, load);
        }
        self.begin(counted);
    }

    /// The load on the replicas that served lately when so much work arrives; `None` if what it burns cannot be told.
    fn load(&self, ahead: &PoolAhead, work_per_s: f64) -> Option<Load> {
        let of = |(group, sum): (&GroupName, &f64)| ahead.capacity.get(group).unwrap_or(&0.0) * sum / self.measurements;
        let capacity = self.served.iter().map(of).sum::<f64>() * ahead.work;
        (work_per_s <= COMPARABLE * capacity && capacity > 0.0).then_some(Load { work_per_s, capacity })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn whole(tokens: f64) -> u64 {
    tokens.round() as u64
}

/// What arrived from one measurement to the next; `None` if they do not follow each other.
fn added(before: &Counted, after: &Counted) -> Option<Counts> {
    let (was, is) = (before.arrived, after.arrived);
    (after.at > before.at).then_some(())?;
    Some(Counts {
        requests: is.requests.checked_sub(was.requests)?,
        prompt_tokens: is.prompt_tokens.checked_sub(was.prompt_tokens)?,
        output_tokens: is.output_tokens.checked_sub(was.output_tokens)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::BurnTable;
    use super::super::burn::LOADS;
    use super::*;
    use crate::forecast::FINE;
    use crate::snapshot::Metric;
    use crate::units::Fraction;
    use crate::work::of_tokens;

    const GAP: Span = Span::from_minutes(2);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + secs * 1_000)
    }

    fn counted(secs: i64, requests: u64, missed: f64) -> Counted {
        let objective = Objective {
            metric: Metric::TimeToFirstToken,
            percentile: Fraction::new(0.95),
            threshold: Span::from_secs(1),
            window: Span::from_hours(24),
        };
        Counted {
            at: at(secs),
            arrived: Counts {
                requests,
                prompt_tokens: requests * 100,
                output_tokens: requests * 10,
            },
            answered: Some(Answered {
                objectives: vec![objective],
                requests: requests as f64,
                measured: vec![requests as f64],
                missed: vec![missed],
            }),
        }
    }

    fn learn(measurements: &[Counted], ahead: Option<&PoolAhead>) -> Past {
        let (mut learner, mut past) = (Learner::default(), Past::default());
        let serving = [(GroupName::from("owned"), 2)].into();
        for counted in measurements {
            let seen = Circumstances {
                events: &[],
                serving: &serving,
                ahead,
                gap: GAP,
            };
            learner.learn(&mut past, counted, &seen);
        }
        past
    }

    fn recorded(past: &Past) -> (u64, u64) {
        let buckets = past.history.fine().map(|(_, bucket)| bucket);
        buckets.fold((0, 0), |(requests, ms), bucket| {
            (requests + bucket.counts.requests, ms + u64::from(bucket.measured_ms))
        })
    }

    #[test]
    fn what_was_added_is_recorded_and_what_was_counted_before_is_not() {
        let past = learn(
            &[
                counted(0, 1_000, 0.0),
                counted(15, 1_030, 0.0),
                counted(15, 1_030, 0.0),
                counted(30, 1_060, 0.0),
            ],
            None,
        );
        assert_eq!(recorded(&past), (60, 30_000));
    }

    #[test]
    fn a_gap_stays_a_gap_and_a_count_that_falls_begins_anew() {
        let gap = [
            counted(0, 0, 0.0),
            counted(15, 30, 0.0),
            counted(200, 500, 0.0),
            counted(215, 530, 0.0),
        ];
        assert_eq!(recorded(&learn(&gap, None)), (60, 30_000));
        let falls = [
            counted(0, 0, 0.0),
            counted(15, 30, 0.0),
            counted(30, 5, 0.0),
            counted(45, 35, 0.0),
        ];
        assert_eq!(recorded(&learn(&falls, None)), (60, 30_000));
    }

    #[test]
    fn before_its_first_request_nothing_is_known_of_a_pool() {
        let quiet = [counted(0, 0, 0.0), counted(15, 0, 0.0), counted(30, 0, 0.0)];
        assert_eq!(learn(&quiet, None), Past::default());
        let mut begun = quiet.to_vec();
        begun.extend([counted(45, 30, 0.0), counted(60, 30, 0.0)]);
        assert_eq!(
            recorded(&learn(&begun, None)),
            (30, 30_000),
            "silence after it is silence"
        );
    }

    #[test]
    fn what_waits_is_work_before_its_tokens_are_counted_and_counts_once() {
        // Forty requests each 15 s; those of three minutes are read and answered only afterwards, twice as many at a time.
        let measurement = |n: u64| {
            let answered = match n {
                0..=40 => 40 * n,
                41..=52 => 1_600,
                _ => (1_600 + 80 * (n - 52)).min(40 * n),
            };
            let mut counted = counted(15 * n.cast_signed(), 40 * n, 0.0);
            counted.arrived.prompt_tokens = 100 * answered;
            counted.arrived.output_tokens = 10 * answered;
            counted.answered = counted.answered.map(|all| Answered {
                requests: answered as f64,
                measured: vec![answered as f64],
                ..all
            });
            counted
        };
        let measurements: Vec<Counted> = (0..=80).map(measurement).collect();
        let work_per_s = |from: i64, until: i64| {
            let past = learn(&measurements, None);
            let buckets = past
                .history
                .fine()
                .filter(|(start, _)| (at(from)..at(until)).contains(start));
            buckets
                .map(|(_, bucket)| bucket.work_per_s(FINE).unwrap_or(f64::NAN))
                .collect::<Vec<_>>()
        };
        let steady = 40.0 / 15.0 * of_tokens(100.0, 10.0);
        let all = work_per_s(0, 1_200);
        assert_eq!(all.len(), 4);
        assert!(
            all.iter().all(|work| (work - steady).abs() < 0.01 * steady),
            "{all:?}, {steady}"
        );
    }

    #[test]
    fn misses_are_booked_every_few_minutes_and_compared_with_the_plan() {
        let every_15_s = |missed: f64| -> Vec<Counted> {
            (0..=40)
                .map(|n| counted(n * 15, 30 * n.unsigned_abs(), missed * n as f64))
                .collect()
        };
        let past = learn(&every_15_s(0.3), None);
        let objectives = counted(0, 0, 0.0)
            .answered
            .map(|answered| answered.objectives)
            .unwrap_or_default();
        let left = past.ledger.carried(at(600), &objectives);
        // 1,200 requests but for eight hundredths, of which 12 burnt 20 each.
        assert!((left - (1_104.0 - 240.0)).abs() < 1e-6, "{left}");

        let ahead = PoolAhead {
            burn: BurnTable::new(vec![
                (1.0, LOADS.map(|load| 0.1 * load)),
                (10.0, LOADS.map(|load| 0.1 * load)),
            ]),
            capacity: [(GroupName::from("owned"), 2.0)].into(),
            work: of_tokens(100.0, 10.0),
            ..PoolAhead::default()
        };
        let correction = |past: &Past| past.ledger.correction(ahead.burn.as_ref().unwrap(), ahead.work);
        let (expected, more) = (
            learn(&every_15_s(0.05), Some(&ahead)),
            learn(&every_15_s(3.0), Some(&ahead)),
        );
        assert!(correction(&more) > correction(&expected));

        let overloaded = PoolAhead {
            capacity: [(GroupName::from("owned"), 1.0)].into(),
            ..ahead.clone()
        };
        let beyond = correction(&learn(&every_15_s(3.0), Some(&overloaded)));
        assert!((beyond - 1.0).abs() < 1e-9, "a backlog says nothing about the model");
    }

    #[test]
    fn an_objective_counts_by_the_share_of_what_is_measured_against_it() {
        // A tenth misses: of every second request, since the others are of one token; or of 200 tokens of each.
        for measured in [0.5, 200.0] {
            let counted = |n: i64| {
                let mut counted = counted(n * 15, 30 * n.unsigned_abs(), 0.0);
                counted.answered = counted.answered.map(|all| Answered {
                    measured: vec![measured * all.requests],
                    missed: vec![0.1 * measured * all.requests],
                    ..all
                });
                counted
            };
            let past = learn(&(0..=40).map(counted).collect::<Vec<_>>(), None);
            let objectives = counted(0).answered.unwrap().objectives;
            let left = past.ledger.carried(at(600), &objectives);
            assert!((left - (1_104.0 - 120.0 * 20.0)).abs() < 1e-6, "{measured}: {left}");
        }
    }
}
