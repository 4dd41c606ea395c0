//! The replicas of pools: their Pods at all sites.

use std::collections::BTreeMap;

use pomarium_api::labels;
use pomarium_kernel::lifecycle::{Drain, ReplicaFacts, replica_state};
use pomarium_kernel::names::{GroupName, PoolId, ReplicaName, Revision, ServerName, SiteName};
use pomarium_kernel::snapshot::{Group, Load, Replica};
use tracing::warn;

use crate::world::{PodSeen, Readiness, SiteSeen, World};

/// The pool that a Pod belongs to by its labels; `None` if another hub made it.
pub(super) fn pool_of(world: &World, pod: &PodSeen) -> Option<PoolId> {
    let name = pod.labels.get(labels::POOL)?;
    let hub = pod.labels.get(labels::HUB_UID);
    if hub.is_some_and(|uid| *uid != world.hub_uid) {
        return None;
    }
    Some(PoolId::new(pod.namespace.clone(), name.clone()))
}

/// All replicas on servers of `groups`, by pool.
pub(super) fn by_pool(
    world: &World,
    groups: &BTreeMap<GroupName, Group>,
) -> BTreeMap<PoolId, BTreeMap<ReplicaName, Replica>> {
    let mut group_at: BTreeMap<(&SiteName, &ServerName), &GroupName> = BTreeMap::new();
    for (name, group) in groups {
        for server in group.inventory.servers().keys() {
            group_at.entry((&group.site, server)).or_insert(name);
        }
    }
    let mut replicas: BTreeMap<PoolId, BTreeMap<ReplicaName, Replica>> = BTreeMap::new();
    for (site, seen) in &world.sites {
        for pod in seen.pods.values() {
            let (Some(pool), Some(server)) = (pool_of(world, pod), pod.node.as_ref().or(pod.server.as_ref())) else {
                continue;
            };
            let labelled = || pod.labels.get(labels::GROUP).map(|name| GroupName::new(name.clone()));
            let Some(group) = group_at
                .get(&(site, server))
                .map(|name| (*name).clone())
                .or_else(labelled)
            else {
                // Its server is in no group any more, and the cluster will collect it.
                continue;
            };
            let load = world
                .measurements
                .get(&pool)
                .and_then(|measurement| measurement.loads.get(&pod.uid).copied())
                .unwrap_or(Load::Unknown);
            let replica = replica(site, seen, pod, group, server.clone(), load);
            replicas
                .entry(pool)
                .or_default()
                .insert(ReplicaName::new(pod.name.clone()), replica);
        }
    }
    replicas
}

fn replica(
    site: &SiteName,
    seen: &SiteSeen,
    pod: &PodSeen,
    group: GroupName,
    server: ServerName,
    load: Load,
) -> Replica {
    let serving = pod.labels.get(labels::SERVING).is_some_and(|value| value == "true");
    let node_down = pod
        .node
        .as_ref()
        .is_some_and(|node| seen.nodes.get(node).is_none_or(|node| node.ready != Readiness::True));
    let facts = ReplicaFacts {
        ended: pod.has_ended(),
        deleted: pod.deletion.is_some(),
        bound: pod.node.is_some(),
        ready: pod.ready,
        // Only a replica that was ready is ever opened or drained.
        was_ready: serving || pod.drain.is_some(),
        node_down,
    };
    Replica {
        uid: pod.uid.clone(),
        site: site.clone(),
        group,
        server,
        revision: Revision::new(pod.labels.get(labels::REVISION).cloned().unwrap_or_default()),
        state: replica_state(&facts),
        serving,
        drain: pod.drain.as_deref().and_then(|text| drain(pod, text)),
        load,
        created: pod.created,
    }
}

/// The drain that is recorded on the Pod. One that cannot be read counts as not begun: it begins anew, with a fence.
fn drain(pod: &PodSeen, text: &str) -> Option<Drain> {
    match serde_json::from_str(text) {
        Ok(drain) => Some(drain),
        Err(error) => {
            warn!(namespace = pod.namespace, pod = pod.name, %error, "the drain annotation cannot be read");
            None
        }
    }
}
