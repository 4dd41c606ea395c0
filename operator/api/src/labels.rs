//! Labels, annotations and taints that Pomarium puts on Nodes and Pods, or reads from them.

/// Label on Nodes and Pods: the group that the server belongs to.
pub const GROUP: &str = "pomarium.dev/group";
/// Label on Pods: the pool's name. The namespace is the Pod's own.
pub const POOL: &str = "pomarium.dev/pool";
/// Label on Pods: uid of the pool in the hub.
pub const POOL_UID: &str = "pomarium.dev/pool-uid";
/// Label on Pods: what the replica runs, see `pomarium_kernel::names::Revision`.
pub const REVISION: &str = "pomarium.dev/revision";
/// Label on Pods: name of the site.
pub const SITE: &str = "pomarium.dev/site";
/// Label on Pods, value `true`: routers may send requests. Services and routers select on it.
pub const SERVING: &str = "pomarium.dev/serving";
/// Label on everything that Pomarium creates in a member cluster: uid of the hub's `kube-system` namespace.
pub const HUB_UID: &str = "pomarium.dev/hub-uid";
/// Annotation on Pods: the name of the server that the replica is pinned to.
pub const SERVER: &str = "pomarium.dev/server";
/// Annotation on Pods: the type of the engine, such as `LlamaCpp`.
pub const ENGINE: &str = "pomarium.dev/engine";
/// Annotation on Pods: a drain under way, as JSON of `pomarium_kernel::lifecycle::Drain`.
pub const DRAIN: &str = "pomarium.dev/drain";
/// Annotation on Nodes: a server on its way out, as JSON `{"since": …, "reason": …}`.
pub const SERVER_DRAIN: &str = "pomarium.dev/server-drain";
/// Annotation on Nodes, set by people: leave this server alone.
pub const HOLD: &str = "pomarium.dev/hold";
/// Annotation on sites, groups and pools, set by people, value `true`: only watch.
pub const PAUSED: &str = "pomarium.dev/paused";
/// Annotation on plans, set by people, value `true`: do it.
pub const APPROVED: &str = "pomarium.dev/approved";
/// Taint on Nodes, effect `NoSchedule`: Pomarium is draining the server.
pub const DRAINING_TAINT: &str = "pomarium.dev/draining";
/// Finalizer on pools, groups and sites.
pub const FINALIZER: &str = "pomarium.dev/cleanup";
/// Label on the operator's own `ConfigMap`s: `pool` where a pool's past is kept, `plan` where the last strategic plan is.
pub const HISTORY: &str = "pomarium.dev/history";
