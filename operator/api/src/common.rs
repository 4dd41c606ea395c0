//! Types that several kinds share.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Names a cluster-scoped object of ours.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Its name. Example: `cupertino`.
    #[schemars(schema_with = "schema::own_name")]
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
    /// All of these labels must be there; at most 16. Example: `{tier: reserved}`. Default: none, which selects everything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::any_labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// The key into the built-in catalogue of machines. All three matter: bandwidth and speed differ within one chip name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Name of the chip. Example: `M2 Ultra`.
    #[schemars(length(min = 1, max = 64))]
    pub chip: String,
    /// Number of GPU cores. Example: 76.
    #[schemars(range(min = 1, max = 1024))]
    pub gpu_cores: i32,
    /// Unified memory, in GiB. Example: 192.
    #[serde(rename = "memoryGiB")]
    #[schemars(range(min = 1, max = 65536))]
    pub memory_gib: i32,
}
