//! What arrives, as far as it can be believed.

use super::policy::{LENGTHS_TOLERANCE, MEASURE_MAX_AGE, MIN_SAMPLES};
use crate::feasibility::measured_lengths;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Demand, LengthMix, Measured, Objective, Pool};
use crate::strategy::past::per_miss;
use crate::time::Timestamp;
use crate::units::{Fraction, Rate};

/// The demand that a pool is planned for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Need<'a> {
    /// Measured and recent.
    Known {
        /// The higher one of the last minute and the last five: growth shows at once, a fall only when it lasts.
        rate: Rate,
        /// The lower one of both: what one wrong sample or a burst of a minute does not move for long.
        lasting: Rate,
        /// Lengths of the requests, if enough were seen.
        lengths: Option<&'a LengthMix>,
    },
    /// Nobody can tell.
    Unknown {
        /// Why not.
        problem: Problem,
        /// What arrives at least, by those sources that answer.
        at_least: Option<Rate>,
    },
}

impl Need<'_> {
    /// The rate, if known.
    pub(crate) fn rate(&self) -> Option<Rate> {
        match self {
            Self::Known { rate, .. } => Some(*rate),
            Self::Unknown { .. } => None,
        }
    }

    /// The rate that is certain: the whole one, or that part of it which is measured. For adding only.
    pub(crate) fn certain(&self) -> Option<Rate> {
        match self {
            Self::Known { rate, .. } => Some(*rate),
            Self::Unknown { at_least, .. } => *at_least,
        }
    }
}

/// What to plan `pool` for.
pub(crate) fn need(pool: &Pool, now: Timestamp) -> Need<'_> {
    match &pool.demand {
        Demand::Known(arrivals) if now.since(arrivals.at) <= MEASURE_MAX_AGE => {
            let (minute, five) = (arrivals.rate_1m.as_per_second(), arrivals.rate_5m.as_per_second());
            Need::Known {
                rate: Rate::per_second(minute.max(five)),
                lasting: Rate::per_second(minute.min(five)),
                lengths: arrivals.lengths.as_ref().filter(|lengths| !lengths.classes.is_empty()),
            }
        }
        Demand::Known(arrivals) => Need::Unknown {
            problem: Problem::new(
                Reason::MetricsUnavailable,
                format!("the newest sample is of {}", arrivals.at),
            ),
            at_least: None,
        },
        Demand::Unknown { problem, at_least, .. } => Need::Unknown {
            problem: problem.clone(),
            at_least: *at_least,
        },
    }
}

/// Objectives that are measured, recently and on enough requests, with the value at their percentile in ms.
pub(crate) fn values(pool: &Pool, now: Timestamp) -> impl Iterator<Item = (&Objective, f64)> {
    pool.objectives
        .iter()
        .zip(&pool.measured)
        .filter_map(move |(objective, measured)| match *measured {
            Measured::Known {
                value_ms, samples, at, ..
            } if samples >= MIN_SAMPLES && now.since(at) <= MEASURE_MAX_AGE && value_ms.is_finite() => {
                Some((objective, value_ms))
            }
            _ => None,
        })
}

/// How far the worst objective is from its threshold, by measurement: above 1 is missed. `None` if nothing is measured.
pub(crate) fn strain(pool: &Pool, now: Timestamp) -> Option<f64> {
    values(pool, now)
        .map(|(objective, value_ms)| value_ms / (objective.threshold.as_millis().max(1) as f64))
        .reduce(f64::max)
}

/// Lengths to remember, so that a pool that is not measured for a while is planned for as before. A mix that is close to the
/// remembered one changes nothing: a status comes to rest, and what was measured of servers for it stays valid.
pub(crate) fn remembered_lengths(pool: &Pool, now: Timestamp) -> Option<LengthMix> {
    let old = pool.memory.lengths.as_ref();
    match measured_lengths(pool, now) {
        Some(new) => Some(new.settled(old, LENGTHS_TOLERANCE)),
        None => old.cloned(),
    }
}

/// Lengths to plan ahead with: those that will be remembered, or those of recorded conversations.
pub(crate) fn planned_lengths(pool: &Pool, now: Timestamp) -> LengthMix {
    let known = remembered_lengths(pool, now).filter(|mix| !mix.classes.is_empty());
    let mix = known.as_ref().unwrap_or(LengthMix::assumed());
    mix.within_context(pool.model.context_tokens).into_owned()
}

/// The share of requests within an objective's threshold, if it is measured, recently and on enough of them.
fn within(measured: &Measured, now: Timestamp) -> Option<Fraction> {
    match *measured {
        Measured::Known {
            attained, samples, at, ..
        } if samples >= MIN_SAMPLES && now.since(at) <= MEASURE_MAX_AGE => Some(attained),
        Measured::Known { .. } | Measured::ModelOnly | Measured::Unknown { .. } => None,
    }
}

/// What a request burns of an objective's error budget, by measurement; `None` as for [`within`].
pub(crate) fn burnt(objective: &Objective, measured: &Measured, now: Timestamp) -> Option<f64> {
    within(measured, now).map(|share| (1.0 - share.get()) * per_miss(objective))
}

/// Every objective is measured, recent, and holds: whatever serves, serves well.
pub(crate) fn attained(pool: &Pool, now: Timestamp) -> bool {
    !pool.objectives.is_empty()
        && pool.measured.len() >= pool.objectives.len()
        && pool
            .objectives
            .iter()
            .zip(&pool.measured)
            .all(|(objective, measured)| within(measured, now).is_some_and(|share| share >= objective.percentile))
}
