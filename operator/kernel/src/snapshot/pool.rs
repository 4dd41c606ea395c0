//! Models served under objectives, and where they may run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Demand, EnginesMeasured, Group, LengthMix, Measured, Mode, Replica, Trust, Use};
use crate::forecast::Event;
use crate::names::{GroupName, Jurisdiction, ReplicaId, Revision, ServerName, SiteName};
use crate::strategy::past::Past;
use crate::time::{Span, Timestamp};
use crate::units::{Fraction, Money};

/// One model served under objectives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// What its requests are.
    pub usage: Use,
    /// The model.
    pub model: Model,
    /// Latency objectives; never empty.
    pub objectives: Vec<Objective>,
    /// What one request over its objective costs.
    pub miss_penalty: Money,
    /// The ceiling on spending.
    pub budget: Option<Budget>,
    /// Who yields first when capacity runs out: higher yields first.
    pub degrade_order: u32,
    /// Who is served first: higher first.
    pub priority: i32,
    /// Where it may run.
    pub placement: Placement,
    /// Fewest and most replicas.
    pub replicas: ReplicaRange,
    /// How replicas are drained.
    pub drain: DrainPolicy,
    /// How far Pomarium may go by itself.
    pub mode: Mode,
    /// Servers that people have approved to be asked for for it, where it wants to be asked.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub approved: BTreeSet<ServerName>,
    /// How requests meet servers.
    pub discipline: Discipline,
    /// Measured step times that replace the catalogue's.
    pub performance: Vec<MeasuredPerformance>,
    /// What a replica started now would run.
    pub revision: Revision,
    /// Sites whose cluster has the pool's namespace. Replicas cannot run elsewhere.
    pub namespace_at: BTreeSet<SiteName>,
    /// Sites that the route which Pomarium writes for the pool reaches. `None`: it writes none, and whoever routes reaches
    /// all of them.
    #[serde(default)]
    pub routable_at: Option<BTreeSet<SiteName>>,
    /// Arrivals, as measured.
    pub demand: Demand,
    /// Objectives, as measured, in the order of `objectives`.
    pub measured: Vec<Measured>,
    /// What its engines say, by group: against it, figures of machines are checked. Groups of which it is not known are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: BTreeMap<GroupName, EnginesMeasured>,
    /// All Pods of the pool at all sites.
    pub running: BTreeMap<ReplicaId, Replica>,
    /// What the last pass wrote down for this one.
    pub memory: PoolMemory,
    /// Events that are known to change its demand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// What it has lived through, as far as forecasts and error budgets need it. Shared: it is long, and most passes only hand it on.
    #[serde(default, with = "super::shared")]
    pub past: Arc<Past>,
    /// Pomarium only watches.
    pub paused: bool,
    /// The object is being deleted: drain everything.
    pub deleting: bool,
}

impl Pool {
    /// Servers of a group that people have approved to be asked for for this pool, and that do not exist yet. Where those of the group want to be
    /// asked, they decide.
    pub fn approved_requests<'p>(
        &'p self,
        name: &'p GroupName,
        group: &'p Group,
    ) -> impl Iterator<Item = &'p ServerName> {
        let counts = self.mode == Mode::Approve && group.mode == Mode::Auto;
        let of_group = move |server: &str| {
            let ordinal = server.strip_prefix(name.as_str())?.strip_prefix('-')?;
            ordinal.parse::<u32>().ok()
        };
        let servers = group.inventory.servers();
        let approved = self.approved.iter().filter(move |_| counts);
        approved.filter(move |server| of_group(server.as_str()).is_some() && !servers.contains_key(*server))
    }
}

/// A model and what it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Such as `llama-3.1-8b-instruct`.
    pub name: String,
    /// Such as `Q4_K_M`.
    pub quantization: String,
    /// Total parameters, in billions.
    pub parameters_billions: f64,
    /// Parameters touched per token, in billions; less than all for mixtures of experts.
    pub active_parameters_billions: f64,
    /// Size of the weights in memory.
    pub weights_gib: f64,
    /// Longest context of one request, in tokens.
    pub context_tokens: u32,
    /// KV cache per token of context, in bytes.
    pub kv_bytes_per_token: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// TTFT: from arrival to the first token, in ms.
    TimeToFirstToken,
    /// ITL: mean time between tokens of one request, in ms.
    InterTokenLatency,
}

/// At least `percentile` of requests stay within `threshold`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// What is measured.
    pub metric: Metric,
    /// Share of requests that must be within the threshold.
    pub percentile: Fraction,
    /// The bound on one request.
    pub threshold: Span,
    /// It holds in every window of this length.
    pub window: Span,
}

/// A ceiling on spending per period, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The ceiling.
    pub amount: Money,
    /// Over which time.
    pub period: Period,
}

/// A budget's period; calendar periods in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Period {
    /// Midnight to midnight.
    Day,
    /// Monday to Sunday.
    Week,
    /// A calendar month.
    Month,
}

/// Where a pool may run, and what is filled first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// What is filled first.
    pub order: PlacementOrder,
    /// Data must stay within these jurisdictions: a site qualifies if it serves at least one. Empty: anywhere.
    pub residency: BTreeSet<Jurisdiction>,
    /// Least trust.
    pub minimum_trust: Trust,
    /// Groups must carry these labels.
    pub group_labels: BTreeMap<String, String>,
    /// Objectives must hold after losing any one of these.
    pub survive_loss_of: Survive,
}

/// What is filled first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlacementOrder {
    /// Owned, then managed, then hosted; contracting in reverse.
    OwnedFirst,
    /// By marginal cost.
    Cheapest,
}

/// What may be lost without breaking an objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Survive {
    /// Nothing.
    None,
    /// Any one server.
    Server,
    /// Any one site.
    Site,
}

/// Fewest and most replicas of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRange {
    /// Kept even without demand.
    pub min: u32,
    /// Never exceeded.
    pub max: u32,
}

/// How replicas are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainPolicy {
    /// From the fence to the deadline.
    pub timeout: Span,
    /// What happens at the deadline.
    pub on_deadline: OnDeadline,
}

/// What happens to requests that still run at a drain's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDeadline {
    /// They are kept; the drain waits on and says so.
    Keep,
    /// They are cut and counted.
    Cut,
}

/// How requests meet servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Discipline {
    /// An endpoint picker sends each request to the server with the least outstanding work.
    LeastWork,
    /// Random by weight.
    Weighted,
}

/// Step times that somebody measured for a pool's model on one kind of machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredPerformance {
    /// Such as `M2 Ultra`.
    pub chip: String,
    /// GPU cores.
    pub gpu_cores: u32,
    /// Memory in GiB, if the figures are for one size only.
    pub memory_gib: Option<u32>,
    /// See [`crate::engine::StepTimes`]. Absent figures come from the catalogue.
    pub alpha_ms: Option<f64>,
    /// Likewise.
    pub beta_ms: Option<f64>,
    /// Likewise.
    pub delta_ms: Option<f64>,
    /// Tokens that fit the KV cache.
    pub kv_tokens: Option<u64>,
    /// Most sequences at once.
    pub max_batch: Option<u32>,
    /// Most prompt tokens in one iteration.
    pub prefill_chunk: Option<u32>,
    /// From the start of the Pod to its readiness.
    pub load_time: Option<Span>,
}

/// What Pomarium remembers of a pool between passes, kept in the object's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolMemory {
    /// When replicas were last added by decision.
    pub last_added: Option<Timestamp>,
    /// When a replica was last taken out by decision.
    pub last_removed: Option<Timestamp>,
    /// Since when fewer replicas would do.
    pub surplus_since: Option<Timestamp>,
    /// Since when an objective is missed by measurement.
    pub missing_objective_since: Option<Timestamp>,
    /// How many replicas there were when that began.
    pub missing_objective_from: Option<u32>,
    /// Since when servers that would have to be paid for are missing.
    pub short_since: Option<Timestamp>,
    /// Since when something that has to go is held.
    pub held_since: Option<Timestamp>,
    /// The last replica count decided.
    pub target: Option<u32>,
    /// What it has spent in the current period of its budget.
    pub spent: Option<Spent>,
    /// The last lengths of requests that were measured. Not followed in every detail: a status must come to rest.
    pub lengths: Option<LengthMix>,
}

/// What a pool has spent in one period of its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// When the period began, in UTC.
    pub period: Timestamp,
    /// Leases and energy of its servers up to `until`; a shared server's by hours. A lease's minimum is spent when it is bought.
    pub amount: Money,
    /// Up to when it is counted.
    pub until: Timestamp,
}
