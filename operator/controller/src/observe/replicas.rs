//! The replicas of pools: their Pods at all sites.

use std::collections::BTreeMap;

use pomarium_api::labels;
use pomarium_kernel::lifecycle::{Drain, ReplicaFacts, replica_state};
use pomarium_kernel::names::{GroupName, PoolId, ReplicaId, Revision, ServerName, SiteName};
use pomarium_kernel::snapshot::{Group, Load, Replica};
use pomarium_kernel::time::Timestamp;
use tracing::warn;

use crate::world::{Measurement, PodSeen, Readiness, SiteSeen, World};

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
) -> BTreeMap<PoolId, BTreeMap<ReplicaId, Replica>> {
    let mut group_at: BTreeMap<(&SiteName, &ServerName), &GroupName> = BTreeMap::new();
    for (name, group) in groups {
        for server in group.inventory.servers().keys() {
            group_at.entry((&group.site, server)).or_insert(name);
        }
    }
    let mut replicas: BTreeMap<PoolId, BTreeMap<ReplicaId, Replica>> = BTreeMap::new();
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
            let measurement = world.measurements.get(&pool).map(AsRef::as_ref);
            let replica = replica(site, seen, pod, group, server.clone(), measurement);
            let id = ReplicaId::new(site.clone(), pod.name.clone());
            replicas.entry(pool).or_default().insert(id, replica);
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
    measurement: Option<&Measurement>,
) -> Replica {
    let serving = pod.labels.get(labels::SERVING).is_some_and(|value| value == "true");
    let (state, since) = replica_state(&ReplicaFacts {
        created: pod.created,
        ended: pod.has_ended(),
        deleted: pod.deletion,
        bound: pod.node.is_some(),
        ready: pod.ready,
        ready_since: pod.ready_since,
        // Only a replica that was ready is ever opened or drained.
        was_ready: serving || pod.drain.is_some(),
        node_down: pod.node.as_ref().and_then(|node| down_since(seen, pod, node)),
    });
    let load = measurement.and_then(|measurement| measurement.loads.get(&pod.uid).copied());
    Replica {
        uid: pod.uid.clone(),
        site: site.clone(),
        group,
        server,
        revision: Revision::new(pod.labels.get(labels::REVISION).cloned().unwrap_or_default()),
        state,
        since,
        serving,
        drain: pod.drain.as_deref().and_then(|text| drain(pod, text)),
        load: load.unwrap_or(Load::Unknown),
        silent_since: measurement.and_then(|measurement| measurement.silent.get(&pod.uid).copied()),
        created: pod.created,
    }
}

/// Since when the Node that a Pod runs on is not Ready.
fn down_since(seen: &SiteSeen, pod: &PodSeen, node: &ServerName) -> Option<Timestamp> {
    match seen.nodes.get(node) {
        Some(node) if node.ready == Readiness::True => None,
        Some(node) => Some(node.ready_since.unwrap_or(node.created)),
        // Its Node does not exist any more, and nobody wrote down since when.
        None => Some(pod.ready_since.unwrap_or(pod.created)),
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
