//! `ServerGroup`: a scalable set of identical machines at one site.

mod provider;
mod status;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::{Machine, Mode, ObjectRef, Selector};
use crate::duration::Duration;
use crate::schema;

pub use provider::{
    PowerControl, Provider, ScaleProvider, ScaleTarget, SimulatedProvider, StaticProvider, TargetCluster,
};
pub use status::{GroupMemory, ServerCounts, ServerGroupStatus};

/// What the machines are, how many there may be, who brings them up, and what they cost.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pomarium.dev",
    version = "v1alpha1",
    kind = "ServerGroup",
    status = "ServerGroupStatus",
    derive = "PartialEq",
    shortname = "sgroup",
    category = "pomarium",
    doc = "A scalable set of identical machines at one site.",
    selectable = ".spec.siteRef.name",
    selectable = ".spec.machine.chip",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether the group is as its spec wants it."),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.siteRef.name", description = "Where the machines are."),
    printcolumn(name = "Up", type_ = "integer", json_path = ".status.servers.ready", description = "Servers whose Node is Ready and not draining."),
    printcolumn(name = "Want", type_ = "integer", json_path = ".status.servers.target", description = "Servers wanted."),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.size.max", description = "Servers there may be."),
    printcolumn(name = "Cost/h", type_ = "string", json_path = ".status.costPerHour", description = "Leases and energy."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.summary", description = "Why it is as it is."),
    printcolumn(name = "Chip", type_ = "string", json_path = ".spec.machine.chip", priority = "1"),
    printcolumn(name = "GiB", type_ = "integer", json_path = ".spec.machine.memoryGiB", priority = "1"),
    printcolumn(name = "Leases", type_ = "integer", json_path = ".status.leases", priority = "1"),
    printcolumn(name = "Lease-End", type_ = "string", json_path = ".status.nextLeaseEnd", priority = "1"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name must be at most 40 characters long")
)]
#[serde(rename_all = "camelCase")]
pub struct ServerGroupSpec {
    /// The ServerSite where the machines are. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("siteRef is immutable: create a new ServerGroup instead"))]
    pub site_ref: ObjectRef,
    /// What the machines are: the key into the built-in catalogue. Machines that it does not know need figures in a pool's
    /// `performance` before they can serve that pool. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("machine is immutable: create a new ServerGroup instead"))]
    pub machine: Machine,
    /// Which Nodes of the site belong to the group. Default: those with the label `pomarium.dev/group: <name of this group>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.matchLabels) && self.matchLabels.size() > 0")
        .message("nodeSelector.matchLabels must have at least one label; without any, every Node of the site would belong to the group"))]
    pub node_selector: Option<Selector>,
    /// Fewest and most servers.
    pub size: Size,
    /// Ordered machines that raise `size.max` from a date on; at most 32, one entry per date.
    /// Example: `[{date: "2027-02-01", servers: 8}]`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["date"]))]
    pub deliveries: Vec<Delivery>,
    /// Who brings servers up and takes them down: exactly one of `static`, `scale` and `simulated`.
    pub provider: Provider,
    /// Watts of one machine that replace the catalogue's. Default: the catalogue's; of what it does not know, the most of the
    /// same chip, else of all machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// What a server costs. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pricing: Option<Pricing>,
    /// How long servers take to come, and to be available again. Default: no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead_time: Option<LeadTime>,
    /// How many servers may be taken out at once by choice, and when. Default: 1, at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    /// How far Pomarium may go by itself in anything that spends money here. `Auto`: it acts. `Approve`: it writes a ServerPlan
    /// and waits for approval. `Advise`: it writes a ServerPlan and never acts. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Mode>")]
    pub mode: Option<Mode>,
}

/// Fewest and most servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.min) || self.min <= self.max").message("size.min must be at most size.max").field_path(".min"))]
pub struct Size {
    /// Servers that are kept even without demand, 0 to 10000. Example: 2. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub min: Option<i32>,
    /// Servers that are never exceeded, 0 to 10000; deliveries raise it. Example: 12.
    #[schemars(range(min = 0, max = 10000))]
    pub max: i32,
}

/// Ordered machines.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// From this day on, 00:00 UTC. Example: `"2027-02-01"`.
    #[schemars(schema_with = "schema::date")]
    pub date: String,
    /// How many machines, 1 to 10000. Example: 8.
    #[schemars(range(min = 1, max = 10000))]
    pub servers: i32,
}

/// Watts of one machine at the wall.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.idleWatts) || !has(self.busyWatts) || self.idleWatts <= self.busyWatts")
    .message("power.idleWatts must be at most power.busyWatts").field_path(".idleWatts"))]
pub struct Power {
    /// Watts while on and without work. Example: 10. Default: the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub idle_watts: Option<i32>,
    /// Watts under full load. Example: 295. Default: the catalogue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub busy_watts: Option<i32>,
}

/// What a server costs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minimumLease) || duration(self.minimumLease) == duration('0s') || double(self.hourly) > 0.0")
    .message("pricing.hourly must be above 0 if pricing.minimumLease is above 0s: a paid term needs a price").field_path(".hourly"))]
pub struct Pricing {
    /// Price of one hour of one server, as a decimal in `currency`. Example: `"1.97"`.
    #[schemars(schema_with = "schema::money")]
    pub hourly: String,
    /// ISO 4217 code; one currency per hub. Example: `EUR`. Default: USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::currency")]
    pub currency: Option<String>,
    /// Paid in any case, from the start of a lease; billed by the second afterwards. Example: `24h`. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub minimum_lease: Option<Duration>,
}

/// How long servers take.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LeadTime {
    /// From the decision to a Ready Node; loading the model comes on top. Example: `15m`. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub provision: Option<Duration>,
    /// From release until the machine can be leased again. Example: `110m`. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub recycle: Option<Duration>,
}

/// How many servers may be taken out at once by choice.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Most servers draining by choice at the same time, 0 to 10000; 0 means never. Example: 2. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub max_unavailable: Option<i32>,
    /// When it is allowed: while any of these windows is open; at most 16. Default: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Vec<DisruptionWindow>,
}

/// A recurring window of time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionWindow {
    /// When it opens: five fields of cron (minute, hour, day of month, month, day of week). Example: `0 9 * * 1-5`.
    #[schemars(schema_with = "schema::cron")]
    pub schedule: String,
    /// IANA time zone of the schedule. Example: `America/Los_Angeles`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time_zone")]
    pub time_zone: Option<String>,
    /// How long it stays open, in real time. Example: `8h`.
    #[schemars(schema_with = "schema::positive_duration")]
    pub duration: Duration,
}
