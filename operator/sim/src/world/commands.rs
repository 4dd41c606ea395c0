//! What the policy wants, carried out.

use super::decision::{Command, Policy, View};
use super::events::Due;
use super::{Accounts, World, signed};
use pomarium_kernel::random::SplitMix;

use crate::machines::{Machine, Phase};
use crate::schedule::ScheduleEvent;

impl World<'_> {
    /// Asks the policy, which sees what was scraped a tick ago, and does what it wants.
    pub(super) fn decide(&mut self, now_ms: i64, policy: &mut dyn Policy) {
        let commands = policy.decide(&View {
            now_ms,
            groups: &self.scenario.groups,
            machines: &self.machines,
            scrapes: &self.scrapes,
            live: &self.live,
            slots: &self.slots,
            refused_ms: &self.refused_ms,
        });
        if let Some(timeline) = self.timeline.as_deref_mut()
            && !commands.is_empty()
        {
            timeline.decided(now_ms, &commands, policy.reason(), &self.machines);
        }
        for command in &commands {
            if !self.carry_out(command, now_ms) {
                self.refused += 1;
            }
        }
    }

    /// What is scraped now reaches the policy at the next tick.
    pub(super) fn observe(&mut self, now_ms: i64, policy: &dyn Policy) {
        self.scrapes.scrape(now_ms, self.in_flight() as u64);
        let Some(timeline) = self.timeline.take() else { return };
        if timeline.is_due(now_ms) {
            timeline.close_until(now_ms, self.accrued(now_ms), policy.expected());
        }
        timeline.sample(&self.live, &self.machines);
        self.timeline = Some(timeline);
    }

    fn carry_out(&mut self, command: &Command, now_ms: i64) -> bool {
        match *command {
            Command::Lease { group } => group < self.scenario.groups.len() && self.lease(group, now_ms),
            Command::Serve { machine } if self.is(machine, Phase::Idle) => {
                let loaded_ms = now_ms + signed(self.scenario.groups[self.machines[machine].group].load_ms);
                self.machines[machine].phase = Phase::Loading { loaded_ms };
                self.at(loaded_ms, Due::Advance { machine });
                self.count_move();
                true
            }
            Command::Drain { machine } => machine < self.machines.len() && self.drain(machine, now_ms),
            Command::Resume { machine } if self.is(machine, Phase::Draining) => {
                self.count_move();
                self.serve(machine, now_ms);
                true
            }
            Command::Release { machine } if self.is(machine, Phase::Idle) || self.is(machine, Phase::Failed) => {
                self.release(machine, now_ms)
            }
            Command::Serve { .. } | Command::Resume { .. } | Command::Release { .. } => false,
        }
    }

    fn is(&self, machine: usize, phase: Phase) -> bool {
        self.machines.get(machine).is_some_and(|machine| machine.phase == phase)
    }

    fn count_move(&mut self) {
        if self.accounts == Accounts::Open {
            self.moves += 1;
        }
    }

    fn lease(&mut self, group: usize, now_ms: i64) -> bool {
        let scenario = self.scenario;
        let (model, faults) = (&scenario.groups[group], &scenario.faults);
        if !faults.in_stock(group, now_ms) {
            // Nobody could know: no defect of the policy.
            self.refused_ms[group] = Some(now_ms);
            self.out_of_stock += 1;
            return true;
        }
        let ready_ms = now_ms + signed(model.lead_ms);
        let Some(machine) = self.add_machine(group, Phase::Booting { ready_ms }, now_ms) else {
            return false;
        };
        let parts = [
            2,
            group as u64,
            u64::from(self.machines[machine].ordinal),
            now_ms.unsigned_abs(),
        ];
        let late = SplitMix::of(scenario.seed, &parts).unit() < faults.late_share;
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
        let due_ms = if late {
            now_ms + (model.lead_ms as f64 * faults.late_factor.max(1.0)) as i64
        } else {
            ready_ms
        };
        self.machines[machine].due_ms = due_ms;
        self.at(due_ms, Due::Advance { machine });
        true
    }

    /// Puts another machine of `group` on the books; `None` if all are taken.
    pub(super) fn add_machine(&mut self, group: usize, phase: Phase, now_ms: i64) -> Option<usize> {
        let ordinal = self.slots.take(group, now_ms)?;
        let model = &self.scenario.groups[group];
        let machine = self.machines.len();
        self.machines.push(Machine::new(group, model, ordinal, phase, now_ms));
        self.live.push(machine);
        self.record(now_ms, machine, ScheduleEvent::Lease);
        if phase == Phase::Idle {
            self.draw_death(machine, now_ms);
        }
        Some(machine)
    }

    /// The machine takes requests from now on.
    pub(super) fn serve(&mut self, machine: usize, now_ms: i64) {
        self.machines[machine].phase = Phase::Serving;
        self.serving.push(machine);
        self.count_peak();
        self.record(now_ms, machine, ScheduleEvent::Serve);
        self.empty_queue(now_ms);
    }

    fn drain(&mut self, machine: usize, now_ms: i64) -> bool {
        match self.machines[machine].phase {
            Phase::Serving => {}
            Phase::Loading { .. } => {
                self.machines[machine].phase = Phase::Idle;
                self.count_move();
                return true;
            }
            _ => return false,
        }
        self.settle(machine, self.to_ns(now_ms));
        self.serving.retain(|&other| other != machine);
        self.machines[machine].phase = Phase::Draining;
        self.count_move();
        self.record(now_ms, machine, ScheduleEvent::Drain);
        self.send_back(machine, now_ms);
        if self.machines[machine].requests == 0 {
            self.machines[machine].phase = Phase::Idle;
        }
        true
    }

    fn release(&mut self, machine: usize, now_ms: i64) -> bool {
        let scenario = self.scenario;
        let Machine { group, ordinal, .. } = self.machines[machine];
        if scenario.groups[group].always_on {
            return false;
        }
        self.pay_released(machine, now_ms);
        self.machines[machine].phase = Phase::Released;
        self.machines[machine].forget_engine();
        self.live.retain(|&other| other != machine);
        self.record(now_ms, machine, ScheduleEvent::Release);
        let free_from_ms = now_ms + signed(scenario.groups[group].recycle_ms);
        self.slots.give_back(group, ordinal, free_from_ms);
        true
    }
}
