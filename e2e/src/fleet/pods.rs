//! Which Pods are bound to the fleet's servers: one watch per cluster, one task per Pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Shared;
use super::cluster::{Backoff, Cluster};
use super::pod;

/// A Pod that is bound to some Node.
struct Bound {
    object: watch::Sender<Option<Arc<Pod>>>,
    /// Plays it, once its server is up.
    task: Option<JoinHandle<()>>,
}

/// Plays the Pods of `cluster` until it is dropped.
pub(crate) async fn play(cluster: Arc<Cluster>, shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let events = watcher(pods, watcher::Config::default().fields("spec.nodeName!="))
        .backoff(Backoff::default())
        .fuse();
    tokio::pin!(events);
    let mut bound: BTreeMap<String, Bound> = BTreeMap::new();
    let mut listed = BTreeSet::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = cluster.came_up.notified() => {
                for pod in bound.values_mut() {
                    start(pod, &cluster, &shared);
                }
                continue;
            }
        };
        match event {
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(pod))) => {
                listed.extend(pod.metadata.uid.clone());
                seen(pod, &mut bound, &cluster, &shared);
            }
            Some(Ok(Event::InitDone)) => {
                // Deleted while nobody was watching.
                bound.retain(|uid, pod| listed.contains(uid) || gone(pod));
            }
            Some(Ok(Event::Apply(pod))) => seen(pod, &mut bound, &cluster, &shared),
            Some(Ok(Event::Delete(pod))) => {
                if let Some(mut pod) = pod.metadata.uid.and_then(|uid| bound.remove(&uid)) {
                    gone(&mut pod);
                }
            }
            // Engines go on without an API server.
            Some(Err(error)) => tracing::debug!(%error, "watching Pods"),
            None => return,
        }
    }
}

fn seen(mut pod: Pod, bound: &mut BTreeMap<String, Bound>, cluster: &Arc<Cluster>, shared: &Arc<Shared>) {
    let Some(uid) = pod.metadata.uid.clone() else { return };
    pod.metadata.managed_fields = None;
    let object = Some(Arc::new(pod));
    let entry = bound.entry(uid).or_insert_with(|| Bound {
        object: watch::Sender::new(None),
        task: None,
    });
    entry.object.send_replace(object);
    start(entry, cluster, shared);
}

/// Tells its task that the Pod is no more. Never keeps it.
fn gone(pod: &mut Bound) -> bool {
    pod.object.send_replace(None);
    false
}

/// Starts the task of a Pod whose server is up, unless it runs.
fn start(pod: &mut Bound, cluster: &Arc<Cluster>, shared: &Arc<Shared>) {
    if pod.task.as_ref().is_some_and(|task| !task.is_finished()) {
        return;
    }
    let receiver = pod.object.subscribe();
    let server = {
        let object = receiver.borrow();
        let node = object
            .as_ref()
            .and_then(|object| object.spec.as_ref()?.node_name.as_deref());
        node.and_then(|node| cluster.up().get(node).cloned())
    };
    if let Some(server) = server {
        pod.task = Some(shared.spawn(pod::play(receiver, server, Arc::clone(shared))));
    }
}
