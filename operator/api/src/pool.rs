//! `ServerPool`: one model served under objectives, a budget and placement rules.

mod engine;
mod objective;
mod performance;
mod placement;
mod routing;
mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Mode;
use crate::duration::Duration;
use crate::schema;

pub use engine::{Engine, EngineType, Model};
pub use objective::{Budget, BudgetPeriod, Event, Metrics, MetricsSource, Objective, ObjectiveMetric};
pub use performance::{Performance, PerformanceMachine};
pub use placement::{Placement, PlacementOrder, Survive};
pub use routing::{Discipline, GatewayRef, HttpRoute, Routing};
pub use status::{
    BudgetStatus, LastDecision, Observed, PoolMemory, RejectedAlternative, ReplicaCounts, ServerPoolStatus, Spent,
};

/// Which model, what must hold for its requests, what may be spent, and where it may run.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pomarium.dev",
    version = "v1alpha1",
    kind = "ServerPool",
    namespaced,
    status = "ServerPoolStatus",
    derive = "PartialEq",
    shortname = "spool",
    category = "pomarium",
    doc = "One model served under objectives, a budget and placement rules.",
    selectable = ".spec.model.name",
    selectable = ".spec.engine.type",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether the pool is as its spec wants it."),
    printcolumn(name = "SLO", type_ = "string", json_path = ".status.conditions[?(@.type=='SLOMet')].status", description = "Whether every objective holds by measurement."),
    printcolumn(name = "Serving", type_ = "string", json_path = ".status.replicas.text", description = "Replicas that take requests, of those wanted."),
    printcolumn(name = "Cost/h", type_ = "string", json_path = ".status.costPerHour", description = "Leases and energy of its servers."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.summary", description = "Why it is as it is."),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.name", priority = "1"),
    printcolumn(name = "Demand/s", type_ = "string", json_path = ".status.observed.demand", priority = "1"),
    printcolumn(name = "Carries/s", type_ = "string", json_path = ".status.observed.sustainable", priority = "1"),
    printcolumn(name = "Budget", type_ = "string", json_path = ".status.budget.text", description = "Spent of the budget in its current period.", priority = "1"),
    printcolumn(name = "Cut", type_ = "integer", json_path = ".status.requestsCut", priority = "1"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name must be at most 40 characters long")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.placement) || !has(self.placement.surviveLossOf) || self.placement.surviveLossOf == 'None' || self.replicas.max >= 2")
    .message("replicas.max must be at least 2 if placement.surviveLossOf is Server or Site: one replica cannot outlive itself")
    .field_path(".replicas.max"))]
pub struct ServerPoolSpec {
    /// What the requests are: `Production` (users' requests) or `Development` (building and testing). Production never runs at
    /// sites that permit development only. Default: Production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<PoolUse>")]
    pub r#use: Option<PoolUse>,
    /// The model, and what it needs of a machine. A change replaces all replicas, new ones first.
    pub model: Model,
    /// The model server. A change replaces all replicas, new ones first.
    pub engine: Engine,
    /// What must hold for the requests; 1 to 8, one for each metric and percentile.
    /// Example: `[{metric: TimeToFirstToken, percentile: 95, threshold: 10s}]`.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["metric", "percentile"]))]
    pub objectives: Vec<Objective>,
    /// What one request over its objective costs, as a decimal in the budget's currency: the higher, the more spare capacity is
    /// kept. Example: `"0.002"`. Default: `"0.0001"`, for which nothing is leased, and which keeps servers on that cost next to
    /// nothing; `"0"` spends error budgets to the last cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::money")]
    pub miss_penalty: Option<String>,
    /// A hard ceiling on spending. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Who yields first when budgets or capacity run out: higher yields first, 0 to 1000000. Example: 10. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub degrade_order: Option<i32>,
    /// Where arrivals, time to first token and inter-token latency are measured. Default: at the engines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Known events that change the demand, such as a launch; at most 32, each with its own name. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub events: Vec<Event>,
    /// Who is served first when capacity is short: higher first, -1000000 to 1000000. Example: 100. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: Option<i32>,
    /// Where it may run, and what is filled first. Default: anywhere, owned machines first, surviving the loss of any server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Fewest and most replicas.
    pub replicas: Replicas,
    /// How replicas are drained. Default: for up to 15m, and requests are never cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainSpec>,
    /// How far Pomarium may go by itself in anything that spends money. `Auto`: it acts. `Approve`: it writes a ServerPlan and
    /// waits for approval. `Advise`: it writes a ServerPlan and never acts. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Mode>")]
    pub mode: Option<Mode>,
    /// How requests meet servers. Default: at random by weight, and no route of Pomarium's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// Measured figures that replace the catalogue's, one entry for each kind of machine; at most 32. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.machine == a.machine))")
        .message("performance must have at most one entry for each machine"))]
    pub performance: Vec<Performance>,
}

/// What a pool's requests are.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum PoolUse {
    /// Users' requests.
    #[default]
    Production,
    /// Building and testing.
    Development,
}

/// Fewest and most replicas.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.min) || self.min <= self.max").message("replicas.min must be at most replicas.max").field_path(".min"))]
pub struct Replicas {
    /// Replicas that are kept even without demand, 0 to 10000. Example: 2. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub min: Option<i32>,
    /// Replicas that are never exceeded, 1 to 10000. Example: 40.
    #[schemars(range(min = 1, max = 10000))]
    pub max: i32,
}

/// How replicas are drained.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DrainSpec {
    /// From the moment when a replica takes no new requests to the deadline. Example: `5m`. Default: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::positive_duration")]
    pub timeout: Option<Duration>,
    /// What happens to requests that still run at the deadline. `Keep`: the drain waits on and says so. `Cut`: they are cut and
    /// counted in `status.requestsCut`. Default: Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<OnDeadline>")]
    pub on_deadline: Option<OnDeadline>,
}

/// What happens at a drain's deadline.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum OnDeadline {
    /// Wait on, and say so.
    #[default]
    Keep,
    /// Cut, and count.
    Cut,
}
