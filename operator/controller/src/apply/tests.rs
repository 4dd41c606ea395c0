//! Effects against an API server that records what it is asked and answers as it is told.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use futures::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use pomarium_api::labels;
use pomarium_kernel::lifecycle::{Drain, DrainStep};
use pomarium_kernel::reason::Reason;
use pomarium_kernel::time::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::effect::{Farewell, NodeRef, PodRef, ServerDrain};
use crate::fixture::{NOW, chat, hub, no_members};
use crate::latest::Trigger;
use crate::provider::Providers;
use crate::route::Route;
use crate::world::ObjectKey;

/// One request: verb, path with query, and body.
type Asked = (String, String, Value);

/// Codes and bodies.
type Answers = VecDeque<(u16, Value)>;

/// What the API server has been asked, and how it answers.
#[derive(Clone, Default)]
struct Server {
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Answers by verb and path without query, used up in order; the last one stays.
    answers: Arc<Mutex<BTreeMap<(String, String), Answers>>>,
}

impl Server {
    fn answer(&self, verb: &str, path: &str, code: u16, body: Value) -> &Self {
        let key = (verb.to_owned(), path.to_owned());
        self.answers
            .lock()
            .unwrap()
            .entry(key)
            .or_default()
            .push_back((code, body));
        self
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| server.clone().serve(request));
        Client::new(service, "default")
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let (verb, path) = (parts.method.to_string(), parts.uri.path().to_owned());
        let whole = parts.uri.path_and_query().unwrap().to_string();
        self.asked.lock().unwrap().push((verb.clone(), whole, body.clone()));
        let mut answers = self.answers.lock().unwrap();
        let (code, answer) = match answers.get_mut(&(verb.clone(), path)) {
            Some(told) if told.len() > 1 => told.pop_front().unwrap(),
            Some(told) => told.front().cloned().unwrap(),
            // What is written is accepted as it is; what is read is not there.
            None if verb == "GET" => (404, status(404, "NotFound")),
            None => (200, body),
        };
        let response = Response::builder()
            .status(code)
            .header("content-type", "application/json");
        Ok(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
    }

    fn writes(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(verb, ..)| verb != "GET").cloned().collect()
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": reason})
}

struct Says(Load);

impl AskLoad for Says {
    fn ask<'a>(&'a self, _: &'a SiteName, _: &'a Pod) -> BoxFuture<'a, Load> {
        std::future::ready(self.0).boxed()
    }
}

fn load(running: u32, queued: u32) -> Load {
    Load::Known {
        running,
        queued,
        at: NOW,
    }
}

fn member(server: &Server) -> Member {
    Member {
        site: "home".into(),
        read: server.client(),
        write: server.client(),
        local: true,
    }
}

const POD: &str = "/api/v1/namespaces/assistants/pods/chat-0";
const NODE: &str = "/api/v1/nodes/owned-0";

fn pod_ref() -> PodRef {
    PodRef {
        key: ObjectKey::new("assistants", "chat-0"),
        uid: "u1".to_owned(),
        pool: chat(),
    }
}

fn pod(edit: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "chat-0", "namespace": "assistants", "uid": "u1", "resourceVersion": "7", "labels": {}},
        "spec": {"containers": [], "nodeName": "owned-0"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    edit(&mut pod);
    pod
}

async fn delete(server: &Server, says: Load, farewell: Farewell) -> Outcome {
    let result = pod::delete(&member(server), &Says(says), &pod_ref(), farewell).await;
    result.unwrap_or_else(|outcome| outcome)
}

#[tokio::test]
async fn a_pod_is_deleted_only_when_what_makes_it_safe_still_holds() {
    let serving = |pod: &mut Value| pod["metadata"]["labels"][labels::SERVING] = json!("true");
    let unready = |pod: &mut Value| pod["status"]["conditions"][0]["status"] = json!("False");
    let ended = |pod: &mut Value| {
        serving(pod);
        pod["status"]["phase"] = json!("Failed");
    };
    let busy_cut = Farewell::Cut { requests: 2 };
    let cases: [(&str, Value, Load, Farewell, bool); 12] = [
        ("quiet", pod(|_| {}), load(0, 0), Farewell::Quiet, true),
        ("busy again", pod(|_| {}), load(1, 0), Farewell::Quiet, false),
        ("queued again", pod(|_| {}), load(0, 1), Farewell::Quiet, false),
        ("silent", pod(|_| {}), Load::Unknown, Farewell::Quiet, false),
        ("serving again", pod(serving), load(0, 0), Farewell::Quiet, false),
        ("cut", pod(|_| {}), load(2, 0), busy_cut, true),
        ("cut but not fenced", pod(serving), load(2, 0), busy_cut, false),
        ("never ready", pod(unready), Load::Unknown, Farewell::NotRunning, true),
        (
            "ready after all",
            pod(|_| {}),
            Load::Unknown,
            Farewell::NotRunning,
            false,
        ),
        ("ended", pod(ended), Load::Unknown, Farewell::NotRunning, true),
        ("lost", pod(unready), Load::Unknown, Farewell::Lost, true),
        (
            "another uid",
            pod(|pod| pod["metadata"]["uid"] = json!("u2")),
            load(0, 0),
            Farewell::Quiet,
            false,
        ),
    ];
    for (name, seen, says, farewell, goes) in cases {
        let server = Server::default();
        server.answer("GET", POD, 200, seen);
        server.answer("GET", NODE, 200, json!({"metadata": {"name": "owned-0"}}));
        let outcome = delete(&server, says, farewell).await;
        let writes = server.writes();
        assert_eq!(outcome == Outcome::Done, goes, "{name}: {outcome:?}");
        assert_eq!(writes.len(), usize::from(goes), "{name}: {writes:?}");
        if let [(verb, path, body)] = writes.as_slice() {
            assert_eq!((verb.as_str(), path.starts_with(POD)), ("DELETE", true), "{name}");
            assert_eq!(
                body["preconditions"],
                json!({"uid": "u1", "resourceVersion": "7"}),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn a_pod_whose_node_is_gone_answers_nobody_whatever_its_last_status_says() {
    let server = Server::default();
    server.answer(
        "GET",
        POD,
        200,
        pod(|pod| pod["metadata"]["labels"][labels::SERVING] = json!("true")),
    );
    assert_eq!(delete(&server, Load::Unknown, Farewell::Lost).await, Outcome::Done);
}

#[tokio::test]
async fn a_deletion_that_somebody_else_began_is_only_shortened() {
    for (grace, writes) in [(930, 1), (5, 0)] {
        let server = Server::default();
        let leaving = pod(|pod| pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace));
        server.answer("GET", POD, 200, leaving);
        delete(&server, load(0, 0), Farewell::Quiet).await;
        assert_eq!(server.writes().len(), writes, "{grace} s");
    }
}

#[tokio::test]
async fn what_is_gone_or_was_changed_by_somebody_else_is_no_error() {
    for (code, reason, expected) in [(404, "NotFound", Outcome::Gone), (409, "Conflict", Outcome::Conflict)] {
        let server = Server::default();
        server.answer("GET", POD, 200, pod(|_| {}));
        server.answer("DELETE", POD, code, status(code, reason));
        assert_eq!(delete(&server, load(0, 0), Farewell::Quiet).await, expected);
    }
    let server = Server::default();
    assert_eq!(delete(&server, load(0, 0), Farewell::Quiet).await, Outcome::Gone);
}

#[tokio::test]
async fn the_lifecycle_can_never_create_a_pod_and_owns_nothing_else() {
    let drain = Drain {
        step: DrainStep::Fence,
        step_since: NOW,
        reason: Reason::DemandFell,
        deadline: NOW,
    };
    let server = Server::default();
    pod::set_lifecycle(&member(&server), &pod_ref(), false, Some(drain))
        .await
        .unwrap();
    let writes = server.writes();
    let [(verb, path, body)] = writes.as_slice() else {
        panic!("one write, not {writes:?}")
    };
    assert_eq!(verb, "PATCH");
    assert!(path.contains("fieldManager=pomarium.dev%2Flifecycle"), "{path}");
    assert_eq!(body["metadata"]["uid"], "u1");
    assert_eq!(body["metadata"].get("labels"), None, "left out is removed");
    assert_eq!(body.get("spec"), None);
    let recorded: Drain =
        serde_json::from_str(body["metadata"]["annotations"][labels::DRAIN].as_str().unwrap()).unwrap();
    assert_eq!(recorded, drain);
}

#[tokio::test]
async fn a_serving_label_that_somebody_else_owns_is_taken_off_all_the_same() {
    let server = Server::default();
    let still = pod(|pod| pod["metadata"]["labels"][labels::SERVING] = json!("true"));
    server
        .answer("PATCH", POD, 200, still)
        .answer("PATCH", POD, 200, pod(|_| {}));
    pod::set_lifecycle(&member(&server), &pod_ref(), false, None)
        .await
        .unwrap();
    let writes = server.writes();
    assert_eq!(writes.len(), 2);
    assert_eq!(writes[1].2["metadata"]["labels"], json!({labels::SERVING: null}));
    assert_eq!(writes[1].2["metadata"]["uid"], "u1");
}

fn node(taints: &Value, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "owned-0", "uid": "n1", "resourceVersion": "3", "annotations": annotations},
        "spec": {"taints": taints}})
}

#[tokio::test]
async fn a_mark_leaves_other_people_s_taints_alone_and_is_written_once() {
    let theirs = json!({"key": "theirs", "effect": "NoSchedule"});
    let ours = json!({"key": labels::DRAINING_TAINT, "effect": "NoSchedule"});
    let reference = NodeRef {
        name: "owned-0".into(),
        uid: "n1".to_owned(),
    };
    let drain = ServerDrain {
        since: NOW,
        reason: Reason::ServerIdle,
    };
    let server = Server::default();
    server.answer("GET", NODE, 200, node(&json!([theirs]), &json!({})));
    let outcome = node::mark(&member(&server), &reference, drain).await;
    assert_eq!(outcome, Ok(Outcome::Done));
    let (_, _, body) = &server.writes()[0];
    assert_eq!(body["spec"]["taints"], json!([theirs, ours]));
    assert_eq!(body["metadata"]["resourceVersion"], "3", "nobody is overwritten");

    let server = Server::default();
    let marked = node(&json!([theirs, ours]), &json!({labels::SERVER_DRAIN: "{}"}));
    server
        .answer("GET", NODE, 200, marked)
        .answer("PATCH", NODE, 200, node(&json!([theirs]), &json!({})));
    let outcome = node::mark(&member(&server), &reference, drain).await;
    assert_eq!((outcome, server.writes().len()), (Ok(Outcome::Unchanged), 0));
    node::unmark(&member(&server), &reference).await.unwrap();
    let (_, _, body) = &server.writes()[0];
    assert_eq!(body["spec"]["taints"], json!([theirs]));
    assert_eq!(body["metadata"]["annotations"], json!({labels::SERVER_DRAIN: null}));
}

// ---------------------------------------------------------------------------------------------------------------- lanes

fn hands(server: &Server) -> Hands {
    let hub = hub(&server.client());
    let members = no_members(hub.clone());
    let clock = Clock::compressed(Timestamp::as_millis(NOW), 1.0);
    let providers = Providers::new(hub.clone(), members.clone(), None, clock);
    Hands {
        hub,
        members,
        inventories: Inventories::new(providers, clock, Trigger::default()),
        loads: Arc::new(Says(load(0, 0))),
    }
}

#[tokio::test]
async fn a_finalizer_is_added_once_and_to_the_object_that_was_read() {
    let path = "/apis/pomarium.dev/v1alpha1/namespaces/assistants/serverpools/chat";
    let seen = |finalizers: Value| {
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "chat", "namespace": "assistants", "uid": "p1", "resourceVersion": "5", "finalizers": finalizers}})
    };
    for (before, writes) in [(json!(["other"]), 1), (json!(["other", labels::FINALIZER]), 0)] {
        let server = Server::default();
        server.answer("GET", path, 200, seen(before.clone()));
        server.answer("PATCH", path, 200, seen(before));
        let mut lanes = Applier::new(hands(&server));
        let applied = lanes
            .apply(vec![Effect::AddFinalizer(crate::effect::Object::Pool(chat()))])
            .await;
        assert_eq!(server.writes().len(), writes, "{applied:?}");
        if let Some((_, _, body)) = server.writes().first() {
            let expected = json!({"uid": "p1", "resourceVersion": "5", "finalizers": ["other", labels::FINALIZER]});
            assert_eq!(body["metadata"], expected);
        }
    }
}

#[tokio::test]
async fn a_site_that_does_not_answer_costs_its_own_effects_and_no_others() {
    let server = Server::default();
    let mut lanes = Applier::new(hands(&server));
    let mark = |name: &str| Effect::UnmarkServer {
        site: "gone".into(),
        node: NodeRef {
            name: name.into(),
            uid: String::new(),
        },
    };
    let finalizer = Effect::AddFinalizer(crate::effect::Object::Group("hosted".into()));
    let applied = lanes.apply(vec![mark("a"), mark("b"), finalizer]).await;
    let outcomes: Vec<_> = applied
        .iter()
        .map(|applied| (applied.effect.name(), applied.outcome.name()))
        .collect();
    let mut sorted = outcomes.clone();
    sorted.sort_unstable();
    let expected = [
        ("AddFinalizer", "gone"),
        ("UnmarkServer", "failed"),
        ("UnmarkServer", "not_reached"),
    ];
    assert_eq!(sorted, expected);
    assert!(!lanes.is_busy());
}

const POOL: &str = "/apis/pomarium.dev/v1alpha1/namespaces/assistants/serverpools/chat";

#[tokio::test]
async fn a_finalizer_stays_while_an_earlier_pass_is_still_at_work_elsewhere() {
    let server = Server::default();
    let seen = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "chat", "namespace": "assistants", "uid": "p1", "finalizers": [labels::FINALIZER]}});
    server.answer("GET", POOL, 200, seen);
    let mut lanes = Applier::new(hands(&server));
    let remove = || vec![Effect::RemoveFinalizer(crate::effect::Object::Pool(chat()))];
    lanes.busy.insert(Lane::Site("slow".into()));
    let applied = lanes.apply(remove()).await;
    assert_eq!(
        applied[0].outcome,
        Outcome::NotReached,
        "it may be about to create a Pod"
    );
    assert_eq!(server.writes(), []);
    lanes.busy.clear();
    let applied = lanes.apply(remove()).await;
    assert_eq!(applied[0].outcome, Outcome::Done, "{applied:?}");
}

// --------------------------------------------------------------------------------------------------------------- routes

const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/assistants/httproutes/chat";
const GATEWAY_API: &str = "/apis/gateway.networking.k8s.io/v1";
const SERVICE: &str = "/api/v1/namespaces/assistants/services/chat-owned";

/// A route with one backend, owned by the pool with the uid `p1`.
fn wanted() -> Route {
    let owner = json!([{"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerPool", "name": "chat", "uid": "p1", "controller": true}]);
    let service = json!({"metadata": {"name": "chat-owned", "namespace": "assistants", "ownerReferences": owner},
        "spec": {"ports": [{"port": 80}]}});
    Route {
        services: vec![serde_json::from_value(service).unwrap()],
        http_route: json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "chat", "namespace": "assistants", "ownerReferences": owner},
            "spec": {"hostnames": [], "rules": [{"backendRefs": [{"name": "chat-owned", "weight": 1}]}]}}),
        owner: "p1".to_owned(),
        create: true,
        remote: Vec::new(),
        beyond: Vec::new(),
    }
}

fn offered(server: &Server) {
    let offered = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "gateway.networking.k8s.io/v1",
        "resources": [{"name": "httproutes", "singularName": "httproute", "namespaced": true, "kind": "HTTPRoute", "verbs": ["get"]}]});
    server.answer("GET", GATEWAY_API, 200, offered);
}

fn service() -> Value {
    serde_json::to_value(&wanted().services[0]).unwrap()
}

async fn route(server: &Server, route: &Route) -> Outcome {
    let applied = route::apply(&hub(&server.client()), route).await;
    applied.unwrap_or_else(|outcome| outcome)
}

fn written(server: &Server) -> Vec<String> {
    let path = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
    server.writes().iter().map(|(_, url, _)| path(url)).collect()
}

#[tokio::test]
async fn without_the_gateway_api_no_route_and_no_service_is_tried() {
    let server = Server::default();
    // No status, as a real API server answers where it has no such group.
    let page = || json!("404 page not found");
    server
        .answer("GET", ROUTE, 404, page())
        .answer("GET", GATEWAY_API, 404, page());
    assert_eq!(route(&server, &wanted()).await, Outcome::Gone);
    assert_eq!(server.writes(), []);
}

#[tokio::test]
async fn a_route_is_written_after_its_services_and_only_when_it_differs() {
    let server = Server::default();
    offered(&server);
    assert_eq!(route(&server, &wanted()).await, Outcome::Done);
    assert_eq!(written(&server), [SERVICE, ROUTE]);

    let mut with_defaults = wanted().http_route;
    with_defaults["spec"]["rules"][0]["timeouts"] = json!({"request": "1s"});
    let cases = [
        ("the same", with_defaults, 0),
        (
            "another weight",
            {
                let mut seen = wanted().http_route;
                seen["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!(0);
                seen
            },
            1,
        ),
        (
            "a hostname that the pool does not name any more",
            {
                let mut seen = wanted().http_route;
                seen["spec"]["hostnames"] = json!(["old.example.com"]);
                seen
            },
            1,
        ),
    ];
    for (name, seen, writes) in cases {
        let server = Server::default();
        server
            .answer("GET", ROUTE, 200, seen)
            .answer("GET", SERVICE, 200, service());
        route(&server, &wanted()).await;
        assert_eq!(server.writes().len(), writes, "{name}");
    }
}

#[tokio::test]
async fn what_other_people_made_under_our_names_is_left_as_it_is() {
    for (path, version, kind) in [
        (ROUTE, "gateway.networking.k8s.io/v1", "HTTPRoute"),
        (SERVICE, "v1", "Service"),
    ] {
        let server = Server::default();
        offered(&server);
        let theirs = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "chat"}, "spec": {}});
        server.answer("GET", path, 200, theirs);
        let outcome = route(&server, &wanted()).await;
        let Outcome::Refused(why) = &outcome else {
            panic!("{outcome:?}")
        };
        assert!(why.contains("does not belong to this pool"), "{why}");
        assert_eq!(server.writes(), [], "{path}");
    }
}

#[tokio::test]
async fn the_route_of_a_pool_that_is_being_deleted_follows_its_drains_and_is_not_made_anew() {
    let leaving = Route {
        create: false,
        ..wanted()
    };
    let server = Server::default();
    offered(&server);
    assert_eq!(route(&server, &leaving).await, Outcome::Unchanged);
    assert_eq!(server.writes(), []);
    let mut seen = wanted().http_route;
    seen["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!(4);
    server.answer("GET", ROUTE, 200, seen);
    assert_eq!(route(&server, &leaving).await, Outcome::Done);
    assert_eq!(written(&server), [ROUTE]);
}
