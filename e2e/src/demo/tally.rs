//! Counts what happened, from what the clusters, the router and the fleet showed.
//!
//! Pure: facts in, counts out; `now` is an argument. Nothing here trusts what the operator says about itself.

use std::collections::{BTreeMap, BTreeSet};

use pomarium_kernel::time::{Span, Timestamp};
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

/// A leased server as the lessor lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseSeen {
    /// The server's name.
    pub(crate) server: String,
    /// Paid from here. Tells one lease of a name from the next.
    pub(crate) start: Timestamp,
    /// Paid at least until here.
    pub(crate) minimum_until: Timestamp,
    /// It has been given back.
    pub(crate) returned: bool,
}

/// The leases of one group over time.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook {
    leases: BTreeMap<(String, Timestamp), Term>,
}

#[derive(Debug)]
struct Term {
    minimum_until: Timestamp,
    end: Option<Timestamp>,
}

impl LeaseBook {
    /// The lessor's complete list at `now`. A lease that is in it no more has ended.
    pub(crate) fn listed(&mut self, now: Timestamp, list: impl IntoIterator<Item = LeaseSeen>) {
        let mut current = BTreeSet::new();
        for seen in list {
            let key = (seen.server, seen.start);
            let term = self.leases.entry(key.clone()).or_insert(Term {
                minimum_until: seen.minimum_until,
                end: None,
            });
            if !seen.returned {
                current.insert(key);
            } else if term.end.is_none() {
                term.end = Some(now);
            }
        }
        for (key, term) in &mut self.leases {
            if !current.contains(key) && term.end.is_none() {
                term.end = Some(now);
            }
        }
    }

    /// Leases begun.
    pub(crate) fn bought(&self) -> u64 {
        self.leases.len() as u64
    }

    /// Leases ended.
    pub(crate) fn returned(&self) -> u64 {
        self.leases.values().filter(|term| term.end.is_some()).count() as u64
    }

    /// What is owed at `now` at `hourly` a server: at least the minimum terms, also of leases that still run.
    pub(crate) fn cost(&self, now: Timestamp, hourly: Money) -> Money {
        let paid = |((_, start), term): (&(String, Timestamp), &Term)| {
            let end = term.end.unwrap_or(now).max(term.minimum_until);
            hourly.for_span(end.since(*start))
        };
        self.leases.iter().map(paid).sum()
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

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(0) + Span::from_minutes(minutes)
    }

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
    fn a_lease_is_paid_for_its_minimum_and_for_what_it_lasts_longer() {
        let hourly = Money::from_micros(6_000_000);
        let lease = |server: &str, start: u64, returned| LeaseSeen {
            server: server.into(),
            start: at(start),
            minimum_until: at(start + 20),
            returned,
        };
        let mut book = LeaseBook::default();
        book.listed(at(5), [lease("m-0", 0, false), lease("m-1", 5, false)]);
        assert_eq!(
            (book.bought(), book.returned(), book.cost(at(5), hourly)),
            (2, 0, Money::from_micros(4_000_000))
        );
        // One goes back early and stays paid until its minimum; the other runs on.
        book.listed(at(10), [lease("m-0", 0, true), lease("m-1", 5, false)]);
        assert_eq!(
            (book.returned(), book.cost(at(35), hourly)),
            (1, Money::from_micros(5_000_000))
        );
        // It is listed as recycling, then not at all: still one return. The same name is leased anew: another lease.
        book.listed(at(36), [lease("m-0", 36, false)]);
        assert_eq!((book.bought(), book.returned()), (3, 2));
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
