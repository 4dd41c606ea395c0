//! Everything that one pass has seen, in kernel types.
//!
//! Observed by the controller, or made up by a simulator: the planner cannot tell. A snapshot is complete and owned; it
//! serialises, so that any decision can be planned again later. What could not be read is *unknown*, never empty, zero
//! or idle: every such place has a type that says so.

mod group;
mod measurement;
mod pool;
mod replica;
mod shared;
mod site;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{GroupName, PoolId, SiteName};
use crate::strategy::ahead::Ahead;

pub use group::{
    Approved, Delivery, Disruption, Group, GroupMemory, Inventory, LeadTime, Lease, MachineKey, Mode, Power, Pricing,
    ProviderTraits, Server, SizeRange,
};
pub use measurement::{Arrivals, Demand, EnginesMeasured, LengthMix, Measured};
pub use pool::{
    Budget, Discipline, DrainPolicy, MeasuredPerformance, Metric, Model, Objective, OnDeadline, Period, Placement,
    PlacementOrder, Pool, PoolMemory, ReplicaRange, Spent, Survive,
};
pub use replica::{Load, Replica};
pub use site::{Contact, Energy, Maintenance, Ownership, Site, Trust, Use};

/// All sites, groups and pools as one pass has seen them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Member clusters.
    pub sites: BTreeMap<SiteName, Site>,
    /// Sets of identical machines.
    pub groups: BTreeMap<GroupName, Group>,
    /// Models served under objectives.
    pub pools: BTreeMap<PoolId, Pool>,
    /// The last strategic plan, if there is one. Shared: it is long, and most passes only hand it on.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "shared::option")]
    pub ahead: Option<Arc<Ahead>>,
}
