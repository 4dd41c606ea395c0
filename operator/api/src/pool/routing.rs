//! How requests meet servers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// How requests meet servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// What stands between users and servers, which decides how much they carry together. `LeastWork`: an endpoint picker sends
    /// each request to the server with the least outstanding work. `Weighted`: at random by weight, as a plain HTTPRoute does.
    /// Default: Weighted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Discipline>")]
    pub discipline: Option<Discipline>,
    /// An HTTPRoute for Pomarium to own, in the pool's namespace in the hub. Default: none.
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
    /// Host names; at most 16. Example: `[chat.example.com]`. Default: all of the Gateway's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::hostnames")]
    pub hostnames: Vec<String>,
}

/// A Gateway.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// Its name. Example: `public`.
    #[schemars(schema_with = "schema::dns_subdomain")]
    pub name: String,
    /// Its namespace. Example: `gateways`. Default: the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::dns_label")]
    pub namespace: Option<String>,
}
