//! What to say about a group.

use std::collections::BTreeMap;

use super::{because, condition};
use crate::lifecycle::ServerState;
use crate::names::GroupName;
use crate::plan::{Action, Condition, ConditionKind, GroupOutlook, Truth, Verdict};
use crate::planning::draft::Draft;
use crate::planning::options::energy;
use crate::planning::stock::{Shelf, Stock};
use crate::planning::world::{Ground, World};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, MachineKey};
use crate::time::Timestamp;
use crate::units::Money;

/// Writes the outlook of every group into the draft.
pub(crate) fn describe(world: &World, stock: &Stock, draft: &mut Draft) {
    let changes = changes(draft);
    for ground in world.grounds().iter() {
        let (name, group) = (ground.name, ground.group);
        let memory = draft.plan.groups.get(name).map(|outlook| outlook.memory.clone());
        let changes = changes.get(name).copied().unwrap_or(0);
        let outlook = GroupOutlook {
            memory: memory.unwrap_or_else(|| group.memory.clone()),
            ..outlook(world, ground, stock.shelves.get(name), changes)
        };
        draft.plan.groups.insert(name.clone(), outlook);
    }
}

/// Servers that this pass asks for, less those that it drains, by group.
fn changes(draft: &Draft) -> BTreeMap<GroupName, i64> {
    let mut changes = BTreeMap::new();
    let decisions = draft.plan.decisions.iter();
    for decision in decisions.filter(|decision| decision.verdict == Verdict::Act) {
        let (group, change) = match &decision.action {
            Action::RequestServer { group, .. } | Action::UndrainServer { group, .. } => (group, 1),
            Action::DrainServer { group, .. } => (group, -1),
            _ => continue,
        };
        *changes.entry(group.clone()).or_default() += change;
    }
    changes
}

fn outlook<'a>(world: &World<'a>, ground: &Ground<'a>, shelf: Option<&Shelf>, changes: i64) -> GroupOutlook {
    let group = ground.group;
    let tally = Tally::of(world, ground);
    GroupOutlook {
        target: u32::try_from((i64::from(tally.here()) + changes).max(0)).unwrap_or(u32::MAX),
        by_state: tally
            .by_state
            .iter()
            .map(|(state, count)| ((*state).to_owned(), *count))
            .collect(),
        ready: tally.in_state(ServerState::Ready),
        used: tally.used,
        leases: tally.leases,
        next_lease_end: tally.next_lease_end,
        hourly: tally.hourly,
        conditions: conditions(world, ground, shelf, &tally),
        memory: group.memory.clone(),
    }
}

/// The servers of a group, counted.
#[derive(Default)]
struct Tally {
    by_state: BTreeMap<&'static str, u32>,
    /// With something on them.
    used: u32,
    leases: u32,
    next_lease_end: Option<Timestamp>,
    /// Leases, and energy of what is switched on.
    hourly: Money,
}

impl Tally {
    fn of<'a>(world: &World<'a>, ground: &Ground<'a>) -> Self {
        let group = ground.group;
        // Of one that is idle, and of one that works.
        let watts = [group.power.idle_watts, group.power.busy_watts];
        let energy = ground.site.map(|site| watts.map(|watts| energy(site, watts)));
        let mut tally = Self::default();
        for (_, server, occupants) in world.servers(ground) {
            *tally.by_state.entry(server.state.as_str()).or_default() += 1;
            tally.used += u32::from(!occupants.is_empty());
            let given_back = matches!(
                server.state,
                ServerState::Gone | ServerState::Releasing | ServerState::Recycling
            );
            if let Some(lease) = server.lease.filter(|_| !given_back) {
                tally.leases += 1;
                let later = Some(lease.minimum_until).filter(|until| *until > world.now);
                tally.next_lease_end = tally.next_lease_end.into_iter().chain(later).min();
            }
            let (Some([idle, busy]), false) = (
                energy,
                matches!(server.state, ServerState::Gone | ServerState::Recycling),
            ) else {
                continue;
            };
            let paid = server.lease.map_or(Money::ZERO, |_| group.pricing.hourly);
            let burnt = match server.state {
                ServerState::Requested | ServerState::Provisioning | ServerState::Releasing => Money::ZERO,
                _ if occupants.is_empty() => idle,
                _ => busy,
            };
            tally.hourly = tally.hourly + paid + burnt;
        }
        tally
    }

    fn in_state(&self, state: ServerState) -> u32 {
        self.by_state.get(state.as_str()).copied().unwrap_or(0)
    }

    /// Those that are there or on their way in.
    fn here(&self) -> u32 {
        let here =
            |state: &ServerState| *state == ServerState::Ready || state.is_coming() || *state == ServerState::Suspect;
        ServerState::ALL
            .into_iter()
            .filter(here)
            .map(|state| self.in_state(state))
            .sum()
    }
}

fn conditions(world: &World, ground: &Ground, shelf: Option<&Shelf>, tally: &Tally) -> Vec<Condition> {
    let (name, group, here) = (ground.name, ground.group, tally.here());
    let ready = |truth, problem| because(ConditionKind::Ready, truth, problem);
    if ground.site.is_none() {
        let problem = Problem::new(Reason::ReferenceMissing, format!("there is no site {}", group.site));
        return vec![
            ready(Truth::False, problem.clone()),
            because(ConditionKind::Stalled, Truth::True, problem),
        ];
    }
    if let Some(problem) = &ground.hands_off {
        return vec![ready(Truth::Unknown, problem.clone())];
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
        let mut message = format!(
            "{} servers, {} Ready",
            servers.len(),
            tally.in_state(ServerState::Ready)
        );
        for state in [ServerState::Suspect, ServerState::Failed] {
            let count = tally.in_state(state);
            if count > 0 {
                message = format!("{message}, {count} {}", state.as_str());
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
