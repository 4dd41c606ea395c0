//! `ServerPlan`: what Pomarium is about to do, why, what it costs and what it rejected.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pool::RejectedAlternative;

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
    doc = "What Pomarium is about to do, why, what it costs and what it rejected."
)]
#[serde(rename_all = "camelCase")]
pub struct ServerPlanSpec {
    /// What the plan is for.
    pub subject: Subject,
    /// What would be done, in order.
    pub actions: Vec<PlannedAction>,
    /// Change of the cost per hour, with currency; negative if it saves. Example: `3.94 USD`.
    pub hourly_change: String,
    /// After this the plan is void, RFC 3339 with milliseconds.
    pub expires_at: String,
}

/// A pool in the plan's namespace, or a group.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// `ServerPool` or `ServerGroup`.
    pub kind: SubjectKind,
    /// Its name.
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
    /// Such as `RequestServer`.
    pub action: String,
    /// On what, such as a server's name.
    pub target: String,
    /// Why.
    pub reason: String,
    /// Why, with figures.
    pub message: String,
    /// What was rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedAlternative>,
}

/// What became of a plan.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerPlanStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready (carried out), Stalled (expired).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
