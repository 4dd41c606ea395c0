//! Finds a pool's replicas: one watch of its Pods in each member cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use pomarium_api::labels;
use pomarium_kernel::engine::StepTimes;

use super::dispatch::Dispatcher;
use super::{Backend, BackendId, Router};
use crate::readiness::pod_is_ready;

/// Name of the engine's port in a Pod.
const PORT: &str = "http";

/// How fast the servers of each group are, by the group's name.
#[derive(Clone, Debug)]
pub struct Speeds {
    /// By group.
    pub by_group: BTreeMap<String, StepTimes>,
    /// For servers of no known group.
    pub otherwise: StepTimes,
}

impl Speeds {
    /// Of a server, whose name is `{group}-{ordinal}`.
    fn of(&self, server: &str) -> StepTimes {
        let group = server.rsplit_once('-').map_or(server, |(group, _)| group);
        self.by_group.get(group).copied().unwrap_or(self.otherwise)
    }
}

/// Which Pods are the replicas of a pool at a site.
#[derive(Clone)]
pub struct Source {
    /// The site's name.
    pub site: String,
    /// Its cluster.
    pub client: Client,
    /// The pool's namespace.
    pub namespace: String,
    /// The pool's name.
    pub pool: String,
    /// How fast they are.
    pub speeds: Speeds,
}

impl Router {
    /// Keeps the router up to date with the replicas at one site, for as long as it runs.
    ///
    /// A watch that fails goes on with back-off, and what is known stays known meanwhile: a site that cannot be watched
    /// is no reason to stop sending requests to replicas that answer.
    pub fn follow(&self, source: Source) {
        let (dispatcher, stop) = (self.shared.dispatcher.clone(), self.stop.clone());
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(watch(dispatcher, source)).await;
        });
    }
}

async fn watch(dispatcher: Dispatcher, source: Source) {
    let selector = format!("{}={},{}=true", labels::POOL, source.pool, labels::SERVING);
    let pods = Api::<Pod>::namespaced(source.client.clone(), &source.namespace);
    let events = watcher(pods, watcher::Config::default().labels(&selector));
    let mut events = events.default_backoff().into_stream().boxed();
    let mut listed = BTreeSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(pod))) => {
                listed.insert(id(&source, &pod));
                take_over(&dispatcher, &source, &pod);
            }
            Ok(Some(watcher::Event::InitDone)) => dispatcher.keep_only(&source.site, &listed),
            Ok(Some(watcher::Event::Apply(pod))) => take_over(&dispatcher, &source, &pod),
            // The Pod is gone, or it lost the label that the watch selects by.
            Ok(Some(watcher::Event::Delete(pod))) => dispatcher.fence(&id(&source, &pod)),
            Ok(None) => return,
            Err(error) => tracing::debug!(site = source.site, %error, "watching replicas"),
        }
    }
}

fn id(source: &Source, pod: &Pod) -> BackendId {
    BackendId {
        site: source.site.clone(),
        uid: pod.uid().unwrap_or_default(),
    }
}

fn take_over(dispatcher: &Dispatcher, source: &Source, pod: &Pod) {
    match endpoint(pod) {
        Some(address) => {
            let server = pod.annotations().get(labels::SERVER).cloned().unwrap_or_default();
            dispatcher.open(Backend {
                id: id(source, pod),
                pod: pod.name_any(),
                address,
                times: source.speeds.of(&server),
                server,
            });
        }
        None => dispatcher.fence(&id(source, pod)),
    }
}

/// Where a Pod takes requests: it is Ready, stays, and has an address and the port `http`.
fn endpoint(pod: &Pod) -> Option<SocketAddr> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let serving = pod.labels().get(labels::SERVING).is_some_and(|value| value == "true");
    let status = pod.status.as_ref()?;
    let ip: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(PORT))?;
    let port = u16::try_from(port.container_port).ok()?;
    (serving && pod_is_ready(pod)).then(|| SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    /// A Pod that takes requests, with one thing changed.
    fn pod(path: &str, value: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "chat-0", "uid": "u", "labels": {"pomarium.dev/serving": "true"}, "deletionTimestamp": null},
            "spec": {"containers": [{"name": "engine", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"podIP": "127.20.0.3", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        *pod.pointer_mut(path).unwrap() = value;
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn only_a_ready_pod_that_serves_and_stays_takes_requests() {
        assert_eq!(
            endpoint(&pod("/metadata/name", json!("chat-1"))),
            Some("127.20.0.3:8080".parse().unwrap())
        );
        let refused = [
            ("fenced", "/metadata/labels", json!({})),
            (
                "label says false",
                "/metadata/labels",
                json!({"pomarium.dev/serving": "false"}),
            ),
            ("going", "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("not ready", "/status/conditions/0/status", json!("False")),
            ("no address", "/status/podIP", Value::Null),
            ("no port", "/spec/containers/0/ports", json!([])),
        ];
        for (case, path, value) in refused {
            assert_eq!(endpoint(&pod(path, value)), None, "{case}");
        }
    }

    #[test]
    fn a_server_is_as_fast_as_its_group() {
        let (slow, fast) = (
            crate::router::dispatch::tests::times(9),
            crate::router::dispatch::tests::times(1),
        );
        let speeds = Speeds {
            by_group: BTreeMap::from([("oregon-m4-max".to_owned(), fast)]),
            otherwise: slow,
        };
        assert_eq!((speeds.of("oregon-m4-max-3"), speeds.of("oregon-m4-3")), (fast, slow));
    }
}
