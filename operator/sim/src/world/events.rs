//! What happens by itself: batches change, machines become Ready, models are loaded, machines die.

use std::cmp::Reverse;

use super::{World, signed};
use pomarium_kernel::random::SplitMix;

use crate::machines::Phase;
use crate::schedule::ScheduleEvent;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// An engine's batch changes.
    Change { machine: usize, version: u32 },
    /// A machine is Ready, its model is loaded, or it is back from a failure.
    Advance { machine: usize },
    /// A machine dies.
    Die { machine: usize },
}

impl World<'_> {
    /// Everything that is due up to and including `ms`.
    pub(super) fn advance_to(&mut self, ms: i64) {
        let to_ns = self.to_ns(ms);
        while let Some(&Reverse((at_ns, due))) = self.due.peek() {
            if at_ns > to_ns {
                break;
            }
            self.due.pop();
            match due {
                Due::Change { machine, version } if self.machines[machine].version == version => {
                    self.settle(machine, at_ns);
                    self.watch(machine, at_ns);
                }
                Due::Change { .. } => {}
                Due::Advance { machine } => self.advance_machine(machine, self.to_ms(at_ns)),
                Due::Die { machine } => self.die(machine, self.to_ms(at_ns)),
            }
        }
    }

    pub(super) fn at(&mut self, ms: i64, due: Due) {
        self.due.push(Reverse((self.to_ns(ms), due)));
    }

    /// Asks for the next change of `machine`'s batch, which may admit requests now.
    pub(super) fn watch(&mut self, machine: usize, now_ns: u64) {
        if let Some(at_ns) = self.machines[machine].next_change_ns() {
            let version = self.machines[machine].version;
            self.due.push(Reverse((at_ns, Due::Change { machine, version })));
        }
        self.top_up(machine, now_ns);
    }

    /// Books what `machine` has done up to `at_ns`.
    pub(super) fn settle(&mut self, machine: usize, at_ns: u64) {
        let mut finished = std::mem::take(&mut self.finished);
        self.machines[machine].advance(at_ns, &mut finished);
        for done in finished.drain(..) {
            self.finish(machine, &done);
        }
        self.finished = finished;
        if self.machines[machine].phase == Phase::Draining && self.machines[machine].requests == 0 {
            self.machines[machine].phase = Phase::Idle;
        }
    }

    fn advance_machine(&mut self, machine: usize, now_ms: i64) {
        let due_ms = self.machines[machine].due_ms;
        match self.machines[machine].phase {
            Phase::Booting { .. } | Phase::Failed if due_ms <= now_ms => {
                self.machines[machine].phase = Phase::Idle;
                self.draw_death(machine, now_ms);
            }
            Phase::Loading { loaded_ms } if loaded_ms <= now_ms => self.serve(machine, now_ms),
            _ => {}
        }
    }

    /// Draws when a machine that has just become Ready dies.
    pub(super) fn draw_death(&mut self, machine: usize, now_ms: i64) {
        let Some(mean_hours) = self.scenario.faults.mean_hours_to_death else {
            return;
        };
        let Self { scenario, machines, .. } = self;
        let machine_of = &machines[machine];
        let parts = [
            1,
            machine_of.group as u64,
            u64::from(machine_of.ordinal),
            now_ms.unsigned_abs(),
        ];
        // Exponential.
        let hours = -(1.0 - SplitMix::of(scenario.seed, &parts).unit()).ln() * mean_hours.max(1e-3);
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
        let after_ms = (hours * 3_600_000.0) as i64;
        self.at(now_ms.saturating_add(after_ms.max(1)), Due::Die { machine });
    }

    /// The machine stops. What ran on it is lost; a gateway repeats elsewhere what it had no token of.
    fn die(&mut self, machine: usize, now_ms: i64) {
        let was = self.machines[machine].phase;
        if matches!(was, Phase::Released | Phase::Failed) {
            return;
        }
        self.settle(machine, self.to_ns(now_ms));
        self.deaths += 1;
        self.serving.retain(|&other| other != machine);
        let repaired_ms = now_ms + signed(self.scenario.faults.repair_ms);
        self.machines[machine].phase = Phase::Failed;
        self.machines[machine].due_ms = repaired_ms;
        if was == Phase::Serving {
            self.record(now_ms, machine, ScheduleEvent::Drain);
        }
        for id in self.machines[machine].take_running() {
            self.cut(id);
        }
        self.send_back(machine, now_ms);
        self.machines[machine].requests = 0;
        self.machines[machine].outstanding_ns = 0;
        self.at(repaired_ms, Due::Advance { machine });
    }
}
