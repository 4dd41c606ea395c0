//! Writes statuses that differ from what the objects say.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use pomarium_api::group::ServerGroup;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::object::Statuses;
use crate::member::Hub;
use crate::world::World;

/// Statuses written at the same time.
const CONCURRENCY: usize = 8;
/// No write takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes statuses, and remembers what it wrote until the watch shows it.
#[derive(Default)]
pub struct StatusWriter {
    /// By uid: the version on which it was written, and what was written.
    written: BTreeMap<String, (Option<String>, Value)>,
}

/// What became of writing statuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Statuses that differed and were written.
    pub done: usize,
    /// Statuses that could not be written, and will differ in the next pass again.
    pub failed: usize,
}

struct Write {
    uid: String,
    version: Option<String>,
    status: Value,
    call: futures::future::BoxFuture<'static, kube::Result<()>>,
}

impl StatusWriter {
    /// Writes what differs.
    pub async fn write(&mut self, hub: &Hub, statuses: &Statuses, world: &World) -> Written {
        let mut writes = Vec::new();
        for (id, status) in &statuses.pools {
            if let Some(object) = world.pools.get(id) {
                let api: Api<ServerPool> = Api::namespaced(hub.write.clone(), &id.namespace);
                writes.extend(self.differs(
                    api,
                    object.as_ref(),
                    object.status.as_ref(),
                    status,
                    "pomarium.dev/pool",
                ));
            }
        }
        for (name, status) in &statuses.groups {
            if let Some(object) = world.groups.get(name) {
                let api: Api<ServerGroup> = all(&hub.write);
                writes.extend(self.differs(
                    api,
                    object.as_ref(),
                    object.status.as_ref(),
                    status,
                    "pomarium.dev/group",
                ));
            }
        }
        for (name, status) in &statuses.sites {
            if let Some(seen) = world.sites.get(name) {
                let object = seen.object.as_ref();
                let api: Api<ServerSite> = all(&hub.write);
                writes.extend(self.differs(api, object, object.status.as_ref(), status, "pomarium.dev/site"));
            }
        }
        let results: Vec<_> = stream::iter(writes)
            .map(|write| async move {
                let result = tokio::time::timeout(PATIENCE, write.call).await;
                (write.uid, write.version, write.status, result)
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut written = Written::default();
        for (uid, version, status, result) in results {
            match result {
                Ok(Ok(())) => {
                    self.written.insert(uid, (version, status));
                    written.done += 1;
                }
                // It was deleted meanwhile: nobody reads its status any more.
                Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a status was not written");
                    written.failed += 1;
                }
                Err(_) => written.failed += 1,
            }
        }
        self.forget_the_gone(world);
        written
    }

    fn differs<K, S>(&self, api: Api<K>, object: &K, old: Option<&S>, new: &S, manager: &'static str) -> Option<Write>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        S: Serialize + PartialEq,
    {
        if old == Some(new) {
            return None;
        }
        let status = serde_json::to_value(new).ok()?;
        let uid = object.uid()?;
        let version = object.resource_version();
        // The watch still shows the object as it was before our last write, which said the same.
        if self
            .written
            .get(&uid)
            .is_some_and(|(on, written)| *on == version && *written == status)
        {
            return None;
        }
        let name = object.name_any();
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name, "uid": uid},
            "status": status,
        });
        let call = async move {
            let params = PatchParams::apply(manager).force();
            api.patch_status(&name, &params, &Patch::Apply(patch)).await.map(drop)
        };
        Some(Write {
            uid,
            version,
            status,
            call: Box::pin(call),
        })
    }

    fn forget_the_gone(&mut self, world: &World) {
        let pools = world.pools.values().filter_map(|object| object.uid());
        let groups = world.groups.values().filter_map(|object| object.uid());
        let sites = world.sites.values().filter_map(|seen| seen.object.uid());
        let alive: std::collections::BTreeSet<String> = pools.chain(groups).chain(sites).collect();
        self.written.retain(|uid, _| alive.contains(uid));
    }
}

fn all<K>(client: &Client) -> Api<K>
where
    K: Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>,
{
    Api::all(client.clone())
}
