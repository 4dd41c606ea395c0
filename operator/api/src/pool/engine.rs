//! The model and the model server: what a change of replaces every replica.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// The model.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.activeParametersBillions) || double(self.activeParametersBillions) <= double(self.parametersBillions)")
    .message("model.activeParametersBillions must be at most model.parametersBillions").field_path(".activeParametersBillions"))]
pub struct Model {
    /// As the engine names it, in its API and its metrics. Example: `llama-3.1-8b-instruct`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// How the weights are quantised. Example: `Q4_K_M`.
    #[schemars(length(min = 1, max = 63))]
    pub quantization: String,
    /// Total parameters in billions, as a decimal. Example: `"8.0"`.
    #[schemars(schema_with = "schema::positive_decimal")]
    pub parameters_billions: String,
    /// Parameters touched per token in billions, as a decimal, for mixtures of experts. Example: `"3.3"`. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::positive_decimal")]
    pub active_parameters_billions: Option<String>,
    /// Size of the weights in memory in GiB, as a decimal. Example: `"4.9"`.
    #[serde(rename = "weightsGiB")]
    #[schemars(schema_with = "schema::positive_decimal")]
    pub weights_gib: String,
    /// Longest context (prompt and answer) of one request, in tokens. Example: 16384.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub context_tokens: i32,
    /// KV cache per token of context, in bytes. Example: 131072.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub kv_bytes_per_token: i64,
}

/// The model server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// Which model server it is: decides which metrics are read and how a drain sees that it is quiet.
    #[schemars(schema_with = "schema::choice::<EngineType>")]
    pub r#type: EngineType,
    /// Container image. Example: `registry.example.com/ggml-org/llama.cpp:server-b7000`.
    #[schemars(schema_with = "schema::image")]
    pub image: String,
    /// Arguments of the container; at most 64. Example: `[--parallel, "16"]`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub args: Vec<String>,
    /// Port of its HTTP API, 1 to 65535. Example: 8000. Default: 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
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
    /// `SGLang`.
    SGLang,
}
