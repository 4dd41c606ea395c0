//! The simulated machines: leased, booting, loading, serving, draining, given back.

use pomarium_kernel::engine::skipping::{Finished, SkippingEngine};
use pomarium_kernel::engine::{RequestId, StepTimes, TooLong};
use pomarium_kernel::performance::Performance;
use pomarium_kernel::time::Span;

use crate::backlog::Backlog;

/// What a group's machines have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupModel {
    /// Name of the `ServerGroup`.
    pub name: String,
    /// Step times for the pool's model.
    pub times: StepTimes,
    /// From the start of a replica until it may serve.
    pub load_ms: u64,
    /// From the lease to a machine that a replica can be started on.
    pub lead_ms: u64,
    /// From the release until the machine can be leased again.
    pub recycle_ms: u64,
    /// Paid in any case.
    pub minimum_lease_ms: u64,
    /// Price of an hour, in the hub's currency.
    pub hourly: f64,
    /// At the wall, without work.
    pub idle_watts: f64,
    /// At the wall, under full load.
    pub busy_watts: f64,
    /// Price of a kWh at the machine: the site's price times its PUE.
    pub price_per_kwh: f64,
    /// Most machines.
    pub max: u32,
    /// Always on: idle watts are paid from the start to the end, used or not.
    pub always_on: bool,
}

impl GroupModel {
    /// What one machine does with the pool's model, as the kernel's capacity model takes it.
    pub(crate) fn performance(&self) -> Performance {
        Performance {
            times: self.times,
            load_time: Span::from_millis(self.load_ms),
            source: String::new(),
        }
    }

    /// The name of one of its machines.
    pub fn machine(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// The ordinal of a machine of this name, if it is one of the group's.
    pub fn ordinal(&self, machine: &str) -> Option<u32> {
        let digits = machine.strip_prefix(&self.name)?.strip_prefix('-')?;
        let ordinal = digits.parse().ok()?;
        (ordinal < self.max && self.machine(ordinal) == machine).then_some(ordinal)
    }
}

/// Where a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Leased or waking.
    Booting {
        /// When it is promised to be Ready, in ms; it may be late.
        ready_ms: i64,
    },
    /// Ready, without a replica.
    Idle,
    /// A replica loads its model.
    Loading {
        /// When it may serve, in ms.
        loaded_ms: i64,
    },
    /// Takes requests.
    Serving,
    /// Takes no new requests.
    Draining,
    /// Died. It comes back by itself, nobody knows when, and is paid for.
    Failed,
    /// Given back.
    Released,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `{group}-{ordinal}`.
    pub name: String,
    /// Index of its group.
    pub group: usize,
    /// Where it is.
    pub phase: Phase,
    /// Paid from here, in ms.
    pub leased_ms: i64,
    /// The last part of its name.
    pub(crate) ordinal: u32,
    /// When it will really be Ready, or back from a failure, in ms.
    pub(crate) due_ms: i64,
    /// Its engine; its clock counts from the simulation's start.
    engine: SkippingEngine,
    /// Requests that were sent here and that the engine does not know of yet: only when it has as many waiting as it can admit at once.
    pub(crate) backlog: Backlog,
    /// Requests that were sent here and have not ended.
    pub(crate) requests: u32,
    /// Their estimated work, in ns.
    pub(crate) outstanding_ns: u64,
    /// Counts up whenever the engine's next change moves, so that events for an older one are recognised.
    pub(crate) version: u32,
    /// Accounts count it from here: later than its lease if that began in the history.
    pub(crate) billed_from_ms: i64,
    /// The engine's busy time until then.
    pub(crate) billed_from_busy_ns: u64,
}

impl Machine {
    pub(crate) fn new(group: usize, model: &GroupModel, ordinal: u32, phase: Phase, leased_ms: i64) -> Self {
        Self {
            name: model.machine(ordinal),
            group,
            phase,
            leased_ms,
            ordinal,
            due_ms: leased_ms,
            engine: SkippingEngine::new(model.times),
            backlog: Backlog::default(),
            requests: 0,
            outstanding_ns: 0,
            version: 0,
            billed_from_ms: leased_ms,
            billed_from_busy_ns: 0,
        }
    }

    /// Requests that were sent here and have not ended.
    pub fn in_flight(&self) -> u32 {
        self.requests
    }

    /// The end of its minimum lease, in ms: until then it costs the same, kept or given back.
    pub fn paid_until_ms(&self, groups: &[GroupModel]) -> i64 {
        let minimum_ms = groups[self.group].minimum_lease_ms;
        self.leased_ms.saturating_add_unsigned(minimum_ms)
    }

    pub(crate) fn engine(&self) -> &SkippingEngine {
        &self.engine
    }

    /// Whether its engine could ever hold such a request.
    pub(crate) fn fits(&self, prompt: u32, output: u32) -> bool {
        self.engine.fits(prompt, output)
    }

    /// Whether its engine needs to know of more requests: it admits at most a whole batch at once, and only from the head of its queue.
    pub(crate) fn has_room(&self) -> bool {
        self.engine.queued() < self.engine.times().max_batch.max(1) as usize
    }

    /// Whether another request waits behind what the engine knows of.
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.backlog.is_empty() || !self.has_room()
    }

    pub(crate) fn submit(&mut self, at_ns: u64, id: RequestId, prompt: u32, output: u32) -> Result<(), TooLong> {
        self.engine.submit(at_ns, id, prompt, output)
    }

    pub(crate) fn advance(&mut self, to_ns: u64, finished: &mut Vec<Finished>) {
        self.engine.advance(to_ns, finished);
    }

    pub(crate) fn next_change_ns(&mut self) -> Option<u64> {
        self.version = self.version.wrapping_add(1);
        self.engine.next_change_ns()
    }

    pub(crate) fn take_waiting(&mut self) -> Vec<RequestId> {
        self.engine.take_waiting().collect()
    }

    /// Frees the memory of an engine that will never run again.
    pub(crate) fn forget_engine(&mut self) {
        let times = StepTimes {
            max_batch: 0,
            ..self.engine.times()
        };
        self.version = self.version.wrapping_add(1);
        self.engine = SkippingEngine::new(times);
    }

    /// Takes out what runs, as when it dies.
    pub(crate) fn take_running(&mut self) -> Vec<RequestId> {
        self.version = self.version.wrapping_add(1);
        self.engine.take_running()
    }
}

/// What was paid, per group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Paid {
    /// Leases, to the end of the simulation.
    pub leases: f64,
    /// Electricity.
    pub energy: f64,
    /// What minimum leases still cost after the end.
    pub obligations: f64,
    /// Hours that machines were on.
    pub machine_hours: f64,
    /// Machines given back before the end of their minimum lease.
    pub early_releases: u32,
    /// Most machines serving at once.
    pub peak: u32,
}

impl Paid {
    pub(crate) fn add(&mut self, other: Self) {
        self.leases += other.leases;
        self.energy += other.energy;
        self.obligations += other.obligations;
        self.machine_hours += other.machine_hours;
        self.early_releases += other.early_releases;
        self.peak = self.peak.max(other.peak);
    }
}

/// One of a group's machines, leased or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Held,
    /// Can be leased from this time, in ms.
    FreeFrom(i64),
}

/// Which machines of every group can be leased.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Vec<Vec<Slot>>);

impl Slots {
    pub(crate) fn new(groups: &[GroupModel]) -> Self {
        Self(
            groups
                .iter()
                .map(|group| vec![Slot::FreeFrom(i64::MIN); group.max as usize])
                .collect(),
        )
    }

    /// Takes the lowest ordinal that is free.
    pub(crate) fn take(&mut self, group: usize, now_ms: i64) -> Option<u32> {
        let free = |slot: &Slot| matches!(slot, Slot::FreeFrom(from_ms) if *from_ms <= now_ms);
        let ordinal = self.0[group].iter().position(free)?;
        self.0[group][ordinal] = Slot::Held;
        u32::try_from(ordinal).ok()
    }

    pub(crate) fn give_back(&mut self, group: usize, ordinal: u32, free_from_ms: i64) {
        self.0[group][ordinal as usize] = Slot::FreeFrom(free_from_ms);
    }

    pub(crate) fn held(&self, group: usize) -> usize {
        self.0[group].iter().filter(|slot| **slot == Slot::Held).count()
    }

    /// When each machine that is not held can be leased, in ms.
    pub(crate) fn free_from(&self, group: usize) -> impl Iterator<Item = i64> + '_ {
        self.0[group].iter().filter_map(|slot| match slot {
            Slot::Held => None,
            Slot::FreeFrom(from_ms) => Some(*from_ms),
        })
    }
}
