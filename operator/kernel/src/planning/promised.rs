//! Servers that the strategic plan has for pools which do not have them yet: no other pool takes them meanwhile.

use std::collections::BTreeMap;

use super::crew::Crew;
use super::model::Counts;
use crate::names::PoolId;
use crate::snapshot::Snapshot;
use crate::time::Timestamp;

/// By pool and group.
#[derive(Debug, Default)]
pub(crate) struct Promised<'a> {
    pools: BTreeMap<&'a PoolId, Counts>,
    /// All of them.
    all: Counts,
}

impl<'a> Promised<'a> {
    pub(crate) fn of(snapshot: &'a Snapshot, crews: &[Crew<'a>], now: Timestamp) -> Self {
        let Some(ahead) = snapshot.ahead.as_ref().filter(|ahead| ahead.holds(now)) else {
            return Self::default();
        };
        // Alone, a pool takes nothing from anybody.
        if ahead.pools.len() < 2 {
            return Self::default();
        }
        let missing = |crew: &Crew<'a>| {
            let planned = &ahead.pools.get(crew.id)?.replicas;
            let has = crew.kept();
            let missing = planned.iter().filter_map(|(group, planned)| {
                // What is still to be asked for is nobody's.
                let bought = ahead.groups.get(group).and_then(|group| group.buyers.get(crew.id));
                let there = planned.saturating_sub(bought.copied().unwrap_or(0));
                let missing = there.saturating_sub(has.get(group).copied().unwrap_or(0));
                (missing > 0).then(|| (group.clone(), missing))
            });
            Some((crew.id, missing.collect()))
        };
        let pools: BTreeMap<_, Counts> = crews.iter().filter_map(missing).collect();
        let mut all = Counts::new();
        for (group, missing) in pools.values().flatten() {
            *all.entry(group.clone()).or_default() += missing;
        }
        Self { pools, all }
    }

    /// What others than `pool` are short of, by group.
    pub(crate) fn to_others(&self, pool: &PoolId) -> Counts {
        let own = self.pools.get(pool);
        let others = self.all.iter().map(|(group, all)| {
            let own = own.and_then(|own| own.get(group)).copied().unwrap_or(0);
            (group, all - own)
        });
        others
            .filter(|(_, others)| *others > 0)
            .map(|(group, others)| (group.clone(), others))
            .collect()
    }
}
