//! The simulated machines: leased, booting, loading, serving, draining, given back.

use std::collections::BTreeMap;

use pomarium_kernel::engine::skipping::{Finished, SkippingEngine};
use pomarium_kernel::engine::{RequestId, StepTimes, TooLong};

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
    /// Whether a machine of this name belongs to the group.
    pub fn owns(&self, machine: &str) -> bool {
        machine.strip_prefix(&self.name).is_some_and(|rest| {
            rest.strip_prefix('-')
                .is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit()))
        })
    }
}

/// Where a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Leased or waking; Ready at this time, in ms.
    Booting {
        /// When it will be Ready.
        ready_ms: i64,
    },
    /// Ready, without a replica.
    Idle,
    /// A replica loads its model; it may serve from this time, in ms.
    Loading {
        /// When it may serve.
        loaded_ms: i64,
    },
    /// Takes requests.
    Serving,
    /// Takes no new requests.
    Draining,
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
    /// Its engine; its clock counts from the simulation's start.
    engine: SkippingEngine,
    /// Requests that were sent here and have not ended.
    pub(crate) requests: u32,
    /// Their estimated work, in ns.
    pub(crate) outstanding_ns: u64,
    /// Counts up whenever the engine's next change moves, so that events for an older one are recognised.
    pub(crate) version: u32,
}

impl Machine {
    pub(crate) fn new(name: String, group: usize, times: StepTimes, phase: Phase, leased_ms: i64) -> Self {
        Self {
            name,
            group,
            phase,
            leased_ms,
            engine: SkippingEngine::new(times),
            requests: 0,
            outstanding_ns: 0,
            version: 0,
        }
    }

    pub(crate) fn engine(&self) -> &SkippingEngine {
        &self.engine
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
}

/// Recycling machines: when each name can be leased again, in ms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recycling(BTreeMap<String, i64>);

impl Recycling {
    pub(crate) fn begin(&mut self, name: &str, until_ms: i64) {
        self.0.insert(name.to_owned(), until_ms);
    }

    pub(crate) fn expire(&mut self, now_ms: i64) {
        self.0.retain(|_, until_ms| *until_ms > now_ms);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, until_ms)| (name.as_str(), *until_ms))
    }
}
