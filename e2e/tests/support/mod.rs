//! What tests of the running operator share: one cluster that is hub and site, emulated machines, manifests, requests.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use pomarium_api::labels;
use pomarium_api::pool::{EngineType, ServerPool};
use pomarium_e2e::chart;
use pomarium_e2e::cluster::{AuditEvent, ControlPlane};
use pomarium_e2e::fleet::{
    Fleet, FleetConfig, FleetGroup, LeaseTerms, Machine, ModelClient, ModelProfile, Supply, TICK,
};
use pomarium_e2e::operator_process::{Operator, OperatorConfig};
use pomarium_e2e::time::VirtualTime;
use pomarium_e2e::wait::{TimedOut, eventually};
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Money;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Virtual seconds per real second.
pub(crate) const SCALE: f64 = 20.0;
/// Bound of anything that should take seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The namespace of the pools.
pub(crate) const TEAM: &str = "assistants";

/// A group of emulated M2 Ultras in the one cluster.
pub(crate) fn machines(name: &str, supply: Supply) -> FleetGroup {
    machines_at(name, "home", supply)
}

/// The same in any cluster.
pub(crate) fn machines_at(name: &str, cluster: &str, supply: Supply) -> FleetGroup {
    let machine = Machine {
        chip: "M2 Ultra".to_owned(),
        cpus: 24,
        memory_gib: 192,
    };
    let model = ModelProfile {
        model: "llama-3.1-8b-instruct".to_owned(),
        engine: EngineType::Vllm,
        times: StepTimes {
            alpha_ns: 10_200_000,
            beta_ns: 2_500_000,
            delta_ns: 1_000_000,
            kv_tokens: 400_000,
            max_batch: 16,
            prefill_chunk: 256,
        },
        load_time: Span::from_secs(30),
    };
    FleetGroup::new(name, cluster, machine, supply, model)
}

/// Two machines that can be rented for at least `minimum`, and are there after a minute and a half.
pub(crate) fn rented(minimum: Span) -> Supply {
    Supply {
        maximum: 2,
        always_on: false,
        provision: Span::from_minutes(1),
        boot: Span::from_secs(30),
        recycle: Span::from_minutes(2),
        lease: Some(LeaseTerms {
            hourly: Money::from_micros(2_000_000),
            minimum,
        }),
    }
}

/// The hub itself as the site `home`.
pub(crate) fn site() -> Value {
    json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerSite", "metadata": {"name": "home"},
        "spec": {"ownership": "Owned", "residency": ["US"], "connection": {"local": {}}}})
}

/// A group at the site `home` with the label `at`, with what is special about it.
pub(crate) fn group(name: &str, at: &str, special: &Value) -> Value {
    let mut group = json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerGroup",
        "metadata": {"name": name, "labels": {"at": at}},
        "spec": {"siteRef": {"name": "home"}, "machine": {"chip": "M2 Ultra", "gpuCores": 76, "memoryGiB": 192},
            "size": {"max": 2}}});
    merge(&mut group["spec"], special);
    group
}

/// A pool with a replica on each of `min` servers, with what is special about it.
pub(crate) fn pool(name: &str, min: u32, special: &Value) -> Value {
    let mut pool = json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerPool", "metadata": {"name": name, "namespace": TEAM}, "spec": {
        "model": {"name": "llama-3.1-8b-instruct", "quantization": "Q4_K_M", "parametersBillions": "8.0", "weightsGiB": "4.9",
            "contextTokens": 16384, "kvBytesPerToken": 131_072},
        "engine": {"type": "Vllm", "image": "vllm/vllm-openai:v0.11.0"},
        "objectives": [{"metric": "TimeToFirstToken", "percentile": 95, "threshold": "10s"}],
        "metrics": {"source": "Engine"},
        "placement": {"surviveLossOf": "None"},
        "replicas": {"min": min, "max": 4},
        "performance": [{"machine": {"chip": "M2 Ultra", "gpuCores": 76}, "alphaMs": "10.2", "betaMs": "2.5", "deltaMs": "1.0",
            "kvTokens": 400_000, "maxBatch": 16, "prefillChunk": 256, "loadTime": "30s"}]}});
    merge(&mut pool["spec"], special);
    pool
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

/// One cluster that is hub and site, with the operator and machines.
pub(crate) struct Rig {
    pub(crate) hub: ControlPlane,
    pub(crate) client: kube::Client,
    pub(crate) fleet: Fleet,
    pub(crate) operator: Operator,
    pub(crate) time: VirtualTime,
    pub(crate) pods: Api<Pod>,
    pub(crate) pools: Api<ServerPool>,
    http: ModelClient,
}

impl Rig {
    /// Starts all of it. The operator may still be waiting for its kinds: `install` gives the kubeconfig that it acts with.
    pub(crate) async fn start(groups: Vec<FleetGroup>, install: impl AsyncFnOnce(&ControlPlane) -> String) -> Self {
        let hub = ControlPlane::start("hub").await.unwrap();
        let client = hub.client().await.unwrap();
        let time = VirtualTime::from_now(SCALE);
        let fleet = Fleet::start(FleetConfig {
            clusters: BTreeMap::from([("home".to_owned(), client.clone())]),
            groups,
            time,
            tick: TICK,
        });
        let fleet = fleet.await.unwrap();
        let config = OperatorConfig::new(install(&hub).await).args([
            format!("--fleet-url={}", fleet.url()),
            format!("--time-scale={SCALE}"),
            format!("--time-origin={}", time.origin_ms()),
        ]);
        Self {
            operator: Operator::start(config).await.unwrap(),
            pods: Api::namespaced(client.clone(), TEAM),
            pools: Api::namespaced(client.clone(), TEAM),
            http: ModelClient::default(),
            hub,
            client,
            fleet,
            time,
        }
    }

    pub(crate) async fn apply(&self, objects: &[Value]) {
        let documents: Vec<String> = objects.iter().map(ToString::to_string).collect();
        self.hub.apply_yaml(&documents.join("\n---\n")).await.unwrap();
    }

    /// Waits with the operator's log at hand.
    pub(crate) async fn eventually<T>(&self, what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
        self.explained(eventually(PATIENCE, what, look).await)
    }

    pub(crate) fn explained<T>(&self, result: Result<T, TimedOut>) -> T {
        result.unwrap_or_else(|error| panic!("{error}\n{}", self.operator.log_tail()))
    }

    /// Waits until the pool's condition has this reason.
    pub(crate) async fn pool_says(&self, name: &str, kind: &str, reason: &str) -> Condition {
        self.eventually(&format!("pool {name} to be {kind}: {reason}"), async || {
            let pool = self.pools.get(name).await.map_err(|error| error.to_string())?;
            let conditions = pool.status.map(|status| status.conditions).unwrap_or_default();
            let found = conditions.iter().find(|condition| condition.type_ == kind);
            match found {
                Some(condition) if condition.reason == reason => Ok(condition.clone()),
                _ => Err(format!("{conditions:?}")),
            }
        })
        .await
    }

    pub(crate) async fn set_minimum(&self, pool: &str, min: u32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": {"min": min}}}));
        self.pools.patch(pool, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Replicas that take requests.
    pub(crate) async fn serving(&self, pool: &str) -> Vec<Pod> {
        let selector = format!("{}={pool},{}=true", labels::POOL, labels::SERVING);
        self.pods
            .list(&ListParams::default().labels(&selector))
            .await
            .unwrap()
            .items
    }

    pub(crate) async fn serving_become(&self, pool: &str, count: usize) -> Vec<Pod> {
        self.eventually(&format!("{count} serving replicas of {pool}"), async || {
            let serving = self.serving(pool).await;
            if serving.len() == count {
                Ok(serving)
            } else {
                Err(format!("{} serve", serving.len()))
            }
        })
        .await
    }

    /// A request that is answered with `tokens` tokens. True if it was answered to its end.
    pub(crate) async fn request(&self, pod: &Pod, tokens: u32) -> JoinHandle<bool> {
        let address = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
        let answer = self.http.ask(&address, tokens).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", pod.name_any()));
        tokio::spawn(async move { answer.read().await.whole })
    }

    /// What the operator asked of the API server.
    pub(crate) fn asked(&self) -> Vec<AuditEvent> {
        let account = format!("system:serviceaccount:{}:{}", chart::NAMESPACE, chart::RELEASE);
        let mut events = self.hub.audit().unwrap();
        events.retain(|event| event.user == account);
        events
    }

    /// What it wrote to these resources.
    pub(crate) fn written(&self, resources: &[&str]) -> Vec<AuditEvent> {
        let mut events = self.asked();
        events.retain(|event| event.is_write() && resources.contains(&event.resource.as_str()));
        events
    }

    /// Passes that the operator has completed.
    pub(crate) async fn passes(&self) -> f64 {
        let text = self.operator.metrics().await.unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("pomarium_passes_total{outcome=\"completed\"} "));
        line.map_or(0.0, |count| count.parse().unwrap())
    }
}
