//! What is simulated, apart from the trace and the policy.

use pomarium_kernel::snapshot::{Discipline, Objective};

use crate::machines::GroupModel;

/// What is simulated, apart from the trace and the policy.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Groups in the order of placement.
    pub groups: Vec<GroupModel>,
    /// The pool's objectives.
    pub objectives: Vec<Objective>,
    /// How requests meet machines.
    pub discipline: Discipline,
    /// Longer requests are refused.
    pub context_tokens: u32,
    /// What the router expects of an answer whose length it cannot know.
    pub mean_output_tokens: f64,
    /// The simulation begins here; before the trace's start it is a warm start, paid and without requests.
    pub start_ms: i64,
    /// Requests that arrive before this are history: neither they nor what machines cost until then is counted. At most
    /// zero, all requests and the warm start are.
    pub score_from_ms: i64,
    /// How often the policy decides. Metrics are scraped as often, and reach the policy one tick late.
    pub tick_ms: i64,
    /// After the last arrival, so long is waited for answers.
    pub grace_ms: i64,
    /// For everything that is random: routing by weight, and faults.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
}

impl Scenario {
    /// A scenario without faults and history, whose policy decides every 15 s, from `groups`, `objectives` and what the
    /// router expects of an answer.
    pub fn new(groups: Vec<GroupModel>, objectives: Vec<Objective>, mean_output_tokens: f64) -> Self {
        Self {
            groups,
            objectives,
            discipline: Discipline::LeastWork,
            context_tokens: u32::MAX,
            mean_output_tokens,
            start_ms: 0,
            score_from_ms: 0,
            tick_ms: 15_000,
            grace_ms: 3_600_000,
            seed: 0,
            faults: Faults::default(),
        }
    }
}

/// What goes wrong; by default nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Mean time that a machine runs until it dies, exponential; never if `None`.
    pub mean_hours_to_death: Option<f64>,
    /// A machine that died is Ready again after this, without a replica.
    pub repair_ms: u64,
    /// Spans of time in which a group cannot be leased.
    pub stock_outs: Vec<StockOut>,
    /// Share of leases whose lead time is longer than promised.
    pub late_share: f64,
    /// By which factor.
    pub late_factor: f64,
}

/// A span of time in which a group cannot be leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockOut {
    /// Index of the group.
    pub group: usize,
    /// From, in ms.
    pub from_ms: i64,
    /// Until, in ms.
    pub until_ms: i64,
}

impl Faults {
    pub(crate) fn in_stock(&self, group: usize, now_ms: i64) -> bool {
        !self
            .stock_outs
            .iter()
            .any(|out| out.group == group && (out.from_ms..out.until_ms).contains(&now_ms))
    }
}
