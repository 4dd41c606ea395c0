//! What a plan means for API objects and providers, as values.
//!
//! Pure data. `build` makes effects, `apply` carries them out, tests compare them: nothing is done to the world that is
//! not one of these.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use pomarium_api::plan::ServerPlan;
use pomarium_kernel::lifecycle::Drain;
use pomarium_kernel::names::{GroupName, PoolId, ServerName, SiteName};
use pomarium_kernel::reason::Reason;
use pomarium_kernel::time::Timestamp;

use crate::route::Route;
use crate::world::ObjectKey;

/// Which API server or provider an effect goes to. Effects of one lane happen in their order; lanes do not wait for
/// each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The hub's API server.
    Hub,
    /// A member cluster's API server.
    Site(SiteName),
    /// The provider of a group.
    Provider(GroupName),
}

/// A Pod that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its uid: nothing is done to another Pod of the same name.
    pub uid: String,
    /// The pool it belongs to.
    pub pool: PoolId,
}

/// A Node that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRef {
    /// Its name.
    pub name: ServerName,
    /// Its uid: nothing is done to another Node of the same name.
    pub uid: String,
}

/// Why a Pod may be deleted. Checked again right before it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It is fenced and its engine reports no request. The engine is asked once more.
    Quiet,
    /// Its process has ended, or never started.
    NotRunning,
    /// It, or its server, has not answered for so long that the plan gave it up. It is fenced.
    Lost,
    /// The deadline says `Cut`.
    Cut {
        /// Requests that are cut by this.
        requests: u32,
    },
}

/// One of the objects that carry Pomarium's finalizer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A `ServerPool`.
    Pool(PoolId),
    /// A `ServerGroup`.
    Group(GroupName),
    /// A `ServerSite`.
    Site(SiteName),
}

/// Why a server is on its way out, as kept in the annotation `pomarium.dev/server-drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServerDrain {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// One thing done to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put Pomarium's finalizer on an object, before anything outside of the hub is made for it.
    AddFinalizer(Object),
    /// Take it off: nothing of the object is left.
    RemoveFinalizer(Object),
    /// Create a Pod.
    ApplyPod {
        /// Where.
        site: SiteName,
        /// For this pool.
        pool: PoolId,
        /// The whole Pod.
        pod: Box<Pod>,
    },
    /// Say whether routers may send requests, and where a drain stands.
    SetLifecycle {
        /// Where.
        site: SiteName,
        /// To whom.
        pod: PodRef,
        /// Routers may send requests.
        serving: bool,
        /// The drain under way.
        drain: Option<Drain>,
    },
    /// Delete a Pod.
    DeletePod {
        /// Where.
        site: SiteName,
        /// Which.
        pod: PodRef,
        /// Why it may go.
        farewell: Farewell,
    },
    /// Put the draining taint and annotation on a Node.
    MarkServer {
        /// Where.
        site: SiteName,
        /// Which.
        node: NodeRef,
        /// What the annotation says.
        drain: ServerDrain,
    },
    /// Take them off again.
    UnmarkServer {
        /// Where.
        site: SiteName,
        /// Which.
        node: NodeRef,
    },
    /// Create a pool's PodDisruptionBudget.
    ApplyBudget {
        /// Where.
        site: SiteName,
        /// For this pool.
        pool: PoolId,
        /// The whole object.
        budget: Box<PodDisruptionBudget>,
    },
    /// Delete a pool's PodDisruptionBudget.
    DeleteBudget {
        /// Where.
        site: SiteName,
        /// For this pool.
        pool: PoolId,
    },
    /// Ask a provider for a server.
    RequestServer {
        /// Of this group.
        group: GroupName,
        /// Under this name.
        server: ServerName,
        /// The group's size with this server, for providers that only know a size.
        size: u32,
    },
    /// Give a server back to its provider.
    ReleaseServer {
        /// Of this group.
        group: GroupName,
        /// Which.
        server: ServerName,
        /// Where its Node is: it is looked at once more.
        site: SiteName,
    },
    /// Give back all servers of a group whose provider cannot be told which. All are drained.
    EmptyGroup {
        /// Of this group.
        group: GroupName,
        /// Where its Nodes are.
        site: SiteName,
        /// All of them.
        servers: Vec<ServerName>,
    },
    /// Write a pool's HTTPRoute and what it refers to.
    ApplyRoute {
        /// For this pool.
        pool: PoolId,
        /// The objects.
        route: Box<Route>,
    },
    /// Write down what would be done, for people to approve.
    Propose(Box<ServerPlan>),
    /// Delete a plan that has expired, or that another one takes the place of.
    RemovePlan {
        /// Which.
        plan: ObjectKey,
        /// With this uid only.
        uid: String,
    },
}

impl Effect {
    /// Where it goes.
    pub fn lane(&self) -> Lane {
        match self {
            Self::AddFinalizer(_)
            | Self::RemoveFinalizer(_)
            | Self::ApplyRoute { .. }
            | Self::Propose(_)
            | Self::RemovePlan { .. } => Lane::Hub,
            Self::ApplyPod { site, .. }
            | Self::SetLifecycle { site, .. }
            | Self::DeletePod { site, .. }
            | Self::MarkServer { site, .. }
            | Self::UnmarkServer { site, .. }
            | Self::ApplyBudget { site, .. }
            | Self::DeleteBudget { site, .. } => Lane::Site(site.clone()),
            Self::RequestServer { group, .. } | Self::ReleaseServer { group, .. } | Self::EmptyGroup { group, .. } => {
                Lane::Provider(group.clone())
            }
        }
    }

    /// What it is called in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AddFinalizer(_) => "AddFinalizer",
            Self::RemoveFinalizer(_) => "RemoveFinalizer",
            Self::ApplyPod { .. } => "ApplyPod",
            Self::SetLifecycle { .. } => "SetLifecycle",
            Self::DeletePod { .. } => "DeletePod",
            Self::MarkServer { .. } => "MarkServer",
            Self::UnmarkServer { .. } => "UnmarkServer",
            Self::ApplyBudget { .. } => "ApplyBudget",
            Self::DeleteBudget { .. } => "DeleteBudget",
            Self::RequestServer { .. } => "RequestServer",
            Self::ReleaseServer { .. } => "ReleaseServer",
            Self::EmptyGroup { .. } => "EmptyGroup",
            Self::ApplyRoute { .. } => "ApplyRoute",
            Self::Propose(_) => "Propose",
            Self::RemovePlan { .. } => "RemovePlan",
        }
    }

    /// Whether it takes something away that cannot be put back: looked at again before, and bound to a uid.
    pub fn is_destructive(&self) -> bool {
        matches!(
            self,
            Self::DeletePod { .. }
                | Self::DeleteBudget { .. }
                | Self::ReleaseServer { .. }
                | Self::EmptyGroup { .. }
                | Self::RemoveFinalizer(_)
        )
    }

    /// The pool that it is for, if it is for one.
    pub fn pool(&self) -> Option<&PoolId> {
        match self {
            Self::ApplyPod { pool, .. }
            | Self::ApplyBudget { pool, .. }
            | Self::DeleteBudget { pool, .. }
            | Self::ApplyRoute { pool, .. }
            | Self::AddFinalizer(Object::Pool(pool))
            | Self::RemoveFinalizer(Object::Pool(pool)) => Some(pool),
            Self::SetLifecycle { pod, .. } | Self::DeletePod { pod, .. } => Some(&pod.pool),
            _ => None,
        }
    }
}

/// What became of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It had been done before: nothing was written.
    Unchanged,
    /// What it was for does not exist any more.
    Gone,
    /// Something else was faster; the next pass sees it.
    Conflict,
    /// What makes it safe does not hold any more, or cannot be read.
    Refused(String),
    /// The provider has no machine to give.
    OutOfStock(String),
    /// The lane was busy or broke off before its turn.
    NotReached,
    /// It did not work.
    Failed {
        /// A stable word for metrics.
        category: &'static str,
        /// For people.
        message: String,
    },
}

impl Outcome {
    /// A stable word for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Gone => "gone",
            Self::Conflict => "conflict",
            Self::Refused(_) => "refused",
            Self::OutOfStock(_) => "out_of_stock",
            Self::NotReached => "not_reached",
            Self::Failed { .. } => "failed",
        }
    }
}

/// An effect and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// What.
    pub effect: Effect,
    /// What became of it.
    pub outcome: Outcome,
}
