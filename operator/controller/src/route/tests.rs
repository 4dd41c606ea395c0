#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use pomarium_kernel::lifecycle::DrainStep;
use pomarium_kernel::names::ReplicaId;
use pomarium_kernel::plan::{Decision, Verdict};
use serde_json::json;

use super::*;
use crate::fixture::{NOW, chat, edit_pod, node, pool, read, ready, snapshot, world};

/// The pool with a route and one serving replica on each Node of `home`.
fn serving() -> World {
    let mut world = world();
    let mut object = pool();
    object["spec"]["routing"] = json!({"httpRoute": {"gatewayRef": {"name": "web"}}});
    world.pools.insert(chat(), read(object));
    let home = world.sites.get_mut("home").unwrap();
    let pods = home.nodes.values().map(|node| {
        let group = &node.labels[labels::GROUP];
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("chat-{}", node.name), "namespace": "assistants",
                "labels": {labels::POOL: "chat", labels::HUB_UID: "hub", labels::GROUP: group, labels::SERVING: "true"},
                "annotations": {labels::SERVER: node.name.as_str()}}}))
        .unwrap();
        let seen = ready(&pod);
        (seen.key(), Arc::new(seen))
    });
    home.pods = Arc::new(pods.collect());
    world
}

fn routed(world: &World, actions: Vec<Action>) -> Route {
    let decision = |action| Decision {
        action,
        reason: Reason::DemandFell,
        message: String::new(),
        verdict: Verdict::Act,
        rejected: Vec::new(),
    };
    let plan = Plan {
        decisions: actions.into_iter().map(decision).collect(),
        ..Plan::default()
    };
    let effects = routes(&plan, &snapshot(world), world);
    let [Effect::ApplyRoute { route, .. }] = effects.as_slice() else {
        panic!("one route, not {effects:?}")
    };
    (**route).clone()
}

fn weights(route: &Route) -> Vec<(String, u64)> {
    let backends = route.http_route["spec"]["rules"][0]["backendRefs"].as_array().unwrap();
    backends
        .iter()
        .map(|backend| {
            (
                backend["name"].as_str().unwrap().to_owned(),
                backend["weight"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_weight_is_taken_before_the_fence_and_given_after_the_replica_serves() {
    let mut world = serving();
    let of_owned = |weight| vec![("chat-owned".to_owned(), weight)];
    assert_eq!(weights(&routed(&world, Vec::new())), of_owned(2));
    let drain = Action::DrainReplica {
        pool: chat(),
        replica: ReplicaId::new("home", "chat-owned-0"),
        step: DrainStep::Fence,
        deadline: NOW,
    };
    assert_eq!(weights(&routed(&world, vec![drain])), of_owned(1), "in the same pass");
    edit_pod(&mut world, "home", "chat-owned-0", |pod| {
        pod.labels.remove(labels::SERVING);
    });
    edit_pod(&mut world, "home", "chat-owned-1", |pod| pod.ready = false);
    assert_eq!(weights(&routed(&world, Vec::new())), of_owned(0), "it stays a backend");
}

#[test]
fn a_pool_that_is_being_deleted_keeps_its_weights_true_to_the_last_drain() {
    let mut world = serving();
    let object = Arc::make_mut(world.pools.get_mut(&chat()).unwrap());
    object.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap();
    assert!(!routed(&world, Vec::new()).create);
    edit_pod(&mut world, "home", "chat-owned-0", |pod| {
        pod.labels.remove(labels::SERVING);
    });
    assert_eq!(weights(&routed(&world, Vec::new())), [("chat-owned".to_owned(), 1)]);
}

#[test]
fn groups_that_serve_beyond_what_a_rule_can_hold_are_named() {
    let mut world = serving();
    let one = Arc::clone(&world.groups["owned"]);
    for number in 0..17 {
        let name = format!("more-{number:02}");
        let mut group = one.as_ref().clone();
        group.metadata.name = Some(name.clone());
        world.groups.insert(name.as_str().into(), Arc::new(group));
        let node = node(&format!("{name}-0"), &name);
        let home = world.sites.get_mut("home").unwrap();
        Arc::make_mut(&mut home.nodes).insert(node.name.clone(), Arc::new(node));
    }
    let routing = serving().pools;
    let nodes = Arc::clone(&world.sites["home"].nodes);
    for node in nodes.values().filter(|node| node.name.as_str().starts_with("more")) {
        let home = world.sites.get_mut("home").unwrap();
        let mut pod = home.pods.values().next().unwrap().as_ref().clone();
        pod.name = format!("chat-{}", node.name);
        pod.uid.clone_from(&pod.name);
        pod.server = Some(node.name.clone());
        pod.node = Some(node.name.clone());
        Arc::make_mut(&mut home.pods).insert(pod.key(), Arc::new(pod));
    }
    world.pools = routing;
    // The first by name serves no more: the others need its place.
    edit_pod(&mut world, "home", "chat-more-00-0", |pod| pod.ready = false);
    let route = routed(&world, Vec::new());
    let weights = weights(&route);
    assert_eq!(weights.len(), MOST_BACKENDS);
    assert!(weights.iter().all(|(_, weight)| *weight > 0), "{weights:?}");
    assert_eq!(route.beyond, [GroupName::from("owned")]);
    let said = condition(&route, &Outcome::Unchanged).unwrap();
    assert_eq!((said.status, said.reason), (Truth::False, Reason::RouteUnsupported));
    assert!(said.message.contains("owned are beyond"), "{}", said.message);
}
