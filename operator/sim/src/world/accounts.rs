//! What machines cost, from the start of the scored part to the last arrival.
//!
//! Leases accrue by the hour. A machine that is given back early owes the rest of its minimum lease at once; one that is
//! held at the end owes it as an obligation.

use super::{Accounts, World};
use crate::machines::{Paid, Phase};

const HOUR_MS: f64 = 3_600_000.0;

impl World<'_> {
    /// What `machine` has cost until `until_ms`.
    fn bill(&self, machine: usize, until_ms: i64) -> Paid {
        let machine = &self.machines[machine];
        let model = &self.scenario.groups[machine.group];
        let on = hours(machine.billed_from_ms, until_ms);
        let busy_ns = machine.engine().busy_ns().saturating_sub(machine.billed_from_busy_ns);
        let busy = (busy_ns as f64 / 3.6e12).min(on);
        let watt_hours = on * model.idle_watts + busy * (model.busy_watts - model.idle_watts);
        Paid {
            leases: on * model.hourly,
            energy: watt_hours / 1_000.0 * model.price_per_kwh,
            machine_hours: on,
            ..Paid::default()
        }
    }

    /// What the rest of `machine`'s minimum lease costs from `now_ms` on.
    fn rest_of_minimum(&self, machine: usize, now_ms: i64) -> f64 {
        let machine = &self.machines[machine];
        let from_ms = now_ms.max(machine.billed_from_ms);
        hours(from_ms, machine.paid_until_ms(&self.scenario.groups)) * self.scenario.groups[machine.group].hourly
    }

    pub(super) fn pay_released(&mut self, machine: usize, now_ms: i64) {
        if self.accounts != Accounts::Open {
            return;
        }
        let rest = self.rest_of_minimum(machine, now_ms);
        let early = now_ms < self.machines[machine].paid_until_ms(&self.scenario.groups);
        let mut bill = self.bill(machine, now_ms);
        bill.leases += rest;
        bill.early_releases = u32::from(early);
        self.paid[self.machines[machine].group].add(bill);
    }

    /// The history ends: what machines have cost until now does not count.
    pub(super) fn open_accounts(&mut self, now_ms: i64) {
        self.accounts = Accounts::Open;
        for index in 0..self.live.len() {
            let machine = self.live[index];
            self.settle(machine, self.to_ns(now_ms));
            let busy_ns = self.machines[machine].engine().busy_ns();
            self.machines[machine].billed_from_ms = now_ms;
            self.machines[machine].billed_from_busy_ns = busy_ns;
        }
        self.count_peak();
    }

    /// The trace ends: what is held is paid until here, and owes the rest of its minimum lease.
    pub(super) fn close_accounts(&mut self, end_ms: i64) {
        self.advance_to(end_ms);
        if self.accounts == Accounts::NotYet {
            self.open_accounts(end_ms);
        }
        for index in 0..self.live.len() {
            let machine = self.live[index];
            self.settle(machine, self.to_ns(end_ms));
            let obligations = self.rest_of_minimum(machine, end_ms);
            let bill = Paid {
                obligations,
                ..self.bill(machine, end_ms)
            };
            self.paid[self.machines[machine].group].add(bill);
        }
        self.accounts = Accounts::Closed;
    }

    /// What everything has cost until now.
    pub(super) fn accrued(&self, now_ms: i64) -> f64 {
        let mut sum = Paid::default();
        for paid in &self.paid {
            sum.add(*paid);
        }
        if self.accounts == Accounts::Open {
            for &machine in &self.live {
                sum.add(self.bill(machine, now_ms));
            }
        }
        sum.leases + sum.energy
    }

    /// Notes how many serve, if that is more than ever.
    pub(super) fn count_peak(&mut self) {
        if self.accounts != Accounts::Open {
            return;
        }
        self.peak = self.peak.max(self.serving.len());
        for (group, paid) in self.paid.iter_mut().enumerate() {
            let serving = self
                .serving
                .iter()
                .filter(|&&machine| {
                    self.machines[machine].group == group && self.machines[machine].phase == Phase::Serving
                })
                .count();
            paid.peak = paid.peak.max(u32::try_from(serving).unwrap_or(u32::MAX));
        }
    }
}

fn hours(from_ms: i64, to_ms: i64) -> f64 {
    (to_ms - from_ms).max(0) as f64 / HOUR_MS
}
