//! What a policy sees, and what it can want.

use crate::machines::{GroupModel, Machine, Slots};
use crate::scrape::Scrapes;

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
    /// Give an idle or failed machine back. One that is always on cannot be.
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
    /// All machines that ever were; released ones included, so that an index stays valid. [`Self::live`] leaves them out.
    pub machines: &'a [Machine],
    /// What the gateway's metrics say, one tick old.
    pub scrapes: &'a Scrapes,
    /// Indices of the machines that are paid for, in the order in which they were leased.
    pub(crate) live: &'a [usize],
    pub(crate) slots: &'a Slots,
    /// Per group, when a lease was refused last because there was no stock.
    pub(crate) refused_ms: &'a [Option<i64>],
}

impl View<'_> {
    /// The machines that are paid for, with their indices, in the order in which they were leased.
    pub fn live(&self) -> impl Iterator<Item = (usize, &Machine)> + '_ {
        self.live.iter().map(|&machine| (machine, &self.machines[machine]))
    }

    /// Machines of a group that are paid for.
    pub fn held(&self, group: usize) -> usize {
        self.slots.held(group)
    }

    /// Machines of a group that could still be leased now, if there is stock.
    pub fn free(&self, group: usize) -> usize {
        self.free_at(group).filter(|&from_ms| from_ms <= self.now_ms).count()
    }

    /// When each machine of a group that is not held can be leased, in ms: later than now while it is recycled.
    pub fn free_at(&self, group: usize) -> impl Iterator<Item = i64> + '_ {
        self.slots.free_from(group)
    }

    /// When a lease of this group was refused last because there was no stock, in ms.
    pub fn out_of_stock_ms(&self, group: usize) -> Option<i64> {
        self.refused_ms[group]
    }
}

/// Decides at every tick.
pub trait Policy {
    /// Its name in reports.
    fn name(&self) -> &str;

    /// What it wants done now.
    fn decide(&mut self, view: &View<'_>) -> Vec<Command>;

    /// Why, for people: asked right after a decision that gave commands.
    fn reason(&self) -> String {
        String::new()
    }

    /// Requests per second that it expects now, as a lower quantile, the median and an upper one. Policies without a
    /// forecast expect nothing.
    fn expected(&self) -> Option<[f64; 3]> {
        None
    }

    /// How good its forecasts and plans were, once the simulation has ended.
    fn figures(&self) -> Figures {
        Figures::default()
    }
}

/// How good forecasts and plans were; `None` for a policy that makes none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Share of actual rates within the forecast's band.
    pub forecast_coverage: Option<f64>,
    /// Median gap of the plans.
    pub gap_median: Option<f64>,
    /// Largest gap of a plan.
    pub gap_max: Option<f64>,
    /// No schedule costs less, by a policy that can tell.
    pub bound: Option<f64>,
    /// Median time for one decision, in ms.
    pub plan_ms_p50: Option<f64>,
    /// Its 99th percentile, in ms.
    pub plan_ms_p99: Option<f64>,
}
