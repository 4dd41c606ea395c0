//! Where another replica of a pool could go, in the order in which they are taken.

use std::collections::{BTreeMap, BTreeSet};

use super::crew::{Crew, recallable};
use super::options::{Options, Place};
use super::stock::{Shelf, Stock};
use crate::lifecycle::ServerState;
use crate::names::{GroupName, ReplicaId, ServerName};
use crate::plan::Verdict;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, Mode, Pool, Server};

/// One place for one more replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) group: GroupName,
    pub(crate) source: Source,
    /// Whether it may be taken, or only proposed.
    pub(crate) verdict: Verdict,
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

/// Drains called off first, then what may be taken before what may only be proposed, then the placement's order.
type Order = (bool, Verdict, Place, bool);

/// All slots that a pool could take, at most `limit`, and why groups have none.
pub(crate) fn slots(
    crew: &Crew,
    options: &Options,
    stock: &Stock,
    limit: u32,
) -> (Vec<Slot>, BTreeMap<GroupName, Problem>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found: Vec<(Order, Slot)> = Vec::new();
    let mut unavailable = BTreeMap::new();
    let mut add = |source: Source, group: &GroupName, server: Option<&Server>, verdict: Verdict| {
        let fresh = !matches!(source, Source::Recall(..));
        let order = (fresh, verdict, options.place(group, server), source == Source::Coming);
        let group = group.clone();
        found.push((order, Slot { group, source, verdict }));
    };
    let recalled: BTreeSet<&ServerName> = crew
        .members
        .iter()
        .filter(|member| recallable(member, crew.pool) && options.satisfies(&member.replica.group))
        .map(|member| {
            let source = Source::Recall(member.name.clone(), member.replica.server.clone());
            add(source, &member.replica.group, member.server, Verdict::Act);
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
        let free = shelf.free.iter().map(|name| (name, Source::Free(name.clone())));
        let reclaim = shelf.reversible.iter().filter(fresh);
        let reclaim = reclaim.map(|name| (name, Source::Reclaim(name.clone())));
        let vacating = shelf.vacating.iter().filter(fresh);
        let vacating = vacating.map(|name| (name, Source::Vacating(name.clone())));
        for (name, source) in free.chain(reclaim).chain(vacating).filter(|(name, _)| proven(name)) {
            add(source, group, servers.get(name), Verdict::Act);
        }
        // Where nothing can be done at the moment, servers that are there count as coming too.
        let coming = servers
            .values()
            .find(|server| server.state.is_coming())
            .or_else(|| servers.values().find(|server| server.state == ServerState::Ready));
        for _ in 0..shelf.coming {
            add(Source::Coming, group, coming, Verdict::Act);
        }
        let power = stock.power.refuses(group);
        match growable(shelf, power, shelf.free.iter().find(|name| !proven(name))) {
            Ok(more) => {
                let approved = approved(group, choice.group, shelf, crew.pool).len();
                for index in 0..usize::try_from(more).unwrap_or(usize::MAX).min(limit) {
                    let verdict = if index < approved { Verdict::Act } else { choice.verdict };
                    add(Source::Purchase, group, None, verdict);
                }
            }
            Err(problem) => {
                unavailable.insert(group.clone(), problem);
            }
        }
        if choice.verdict == Verdict::Propose {
            let message = format!("servers of group {group} may only be proposed");
            let problem = || Problem::new(Reason::AwaitingApproval, message);
            unavailable.entry(group.clone()).or_insert_with(problem);
        }
    }
    found.sort();
    (
        found.into_iter().map(|(_, slot)| slot).take(limit).collect(),
        unavailable,
    )
}

/// Servers that people have approved, those of the group or those of the pool, and that nobody has asked for yet.
pub(crate) fn approved<'p>(
    name: &'p GroupName,
    group: &'p Group,
    shelf: &Shelf,
    pool: &'p Pool,
) -> BTreeSet<&'p ServerName> {
    let taken = |server: &ServerName| shelf.asked.iter().any(|ask| ask.name.as_ref() == Some(server));
    let approved = group.approved_requests().chain(pool.approved_requests(name, group));
    approved
        .filter(|server| pool.mode != Mode::Advise && !taken(server))
        .collect()
}

/// How many more servers of a group may be asked for, or why none. `power` is why there is no power for another; `unproven` is a free one
/// without valid evidence.
fn growable(shelf: &Shelf, power: Option<Problem>, unproven: Option<&ServerName>) -> Result<u32, Problem> {
    match (shelf.refused.clone().or(power), unproven) {
        (Some(problem), _) => Err(problem),
        // More of the same would be just as useless.
        (None, Some(server)) => Err(Problem::new(
            Reason::TrustTooLow,
            format!("server {server} has no valid evidence; no more like it is asked for"),
        )),
        (None, None) if shelf.growable == 0 => Err(Problem::new(
            Reason::CapacityExhausted,
            "all servers that may be asked for are taken by other pools",
        )),
        (None, None) => Ok(shelf.growable),
    }
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
        Source::Purchase => {
            shelf.growable = shelf.growable.saturating_sub(1);
            stock.power.take(&slot.group);
        }
    }
}
