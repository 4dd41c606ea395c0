//! Counts what happened, from what the clusters showed.
//!
//! Pure: facts in, counts out. Nothing here trusts what the operator says about itself.

use std::collections::{BTreeMap, BTreeSet};

use pomarium_kernel::time::Span;
use pomarium_kernel::units::Money;

/// A replica's Pod as its cluster shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaSeen {
    /// The site's name.
    pub(crate) site: String,
    /// The Pod's uid.
    pub(crate) uid: String,
    /// The server it is pinned to.
    pub(crate) server: String,
    /// Routers may send it requests, and it is Ready.
    pub(crate) serving: bool,
    /// A drain is under way, or the Pod is being deleted.
    pub(crate) draining: bool,
}

/// All replicas of a pool over time.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    alive: BTreeMap<(String, String), ReplicaSeen>,
    /// Of those alive: a drain was seen.
    drained: BTreeSet<(String, String)>,
    counting: bool,
    added: u64,
    finished_drains: u64,
    peak: BTreeMap<String, u64>,
}

impl Replicas {
    /// From here on, new replicas count as added.
    pub(crate) fn start_counting(&mut self) {
        self.counting = true;
    }

    /// A Pod is there, or has changed.
    pub(crate) fn seen(&mut self, replica: ReplicaSeen) {
        let key = (replica.site.clone(), replica.uid.clone());
        if replica.draining {
            self.drained.insert(key.clone());
        } else {
            // The drain was called off.
            self.drained.remove(&key);
        }
        let site = replica.site.clone();
        if self.alive.insert(key, replica).is_none() && self.counting {
            self.added += 1;
        }
        let servers = self.servers_at(&site);
        let peak = self.peak.entry(site).or_default();
        *peak = (*peak).max(servers);
    }

    /// A Pod is gone.
    pub(crate) fn gone(&mut self, site: &str, uid: &str) {
        let key = (site.to_owned(), uid.to_owned());
        let drained = self.drained.remove(&key);
        if self.alive.remove(&key).is_some() && drained {
            self.finished_drains += 1;
        }
    }

    /// A site was listed anew: what is not in the list is gone.
    pub(crate) fn only(&mut self, site: &str, uids: &BTreeSet<String>) {
        let of_site = self.alive.keys().filter(|(at, uid)| at == site && !uids.contains(uid));
        for (at, uid) in of_site.cloned().collect::<Vec<_>>() {
            self.gone(&at, &uid);
        }
    }

    /// Those that are there.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &ReplicaSeen> {
        self.alive.values()
    }

    /// Replicas added since counting started.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// Replicas that were drained and then removed.
    pub(crate) fn drains(&self) -> u64 {
        self.finished_drains
    }

    /// Most servers of a site that ran a replica at the same time.
    pub(crate) fn peak(&self, site: &str) -> u64 {
        self.peak.get(site).copied().unwrap_or(0)
    }

    fn servers_at(&self, site: &str) -> u64 {
        let servers: BTreeSet<_> = self
            .alive
            .values()
            .filter(|replica| replica.site == site)
            .map(|replica| &replica.server)
            .collect();
        servers.len() as u64
    }
}

/// What electricity costs at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct EnergyPrice {
    /// Price of a kWh.
    pub(crate) per_kwh: Money,
    /// Power usage effectiveness.
    pub(crate) pue: f64,
}

impl EnergyPrice {
    /// What `watts` over `span` cost.
    pub(crate) fn cost(self, watts: f64, span: Span) -> Money {
        let kwh = watts / 1_000.0 * self.pue.max(1.0) * span.as_hours_f64();
        Money::from_f64(self.per_kwh.as_f64() * kwh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(site: &str, uid: &str) -> ReplicaSeen {
        ReplicaSeen {
            site: site.into(),
            uid: uid.into(),
            server: format!("server-of-{uid}"),
            serving: true,
            draining: false,
        }
    }

    fn draining(site: &str, uid: &str) -> ReplicaSeen {
        ReplicaSeen {
            serving: false,
            draining: true,
            ..replica(site, uid)
        }
    }

    #[test]
    fn replicas_count_as_added_once_and_only_after_the_start() {
        let mut replicas = Replicas::default();
        replicas.seen(replica("a", "1"));
        replicas.start_counting();
        for uid in ["1", "2", "2", "3"] {
            replicas.seen(replica("a", uid));
        }
        replicas.seen(replica("b", "4"));
        assert_eq!(
            (
                replicas.added(),
                replicas.peak("a"),
                replicas.peak("b"),
                replicas.peak("c")
            ),
            (3, 3, 1, 0)
        );
    }

    #[test]
    fn only_a_replica_that_was_drained_and_is_gone_is_a_drain() {
        let mut replicas = Replicas::default();
        for uid in ["drained", "vanished", "called-off", "still-draining", "gone-in-a-list"] {
            replicas.seen(replica("a", uid));
        }
        replicas.seen(replica("b", "elsewhere"));
        for uid in ["drained", "called-off", "still-draining", "gone-in-a-list"] {
            replicas.seen(draining("a", uid));
        }
        replicas.seen(replica("a", "called-off"));
        for uid in ["drained", "vanished", "called-off", "drained"] {
            replicas.gone("a", uid);
        }
        assert_eq!(replicas.drains(), 1);
        replicas.only("a", &BTreeSet::from(["still-draining".to_owned()]));
        assert_eq!((replicas.drains(), replicas.alive().count()), (2, 2));
    }

    #[test]
    fn energy_counts_what_the_building_adds() {
        let price = EnergyPrice {
            per_kwh: Money::from_micros(120_000),
            pue: 1.25,
        };
        assert_eq!(price.cost(1_000.0, Span::from_hours(2)), Money::from_micros(300_000));
    }
}
