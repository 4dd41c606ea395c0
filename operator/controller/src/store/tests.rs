#![allow(clippy::unwrap_used)]

use std::convert::Infallible;

use futures::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::clock::Clock;
use crate::world::{ObjectKey, Readiness};

/// An API server for one kind: answers lists with `list`, and watches with what is sent down a channel.
struct FakeServer {
    accepts: Arc<Mutex<Vec<String>>>,
    list: Arc<Mutex<Value>>,
    watch: Arc<Mutex<Option<mpsc::UnboundedSender<Value>>>>,
    lists: Arc<Mutex<u32>>,
}

impl FakeServer {
    fn start(items: Value) -> (Self, Client) {
        let fake = Self {
            accepts: Arc::default(),
            list: Arc::new(Mutex::new(items)),
            watch: Arc::default(),
            lists: Arc::default(),
        };
        let (list, watch, lists) = (fake.list.clone(), fake.watch.clone(), fake.lists.clone());
        let accepts = fake.accepts.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (list, watch, lists) = (list.clone(), watch.clone(), lists.clone());
            let accept = request.headers().get("accept").map(|value| value.to_str().unwrap());
            accepts.lock().unwrap().push(accept.unwrap_or_default().to_owned());
            async move {
                if request.uri().query().unwrap_or_default().contains("watch=") {
                    let (sender, receiver) = mpsc::unbounded_channel::<Value>();
                    *watch.lock().unwrap() = Some(sender);
                    let lines = futures::stream::unfold(receiver, |mut receiver| async move {
                        let event = receiver.recv().await?;
                        Some((Ok::<_, Infallible>(format!("{event}\n")), receiver))
                    });
                    let frames = lines.map(|line| line.map(|line| Frame::data(Bytes::from(line))));
                    return Ok::<_, Infallible>(Response::new(BodyExt::boxed(StreamBody::new(frames))));
                }
                *lists.lock().unwrap() += 1;
                let items = list.lock().unwrap().clone();
                let answer =
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
                Ok(Response::new(BodyExt::boxed(Full::new(Bytes::from(
                    answer.to_string(),
                )))))
            }
        });
        (fake, Client::new(service, "default"))
    }

    async fn send(&self, kind: &str, object: Value) {
        until("the watch is up", || self.watch.lock().unwrap().is_some()).await;
        let event = json!({"type": kind, "object": object});
        self.watch.lock().unwrap().as_ref().unwrap().send(event).unwrap();
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain until {what}");
}

fn pod(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": version, "creationTimestamp": "2026-11-21T10:00:00Z",
            "annotations": {"pomarium.dev/server": "mac-1"}},
        "spec": {"nodeName": "mac-1", "containers": [{"name": "engine", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": "127.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn undecodable(name: &str) -> Value {
    let mut pod = pod(name, "3");
    pod["spec"]["containers"] = json!("not a list");
    pod
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("n", name)
}

fn pods() -> (Store<Pods>, Trigger) {
    let trigger = Trigger::default();
    (Store::new(Pods { clock: Clock::real() }, trigger.clone()), trigger)
}

fn follow(store: &Store<Pods>, client: Client) -> tokio::task::JoinHandle<()> {
    let store = store.clone();
    tokio::spawn(async move {
        let api: Api<DeserializeGuard<Pod>> = Api::all(client);
        store.follow(api, watcher::Config::default()).await;
    })
}

#[tokio::test]
async fn an_undecodable_object_harms_only_itself() {
    let (fake, client) = FakeServer::start(json!([pod("a", "1"), undecodable("bad")]));
    let (store, _) = pods();
    assert!(store.is_current().is_err(), "nothing has been listed yet");
    let task = follow(&store, client);
    until("the list is in", || store.is_current().is_ok()).await;
    assert_eq!(store.items().keys().collect::<Vec<_>>(), [&key("a")]);
    assert!(
        store.undecodable()[&key("bad")].contains("not a list"),
        "{:?}",
        store.undecodable()
    );

    fake.send("MODIFIED", undecodable("a")).await;
    until("a became undecodable", || store.undecodable().contains_key(&key("a"))).await;
    fake.send("ADDED", pod("b", "4")).await;
    until("b arrived", || store.items().contains_key(&key("b"))).await;
    fake.send("MODIFIED", pod("bad", "5")).await;
    until("the bad one was mended", || store.items().contains_key(&key("bad"))).await;
    assert_eq!(store.undecodable().keys().collect::<Vec<_>>(), [&key("a")]);
    assert!(store.is_current().is_ok());
    assert_eq!(*fake.lists.lock().unwrap(), 1, "nothing was listed again");
    task.abort();
}

#[tokio::test]
async fn a_watch_that_fails_is_listed_anew_and_not_called_current_meanwhile() {
    let (fake, client) = FakeServer::start(json!([pod("a", "1")]));
    let (store, trigger) = pods();
    let task = follow(&store, client);
    until("the list is in", || store.is_current().is_ok()).await;
    trigger.changed().await;

    *fake.list.lock().unwrap() = json!([pod("b", "9")]);
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
    fake.send("ERROR", gone).await;
    until("the failure is noticed", || store.is_current().is_err()).await;
    assert!(store.is_current().unwrap_err().contains("pods"));
    assert!(
        store.items().contains_key(&key("a")),
        "what was seen last stays readable"
    );
    trigger.changed().await;
    until("it is current again", || store.is_current().is_ok()).await;
    assert_eq!(
        store.items().keys().collect::<Vec<_>>(),
        [&key("b")],
        "a deletion that was missed is made up for"
    );
    task.abort();
}

/// What a store asks the API server for, in its list and in its watch.
async fn asked_for<P: Projection>(projection: P, namespaced: impl Fn(Client) -> Api<P::Watched>) -> Vec<String> {
    let (fake, client) = FakeServer::start(json!([]));
    let store = Store::new(projection, Trigger::default());
    tokio::select! {
        () = store.follow(namespaced(client), watcher::Config::default()) => {}
        () = until("the watch is up", || fake.watch.lock().unwrap().is_some()) => {}
    }
    fake.accepts.lock().unwrap().clone()
}

#[tokio::test]
async fn where_only_metadata_is_kept_nothing_else_is_asked_for() {
    let secrets = asked_for(SecretVersions, |client| Api::namespaced(client, "pomarium-system")).await;
    let namespaces = asked_for(Namespaces, Api::all).await;
    let budgets = asked_for(Budgets, Api::all).await;
    for (kind, accepts) in [("secrets", secrets), ("namespaces", namespaces), ("budgets", budgets)] {
        assert!(accepts.len() >= 2, "{kind}: a list and a watch, not {accepts:?}");
        for accept in accepts {
            assert!(accept.contains("as=PartialObjectMetadata"), "{kind}: {accept}");
        }
    }
    let whole = asked_for(Pods { clock: Clock::real() }, Api::all).await;
    assert!(
        whole.iter().all(|accept| !accept.contains("PartialObjectMetadata")),
        "{whole:?}"
    );
}

#[tokio::test]
async fn only_news_wakes_the_loop() {
    let (store, trigger) = pods();
    let object = |value: Value| serde_json::from_value::<DeserializeGuard<Pod>>(value).unwrap();
    let woken = || trigger.changed().now_or_never().is_some();
    store.take(Event::Init);
    store.take(Event::InitApply(object(pod("a", "1"))));
    assert!(!woken(), "a list that is not complete is no news");
    store.take(Event::InitDone);
    assert!(woken());
    store.take(Event::Apply(object(pod("a", "1"))));
    assert!(!woken(), "the same again");
    store.take(Event::Apply(object(pod("a", "2"))));
    assert!(woken());
    store.take(Event::Delete(object(pod("a", "2"))));
    assert!(woken());
    assert!(store.items().is_empty());
}

#[test]
fn a_pod_is_projected_to_what_matters() {
    let object: DeserializeGuard<Pod> = serde_json::from_value(pod("a", "1")).unwrap();
    assert_eq!(object.name_any(), "a");
    let seen = Pods { clock: Clock::real() }.project(object).unwrap();
    assert_eq!(
        (seen.port, seen.ip.as_deref(), seen.ready),
        (Some(8080), Some("127.0.0.9"), true)
    );
    assert_eq!(
        (seen.server.as_ref().unwrap().as_str(), seen.phase.as_str()),
        ("mac-1", "Running")
    );
}

#[test]
fn a_heartbeat_of_a_node_is_no_news_and_a_cordon_is() {
    let node = |version: &str, unschedulable: bool| {
        let object = json!({"metadata": {"name": "mac-1", "resourceVersion": version, "annotations": {"a/b": "c", "pomarium.dev/hold": ""}},
            "spec": {"unschedulable": unschedulable, "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": null,
                "lastTransitionTime": "2026-11-21T10:00:00Z"}], "images": [{"names": ["x"]}]}});
        Nodes { clock: Clock::real() }
            .project(serde_json::from_value(object).unwrap())
            .unwrap()
    };
    let seen = node("1", false);
    assert_eq!(seen.ready, Readiness::True);
    assert_eq!(seen.annotations.keys().collect::<Vec<_>>(), ["pomarium.dev/hold"]);
    assert_eq!(seen.taints[0].key, "k");
    assert!(!Nodes::matters(&seen, &node("2", false)));
    assert!(Nodes::matters(&seen, &node("2", true)));
}
