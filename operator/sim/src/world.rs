//! The simulated world: requests, machines and time.
//!
//! Discrete events, exact to the nanosecond within an engine and to the millisecond elsewhere. At one moment things
//! happen in this order: iterations end, machines and replicas become ready, requests arrive, the policy decides. The
//! same input gives the same bytes, and memory does not grow with the length of the trace.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use pomarium_kernel::engine::RequestId;
use pomarium_kernel::engine::skipping::Finished;
use pomarium_kernel::snapshot::Objective;

use crate::machines::{GroupModel, Machine, Paid, Phase, Recycling};
use crate::schedule::{Schedule, ScheduleEvent};
use crate::score::{Answered, ObjectiveScore, Requests, Scorer};
use crate::scrape::Scrapes;
use crate::trace::Arrival;

/// What is simulated, apart from the trace and the policy.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Groups in the order of placement.
    pub groups: Vec<GroupModel>,
    /// The pool's objectives.
    pub objectives: Vec<Objective>,
    /// Longer requests are refused.
    pub context_tokens: u32,
    /// What the router expects of an answer whose length it cannot know.
    pub mean_output_tokens: f64,
    /// The simulation begins here; before the trace's start it is a warm start, paid and without requests.
    pub start_ms: i64,
    /// Requests that arrive before this are history, and not scored.
    pub score_from_ms: i64,
    /// How often the policy decides. Metrics are scraped as often, and reach the policy one tick late.
    pub tick_ms: i64,
    /// After the last arrival, so long is waited for answers.
    pub grace_ms: i64,
}

/// What a policy wants done. Impossible commands are refused, never bent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Lease or wake another machine of a group; its name is the lowest that is free.
    Lease {
        /// Index of the group.
        group: usize,
    },
    /// Start a replica on an idle machine; it serves as soon as its model is loaded.
    Serve {
        /// Index of the machine.
        machine: usize,
    },
    /// Take a replica out of routing; it ends when its last request does.
    Drain {
        /// Index of the machine.
        machine: usize,
    },
    /// Let a draining replica serve again.
    Resume {
        /// Index of the machine.
        machine: usize,
    },
    /// Give an idle machine back.
    Release {
        /// Index of the machine.
        machine: usize,
    },
}

/// What a policy decides from.
#[derive(Debug)]
pub struct View<'a> {
    /// In ms from the start of the trace.
    pub now_ms: i64,
    /// Groups in the order of placement.
    pub groups: &'a [GroupModel],
    /// All machines that ever were; released ones included, so that an index stays valid.
    pub machines: &'a [Machine],
    /// What the gateway's metrics say, one tick old.
    pub scrapes: &'a Scrapes,
    /// Names that are being recycled, with the time at which they can be leased again.
    pub(crate) recycling: &'a Recycling,
}

impl View<'_> {
    /// Machines of a group that are paid for.
    pub fn held(&self, group: usize) -> usize {
        self.machines
            .iter()
            .filter(|machine| machine.group == group && machine.phase != Phase::Released)
            .count()
    }

    /// Machines of a group that could still be leased now.
    pub fn free(&self, group: usize) -> usize {
        let recycling = self
            .recycling
            .names()
            .filter(|(name, _)| self.groups[group].owns(name))
            .count();
        (self.groups[group].max as usize).saturating_sub(self.held(group) + recycling)
    }
}

/// Decides at every tick.
pub trait Policy {
    /// Its name in reports.
    fn name(&self) -> &str;

    /// What it wants done now.
    fn decide(&mut self, view: &View<'_>) -> Vec<Command>;
}

/// What a simulation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Requests by what became of them.
    pub requests: Requests,
    /// In the order of the scenario.
    pub objectives: Vec<ObjectiveScore>,
    /// Per group, in the order of the scenario.
    pub paid: Vec<Paid>,
    /// Most machines serving at once.
    pub peak: u32,
    /// Replicas started and drained by decision.
    pub moves: u64,
    /// Simulated time, scored part only, in days.
    pub days: f64,
    /// Commands that were impossible; a policy that gives any has a defect.
    pub refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// An engine's batch changes.
    Change { machine: usize, version: u32 },
    /// A machine is Ready, or its model is loaded.
    Advance { machine: usize },
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    arrival_ms: u64,
    prompt: u32,
    output: u32,
    work_ns: u64,
    machine: usize,
}

/// One simulation under way.
pub struct World<'a> {
    scenario: &'a Scenario,
    machines: Vec<Machine>,
    /// Indices of the machines that take requests.
    serving: Vec<usize>,
    /// Requests that wait because none serves.
    queue: VecDeque<RequestId>,
    slab: Vec<InFlight>,
    free: Vec<usize>,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    recycling: Recycling,
    scrapes: Scrapes,
    scorers: Vec<Scorer>,
    requests: Requests,
    paid: Vec<Paid>,
    schedule: Option<&'a mut Schedule>,
    finished: Vec<Finished>,
    peak: usize,
    moves: u64,
    refused: u64,
}

impl<'a> World<'a> {
    /// A world at the scenario's start: without machines but for those that are always on.
    pub fn new(scenario: &'a Scenario, schedule: Option<&'a mut Schedule>) -> Self {
        let mut world = Self {
            scenario,
            machines: Vec::new(),
            serving: Vec::new(),
            queue: VecDeque::new(),
            slab: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            recycling: Recycling::default(),
            scrapes: Scrapes::new(&scenario.objectives),
            scorers: scenario.objectives.iter().copied().map(Scorer::new).collect(),
            requests: Requests::default(),
            paid: vec![Paid::default(); scenario.groups.len()],
            schedule,
            finished: Vec::new(),
            peak: 0,
            moves: 0,
            refused: 0,
        };
        for (group, model) in scenario.groups.iter().enumerate().filter(|(_, model)| model.always_on) {
            for ordinal in 0..model.max {
                let name = format!("{}-{ordinal}", model.name);
                world.record(scenario.start_ms, &name, group, ScheduleEvent::Lease);
                world
                    .machines
                    .push(Machine::new(name, group, model.times, Phase::Idle, scenario.start_ms));
            }
        }
        world
    }

    /// Runs the whole trace under `policy`.
    pub fn run<E>(
        mut self,
        trace: impl IntoIterator<Item = Result<Arrival, E>>,
        policy: &mut dyn Policy,
    ) -> Result<Outcome, E> {
        let mut tick_ms = self.scenario.start_ms;
        let mut last_ms = 0;
        for arrival in trace {
            let arrival = arrival?;
            let arrival_ms = i64::try_from(arrival.arrival_ms).unwrap_or(i64::MAX);
            while tick_ms < arrival_ms {
                self.advance_to(tick_ms);
                self.tick(tick_ms, policy);
                tick_ms += self.scenario.tick_ms;
            }
            self.advance_to(arrival_ms);
            self.arrive(arrival);
            last_ms = arrival_ms;
        }
        // The answers of the last requests, while the policy goes on.
        let end_ms = last_ms + self.scenario.grace_ms;
        while tick_ms <= end_ms && self.in_flight() > 0 {
            self.advance_to(tick_ms);
            self.tick(tick_ms, policy);
            tick_ms += self.scenario.tick_ms;
        }
        Ok(self.close(last_ms))
    }

    fn in_flight(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    fn to_ns(&self, ms: i64) -> u64 {
        ms.saturating_sub(self.scenario.start_ms).unsigned_abs() * 1_000_000
    }

    // ------------------------------------------------------------------------------------------------------- events

    /// Everything that is due up to and including `ms`.
    fn advance_to(&mut self, ms: i64) {
        let to_ns = self.to_ns(ms);
        while let Some(&Reverse((at_ns, due))) = self.due.peek() {
            if at_ns > to_ns {
                break;
            }
            self.due.pop();
            match due {
                Due::Change { machine, version } if self.machines[machine].version == version => {
                    self.settle(machine, at_ns);
                    self.watch(machine);
                }
                Due::Change { .. } => {}
                Due::Advance { machine } => self.advance_machine(machine, ms.min(self.to_ms(at_ns))),
            }
        }
    }

    fn to_ms(&self, ns: u64) -> i64 {
        self.scenario.start_ms.saturating_add_unsigned(ns / 1_000_000)
    }

    /// Books what `machine` has done up to `at_ns`.
    fn settle(&mut self, machine: usize, at_ns: u64) {
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

    fn finish(&mut self, machine: usize, done: &Finished) {
        let request = self.take(done.request);
        let machine = &mut self.machines[machine];
        machine.requests -= 1;
        machine.outstanding_ns -= request.work_ns;
        let start_ms = self.scenario.start_ms;
        let arrival_ns = (i64::try_from(request.arrival_ms).unwrap_or(i64::MAX) - start_ms).unsigned_abs() * 1_000_000;
        let answered = Answered {
            arrival_ms: request.arrival_ms,
            ttft_ms: (done.first_token_ns - arrival_ns) as f64 / 1e6,
            itl_ms: (done.output > 1)
                .then(|| (done.last_token_ns - done.first_token_ns) as f64 / 1e6 / f64::from(done.output - 1)),
        };
        self.scrapes.answered(&answered);
        if let Some(scored_ms) = self.scored(request.arrival_ms) {
            self.requests.completed += 1;
            let answered = Answered {
                arrival_ms: scored_ms,
                ..answered
            };
            for scorer in &mut self.scorers {
                scorer.answered(&answered);
            }
        }
    }

    /// The arrival in ms from the start of the scored part; `None` for history.
    fn scored(&self, arrival_ms: u64) -> Option<u64> {
        arrival_ms.checked_sub(u64::try_from(self.scenario.score_from_ms).unwrap_or(0))
    }

    fn miss(&mut self, arrival_ms: u64) {
        if let Some(scored_ms) = self.scored(arrival_ms) {
            for scorer in &mut self.scorers {
                scorer.missed(scored_ms);
            }
        }
    }

    /// Asks for the next change of `machine`'s batch.
    fn watch(&mut self, machine: usize) {
        if let Some(at_ns) = self.machines[machine].next_change_ns() {
            let version = self.machines[machine].version;
            self.due.push(Reverse((at_ns, Due::Change { machine, version })));
        }
    }

    fn advance_machine(&mut self, machine: usize, now_ms: i64) {
        match self.machines[machine].phase {
            Phase::Booting { ready_ms } if ready_ms <= now_ms => self.machines[machine].phase = Phase::Idle,
            Phase::Loading { loaded_ms } if loaded_ms <= now_ms => {
                self.machines[machine].phase = Phase::Serving;
                self.serving.push(machine);
                self.peak = self.peak.max(self.serving.len());
                self.record_machine(now_ms, machine, ScheduleEvent::Serve);
                self.empty_queue(now_ms);
            }
            _ => {}
        }
    }

    // ----------------------------------------------------------------------------------------------------- requests

    fn arrive(&mut self, arrival: Arrival) {
        let context = u64::from(arrival.prompt_tokens) + u64::from(arrival.output_tokens);
        self.scrapes.arrived(arrival.prompt_tokens, arrival.output_tokens);
        let scored = self.scored(arrival.arrival_ms).is_some();
        if context > u64::from(self.scenario.context_tokens) {
            self.requests.rejected += u64::from(scored);
            return;
        }
        self.requests.total += u64::from(scored);
        let request = InFlight {
            arrival_ms: arrival.arrival_ms,
            prompt: arrival.prompt_tokens,
            output: arrival.output_tokens,
            work_ns: 0,
            machine: usize::MAX,
        };
        let id = self.put(request);
        self.route(id, i64::try_from(arrival.arrival_ms).unwrap_or(i64::MAX));
    }

    /// Sends a request to the serving machine with the least outstanding work, or lets it wait.
    fn route(&mut self, id: RequestId, now_ms: i64) {
        let chosen = self
            .serving
            .iter()
            .copied()
            .min_by_key(|&machine| (self.machines[machine].outstanding_ns, machine));
        let Some(machine) = chosen else {
            self.queue.push_back(id);
            return;
        };
        let at_ns = self.to_ns(now_ms);
        let times = self.scenario.groups[self.machines[machine].group].times;
        let index = slab_index(id);
        let work_ns = work_ns(&times, self.slab[index].prompt, self.scenario.mean_output_tokens);
        let (prompt, output) = (self.slab[index].prompt, self.slab[index].output);
        self.slab[index].work_ns = work_ns;
        self.slab[index].machine = machine;
        self.settle(machine, at_ns);
        if self.machines[machine].submit(at_ns, id, prompt, output).is_err() {
            let request = self.take(id);
            self.miss(request.arrival_ms);
            self.requests.never_served += u64::from(self.scored(request.arrival_ms).is_some());
            return;
        }
        self.machines[machine].requests += 1;
        self.machines[machine].outstanding_ns += work_ns;
        self.watch(machine);
    }

    fn empty_queue(&mut self, now_ms: i64) {
        while !self.serving.is_empty() {
            let Some(id) = self.queue.pop_front() else { break };
            self.route(id, now_ms);
        }
    }

    fn put(&mut self, request: InFlight) -> RequestId {
        let index = if let Some(index) = self.free.pop() {
            self.slab[index] = request;
            index
        } else {
            self.slab.push(request);
            self.slab.len() - 1
        };
        index as RequestId
    }

    fn take(&mut self, id: RequestId) -> InFlight {
        let index = slab_index(id);
        self.free.push(index);
        self.slab[index]
    }

    // ----------------------------------------------------------------------------------------------------- commands

    fn tick(&mut self, now_ms: i64, policy: &mut dyn Policy) {
        self.recycling.expire(now_ms);
        let commands = policy.decide(&View {
            now_ms,
            groups: &self.scenario.groups,
            machines: &self.machines,
            scrapes: &self.scrapes,
            recycling: &self.recycling,
        });
        // What is scraped now reaches the policy at the next tick.
        self.scrapes.scrape(now_ms);
        for command in commands {
            if !self.carry_out(&command, now_ms) {
                self.refused += 1;
            }
        }
    }

    fn carry_out(&mut self, command: &Command, now_ms: i64) -> bool {
        match *command {
            Command::Lease { group } => self.lease(group, now_ms),
            Command::Serve { machine } if self.machines[machine].phase == Phase::Idle => {
                let loaded_ms = now_ms + ms(self.scenario.groups[self.machines[machine].group].load_ms);
                self.machines[machine].phase = Phase::Loading { loaded_ms };
                self.due
                    .push(Reverse((self.to_ns(loaded_ms), Due::Advance { machine })));
                self.moves += 1;
                true
            }
            Command::Drain { machine } => self.drain(machine, now_ms),
            Command::Resume { machine } if self.machines[machine].phase == Phase::Draining => {
                self.machines[machine].phase = Phase::Serving;
                self.serving.push(machine);
                self.record_machine(now_ms, machine, ScheduleEvent::Serve);
                self.empty_queue(now_ms);
                true
            }
            Command::Release { machine } if self.machines[machine].phase == Phase::Idle => {
                self.release(machine, now_ms);
                true
            }
            Command::Serve { .. } | Command::Resume { .. } | Command::Release { .. } => false,
        }
    }

    fn lease(&mut self, group: usize, now_ms: i64) -> bool {
        let model = &self.scenario.groups[group];
        let taken = |name: &str| {
            self.machines
                .iter()
                .any(|machine| machine.phase != Phase::Released && machine.name == name)
                || self.recycling.names().any(|(recycling, _)| recycling == name)
        };
        let name = (0..model.max)
            .map(|ordinal| format!("{}-{ordinal}", model.name))
            .find(|name| !taken(name));
        let Some(name) = name else { return false };
        let ready_ms = now_ms + ms(model.lead_ms);
        self.record(now_ms, &name, group, ScheduleEvent::Lease);
        self.machines.push(Machine::new(
            name,
            group,
            model.times,
            Phase::Booting { ready_ms },
            now_ms,
        ));
        let machine = self.machines.len() - 1;
        self.due.push(Reverse((self.to_ns(ready_ms), Due::Advance { machine })));
        true
    }

    fn drain(&mut self, machine: usize, now_ms: i64) -> bool {
        match self.machines[machine].phase {
            Phase::Serving => {}
            Phase::Loading { .. } => {
                self.machines[machine].phase = Phase::Idle;
                self.moves += 1;
                return true;
            }
            _ => return false,
        }
        self.settle(machine, self.to_ns(now_ms));
        self.serving.retain(|&other| other != machine);
        self.machines[machine].phase = Phase::Draining;
        self.moves += 1;
        self.record_machine(now_ms, machine, ScheduleEvent::Drain);
        for id in self.machines[machine].take_waiting() {
            self.machines[machine].requests -= 1;
            self.machines[machine].outstanding_ns -= self.slab[slab_index(id)].work_ns;
            self.route(id, now_ms);
        }
        if self.machines[machine].requests == 0 {
            self.machines[machine].phase = Phase::Idle;
        }
        true
    }

    fn release(&mut self, machine: usize, now_ms: i64) {
        let model = &self.scenario.groups[self.machines[machine].group];
        self.machines[machine].phase = Phase::Released;
        self.record_machine(now_ms, machine, ScheduleEvent::Release);
        let name = self.machines[machine].name.clone();
        self.recycling.begin(&name, now_ms + ms(model.recycle_ms));
        self.pay(machine, now_ms, now_ms);
    }

    // ------------------------------------------------------------------------------------------------------ accounts

    /// Pays for a machine that was on until `off_ms`, of a simulation that ends at `end_ms`.
    fn pay(&mut self, machine: usize, off_ms: i64, end_ms: i64) {
        let machine = &self.machines[machine];
        let model = &self.scenario.groups[machine.group];
        let hours = |from_ms: i64, to_ms: i64| (to_ms - from_ms).max(0) as f64 / 3_600_000.0;
        let minimum_ms = machine.leased_ms + ms(model.minimum_lease_ms);
        let on = hours(machine.leased_ms, off_ms);
        let busy = (machine.engine().busy_ns() as f64 / 3.6e12).min(on);
        let watt_hours = on * model.idle_watts + busy * (model.busy_watts - model.idle_watts);
        let paid = &mut self.paid[machine.group];
        let owed = hours(off_ms.max(machine.leased_ms), minimum_ms) * model.hourly;
        let released = machine.phase == Phase::Released;
        paid.leases += on * model.hourly;
        if released {
            paid.leases += owed;
            paid.early_releases += u32::from(off_ms < minimum_ms);
        } else {
            paid.obligations += hours(end_ms, minimum_ms) * model.hourly;
        }
        paid.energy += watt_hours / 1_000.0 * model.price_per_kwh;
        paid.machine_hours += on;
    }

    fn close(mut self, end_ms: i64) -> Outcome {
        let waiting: Vec<_> = self
            .slab
            .iter()
            .enumerate()
            .map(|(index, request)| (index, request.arrival_ms))
            .collect();
        for (index, arrival_ms) in waiting {
            if !self.free.contains(&index) {
                self.miss(arrival_ms);
                self.requests.never_served += u64::from(self.scored(arrival_ms).is_some());
            }
        }
        for machine in 0..self.machines.len() {
            if self.machines[machine].phase != Phase::Released {
                self.pay(machine, end_ms, end_ms);
            }
        }
        Outcome {
            requests: self.requests,
            objectives: self.scorers.iter().map(Scorer::score).collect(),
            paid: self.paid,
            peak: u32::try_from(self.peak).unwrap_or(u32::MAX),
            moves: self.moves,
            days: (end_ms - self.scenario.score_from_ms).max(0) as f64 / 86_400_000.0,
            refused: self.refused,
        }
    }

    fn record_machine(&mut self, t_ms: i64, machine: usize, event: ScheduleEvent) {
        if let Some(schedule) = self.schedule.as_deref_mut() {
            let machine = &self.machines[machine];
            schedule.push(t_ms, &machine.name, &self.scenario.groups[machine.group].name, event);
        }
    }

    fn record(&mut self, t_ms: i64, node: &str, group: usize, event: ScheduleEvent) {
        if let Some(schedule) = self.schedule.as_deref_mut() {
            schedule.push(t_ms, node, &self.scenario.groups[group].name, event);
        }
    }
}

/// The router's estimate of a request's work on a machine: it knows the prompt, and expects the mean output. A decode
/// step counts with the request's own share of a full batch.
fn work_ns(times: &pomarium_kernel::engine::StepTimes, prompt: u32, mean_output: f64) -> u64 {
    let per_token = times.beta_ns + times.alpha_ns / u64::from(times.max_batch.max(1));
    times.delta_ns * u64::from(prompt) + round(per_token as f64 * mean_output)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates; the value is not negative"
)]
fn round(value: f64) -> u64 {
    value.round() as u64
}

fn slab_index(id: RequestId) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

fn ms(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
