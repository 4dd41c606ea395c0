//! Servers asked for, called back, drained and given back.
//!
//! Never from an inventory that is not known, and never while a server may be needed: what pools of this pass have left
//! on the shelves is what nobody needs.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::draft::Draft;
use super::policy::{DRAIN_ESTIMATE, SERVER_IDLE_HOLD_DOWN};
use super::power::Power;
use super::stock::{Ask, Shelf, Stock, retained_until};
use super::world::{Occupant, World, dead_at, is_usable};
use crate::lifecycle::{NodeHealth, ReplicaState, ServerState};
use crate::names::{GroupName, ServerName};
use crate::plan::{Action, Verdict};
use crate::reason::Reason;
use crate::snapshot::{Group, Mode, Replica, Server};
use crate::strategy::ahead::GroupAhead;
use crate::time::Timestamp;
use crate::units::Money;

/// What pools of this pass decided about servers, beside what they took from the stock.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Servers with a replica that stays.
    kept: RefCell<Kept>,
    /// Servers whose replica begins to drain in this pass, by choice.
    vacated: BTreeSet<(GroupName, ServerName)>,
}

/// Servers: collected, then looked at.
#[derive(Debug, Default)]
struct Kept {
    servers: Vec<(GroupName, ServerName)>,
    sorted: bool,
}

impl Claims {
    pub(crate) fn keep(&mut self, group: &GroupName, server: &ServerName) {
        let kept = self.kept.get_mut();
        kept.servers.push((group.clone(), server.clone()));
        kept.sorted = false;
    }

    pub(crate) fn keeps(&self, group: &GroupName, server: &ServerName) -> bool {
        let mut kept = self.kept.borrow_mut();
        if !kept.sorted {
            kept.servers.sort_unstable();
            kept.sorted = true;
        }
        let found = kept
            .servers
            .binary_search_by(|(in_group, other)| (in_group, other).cmp(&(group, server)));
        found.is_ok()
    }

    pub(crate) fn vacate(&mut self, group: &GroupName, server: &ServerName) {
        self.vacated.insert((group.clone(), server.clone()));
    }
}

/// Decides about the servers of every group, and writes down what to remember of each.
///
/// Servers of `guided` groups come and go by the strategic plan.
pub(crate) fn manage(
    world: &World,
    stock: &mut Stock,
    claims: &Claims,
    guided: &BTreeSet<&GroupName>,
    draft: &mut Draft,
) {
    for (name, group) in &world.snapshot.groups {
        let mut memory = group.memory.clone();
        let ahead = world.snapshot.ahead.as_ref().and_then(|ahead| ahead.groups.get(name));
        let Stock { shelves, power } = stock;
        let shelf = shelves.entry(name.clone()).or_default();
        if world.hands_off(name).is_none() && group.inventory.is_known() {
            call_back(name, group, shelf, claims, draft);
            keep_minimum(name, group, shelf, power);
            if ask(world, name, group, shelf, draft) {
                memory.last_requested_at = Some(world.now);
            }
            let returns = Returns {
                world,
                name,
                group,
                shelf,
                claims,
                ahead: ahead.filter(|_| guided.contains(name)),
            };
            returns.decide(draft);
        }
        if let Some(at) = shelf.retry_at {
            draft.wake(at);
        }
        draft.plan.groups.entry(name.clone()).or_default().memory = memory;
    }
}

fn call_back(name: &GroupName, group: &Group, shelf: &mut Shelf, claims: &Claims, draft: &mut Draft) {
    for (server_name, server) in group.inventory.servers() {
        // A machine that is silent is not called back: its drain was for that.
        let answers = server.state == ServerState::Draining && server.node == NodeHealth::Ready;
        let kept = || claims.keeps(name, server_name);
        if answers && kept() && !server.cordoned && !group.deleting {
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
fn keep_minimum(name: &GroupName, group: &Group, shelf: &mut Shelf, power: &mut Power) {
    let there = group
        .inventory
        .servers()
        .values()
        .filter(|server| server.state == ServerState::Ready || server.state.is_coming())
        .count();
    if group.deleting {
        return;
    }
    let there = there + shelf.reclaimed.len() + shelf.asked.len();
    let minimum = usize::try_from(group.size.min).unwrap_or(usize::MAX);
    for _ in there..minimum {
        if shelf.growable == 0 || power.refuses(name).is_some() {
            break;
        }
        shelf.growable -= 1;
        power.take(name);
        shelf.asked.push(Ask {
            name: None,
            reason: Reason::GroupBelowMinimum,
            message: format!("group {name} has {there} of at least {minimum} servers"),
            verdict: Verdict::Act,
            rejected: Vec::new(),
        });
    }
}

/// Asks for servers by the names that people have approved, then by the lowest free ones; those that are only proposed last. True if any are
/// asked for.
fn ask(world: &World, name: &GroupName, group: &Group, shelf: &mut Shelf, draft: &mut Draft) -> bool {
    if shelf.asked.is_empty() {
        return false;
    }
    let servers = group.inventory.servers();
    let named: BTreeSet<ServerName> = shelf.asked.iter().filter_map(|ask| ask.name.clone()).collect();
    // What people have approved goes by the names that they were shown, and by no other.
    let pools = world.snapshot.pools.values();
    let approved = pools.flat_map(|pool| pool.approved_requests(name, group));
    let reserved: BTreeSet<&ServerName> = approved.chain(group.approved_requests()).chain(&named).collect();
    let mut approved = group.approved_requests().filter(|server| !named.contains(*server));
    let mut lowest = (0u32..)
        .map(|ordinal| ServerName::new(format!("{name}-{ordinal}")))
        .filter(|server| !servers.contains_key(server) && !reserved.contains(server));
    shelf.asked.sort_by_key(|ask| ask.verdict);
    for ask in &mut shelf.asked {
        if ask.name.is_none() {
            ask.name = approved.next().cloned();
            if ask.name.is_none() {
                ask.verdict = ask.verdict.max(by_mode(group));
            }
        }
        let Some(server) = ask.name.clone().or_else(|| lowest.next()) else {
            break;
        };
        let group = name.clone();
        draft.gated(
            ask.verdict,
            Action::RequestServer { group, server },
            ask.reason,
            ask.message.clone(),
            ask.rejected.clone(),
        );
    }
    shelf.asked.iter().any(|ask| ask.verdict == Verdict::Act)
}

/// Whether the group may act by itself where money is spent or saved. Who deletes a group has decided to do without its
/// servers.
fn by_mode(group: &Group) -> Verdict {
    match group.mode {
        Mode::Approve | Mode::Advise if !group.deleting => Verdict::Propose,
        Mode::Auto | Mode::Approve | Mode::Advise => Verdict::Act,
    }
}

/// What becomes of the servers of one group that nobody needs, or that do not answer.
struct Returns<'r, 'a> {
    world: &'r World<'a>,
    name: &'r GroupName,
    group: &'a Group,
    shelf: &'r Shelf<'a>,
    claims: &'r Claims,
    /// What the strategic plan says of the group, if it is followed.
    ahead: Option<&'r GroupAhead>,
}

impl Returns<'_, '_> {
    /// Drains what nobody needs, and gives back what is empty.
    fn decide(&self, draft: &mut Draft) {
        let group = self.group;
        if group.provider.always_on || (group.mode == Mode::Advise && !group.deleting) {
            return;
        }
        let servers = group.inventory.servers();
        let alive = |server: &Server| server.state == ServerState::Ready || server.state.is_coming();
        let mut left = servers.values().filter(|server| alive(server)).count();
        let minimum = usize::try_from(self.minimum()).unwrap_or(usize::MAX);
        let chosen = group.provider.releases_chosen || self.all_idle();
        for (server_name, server) in servers {
            if server.held || self.shelf.reclaimed.contains(server_name) {
                continue;
            }
            match server.state {
                ServerState::Ready if chosen && (left > minimum || group.deleting) => {
                    left -= usize::from(self.drain_surplus(server_name, server, draft));
                }
                ServerState::Suspect if chosen => self.drain_silent(server_name, server, draft),
                ServerState::Draining if chosen => self.release_drained(server_name, server, draft),
                ServerState::Failed if chosen => self.release_failed(server_name, server, draft),
                state if chosen && state.is_coming() && group.deleting => {
                    self.release(server_name, Reason::GroupDeleted, "it is not needed any more", draft);
                }
                _ => {}
            }
        }
    }

    /// Kept even without demand.
    fn minimum(&self) -> u32 {
        if self.group.deleting { 0 } else { self.group.size.min }
    }

    /// All or nothing, where the provider picks the victim itself.
    fn all_idle(&self) -> bool {
        let idle = |(name, server): (&ServerName, &Server)| match server.state {
            ServerState::Draining
            | ServerState::Releasing
            | ServerState::Recycling
            | ServerState::Gone
            | ServerState::Failed => !self.is_kept(name),
            ServerState::Suspect => self.world.is_dead(server) && !self.is_kept(name),
            ServerState::Ready => self.is_surplus(name, server),
            ServerState::Requested | ServerState::Provisioning | ServerState::Booting => self.group.deleting,
        };
        self.minimum() == 0
            && self.shelf.asked.is_empty()
            && self.shelf.reclaimed.is_empty()
            && self.group.inventory.servers().iter().all(idle)
    }

    fn drain_surplus(&self, name: &ServerName, server: &Server, draft: &mut Draft) -> bool {
        if !self.is_surplus(name, server) {
            return false;
        }
        let target = self.target(name);
        if let Some(ahead) = self.ahead.filter(|_| !self.group.deleting) {
            let Some(until) = ahead.until.get(name) else {
                return false;
            };
            let at = *until - DRAIN_ESTIMATE;
            if self.world.now < at {
                draft.wake(at);
                return false;
            }
            let message = format!("server {name} is not planned for beyond {until}");
            let leased = server.lease.is_some();
            self.drain(
                name,
                if leased { Reason::LeaseEnded } else { Reason::ServerIdle },
                message,
                draft,
            );
            return true;
        }
        if let Some(until) = self.wait_until(server, self.claims.vacated.contains(&target)) {
            draft.wake(until);
            return false;
        }
        let reason = match server.lease {
            _ if self.group.deleting => Reason::GroupDeleted,
            Some(_) => Reason::LeaseEnded,
            None => Reason::ServerIdle,
        };
        self.drain(name, reason, format!("nothing needs server {name}"), draft);
        true
    }

    /// A machine that does not answer is marked once it is given up, so that nothing lands there if it comes back.
    fn drain_silent(&self, name: &ServerName, server: &Server, draft: &mut Draft) {
        if self.is_kept(name) {
            return;
        }
        if self.world.is_dead(server) {
            let message = format!("server {name} has not answered since {}", server.since);
            self.drain(name, Reason::ServerLost, message, draft);
        } else if let Some(at) = dead_at(server) {
            draft.wake(at);
        }
    }

    fn release_drained(&self, name: &ServerName, server: &Server, draft: &mut Draft) {
        if !self.is_spent(name, server, draft) {
            return;
        }
        if let NodeHealth::Down { since } = server.node
            && self.world.is_dead(server)
        {
            // Paid or not: it is of no use, and its place in the group is needed for one that is.
            let message = format!("it has not answered since {since}, and nothing runs there any more");
            self.release(name, Reason::ServerLost, &message, draft);
            return;
        }
        match server.lease {
            Some(lease) if self.world.now < lease.minimum_until && !self.group.deleting => {
                draft.wake(lease.minimum_until);
            }
            _ if self.group.deleting => {
                self.release(name, Reason::GroupDeleted, "the group is being deleted", draft);
            }
            Some(lease) => {
                let message = format!("paid until {} and not needed", lease.minimum_until);
                self.release(name, Reason::LeaseEnded, &message, draft);
            }
            None => self.release(name, Reason::ServerIdle, "it is empty and not needed", draft),
        }
    }

    fn release_failed(&self, name: &ServerName, server: &Server, draft: &mut Draft) {
        if self.is_kept(name) || !self.is_spent(name, server, draft) {
            return;
        }
        let until = retained_until(server);
        if self.world.now < until && !self.group.deleting {
            draft.wake(until);
            return;
        }
        // Its Node may be there, and a late machine may still become Ready: nothing must land there.
        let (reason, message) = match server.node {
            NodeHealth::Ready => (Reason::ServerFailed, "its provider gave it up".to_owned()),
            _ => (
                Reason::LeaseLate,
                format!("server {name} did not come up by {}", server.since),
            ),
        };
        self.drain(name, reason, message.clone(), draft);
        self.release(name, reason, &message, draft);
    }

    /// Nothing stands on the server, or nothing that stands there can answer any more.
    fn is_spent(&self, name: &ServerName, server: &Server, draft: &mut Draft) -> bool {
        let occupants = self.world.occupants(self.group, name);
        if occupants.is_empty() {
            return true;
        }
        // Nobody ends the Pods of a machine that is dead: they stay Terminating until its Node is gone. The time that they
        // were promised has to be over all the same.
        let leaves_at = |replica: &Replica| match replica.state {
            ReplicaState::Ended => Some(self.world.now),
            ReplicaState::Terminating => Some(replica.since),
            _ => None,
        };
        let ends: Option<Vec<Timestamp>> = occupants.iter().map(|(.., replica)| leaves_at(replica)).collect();
        match ends.and_then(|ends| ends.into_iter().max()) {
            Some(end) if self.world.is_dead(server) && self.world.now < end => {
                draft.wake(end);
                false
            }
            Some(_) => self.world.is_dead(server),
            None => false,
        }
    }

    fn is_kept(&self, server: &ServerName) -> bool {
        self.claims.keeps(self.name, server)
    }

    fn is_surplus(&self, name: &ServerName, server: &Server) -> bool {
        let occupants = self.world.occupants(self.group, name);
        if self.is_kept(name) {
            return false;
        }
        if self.group.deleting {
            return !server.held && occupants.is_empty();
        }
        is_usable(server)
            && (self.claims.vacated.contains(&self.target(name))
                || (self.shelf.vacating.contains_key(name) && occupants.iter().all(leaves_for_good))
                || (occupants.is_empty() && self.shelf.free.contains_key(name)))
    }

    /// Until when a server that nobody needs is kept nevertheless.
    fn wait_until(&self, server: &Server, vacated: bool) -> Option<Timestamp> {
        if self.group.deleting {
            return None;
        }
        if let Some(until) = self.world.paid_until(server) {
            return Some(until - DRAIN_ESTIMATE);
        }
        // The pool that leaves it has already held down.
        if vacated {
            return None;
        }
        let since = server
            .since
            .max(self.group.memory.last_requested_at.unwrap_or_default());
        let until = since + SERVER_IDLE_HOLD_DOWN;
        (self.world.now < until).then_some(until)
    }

    fn target(&self, server: &ServerName) -> (GroupName, ServerName) {
        (self.name.clone(), server.clone())
    }

    fn drain(&self, server: &ServerName, reason: Reason, message: String, draft: &mut Draft) {
        let (group, server) = self.target(server);
        draft.decide(Action::DrainServer { group, server }, reason, message);
    }

    fn release(&self, server: &ServerName, reason: Reason, message: &str, draft: &mut Draft) {
        let message = match self.forfeit(server) {
            Some(forfeit) => format!("{message}; {forfeit}"),
            None => message.to_owned(),
        };
        let verdict = if self.group.may_release(server) {
            Verdict::Act
        } else {
            by_mode(self.group)
        };
        let (group, server) = self.target(server);
        let action = Action::ReleaseServer { group, server };
        draft.gated(verdict, action, reason, message, Vec::new());
    }

    /// What is paid for a server beyond now and is lost with it.
    fn forfeit(&self, server: &ServerName) -> Option<String> {
        let until = self.group.inventory.servers().get(server)?.lease?.minimum_until;
        // By begun hours, so that the same is said from pass to pass.
        let hours = until.since(self.world.now).as_hours_f64().ceil();
        let cost = Money::from_f64(self.group.pricing.hourly.as_f64() * hours);
        (until > self.world.now && cost > Money::ZERO)
            .then(|| format!("its lease is paid until {until}: up to {cost} are lost"))
    }
}

/// A replica whose pool does not want its server back.
fn leaves_for_good((.., replica): &Occupant) -> bool {
    replica.drain.is_some_and(|drain| {
        matches!(
            drain.reason,
            Reason::DemandFell
                | Reason::AboveMaximum
                | Reason::ReturnToOwned
                | Reason::LeaseEnded
                | Reason::PoolDeleted
                | Reason::NoLongerPermitted
                | Reason::NoLongerSelected
                | Reason::GroupDeleted
        )
    })
}
