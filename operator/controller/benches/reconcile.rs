//! What a pass costs in which nothing is to be done: `cargo bench --package pomarium-controller`.
//!
//! One pass is the way from caches to "no write", as the loop goes it: join what Nodes, Pods, providers, engines and gateways said into a
//! snapshot, plan, build effects, build statuses, and compare them with what the objects say. The caches are full and the status writer has
//! an API server that counts: a pass that asks it for anything ends the measurement. Not in it: decoding of watch events, scrapes, the
//! history of demand and the strategic plan, which go on beside the loop, and the wait for further changes (60 ms) before a pass begins.
//!
//! All objects are handled by one pass, so that objects/s are those of a pass over its time. Figures say something about the machine as well:
//! none is asserted.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use kube::client::Body;
use kube::{Client, ResourceExt};
use pomarium_api::labels;
use pomarium_controller::build::{self, Context};
use pomarium_controller::effect::Effect;
use pomarium_controller::member::Hub;
use pomarium_controller::observe::observe;
use pomarium_controller::status::{Done, Said, StatusWriter, Statuses, statuses};
use pomarium_controller::world::{Measurement, NodeSeen, ObjectKey, PodSeen, Readiness, SiteSeen, World};
use pomarium_kernel::names::{GroupName, PoolId, ServerName, SiteName};
use pomarium_kernel::planning::{self, Memo};
use pomarium_kernel::snapshot::{Arrivals, Contact, Demand, Load, Measured};
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::{Fraction, Rate};
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NAMESPACE: &str = "assistants";

struct Size {
    pools: usize,
    groups: usize,
    /// In each group.
    servers: usize,
    /// Of each pool.
    replicas: usize,
    passes: usize,
}

const SIZES: [Size; 3] = [
    Size {
        pools: 1,
        groups: 1,
        servers: 2,
        replicas: 2,
        passes: 2_000,
    },
    Size {
        pools: 50,
        groups: 20,
        servers: 12,
        replicas: 3,
        passes: 400,
    },
    Size {
        pools: 1_000,
        groups: 200,
        servers: 50,
        replicas: 6,
        passes: 60,
    },
];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for size in SIZES {
        runtime.block_on(measure(&size));
    }
}

async fn measure(size: &Size) {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut operator = Operator::new(&asked);
    let mut world = size.world();
    let settled = operator.settle(&mut world).await;
    assert_eq!(
        world.sites.values().map(|site| site.pods.len()).sum::<usize>(),
        size.pools * size.replicas
    );

    let before = asked.load(Ordering::Relaxed);
    let (mut clock, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..size.passes {
        let (began, had) = (Instant::now(), processor_time());
        let (effects, _) = operator.pass(&world).await;
        clock.push(began.elapsed());
        processor.push(processor_time().saturating_sub(had));
        assert!(
            effects.is_empty() && asked.load(Ordering::Relaxed) == before,
            "nothing is to be done"
        );
    }
    let objects = world.pools.len() + world.groups.len() + world.sites.len();
    let (processor, clock) = (Percentiles::of(processor), Percentiles::of(clock));
    println!(
        "{} pools, {} groups of {} servers, {} Pods (at rest after {settled} passes): processor {processor}; clock {clock}; {:.0} passes/s, {:.0} objects/s",
        size.pools,
        size.groups,
        size.servers,
        size.pools * size.replicas,
        1.0 / processor.median.as_secs_f64(),
        objects as f64 / processor.median.as_secs_f64(),
    );
}

struct Percentiles {
    median: Duration,
    high: Duration,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        Self {
            median: at(50),
            high: at(99),
        }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        write!(f, "p50 {:.2} ms, p99 {:.2} ms", ms(self.median), ms(self.high))
    }
}

/// What this thread has had of the processor: the machine may be busy with other work.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

// ------------------------------------------------------------------------------------------------------------ the operator

/// The steps of the loop, with what it keeps from pass to pass.
struct Operator {
    hub: Hub,
    memo: Memo,
    writer: StatusWriter,
}

impl Operator {
    /// Whose API server counts what it is asked for, and knows of nothing.
    fn new(asked: &Arc<AtomicUsize>) -> Self {
        let asked = Arc::clone(asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            asked.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Infallible>(Response::builder().status(404).body(Body::empty()).unwrap()) }
        });
        let client = Client::new(service, "default");
        Self {
            hub: Hub {
                read: client.clone(),
                write: client,
                namespace: "pomarium-system".to_owned(),
                uid: "hub".to_owned(),
            },
            memo: Memo::default(),
            writer: StatusWriter::default(),
        }
    }

    async fn pass(&mut self, world: &World) -> (Vec<Effect>, Statuses) {
        // The loop has a world of its own for each pass.
        let mut world = world.clone();
        let observed = observe(&world, NOW);
        (world.invalid, world.currency) = (observed.invalid, observed.currency);
        let snapshot = observed.snapshot;
        let plan = planning::plan_again(&snapshot, NOW, &mut self.memo);
        let context = Context {
            hub_uid: &self.hub.uid,
            namespace: &self.hub.namespace,
            currency: &world.currency,
            now: NOW,
        };
        let effects = build::effects(&plan, &snapshot, &world, &context);
        let statuses = statuses(&Said {
            plan: &plan,
            snapshot: &snapshot,
            world: &world,
            done: &Done::new(&[]),
            currency: &world.currency,
            now: NOW,
            clock: Time(jiff::Timestamp::now()),
        });
        self.writer.write(&self.hub, &statuses, &world).await;
        (effects, statuses)
    }

    /// Passes until one has nothing to do, in a world where everything works at once.
    async fn settle(&mut self, world: &mut World) -> usize {
        for passes in 0..20 {
            let (effects, statuses) = self.pass(world).await;
            if effects.is_empty() && passes > 0 && is_shown(world, &statuses) {
                return passes;
            }
            for effect in effects {
                play(world, effect);
            }
            show(world, statuses);
            measured(world);
        }
        panic!("it does not settle");
    }
}

fn is_shown(world: &World, statuses: &Statuses) -> bool {
    statuses
        .pools
        .iter()
        .all(|(id, status)| world.pools[id].status.as_ref() == Some(status))
}

/// What the watch shows of statuses that were written.
fn show(world: &mut World, statuses: Statuses) {
    for (id, status) in statuses.pools {
        Arc::make_mut(world.pools.get_mut(&id).unwrap()).status = Some(status);
    }
    for (name, status) in statuses.groups {
        Arc::make_mut(world.groups.get_mut(&name).unwrap()).status = Some(status);
    }
    for (name, status) in statuses.sites {
        Arc::make_mut(&mut world.sites.get_mut(&name).unwrap().object).status = Some(status);
    }
}

fn play(world: &mut World, effect: Effect) {
    match effect {
        Effect::ApplyPod { site, pod, .. } => {
            let server = pod
                .annotations()
                .get(labels::SERVER)
                .map(|name| ServerName::from(name.as_str()));
            let seen = PodSeen {
                namespace: pod.namespace().unwrap(),
                name: pod.name_any(),
                uid: format!("uid-{}", pod.name_any()),
                resource_version: "1".to_owned(),
                labels: pod.labels().clone(),
                server: server.clone(),
                node: server,
                drain: None,
                phase: "Running".to_owned(),
                ready: true,
                ready_since: Some(NOW - Span::from_minutes(29)),
                ip: Some("127.0.0.1".to_owned()),
                port: Some(8080),
                created: NOW - Span::from_minutes(30),
                deletion: None,
            };
            let pods = &mut world.sites.get_mut(&site).unwrap().pods;
            Arc::make_mut(pods).insert(seen.key(), Arc::new(seen));
        }
        Effect::SetLifecycle {
            site,
            pod,
            serving: true,
            ..
        } => {
            let pods = Arc::make_mut(&mut world.sites.get_mut(&site).unwrap().pods);
            let pod = Arc::make_mut(pods.get_mut(&pod.key).unwrap());
            pod.labels.insert(labels::SERVING.to_owned(), "true".to_owned());
        }
        Effect::ApplyBudget { site, budget, .. } => {
            let key = ObjectKey::new(budget.namespace().unwrap(), budget.name_any());
            Arc::make_mut(&mut world.sites.get_mut(&site).unwrap().budgets).insert(key, Arc::new(()));
        }
        other => panic!("not expected: {}", other.name()),
    }
}

/// Hardly any demand, and idle engines.
fn measured(world: &mut World) {
    let idle = Load::Known {
        running: 0,
        queued: 0,
        at: NOW,
    };
    let mut loads: BTreeMap<PoolId, BTreeMap<String, Load>> = BTreeMap::new();
    for pod in world.sites.values().flat_map(|site| site.pods.values()) {
        let pool = PoolId::new(NAMESPACE, pod.labels[labels::POOL].as_str());
        loads.entry(pool).or_default().insert(pod.uid.clone(), idle);
    }
    let known = Measured::Known {
        value_ms: 900.0,
        attained: Fraction::new(1.0),
        samples: 100,
        at: NOW,
    };
    for id in world.pools.keys() {
        let measurement = Measurement {
            demand: Demand::Known(Arrivals {
                rate_1m: Rate::per_second(0.01),
                rate_5m: Rate::per_second(0.01),
                lengths: None,
                at: NOW,
            }),
            measured: vec![known.clone()],
            engines: BTreeMap::new(),
            counted: None,
            loads: loads.remove(id).unwrap_or_default(),
            silent: BTreeMap::new(),
        };
        world.measurements.insert(id.clone(), Arc::new(measurement));
    }
}

// --------------------------------------------------------------------------------------------------------------- the world

fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "generation": 1, "finalizers": [labels::FINALIZER]})
}

impl Size {
    /// Ten groups a site, all of them owned; every pool may use every one.
    fn world(&self) -> World {
        let mut world = World {
            hub_uid: "hub".to_owned(),
            namespace: "pomarium-system".to_owned(),
            started: NOW - Span::from_minutes(10),
            currency: "USD".to_owned(),
            ..World::default()
        };
        for number in 0..self.groups.div_ceil(10) {
            let name = format!("site-{number}");
            world.sites.insert(SiteName::from(name.as_str()), site(&name));
        }
        for number in 0..self.groups {
            let (name, site) = (format!("group-{number}"), format!("site-{}", number / 10));
            let nodes = Arc::make_mut(&mut world.sites.get_mut(site.as_str()).unwrap().nodes);
            for server in 0..self.servers {
                let node = node(&format!("{name}-{server}"), &name);
                nodes.insert(node.name.clone(), Arc::new(node));
            }
            let object = read(
                json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerGroup", "metadata": metadata(&name), "spec": {
                "siteRef": {"name": site}, "machine": {"chip": "M2 Ultra", "gpuCores": 76, "memoryGiB": 192},
                "size": {"max": self.servers}, "provider": {"static": {}}, "pricing": {"hourly": "0", "currency": "USD"}}}),
            );
            world.groups.insert(GroupName::from(name), object);
        }
        for number in 0..self.pools {
            let name = format!("pool-{number}");
            let mut metadata = metadata(&name);
            metadata["namespace"] = json!(NAMESPACE);
            let object = read(
                json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerPool", "metadata": metadata, "spec": {
                "model": {"name": "llama", "quantization": "Q4_K_M", "parametersBillions": "8.0", "weightsGiB": "4.9",
                    "contextTokens": 16384, "kvBytesPerToken": 131_072},
                "engine": {"type": "LlamaCpp", "image": "example.com/llama:1", "args": ["--metrics"]},
                "replicas": {"min": self.replicas, "max": self.replicas}, "drain": {"timeout": "15m"},
                "placement": {"surviveLossOf": "None"},
                "objectives": [{"metric": "TimeToFirstToken", "percentile": 95, "threshold": "10s"}]}}),
            );
            world.pools.insert(PoolId::new(NAMESPACE, name), object);
        }
        measured(&mut world);
        world
    }
}

fn site(name: &str) -> SiteSeen {
    let object = json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerSite", "metadata": metadata(name), "spec": {
        "ownership": "Owned", "permittedUse": "Production", "connection": {"kubeconfigSecretRef": {"name": name}}}});
    SiteSeen {
        object: read(object),
        contact: Contact::Reachable,
        problem: None,
        version: Some("v1.36.4".to_owned()),
        nodes: Arc::default(),
        pods: Arc::default(),
        namespaces: Arc::new([(NAMESPACE.to_owned(), Arc::new(()))].into()),
        budgets: Arc::default(),
    }
}

fn node(name: &str, group: &str) -> NodeSeen {
    NodeSeen {
        name: ServerName::from(name),
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        labels: [(labels::GROUP.to_owned(), group.to_owned())].into(),
        annotations: BTreeMap::new(),
        taints: Vec::new(),
        unschedulable: false,
        ready: Readiness::True,
        ready_since: Some(NOW - Span::from_hours(1)),
        created: NOW - Span::from_hours(2),
        deleting: false,
    }
}
