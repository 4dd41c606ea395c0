//! One group: how its machines come and go, what they run, and what they have done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pomarium_api::pool::EngineType;
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::time::Span;
use tokio::sync::Notify;

use super::cluster::Cluster;
use super::machines::{Machines, Supply};
use super::process::Totals;

/// What a machine of a group is, for its Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Example: `M2 Ultra`.
    pub chip: String,
    /// CPU cores.
    pub cpus: u32,
    /// Unified memory in GiB.
    pub memory_gib: u32,
}

/// How a group's machines run one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelProfile {
    /// As the engine names it.
    pub model: String,
    /// Whose metrics it exports. A Pod's annotation `pomarium.dev/engine` goes before.
    pub engine: EngineType,
    /// How fast it runs.
    pub times: StepTimes,
    /// From the start of the process until it takes requests.
    pub load_time: Span,
}

/// A group of identical machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetGroup {
    /// Its name: that of the `ServerGroup`.
    pub name: String,
    /// The cluster that its Nodes register in.
    pub cluster: String,
    /// More labels of its Nodes.
    pub labels: BTreeMap<String, String>,
    /// Annotations of its Nodes.
    pub annotations: BTreeMap<String, String>,
    /// What its machines are.
    pub machine: Machine,
    /// How they come and go.
    pub supply: Supply,
    /// How they run the models of the pools.
    pub models: BTreeMap<PoolId, ModelProfile>,
    /// How they run anything else. `None`: Pods of other pools do not start.
    pub other_models: Option<ModelProfile>,
}

impl FleetGroup {
    /// Machines that run every pool's model alike.
    pub fn new(
        name: impl Into<String>,
        cluster: impl Into<String>,
        machine: Machine,
        supply: Supply,
        model: ModelProfile,
    ) -> Self {
        Self {
            name: name.into(),
            cluster: cluster.into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            machine,
            supply,
            models: BTreeMap::new(),
            other_models: Some(model),
        }
    }
}

/// A group at work.
pub(crate) struct Group {
    pub(crate) config: FleetGroup,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) totals: Arc<Totals>,
    /// The machines changed: look again when something is due.
    pub(crate) changed: Notify,
    machines: Mutex<Machines>,
}

impl Group {
    pub(crate) fn new(config: FleetGroup, cluster: Arc<Cluster>, machines: Machines) -> Self {
        Self {
            config,
            cluster,
            totals: Arc::default(),
            changed: Notify::new(),
            machines: Mutex::new(machines),
        }
    }

    pub(crate) fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
