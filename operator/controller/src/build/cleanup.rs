//! What is left to do for objects that are being deleted.
//!
//! A finalizer goes when nothing outside of the hub is left, and "nothing" is only believed of a site that answers.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use pomarium_api::labels;
use pomarium_api::pool::ServerPool;
use pomarium_kernel::names::{GroupName, PoolId, SiteName};
use pomarium_kernel::snapshot::Contact;

use super::{budget, has_finalizer, pod::uid_of};
use crate::effect::{Effect, Object};
use crate::world::{PodSeen, ProviderState, SiteSeen, World};

pub(super) fn cleanup(world: &World) -> Vec<Effect> {
    let mut effects = Vec::new();
    for (id, pool) in &world.pools {
        if leaving(&pool.metadata) && has_finalizer(pool.as_ref()) {
            effects.extend(pool_leftovers(world, id, pool));
        }
    }
    for (name, group) in &world.groups {
        if leaving(&group.metadata) && has_finalizer(group.as_ref()) && group_is_empty(world, name) {
            effects.push(Effect::RemoveFinalizer(Object::Group(name.clone())));
        }
    }
    for (name, site) in &world.sites {
        if leaving(&site.object.metadata) && has_finalizer(site.object.as_ref()) && site_is_empty(world, name, site) {
            effects.push(Effect::RemoveFinalizer(Object::Site(name.clone())));
        }
    }
    effects
}

fn leaving(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// The budget protects Pods to the last; then the finalizer.
fn pool_leftovers(world: &World, id: &PoolId, pool: &Arc<ServerPool>) -> Vec<Effect> {
    let uid = uid_of(pool);
    let budget = budget::key(id);
    let mut effects = Vec::new();
    let mut clean = true;
    for (name, site) in &world.sites {
        let pods = site
            .pods
            .values()
            .any(|pod| pod.labels.get(labels::POOL_UID).is_some_and(|of| *of == uid));
        let reachable = site.contact == Contact::Reachable;
        if !pods && reachable && site.budgets.contains_key(&budget) {
            effects.push(Effect::DeleteBudget {
                site: name.clone(),
                pool: id.clone(),
            });
        }
        clean &= reachable && !pods && !site.budgets.contains_key(&budget);
    }
    if clean {
        effects.push(Effect::RemoveFinalizer(Object::Pool(id.clone())));
    }
    effects
}

/// Nothing runs there and nothing of it costs money any more. Machines that simply exist are nobody's to give back.
fn group_is_empty(world: &World, name: &GroupName) -> bool {
    let Some(group) = world.groups.get(name) else {
        return false;
    };
    if let Some(site) = world.sites.get(group.spec.site_ref.name.as_str()) {
        let of_group = |pod: &PodSeen| pod.labels.get(labels::GROUP).is_some_and(|of| of == name.as_str());
        let runs = site.pods.values().any(|pod| of_group(pod) && !pod.has_ended());
        // What ran at a site that does not answer may run still.
        if runs || site.contact != Contact::Reachable {
            return false;
        }
    }
    if group.spec.provider.r#static.is_some() {
        return true;
    }
    world.inventories.get(name).is_some_and(|answer| {
        answer.listed_at.is_some()
            && answer.problem.is_none()
            && answer
                .servers
                .values()
                .all(|server| matches!(server.state, ProviderState::Recycling))
    })
}

/// Nobody uses it and nothing of ours is there. A cluster that does not answer may have anything; only one that cannot be
/// reached until somebody changes the site or its Secret is let go all the same.
fn site_is_empty(world: &World, name: &SiteName, site: &SiteSeen) -> bool {
    let used = world
        .groups
        .values()
        .any(|group| group.spec.site_ref.name == name.as_str() && group.finalizers().iter().any(is_ours));
    let believed = site.contact == Contact::Reachable || site.problem.is_some();
    !used && believed && site.pods.is_empty() && site.budgets.is_empty()
}

fn is_ours(finalizer: &String) -> bool {
    finalizer == labels::FINALIZER
}
