//! `ServerSite`: one member cluster at one place, with an owner.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Desired state of a site.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pomarium.dev",
    version = "v1alpha1",
    kind = "ServerSite",
    status = "ServerSiteStatus",
    derive = "PartialEq",
    shortname = "ssite",
    category = "pomarium",
    doc = "One member cluster at one place, with an owner."
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSiteSpec {
    /// Who owns the machines and the building.
    pub ownership: Ownership,
    /// Region, for people and labels. Example: `us-west`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Jurisdictions whose data may be processed here. Example: `[US]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residency: Vec<String>,
    /// The most that this site can prove. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// What the licence of its machines permits. Default: Production for Owned and Managed, DevelopmentOnly for Hosted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permitted_use: Option<PermittedUse>,
    /// How to reach the cluster.
    pub connection: Connection,
    /// How the hub reaches engine metrics there. Default: Direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_access: Option<MetricsAccess>,
    /// Electricity. Default: free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// What people want of the site. Default: Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
}

/// Who owns a site.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Ownership {
    /// Own machines, own building.
    Owned,
    /// Own machines in a partner's building.
    Managed,
    /// Leased machines.
    Hosted,
}

/// How much can be proven. Pools ask for a minimum.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub enum Trust {
    /// Nothing.
    None,
    /// Checked by other means.
    Verified,
    /// Signed evidence on every Node.
    Attested,
}

/// What a licence permits.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum PermittedUse {
    /// Anything.
    Production,
    /// Building and testing only.
    DevelopmentOnly,
}

/// How to reach a member cluster: exactly one of these.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The hub itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
    /// A kubeconfig in a Secret of the operator's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret_ref: Option<SecretKeyRef>,
}

/// The hub itself.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
pub struct Local {}

/// A key of a Secret in the operator's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key in it. Default: `kubeconfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How the hub reaches engine metrics at a site.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum MetricsAccess {
    /// Pod IPs are reachable from the hub.
    #[default]
    Direct,
    /// Through the member API server's pod proxy.
    PodProxy,
    /// From the hub's Prometheus.
    Prometheus,
}

/// What electricity costs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Energy {
    /// Price of a kWh, as a decimal. Example: `"0.12"`. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_kwh: Option<String>,
    /// ISO 4217 code. One currency per hub. Default: USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The most that all machines of the site may draw together, in watts. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit_watts: Option<i64>,
    /// Power usage effectiveness, as a decimal, at least 1. Example: `"1.2"`. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pue: Option<String>,
}

/// What people want of a site.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum Maintenance {
    /// Work.
    #[default]
    Active,
    /// No new work.
    Cordoned,
    /// Drain what runs.
    Draining,
}

/// Observed state of a site.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerSiteStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Version of the member cluster. Example: `v1.36.4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// Servers whose Node is Ready, of all groups of this site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers_ready: Option<i32>,
    /// Cost per hour, with currency. Example: `11.82 USD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<String>,
    /// The one-line reason of the Ready condition, for printing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}
