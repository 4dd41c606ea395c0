//! What Pomarium says about a group. Bounded: it never grows with the number of servers.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{limits, schema};

/// Observed state of a group. Written by Pomarium.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerGroupStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready`, `CapacityAvailable`; `Reconciling` and `Stalled` while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Servers, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<ServerCounts>,
    /// Paid leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub leases: Option<i32>,
    /// When the next paid term ends, RFC 3339 with milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub next_lease_end: Option<String>,
    /// Leases and energy per hour, with currency. Example: `11.82 USD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cost_per_hour: Option<String>,
    /// The one-line reason of the Ready condition, for printing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::SUMMARY))]
    pub summary: Option<String>,
    /// What Pomarium remembers between passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<GroupMemory>,
}

/// Servers of a group, counted by state.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerCounts {
    /// Wanted.
    #[schemars(range(min = 0))]
    pub target: i32,
    /// Node Ready and not draining.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// Running a replica.
    #[schemars(range(min = 0))]
    pub used: i32,
    /// By state, such as `Booting: 2`. At most one entry per state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub by_state: BTreeMap<String, i32>,
}

/// What Pomarium remembers of a group between passes. Times are RFC 3339 with milliseconds.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupMemory {
    /// When a server was last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_requested_at: Option<String>,
    /// When the provider last refused for want of machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub out_of_stock_since: Option<String>,
}
