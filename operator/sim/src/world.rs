//! The simulated world: requests, machines and time.
//!
//! Discrete events, exact to the nanosecond within an engine and to the millisecond elsewhere. At one moment things
//! happen in this order: iterations end, machines and replicas become ready or fail, requests arrive, the policy
//! decides. The same input gives the same bytes, and memory does not grow with the length of the trace: only with what waits for an
//! answer.

mod accounts;
mod commands;
mod decision;
mod events;
mod outcome;
mod requests;
mod scenario;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pomarium_kernel::engine::skipping::Finished;
use pomarium_kernel::random::SplitMix;

use crate::backlog::Backlog;
use crate::machines::{Machine, Paid, Phase, Slots};
use crate::schedule::{Schedule, ScheduleEvent};
use crate::score::{Requests, Scorer};
use crate::scrape::Scrapes;
use crate::timeline::Timeline;
use crate::trace::Arrival;

pub use decision::{Command, Figures, Policy, View};
pub use outcome::{Accounting, Outcome, Over};
pub use scenario::{Faults, Scenario, StockOut};

use events::Due;
use requests::InFlight;

/// One simulation under way.
pub struct World<'a> {
    scenario: &'a Scenario,
    machines: Vec<Machine>,
    /// Indices of the machines that are paid for, in the order of leasing.
    live: Vec<usize>,
    /// Indices of the machines that take requests.
    serving: Vec<usize>,
    slots: Slots,
    /// Requests that wait because none serves.
    queue: Backlog,
    /// Requests without an answer.
    in_flight: usize,
    slab: Vec<InFlight>,
    free: Vec<usize>,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    /// Per group, when a lease was refused last for want of stock.
    refused_ms: Vec<Option<i64>>,
    routing: SplitMix,
    scrapes: Scrapes,
    scorers: Vec<Scorer>,
    requests: Requests,
    paid: Vec<Paid>,
    /// Accounts are open between the start of the scored part and the last arrival.
    accounts: Accounts,
    schedule: Option<&'a mut Schedule>,
    timeline: Option<&'a mut Timeline>,
    finished: Vec<Finished>,
    peak: usize,
    moves: u64,
    refused: u64,
    out_of_stock: u64,
    deaths: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accounts {
    NotYet,
    Open,
    Closed,
}

impl<'a> World<'a> {
    /// A world at the scenario's start: without machines but for those that are always on.
    pub fn new(scenario: &'a Scenario, schedule: Option<&'a mut Schedule>) -> Self {
        let mut world = Self {
            scenario,
            machines: Vec::new(),
            live: Vec::new(),
            serving: Vec::new(),
            slots: Slots::new(&scenario.groups),
            queue: Backlog::default(),
            in_flight: 0,
            slab: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            refused_ms: vec![None; scenario.groups.len()],
            routing: SplitMix::of(scenario.seed, &[0]),
            scrapes: Scrapes::new(&scenario.objectives, scenario.groups.len()),
            scorers: scenario.objectives.iter().copied().map(Scorer::new).collect(),
            requests: Requests::default(),
            paid: vec![Paid::default(); scenario.groups.len()],
            accounts: if scenario.score_from_ms > 0 {
                Accounts::NotYet
            } else {
                Accounts::Open
            },
            schedule,
            timeline: None,
            finished: Vec::new(),
            peak: 0,
            moves: 0,
            refused: 0,
            out_of_stock: 0,
            deaths: 0,
        };
        for (group, model) in scenario.groups.iter().enumerate().filter(|(_, model)| model.always_on) {
            for _ in 0..model.max {
                world.add_machine(group, Phase::Idle, scenario.start_ms);
            }
        }
        world
    }

    /// Writes what happens to `timeline`, too.
    #[must_use]
    pub fn with_timeline(mut self, timeline: &'a mut Timeline) -> Self {
        timeline.begin(self.scenario);
        self.timeline = Some(timeline);
        self
    }

    /// Runs the whole trace under `policy`.
    pub fn run<E>(
        mut self,
        trace: impl IntoIterator<Item = Result<Arrival, E>>,
        policy: &mut dyn Policy,
    ) -> Result<Outcome, E> {
        let mut tick_ms = self.scenario.start_ms;
        let mut last_ms = self.scenario.start_ms.max(0);
        for arrival in trace {
            let arrival = arrival?;
            let arrival_ms = signed(arrival.arrival_ms);
            while tick_ms < arrival_ms {
                self.tick(tick_ms, policy);
                tick_ms += self.scenario.tick_ms;
            }
            self.advance_to(arrival_ms);
            self.arrive(arrival);
            last_ms = arrival_ms;
        }
        self.close_accounts(last_ms);
        // The answers of the last requests, while the policy goes on.
        let end_ms = last_ms + self.scenario.grace_ms;
        while tick_ms <= end_ms && self.in_flight() > 0 {
            self.tick(tick_ms, policy);
            tick_ms += self.scenario.tick_ms;
        }
        self.advance_to(end_ms);
        self.miss_the_rest();
        let cost = self.accrued(end_ms);
        if let Some(timeline) = self.timeline.as_deref_mut() {
            timeline.finish(cost);
        }
        Ok(Outcome {
            requests: self.requests,
            objectives: self.scorers.iter().map(Scorer::score).collect(),
            paid: self.paid,
            peak: u32::try_from(self.peak).unwrap_or(u32::MAX),
            moves: self.moves,
            days: (last_ms - self.scenario.score_from_ms).max(0) as f64 / 86_400_000.0,
            refused: self.refused,
            out_of_stock: self.out_of_stock,
            deaths: self.deaths,
        })
    }

    /// Everything that is due at a tick: events first, the policy last.
    fn tick(&mut self, now_ms: i64, policy: &mut dyn Policy) {
        self.advance_to(now_ms);
        if self.accounts == Accounts::NotYet && now_ms >= self.scenario.score_from_ms {
            self.open_accounts(now_ms);
        }
        self.decide(now_ms, policy);
        self.observe(now_ms, policy);
    }

    fn to_ns(&self, ms: i64) -> u64 {
        ms.saturating_sub(self.scenario.start_ms).unsigned_abs() * 1_000_000
    }

    fn to_ms(&self, ns: u64) -> i64 {
        self.scenario.start_ms.saturating_add_unsigned(ns / 1_000_000)
    }

    fn record(&mut self, t_ms: i64, machine: usize, event: ScheduleEvent) {
        if let Some(schedule) = self.schedule.as_deref_mut() {
            let machine = &self.machines[machine];
            schedule.push(t_ms, &machine.name, &self.scenario.groups[machine.group].name, event);
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
