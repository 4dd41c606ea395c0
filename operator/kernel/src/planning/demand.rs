//! What arrives, as far as it can be believed.

use super::policy::{MEASURE_MAX_AGE, MIN_SAMPLES};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Demand, LengthMix, Measured, Pool};
use crate::time::Timestamp;
use crate::units::Rate;

/// The demand that a pool is planned for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Need<'a> {
    /// Measured and recent.
    Known {
        /// The higher one of the last minute and the last five: growth shows at once, a fall only when it lasts.
        rate: Rate,
        /// Lengths of the requests, if enough were seen.
        lengths: Option<&'a LengthMix>,
    },
    /// Nobody can tell.
    Unknown(Problem),
}

impl Need<'_> {
    /// The rate, if known.
    pub(crate) fn rate(&self) -> Option<Rate> {
        match self {
            Self::Known { rate, .. } => Some(*rate),
            Self::Unknown(_) => None,
        }
    }
}

/// What to plan `pool` for.
pub(crate) fn need(pool: &Pool, now: Timestamp) -> Need<'_> {
    match &pool.demand {
        Demand::Known(arrivals) if now.since(arrivals.at) <= MEASURE_MAX_AGE => {
            let rate = arrivals.rate_1m.as_per_second().max(arrivals.rate_5m.as_per_second());
            Need::Known {
                rate: Rate::per_second(rate),
                lengths: arrivals.lengths.as_ref().filter(|lengths| !lengths.classes.is_empty()),
            }
        }
        Demand::Known(arrivals) => Need::Unknown(Problem::new(
            Reason::MetricsUnavailable,
            format!("the newest sample is of {}", arrivals.at),
        )),
        Demand::Unknown { problem, .. } => Need::Unknown(problem.clone()),
    }
}

/// How far the worst objective is from its threshold, by measurement: above 1 is missed. `None` if nothing is measured.
pub(crate) fn strain(pool: &Pool, now: Timestamp) -> Option<f64> {
    pool.objectives
        .iter()
        .zip(&pool.measured)
        .filter_map(|(objective, measured)| match *measured {
            Measured::Known {
                value_ms, samples, at, ..
            } if samples >= MIN_SAMPLES && now.since(at) <= MEASURE_MAX_AGE && value_ms.is_finite() => {
                Some(value_ms / (objective.threshold.as_millis().max(1) as f64))
            }
            _ => None,
        })
        .reduce(f64::max)
}

/// Every objective is measured, recent, and holds: whatever serves, serves well.
pub(crate) fn attained(pool: &Pool, now: Timestamp) -> bool {
    !pool.objectives.is_empty()
        && pool.measured.len() >= pool.objectives.len()
        && pool
            .objectives
            .iter()
            .zip(&pool.measured)
            .all(|(objective, measured)| match *measured {
                Measured::Known {
                    attained, samples, at, ..
                } => samples >= MIN_SAMPLES && now.since(at) <= MEASURE_MAX_AGE && attained >= objective.percentile,
                Measured::ModelOnly | Measured::Unknown { .. } => false,
            })
}
