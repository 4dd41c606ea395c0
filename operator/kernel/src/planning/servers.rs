//! Servers asked for, called back, drained and given back.
//!
//! Never from an inventory that is not known, and never while a server may be needed: what pools of this pass have left
//! on the shelves is what nobody needs.

use std::collections::BTreeSet;

use super::draft::Draft;
use super::policy::{DRAIN_ESTIMATE, SERVER_IDLE_HOLD_DOWN};
use super::stock::{Ask, Shelf, Stock, retained_until};
use super::world::{World, is_usable};
use crate::lifecycle::{ServerState, server::SUSPECT_LIMIT};
use crate::names::{GroupName, PoolId, ServerName};
use crate::plan::{Action, Verdict};
use crate::reason::Reason;
use crate::snapshot::{Group, Mode, Replica, Server};
use crate::time::Timestamp;

/// What pools of this pass decided about servers, beside what they took from the stock.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Servers with a replica that stays.
    pub(crate) kept: BTreeSet<(GroupName, ServerName)>,
    /// Servers whose replica begins to drain in this pass, by choice.
    pub(crate) vacated: BTreeSet<(GroupName, ServerName)>,
}

/// Decides about the servers of every group, and writes down what to remember of each.
pub(crate) fn manage(world: &World, stock: &mut Stock, claims: &Claims, draft: &mut Draft) {
    for (name, group) in &world.snapshot.groups {
        let mut memory = group.memory.clone();
        if world.hands_off(name).is_none() && group.inventory.is_known() {
            let shelf = stock.shelf(name);
            call_back(name, group, shelf, claims, draft);
            keep_minimum(name, group, shelf);
            if ask(name, group, shelf, draft) {
                memory.last_requested_at = Some(world.now);
            }
            if give_back(world, name, group, shelf, claims, draft) {
                memory.last_released_at = Some(world.now);
            }
            if let Some(at) = shelf.retry_at {
                draft.wake(at);
            }
        }
        draft.plan.groups.entry(name.clone()).or_default().memory = memory;
    }
}

fn call_back(name: &GroupName, group: &Group, shelf: &mut Shelf, claims: &Claims, draft: &mut Draft) {
    for (server_name, server) in group.inventory.servers() {
        let kept = claims.kept.contains(&(name.clone(), server_name.clone()));
        if server.state == ServerState::Draining && !server.cordoned && kept {
            shelf.reclaimed.insert(server_name.clone());
        }
    }
    for server in &shelf.reclaimed {
        draft.decide(
            Action::UndrainServer {
                group: name.clone(),
                server: server.clone(),
            },
            Reason::DrainCancelled,
            format!("server {server} is needed after all"),
        );
    }
}

/// Adds to the asks what is missing for `size.min`.
fn keep_minimum(name: &GroupName, group: &Group, shelf: &mut Shelf) {
    let there = group
        .inventory
        .servers()
        .values()
        .filter(|server| server.state == ServerState::Ready || server.state.is_coming())
        .count();
    let there = there + shelf.reclaimed.len() + shelf.asked.len();
    let minimum = usize::try_from(group.size.min).unwrap_or(usize::MAX);
    for _ in there..minimum {
        if shelf.growable == 0 {
            break;
        }
        shelf.growable -= 1;
        shelf.asked.push(Ask {
            reason: Reason::GroupBelowMinimum,
            message: format!("group {name} has {there} of at least {minimum} servers"),
            verdict: Verdict::Act,
            rejected: Vec::new(),
        });
    }
}

/// Asks for servers by the lowest free names, those that are only proposed last. True if any are asked for.
fn ask(name: &GroupName, group: &Group, shelf: &mut Shelf, draft: &mut Draft) -> bool {
    let servers = group.inventory.servers();
    let names = (0u32..)
        .map(|ordinal| ServerName::new(format!("{name}-{ordinal}")))
        .filter(|server| !servers.contains_key(server));
    for ask in &mut shelf.asked {
        ask.verdict = ask.verdict.max(by_mode(group));
    }
    shelf.asked.sort_by_key(|ask| ask.verdict);
    for (ask, server) in shelf.asked.iter().zip(names) {
        let group = name.clone();
        let action = Action::RequestServer { group, server };
        draft.gated(
            ask.verdict,
            action,
            ask.reason,
            ask.message.clone(),
            ask.rejected.clone(),
        );
    }
    shelf.asked.iter().any(|ask| ask.verdict == Verdict::Act)
}

/// Drains what nobody needs, and gives back what is empty. True if something was given back.
fn give_back(
    world: &World,
    name: &GroupName,
    group: &Group,
    shelf: &Shelf,
    claims: &Claims,
    draft: &mut Draft,
) -> bool {
    if group.provider.always_on || group.mode == Mode::Advise {
        return false;
    }
    let servers = group.inventory.servers();
    let alive = |server: &Server| server.state == ServerState::Ready || server.state.is_coming();
    let mut left = servers.values().filter(|server| alive(server)).count();
    let minimum = usize::try_from(group.size.min).unwrap_or(usize::MAX);
    // All or nothing, where the provider picks the victim itself.
    let all_idle = group.size.min == 0
        && shelf.asked.is_empty()
        && shelf.reclaimed.is_empty()
        && servers.iter().all(|(server_name, server)| {
            server.state == ServerState::Draining || is_surplus(world, name, group, server_name, server, shelf, claims)
        });
    let mut released = false;
    for (server_name, server) in servers {
        if server.held || shelf.reclaimed.contains(server_name) {
            continue;
        }
        let empty = world.occupants(group, server_name).is_empty();
        let chosen = group.provider.releases_chosen || all_idle;
        let target = (name.clone(), server_name.clone());
        match server.state {
            ServerState::Failed if empty && group.provider.releases_chosen => {
                let until = retained_until(server);
                if world.now >= until {
                    let message = format!("server {server_name} did not come up by {}", server.since);
                    release(by_mode(group), target, Reason::LeaseLate, message, draft);
                    released = true;
                } else {
                    draft.wake(until);
                }
            }
            ServerState::Draining if empty && chosen => match server.lease {
                Some(lease) if world.now < lease.minimum_until => draft.wake(lease.minimum_until),
                lease => {
                    let (reason, message) = match lease {
                        Some(lease) => (
                            Reason::LeaseEnded,
                            format!("paid until {} and not needed", lease.minimum_until),
                        ),
                        None => (Reason::ServerIdle, "it is empty and not needed".to_owned()),
                    };
                    release(by_mode(group), target, reason, message, draft);
                    released = true;
                }
            },
            ServerState::Suspect if chosen && world.now >= server.since + SUSPECT_LIMIT => {
                let message = format!("server {server_name} has not answered since {}", server.since);
                drain(target, Reason::ReplicaLost, message, draft);
            }
            ServerState::Suspect => draft.wake(server.since + SUSPECT_LIMIT),
            ServerState::Ready
                if chosen && left > minimum && is_surplus(world, name, group, server_name, server, shelf, claims) =>
            {
                let vacated = claims.vacated.contains(&target);
                if let Some(until) = wait_until(world, group, server, vacated) {
                    draft.wake(until);
                } else {
                    let reason = if server.lease.is_some() {
                        Reason::LeaseEnded
                    } else {
                        Reason::ServerIdle
                    };
                    drain(target, reason, format!("nothing needs server {server_name}"), draft);
                    left -= 1;
                }
            }
            _ => {}
        }
    }
    released
}

fn is_surplus(
    world: &World,
    name: &GroupName,
    group: &Group,
    server_name: &ServerName,
    server: &Server,
    shelf: &Shelf,
    claims: &Claims,
) -> bool {
    let target = (name.clone(), server_name.clone());
    let nobody = world.occupants(group, server_name).is_empty();
    is_usable(server)
        && !claims.kept.contains(&target)
        && (claims.vacated.contains(&target)
            || (shelf.vacating.contains(server_name)
                && world.occupants(group, server_name).iter().all(leaves_for_good))
            || (nobody && shelf.free.contains(server_name)))
}

/// A replica whose pool does not want its server back.
fn leaves_for_good((_, replica): &(&PoolId, &Replica)) -> bool {
    replica.drain.is_some_and(|drain| {
        matches!(
            drain.reason,
            Reason::DemandFell
                | Reason::AboveMaximum
                | Reason::ReturnToOwned
                | Reason::LeaseEnded
                | Reason::PoolDeleted
                | Reason::NoLongerPermitted
        )
    })
}

/// Until when a server that nobody needs is kept nevertheless.
fn wait_until(world: &World, group: &Group, server: &Server, vacated: bool) -> Option<Timestamp> {
    if let Some(until) = world.paid_until(server) {
        return Some(until - DRAIN_ESTIMATE);
    }
    // The pool that leaves it has already held down.
    if vacated {
        return None;
    }
    let since = server.since.max(group.memory.last_requested_at.unwrap_or_default());
    let until = since + SERVER_IDLE_HOLD_DOWN;
    (world.now < until).then_some(until)
}

/// Whether the group may act by itself where money is spent or saved.
fn by_mode(group: &Group) -> Verdict {
    match group.mode {
        Mode::Auto => Verdict::Act,
        Mode::Approve | Mode::Advise => Verdict::Propose,
    }
}

fn drain((group, server): (GroupName, ServerName), reason: Reason, message: String, draft: &mut Draft) {
    draft.decide(Action::DrainServer { group, server }, reason, message);
}

fn release(
    verdict: Verdict,
    (group, server): (GroupName, ServerName),
    reason: Reason,
    message: String,
    draft: &mut Draft,
) {
    draft.gated(
        verdict,
        Action::ReleaseServer { group, server },
        reason,
        message,
        Vec::new(),
    );
}
