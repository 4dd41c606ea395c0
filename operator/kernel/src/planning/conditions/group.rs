//! What to say about a group.

use std::collections::BTreeMap;

use super::{because, condition};
use crate::lifecycle::ServerState;
use crate::names::GroupName;
use crate::plan::{Action, Condition, ConditionKind, GroupOutlook, Truth, Verdict};
use crate::planning::draft::Draft;
use crate::planning::options::energy;
use crate::planning::stock::{Shelf, Stock};
use crate::planning::world::World;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, MachineKey, Site};
use crate::units::Money;

/// Writes the outlook of every group into the draft.
pub(crate) fn describe(world: &World, stock: &Stock, draft: &mut Draft) {
    for (name, group) in &world.snapshot.groups {
        let memory = draft.plan.groups.get(name).map(|outlook| outlook.memory.clone());
        let changes = changes(name, draft);
        let outlook = GroupOutlook {
            memory: memory.unwrap_or_else(|| group.memory.clone()),
            ..outlook(world, name, group, stock.shelves.get(name), changes)
        };
        draft.plan.groups.insert(name.clone(), outlook);
    }
}

/// Servers that this pass asks for, less those that it drains.
fn changes(name: &GroupName, draft: &Draft) -> i64 {
    draft
        .plan
        .decisions
        .iter()
        .filter(|decision| decision.verdict == Verdict::Act)
        .map(|decision| match &decision.action {
            Action::RequestServer { group, .. } | Action::UndrainServer { group, .. } if group == name => 1,
            Action::DrainServer { group, .. } if group == name => -1,
            _ => 0,
        })
        .sum()
}

fn outlook(world: &World, name: &GroupName, group: &Group, shelf: Option<&Shelf>, changes: i64) -> GroupOutlook {
    let servers = group.inventory.servers();
    let mut by_state: BTreeMap<String, u32> = BTreeMap::new();
    for server in servers.values() {
        *by_state.entry(server.state.as_str().to_owned()).or_default() += 1;
    }
    let count = |predicate: &dyn Fn(&ServerState) -> bool| {
        u32::try_from(servers.values().filter(|server| predicate(&server.state)).count()).unwrap_or(u32::MAX)
    };
    let here = count(&|state| *state == ServerState::Ready || state.is_coming() || *state == ServerState::Suspect);
    let used = servers
        .keys()
        .filter(|server| !world.occupants(group, server).is_empty())
        .count();
    let given_back = |state| {
        matches!(
            state,
            ServerState::Gone | ServerState::Releasing | ServerState::Recycling
        )
    };
    let leases: Vec<_> = servers
        .values()
        .filter(|server| !given_back(server.state))
        .filter_map(|server| server.lease)
        .collect();
    let site = world.snapshot.sites.get(&group.site);
    GroupOutlook {
        target: u32::try_from((i64::from(here) + changes).max(0)).unwrap_or(u32::MAX),
        by_state,
        ready: count(&|state| *state == ServerState::Ready),
        used: u32::try_from(used).unwrap_or(u32::MAX),
        leases: u32::try_from(leases.len()).unwrap_or(u32::MAX),
        next_lease_end: leases
            .iter()
            .map(|lease| lease.minimum_until)
            .filter(|until| *until > world.now)
            .min(),
        hourly: site.map_or(Money::ZERO, |site| hourly(world, group, site)),
        conditions: conditions(world, name, group, shelf, here),
        memory: group.memory.clone(),
    }
}

/// Leases, and energy of what is switched on.
pub(super) fn hourly(world: &World, group: &Group, site: &Site) -> Money {
    group
        .inventory
        .servers()
        .iter()
        .map(|(name, server)| {
            let paid = match server.state {
                ServerState::Gone | ServerState::Recycling => return Money::ZERO,
                _ if server.lease.is_some() => group.pricing.hourly,
                _ => Money::ZERO,
            };
            let watts = match server.state {
                ServerState::Requested | ServerState::Provisioning | ServerState::Releasing => 0.0,
                _ if world.occupants(group, name).is_empty() => group.power.idle_watts,
                _ => group.power.busy_watts,
            };
            paid + energy(site, watts)
        })
        .sum()
}

fn conditions(world: &World, name: &GroupName, group: &Group, shelf: Option<&Shelf>, here: u32) -> Vec<Condition> {
    let ready = |truth, problem| because(ConditionKind::Ready, truth, problem);
    if !world.snapshot.sites.contains_key(&group.site) {
        let problem = Problem::new(Reason::ReferenceMissing, format!("there is no site {}", group.site));
        return vec![
            ready(Truth::False, problem.clone()),
            because(ConditionKind::Stalled, Truth::True, problem),
        ];
    }
    if let Some(problem) = world.hands_off(name) {
        return vec![ready(Truth::Unknown, problem)];
    }
    if !group.inventory.is_known() {
        let message = "the servers cannot be listed: nothing is requested or released";
        return vec![ready(Truth::Unknown, Problem::new(Reason::InventoryUnknown, message))];
    }
    let mut conditions = Vec::new();
    if group.deleting {
        let message = format!("{here} servers are to be left and given back");
        let problem = Problem::new(Reason::GroupDeleted, message);
        conditions.push(ready(Truth::False, problem.clone()));
        conditions.push(because(ConditionKind::Reconciling, Truth::True, problem));
    } else if let Some(problem) = &group.overlap {
        conditions.push(ready(Truth::False, problem.clone()));
        conditions.push(because(ConditionKind::Stalled, Truth::True, problem.clone()));
    } else if here < group.size.min {
        let problem = Problem::new(
            Reason::GroupBelowMinimum,
            format!("{here} of at least {} servers", group.size.min),
        );
        conditions.push(ready(Truth::False, problem.clone()));
        conditions.push(because(ConditionKind::Reconciling, Truth::True, problem));
    } else {
        let servers = group.inventory.servers();
        let by = |wanted: ServerState| servers.values().filter(|server| server.state == wanted).count();
        let mut message = format!("{} servers, {} Ready", servers.len(), by(ServerState::Ready));
        for state in [ServerState::Suspect, ServerState::Failed] {
            if by(state) > 0 {
                message = format!("{message}, {} {}", by(state), state.as_str());
            }
        }
        conditions.push(ready(Truth::True, kept_for_want_of_choice(group, shelf, message)));
    }
    conditions.push(unknown_machine(world, group).unwrap_or_else(|| capacity(name, shelf)));
    conditions
}

/// Idle servers that stay because their provider would pick the victim itself.
fn kept_for_want_of_choice(group: &Group, shelf: Option<&Shelf>, message: String) -> Problem {
    let idle = shelf.map_or(0, |shelf| shelf.free.len());
    let provider = group.provider;
    if idle == 0 || provider.releases_chosen || provider.always_on {
        return Problem::new(Reason::AllAccounted, message);
    }
    let message =
        format!("{message}; {idle} idle ones stay until all are: the provider does not let us choose which one goes");
    Problem::new(Reason::CannotChooseVictim, message)
}

/// Nobody knows how fast the machine is, neither the catalogue nor any pool: nothing can run here.
fn unknown_machine(world: &World, group: &Group) -> Option<Condition> {
    let known = world.catalogue.machine(&group.machine);
    let speeds = known
        .is_some_and(|machine| machine.q4_0.decode_per_second.is_some() && machine.q4_0.prefill_per_second.is_some());
    let measured = world
        .snapshot
        .pools
        .values()
        .flat_map(|pool| &pool.performance)
        .any(|entry| entry.chip == group.machine.chip && entry.gpu_cores == group.machine.gpu_cores);
    if speeds || measured {
        return None;
    }
    let MachineKey {
        chip,
        gpu_cores,
        memory_gib,
    } = &group.machine;
    let message = format!(
        "the catalogue knows too little of {chip} with {gpu_cores} GPU cores and {memory_gib} GiB: only pools with figures in \
         spec.performance can run here, and none has any"
    );
    let kind = ConditionKind::CapacityAvailable;
    Some(condition(kind, Truth::False, Reason::MachineUnknown, message))
}

fn capacity(name: &GroupName, shelf: Option<&Shelf>) -> Condition {
    let kind = ConditionKind::CapacityAvailable;
    let free = shelf.map_or(0, |shelf| shelf.free.len() + shelf.reversible.len());
    let growable = shelf.map_or(0, |shelf| shelf.growable);
    match shelf.and_then(|shelf| shelf.refused.as_ref()) {
        _ if free > 0 || growable > 0 => {
            let message = format!("{free} servers are free, {growable} more may be asked for");
            condition(kind, Truth::True, Reason::AllAccounted, message)
        }
        Some(problem) => because(kind, Truth::False, problem.clone()),
        None => {
            let message = format!("all servers that group {name} may have are in use");
            condition(kind, Truth::False, Reason::CapacityExhausted, message)
        }
    }
}
