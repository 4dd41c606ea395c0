//! The snapshot, indexed: what stands where, and where anything may be done at all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use super::options::energy;
use super::policy::{DRAIN_ESTIMATE, EXPECTED_GRACE, LOST_GRACE, SILENT_AFTER, START_ALLOWANCE};
use crate::catalogue::Catalogue;
use crate::lifecycle::{NodeHealth, ReplicaState, ServerState, server::SUSPECT_LIMIT, server::arrival_deadline};
use crate::names::{GroupName, PoolId, ServerName, SiteName};
use crate::performance::performance;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Contact, Group, Inventory, Load, Maintenance, Pool, Replica, Server, Site, Snapshot};
use crate::spending::Accounts;
use crate::time::{Span, Timestamp};
use crate::units::Money;

/// The snapshot and what follows from it for every pool.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Timestamp,
    /// What is known about machines.
    pub(crate) catalogue: &'a Catalogue,
    /// By name.
    grounds: Rc<[Ground<'a>]>,
    /// Who pays for what.
    pub(crate) accounts: Accounts<'a>,
    /// What runs at each site, and where that is.
    places: BTreeMap<&'a SiteName, usize>,
    running: Vec<Running<'a>>,
}

/// What runs at a site.
#[derive(Debug, Default)]
struct Running<'a> {
    /// Every Pod, by server.
    pods: Vec<Occupant<'a>>,
    /// Engines that should answer and do, and those that do not.
    answering: u32,
    silent: u32,
}

/// A group, and what is the same there for every pool.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) name: &'a GroupName,
    head: u64,
    pub(crate) group: &'a Group,
    /// `None` if there is no such site.
    pub(crate) site: Option<&'a Site>,
    /// Why nothing at all may be done here: people said so, or it cannot be seen.
    pub(crate) hands_off: Option<Problem>,
    /// Why no new replica may be placed here.
    pub(crate) closed: Option<Problem>,
    /// Cost of the hour of a server that works: lease and energy. `None` if there is no such site.
    pub(crate) hourly: Option<Money>,
    /// Servers here are waited for although it is closed.
    pub(crate) expects: bool,
    /// Where among the site's Pods those of each server are.
    occupied: Vec<Range<usize>>,
}

/// A Pod, by the server that it stands on.
pub(crate) type Occupant<'a> = (&'a ServerName, &'a PoolId, &'a Replica);

impl<'a> World<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let mut places: BTreeMap<&SiteName, usize> = BTreeMap::new();
        let mut running: Vec<Running> = Vec::new();
        for (id, pool) in &snapshot.pools {
            // A pool's replicas are in the order of their sites.
            let mut last: Option<(&SiteName, usize)> = None;
            for replica in pool.running.values() {
                let place = match last {
                    Some((site, place)) if *site == replica.site => place,
                    _ => *places.entry(&replica.site).or_insert_with(|| {
                        running.push(Running::default());
                        running.len() - 1
                    }),
                };
                last = Some((&replica.site, place));
                let Some(here) = running.get_mut(place) else { continue };
                here.pods.push((&replica.server, id, replica));
                if replica.state == ReplicaState::Ready && replica.silent_since.is_some() {
                    here.silent += 1;
                } else if matches!(replica.load, Load::Known { .. }) {
                    here.answering += 1;
                }
            }
        }
        for here in &mut running {
            here.pods
                .sort_by_cached_key(|(server, ..)| (head(server.as_str()), *server));
        }
        let mut world = Self {
            snapshot,
            now,
            catalogue: Catalogue::builtin(),
            grounds: Rc::default(),
            accounts: Accounts::of(snapshot),
            places,
            running,
        };
        let grounds = snapshot.groups.iter().map(|(name, group)| {
            let closed = world.why_closed(name);
            let site = snapshot.sites.get(&group.site);
            Ground {
                name,
                head: head(name.as_str()),
                group,
                site,
                hourly: site.map(|site| group.pricing.hourly + energy(site, group.power.busy_watts)),
                hands_off: world.why_hands_off(name),
                expects: closed.is_some() && world.waits(name),
                closed,
                occupied: world.occupied(group),
            }
        });
        world.grounds = grounds.collect();
        world
    }

    /// All groups, by name.
    pub(crate) fn grounds(&self) -> &Rc<[Ground<'a>]> {
        &self.grounds
    }

    pub(crate) fn ground(&self, name: &GroupName) -> Option<&Ground<'a>> {
        self.grounds.get(self.place(name)?)
    }

    /// Where a group is among all.
    pub(crate) fn place(&self, name: &GroupName) -> Option<usize> {
        place(&self.grounds, name)
    }

    pub(crate) fn group(&self, name: &GroupName) -> Option<(&'a Group, &'a Site)> {
        let ground = self.ground(name)?;
        Some((ground.group, ground.site?))
    }

    /// Every Pod that stands on a server, whatever its state.
    pub(crate) fn occupants(&self, group: &Group, server: &ServerName) -> &[Occupant<'a>] {
        let pods = self.pods(&group.site);
        let from = pods.partition_point(|(other, ..)| *other < server);
        let here = pods.get(from..).unwrap_or_default();
        let count = here.iter().take_while(|(other, ..)| *other == server).count();
        here.get(..count).unwrap_or_default()
    }

    /// Every Pod at a site.
    pub(crate) fn pods(&self, site: &SiteName) -> &[Occupant<'a>] {
        self.running(site).map_or(&[], |here| here.pods.as_slice())
    }

    fn running(&self, site: &SiteName) -> Option<&Running<'a>> {
        self.running.get(*self.places.get(site)?)
    }

    fn occupied(&self, group: &Group) -> Vec<Range<usize>> {
        let pods = self.pods(&group.site);
        let mut from = 0;
        // Both are in the order of names: what has been passed is not looked at again, and the next one is mostly next.
        let occupied = group.inventory.servers().keys().map(|name| {
            let rest = pods.get(from..).unwrap_or_default();
            if rest.first().is_some_and(|(other, ..)| *other < name) {
                from += rest.partition_point(|(other, ..)| *other < name);
            }
            let here = pods.get(from..).unwrap_or_default();
            let count = here.iter().take_while(|(other, ..)| *other == name).count();
            let found = from..from + count;
            from += count;
            found
        });
        occupied.collect()
    }

    /// The servers of a group in their order, with the Pods that stand on them.
    pub(crate) fn servers(
        &self,
        ground: &Ground<'a>,
    ) -> impl Iterator<Item = (&'a ServerName, &'a Server, &[Occupant<'a>])> {
        let pods = self.pods(&ground.group.site);
        let servers = ground.group.inventory.servers().iter().zip(&ground.occupied);
        servers.map(move |((name, server), occupied)| (name, server, pods.get(occupied.clone()).unwrap_or_default()))
    }

    /// Whether the server that a replica stands on cannot exist any more.
    pub(crate) fn server_gone(&self, replica: &Replica) -> bool {
        let group = self.ground(&replica.group).map(|ground| ground.group);
        group.is_some_and(|group| is_gone(group, group.inventory.servers().get(&replica.server)))
    }

    // ------------------------------------------------------------------------------------------------ what answers

    /// Since when the engine of a Ready replica answers nobody, if for so long that it is out of capacity.
    ///
    /// Where all of several engines of a site fall silent together, it is the way to them that is broken, and that
    /// proves nothing about any of them.
    pub(crate) fn silent(&self, replica: &Replica) -> Option<Timestamp> {
        let since = replica.silent_since?;
        let here = self.running(&replica.site);
        let way_is_broken = here.is_some_and(|here| here.answering == 0 && here.silent > 1);
        let long = self.now.since(since) >= SILENT_AFTER;
        (replica.state == ReplicaState::Ready && replica.serving && long && !way_is_broken).then_some(since)
    }

    /// Until when a replica that is starting has to be ready. Three load times, because published ones are typical.
    fn start_deadline(&self, pool: &Pool, replica: &Replica) -> Timestamp {
        replica.created + self.start_allowance(pool, replica)
    }

    /// Until when a replica that does not answer any more has to be back: its engine may have to load the model again.
    pub(crate) fn recovery_deadline(&self, pool: &Pool, replica: &Replica) -> Timestamp {
        replica.since + self.start_allowance(pool, replica)
    }

    fn start_allowance(&self, pool: &Pool, replica: &Replica) -> Span {
        let figures = self
            .snapshot
            .groups
            .get(&replica.group)
            .and_then(|group| performance(self.catalogue, &pool.model, &group.machine, &pool.performance).ok());
        let load = figures.map_or(Span::ZERO, |figures| figures.load_time);
        load * 3 + START_ALLOWANCE
    }

    /// Whether a replica should have been ready by now and never was.
    pub(crate) fn is_late(&self, pool: &Pool, replica: &Replica) -> bool {
        matches!(replica.state, ReplicaState::Pending | ReplicaState::Loading)
            && replica.drain.is_none()
            && self.now >= self.start_deadline(pool, replica)
    }

    /// Whether a machine has been silent for so long that it is given up.
    pub(crate) fn is_dead(&self, server: &Server) -> bool {
        dead_at(server).is_some_and(|at| self.now >= at)
    }

    // ------------------------------------------------------------------------------------------ what may be done where

    /// Why nothing at all may be done in a group: people said so, or it cannot be seen.
    pub(crate) fn hands_off(&self, name: &GroupName) -> Option<Problem> {
        match self.ground(name) {
            Some(ground) => ground.hands_off.clone(),
            None => Some(does_not_exist(name)),
        }
    }

    fn seen(&self, name: &GroupName) -> Option<(&'a Group, &'a Site)> {
        let group = self.snapshot.groups.get(name)?;
        Some((group, self.snapshot.sites.get(&group.site)?))
    }

    fn why_hands_off(&self, name: &GroupName) -> Option<Problem> {
        let Some((group, site)) = self.seen(name) else {
            return Some(does_not_exist(name));
        };
        if let Contact::Lost { since, message } = &site.contact {
            return Some(Problem::new(
                Reason::SiteUnreachable,
                format!("site {} does not answer since {since}: {message}", group.site),
            ));
        }
        if let Some(problem) = group.problem.as_ref().or(site.problem.as_ref()) {
            return Some(problem.clone());
        }
        if site.paused {
            return Some(Problem::new(Reason::Paused, format!("site {} is paused", group.site)));
        }
        group
            .paused
            .then(|| Problem::new(Reason::Paused, format!("group {name} is paused")))
    }

    /// Why no new replica may be placed in a group.
    pub(crate) fn takes_no_work(&self, name: &GroupName) -> Option<Problem> {
        match self.ground(name) {
            Some(ground) => ground.closed.clone(),
            None => Some(does_not_exist(name)),
        }
    }

    fn why_closed(&self, name: &GroupName) -> Option<Problem> {
        if let Some(problem) = self.why_hands_off(name) {
            return Some(problem);
        }
        let (group, site) = self.seen(name)?;
        if group.deleting {
            let message = format!("group {name} is being deleted");
            return Some(Problem::new(Reason::GroupDeleted, message));
        }
        match site.maintenance {
            Maintenance::Active => {}
            Maintenance::Cordoned | Maintenance::Draining => {
                return Some(Problem::new(
                    Reason::SiteDraining,
                    format!("site {} takes no new work", group.site),
                ));
            }
        }
        match group.inventory {
            Inventory::Known(_) => None,
            Inventory::Unknown { since, .. } => Some(Problem::new(
                Reason::InventoryUnknown,
                format!("the servers of group {name} cannot be listed since {since}"),
            )),
        }
    }

    /// Until when a server is expected to be of use, in a group where nothing can be done at the moment but that may be
    /// itself again soon. What is on its way there, or has just come, is paid: buying it again elsewhere would be waste.
    pub(crate) fn expected_until(&self, name: &GroupName, server: &Server) -> Option<Timestamp> {
        let (group, site) = self.seen(name)?;
        if group.deleting || site.maintenance != Maintenance::Active || server.cordoned || server.held {
            return None;
        }
        let coming = server.state.is_coming();
        if !coming && server.state != ServerState::Ready {
            return None;
        }
        let arrival = arrival_deadline(server.since, group.lead_time.provision);
        let limit = if let Contact::Lost { since, .. } = site.contact {
            since + LOST_GRACE
        } else if let Inventory::Unknown { since, .. } = group.inventory {
            since + EXPECTED_GRACE
        } else if coming {
            arrival
        } else {
            server.since + EXPECTED_GRACE
        };
        Some(limit).filter(|until| self.now < *until)
    }

    /// Whether servers of a group where nothing can be done at the moment are waited for.
    fn waits(&self, name: &GroupName) -> bool {
        self.seen(name).is_some_and(|(group, _)| {
            let mut servers = group.inventory.servers().values();
            servers.any(|server| self.expected_until(name, server).is_some())
        })
    }

    /// The most servers that a group may have now, due deliveries included.
    pub(crate) fn most(&self, group: &Group) -> u32 {
        let due = group.deliveries.iter().filter(|delivery| delivery.at <= self.now);
        due.fold(group.size.max, |most, delivery| most.saturating_add(delivery.servers))
    }

    /// Until when a server is paid in any case and may as well serve, if that is still far enough away.
    pub(crate) fn paid_until(&self, server: &Server) -> Option<Timestamp> {
        let until = server.lease?.minimum_until;
        (until > self.now + DRAIN_ESTIMATE).then_some(until)
    }
}

/// Where a group is among all.
pub(crate) fn place(grounds: &[Ground], name: &GroupName) -> Option<usize> {
    let head = head(name.as_str());
    let found = grounds.binary_search_by(|ground| ground.head.cmp(&head).then_with(|| ground.name.cmp(name)));
    found.ok()
}

/// The first letters of a name as a number, in the order of names: mostly enough to tell two apart.
fn head(name: &str) -> u64 {
    let mut first = [0; 8];
    first.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(first)
}

fn does_not_exist(name: &GroupName) -> Problem {
    Problem::new(
        Reason::ReferenceMissing,
        format!("group {name} or its site does not exist"),
    )
}

/// Whether a server of a group cannot exist any more. Unknown is not gone, and a machine whose Node is Ready answers, whatever its provider
/// says.
pub(crate) fn is_gone(group: &Group, server: Option<&Server>) -> bool {
    group.inventory.is_known()
        && server.is_none_or(|server| {
            server.node != NodeHealth::Ready
                && matches!(
                    server.state,
                    ServerState::Gone | ServerState::Failed | ServerState::Releasing | ServerState::Recycling
                )
        })
}

/// A server that takes new work.
pub(crate) fn is_usable(server: &Server) -> bool {
    server.state == ServerState::Ready && !server.cordoned && !server.held
}

/// When a silent machine is given up.
pub(crate) fn dead_at(server: &Server) -> Option<Timestamp> {
    match server.node {
        NodeHealth::Down { since } => Some(since + SUSPECT_LIMIT),
        NodeHealth::Absent | NodeHealth::Ready => None,
    }
}
