//! Who brings a group's servers up and takes them down.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Who brings servers up: exactly one of these.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.static) ? 1 : 0) + (has(self.scale) ? 1 : 0) + (has(self.simulated) ? 1 : 0) == 1")
    .message("provider must have exactly one of static, scale and simulated"))]
pub struct Provider {
    /// Nodes that exist: Pomarium uses them and never adds or removes one. Example: `{power: None}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#static: Option<StaticProvider>,
    /// The scale subresource of some object, such as a `MachineDeployment` of Cluster API. It takes a number and no name, so
    /// the group only grows, or goes to zero after all of its servers are drained. Leave `replicas` out of what Git applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleProvider>,
    /// The emulated fleet that the operator is started with, for trying Pomarium without machines. Write it as `simulated: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated: Option<SimulatedProvider>,
}

/// Nodes that exist.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticProvider {
    /// Whether servers can be switched off. `None`: always on, so that their idle watts are sunk. `Managed`: they sleep while
    /// nothing runs on them. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<PowerControl>")]
    pub power: Option<PowerControl>,
}

/// Whether servers can be switched off.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum PowerControl {
    /// Always on: idle watts are sunk.
    #[default]
    None,
    /// Servers may sleep.
    Managed,
}

/// The scale subresource of some object.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleProvider {
    /// The object.
    pub target_ref: ScaleTarget,
}

/// An object with a scale subresource.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTarget {
    /// Its group and version. Example: `cluster.x-k8s.io/v1beta2`.
    #[schemars(schema_with = "schema::api_version")]
    pub api_version: String,
    /// Its kind. Example: `MachineDeployment`.
    #[schemars(schema_with = "schema::kind")]
    pub kind: String,
    /// Its namespace. Example: `machines`.
    #[schemars(schema_with = "schema::dns_label")]
    pub namespace: String,
    /// Its name. Example: `m4-max`.
    #[schemars(schema_with = "schema::dns_subdomain")]
    pub name: String,
    /// Where it lives: in the `Hub`, or in the member cluster of the group's own `Site`. Default: Site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<TargetCluster>")]
    pub cluster: Option<TargetCluster>,
}

/// Where a scale target lives.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum TargetCluster {
    /// In the hub.
    Hub,
    /// In the group's own member cluster.
    #[default]
    Site,
}

/// The emulated fleet.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedProvider {}
