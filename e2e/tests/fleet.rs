//! The emulated fleet in a real cluster: its Nodes are judged by a real controller manager, its Pods placed by a real scheduler.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use pomarium_api::pool::EngineType;
use pomarium_e2e::cluster::ControlPlane;
use pomarium_e2e::fleet::{
    Answered, Answering, Fault, Fleet, FleetConfig, FleetGroup, LeaseTerms, Machine, ModelClient, ModelProfile,
    ServerState, Supply, TICK,
};
use pomarium_e2e::host;
use pomarium_e2e::readiness::{node_readiness, pod_is_ready};
use pomarium_e2e::time::VirtualTime;
use pomarium_e2e::wait::{eventually, until};
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Money;
use serde_json::{Value, json};

const SCALE: f64 = 20.0;
const PATIENCE: Duration = Duration::from_secs(30);
const MS: u64 = 1_000_000;
/// A minute of virtual time is 3 s.
const LEAD: Span = Span::from_secs(60);
const LOAD: Span = Span::from_secs(40);

fn group(name: &str, supply: Supply) -> FleetGroup {
    let machine = Machine {
        chip: "M4 Pro".to_owned(),
        cpus: 14,
        memory_gib: 48,
    };
    let model = ModelProfile {
        model: "m".to_owned(),
        engine: EngineType::LlamaCpp,
        times: StepTimes {
            alpha_ns: 10 * MS,
            beta_ns: 2 * MS,
            delta_ns: MS,
            kv_tokens: 20_000,
            max_batch: 8,
            prefill_chunk: 256,
        },
        load_time: LOAD,
    };
    FleetGroup::new(name, "site", machine, supply, model)
}

fn own(count: u32) -> FleetGroup {
    group("own", Supply::always_on(count))
}

fn hosted(count: u32) -> FleetGroup {
    let supply = Supply {
        maximum: count,
        always_on: false,
        provision: LEAD,
        boot: Span::ZERO,
        // 20 s of real time, so that a busy machine still sees it recycle.
        recycle: Span::from_secs(400),
        lease: Some(LeaseTerms {
            hourly: Money::from_micros(2_000_000),
            minimum: Span::from_hours(1),
        }),
    };
    group("hosted", supply)
}

/// A Pod of an engine for servers of `group`, to be placed by the scheduler.
fn replica(name: &str, group: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"pomarium.dev/group": group},
            "terminationGracePeriodSeconds": 900,
            "containers": [{
                "name": "engine", "image": "llama.cpp:test",
                "ports": [{"name": "http", "containerPort": 8080}],
                "lifecycle": {"preStop": {"exec": {"command": ["wait-for-idle"]}}},
            }],
        },
    }))
    .unwrap()
}

struct Rig {
    site: ControlPlane,
    fleet: Fleet,
    time: VirtualTime,
    nodes: Api<Node>,
    pods: Api<Pod>,
    models: ModelClient,
    http: reqwest::Client,
}

impl Rig {
    async fn start(groups: Vec<FleetGroup>) -> Self {
        let site = ControlPlane::start("site").await.unwrap();
        let client = site.client().await.unwrap();
        let time = VirtualTime::from_now(SCALE);
        let config = FleetConfig {
            clusters: BTreeMap::from([("site".to_owned(), client.clone())]),
            groups,
            time,
            tick: TICK,
        };
        Self {
            site,
            fleet: Fleet::start(config).await.unwrap(),
            time,
            nodes: Api::all(client.clone()),
            pods: Api::namespaced(client, "default"),
            models: ModelClient::default(),
            http: {
                let _ = rustls::crypto::ring::default_provider().install_default();
                reqwest::Client::builder().no_proxy().build().unwrap()
            },
        }
    }

    async fn api(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.fleet.url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn node_is(&self, name: &str, ready: &str, limit: Duration) -> Node {
        eventually(limit, &format!("Node {name} to be Ready={ready}"), async || {
            let node = self.nodes.get(name).await.map_err(|error| error.to_string())?;
            match node_readiness(&node) {
                Some(says) if says == ready => Ok(node),
                says => Err(format!("it is {says:?}")),
            }
        })
        .await
        .unwrap()
    }

    /// Waits until the Pod is ready, and gives its address.
    async fn ready(&self, name: &str) -> String {
        eventually(PATIENCE, &format!("Pod {name} to be ready"), async || {
            let pod = self.pods.get(name).await.map_err(|error| error.to_string())?;
            let ready = pod_is_ready(&pod);
            let status = pod.status.unwrap_or_default();
            match status.pod_ip {
                Some(address) if ready => Ok(address),
                _ => Err(format!("{:?}", status.conditions)),
            }
        })
        .await
        .unwrap()
    }

    async fn ask(&self, address: &str, tokens: u32) -> Answering {
        self.models.ask(address, tokens).await.unwrap()
    }

    /// Waits until the group's engines work on `count` requests.
    async fn runs(&self, group: &str, count: u64) {
        until(PATIENCE, "the streams to run", async || {
            self.fleet.summary().groups[group].running == count
        })
        .await
        .unwrap();
    }

    async fn pod_is_gone(&self, name: &str) {
        until(PATIENCE, "the Pod to be gone", async || {
            self.pods.get_opt(name).await.unwrap().is_none()
        })
        .await
        .unwrap();
    }

    async fn refuses(&self, address: &str) -> bool {
        tokio::net::TcpStream::connect((address, 8080)).await.is_err()
    }
}

/// All of an answer of `tokens` tokens.
fn whole(tokens: u64) -> Answered {
    Answered { tokens, whole: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_on_an_own_server_loads_serves_and_ends_without_a_cut() {
    let rig = Rig::start(vec![own(2)]).await;
    let node = rig.node_is("own-0", "True", PATIENCE).await;
    let labels = node.metadata.labels.unwrap();
    assert_eq!(
        (
            labels["pomarium.dev/group"].as_str(),
            labels["kubernetes.io/os"].as_str()
        ),
        ("own", "darwin")
    );
    assert_eq!(node.status.unwrap().capacity.unwrap()["memory"].0, "48Gi");
    rig.node_is("own-1", "True", PATIENCE).await;

    let created = rig.time.now();
    rig.pods
        .create(&PostParams::default(), &replica("chat-0", "own"))
        .await
        .unwrap();
    let address = rig.ready("chat-0").await;
    assert!(
        rig.time.now() >= created + LOAD,
        "ready before its model can have been loaded"
    );

    // Deleted in the middle of an answer: finished, then gone.
    let reading = tokio::spawn(rig.ask(&address, 4_000).await.read());
    rig.runs("own", 1).await;
    rig.pods.delete("chat-0", &DeleteParams::default()).await.unwrap();
    assert_eq!(
        tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap(),
        whole(4_000)
    );
    rig.pod_is_gone("chat-0").await;
    assert!(rig.refuses(&address).await);
    let summary = rig.fleet.summary();
    assert_eq!((summary.groups["own"].completed, summary.cut()), (1, 0));

    // Deleted by force: what runs is cut, and counted.
    rig.pods
        .create(&PostParams::default(), &replica("chat-1", "own"))
        .await
        .unwrap();
    let address = rig.ready("chat-1").await;
    let reading = tokio::spawn(rig.ask(&address, 10_000).await.read());
    rig.runs("own", 1).await;
    rig.pods
        .delete("chat-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(!tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap().whole);
    until(PATIENCE, "the cut to be counted", async || {
        rig.fleet.summary().cut() == 1
    })
    .await
    .unwrap();
    assert!(rig.refuses(&address).await);

    // Deleted with a hook that sleeps: it serves on, until a second deletion shortens the wait.
    let mut sleeper = replica("chat-2", "own");
    let hook = json!({"preStop": {"sleep": {"seconds": 800}}});
    sleeper.spec.as_mut().unwrap().containers[0].lifecycle = serde_json::from_value(hook).unwrap();
    rig.pods.create(&PostParams::default(), &sleeper).await.unwrap();
    let address = rig.ready("chat-2").await;
    rig.pods.delete("chat-2", &DeleteParams::default()).await.unwrap();
    assert_eq!(rig.ask(&address, 50).await.read().await, whole(50));
    let shortened = rig.time.now();
    rig.pods
        .delete("chat-2", &DeleteParams::default().grace_period(2))
        .await
        .unwrap();
    rig.pod_is_gone("chat-2").await;
    assert!(rig.time.now() >= shortened + Span::from_secs(2));
    assert!(rig.refuses(&address).await);
    assert_eq!(rig.fleet.summary().cut(), 1);
    rig.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_server_comes_after_its_lead_time_and_goes_with_everything_on_it() {
    let rig = Rig::start(vec![hosted(1)]).await;
    let server = "/v1/groups/hosted/servers/hosted-0";
    assert_eq!(rig.api("GET", "/v1/groups/none/servers", None).await.0, 404);
    let (_, fault) = rig
        .api(
            "POST",
            "/v1/faults",
            Some(json!({"kind": "OutOfStock", "group": "hosted"})),
        )
        .await;
    let (status, refusal) = rig.api("PUT", server, None).await;
    assert_eq!((status, refusal["reason"].as_str()), (409, Some("OutOfStock")));
    assert_eq!(
        rig.api("DELETE", &format!("/v1/faults/{}", fault["id"]), None).await.0,
        204
    );

    let (status, bought) = rig.api("PUT", server, None).await;
    assert_eq!((status, bought["state"].as_str()), (201, Some("Provisioning")));
    let (status, again) = rig.api("PUT", server, None).await;
    assert_eq!((status, &again), (200, &bought));
    assert!(rig.nodes.get_opt("hosted-0").await.unwrap().is_none());
    rig.node_is("hosted-0", "True", PATIENCE).await;
    let requested = Timestamp::parse(bought["requestedAt"].as_str().unwrap()).unwrap();
    assert!(
        rig.time.now() >= requested + LEAD,
        "ready before its lead time has passed"
    );
    let (_, list) = rig.api("GET", "/v1/groups/hosted/servers", None).await;
    assert_eq!(
        (&list["servers"][0]["state"], &list["servers"][0]["node"]),
        (&json!("Ready"), &json!("hosted-0"))
    );

    rig.pods
        .create(&PostParams::default(), &replica("chat-0", "hosted"))
        .await
        .unwrap();
    let address = rig.ready("chat-0").await;
    let (status, released) = rig.api("DELETE", server, None).await;
    assert_eq!((status, released["state"].as_str()), (202, Some("Releasing")));
    until(PATIENCE, "the Node to be gone", async || {
        rig.nodes.get_opt("hosted-0").await.unwrap().is_none()
    })
    .await
    .unwrap();
    rig.pod_is_gone("chat-0").await;
    assert!(rig.refuses(&address).await);
    let (status, refusal) = rig.api("PUT", server, None).await;
    assert_eq!((status, refusal["reason"].as_str()), (409, Some("Recycling")));
    until(2 * PATIENCE, "the machine to be free again", async || {
        rig.fleet.servers("hosted").is_empty()
    })
    .await
    .unwrap();
    assert_eq!(rig.api("DELETE", server, None).await.0, 200);

    let (_, summary) = rig.api("GET", "/v1/summary", None).await;
    let hosted = &summary["groups"]["hosted"];
    // Given back within the first hour: one hour is paid.
    assert_eq!(
        (hosted["cost"].as_str(), hosted["leases"].as_array().unwrap().len()),
        (Some("2.00"), 1)
    );
    assert_eq!((&hosted["serversPeak"], &hosted["cut"]), (&json!(1), &json!(0)));
    rig.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_serve_through_an_outage_of_their_api_server_and_silent_servers_are_found_not_ready() {
    let rig = Rig::start(vec![own(2)]).await;
    rig.pods
        .create(&PostParams::default(), &replica("chat-0", "own"))
        .await
        .unwrap();
    let address = rig.ready("chat-0").await;

    rig.site.pause_api_server().unwrap();
    assert_eq!(rig.ask(&address, 50).await.read().await, whole(50));
    rig.site.resume_api_server().unwrap();
    rig.site.restart_api_server().await.unwrap();
    rig.pods
        .create(&PostParams::default(), &replica("chat-1", "own"))
        .await
        .unwrap();
    rig.ready("chat-1").await;
    assert_eq!(rig.ask(&address, 50).await.read().await, whole(50));

    let node = rig.pods.get("chat-0").await.unwrap().spec.unwrap().node_name.unwrap();
    let not_ready = rig.fleet.inject(Fault::NodeNotReady { server: node.clone() }).unwrap();
    rig.node_is(&node, "False", PATIENCE).await;
    assert!(rig.fleet.clear(not_ready));
    rig.node_is(&node, "True", PATIENCE).await;

    // The controller manager waits 50 s for a heartbeat, which is its business and real time.
    let death = rig.fleet.inject(Fault::SilentDeath { server: node.clone() }).unwrap();
    assert!(
        rig.fleet
            .inject(Fault::Hang {
                server: "nobody".into()
            })
            .is_err()
    );
    rig.node_is(&node, "Unknown", Duration::from_secs(100)).await;
    assert!(rig.fleet.clear(death));
    rig.node_is(&node, "True", PATIENCE).await;
    assert_eq!(
        rig.fleet
            .servers("own")
            .iter()
            .filter(|s| s.state == ServerState::Ready)
            .count(),
        2
    );
    // Its engine has started anew, with the model to load.
    until(PATIENCE, "the restart to be told", async || {
        let pod = rig.pods.get("chat-0").await.unwrap();
        pod.status.unwrap().container_statuses.unwrap()[0].restart_count == 1
    })
    .await
    .unwrap();
    let address = rig.ready("chat-0").await;
    assert_eq!(rig.ask(&address, 50).await.read().await, whole(50));
    rig.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_servers_run_in_one_process() {
    let rig = Rig::start(vec![own(300)]).await;
    until(Duration::from_secs(180), "all Nodes to be ready", async || {
        let nodes = rig.nodes.list(&ListParams::default()).await.unwrap();
        nodes.iter().filter(|node| node_readiness(node) == Some("True")).count() == 300
    })
    .await
    .unwrap();
    let mebibytes = host::resident_bytes(std::process::id()).unwrap() >> 20;
    assert!(mebibytes < 300, "{mebibytes} MiB");
    rig.fleet.stop().await;
}
