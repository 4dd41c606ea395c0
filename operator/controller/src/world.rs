//! What has been seen, as one value per pass.
//!
//! Everything that `build`, `status` and the background tasks need beyond the kernel's snapshot. Plain data: reading it
//! never waits, and a pass sees one consistent copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use pomarium_api::group::ServerGroup;
use pomarium_api::plan::ServerPlan;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use pomarium_kernel::names::{GroupName, PoolId, ServerName, SiteName};
use pomarium_kernel::reason::Problem;
use pomarium_kernel::snapshot::{Contact, Demand, EnginesMeasured, Load, Measured};
use pomarium_kernel::strategy::ahead::Ahead;
use pomarium_kernel::strategy::learning::Counted;
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::Timestamp;

/// All that has been seen, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Uid of the hub's `kube-system` namespace.
    pub hub_uid: String,
    /// The operator's own namespace.
    pub namespace: String,
    /// When this process began to look, in virtual time.
    pub started: Timestamp,
    /// The hub's one currency.
    pub currency: String,
    /// Pools, as they are in the hub.
    pub pools: BTreeMap<PoolId, Arc<ServerPool>>,
    /// Groups, as they are in the hub.
    pub groups: BTreeMap<GroupName, Arc<ServerGroup>>,
    /// Sites, as they are in the hub, with what has been seen in their clusters.
    pub sites: BTreeMap<SiteName, SiteSeen>,
    /// Plans in the hub, written by an operator and perhaps approved by people.
    pub plans: BTreeMap<ObjectKey, Arc<ServerPlan>>,
    /// What providers last said about their groups.
    pub inventories: BTreeMap<GroupName, Arc<ProviderAnswer>>,
    /// What was last measured of pools.
    pub measurements: BTreeMap<PoolId, Arc<Measurement>>,
    /// What is remembered of pools.
    pub pasts: BTreeMap<PoolId, Arc<Past>>,
    /// Pools of whose past something could not be read.
    pub unreadable: BTreeMap<PoolId, Problem>,
    /// The last strategic plan.
    pub ahead: Option<Arc<Ahead>>,
    /// Objects that cannot be used as they are, and why. They are not in the snapshot.
    pub invalid: Invalid,
}

/// Objects that cannot be used as they are, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Invalid {
    /// Pools.
    pub pools: BTreeMap<PoolId, Problem>,
    /// Groups.
    pub groups: BTreeMap<GroupName, Problem>,
    /// Sites.
    pub sites: BTreeMap<SiteName, Problem>,
}

/// A site and what has been seen in its cluster. While contact is lost it is what was seen last.
#[derive(Clone, Debug)]
pub struct SiteSeen {
    /// The object in the hub.
    pub object: Arc<ServerSite>,
    /// Whether the cluster answers.
    pub contact: Contact,
    /// Why there is no connection at all, such as a kubeconfig that is refused.
    pub problem: Option<Problem>,
    /// Version of the cluster.
    pub version: Option<String>,
    /// Its Nodes.
    pub nodes: Arc<BTreeMap<ServerName, Arc<NodeSeen>>>,
    /// Its Pods with the label `pomarium.dev/pool`, by namespace and name.
    pub pods: Arc<BTreeMap<ObjectKey, Arc<PodSeen>>>,
    /// Its namespaces.
    pub namespaces: Arc<BTreeMap<String, Arc<()>>>,
    /// Its `PodDisruptionBudgets` with the label `pomarium.dev/pool`, by namespace and name.
    pub budgets: Arc<BTreeMap<ObjectKey, Arc<()>>>,
}

/// A namespaced object's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSeen {
    /// Its name.
    pub name: ServerName,
    /// Its uid.
    pub uid: String,
    /// Its version, for preconditions.
    pub resource_version: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations under `pomarium.dev/`.
    pub annotations: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<TaintSeen>,
    /// Cordoned.
    pub unschedulable: bool,
    /// What its kubelet, or the node controller in its place, says about it.
    pub ready: Readiness,
    /// Since when it says so, in virtual time.
    pub ready_since: Option<Timestamp>,
    /// When the Node was registered, in virtual time.
    pub created: Timestamp,
    /// It is being deleted.
    pub deleting: bool,
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintSeen {
    /// Its key.
    pub key: String,
    /// Its value; empty if it has none.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// The condition `Ready` of a Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Ready.
    True,
    /// Not ready.
    False,
    /// The kubelet does not report, or never has.
    Unknown,
}

/// What matters of a Pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSeen {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its version, for preconditions.
    pub resource_version: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// The server that it is pinned to, from the annotation `pomarium.dev/server`.
    pub server: Option<ServerName>,
    /// The Node that it was bound to.
    pub node: Option<ServerName>,
    /// The annotation `pomarium.dev/drain`, as it is.
    pub drain: Option<String>,
    /// Its phase: `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// Its condition `Ready` is true.
    pub ready: bool,
    /// When that last changed, in virtual time.
    pub ready_since: Option<Timestamp>,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// The port named `http` of its container `engine`.
    pub port: Option<u16>,
    /// When it was created, in virtual time.
    pub created: Timestamp,
    /// When it was or will be killed, in virtual time, if it is being deleted.
    pub deletion: Option<Timestamp>,
}

impl PodSeen {
    /// Its process has ended by itself.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Its namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.clone(), self.name.clone())
    }
}

/// What a group's provider last said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderAnswer {
    /// All servers that it lists.
    pub servers: BTreeMap<ServerName, ProviderServer>,
    /// When it gave this list, in virtual time. `None` if it never did.
    pub listed_at: Option<Timestamp>,
    /// Why there is no newer list.
    pub problem: Option<Problem>,
    /// When it last refused for want of machines.
    pub out_of_stock_since: Option<Timestamp>,
    /// The size that its target is set to, for providers that have one.
    pub size: Option<u32>,
}

/// One server, as its provider lists it. Times are virtual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderServer {
    /// Where it is in its life.
    pub state: ProviderState,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it was ready for the first time.
    pub ready_at: Option<Timestamp>,
    /// Paid from here, if it is leased.
    pub lease_start: Option<Timestamp>,
    /// Paid at least until here.
    pub minimum_until: Option<Timestamp>,
    /// When it can be had again, if it is being recycled.
    pub available_at: Option<Timestamp>,
}

/// The states that providers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ProviderState {
    /// Being prepared.
    Provisioning,
    /// Starting.
    Booting,
    /// Running.
    Ready,
    /// Given back; still running.
    Releasing,
    /// Being cleaned: not to be had until it is done.
    Recycling,
    /// It will not come.
    Failed,
}

/// What was last measured of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Arrivals.
    pub demand: Demand,
    /// Objectives, in the order of `spec.objectives`.
    pub measured: Vec<Measured>,
    /// What engines say of latencies, by group.
    pub engines: BTreeMap<GroupName, EnginesMeasured>,
    /// Everything that was counted since this process began to measure; `None` if the source does not count.
    pub counted: Option<Counted>,
    /// What engines say they are doing, by uid of the Pod. A Pod that is missing here is `Load::Unknown`.
    pub loads: BTreeMap<String, Load>,
    /// Since when engines that have answered before do not any more, by uid of the Pod.
    pub silent: BTreeMap<String, Timestamp>,
}
