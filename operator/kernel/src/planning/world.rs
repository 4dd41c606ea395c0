//! The snapshot, indexed: what stands where, and where anything may be done at all.

use std::collections::BTreeMap;

use crate::catalogue::Catalogue;
use crate::lifecycle::ServerState;
use crate::names::{GroupName, PoolId, ServerName, SiteName};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Contact, Group, Maintenance, Replica, Server, Site, Snapshot};
use crate::time::Timestamp;

use super::policy::DRAIN_ESTIMATE;

/// The snapshot and what follows from it for every pool.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Timestamp,
    /// What is known about machines.
    pub(crate) catalogue: &'a Catalogue,
    occupants: BTreeMap<(&'a SiteName, &'a ServerName), Vec<(&'a PoolId, &'a Replica)>>,
}

impl<'a> World<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let mut occupants: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, pool) in &snapshot.pools {
            for replica in pool.running.values() {
                occupants
                    .entry((&replica.site, &replica.server))
                    .or_default()
                    .push((id, replica));
            }
        }
        Self {
            snapshot,
            now,
            catalogue: Catalogue::builtin(),
            occupants,
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

    /// Whether the server that a replica stands on cannot exist any more. Unknown is not gone.
    pub(crate) fn server_gone(&self, replica: &Replica) -> bool {
        self.snapshot.groups.get(&replica.group).is_some_and(|group| {
            group.inventory.is_known()
                && group.inventory.servers().get(&replica.server).is_none_or(|server| {
                    matches!(
                        server.state,
                        ServerState::Gone | ServerState::Failed | ServerState::Releasing | ServerState::Recycling
                    )
                })
        })
    }

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
        match site.maintenance {
            Maintenance::Active => {}
            Maintenance::Cordoned | Maintenance::Draining => {
                return Some(Problem::new(
                    Reason::SiteDraining,
                    format!("site {} takes no new work", group.site),
                ));
            }
        }
        (!group.inventory.is_known()).then(|| {
            Problem::new(
                Reason::InventoryUnknown,
                format!("the servers of group {name} cannot be listed"),
            )
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
