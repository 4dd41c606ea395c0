//! What a pass wants done, with the reason for each thing, and what it says about every object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lifecycle::DrainStep;
use crate::names::{GroupName, PoolId, ReplicaId, Revision, ServerName, SiteName};
use crate::reason::{Problem, Reason};
use crate::snapshot::{GroupMemory, PoolMemory};
use crate::time::Timestamp;
use crate::units::{Fraction, Money, Rate};

/// The result of one pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What to do, in the order in which to do it.
    pub decisions: Vec<Decision>,
    /// What to say about each pool.
    pub pools: BTreeMap<PoolId, PoolOutlook>,
    /// What to say about each group.
    pub groups: BTreeMap<GroupName, GroupOutlook>,
    /// What to say about each site.
    pub sites: BTreeMap<SiteName, SiteOutlook>,
    /// When to look again at the latest, if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

/// One thing to do, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Why, with figures, in one sentence for people.
    pub message: String,
    /// Whether it is done, or only shown.
    pub verdict: Verdict,
    /// Alternatives that were rejected, best first; at most [`Decision::MAX_REJECTED`].
    pub rejected: Vec<Rejected>,
}

impl Decision {
    /// Most rejected alternatives that a decision carries.
    pub const MAX_REJECTED: usize = 8;
}

/// Whether a decision is carried out. Everything is decided first and gated then, so that people see what they are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// Yes.
    #[default]
    Act,
    /// No: the mode is `Approve` or `Advise`, and people decide.
    Propose,
}

/// Something that was not done, and why not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// What, such as a group's name.
    pub alternative: String,
    /// Why not.
    pub reason: Reason,
    /// Why not, with figures.
    pub message: String,
    /// What it would have cost per hour, if that is known.
    pub hourly: Option<Money>,
    /// What the same would have cost there from the purchase to its end, if it is planned for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
}

/// An effect on the world, as a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// Ask the provider for a server. Asking again for the same name changes nothing.
    RequestServer {
        /// Of this group.
        group: GroupName,
        /// Under this name.
        server: ServerName,
    },
    /// Mark a server as draining: its Node gets Pomarium's taint, so that nothing new lands there.
    DrainServer {
        /// Of this group.
        group: GroupName,
        /// This one.
        server: ServerName,
    },
    /// Take the mark off again.
    UndrainServer {
        /// Of this group.
        group: GroupName,
        /// This one.
        server: ServerName,
    },
    /// Give a server back to its provider. Nothing runs on it.
    ReleaseServer {
        /// Of this group.
        group: GroupName,
        /// This one.
        server: ServerName,
    },
    /// Start a replica: create its Pod, pinned to the server.
    StartReplica {
        /// Of this pool.
        pool: PoolId,
        /// On this group's …
        group: GroupName,
        /// … server.
        server: ServerName,
        /// Running this.
        revision: Revision,
    },
    /// Let routers send requests to a replica: add the label `pomarium.dev/serving`, and end any drain.
    OpenReplica {
        /// Of this pool.
        pool: PoolId,
        /// This one.
        replica: ReplicaId,
    },
    /// Move a replica's drain to `step`; [`DrainStep::Fence`] begins it by removing the label.
    DrainReplica {
        /// Of this pool.
        pool: PoolId,
        /// This one.
        replica: ReplicaId,
        /// The step that begins.
        step: DrainStep,
        /// The deadline; never later than one already recorded.
        deadline: Timestamp,
    },
    /// Delete a replica's Pod. It is quiet, or its deadline says `Cut`, or its process has ended.
    RemoveReplica {
        /// Of this pool.
        pool: PoolId,
        /// This one.
        replica: ReplicaId,
        /// With this uid only.
        uid: String,
        /// Requests that are cut by this; zero unless the deadline says `Cut`.
        cut: u32,
    },
}

/// A condition, but for the time of its last transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: Truth,
    /// Why.
    pub reason: Reason,
    /// Why, with figures, for people.
    pub message: String,
}

/// The conditions that Pomarium sets. `Reconciling` and `Stalled` are present only while true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionKind {
    /// The object is as its spec wants it.
    Ready,
    /// Work towards that is under way.
    Reconciling,
    /// It cannot be reached without help.
    Stalled,
    /// Every objective holds by measurement.
    SLOMet,
    /// Spending is within the budget.
    WithinBudget,
    /// There is enough capacity for the demand.
    CapacityAvailable,
    /// Metrics are read and recent.
    MetricsAvailable,
    /// Routes follow the plan.
    RoutingReady,
}

/// True, false, or not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Truth {
    /// Yes.
    True,
    /// No.
    False,
    /// Nobody can tell.
    Unknown,
}

/// What to say about a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolOutlook {
    /// Replicas wanted.
    pub target: u32,
    /// Pods that exist and are not ended.
    pub current: u32,
    /// Replicas that take requests and answer.
    pub serving: u32,
    /// Replicas being drained.
    pub draining: u32,
    /// Replicas wanted, by group.
    pub by_group: BTreeMap<GroupName, u32>,
    /// Measured demand, if known.
    pub demand: Option<Rate>,
    /// What the serving replicas sustain, by the model; `None` if the model cannot tell.
    pub sustainable: Option<Rate>,
    /// Demand over sustainable rate, if both are known.
    pub utilization: Option<Fraction>,
    /// Cost per hour of the servers it runs on: leases and energy.
    pub hourly: Money,
    /// Why something stays that has to go, or that nobody needs.
    pub held: Option<Problem>,
    /// In a fixed order.
    pub conditions: Vec<Condition>,
    /// To be remembered for the next pass.
    pub memory: PoolMemory,
}

/// What to say about a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupOutlook {
    /// Servers wanted.
    pub target: u32,
    /// Servers by state, as printed in the status. Zero counts are left out.
    pub by_state: BTreeMap<String, u32>,
    /// Servers whose Node is Ready and not draining.
    pub ready: u32,
    /// Servers that run a replica.
    pub used: u32,
    /// Paid leases.
    pub leases: u32,
    /// When the next paid term ends.
    pub next_lease_end: Option<Timestamp>,
    /// Cost per hour: leases and energy.
    pub hourly: Money,
    /// In a fixed order.
    pub conditions: Vec<Condition>,
    /// To be remembered for the next pass.
    pub memory: GroupMemory,
}

/// What to say about a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteOutlook {
    /// Servers whose Node is Ready, of all groups.
    pub ready: u32,
    /// Cost per hour.
    pub hourly: Money,
    /// In a fixed order.
    pub conditions: Vec<Condition>,
}
