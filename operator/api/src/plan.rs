//! `ServerPlan`: what Pomarium is about to do, why, what it costs and what it rejected.
//!
//! For each pool the strategic plan, while it has anything to do; for each group what would be asked for or given back, where people want to
//! be asked first. A plan is approved with the annotation `pomarium.dev/approved: "true"`, and acted on until it expires: that of a group in the
//! operator's namespace, and that of a pool whose mode is `Approve` for groups whose mode is `Auto`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pool::RejectedAlternative;
use crate::{limits, schema};

/// What is proposed. Written by Pomarium, never by people; immutable.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pomarium.dev",
    version = "v1alpha1",
    kind = "ServerPlan",
    namespaced,
    status = "ServerPlanStatus",
    derive = "PartialEq",
    shortname = "splan",
    category = "pomarium",
    doc = "What Pomarium is about to do, why, what it costs and what it rejected.",
    selectable = ".spec.subject.kind",
    selectable = ".spec.subject.name",
    printcolumn(name = "For", type_ = "string", json_path = ".spec.subject.name", description = "The pool or group."),
    printcolumn(name = "Done", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether it has been carried out."),
    printcolumn(name = "Cost/h", type_ = "string", json_path = ".spec.hourlyChange", description = "Change of the cost per hour."),
    printcolumn(name = "First-Action", type_ = "string", json_path = ".spec.actions[0].action", description = "What would be done first."),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt", description = "After this it is void.", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Why", type_ = "string", json_path = ".spec.actions[0].reason", description = "Why it would be done."),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must be at most 63 characters long"),
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: Pomarium writes a new ServerPlan when its plan changes")
)]
#[serde(rename_all = "camelCase")]
pub struct ServerPlanSpec {
    /// What the plan is for: a ServerPool in the plan's own namespace, or a ServerGroup.
    pub subject: Subject,
    /// What would be done, in order; 1 to 64 actions.
    #[schemars(length(min = 1, max = limits::ACTIONS), extend("x-kubernetes-list-type" = "atomic"))]
    pub actions: Vec<PlannedAction>,
    /// Change of the cost per hour, with currency; negative if it saves. Example: `3.94 USD`.
    #[schemars(schema_with = "schema::hourly_change")]
    pub hourly_change: String,
    /// What is expected over the next 36 hours if the plan is followed. Default: not known; plans for a group have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<PlanOutlook>,
    /// After this the plan is void, RFC 3339 with milliseconds. Example: `2027-03-01T09:15:00.000Z`.
    #[schemars(schema_with = "schema::time")]
    pub expires_at: String,
}

/// A pool in the plan's namespace, or a group.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// `ServerPool` or `ServerGroup`.
    #[schemars(schema_with = "schema::choice::<SubjectKind>")]
    pub kind: SubjectKind,
    /// Its name. Example: `chat`.
    #[schemars(schema_with = "schema::own_name")]
    pub name: String,
}

/// What a plan can be for.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum SubjectKind {
    /// A pool.
    ServerPool,
    /// A group.
    ServerGroup,
}

/// One thing that would be done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedAction {
    /// What. Example: `RequestServer`.
    #[schemars(length(min = 1, max = 64))]
    pub action: String,
    /// On what, such as a server's name. Example: `oregon-m4-max-0`.
    #[schemars(length(min = 1, max = 253))]
    pub target: String,
    /// When, RFC 3339 with milliseconds. Default: as soon as it may be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub at: Option<String>,
    /// Why, as one word of a closed list. Example: `DemandGrew`.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Why, with figures.
    #[schemars(length(max = limits::MESSAGE))]
    pub message: String,
    /// What it costs from the purchase to its end, the minimum lease in full, with currency. Example: `47.28 USD`. Default: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cost: Option<String>,
    /// What was rejected, best first, at most 8. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::REJECTED), extend("x-kubernetes-list-type" = "atomic"))]
    pub rejected: Vec<RejectedAlternative>,
}

/// What is expected over the next 36 hours.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanOutlook {
    /// When the plan was made, RFC 3339 with milliseconds.
    #[schemars(schema_with = "schema::time")]
    pub made_at: String,
    /// Leases that are not paid in any case, and energy, of this pool's servers, with currency. Example: `47.28 USD`.
    #[schemars(length(max = 32))]
    pub cost: String,
    /// The same of all pools together, with currency. Example: `94.56 USD`.
    #[schemars(length(max = 32))]
    pub total_cost: String,
    /// No plan for all pools together costs less, with currency. Example: `92.10 USD`.
    #[schemars(length(max = 32))]
    pub bound: String,
    /// What a better plan could save at most, in percent of the total. Example: `2.6`.
    #[schemars(length(max = 16))]
    pub gap_percent: String,
    /// Requests per second that are planned for. Default: not known. Example: `in the next hour 2.1 requests/s (1.5 to 3.0)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub demand: Option<String>,
    /// What is expected of each objective in its current window. Default: nothing is known. Example: `p95 TTFT ≤ 10s: at least 96.2 % of what is still to come`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub attainment: Vec<String>,
    /// What is spent of error budgets on purpose, by window. Default: nothing is known. Example: `38 % of what is left of the window that began 2027-03-01T00:00:00.000Z`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub error_budget: Vec<String>,
    /// What is planned to be spent of the pool's budget, by period. Default: it has none.
    /// Example: `94.56 of 120.00 USD that are left until 2027-03-02T00:00:00.000Z`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub spending: Vec<String>,
    /// What cannot be served, and what that costs: servers, power or money have run out. Default: everything can.
    /// Example: `about 320 requests more than allowed miss an objective in the window that began 2027-03-01T00:00:00.000Z, which costs 0.64 USD`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub shortfall: Vec<String>,
}

/// What became of a plan. Written by Pomarium.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerPlanStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready` (carried out); `Stalled` (expired) while it is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
