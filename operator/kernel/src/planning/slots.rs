//! Where another replica of a pool could go, in the order in which they are taken.

use std::collections::{BTreeMap, BTreeSet};

use super::crew::{Crew, recallable};
use super::options::{Options, Place};
use super::stock::Stock;
use crate::lifecycle::ServerState;
use crate::names::{GroupName, ReplicaId, ServerName};
use crate::reason::{Problem, Reason};
use crate::snapshot::Mode;

/// One place for one more replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) group: GroupName,
    pub(crate) source: Source,
}

/// What makes the place. The order is the order of preference within a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A replica of the pool itself, whose drain is called off.
    Recall(ReplicaId, ServerName),
    /// An empty server.
    Free(ServerName),
    /// A server that is being emptied and stays after all.
    Reclaim(ServerName),
    /// A server whose replica is leaving.
    Vacating(ServerName),
    /// A server on its way in.
    Coming,
    /// A server that has to be asked for.
    Purchase,
}

impl Slot {
    /// It has to be asked for.
    pub(crate) fn is_purchase(&self) -> bool {
        self.source == Source::Purchase
    }
}

/// All slots that a pool could take, at most `limit`, and why groups have none.
pub(crate) fn slots(
    crew: &Crew,
    options: &Options,
    stock: &Stock,
    limit: u32,
) -> (Vec<Slot>, BTreeMap<GroupName, Problem>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found: Vec<((bool, Place, bool), Slot)> = Vec::new();
    let mut unavailable = BTreeMap::new();
    let recalled: BTreeSet<&ServerName> = crew
        .members
        .iter()
        .filter(|member| recallable(member, crew.pool) && options.satisfies(&member.replica.group))
        .map(|member| {
            let source = Source::Recall(member.name.clone(), member.replica.server.clone());
            let group = member.replica.group.clone();
            found.push(((false, options.place(&group, false), false), Slot { group, source }));
            &member.replica.server
        })
        .collect();
    for (&group, choice) in options.choices.iter().filter(|(_, choice)| choice.open) {
        let Some(shelf) = stock.shelves.get(group) else {
            continue;
        };
        let servers = choice.group.inventory.servers();
        let proven = |name: &&ServerName| {
            servers
                .get(*name)
                .is_some_and(|server| server.proven >= crew.pool.placement.minimum_trust)
        };
        let fresh = |name: &&ServerName| !recalled.contains(*name);
        let mut offers: Vec<Source> = Vec::new();
        offers.extend(shelf.free.iter().filter(proven).cloned().map(Source::Free));
        offers.extend(
            shelf
                .reversible
                .iter()
                .filter(proven)
                .filter(fresh)
                .cloned()
                .map(Source::Reclaim),
        );
        offers.extend(
            shelf
                .vacating
                .iter()
                .filter(proven)
                .filter(fresh)
                .cloned()
                .map(Source::Vacating),
        );
        offers.extend((0..shelf.coming).map(|_| Source::Coming));
        let unproven = shelf.free.iter().find(|name| !proven(name));
        let grows = match (&shelf.refused, unproven, crew.pool.mode) {
            (Some(problem), _, _) => Err(problem.clone()),
            // More of the same would be just as useless.
            (None, Some(server), _) => Err(Problem::new(
                Reason::TrustTooLow,
                format!("server {server} has no valid evidence; group {group} is not asked for more"),
            )),
            (None, None, Mode::Approve | Mode::Advise) => Err(Problem::new(
                Reason::AwaitingApproval,
                format!("the pool may only propose servers of group {group}"),
            )),
            (None, None, Mode::Auto) => Ok(shelf.growable),
        };
        match grows {
            Ok(more) => offers.extend((0..more).map(|_| Source::Purchase)),
            Err(problem) => {
                unavailable.insert(group.clone(), problem);
            }
        }
        for source in offers.into_iter().take(limit) {
            let slot = Slot {
                group: group.clone(),
                source,
            };
            let key = (true, options.place(group, slot.is_purchase()), slot.is_purchase());
            found.push((key, slot));
        }
    }
    found.sort();
    (
        found.into_iter().map(|(_, slot)| slot).take(limit).collect(),
        unavailable,
    )
}

/// Takes `slot` off the shelves, so that no other pool gets it.
pub(crate) fn take(slot: &Slot, stock: &mut Stock, server_state: Option<ServerState>) {
    let shelf = stock.shelf(&slot.group);
    match &slot.source {
        Source::Free(server) => {
            shelf.free.remove(server);
        }
        Source::Reclaim(server) => {
            shelf.reversible.remove(server);
            shelf.reclaimed.insert(server.clone());
        }
        Source::Recall(_, server) => {
            shelf.vacating.remove(server);
            shelf.reversible.remove(server);
            if server_state == Some(ServerState::Draining) {
                shelf.reclaimed.insert(server.clone());
            }
        }
        Source::Vacating(server) => {
            shelf.vacating.remove(server);
        }
        Source::Coming => shelf.coming = shelf.coming.saturating_sub(1),
        Source::Purchase => shelf.growable = shelf.growable.saturating_sub(1),
    }
}
