//! Figures of machines, held against what engines measure.
//!
//! Each group's engines are compared with the curve of as many servers with the figures that are *declared*, whatever was concluded
//! before. Sets of nearly the same size share a curve: per server, what eight do differs little from what nine do.
use std::collections::BTreeMap;

use crate::capacity::Servers;
use crate::capacity::calibration::{Calibrations, LEAST_REQUESTS, Observed};
use crate::capacity::curve::{Curves, Traffic};
use crate::catalogue::Catalogue;
use crate::engine::StepTimes;
use crate::feasibility::Feasibility;
use crate::names::{GroupName, PoolId};
use crate::planning::{MEASURE_MAX_AGE, MEASURED_OVER, is_full, planned_lengths};
use crate::snapshot::{Demand, EnginesMeasured, Pool, Snapshot};
use crate::time::Timestamp;
use crate::units::Rate;

/// Sizes of sets that are compared with.
const SIZES: [u32; 8] = [1, 2, 3, 4, 6, 8, 12, 24];

/// The rate of the last minute is within this factor of that of the last five.
const CALM: f64 = 1.3;

/// What is known after what engines have measured lately, of pools of which anything was.
pub(super) fn calibrate(snapshot: &Snapshot, now: Timestamp, curves: &mut Curves) -> BTreeMap<PoolId, Calibrations> {
    let of = |(id, pool)| Some((PoolId::clone(id), pool_calibrations(snapshot, pool, now, curves)?));
    snapshot.pools.iter().filter_map(of).collect()
}

fn pool_calibrations(snapshot: &Snapshot, pool: &Pool, now: Timestamp, curves: &mut Curves) -> Option<Calibrations> {
    if !is_calm(pool) {
        return None;
    }
    let recent = |measured: &EnginesMeasured| now.since(measured.at) <= MEASURE_MAX_AGE;
    let enough = |measured: &EnginesMeasured| measured.engines > 0 && measured.samples >= LEAST_REQUESTS;
    let usable: Vec<_> = pool
        .engines
        .iter()
        .filter(|(_, measured)| recent(measured) && enough(measured))
        .collect();
    if usable.is_empty() {
        return None;
    }
    let feasibility = Feasibility::of(pool, Catalogue::builtin(), now);
    let traffic = Traffic::new(&planned_lengths(pool, now), pool.discipline, &pool.objectives);
    let mut calibrations = pool.past.calibrations.clone();
    for (name, measured) in usable {
        let group = snapshot.groups.get(name);
        let Some((group, declared)) = group.and_then(|group| Some((group, feasibility.declared(group).ok()?))) else {
            continue;
        };
        let calibration = calibrations.of(&group.machine, &declared.times);
        let count = nearest(measured.engines);
        let set = [Servers {
            performance: &declared,
            count,
        }];
        let curve = curves.curve(&set, &traffic);
        let rate = measured.rate.as_per_second() * f64::from(count) / f64::from(measured.engines);
        let crowd = Crowd::of(pool, name, &declared.times, now);
        if crowd != Crowd::None {
            calibration.full(now);
        }
        if crowd == Crowd::Uneven {
            continue;
        }
        for (objective, value_ms) in pool.objectives.iter().zip(&measured.values_ms) {
            let Some(value_ms) = *value_ms else { continue };
            let observed = Observed {
                at: measured.at,
                rate: Rate::per_second(rate),
                metric: objective.metric,
                percentile: objective.percentile,
                value_ms,
                requests: measured.samples,
            };
            calibration.observe(&observed, &curve);
        }
        calibration.settle(now);
    }
    Some(calibrations)
}

/// Whether requests come as steadily as curves assume: what bursts do to latencies says nothing about the speed of a machine.
fn is_calm(pool: &Pool) -> bool {
    let Demand::Known(arrivals) = &pool.demand else {
        return false;
    };
    let ratio = arrivals.rate_1m.as_per_second() / arrivals.rate_5m.as_per_second();
    (1.0 / CALM..=CALM).contains(&ratio)
}

/// How many engines of a group have more requests than they take at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    None,
    /// Some, or some have only just begun to serve: what is measured is not what all of them do.
    Uneven,
    All,
}

impl Crowd {
    fn of(pool: &Pool, group: &GroupName, times: &StepTimes, now: Timestamp) -> Self {
        let serving = || {
            pool.running
                .values()
                .filter(|replica| replica.serving && replica.group == *group)
        };
        let full = serving()
            .filter(|replica| is_full(&replica.load, times, now) == Some(true))
            .count();
        let new = serving().any(|replica| now.since(replica.since) < MEASURED_OVER);
        match full {
            0 if !new => Self::None,
            full if !new && full == serving().count() => Self::All,
            _ => Self::Uneven,
        }
    }
}

fn nearest(engines: u32) -> u32 {
    let far = |size: &u32| size.abs_diff(engines);
    SIZES.into_iter().min_by_key(far).unwrap_or(1)
}
