//! Types that several kinds share.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names a cluster-scoped object of ours.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Its name.
    pub name: String,
}

/// How far Pomarium may go by itself in anything that spends money.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum Mode {
    /// It acts.
    #[default]
    Auto,
    /// It writes a ServerPlan and waits for approval.
    Approve,
    /// It writes a ServerPlan and never acts.
    Advise,
}

/// Selects by exact labels.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// All of these labels must be there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// The key into the built-in catalogue of machines.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Chip name. Example: `M2 Ultra`.
    pub chip: String,
    /// GPU cores. Example: 76.
    pub gpu_cores: i32,
    /// Unified memory in GiB. Example: 192.
    #[serde(rename = "memoryGiB")]
    pub memory_gib: i32,
}
