//! Pomarium's finalizer on pools, groups and sites.
//!
//! Read as metadata only, so that an object whose spec cannot be decoded can still be let go.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::core::{ClusterResourceScope, NamespaceResourceScope, PartialObjectMeta};
use kube::{Resource, ResourceExt};
use pomarium_api::group::ServerGroup;
use pomarium_api::labels;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use pomarium_kernel::names::PoolId;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Hands;
use super::kube_call::{call, merge};
use crate::effect::{Object, Outcome};
use crate::member::Hub;

pub(super) async fn add(hub: &Hub, object: &Object) -> Result<Outcome, Outcome> {
    set(hub, object, true).await
}

/// Looks once more at what the finalizer of a pool stands for: a Pod that the caches do not show yet would be nobody's.
pub(super) async fn remove(hands: &Hands, object: &Object) -> Result<Outcome, Outcome> {
    if let Object::Pool(pool) = object {
        nothing_runs(hands, pool).await?;
    }
    set(&hands.hub, object, false).await
}

async fn nothing_runs(hands: &Hands, pool: &PoolId) -> Result<(), Outcome> {
    let seen = call(namespaced::<ServerPool>(hands.hub.read.clone(), &pool.namespace).get_metadata(&pool.name)).await?;
    let of_pool = ListParams::default()
        .labels(&format!("{}={}", labels::POOL_UID, seen.uid().unwrap_or_default()))
        .limit(1);
    for (site, member) in hands.members.all() {
        let member = member.ok_or_else(|| Outcome::Refused(format!("site {site} does not answer")))?;
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(member.read.clone(), &pool.namespace);
        if !call(pods.list(&of_pool)).await?.items.is_empty() {
            return Err(Outcome::Refused(format!("{pool} still has Pods at {site}")));
        }
    }
    Ok(())
}

async fn set(hub: &Hub, object: &Object, wanted: bool) -> Result<Outcome, Outcome> {
    let clients = || (hub.read.clone(), hub.write.clone());
    match object {
        Object::Pool(pool) => {
            let api = |client| namespaced::<ServerPool>(client, &pool.namespace);
            let (read, write) = clients();
            edit(&api(read), &api(write), &pool.name, wanted).await
        }
        Object::Group(name) => {
            let (read, write) = clients();
            edit(&all::<ServerGroup>(read), &all(write), name.as_str(), wanted).await
        }
        Object::Site(name) => {
            let (read, write) = clients();
            edit(&all::<ServerSite>(read), &all(write), name.as_str(), wanted).await
        }
    }
}

fn namespaced<K>(client: kube::Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client, namespace)
}

fn all<K>(client: kube::Client) -> Api<K>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
{
    Api::all(client)
}

async fn edit<K>(read: &Api<K>, write: &Api<K>, name: &str, wanted: bool) -> Result<Outcome, Outcome>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let seen = call(read.get_metadata(name)).await?;
    let mut finalizers = seen.finalizers().to_vec();
    let there = finalizers.iter().any(|finalizer| finalizer == labels::FINALIZER);
    let leaving = seen.metadata.deletion_timestamp.is_some();
    // The API server refuses new finalizers on an object that is being deleted.
    if there == wanted || (wanted && leaving) {
        return Ok(Outcome::Unchanged);
    }
    if wanted {
        finalizers.push(labels::FINALIZER.to_owned());
    } else {
        finalizers.retain(|finalizer| finalizer != labels::FINALIZER);
    }
    let (params, patch) = merge(json!({
        "metadata": {"uid": seen.uid(), "resourceVersion": seen.resource_version(), "finalizers": finalizers},
    }));
    call(write.patch_metadata(name, &params, &patch)).await?;
    Ok(Outcome::Done)
}
