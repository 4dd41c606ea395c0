//! Figures that somebody measured.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::schema;

/// Measured figures for one kind of machine. Absent ones come from the catalogue.
///
/// One iteration of the engine takes `alphaMs + betaMs · decoding sequences + deltaMs · prompt tokens`, in ms.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Performance {
    /// Which machines the figures are for.
    pub machine: PerformanceMachine,
    /// Fixed part of an iteration in ms, as a decimal. With `betaMs` it is the time between tokens of a request that is alone.
    /// Example: `"10.2"`. Default: the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::decimal")]
    pub alpha_ms: Option<String>,
    /// Part per decoding sequence in ms, as a decimal. Example: `"2.5"`. Default: the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::decimal")]
    pub beta_ms: Option<String>,
    /// Part per prompt token that is read in it in ms, as a decimal. Example: `"1.0"`. Default: the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::decimal")]
    pub delta_ms: Option<String>,
    /// Tokens that fit the KV cache. Example: 400000. Default: what the catalogue's memory leaves beside the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub kv_tokens: Option<i64>,
    /// Most sequences at once, 1 to 1024. Example: 16. Default: the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_batch: Option<i32>,
    /// Most prompt tokens in one iteration, 1 to 1000000. Example: 256. Default: the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub prefill_chunk: Option<i32>,
    /// From the start of the Pod to its readiness. Example: `30s`. Default: the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub load_time: Option<Duration>,
}

/// Which machines a measurement is for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PerformanceMachine {
    /// Name of the chip. Example: `M2 Ultra`.
    #[schemars(length(min = 1, max = 64))]
    pub chip: String,
    /// Number of GPU cores. Example: 76.
    #[schemars(range(min = 1, max = 1024))]
    pub gpu_cores: i32,
    /// Unified memory, in GiB. Example: 192. Default: any.
    #[serde(default, rename = "memoryGiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub memory_gib: Option<i32>,
}
