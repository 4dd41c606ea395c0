//! Buys what a rule needs: the same way for every baseline, and in the order in which Pomarium buys.
//!
//! Groups fill in the order of placement and empty in reverse. Machines that are coming count as if they were there, so
//! that a long lead time is not ordered twice. A replica is drained before its machine is given back, and a drain is called
//! off when the machine is needed again. A machine that has died, and a group without stock, are passed over: the next in
//! the order stands in (`SkyServe`'s fallback; the other peers leave it to a cluster autoscaler, which does the same).
//!
//! Lease-aware, what is paid for in any case comes first: machines without an hourly price, then those in their minimum
//! lease, which all go on serving, then the rest in order. Kept machines count towards the need, so nothing is
//! bought beside them.

use crate::machines::{Machine, Phase};
use crate::policy::Rule;
use crate::policy::need::{Filled, Need};
use crate::world::{Command, Policy, View};

/// After a refusal for want of stock, a group is left alone for so long.
const STOCK_RETRY_MS: i64 = 600_000;

/// A rule that acts.
pub(crate) struct Actuator {
    name: String,
    rule: Box<dyn Rule>,
    lease_aware: bool,
}

impl Actuator {
    pub(crate) fn new(name: &str, rule: Box<dyn Rule>, lease_aware: bool) -> Self {
        let name = if lease_aware {
            format!("{name}+leases")
        } else {
            name.to_owned()
        };
        Self {
            name,
            rule,
            lease_aware,
        }
    }
}

impl Policy for Actuator {
    fn name(&self) -> &str {
        &self.name
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let need = self.rule.need(view);
        let choice = if self.lease_aware {
            choose_lease_aware(&need, view)
        } else {
            choose(&need, view)
        };
        choice.commands(view)
    }

    fn reason(&self) -> String {
        self.rule.reason()
    }
}

/// Which machines shall serve, and how many more of each group.
struct Choice {
    /// By index of the machine.
    wanted: Vec<usize>,
    /// By group.
    leases: Vec<usize>,
}

fn choose(need: &Need, view: &View<'_>) -> Choice {
    let mut filled = Filled::default();
    let mut choice = Choice::none(view);
    for group in 0..view.groups.len() {
        choice.fill(group, usable(view, group), need, &mut filled, view);
    }
    choice
}

fn choose_lease_aware(need: &Need, view: &View<'_>) -> Choice {
    let mut filled = Filled::default();
    let mut choice = Choice::none(view);
    let costs = |group: usize| view.groups[group].hourly > 0.0;
    let in_term = |machine: &Machine| costs(machine.group) && view.now_ms < machine.paid_until_ms(view.groups);
    for group in (0..view.groups.len()).filter(|&group| !costs(group)) {
        choice.fill(group, usable(view, group), need, &mut filled, view);
    }
    for (index, machine) in view.live() {
        if in_term(machine) && machine.phase != Phase::Failed {
            choice.wanted.push(index);
            filled.has(need, machine.group);
        }
    }
    for group in (0..view.groups.len()).filter(|&group| costs(group)) {
        let mut machines = usable(view, group);
        machines.retain(|&index| !in_term(&view.machines[index]));
        choice.fill(group, machines, need, &mut filled, view);
    }
    choice
}

/// The machines of a group that serve or can, the best to keep first: who serves before who is coming, and then who is
/// paid for longest.
fn usable(view: &View<'_>, group: usize) -> Vec<usize> {
    let rank = |machine: &Machine| match machine.phase {
        Phase::Serving => 0,
        Phase::Loading { .. } => 1,
        Phase::Draining => 2,
        Phase::Idle => 3,
        Phase::Booting { .. } => 4,
        Phase::Failed | Phase::Released => 5,
    };
    let mut machines: Vec<_> = view
        .live()
        .filter(|(_, machine)| machine.group == group && machine.phase != Phase::Failed)
        .collect();
    machines.sort_by_key(|(index, machine)| {
        let left_ms = machine.paid_until_ms(view.groups).max(view.now_ms);
        (rank(machine), std::cmp::Reverse(left_ms), *index)
    });
    machines.into_iter().map(|(index, _)| index).collect()
}

impl Choice {
    fn none(view: &View<'_>) -> Self {
        Self {
            wanted: Vec::new(),
            leases: vec![0; view.groups.len()],
        }
    }

    /// Takes what is still needed from the machines of a group, and leases the rest.
    fn fill(&mut self, group: usize, machines: Vec<usize>, need: &Need, filled: &mut Filled, view: &View<'_>) {
        for machine in machines {
            if !filled.takes(need, group) {
                return;
            }
            self.wanted.push(machine);
        }
        let refused = |at_ms: i64| view.now_ms - at_ms < STOCK_RETRY_MS;
        if view.out_of_stock_ms(group).is_some_and(refused) {
            return;
        }
        let free = view.free(group);
        while self.leases[group] < free && filled.takes(need, group) {
            self.leases[group] += 1;
        }
    }

    fn commands(mut self, view: &View<'_>) -> Vec<Command> {
        self.wanted.sort_unstable();
        let mut commands = Vec::new();
        for (group, &count) in self.leases.iter().enumerate() {
            commands.extend(std::iter::repeat_n(Command::Lease { group }, count));
        }
        for (machine, at) in view.live() {
            let wanted = self.wanted.binary_search(&machine).is_ok();
            match at.phase {
                Phase::Idle if wanted => commands.push(Command::Serve { machine }),
                Phase::Draining if wanted => commands.push(Command::Resume { machine }),
                Phase::Serving | Phase::Loading { .. } if !wanted => commands.push(Command::Drain { machine }),
                Phase::Idle if !view.groups[at.group].always_on => commands.push(Command::Release { machine }),
                _ => {}
            }
        }
        commands
    }
}
