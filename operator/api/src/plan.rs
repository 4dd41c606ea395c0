//! `ServerPlan`: what Pomarium is about to do, why, what it costs and what it rejected.

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
    /// Why, as one word of a closed list. Example: `DemandGrew`.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Why, with figures.
    #[schemars(length(max = limits::MESSAGE))]
    pub message: String,
    /// What was rejected, best first, at most 8. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::REJECTED), extend("x-kubernetes-list-type" = "atomic"))]
    pub rejected: Vec<RejectedAlternative>,
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
