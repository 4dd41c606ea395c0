//! The snapshot, indexed: what stands where, and where anything may be done at all.

use std::collections::BTreeMap;

use super::policy::{DRAIN_ESTIMATE, EXPECTED_GRACE, LOST_GRACE, SILENT_AFTER, START_ALLOWANCE};
use crate::catalogue::Catalogue;
use crate::lifecycle::{NodeHealth, ReplicaState, ServerState, server::SUSPECT_LIMIT, server::arrival_deadline};
use crate::names::{GroupName, PoolId, ServerName, SiteName};
use crate::performance::performance;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Contact, Group, Inventory, Load, Maintenance, Pool, Replica, Server, Site, Snapshot};
use crate::time::{Span, Timestamp};

/// The snapshot and what follows from it for every pool.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Timestamp,
    /// What is known about machines.
    pub(crate) catalogue: &'a Catalogue,
    occupants: BTreeMap<(&'a SiteName, &'a ServerName), Vec<(&'a PoolId, &'a Replica)>>,
    /// Engines that answer and engines that do not, by site.
    engines: BTreeMap<&'a SiteName, Engines>,
}

/// Engines that should answer, counted.
#[derive(Clone, Copy, Debug, Default)]
struct Engines {
    answering: u32,
    silent: u32,
}

impl<'a> World<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let mut occupants: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut engines: BTreeMap<&SiteName, Engines> = BTreeMap::new();
        for (id, pool) in &snapshot.pools {
            for replica in pool.running.values() {
                occupants
                    .entry((&replica.site, &replica.server))
                    .or_default()
                    .push((id, replica));
                let count = engines.entry(&replica.site).or_default();
                if replica.state == ReplicaState::Ready && replica.silent_since.is_some() {
                    count.silent += 1;
                } else if matches!(replica.load, Load::Known { .. }) {
                    count.answering += 1;
                }
            }
        }
        Self {
            snapshot,
            now,
            catalogue: Catalogue::builtin(),
            occupants,
            engines,
        }
    }

    pub(crate) fn group(&self, name: &GroupName) -> Option<(&'a Group, &'a Site)> {
        let group = self.snapshot.groups.get(name)?;
        Some((group, self.snapshot.sites.get(&group.site)?))
    }

    /// Every Pod that stands on a server, whatever its state.
    pub(crate) fn occupants(&self, group: &'a Group, server: &'a ServerName) -> &[(&'a PoolId, &'a Replica)] {
        self.occupants.get(&(&group.site, server)).map_or(&[], Vec::as_slice)
    }

    /// The server that a replica stands on, as last seen.
    pub(crate) fn server_of(&self, replica: &Replica) -> Option<&'a Server> {
        self.snapshot
            .groups
            .get(&replica.group)?
            .inventory
            .servers()
            .get(&replica.server)
    }

    /// Whether the server that a replica stands on cannot exist any more. Unknown is not gone, and a machine whose Node
    /// is Ready answers, whatever its provider says.
    pub(crate) fn server_gone(&self, replica: &Replica) -> bool {
        self.snapshot.groups.get(&replica.group).is_some_and(|group| {
            group.inventory.is_known()
                && group.inventory.servers().get(&replica.server).is_none_or(|server| {
                    server.node != NodeHealth::Ready
                        && matches!(
                            server.state,
                            ServerState::Gone | ServerState::Failed | ServerState::Releasing | ServerState::Recycling
                        )
                })
        })
    }

    // ------------------------------------------------------------------------------------------------ what answers

    /// Since when the engine of a Ready replica answers nobody, if for so long that it is out of capacity.
    ///
    /// Where all of several engines of a site fall silent together, it is the way to them that is broken, and that
    /// proves nothing about any of them.
    pub(crate) fn silent(&self, replica: &Replica) -> Option<Timestamp> {
        let since = replica.silent_since?;
        let engines = self.engines.get(&replica.site).copied().unwrap_or_default();
        let way_is_broken = engines.answering == 0 && engines.silent > 1;
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
        let Some((group, site)) = self.group(name) else {
            return Some(Problem::new(
                Reason::ReferenceMissing,
                format!("group {name} or its site does not exist"),
            ));
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
        if let Some(problem) = self.hands_off(name) {
            return Some(problem);
        }
        let (group, site) = self.group(name)?;
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
        let (group, site) = self.group(name)?;
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
    pub(crate) fn expects(&self, name: &GroupName) -> bool {
        self.group(name).is_some_and(|(group, _)| {
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
