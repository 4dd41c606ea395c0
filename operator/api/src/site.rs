//! `ServerSite`: one member cluster at one place, with an owner.

mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

pub use status::ServerSiteStatus;

/// Who owns the machines, how to reach them, and what may run there.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pomarium.dev",
    version = "v1alpha1",
    kind = "ServerSite",
    status = "ServerSiteStatus",
    derive = "PartialEq",
    shortname = "ssite",
    category = "pomarium",
    doc = "One member cluster at one place, with an owner.",
    selectable = ".spec.ownership",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether the site is as its spec wants it."),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.ownership", description = "Owned, Managed or Hosted."),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.serversReady", description = "Servers whose Node is Ready."),
    printcolumn(name = "Cost/h", type_ = "string", json_path = ".status.costPerHour", description = "Leases and energy."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.summary", description = "Why it is as it is."),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region", priority = "1"),
    printcolumn(name = "Trust", type_ = "string", json_path = ".spec.trust", priority = "1"),
    printcolumn(name = "Kubernetes", type_ = "string", json_path = ".status.kubernetesVersion", priority = "1"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name must be at most 40 characters long")
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSiteSpec {
    /// Who owns the machines and the building. `Owned`: own machines, own building. `Managed`: own machines in a partner's
    /// building. `Hosted`: leased machines. Pools with `placement.order: OwnedFirst` fill them in this order. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("ownership is immutable: create a new ServerSite instead"))]
    pub ownership: Ownership,
    /// Region, for people and labels; decides nothing. Example: `us-west`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,
    /// Jurisdictions whose data may be processed here, as ISO 3166 codes; at most 32. A pool that asks for residency only
    /// runs at sites that name one of its jurisdictions. Example: `[US, US-CA]`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::jurisdictions")]
    pub residency: Vec<String>,
    /// The most that this site can prove about its machines. `None`: nothing. `Verified`: the owner checks them by other means.
    /// `Attested`: signed evidence on every Node. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Trust>")]
    pub trust: Option<Trust>,
    /// What the licence of its machines permits: `Production` (anything, users' requests included) or `DevelopmentOnly`
    /// (building and testing). Leased macOS machines need an explicit `Production`.
    /// Default: `Production` for `Owned` and `Managed`, `DevelopmentOnly` for `Hosted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<PermittedUse>")]
    pub permitted_use: Option<PermittedUse>,
    /// How to reach the cluster: exactly one of `local` and `kubeconfigSecretRef`.
    pub connection: Connection,
    /// How the hub reaches engine metrics there. `Direct`: Pod IPs are reachable from the hub. `PodProxy`: through the member
    /// API server's pod proxy. `Prometheus`: from the Prometheus that the operator is started with; not supported yet, and the condition
    /// `MetricsAvailable` says so. Default: Direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<MetricsAccess>")]
    pub metrics_access: Option<MetricsAccess>,
    /// What electricity costs, and how much there is. Default: free and without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// What people want of the site. `Active`: work. `Cordoned`: what runs may stay, nothing new comes. `Draining`: what runs
    /// is drained. Default: Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Maintenance>")]
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
#[x_kube(validation = Rule::new("has(self.local) != has(self.kubeconfigSecretRef)")
    .message("connection must have exactly one of local and kubeconfigSecretRef"))]
#[x_kube(validation = Rule::new("has(self.local) == has(oldSelf.local)")
    .message("connection cannot change between local and kubeconfigSecretRef: that is another cluster; create a new ServerSite instead"))]
pub struct Connection {
    /// The hub itself is the member cluster. Write it as `local: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
    /// A kubeconfig in a Secret of the operator's own namespace. It must name an `https` server, its certificate authority
    /// inline, and a token or a client certificate inline. Everything that runs programs, reads files or weakens TLS is refused.
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
    /// Name of the Secret. Example: `oregon-kubeconfig`.
    #[schemars(schema_with = "schema::dns_subdomain")]
    pub name: String,
    /// Key in the Secret. Default: `kubeconfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
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
    /// From the hub's Prometheus. Not supported yet.
    Prometheus,
}

/// What electricity costs, and how much there is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Energy {
    /// Price of one kWh at the meter, as a decimal in `currency`. Example: `"0.12"`. Default: `"0"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::money")]
    pub price_per_kwh: Option<String>,
    /// ISO 4217 code; one currency per hub. Example: `EUR`. Default: USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::currency")]
    pub currency: Option<String>,
    /// The most that all machines of the site may draw together, in watts at the machines. Example: 12000. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub power_limit_watts: Option<i64>,
    /// Power usage effectiveness: watts at the meter per watt at the machines, as a decimal from 1 to 10.
    /// Example: `"1.2"`. Default: `"1"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pue")]
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
