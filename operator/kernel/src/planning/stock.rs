//! Servers that are there for the taking, by group. Shared by all pools of a pass: what one takes, the next cannot.

use std::collections::{BTreeMap, BTreeSet};

use super::policy::OUT_OF_STOCK_HOLD_DOWN;
use super::power::Power;
use super::world::{Ground, World, is_usable};
use crate::lifecycle::{NodeHealth, ReplicaState, ServerState, server::FAILED_RETENTION};
use crate::names::{GroupName, ServerName};
use crate::plan::{Rejected, Verdict};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, Server};
use crate::time::Timestamp;

/// Servers by name.
pub(crate) type Servers<'a> = BTreeMap<&'a ServerName, &'a Server>;

/// What one group has to give.
#[derive(Debug, Default)]
pub(crate) struct Shelf<'a> {
    /// Ready and empty.
    pub(crate) free: Servers<'a>,
    /// On their way out by our own decision, and not given back yet.
    pub(crate) reversible: Servers<'a>,
    /// Ready; what runs there is leaving.
    pub(crate) vacating: Servers<'a>,
    /// On their way in, or expected to be of use again soon.
    pub(crate) coming: u32,
    /// More that may be asked for now.
    pub(crate) growable: u32,
    /// Why no more may be asked for, if so.
    pub(crate) refused: Option<Problem>,
    /// When `refused` may have passed.
    pub(crate) retry_at: Option<Timestamp>,
    /// Servers that pools of this pass ask for: for whom and why.
    pub(crate) asked: Vec<Ask>,
    /// Servers on their way out that pools of this pass want back.
    pub(crate) reclaimed: BTreeSet<ServerName>,
}

/// A server that is to be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// By which name people have approved it.
    pub(crate) name: Option<ServerName>,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) verdict: Verdict,
    pub(crate) rejected: Vec<Rejected>,
}

/// All shelves.
#[derive(Debug)]
pub(crate) struct Stock<'a> {
    pub(crate) shelves: BTreeMap<GroupName, Shelf<'a>>,
    pub(crate) power: Power,
}

impl<'a> Stock<'a> {
    pub(crate) fn of(world: &World<'a>) -> Self {
        let power = Power::of(world);
        let grounds = world.grounds().iter();
        let shelves = grounds.map(|ground| (ground.name.clone(), shelf(world, ground, &power)));
        let shelves = shelves.collect();
        Self { shelves, power }
    }

    pub(crate) fn shelf(&mut self, group: &GroupName) -> &mut Shelf<'a> {
        self.shelves.entry(group.clone()).or_default()
    }
}

fn shelf<'a>(world: &World<'a>, ground: &Ground<'a>, power: &Power) -> Shelf<'a> {
    let (name, group) = (ground.name, ground.group);
    let mut shelf = Shelf::default();
    if let Some(problem) = &ground.closed {
        shelf.refused = Some(problem.clone());
        for (_, server, occupants) in world.servers(ground) {
            if let Some(until) = world.expected_until(name, server)
                && occupants.is_empty()
            {
                shelf.coming += 1;
                shelf.retry_at = Some(shelf.retry_at.map_or(until, |earlier| earlier.min(until)));
            }
        }
        return shelf;
    }
    for (server_name, server, occupants) in world.servers(ground) {
        let leaving = occupants.iter().all(|(_, pool, replica)| {
            replica.drain.is_some()
                || matches!(replica.state, ReplicaState::Terminating | ReplicaState::Ended)
                || (matches!(replica.state, ReplicaState::Pending | ReplicaState::Loading)
                    && (world.snapshot.pools.get(*pool)).is_some_and(|pool| world.is_late(pool, replica)))
        });
        let reversible = server.state == ServerState::Draining && server.node == NodeHealth::Ready;
        if is_usable(server) && occupants.is_empty() {
            shelf.free.insert(server_name, server);
        } else if is_usable(server) && leaving {
            shelf.vacating.insert(server_name, server);
        } else if reversible && !server.cordoned && !server.held && leaving {
            shelf.reversible.insert(server_name, server);
        } else if server.state.is_coming() && !server.cordoned && !server.held {
            shelf.coming += 1;
        }
    }
    match may_grow(world, name, group) {
        Ok(growable) => match power.refuses(name) {
            Some(problem) => shelf.refused = Some(problem),
            None => shelf.growable = growable,
        },
        Err((problem, retry_at)) => {
            shelf.refused = Some(problem);
            shelf.retry_at = retry_at;
        }
    }
    shelf
}

/// How many more servers may be asked for now, or why none, and until when.
pub(crate) fn may_grow(world: &World, name: &GroupName, group: &Group) -> Result<u32, (Problem, Option<Timestamp>)> {
    let refuse = |reason, message: String, until| Err((Problem::new(reason, message), until));
    let servers = group.inventory.servers();
    let existing = servers
        .values()
        .filter(|server| server.state != ServerState::Gone)
        .count();
    let existing = u32::try_from(existing).unwrap_or(u32::MAX);
    let most = world.most(group);
    if !group.provider.grows {
        return refuse(
            Reason::CapacityExhausted,
            format!("all {existing} servers of group {name} are in use and it cannot grow"),
            None,
        );
    }
    if let Some(since) = group.out_of_stock_since {
        let until = since + OUT_OF_STOCK_HOLD_DOWN;
        if world.now < until {
            let message = format!("group {name} is out of stock since {since}; asked again at {until}");
            return refuse(Reason::OutOfStock, message, Some(until));
        }
    }
    let late = servers
        .iter()
        .filter(|(_, server)| server.state == ServerState::Failed)
        .map(|(server_name, server)| (retained_until(server), server_name))
        // One that nobody can give back must not lock its group for ever.
        .filter(|(until, _)| world.now < *until)
        .max();
    if let Some((until, server_name)) = late {
        let message = format!("server {server_name} did not come in time; group {name} is asked again after {until}");
        return refuse(Reason::LeaseLate, message, Some(until));
    }
    if existing >= most {
        return refuse(
            Reason::CapacityExhausted,
            format!("group {name} is at its most: {existing} of {most} servers"),
            None,
        );
    }
    Ok(most - existing)
}

/// Until when a failed server is kept.
pub(crate) fn retained_until(server: &Server) -> Timestamp {
    server.since + FAILED_RETENTION
}
