//! Weights in HTTPRoutes.
//!
//! Pure. Pomarium owns whole HTTPRoutes in the hub and never patches a user's: `rules` is one atomic list, and two
//! writers would fight over it. Every field that the API server would default is written out, so that `GitOps` tools see no
//! drift. A Service backend must be local: groups in other clusters get no backend and are named in `RoutingReady`. The route
//! follows its pool to the last drain; a pool that is being deleted gets no new one.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use pomarium_api::labels;
use pomarium_api::pool::{HttpRoute, ServerPool};
use pomarium_kernel::lifecycle::ReplicaState;
use pomarium_kernel::names::{GroupName, PoolId};
use pomarium_kernel::plan::{Action, Condition, ConditionKind, Plan, Truth};
use pomarium_kernel::reason::Reason;
use pomarium_kernel::snapshot::{Pool, Snapshot};
use serde_json::{Value, json};

use crate::build::short_name;
use crate::effect::{Effect, Outcome};
use crate::world::World;

/// The Gateway API allows no more in one rule.
const MOST_BACKENDS: usize = 16;
/// Port of the Services.
const PORT: i32 = 80;

/// A pool's route and what it refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// One Service per local group.
    pub services: Vec<Service>,
    /// The HTTPRoute, as JSON: its types are not needed, and its CRD may be missing.
    pub http_route: Value,
    /// Uid of the pool: what another one owns, or nobody, is not ours to write.
    pub owner: String,
    /// Make what is missing. Not for a pool that is being deleted: whoever collects its objects would collect them again.
    pub create: bool,
    /// Groups that serve and cannot be reached from the hub's gateway.
    pub remote: Vec<GroupName>,
    /// Groups that serve and do not fit into one rule.
    pub beyond: Vec<GroupName>,
}

/// The routes of all pools that ask for one.
pub(crate) fn routes(plan: &Plan, snapshot: &Snapshot, world: &World) -> Vec<Effect> {
    snapshot
        .pools
        .iter()
        .filter(|(_, pool)| !pool.paused)
        .filter_map(|(id, pool)| {
            let object = world.pools.get(id)?;
            let wanted = object.spec.routing.as_ref()?.http_route.as_ref()?;
            let route = route(id, pool, object, wanted, plan, world)?;
            Some(Effect::ApplyRoute {
                pool: id.clone(),
                route: Box::new(route),
            })
        })
        .collect()
}

fn route(
    id: &PoolId,
    pool: &Pool,
    object: &ServerPool,
    wanted: &HttpRoute,
    plan: &Plan,
    world: &World,
) -> Option<Route> {
    let target = plan.pools.get(id).map(|outlook| &outlook.by_group);
    let used: BTreeSet<&GroupName> = pool
        .running
        .values()
        .map(|replica| &replica.group)
        .chain(target.into_iter().flatten().map(|(group, _)| group))
        .collect();
    let (mut local, remote): (Vec<&GroupName>, Vec<&GroupName>) =
        used.into_iter().partition(|group| is_local(world, group));
    let serves = |group: &&GroupName| weight(id, pool, group, plan) > 0;
    // Those that serve first: they must not go without for want of room.
    local.sort_by_key(|group| !serves(group));
    let beyond = local.split_off(local.len().min(MOST_BACKENDS));
    local.sort_unstable();
    let backends: Vec<(Service, u32)> = local
        .into_iter()
        .map(|group| Some((service(id, object, group)?, weight(id, pool, group, plan))))
        .collect::<Option<_>>()?;
    Some(Route {
        http_route: http_route(id, object, wanted, &backends)?,
        services: backends.into_iter().map(|(service, _)| service).collect(),
        owner: object.metadata.uid.clone()?,
        create: !pool.deleting,
        remote: remote.into_iter().filter(serves).cloned().collect(),
        beyond: beyond.into_iter().filter(serves).cloned().collect(),
    })
}

fn is_local(world: &World, group: &GroupName) -> bool {
    world.groups.get(group).is_some_and(|group| {
        let site = world.sites.get(group.spec.site_ref.name.as_str());
        site.is_some_and(|site| site.object.spec.connection.local.is_some())
    })
}

/// Replicas that take requests and will after this plan: capacity loses its weight before it leaves, and gets it only
/// once it has arrived.
fn weight(id: &PoolId, pool: &Pool, group: &GroupName, plan: &Plan) -> u32 {
    let leaving: BTreeSet<_> = plan
        .decisions
        .iter()
        .filter_map(|decision| match &decision.action {
            Action::DrainReplica { pool, replica, .. } | Action::RemoveReplica { pool, replica, .. } if pool == id => {
                Some(replica)
            }
            _ => None,
        })
        .collect();
    let serving = pool.running.iter().filter(|(name, replica)| {
        replica.group == *group
            && replica.serving
            && replica.drain.is_none()
            && replica.state == ReplicaState::Ready
            && !leaving.contains(name)
    });
    u32::try_from(serving.count()).unwrap_or(u32::MAX)
}

fn service(id: &PoolId, object: &ServerPool, group: &GroupName) -> Option<Service> {
    Some(Service {
        metadata: ObjectMeta {
            name: Some(short_name(&format!("{}-{group}", id.name))),
            namespace: Some(id.namespace.clone()),
            labels: Some([(labels::POOL.to_owned(), id.name.clone())].into()),
            owner_references: Some(vec![owner(object)?]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(
                [
                    (labels::POOL.to_owned(), id.name.clone()),
                    (labels::GROUP.to_owned(), group.to_string()),
                    (labels::SERVING.to_owned(), "true".to_owned()),
                ]
                .into(),
            ),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    })
}

/// In the hub, pool and route live in one namespace: garbage collection cleans up.
fn owner(object: &ServerPool) -> Option<OwnerReference> {
    object.controller_owner_ref(&())
}

fn http_route(id: &PoolId, object: &ServerPool, wanted: &HttpRoute, backends: &[(Service, u32)]) -> Option<Value> {
    let backends: Vec<Value> = backends
        .iter()
        .map(|(service, weight)| {
            json!({"group": "", "kind": "Service", "name": service.metadata.name, "port": PORT, "weight": weight})
        })
        .collect();
    let gateway = &wanted.gateway_ref;
    let spec = json!({
        // Written when empty, too: what is left out of a comparison would never be taken away.
        "hostnames": wanted.hostnames,
        "parentRefs": [{
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "name": gateway.name,
            "namespace": gateway.namespace.as_ref().unwrap_or(&id.namespace),
        }],
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": backends,
        }],
    });
    Some(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": id.name,
            "namespace": id.namespace,
            "labels": {labels::POOL: id.name},
            "ownerReferences": [owner(object)?],
        },
        "spec": spec,
    }))
}

/// Who gets no requests from this route, and why.
fn left_out(route: &Route) -> String {
    let names = |groups: &[GroupName]| groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ");
    let mut reasons = Vec::new();
    if !route.remote.is_empty() {
        let remote = names(&route.remote);
        reasons.push(format!(
            "a Service backend must be local: {remote} are in other clusters"
        ));
    }
    if !route.beyond.is_empty() {
        let beyond = names(&route.beyond);
        reasons.push(format!(
            "a rule has room for {MOST_BACKENDS} backends: {beyond} are beyond"
        ));
    }
    format!("{}; they get no requests from this route", reasons.join("; "))
}

/// What `RoutingReady` says after a route was applied. `None` keeps what it said before.
pub(crate) fn condition(route: &Route, outcome: &Outcome) -> Option<Condition> {
    let (status, reason, message) = match outcome {
        Outcome::Done | Outcome::Unchanged if route.remote.is_empty() && route.beyond.is_empty() => (
            Truth::True,
            Reason::RoutesWritten,
            "the HTTPRoute follows the plan".to_owned(),
        ),
        Outcome::Done | Outcome::Unchanged => (Truth::False, Reason::RouteUnsupported, left_out(route)),
        Outcome::Gone => (
            Truth::False,
            Reason::GatewayApiMissing,
            "the cluster has no gateway.networking.k8s.io/v1 HTTPRoute".to_owned(),
        ),
        Outcome::Failed { message, .. } | Outcome::Refused(message) => {
            (Truth::False, Reason::RouteUnsupported, message.clone())
        }
        Outcome::Conflict | Outcome::OutOfStock(_) | Outcome::NotReached => return None,
    };
    Some(Condition {
        kind: ConditionKind::RoutingReady,
        status,
        reason,
        message,
    })
}

#[cfg(test)]
mod tests;
