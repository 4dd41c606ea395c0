//! `ServerGroup`: a scalable set of identical machines at one site.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Machine, Mode, ObjectRef, Selector};
use crate::duration::Duration;

/// Desired state of a group.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pomarium.dev",
    version = "v1alpha1",
    kind = "ServerGroup",
    status = "ServerGroupStatus",
    derive = "PartialEq",
    shortname = "sgroup",
    category = "pomarium",
    doc = "A scalable set of identical machines at one site."
)]
#[serde(rename_all = "camelCase")]
pub struct ServerGroupSpec {
    /// The site. Immutable.
    pub site_ref: ObjectRef,
    /// What the machines are. Immutable.
    pub machine: Machine,
    /// Which Nodes belong to the group. Default: those with the label `pomarium.dev/group: <name of this group>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// Fewest and most servers.
    pub size: Size,
    /// Ordered machines that raise `size.max` later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<Delivery>,
    /// Who brings servers up and takes them down.
    pub provider: Provider,
    /// Watts that replace the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// What a server costs. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pricing: Option<Pricing>,
    /// How long servers take. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead_time: Option<LeadTime>,
    /// How many servers may be taken out at once by choice, and when. Default: 1, always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    /// For anything that spends money. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// Fewest and most servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Size {
    /// Kept even without demand. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i32>,
    /// Never exceeded.
    pub max: i32,
}

/// Ordered machines.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// From this day on, UTC. Example: `"2027-02-01"`.
    pub date: String,
    /// How many.
    pub servers: i32,
}

/// Who brings servers up: exactly one of these.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    /// Nodes that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#static: Option<StaticProvider>,
    /// The scale subresource of some object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleProvider>,
    /// The emulated fleet that the operator is started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated: Option<SimulatedProvider>,
}

/// Nodes that exist.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticProvider {
    /// Whether servers can be switched off. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    /// Such as `cluster.x-k8s.io/v1beta2`.
    pub api_version: String,
    /// Such as `MachineDeployment`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it lives. Default: Site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// Watts of one machine at the wall.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Power {
    /// On, without work. Example: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_watts: Option<i32>,
    /// Under full load. Example: 295.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_watts: Option<i32>,
}

/// What a server costs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pricing {
    /// Price of one hour, as a decimal. Example: `"1.97"`.
    pub hourly: String,
    /// ISO 4217 code. One currency per hub. Default: USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Paid in any case. Example: `24h`. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_lease: Option<Duration>,
}

/// How long servers take.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LeadTime {
    /// From the decision to a Ready Node. Example: `15m`. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision: Option<Duration>,
    /// From release until the machine can be leased again. Example: `110m`. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recycle: Option<Duration>,
}

/// How many servers may be taken out at once by choice.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Most servers draining by choice at the same time. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<i32>,
    /// When it is allowed. Default: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<DisruptionWindow>,
}

/// A recurring window of time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionWindow {
    /// When it opens: five fields of cron. Example: `0 9 * * 1-5`.
    pub schedule: String,
    /// IANA time zone. Example: `America/Los_Angeles`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How long it stays open. Example: `8h`.
    pub duration: Duration,
}

/// Observed state of a group. Bounded: it never grows with the number of servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerGroupStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, CapacityAvailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Servers, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<ServerCounts>,
    /// Paid leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<i32>,
    /// When the next paid term ends, RFC 3339 with milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_lease_end: Option<String>,
    /// Cost per hour, with currency. Example: `11.82 USD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<String>,
    /// The one-line reason of the Ready condition, for printing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    pub target: i32,
    /// Node Ready and not draining.
    pub ready: i32,
    /// Running a replica.
    pub used: i32,
    /// By state, such as `Booting: 2`. At most one entry per state.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub by_state: std::collections::BTreeMap<String, i32>,
}

/// What Pomarium remembers of a group between passes. Times are RFC 3339 with milliseconds.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupMemory {
    /// When a server was last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_requested_at: Option<String>,
    /// When a server was last given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_released_at: Option<String>,
    /// When the provider last refused for want of machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_stock_since: Option<String>,
}
