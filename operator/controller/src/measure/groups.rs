//! What the engines of each group say of latencies, whatever source demand is measured at: figures of machines are checked against it.
//!
//! Pure. A group counts only while all of its serving engines answer, and where they export latencies at all.

use std::collections::{BTreeMap, BTreeSet};

use pomarium_kernel::names::{GroupName, PoolId};
use pomarium_kernel::snapshot::{Demand, EnginesMeasured, Measured};
use pomarium_kernel::time::{Span, Timestamp};

use super::engine;
use super::ledger::Ledger;
use super::scrape::Scrape;
use super::target::{PodTarget, PoolTarget};

/// Between two samples: figures of machines change slowly, and histograms of a thousand pools are long.
const SPACING: Span = Span::from_minutes(1);
/// Samples older than this are no measurement of now.
const STALE: Span = Span::from_minutes(2);

/// Adds what the engines of `pool` have answered.
pub(super) fn absorb(
    ledgers: &mut BTreeMap<(PoolId, GroupName), Ledger>,
    pool: &PoolId,
    target: &PoolTarget,
    engines: &BTreeMap<String, Option<(Scrape, Timestamp)>>,
    now: Timestamp,
) {
    let groups: BTreeSet<&GroupName> = serving(target).filter_map(|pod| pod.group.as_ref()).collect();
    ledgers.retain(|(of, group), _| of != pool || groups.contains(group));
    for group in groups {
        let ledger = ledgers
            .entry((pool.clone(), group.clone()))
            .or_insert_with(|| Ledger::open(now));
        if !ledger.is_due(now, SPACING) {
            continue;
        }
        let here: Vec<&PodTarget> = serving(target)
            .filter(|pod| pod.group.as_ref() == Some(group))
            .collect();
        let answers = here.iter().map(|pod| Some((pod, engines.get(&pod.uid)?.as_ref()?)));
        let Some(answers) = answers.collect::<Option<Vec<_>>>() else {
            continue;
        };
        for (pod, (scrape, _)) in answers {
            ledger.absorb(pod.uid.clone(), scrape.latencies());
        }
        ledger.keep_sources(&here.iter().map(|pod| pod.uid.clone()).collect());
        ledger.complete(now);
    }
}

/// What they say, by group.
pub(super) fn measured(
    ledgers: &BTreeMap<(PoolId, GroupName), Ledger>,
    pool: &PoolId,
    target: &PoolTarget,
    now: Timestamp,
) -> BTreeMap<GroupName, EnginesMeasured> {
    let names = engine::names(target.engine);
    let groups: BTreeSet<&GroupName> = serving(target).filter_map(|pod| pod.group.as_ref()).collect();
    let of = |group: &GroupName| {
        let ledger = ledgers.get(&(pool.clone(), group.clone()))?;
        let Demand::Known(finished) = ledger.demand(pool, now, STALE) else {
            return None;
        };
        let objectives = target.objectives.iter();
        let seen: Vec<Option<(f64, u64)>> = objectives
            .map(|objective| match ledger.measured(objective, names, pool, now, STALE) {
                Measured::Known { value_ms, samples, .. } => Some((value_ms, samples)),
                Measured::ModelOnly | Measured::Unknown { .. } => None,
            })
            .collect();
        let engines = serving(target).filter(|pod| pod.group.as_ref() == Some(group)).count();
        Some(EnginesMeasured {
            engines: u32::try_from(engines).unwrap_or(u32::MAX),
            rate: finished.rate_5m,
            samples: seen.iter().flatten().map(|(_, samples)| *samples).min()?,
            values_ms: seen
                .into_iter()
                .map(|seen| seen.map(|(value_ms, _)| value_ms))
                .collect(),
            at: finished.at,
        })
    };
    groups
        .into_iter()
        .filter_map(|group| Some((group.clone(), of(group)?)))
        .collect()
}

fn serving(target: &PoolTarget) -> impl Iterator<Item = &PodTarget> {
    target.pods.iter().filter(|pod| pod.serving)
}
