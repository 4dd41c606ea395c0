//! `ServerPool`: one model served under objectives, a budget and placement rules.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Mode, Selector};
use crate::duration::Duration;
use crate::site::Trust;

/// Desired state of a pool.
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
    doc = "One model served under objectives, a budget and placement rules."
)]
#[serde(rename_all = "camelCase")]
pub struct ServerPoolSpec {
    /// What the requests are. Production never runs on sites that permit development only. Default: Production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#use: Option<PoolUse>,
    /// The model.
    pub model: Model,
    /// The model server.
    pub engine: Engine,
    /// What must hold for the requests.
    pub objectives: Vec<Objective>,
    /// What one request over its objective costs, as a decimal in the budget's currency. Example: `"0.002"`. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miss_penalty: Option<String>,
    /// A hard ceiling on spending. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Who yields first when budgets or capacity run out: higher yields first. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degrade_order: Option<i32>,
    /// Where arrivals, TTFT and ITL are measured. Default: Engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Known events that change the demand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// Who is served first: higher first. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Where it may run. Default: anywhere, owned first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Fewest and most replicas.
    pub replicas: Replicas,
    /// How replicas are drained. Default: 15m, Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainSpec>,
    /// For anything that spends money. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How requests meet servers. Default: Weighted, no route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// Measured figures per machine that replace the catalogue's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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

/// The model.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// As the engine names it. Example: `llama-3.1-8b-instruct`.
    pub name: String,
    /// Example: `Q4_K_M`.
    pub quantization: String,
    /// Total parameters in billions, as a decimal. Example: `"8.0"`.
    pub parameters_billions: String,
    /// Parameters touched per token in billions, for mixtures of experts. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_parameters_billions: Option<String>,
    /// Size of the weights in GiB, as a decimal. Example: `"4.9"`.
    #[serde(rename = "weightsGiB")]
    pub weights_gib: String,
    /// Longest context of one request, in tokens. Example: 16384.
    pub context_tokens: i32,
    /// KV cache per token, in bytes. Example: 131072.
    pub kv_bytes_per_token: i64,
}

/// The model server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// Which metrics it exports, and how it is drained.
    pub r#type: EngineType,
    /// Container image.
    pub image: String,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Port of its HTTP API. Default: 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

impl Engine {
    /// Port of its HTTP API, or the default.
    pub fn port(&self) -> i32 {
        self.port.unwrap_or(8080)
    }
}

/// The model servers that Pomarium knows.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum EngineType {
    /// llama.cpp's llama-server.
    LlamaCpp,
    /// vllm-metal.
    VllmMetal,
    /// vllm-mlx.
    VllmMlx,
    /// vLLM.
    Vllm,
    /// SGLang.
    SGLang,
}

/// At least `percentile` percent of requests stay within `threshold`, in every `window`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Objective {
    /// What is measured.
    pub metric: ObjectiveMetric,
    /// In percent. Example: 95.
    pub percentile: i32,
    /// Example: `10s`.
    pub threshold: Duration,
    /// Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
}

/// What is measured.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ObjectiveMetric {
    /// From arrival to the first token.
    TimeToFirstToken,
    /// Mean time between the tokens of a request.
    InterTokenLatency,
}

/// A hard ceiling on spending.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// As a decimal. Example: `"4000"`.
    pub amount: String,
    /// ISO 4217 code. One currency per hub. Default: USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Calendar period in UTC. Default: Month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<BudgetPeriod>,
}

/// A calendar period in UTC.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum BudgetPeriod {
    /// Midnight to midnight.
    Day,
    /// Monday to Sunday.
    Week,
    /// A calendar month.
    #[default]
    Month,
}

/// Where arrivals, TTFT and ITL are measured.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Default: Engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<MetricsSource>,
}

/// Where metrics come from.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum MetricsSource {
    /// The gateway's endpoint picker, at the address that the operator is started with.
    Gateway,
    /// Every replica's own `/metrics`.
    #[default]
    Engine,
    /// The Prometheus that the operator is started with.
    Prometheus,
}

/// A known event that changes the demand.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Example: `launch-jp`.
    pub name: String,
    /// RFC 3339. Example: `"2027-03-01T00:00:00Z"`.
    pub start: String,
    /// RFC 3339. Default: it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Demand is multiplied by this, as a decimal. Example: `"1.6"`.
    pub demand_factor: String,
}

/// Where a pool may run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// What is filled first. Default: OwnedFirst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<PlacementOrder>,
    /// A site must serve at least one of these jurisdictions. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residency: Vec<String>,
    /// Least trust. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_trust: Option<Trust>,
    /// Labels that a ServerGroup must carry. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_selector: Option<Selector>,
    /// Objectives hold with any one of these gone. Default: Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survive_loss_of: Option<Survive>,
}

/// What is filled first.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum PlacementOrder {
    /// Owned, then managed, then hosted; contracting in reverse.
    #[default]
    OwnedFirst,
    /// By marginal cost.
    Cheapest,
}

/// What may be lost.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum Survive {
    /// Nothing.
    None,
    /// Any one server.
    #[default]
    Server,
    /// Any one site.
    Site,
}

/// Fewest and most replicas.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// Kept even without demand. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i32>,
    /// Never exceeded.
    pub max: i32,
}

/// How replicas are drained.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DrainSpec {
    /// Default: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What happens to requests that still run at the deadline. Default: Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// How requests meet servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// Default: Weighted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discipline: Option<Discipline>,
    /// An HTTPRoute for Pomarium to own. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
}

/// How requests meet servers.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum Discipline {
    /// An endpoint picker over all servers.
    LeastWork,
    /// Random by weight, as a plain HTTPRoute does.
    #[default]
    Weighted,
}

/// An HTTPRoute for Pomarium to own, in the pool's namespace in the hub.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// The Gateway to attach to.
    pub gateway_ref: GatewayRef,
    /// Host names. Example: `[chat.example.com]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
}

/// A Gateway.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// Its name.
    pub name: String,
    /// Its namespace. Default: the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Measured figures for one kind of machine. Absent ones come from the catalogue.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Performance {
    /// Which machines.
    pub machine: PerformanceMachine,
    /// Fixed part of an iteration in ms, as a decimal. Example: `"10.2"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha_ms: Option<String>,
    /// Part per decoding sequence in ms. Example: `"2.5"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta_ms: Option<String>,
    /// Part per prompt token in ms. Example: `"1.0"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_ms: Option<String>,
    /// Tokens that fit the KV cache. Example: 400000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_tokens: Option<i64>,
    /// Most sequences at once. Example: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_batch: Option<i32>,
    /// Most prompt tokens in one iteration. Example: 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_chunk: Option<i32>,
    /// From the start of the Pod to its readiness. Example: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_time: Option<Duration>,
}

/// Which machines a measurement is for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerformanceMachine {
    /// Example: `M2 Ultra`.
    pub chip: String,
    /// Example: 76.
    pub gpu_cores: i32,
    /// Default: any.
    #[serde(default, rename = "memoryGiB", skip_serializing_if = "Option::is_none")]
    pub memory_gib: Option<i32>,
}

/// Observed state of a pool. Bounded: it never grows with the number of servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerPoolStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, SLOMet, WithinBudget, CapacityAvailable, MetricsAvailable, RoutingReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Replicas, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaCounts>,
    /// What the last measurement and the model say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// The last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
    /// Cost per hour, with currency. Example: `11.82 USD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<String>,
    /// Requests that were cut at a drain's deadline since the pool exists. Only ever grows; stays 0 with `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_cut: Option<i64>,
    /// The one-line reason of the Ready condition, for printing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// What Pomarium remembers between passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<PoolMemory>,
}

/// Replicas of a pool, counted.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaCounts {
    /// Wanted.
    pub target: i32,
    /// Pods that exist.
    pub current: i32,
    /// Taking requests.
    pub serving: i32,
    /// Being drained.
    pub draining: i32,
    /// `serving/target`, for printing. Example: `5/6`.
    pub text: String,
}

/// What the last measurement and the model say, rounded.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Requests per second, as a decimal. Example: `"5.3"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<String>,
    /// Requests per second that the serving replicas sustain, by the model. Example: `"6.1"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustainable: Option<String>,
    /// In the order of `spec.objectives`. Example: `p95 TTFT 3.1s ≤ 10s`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objectives: Vec<String>,
}

/// The last decision.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDecision {
    /// When, RFC 3339 with milliseconds.
    pub at: String,
    /// Its reason.
    pub reason: String,
    /// With figures.
    pub message: String,
    /// What was rejected, best first, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedAlternative>,
}

/// Something that was not done, and why not.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedAlternative {
    /// What, such as a group's name.
    pub alternative: String,
    /// Why not.
    pub reason: String,
    /// Why not, with figures.
    pub message: String,
    /// What it would have cost per hour, with currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<String>,
}

/// What Pomarium remembers of a pool between passes. Times are RFC 3339 with milliseconds.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolMemory {
    /// When replicas were last added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_added: Option<String>,
    /// When a replica was last taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_removed: Option<String>,
    /// Since when fewer would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surplus_since: Option<String>,
    /// Since when an objective is missed by measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_objective_since: Option<String>,
    /// The last replica count decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<i32>,
}
