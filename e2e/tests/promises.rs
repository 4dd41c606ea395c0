//! What the operator promises, on real API servers: the chart's rights, the binary as users run it, emulated machines.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams, Patch, PatchParams};
use pomarium_api::labels;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use pomarium_e2e::chart;
use pomarium_e2e::cluster::{AuditEvent, ControlPlane};
use pomarium_e2e::fleet::{Fault, Fleet, FleetConfig, FleetGroup, MetricsAnswer, ModelClient, Supply, TICK};
use pomarium_e2e::operator_process::Operator;
use pomarium_e2e::time::VirtualTime;
use pomarium_e2e::wait::{eventually, until};
use pomarium_kernel::time::Span;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Virtual seconds per real second.
const SCALE: f64 = 20.0;
/// Bound of anything that should take seconds.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than the planner's hold-down of five minutes: whatever it would take away is gone by then.
const PAST_HOLD_DOWN: Span = Span::from_minutes(8);
const TEAM: &str = "assistants";

/// A group of machines that are always on.
fn macs(name: &str, cluster: &str, count: u32) -> FleetGroup {
    support::machines_at(name, cluster, Supply::always_on(count))
}

fn site(name: &str, connection: &Value) -> Value {
    json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerSite", "metadata": {"name": name},
        "spec": {"ownership": "Owned", "residency": ["US"], "connection": connection}})
}

fn group(name: &str, site: &str) -> Value {
    json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerGroup", "metadata": {"name": name, "labels": {"at": site}},
        "spec": {"siteRef": {"name": site}, "machine": {"chip": "M2 Ultra", "gpuCores": 76, "memoryGiB": 192},
            "size": {"max": 8}, "provider": {"static": {"power": "None"}}}})
}

/// A pool with a replica on each of `min` servers at `site`.
fn pool(name: &str, site: &str, min: u32) -> Value {
    json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerPool", "metadata": {"name": name, "namespace": TEAM}, "spec": {
        "model": {"name": "llama-3.1-8b-instruct", "quantization": "Q4_K_M", "parametersBillions": "8.0", "weightsGiB": "4.9",
            "contextTokens": 16384, "kvBytesPerToken": 131_072},
        "engine": {"type": "Vllm", "image": "vllm/vllm-openai:v0.11.0"},
        "objectives": [{"metric": "TimeToFirstToken", "percentile": 95, "threshold": "10s"}],
        "metrics": {"source": "Engine"},
        "placement": {"groupSelector": {"matchLabels": {"at": site}}, "surviveLossOf": "None"},
        "replicas": {"min": min, "max": 4},
        "performance": [{"machine": {"chip": "M2 Ultra", "gpuCores": 76}, "alphaMs": "10.2", "betaMs": "2.5", "deltaMs": "1.0",
            "kvTokens": 400_000, "maxBatch": 16, "prefillChunk": 256, "loadTime": "30s"}]}})
}

fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

async fn apply(cluster: &ControlPlane, objects: &[Value]) {
    let documents: Vec<String> = objects.iter().map(ToString::to_string).collect();
    cluster.apply_yaml(&documents.join("\n---\n")).await.unwrap();
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn kubeconfig_secret(name: &str, kubeconfig: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": chart::NAMESPACE},
        "stringData": {"kubeconfig": kubeconfig}})
}

/// Two clusters, the operator and machines in both.
struct Rig {
    hub: ControlPlane,
    member: ControlPlane,
    fleet: Fleet,
    operator: Operator,
    time: VirtualTime,
    pools: Api<ServerPool>,
    sites: Api<ServerSite>,
    models: ModelClient,
}

impl Rig {
    async fn start() -> Self {
        let (hub, member) = tokio::join!(ControlPlane::start("hub"), ControlPlane::start("member"));
        let (hub, member) = (hub.unwrap(), member.unwrap());
        let time = VirtualTime::from_now(SCALE);
        let clusters = BTreeMap::from([
            ("home".to_owned(), hub.client().await.unwrap()),
            ("away".to_owned(), member.client().await.unwrap()),
        ]);
        let config = FleetConfig {
            clusters,
            groups: vec![macs("home-macs", "home", 4), macs("away-macs", "away", 2)],
            time,
            tick: TICK,
        };
        let fleet = Fleet::start(config).await.unwrap();
        let (scale, origin) = (SCALE.to_string(), time.origin_ms().to_string());
        let args = [
            "--allow-loopback-members",
            "--time-scale",
            &scale,
            "--time-origin",
            &origin,
        ];
        let operator = Operator::start_as_chart(&hub, &args).await.unwrap();
        let kubeconfig = chart::install_member(&member, &[]).await.unwrap();
        apply(&member, &[namespace(TEAM)]).await;
        apply(
            &hub,
            &[
                namespace(TEAM),
                kubeconfig_secret("away", &kubeconfig),
                site("home", &json!({"local": {}})),
                site("away", &json!({"kubeconfigSecretRef": {"name": "away"}})),
                group("home-macs", "home"),
                group("away-macs", "away"),
            ],
        )
        .await;
        operator.wait_until_ready(PATIENCE).await.unwrap();
        let client = hub.client().await.unwrap();
        Self {
            pools: Api::namespaced(client.clone(), TEAM),
            sites: Api::all(client),
            models: ModelClient::default(),
            hub,
            member,
            fleet,
            operator,
            time,
        }
    }

    /// Waits until the pool's condition says so.
    async fn pool_says(&self, name: &str, kind: &str, status: &str) {
        let what = format!("pool {name} to be {kind}={status}");
        let result = eventually(PATIENCE, &what, async || {
            let pool = self.pools.get(name).await.map_err(|error| error.to_string())?;
            let conditions = pool.status.map(|status| status.conditions).unwrap_or_default();
            match condition(&conditions, kind) {
                Some(condition) if condition.status == status => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        self.explained(result.await);
    }

    async fn site_says(&self, name: &str, status: &str) {
        let what = format!("site {name} to be Ready={status}");
        let result = eventually(PATIENCE, &what, async || {
            let site = self.sites.get(name).await.map_err(|error| error.to_string())?;
            let conditions = site.status.map(|status| status.conditions).unwrap_or_default();
            match condition(&conditions, "Ready") {
                Some(condition) if condition.status == status => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        self.explained(result.await);
    }

    fn explained<T>(&self, result: Result<T, pomarium_e2e::wait::TimedOut>) -> T {
        result.unwrap_or_else(|error| panic!("{error}\n{}", self.operator.log_tail()))
    }

    async fn set_replicas(&self, pool: &str, min: u32, max: u32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": {"min": min, "max": max}}}));
        self.pools.patch(pool, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn set_minimum(&self, pool: &str, min: u32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": {"min": min}}}));
        self.pools.patch(pool, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The pool's Pods in a cluster.
    async fn pods(&self, cluster: &ControlPlane, pool: &str) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(cluster.client().await.unwrap(), TEAM);
        let of_pool = ListParams::default().labels(&format!("{}={pool}", labels::POOL));
        pods.list(&of_pool).await.unwrap().items
    }

    async fn serving(&self, cluster: &ControlPlane, pool: &str) -> Vec<Pod> {
        let mut pods = self.pods(cluster, pool).await;
        pods.retain(|pod| {
            pod.metadata
                .labels
                .iter()
                .flatten()
                .any(|(key, _)| key == labels::SERVING)
        });
        pods
    }

    async fn serving_become(&self, cluster: &ControlPlane, pool: &str, count: usize) {
        let what = format!("{count} serving replicas of {pool}");
        let result = eventually(PATIENCE, &what, async || {
            match self.serving(cluster, pool).await.len() {
                serving if serving == count => Ok(()),
                serving => Err(format!("{serving} serve")),
            }
        });
        self.explained(result.await);
    }

    /// A request to one replica, answered with `tokens` tokens. True if it was answered to its end.
    async fn request(&self, pod: &Pod, tokens: u32) -> tokio::task::JoinHandle<bool> {
        let address = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
        let answering = self.models.ask(&address, tokens).await.unwrap();
        tokio::spawn(async move { answering.read().await.whole })
    }
}

/// One set of clusters for all of it: starting them takes longer than most of the steps.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_keeps_its_promises() {
    let mut rig = Rig::start().await;
    apply(&rig.hub, &[pool("chat", "home", 3), pool("batch", "away", 2)]).await;
    for (pool, cluster, replicas) in [("chat", &rig.hub, 3), ("batch", &rig.member, 2)] {
        rig.pool_says(pool, "Ready", "True").await;
        rig.serving_become(cluster, pool, replicas).await;
    }
    nothing_is_written_while_nothing_changes(&rig).await;
    a_drain_survives_the_death_of_the_operator(&mut rig).await;
    missing_metrics_are_not_idleness(&rig).await;
    a_site_that_does_not_answer_keeps_what_it_has(&rig).await;
    assert_eq!(rig.fleet.summary().cut(), 0, "no request was ever cut");
    assert!(
        rig.operator.terminate(Duration::from_secs(10)).await,
        "it ends by itself when it is asked to"
    );
    rig.fleet.stop().await;
}

/// Writes to the API server that the operator made, without renewals of its Lease and batches of what it remembers.
fn writes(cluster: &ControlPlane) -> Vec<String> {
    let account = format!("system:serviceaccount:{}:{}", chart::NAMESPACE, chart::RELEASE);
    let events = cluster.audit().unwrap();
    let remembers = |event: &AuditEvent| event.resource == "configmaps" && event.name.starts_with("pomarium-");
    let ours = events
        .iter()
        .filter(|event| event.user == account && event.is_write() && event.resource != "leases" && !remembers(event));
    ours.map(|event| format!("{} {} {}", event.received, event.verb, event.uri))
        .collect()
}

async fn nothing_is_written_while_nothing_changes(rig: &Rig) {
    let calm = || (writes(&rig.hub).len(), writes(&rig.member).len());
    // What follows from having become ready may still be written: measurements begin, hold-downs end.
    let result = eventually(PATIENCE, "20 s without a write", async || {
        let before = calm();
        tokio::time::sleep(Duration::from_secs(20)).await;
        if calm() == before {
            Ok(())
        } else {
            Err(format!("{:?}", writes(&rig.hub).last()))
        }
    });
    rig.explained(result.await);
    let before = calm();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (hub, member) = (writes(&rig.hub), writes(&rig.member));
    assert!(
        before.0 > 0 && before.1 > 0,
        "the audit log shows the operator's writes"
    );
    assert_eq!(&hub[before.0..], &[] as &[String]);
    assert_eq!(&member[before.1..], &[] as &[String]);
    let metrics = rig.operator.metrics().await.unwrap();
    assert!(
        metrics.contains("pomarium_passes_total{outcome=\"completed\"}"),
        "{metrics}"
    );
}

async fn a_drain_survives_the_death_of_the_operator(rig: &mut Rig) {
    let pods = rig.serving(&rig.hub, "chat").await;
    let mut answers = Vec::new();
    for pod in &pods {
        // Some twenty-five seconds each: longer than a busy machine needs for what follows.
        answers.push(rig.request(pod, 40_000).await);
    }
    let victim = pods[0].clone();
    let name = victim.metadata.name.clone().unwrap();
    let server = victim.spec.unwrap().node_name.unwrap();
    let nodes: Api<Node> = Api::all(rig.hub.client().await.unwrap());
    nodes.cordon(&server).await.unwrap();

    let api: Api<Pod> = Api::namespaced(rig.hub.client().await.unwrap(), TEAM);
    let drains = eventually(PATIENCE, "the drain to begin", async || {
        let pod = api.get(&name).await.map_err(|error| error.to_string())?;
        match pod.metadata.annotations.unwrap_or_default().get(labels::DRAIN) {
            Some(drain) => Ok(drain.clone()),
            None => Err("no drain is recorded".to_owned()),
        }
    });
    rig.explained(drains.await);
    rig.operator.kill9();
    assert!(!answers[0].is_finished(), "the request on {name} is under way");
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.operator.restart().unwrap();

    for answer in answers {
        assert!(answer.await.unwrap(), "answered to its end");
    }
    let gone = until(PATIENCE, "the drained Pod to be gone", async || {
        api.get_opt(&name).await.unwrap().is_none()
    });
    rig.explained(gone.await);
    assert_eq!(rig.fleet.summary().cut(), 0);
    nodes.uncordon(&server).await.unwrap();
    rig.pool_says("chat", "Ready", "True").await;
    // The plan ahead may put the machine that is free again to use, too.
    let what = "the pool to be whole again";
    let whole = until(PATIENCE, what, async || rig.serving(&rig.hub, "chat").await.len() >= 3);
    rig.explained(whole.await);
}

async fn missing_metrics_are_not_idleness(rig: &Rig) {
    let lost = |answers: [MetricsAnswer; 2]| {
        let inject = |(number, answer)| {
            let server = format!("home-macs-{number}");
            rig.fleet.inject(Fault::LostMetrics { server, answer }).unwrap()
        };
        let every_second = answers.into_iter().cycle().take(4);
        every_second.enumerate().map(inject).collect::<Vec<_>>()
    };
    for answers in [
        [MetricsAnswer::NotFound, MetricsAnswer::Garbage],
        [MetricsAnswer::Hang, MetricsAnswer::Huge],
    ] {
        let faults = lost(answers);
        rig.pool_says("chat", "MetricsAvailable", "False").await;
        rig.set_minimum("chat", 1).await;
        stays(rig, &rig.hub, "chat", 3).await;
        // It harms nobody else, and not the operator.
        rig.pool_says("batch", "MetricsAvailable", "True").await;
        let resident = rig.operator.resident_bytes().unwrap() >> 20;
        assert!(resident < 200, "the operator holds {resident} MiB");
        rig.set_minimum("chat", 3).await;
        for fault in faults {
            rig.fleet.clear(fault);
        }
        rig.pool_says("chat", "MetricsAvailable", "True").await;
    }
    // With metrics as many serve as the spec allows: the plan ahead leaves no machine idle that costs the same if it serves.
    rig.set_replicas("chat", 1, 1).await;
    rig.serving_become(&rig.hub, "chat", 1).await;
}

async fn a_site_that_does_not_answer_keeps_what_it_has(rig: &Rig) {
    rig.member.pause_api_server().unwrap();
    rig.set_replicas("batch", 1, 1).await;
    rig.site_says("away", "Unknown").await;
    tokio::time::sleep(rig.time.real(PAST_HOLD_DOWN)).await;
    assert_eq!(
        rig.fleet.summary().groups["away-macs"].serving,
        2,
        "its replicas serve on"
    );
    // A dead site costs the others nothing.
    rig.set_replicas("chat", 2, 2).await;
    rig.serving_become(&rig.hub, "chat", 2).await;

    rig.member.resume_api_server().unwrap();
    rig.site_says("away", "True").await;
    assert_eq!(
        rig.serving(&rig.member, "batch").await.len(),
        2,
        "nothing was taken away meanwhile"
    );
    rig.serving_become(&rig.member, "batch", 1).await;
}

/// Nothing is taken away for longer than any hold-down; more may come.
async fn stays(rig: &Rig, cluster: &ControlPlane, pool: &str, count: usize) {
    let end = Instant::now() + rig.time.real(PAST_HOLD_DOWN);
    while Instant::now() < end {
        let serving = rig.serving(cluster, pool).await.len();
        assert!(
            serving >= count,
            "{serving} of {count} replicas of {pool} serve\n{}",
            rig.operator.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_that_asks_for_more_than_it_may_is_refused_by_a_condition_that_names_the_field() {
    let hub = ControlPlane::start("hub").await.unwrap();
    let operator = Operator::start_as_chart(&hub, &[]).await.unwrap();
    let canary = tempfile::tempdir().unwrap();
    let touch = canary.path().join("ran").display().to_string();
    let users = [
        (
            "exec",
            json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "touch", "args": [&touch], "interactiveMode": "Never"}),
        ),
        (
            "auth-provider",
            json!({"name": "gcp", "config": {"cmd-path": "touch", "cmd-args": &touch}}),
        ),
        ("tokenFile", json!("/etc/hostname")),
        ("client-certificate", json!("/etc/hostname")),
        ("client-key", json!("/etc/hostname")),
        ("username", json!("admin")),
        ("password", json!("admin")),
        ("as", json!("admin")),
        ("as-uid", json!("1")),
        ("as-groups", json!(["system:masters"])),
        ("as-user-extra", json!({"a": ["b"]})),
    ];
    let clusters = [
        ("certificate-authority", json!("/etc/hostname")),
        ("proxy-url", json!("http://127.0.0.1:1")),
        ("insecure-skip-tls-verify", json!(true)),
        ("tls-server-name", json!("other")),
        ("server", json!("http://10.0.0.1")),
        // Only with --allow-loopback-members.
        ("server", json!("https://127.0.0.1:6443")),
        ("server", json!("https://169.254.169.254")),
    ];
    let cases = users
        .into_iter()
        .map(|(field, value)| ("users[0].user", "user", field, value))
        .chain(
            clusters
                .into_iter()
                .map(|(field, value)| ("clusters[0].cluster", "cluster", field, value)),
        );

    let mut expected = BTreeMap::new();
    let mut objects = Vec::new();
    for (number, (path, inner, field, value)) in cases.enumerate() {
        let list = if inner == "user" { "users" } else { "clusters" };
        let mut kubeconfig: Value = serde_yaml::from_str(hub.kubeconfig_yaml()).unwrap();
        kubeconfig["clusters"][0]["cluster"]["server"] = json!("https://10.0.0.1:6443");
        kubeconfig[list][0][inner][field] = value;
        let name = format!("site-{number}");
        objects.push(kubeconfig_secret(&name, &kubeconfig.to_string()));
        objects.push(site(&name, &json!({"kubeconfigSecretRef": {"name": &name}})));
        expected.insert(name, format!("{path}.{field}"));
    }
    apply(&hub, &objects).await;
    let sites: Api<ServerSite> = Api::all(hub.client().await.unwrap());
    for (name, field) in expected {
        let what = format!("site {name} to be refused for {field}");
        let refused = eventually(PATIENCE, &what, async || {
            let site = sites.get(&name).await.map_err(|error| error.to_string())?;
            let conditions = site.status.map(|status| status.conditions).unwrap_or_default();
            match condition(&conditions, "Stalled") {
                Some(Condition { reason, message, .. })
                    if reason == "CredentialRejected" && message.contains(&field) =>
                {
                    Ok(())
                }
                _ => Err(format!("{conditions:?}")),
            }
        });
        refused
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", operator.log_tail()));
    }
    assert!(
        std::fs::read_dir(canary.path()).unwrap().next().is_none(),
        "a program was run"
    );
}
