//! What Pomarium says about a pool. Bounded: it never grows with the number of servers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{limits, schema};

/// Observed state of a pool. Written by Pomarium.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerPoolStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready`, `SLOMet`, `WithinBudget`, `CapacityAvailable`, `MetricsAvailable`, `RoutingReady`; `Reconciling` and `Stalled` while
    /// they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
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
    /// Leases and energy of its servers per hour, with currency. Example: `11.82 USD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cost_per_hour: Option<String>,
    /// What was spent of the budget in its current period. Default: there is no budget, or nothing was counted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetStatus>,
    /// Requests that were cut at a drain's deadline since the pool exists. Only ever grows; stays 0 with `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub requests_cut: Option<i64>,
    /// The one-line reason of the Ready condition, for printing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::SUMMARY))]
    pub summary: Option<String>,
    /// What Pomarium remembers between passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<PoolMemory>,
}

/// What was spent of a budget.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetStatus {
    /// When the period began, in UTC.
    #[schemars(schema_with = "schema::time")]
    pub period: String,
    /// Spent since then, with currency; what leases are owed for their minimum is spent when they are bought. Example: `412.50 USD`.
    #[schemars(length(max = 32))]
    pub spent: String,
    /// The most that may be spent in the period, with currency. Example: `4000.00 USD`.
    #[schemars(length(max = 32))]
    pub limit: String,
    /// `spent/limit`, for printing. Example: `412.50/4000.00 USD`.
    #[schemars(length(max = 64))]
    pub text: String,
}

/// Replicas of a pool, counted.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaCounts {
    /// Wanted.
    #[schemars(range(min = 0))]
    pub target: i32,
    /// Pods that exist.
    #[schemars(range(min = 0))]
    pub current: i32,
    /// Taking requests.
    #[schemars(range(min = 0))]
    pub serving: i32,
    /// Being drained.
    #[schemars(range(min = 0))]
    pub draining: i32,
    /// `serving/target`, for printing. Example: `5/6`.
    #[schemars(length(max = 32))]
    pub text: String,
}

/// What the last measurement and the model say, rounded.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Requests per second, as a decimal. Example: `"5.3"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub demand: Option<String>,
    /// Requests per second that the serving replicas sustain, by the model. Example: `"6.1"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub sustainable: Option<String>,
    /// In the order of `spec.objectives`. Example: `p95 TTFT 3.1s ≤ 10s`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub objectives: Vec<String>,
}

/// The last decision.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDecision {
    /// When, RFC 3339 with milliseconds.
    #[schemars(schema_with = "schema::time")]
    pub at: String,
    /// Why, as one word of a closed list. Example: `DemandGrew`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, with figures.
    #[schemars(length(max = limits::MESSAGE))]
    pub message: String,
    /// What was rejected, best first, at most 8. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::REJECTED), extend("x-kubernetes-list-type" = "atomic"))]
    pub rejected: Vec<RejectedAlternative>,
}

/// Something that was not done, and why not.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedAlternative {
    /// What, such as a group's name. Example: `oregon-m4-max`.
    #[schemars(length(max = 256))]
    pub alternative: String,
    /// Why not, as one word of a closed list. Example: `CapacityExhausted`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why not, with figures.
    #[schemars(length(max = limits::MESSAGE))]
    pub message: String,
    /// What it would have cost per hour, with currency. Example: `3.94 USD`. Default: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cost_per_hour: Option<String>,
    /// What the same would have cost there from the purchase to its end, minimum leases in full, with currency. Example: `94.56 USD`.
    /// Default: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cost: Option<String>,
}

/// What Pomarium remembers of a pool between passes. Times are RFC 3339 with milliseconds.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolMemory {
    /// When replicas were last added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_added: Option<String>,
    /// When a replica was last taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_removed: Option<String>,
    /// Since when fewer would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub surplus_since: Option<String>,
    /// Since when an objective is missed by measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub missing_objective_since: Option<String>,
    /// How many replicas there were when that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub missing_objective_from: Option<i32>,
    /// Since when servers that would have to be paid for are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub short_since: Option<String>,
    /// Since when something that has to go is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub held_since: Option<String>,
    /// The last replica count decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub target: Option<i32>,
    /// What was spent in the current period of the budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
    /// The last lengths of requests that were measured, as equally likely classes of prompt/output tokens. Example: `[412/141]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::LENGTHS), inner(length(max = 24)), extend("x-kubernetes-list-type" = "atomic"))]
    pub lengths: Vec<String>,
}

/// What a pool has spent in one period of its budget.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// When the period began, in UTC.
    #[schemars(schema_with = "schema::time")]
    pub period: String,
    /// Leases and energy of its servers since then, in the budget's currency; a lease's minimum is spent when it is bought. Example: `"412.50"`.
    #[schemars(length(max = 32))]
    pub amount: String,
    /// Up to when it is counted.
    #[schemars(schema_with = "schema::time")]
    pub until: String,
}
