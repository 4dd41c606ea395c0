//! A world at rest for benches, of any size, and the steps of the loop with what they keep from pass to pass.

// Every bench uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use kube::client::Body;
use kube::{Client, ResourceExt};
use pomarium_api::labels;
use pomarium_controller::build::{self, Context};
use pomarium_controller::effect::Effect;
use pomarium_controller::fixture::{NOW, metadata, node, read, ready, site};
use pomarium_controller::member::Hub;
use pomarium_controller::observe::observe;
use pomarium_controller::status::{Done, Said, StatusWriter, Statuses, statuses};
use pomarium_controller::world::{Measurement, NodeSeen, ObjectKey, World};
use pomarium_kernel::names::{GroupName, PoolId, SiteName};
use pomarium_kernel::planning::{self, Memo};
use pomarium_kernel::snapshot::{Arrivals, Demand, Load, Measured};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::{Fraction, Rate};
use serde_json::json;

pub(crate) const NAMESPACE: &str = "assistants";

/// How much there is.
pub(crate) struct Size {
    pub(crate) pools: usize,
    pub(crate) groups: usize,
    /// In each group.
    pub(crate) servers: usize,
    /// Of each pool.
    pub(crate) replicas: usize,
}

/// The steps of the loop, with what it keeps from pass to pass.
pub(crate) struct Operator {
    hub: Hub,
    memo: Memo,
    writer: StatusWriter,
}

impl Operator {
    /// Whose API server counts what it is asked for, and knows of nothing.
    pub(crate) fn new(asked: &Arc<AtomicUsize>) -> Self {
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

    pub(crate) async fn pass(&mut self, world: &World) -> (Vec<Effect>, Statuses) {
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
    pub(crate) async fn settle(&mut self, world: &mut World) -> usize {
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

/// A world in which every pool has its replicas, before anything is said of all of it. They are made pool by pool: asked for at once, they
/// would take more memory than all the rest.
pub(crate) async fn staffed(size: &Size, operator: &mut Operator) -> World {
    let mut world = size.world();
    let each = size.servers / size.replicas;
    let groups: Vec<_> = world.groups.keys().cloned().collect();
    let pools: Vec<_> = world.pools.keys().cloned().collect();
    for (number, pool) in pools.iter().enumerate() {
        let group = &groups[number / each];
        let place = SiteName::from(world.groups[group].spec.site_ref.name.as_str());
        let mut alone = world.clone();
        alone.pools.retain(|id, _| id == pool);
        alone.groups.retain(|name, _| name == group);
        alone.sites.retain(|name, _| *name == place);
        let seen = alone.sites.get_mut(&place).unwrap();
        seen.pods = Arc::default();
        let of_group = seen
            .nodes
            .iter()
            .filter(|(_, node)| node.labels[labels::GROUP] == group.as_str());
        let free = of_group.skip(number % each * size.replicas).take(size.replicas);
        seen.nodes = Arc::new(free.map(|(name, node)| (name.clone(), Arc::clone(node))).collect());
        operator.settle(&mut alone).await;
        let alone = &alone.sites[&place];
        let seen = world.sites.get_mut(&place).unwrap();
        Arc::make_mut(&mut seen.pods).extend(alone.pods.iter().map(|(key, pod)| (key.clone(), Arc::clone(pod))));
        Arc::make_mut(&mut seen.budgets).extend(alone.budgets.keys().map(|key| (key.clone(), Arc::new(()))));
    }
    measured(&mut world);
    world
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
            let seen = ready(&pod);
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

impl Size {
    /// Ten groups a site, all of them owned; every pool may use every one.
    pub(crate) fn world(&self) -> World {
        let mut world = World {
            hub_uid: "hub".to_owned(),
            namespace: "pomarium-system".to_owned(),
            started: NOW - Span::from_minutes(10),
            currency: "USD".to_owned(),
            ..World::default()
        };
        for number in 0..self.groups.div_ceil(10) {
            let name = format!("site-{number}");
            let connection = json!({"kubeconfigSecretRef": {"name": name}});
            world
                .sites
                .insert(SiteName::from(name.as_str()), site(&name, "Owned", &connection));
        }
        for number in 0..self.groups {
            let (name, site) = (format!("group-{number}"), format!("site-{}", number / 10));
            let nodes = Arc::make_mut(&mut world.sites.get_mut(site.as_str()).unwrap().nodes);
            for server in 0..self.servers {
                let mut node = node(&format!("{name}-{server}"), &name);
                node.labels.extend(labels_of(&node));
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

/// Labels that Nodes have besides.
fn labels_of(node: &NodeSeen) -> BTreeMap<String, String> {
    [
        ("beta.kubernetes.io/arch", "arm64"),
        ("beta.kubernetes.io/os", "darwin"),
        ("kubernetes.io/arch", "arm64"),
        ("kubernetes.io/hostname", node.name.as_str()),
        ("kubernetes.io/os", "darwin"),
        ("node.kubernetes.io/instance-type", "mac2-m2ultra.metal"),
        ("topology.kubernetes.io/region", "us-west-2"),
        ("topology.kubernetes.io/zone", "us-west-2b"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}
