//! Everything that one pass has seen, in kernel types.
//!
//! Observed by the controller, or made up by a simulator: the planner cannot tell. A snapshot is complete and owned; it
//! serialises, so that any decision can be planned again later. What could not be read is *unknown*, never empty, zero
//! or idle: every such place has a type that says so.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::lifecycle::{Drain, ReplicaState, ServerState};
use crate::names::{GroupName, Jurisdiction, PoolId, ReplicaName, Revision, ServerName, SiteName};
use crate::reason::Problem;
use crate::time::{Span, Timestamp};
use crate::units::{Fraction, Money, Rate};

/// All sites, groups and pools as one pass has seen them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Member clusters.
    pub sites: BTreeMap<SiteName, Site>,
    /// Sets of identical machines.
    pub groups: BTreeMap<GroupName, Group>,
    /// Models served under objectives.
    pub pools: BTreeMap<PoolId, Pool>,
}

// ---------------------------------------------------------------------------------------------------------------- sites

/// Who owns a site's machines and building. The order is the order in which `OwnedFirst` fills them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ownership {
    /// Own machines in an own building.
    Owned,
    /// Own machines in a partner's building.
    Managed,
    /// Leased machines.
    Hosted,
}

/// How much a site can prove about its machines. Ordered from nothing to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Trust {
    /// Nothing.
    None,
    /// The owner checks them by other means.
    Verified,
    /// Signed evidence on every server.
    Attested,
}

/// What a site's machines may be used for under their licence, or what a pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Use {
    /// Anything, users' requests included.
    Production,
    /// Building and testing only.
    DevelopmentOnly,
}

/// Whether people want new work at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Maintenance {
    /// Yes.
    Active,
    /// What runs may stay; nothing new comes.
    Cordoned,
    /// What runs is drained.
    Draining,
}

/// Whether the member cluster answered lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contact {
    /// Its API server answers and its caches are complete: what is seen there is current.
    Reachable,
    /// It does not: everything seen there is as of `since`, and nothing may be concluded from it.
    Lost {
        /// When it last answered.
        since: Timestamp,
        /// Why it is not reachable, for people.
        message: String,
    },
}

/// A member cluster at one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Who owns it.
    pub ownership: Ownership,
    /// Jurisdictions whose data may be processed here.
    pub residency: BTreeSet<Jurisdiction>,
    /// The most that this site can prove.
    pub trust: Trust,
    /// What its machines may be used for.
    pub permitted_use: Use,
    /// Electricity.
    pub energy: Energy,
    /// What people want of it.
    pub maintenance: Maintenance,
    /// Whether it answers.
    pub contact: Contact,
    /// Pomarium only watches: set by people with the annotation `pomarium.dev/paused`.
    pub paused: bool,
}

/// What electricity costs at a site.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Price of one kilowatt-hour at the meter.
    pub price_per_kwh: Money,
    /// Power usage effectiveness: watts at the meter per watt at the machines, at least 1.
    pub pue: f64,
    /// The most that all machines together may draw, in watts at the machines.
    pub power_limit_watts: Option<f64>,
}

// --------------------------------------------------------------------------------------------------------------- groups

/// The key into the catalogue: bandwidth and speed differ within one chip name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MachineKey {
    /// Such as `M2 Ultra`.
    pub chip: String,
    /// GPU cores.
    pub gpu_cores: u32,
    /// Unified memory in GiB.
    pub memory_gib: u32,
}

/// A scalable set of identical machines at one site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Where they are.
    pub site: SiteName,
    /// What they are.
    pub machine: MachineKey,
    /// Labels of the `ServerGroup` object, which a pool's `groupSelector` selects on.
    pub labels: BTreeMap<String, String>,
    /// Fewest and most servers.
    pub size: SizeRange,
    /// Ordered machines that raise the most, sorted by date.
    pub deliveries: Vec<Delivery>,
    /// What the provider can do.
    pub provider: ProviderTraits,
    /// Watts of one machine; overrides of the catalogue are already in.
    pub power: Power,
    /// What one server costs.
    pub pricing: Pricing,
    /// How long servers take to come, and to be available again.
    pub lead_time: LeadTime,
    /// How many servers Pomarium may take out at once, by choice, and when.
    pub disruption: Disruption,
    /// Whether Pomarium may spend money here by itself.
    pub mode: Mode,
    /// All servers that exist or have been asked for, or unknown if the provider or the site does not answer.
    pub inventory: Inventory,
    /// When the provider last refused for want of machines.
    pub out_of_stock_since: Option<Timestamp>,
    /// What the last pass wrote down for this one.
    pub memory: GroupMemory,
    /// Pomarium only watches.
    pub paused: bool,
}

/// Fewest and most servers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeRange {
    /// Kept even without demand.
    pub min: u32,
    /// Never exceeded.
    pub max: u32,
}

/// Machines that will raise a group's most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// From when on.
    pub at: Timestamp,
    /// How many.
    pub servers: u32,
}

/// What a group's provider can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderTraits {
    /// It can bring up another server.
    pub grows: bool,
    /// It can give back a server of our choice. One that cannot may only go to zero after all are drained.
    pub releases_chosen: bool,
    /// Servers are always on and cannot be switched off: their idle watts are sunk.
    pub always_on: bool,
}

/// Watts of one machine at the wall.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// On, without work.
    pub idle_watts: f64,
    /// Under full load.
    pub busy_watts: f64,
}

/// What one server of a group costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pricing {
    /// Per hour while leased.
    pub hourly: Money,
    /// Paid in any case, from the start of the lease.
    pub minimum_lease: Span,
}

/// How long servers of a group take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadTime {
    /// From the decision to a Ready server; the model's load comes on top.
    pub provision: Span,
    /// From release until the machine can be leased again.
    pub recycle: Span,
}

/// How many servers may be taken out at once by choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disruption {
    /// At most this many servers draining by choice at the same time.
    pub max_unavailable: u32,
    /// Whether a window for voluntary disruption is open now. Always true without windows.
    pub window_open: bool,
}

/// How far Pomarium may go by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// All the way.
    Auto,
    /// It proposes; people approve.
    Approve,
    /// It only says what it would do.
    Advise,
}

/// The servers of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Inventory {
    /// The complete list.
    Known(BTreeMap<ServerName, Server>),
    /// The list as it was when the site or the provider last answered. Not to be acted on.
    Unknown {
        /// The last complete list.
        last: BTreeMap<ServerName, Server>,
        /// Since when nothing newer is known.
        since: Timestamp,
    },
}

impl Inventory {
    /// The servers, current or last known.
    pub fn servers(&self) -> &BTreeMap<ServerName, Server> {
        match self {
            Self::Known(servers) | Self::Unknown { last: servers, .. } => servers,
        }
    }

    /// Whether the list is complete and current.
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Where it is in its life. See [`crate::lifecycle::server_state`].
    pub state: ServerState,
    /// When it got there.
    pub since: Timestamp,
    /// The paid term, if it is leased.
    pub lease: Option<Lease>,
    /// People have cordoned it, or put a taint on it that replicas do not tolerate: no new work, and what runs is moved.
    pub cordoned: bool,
    /// People have asked to leave it alone, with the annotation `pomarium.dev/hold`.
    pub held: bool,
    /// What its Node proves, checked: the highest trust level with valid evidence.
    pub proven: Trust,
}

/// The paid term of a hosted server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Paid from here.
    pub start: Timestamp,
    /// Paid at least until here.
    pub minimum_until: Timestamp,
}

/// What Pomarium remembers of a group between passes, kept in the object's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMemory {
    /// When a server was last asked for by decision.
    pub last_requested_at: Option<Timestamp>,
    /// When a server was last given back by decision.
    pub last_released_at: Option<Timestamp>,
}

// ---------------------------------------------------------------------------------------------------------------- pools

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
    /// All Pods of the pool at all sites.
    pub running: BTreeMap<ReplicaName, Replica>,
    /// What the last pass wrote down for this one.
    pub memory: PoolMemory,
    /// Pomarium only watches.
    pub paused: bool,
    /// The object is being deleted: drain everything.
    pub deleting: bool,
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

/// Arrivals of a pool, as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Demand {
    /// Measured.
    Known(Arrivals),
    /// Not measured: no source, no answer, too few samples, or too old. Not the same as no demand.
    Unknown {
        /// Since when; the start of observation if never known.
        since: Timestamp,
        /// What is missing.
        problem: Problem,
    },
}

/// Measured arrivals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Over the last minute.
    pub rate_1m: Rate,
    /// Over the last five minutes, or as much of them as has been seen.
    pub rate_5m: Rate,
    /// Lengths of the requests seen lately; `None` if too few were seen.
    pub lengths: Option<LengthMix>,
    /// When the newest sample was taken.
    pub at: Timestamp,
}

/// The distribution of prompt and output lengths, as equally likely classes.
///
/// Quantile bins: each pair is the mean prompt and output length of one of the bins, in tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthMix {
    /// Equally likely (prompt tokens, output tokens), sorted by prompt; never empty.
    pub classes: Vec<(u32, u32)>,
}

/// One objective, as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Measured {
    /// Measured over the last five minutes.
    Known {
        /// The value at the objective's percentile, in ms. Interpolated within a histogram's bucket.
        value_ms: f64,
        /// Share of requests within the threshold.
        attained: Fraction,
        /// Requests in the sample.
        samples: u64,
        /// When the newest sample was taken.
        at: Timestamp,
    },
    /// The engine exports no such metric (llama.cpp): only the model can say.
    ModelOnly,
    /// Not measured.
    Unknown {
        /// What is missing.
        problem: Problem,
    },
}

/// One Pod of a pool on one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// Its uid: every destructive call carries it.
    pub uid: String,
    /// Where it runs.
    pub site: SiteName,
    /// On which group's server.
    pub group: GroupName,
    /// On which server.
    pub server: ServerName,
    /// What it runs.
    pub revision: Revision,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// It carries the label `pomarium.dev/serving`: routers may send it requests.
    pub serving: bool,
    /// The drain under way, if any.
    pub drain: Option<Drain>,
    /// What its engine says it is doing.
    pub load: Load,
    /// When the Pod was created.
    pub created: Timestamp,
}

/// What an engine says it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Load {
    /// It answered.
    Known {
        /// Requests in the batch.
        running: u32,
        /// Requests waiting in the engine.
        queued: u32,
        /// When it was asked.
        at: Timestamp,
    },
    /// It did not. Not the same as idle.
    Unknown,
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
    /// The last lengths of requests that were measured. Not followed in every detail: a status must come to rest.
    pub lengths: Option<LengthMix>,
}
