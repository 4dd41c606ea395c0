//! The `ConfigMap`s in which the past is kept: lists, applies and deletes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::ObjectMeta;
use pomarium_api::labels;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::strategy::ahead::Ahead;
use pomarium_kernel::strategy::past::Past;
use tracing::warn;

use super::stored::{self, Data, PlannedPool};
use crate::client::error_chain;
use crate::member::Hub;

/// Field manager of these objects.
const MANAGER: &str = "pomarium.dev/history";
/// Objects of one page: each may have some 100 kB.
const PAGE: u32 = 20;
/// Writes under way at the same time.
const CONCURRENCY: usize = 4;

/// It did not work.
pub(super) const FAILED: &str = "failed";

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The plan as a whole.
    Plan,
    /// The past of the pool with this uid.
    Pool(String),
}

impl Key {
    fn name(&self) -> String {
        match self {
            Self::Plan => "pomarium-plan".to_owned(),
            Self::Pool(uid) => format!("pomarium-history-{uid}"),
        }
    }

    /// Value of the label by which all of them are found.
    fn kind(&self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Pool(_) => "pool",
        }
    }

    fn of(object: &ConfigMap) -> Option<Self> {
        match object.labels().get(labels::HISTORY)?.as_str() {
            "plan" => Some(Self::Plan),
            "pool" => Some(Self::Pool(object.labels().get(labels::POOL_UID)?.clone())),
            _ => None,
        }
        .filter(|key| key.name() == object.name_any())
    }
}

/// What an object holds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) past: Past,
    pub(super) pool: Option<PlannedPool>,
    pub(super) plan: Option<Ahead>,
    pub(super) digest: Option<u64>,
    pub(super) problems: Vec<String>,
}

/// Something to do.
pub(super) enum Job {
    ApplyPool {
        id: PoolId,
        uid: String,
        past: Arc<Past>,
        ahead: Option<Arc<Ahead>>,
        stored: Option<u64>,
    },
    ApplyPlan {
        ahead: Arc<Ahead>,
        stored: Option<u64>,
    },
    Delete(Key),
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Which.
    pub(super) key: Key,
    /// Digest of what it holds now, if it was written.
    pub(super) digest: Option<u64>,
    /// A stable word for metrics.
    pub(crate) outcome: &'static str,
}

fn api(client: &kube::Client, hub: &Hub) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), &hub.namespace)
}

/// All of them, with what they hold. Page by page: together they may be large.
pub(super) async fn list(hub: &Hub) -> kube::Result<Vec<(Key, Found)>> {
    let api = api(&hub.read, hub);
    let mut found = Vec::new();
    let mut params = ListParams::default().labels(labels::HISTORY).limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        found.extend(page.items.into_iter().filter_map(|object| {
            let key = Key::of(&object)?;
            let held = read(&key, &object.data.unwrap_or_default());
            Some((key, held))
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

fn read(key: &Key, data: &Data) -> Found {
    let digest = Some(stored::digest(data));
    match key {
        Key::Plan => {
            let (plan, problems) = stored::plan(data);
            Found {
                plan,
                digest,
                problems,
                ..Found::default()
            }
        }
        Key::Pool(_) => {
            let (past, pool, problems) = stored::pool(data);
            Found {
                past,
                pool,
                digest,
                problems,
                ..Found::default()
            }
        }
    }
}

/// Does all of it, whatever becomes of one.
pub(super) async fn carry_out(hub: &Hub, jobs: Vec<Job>) -> Vec<Written> {
    stream::iter(jobs)
        .map(|job| do_one(hub, job))
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

async fn do_one(hub: &Hub, job: Job) -> Written {
    match job {
        Job::Delete(key) => delete(hub, key).await,
        Job::ApplyPlan { ahead, stored } => {
            let (data, left_out) = stored::of_plan(&ahead);
            apply(hub, Key::Plan, None, data, &left_out, stored).await
        }
        Job::ApplyPool {
            id,
            uid,
            past,
            ahead,
            stored,
        } => {
            let planned = ahead.and_then(|ahead| {
                Some(PlannedPool {
                    made_at: ahead.made_at,
                    pool: ahead.pools.get(&id)?.clone(),
                })
            });
            let (data, left_out) = stored::of_pool(&past, planned.as_ref());
            apply(hub, Key::Pool(uid), Some(&id), data, &left_out, stored).await
        }
    }
}

async fn apply(
    hub: &Hub,
    key: Key,
    pool: Option<&PoolId>,
    data: Data,
    left_out: &[&str],
    stored: Option<u64>,
) -> Written {
    let name = key.name();
    if !left_out.is_empty() {
        warn!(object = name, ?left_out, "too long to be kept");
    }
    let digest = stored::digest(&data);
    if stored == Some(digest) {
        return Written {
            key,
            digest: Some(digest),
            outcome: "unchanged",
        };
    }
    let mut found_by: BTreeMap<String, String> = [(labels::HISTORY.to_owned(), key.kind().to_owned())].into();
    if let Key::Pool(uid) = &key {
        found_by.insert(labels::POOL_UID.to_owned(), uid.clone());
    }
    let object = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(hub.namespace.clone()),
            labels: Some(found_by),
            // For people: a label's value could not hold it.
            annotations: pool.map(|pool| [(labels::POOL.to_owned(), pool.to_string())].into()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(MANAGER).force();
    match api(&hub.write, hub).patch(&name, &params, &Patch::Apply(&object)).await {
        Ok(_) => Written {
            key,
            digest: Some(digest),
            outcome: "done",
        },
        Err(error) => failed(key, &error),
    }
}

async fn delete(hub: &Hub, key: Key) -> Written {
    match api(&hub.write, hub).delete(&key.name(), &DeleteParams::default()).await {
        Ok(_) => Written {
            key,
            digest: None,
            outcome: "deleted",
        },
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Written {
            key,
            digest: None,
            outcome: "gone",
        },
        Err(error) => failed(key, &error),
    }
}

fn failed(key: Key, error: &kube::Error) -> Written {
    warn!(
        object = key.name(),
        error = error_chain(error),
        "the past was not written"
    );
    Written {
        key,
        digest: None,
        outcome: FAILED,
    }
}
