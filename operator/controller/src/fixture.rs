//! A small world for tests: two sites, an owned and a hosted group, and one pool; and what effects do to it.
//!
//! Not part of the API of the controller: only there for its own tests, and for benches that ask for the feature `fixture`.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]
// Benches use a part of it.
#![cfg_attr(not(test), allow(dead_code))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::{Client, Config, ResourceExt};
use pomarium_api::labels;
use pomarium_kernel::names::{GroupName, PoolId, ServerName, SiteName};
use pomarium_kernel::snapshot::{Arrivals, Contact, Demand, Load, Measured, Snapshot};
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::{Fraction, Rate};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::build::Context;
use crate::client::Gate;
use crate::clock::Clock;
use crate::effect::{Effect, Object};
use crate::latest::Trigger;
use crate::member::{Hub, Members, Surroundings};
use crate::observe::observe;
use crate::world::{
    Measurement, NodeSeen, ObjectKey, PodSeen, ProviderAnswer, ProviderServer, ProviderState, Readiness, SiteSeen,
    TaintSeen, World,
};

/// When everything happens.
pub const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A hub behind `client`.
pub(crate) fn hub(client: &Client) -> Hub {
    Hub {
        read: client.clone(),
        write: client.clone(),
        namespace: "pomarium-system".to_owned(),
        uid: "hub".to_owned(),
    }
}

/// Member clusters of which none answers.
pub(crate) fn no_members(hub: Hub) -> Members {
    Members::new(Surroundings {
        hub,
        hub_config: Config::new("http://127.0.0.1:1".parse().unwrap()),
        clock: Clock::real(),
        gate: Gate::open(),
        write_timeout: Duration::from_secs(1),
        trigger: Trigger::default(),
        allow_loopback: true,
    })
}

/// A client that knows of nothing.
pub(crate) fn empty_client() -> Client {
    let nothing = tower::service_fn(|_: http::Request<Body>| async {
        let answer = http::Response::builder().status(404).body(Body::empty());
        Ok::<_, std::convert::Infallible>(answer.unwrap())
    });
    Client::new(nothing, "default")
}

/// The one pool.
pub(crate) fn chat() -> PoolId {
    PoolId::new("assistants", "chat")
}

/// Makes an object of the API from JSON.
pub fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

pub(crate) fn context() -> Context<'static> {
    Context {
        hub_uid: "hub",
        namespace: "pomarium-system",
        currency: "USD",
        now: NOW,
    }
}

/// The snapshot of a world, by the controller's own observation.
pub(crate) fn snapshot(world: &World) -> Snapshot {
    let observed = observe(world, NOW);
    assert_eq!(
        observed.invalid,
        crate::world::Invalid::default(),
        "the fixture is valid"
    );
    observed.snapshot
}

/// Metadata of an object that the operator has seen before.
pub fn metadata(name: &str) -> Value {
    json!({"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "generation": 1, "finalizers": [labels::FINALIZER]})
}

/// A site that answers, with nothing in it but the namespace of the pools.
pub fn site(name: &str, ownership: &str, connection: &Value) -> SiteSeen {
    let object = json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerSite", "metadata": metadata(name), "spec": {
        "ownership": ownership, "permittedUse": "Production", "connection": connection}});
    SiteSeen {
        object: read(object),
        contact: Contact::Reachable,
        problem: None,
        version: Some("v1.36.4".to_owned()),
        nodes: Arc::default(),
        pods: Arc::default(),
        namespaces: Arc::new([("assistants".to_owned(), Arc::new(()))].into()),
        budgets: Arc::default(),
    }
}

fn group(name: &str, site: &str, provider: &Value, hourly: &str) -> Value {
    json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerGroup", "metadata": metadata(name), "spec": {
        "siteRef": {"name": site}, "machine": {"chip": "M2 Ultra", "gpuCores": 76, "memoryGiB": 192},
        "size": {"max": 4}, "provider": provider, "pricing": {"hourly": hourly, "currency": "USD"}}})
}

/// The one pool as JSON, for tests that change it.
pub(crate) fn pool() -> Value {
    let mut metadata = metadata("chat");
    metadata["namespace"] = json!("assistants");
    json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerPool", "metadata": metadata, "spec": {
        "model": {"name": "llama", "quantization": "Q4_K_M", "parametersBillions": "8.0", "weightsGiB": "4.9",
            "contextTokens": 16384, "kvBytesPerToken": 131_072},
        "engine": {"type": "LlamaCpp", "image": "example.com/llama:1", "args": ["--metrics"]},
        "replicas": {"min": 2, "max": 4}, "drain": {"timeout": "15m"},
        "placement": {"surviveLossOf": "None"},
        "objectives": [{"metric": "TimeToFirstToken", "percentile": 95, "threshold": "10s"}]}})
}

/// The owned site `home` is the hub and has the static group `owned` of two servers; the site `away` has the empty
/// group `hosted`. The pool wants two replicas and has none.
pub(crate) fn world() -> World {
    let mut home = site("home", "Owned", &json!({"local": {}}));
    home.nodes = Arc::new(
        [node("owned-0", "owned"), node("owned-1", "owned")]
            .map(|node| (node.name.clone(), Arc::new(node)))
            .into(),
    );
    let away = site("away", "Hosted", &json!({"kubeconfigSecretRef": {"name": "away"}}));
    let answer = ProviderAnswer {
        listed_at: Some(NOW),
        ..ProviderAnswer::default()
    };
    World {
        hub_uid: "hub".to_owned(),
        namespace: "pomarium-system".to_owned(),
        started: NOW - Span::from_minutes(10),
        currency: "USD".to_owned(),
        sites: [(SiteName::from("home"), home), (SiteName::from("away"), away)].into(),
        groups: [
            (
                GroupName::from("owned"),
                read(group("owned", "home", &json!({"static": {}}), "0")),
            ),
            (
                GroupName::from("hosted"),
                read(group("hosted", "away", &json!({"simulated": {}}), "1.97")),
            ),
        ]
        .into(),
        pools: [(chat(), read(pool()))].into(),
        inventories: [(GroupName::from("hosted"), Arc::new(answer))].into(),
        measurements: [(chat(), Arc::new(quiet(&[])))].into(),
        ..World::default()
    }
}

/// A measurement of hardly any demand, and of idle engines.
fn quiet(uids: &[String]) -> Measurement {
    let idle = Load::Known {
        running: 0,
        queued: 0,
        at: NOW,
    };
    Measurement {
        demand: Demand::Known(Arrivals {
            rate_1m: Rate::per_second(0.01),
            rate_5m: Rate::per_second(0.01),
            lengths: None,
            at: NOW,
        }),
        measured: vec![Measured::Known {
            value_ms: 900.0,
            attained: Fraction::new(1.0),
            samples: 100,
            at: NOW,
        }],
        engines: BTreeMap::new(),
        counted: None,
        loads: uids.iter().map(|uid| (uid.clone(), idle)).collect(),
        silent: BTreeMap::new(),
    }
}

/// A Node of a group that has been Ready for an hour.
pub fn node(name: &str, group: &str) -> NodeSeen {
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

/// Changes one Pod of a world.
pub(crate) fn edit_pod(world: &mut World, site: &str, name: &str, edit: impl FnOnce(&mut PodSeen)) {
    let site = world.sites.get_mut(site).unwrap();
    let pods = Arc::make_mut(&mut site.pods);
    let pod = pods.get_mut(&ObjectKey::new("assistants", name)).unwrap();
    edit(Arc::make_mut(pod));
}

/// Changes one Node of a world.
pub(crate) fn edit_node(world: &mut World, site: &str, name: &str, edit: impl FnOnce(&mut NodeSeen)) {
    let site = world.sites.get_mut(site).unwrap();
    let node = Arc::make_mut(&mut site.nodes).get_mut(name).unwrap();
    edit(Arc::make_mut(node));
}

/// What an effect does to a world in which everything works at once: Pods are ready, engines idle, servers boot.
pub(crate) fn play(world: &mut World, effect: &Effect) {
    match effect {
        Effect::ApplyPod { site, pod, .. } => {
            let pod = ready(pod);
            let seen = world.sites.get_mut(site).unwrap();
            Arc::make_mut(&mut seen.pods).entry(pod.key()).or_insert(Arc::new(pod));
        }
        Effect::SetLifecycle {
            site,
            pod,
            serving,
            drain,
        } => edit_pod(world, site.as_str(), &pod.key.name, |seen| {
            seen.labels.remove(labels::SERVING);
            if *serving {
                seen.labels.insert(labels::SERVING.to_owned(), "true".to_owned());
            }
            seen.drain = drain.map(|drain| serde_json::to_string(&drain).unwrap());
        }),
        Effect::DeletePod { site, pod, .. } => {
            Arc::make_mut(&mut world.sites.get_mut(site).unwrap().pods).remove(&pod.key);
        }
        Effect::MarkServer { site, node, drain } => edit_node(world, site.as_str(), node.name.as_str(), |seen| {
            let text = serde_json::to_string(drain).unwrap();
            seen.annotations.insert(labels::SERVER_DRAIN.to_owned(), text);
            seen.taints.push(TaintSeen {
                key: labels::DRAINING_TAINT.to_owned(),
                value: String::new(),
                effect: "NoSchedule".to_owned(),
            });
        }),
        Effect::UnmarkServer { site, node } => edit_node(world, site.as_str(), node.name.as_str(), |seen| {
            seen.annotations.remove(labels::SERVER_DRAIN);
            seen.taints.retain(|taint| taint.key != labels::DRAINING_TAINT);
        }),
        Effect::ApplyBudget { site, pool, .. } => {
            let seen = world.sites.get_mut(site).unwrap();
            Arc::make_mut(&mut seen.budgets).insert(crate::build::budget_key(pool), Arc::new(()));
        }
        Effect::DeleteBudget { site, pool } => {
            let seen = world.sites.get_mut(site).unwrap();
            Arc::make_mut(&mut seen.budgets).remove(&crate::build::budget_key(pool));
        }
        Effect::RequestServer { group, server, .. } => {
            let site = world.groups[group].spec.site_ref.name.clone();
            let booted = node(server.as_str(), group.as_str());
            let seen = world.sites.get_mut(site.as_str()).unwrap();
            Arc::make_mut(&mut seen.nodes).insert(server.clone(), Arc::new(booted));
            let answer = world.inventories.get_mut(group).unwrap();
            let listed = ProviderServer {
                state: ProviderState::Ready,
                requested_at: NOW,
                ready_at: Some(NOW),
                lease_start: Some(NOW),
                minimum_until: Some(NOW),
                available_at: None,
            };
            Arc::make_mut(answer).servers.insert(server.clone(), listed);
        }
        Effect::ReleaseServer { group, server, site } => {
            Arc::make_mut(&mut world.sites.get_mut(site).unwrap().nodes).remove(server);
            Arc::make_mut(world.inventories.get_mut(group).unwrap())
                .servers
                .remove(server);
        }
        Effect::AddFinalizer(Object::Pool(pool)) => {
            let object = Arc::make_mut(world.pools.get_mut(pool).unwrap());
            object.metadata.finalizers = Some(vec![labels::FINALIZER.to_owned()]);
        }
        Effect::RemoveFinalizer(Object::Pool(pool)) => drop(world.pools.remove(pool)),
        Effect::AddFinalizer(_)
        | Effect::RemoveFinalizer(_)
        | Effect::EmptyGroup { .. }
        | Effect::ApplyRoute { .. }
        | Effect::Propose(_)
        | Effect::RemovePlan { .. } => {}
    }
    let uids: Vec<String> = world
        .sites
        .values()
        .flat_map(|site| site.pods.values().map(|pod| pod.uid.clone()))
        .collect();
    world.measurements = [(chat(), Arc::new(quiet(&uids)))].into();
}

/// The Pod as it is seen once its engine answers.
pub fn ready(pod: &Pod) -> PodSeen {
    let server = pod
        .annotations()
        .get(labels::SERVER)
        .map(|name| ServerName::from(name.as_str()));
    PodSeen {
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
    }
}
