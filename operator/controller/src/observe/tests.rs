#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use pomarium_api::labels;
use pomarium_kernel::lifecycle::{ReplicaState, ServerState};
use pomarium_kernel::names::{GroupName, ReplicaId, ServerName};
use pomarium_kernel::snapshot::{Contact, Inventory, Load, Server};
use pomarium_kernel::time::Span;
use serde_json::{Value, json};

use super::*;
use crate::world::{
    NodeSeen, ObjectKey, PodSeen, ProviderAnswer, ProviderServer, ProviderState, Readiness, SiteSeen, TaintSeen,
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn group(site: &str, provider: &Value, currency: &str) -> Value {
    json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerGroup", "metadata": {"name": "macs"}, "spec": {
        "siteRef": {"name": site}, "machine": {"chip": "M2 Ultra", "gpuCores": 76, "memoryGiB": 192},
        "size": {"max": 12}, "provider": provider, "pricing": {"hourly": "1.97", "currency": currency}}})
}

fn pool(currency: &str) -> Value {
    json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerPool", "metadata": {"name": "chat", "namespace": "assistants"}, "spec": {
        "model": {"name": "llama", "quantization": "Q4_K_M", "parametersBillions": "8.0", "weightsGiB": "4.9",
            "contextTokens": 16384, "kvBytesPerToken": 131_072},
        "engine": {"type": "LlamaCpp", "image": "llama"}, "replicas": {"max": 4},
        "budget": {"amount": "4000", "currency": currency},
        "objectives": [{"metric": "TimeToFirstToken", "percentile": 95, "threshold": "10s"}]}})
}

fn node(name: &str) -> NodeSeen {
    NodeSeen {
        name: ServerName::from(name),
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        labels: [(labels::GROUP.to_owned(), "macs".to_owned())].into(),
        annotations: BTreeMap::new(),
        taints: Vec::new(),
        unschedulable: false,
        ready: Readiness::True,
        ready_since: Some(NOW - Span::from_hours(1)),
        created: NOW - Span::from_hours(2),
        deleting: false,
    }
}

fn pod(name: &str, server: &str) -> PodSeen {
    PodSeen {
        namespace: "assistants".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        labels: [
            (labels::POOL.to_owned(), "chat".to_owned()),
            (labels::REVISION.to_owned(), "r1".to_owned()),
            (labels::HUB_UID.to_owned(), "hub".to_owned()),
        ]
        .into(),
        server: Some(ServerName::from(server)),
        node: Some(ServerName::from(server)),
        drain: None,
        phase: "Running".to_owned(),
        ready: true,
        ready_since: Some(NOW - Span::from_minutes(29)),
        ip: None,
        port: None,
        created: NOW - Span::from_minutes(30),
        deletion: None,
    }
}

/// One owned site with one static group of the servers `nodes`, and one pool with the Pods `pods`.
fn world(nodes: Vec<NodeSeen>, pods: Vec<PodSeen>) -> World {
    let site = json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerSite", "metadata": {"name": "home"},
        "spec": {"ownership": "Owned", "trust": "Attested", "connection": {"local": {}}}});
    let seen = SiteSeen {
        object: read(site),
        contact: Contact::Reachable,
        problem: None,
        version: None,
        nodes: Arc::new(
            nodes
                .into_iter()
                .map(|node| (node.name.clone(), Arc::new(node)))
                .collect(),
        ),
        pods: Arc::new(pods.into_iter().map(|pod| (pod.key(), Arc::new(pod))).collect()),
        namespaces: Arc::new([("assistants".to_owned(), Arc::new(()))].into()),
        budgets: Arc::default(),
    };
    World {
        hub_uid: "hub".to_owned(),
        started: NOW - Span::from_minutes(1),
        sites: [(SiteName::from("home"), seen)].into(),
        groups: [(
            GroupName::from("macs"),
            read(group("home", &json!({"static": {}}), "USD")),
        )]
        .into(),
        pools: [(PoolId::new("assistants", "chat"), read(pool("USD")))].into(),
        ..World::default()
    }
}

fn servers(observed: &Observed) -> BTreeMap<String, Server> {
    let group = &observed.snapshot.groups["macs"];
    let named = |(name, server): (&ServerName, &Server)| (name.to_string(), server.clone());
    group.inventory.servers().iter().map(named).collect()
}

fn replica(observed: &Observed, name: &str) -> pomarium_kernel::snapshot::Replica {
    observed.snapshot.pools[&PoolId::new("assistants", "chat")].running[&ReplicaId::new("home", name)].clone()
}

#[test]
fn servers_are_nodes_with_what_people_want_of_them() {
    let cordoned = NodeSeen {
        unschedulable: true,
        ..node("cordoned")
    };
    let taint = |key: &str| TaintSeen {
        key: key.to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
    };
    let tainted = NodeSeen {
        taints: vec![taint("team/only")],
        ..node("tainted")
    };
    let pressed = NodeSeen {
        taints: vec![taint("node.kubernetes.io/memory-pressure")],
        ..node("pressed")
    };
    let held = NodeSeen {
        annotations: [(labels::HOLD.to_owned(), String::new())].into(),
        ..node("held")
    };
    let silent = NodeSeen {
        ready: Readiness::Unknown,
        ..node("silent")
    };
    let mark = json!({"since": NOW.to_string(), "reason": "LeaseEnded"}).to_string();
    let draining = NodeSeen {
        annotations: [(labels::SERVER_DRAIN.to_owned(), mark)].into(),
        ..node("draining")
    };
    let broken = NodeSeen {
        taints: vec![taint(labels::DRAINING_TAINT)],
        ..node("broken")
    };
    let stranger = NodeSeen {
        labels: BTreeMap::new(),
        ..node("stranger")
    };
    let observed = observe(
        &world(
            vec![
                node("good"),
                cordoned,
                tainted,
                pressed,
                held,
                silent,
                draining,
                broken,
                stranger,
            ],
            vec![],
        ),
        NOW,
    );
    assert_eq!(observed.invalid, Invalid::default());
    let seen: Vec<_> = servers(&observed)
        .into_iter()
        .map(|(name, server)| (name, server.state, server.cordoned, server.held))
        .collect();
    let expected = [
        ("broken", ServerState::Draining, false, false),
        ("cordoned", ServerState::Ready, true, false),
        ("draining", ServerState::Draining, false, false),
        ("good", ServerState::Ready, false, false),
        ("held", ServerState::Ready, false, true),
        ("pressed", ServerState::Ready, false, false),
        ("silent", ServerState::Suspect, false, false),
        ("tainted", ServerState::Ready, true, false),
    ];
    assert_eq!(
        seen,
        expected.map(|(name, state, cordoned, held)| (name.to_owned(), state, cordoned, held))
    );
    assert_eq!(servers(&observed)["draining"].since, NOW);
    assert!(
        servers(&observed)
            .values()
            .all(|server| server.proven < pomarium_kernel::snapshot::Trust::Attested)
    );
}

#[test]
fn a_replica_is_what_its_pod_its_node_and_its_engine_say() {
    let mut serving = pod("serving", "a");
    serving.labels.insert(labels::SERVING.to_owned(), "true".to_owned());
    let stumbled = PodSeen {
        ready: false,
        ..PodSeen {
            name: "stumbled".to_owned(),
            ..serving.clone()
        }
    };
    let loading = PodSeen {
        ready: false,
        ..pod("loading", "a")
    };
    let pending = PodSeen {
        ready: false,
        node: None,
        ..pod("pending", "a")
    };
    let leaving = PodSeen {
        deletion: Some(NOW),
        ..pod("leaving", "a")
    };
    let ended = PodSeen {
        phase: "Failed".to_owned(),
        ready: false,
        ..pod("ended", "a")
    };
    let on_dead_node = pod("on-dead-node", "dead");
    let drain = r#"{"step":"Quiesce","step_since":"2027-01-15T07:59:00.000Z","reason":"DemandFell","deadline":"2027-01-15T08:14:00.000Z"}"#;
    let drained = PodSeen {
        drain: Some(drain.to_owned()),
        ..pod("drained", "a")
    };
    let garbled = PodSeen {
        drain: Some("{".to_owned()),
        ..pod("garbled", "a")
    };
    let dead = NodeSeen {
        ready: Readiness::False,
        ..node("dead")
    };
    let world = world(
        vec![node("a"), dead],
        vec![
            serving,
            stumbled,
            loading,
            pending,
            leaving,
            ended,
            on_dead_node,
            drained,
            garbled,
        ],
    );
    let observed = observe(&world, NOW);
    let states = [
        ("serving", ReplicaState::Ready),
        ("stumbled", ReplicaState::Suspect),
        ("loading", ReplicaState::Loading),
        ("pending", ReplicaState::Pending),
        ("leaving", ReplicaState::Terminating),
        ("ended", ReplicaState::Ended),
        ("on-dead-node", ReplicaState::Suspect),
        ("drained", ReplicaState::Ready),
        ("garbled", ReplicaState::Ready),
    ];
    for (name, state) in states {
        assert_eq!(replica(&observed, name).state, state, "{name}");
        assert_eq!(
            replica(&observed, name).load,
            Load::Unknown,
            "nobody asked its engine: {name}"
        );
    }
    assert!(replica(&observed, "serving").serving && !replica(&observed, "loading").serving);
    assert_eq!(
        replica(&observed, "drained").drain.unwrap().step,
        pomarium_kernel::lifecycle::DrainStep::Quiesce
    );
    assert_eq!(replica(&observed, "garbled").drain, None);
}

#[test]
fn what_is_not_known_is_unknown_and_never_zero() {
    let observed = observe(&world(vec![node("a")], vec![]), NOW);
    let pool = &observed.snapshot.pools[&PoolId::new("assistants", "chat")];
    assert!(matches!(pool.demand, Demand::Unknown { since, .. } if since == NOW - Span::from_minutes(1)));
    assert!(matches!(pool.measured[..], [Measured::Unknown { .. }]));

    let mut lost = world(vec![node("a")], vec![pod("p", "a")]);
    let since = NOW - Span::from_minutes(9);
    let contact = Contact::Lost {
        since,
        message: "no answer".to_owned(),
    };
    lost.sites.get_mut("home").unwrap().contact = contact.clone();
    let observed = observe(&lost, NOW);
    assert_eq!(observed.snapshot.sites["home"].contact, contact);
    match &observed.snapshot.groups["macs"].inventory {
        Inventory::Unknown { last, since: at } => assert_eq!((last.len(), *at), (1, since)),
        Inventory::Known(_) => panic!("nobody can know the servers of a lost site"),
    }
    assert_eq!(
        replica(&observed, "p").state,
        ReplicaState::Ready,
        "a lost site loses no replica"
    );
}

#[test]
fn a_provider_s_list_is_joined_with_nodes_and_counts_only_while_it_is_fresh() {
    let entry = |state, age| ProviderServer {
        state,
        requested_at: NOW - Span::from_minutes(age),
        ready_at: None,
        lease_start: Some(NOW - Span::from_minutes(age)),
        minimum_until: Some(NOW + Span::from_minutes(20)),
        available_at: None,
    };
    let listed = ProviderAnswer {
        servers: [
            (ServerName::from("macs-0"), entry(ProviderState::Ready, 30)),
            (ServerName::from("macs-1"), entry(ProviderState::Booting, 2)),
        ]
        .into(),
        listed_at: Some(NOW - Span::from_secs(20)),
        ..ProviderAnswer::default()
    };
    let observed = |answer: Option<ProviderAnswer>| {
        let mut world = world(vec![node("macs-0")], vec![]);
        world.groups = [(
            GroupName::from("macs"),
            read(group("home", &json!({"simulated": {}}), "USD")),
        )]
        .into();
        if let Some(answer) = answer {
            world.inventories.insert(GroupName::from("macs"), Arc::new(answer));
        }
        observe(&world, NOW)
    };
    let known = observed(Some(listed.clone()));
    assert!(known.snapshot.groups["macs"].inventory.is_known());
    let states: Vec<_> = servers(&known)
        .into_values()
        .map(|server| (server.state, server.lease.is_some()))
        .collect();
    assert_eq!(states, [(ServerState::Ready, true), (ServerState::Booting, true)]);

    let failing = ProviderAnswer {
        problem: Some(Problem::new(Reason::ProviderFailed, "500")),
        ..listed.clone()
    };
    let old = ProviderAnswer {
        listed_at: Some(NOW - Span::from_hours(1)),
        ..listed
    };
    for (name, answer) in [("failing", Some(failing)), ("old", Some(old)), ("never asked", None)] {
        assert!(!observed(answer).snapshot.groups["macs"].inventory.is_known(), "{name}");
    }
}

#[test]
fn a_provider_that_only_knows_a_size_has_servers_on_the_way_for_the_rest() {
    let mut world = world(vec![node("macs-1")], vec![]);
    let target = json!({"scale": {"targetRef": {"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment", "namespace": "a", "name": "b"}}});
    world.groups = [(GroupName::from("macs"), read(group("home", &target, "USD")))].into();
    let answer = ProviderAnswer {
        listed_at: Some(NOW),
        size: Some(3),
        ..ProviderAnswer::default()
    };
    world.inventories.insert(GroupName::from("macs"), Arc::new(answer));
    let states: Vec<_> = servers(&observe(&world, NOW))
        .into_iter()
        .map(|(name, server)| (name, server.state))
        .collect();
    let expected = [
        ("macs-0", ServerState::Provisioning),
        ("macs-1", ServerState::Ready),
        ("macs-2", ServerState::Provisioning),
    ];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)));
}

#[test]
fn an_invalid_pool_harms_only_itself_and_its_servers_are_held() {
    let mut world = world(vec![node("a"), node("b"), node("c")], vec![pod("p", "a")]);
    let mut other_hub = pod("q", "b");
    other_hub
        .labels
        .insert(labels::HUB_UID.to_owned(), "another".to_owned());
    let pods = Arc::make_mut(&mut world.sites.get_mut("home").unwrap().pods);
    pods.insert(ObjectKey::new("assistants", "q"), Arc::new(other_hub));
    let mut broken = pool("USD");
    broken["spec"]["model"]["weightsGiB"] = json!("a lot");
    world.pools.insert(PoolId::new("assistants", "chat"), read(broken));
    let mut fine = pool("USD");
    fine["metadata"]["name"] = json!("fine");
    world.pools.insert(PoolId::new("assistants", "fine"), read(fine));

    let observed = observe(&world, NOW);
    assert_eq!(
        observed
            .snapshot
            .pools
            .keys()
            .map(|id| id.name.as_str())
            .collect::<Vec<_>>(),
        ["fine"]
    );
    let problem = &observed.invalid.pools[&PoolId::new("assistants", "chat")];
    assert!(
        problem.reason == Reason::InvalidSpec && problem.message.contains("weightsGiB"),
        "{problem:?}"
    );
    let held: Vec<_> = servers(&observed)
        .into_values()
        .map(|server| (server.held, server.cordoned))
        .collect();
    assert_eq!(held, [(true, true), (true, true), (false, false)]);
}

#[test]
fn a_group_without_its_site_and_an_object_in_another_currency_are_left_out_with_the_reason() {
    let mut world = world(vec![node("a")], vec![]);
    world.groups.insert(
        GroupName::from("nowhere"),
        read(group("mars", &json!({"static": {}}), "USD")),
    );
    world.groups.insert(
        GroupName::from("paris"),
        read(group("home", &json!({"simulated": {}}), "EUR")),
    );
    world.pools.insert(PoolId::new("assistants", "yen"), read(pool("JPY")));
    let observed = observe(&world, NOW);
    assert_eq!(observed.currency, "USD");
    assert_eq!(
        observed.invalid.groups[&GroupName::from("nowhere")].reason,
        Reason::ReferenceMissing
    );
    assert!(
        observed.invalid.groups[&GroupName::from("nowhere")]
            .message
            .contains("mars")
    );
    for problem in [
        &observed.invalid.groups[&GroupName::from("paris")],
        &observed.invalid.pools[&PoolId::new("assistants", "yen")],
    ] {
        assert!(
            problem.reason == Reason::InvalidSpec && problem.message.contains("one currency"),
            "{problem:?}"
        );
    }
    let usable = |group: &pomarium_kernel::snapshot::Group| group.problem.is_none();
    assert_eq!(
        observed.snapshot.groups.values().filter(|group| usable(group)).count(),
        1
    );
    assert_eq!(observed.snapshot.pools.len(), 1);
}

#[test]
fn pods_of_equal_names_at_two_sites_are_two_replicas() {
    let mut world = world(vec![node("a")], vec![pod("p", "a")]);
    let mut away = world.sites["home"].clone();
    let mut object = (*away.object).clone();
    object.metadata.name = Some("away".to_owned());
    away.object = Arc::new(object);
    world.sites.insert(SiteName::from("away"), away);
    let mut there = (*world.groups["macs"]).clone();
    there.spec.site_ref.name = "away".to_owned();
    there.spec.node_selector = serde_json::from_value(json!({"matchLabels": {labels::GROUP: "macs"}})).unwrap();
    world.groups.insert(GroupName::from("macs-away"), Arc::new(there));
    let observed = observe(&world, NOW);
    let running = &observed.snapshot.pools[&PoolId::new("assistants", "chat")].running;
    let sites: Vec<_> = running.values().map(|replica| replica.site.as_str()).collect();
    assert_eq!(sites, ["away", "home"]);
}

#[test]
fn a_broken_group_is_seen_as_far_as_it_can_be_read_and_never_as_nothing() {
    let breaks: [fn(&mut Value); 2] = [
        |group| group["spec"]["disruption"] = json!({"windows": [{"schedule": "never", "duration": "1h"}]}),
        |group| group["spec"]["pricing"]["hourly"] = json!("a lot"),
    ];
    for broken in breaks {
        let mut world = world(vec![node("a")], vec![pod("p", "a")]);
        let mut object = group("home", &json!({"static": {}}), "USD");
        broken(&mut object);
        world.groups.insert(GroupName::from("macs"), read(object));
        let observed = observe(&world, NOW);
        let seen = &observed.snapshot.groups["macs"];
        assert_eq!(seen.problem.as_ref().unwrap().reason, Reason::InvalidSpec);
        assert!(observed.invalid.groups.contains_key("macs"), "said in the status");
        assert_eq!((seen.machine.gpu_cores, seen.inventory.servers().len()), (76, 1));
        assert_eq!(replica(&observed, "p").group.as_str(), "macs");
    }
}

#[test]
fn a_node_of_two_groups_counts_once_and_both_say_so() {
    let mut world = world(vec![node("a")], vec![]);
    let mut twin = (*world.groups["macs"]).clone();
    twin.spec.node_selector = serde_json::from_value(json!({"matchLabels": {labels::GROUP: "macs"}})).unwrap();
    world.groups.insert(GroupName::from("twin"), Arc::new(twin));
    let observed = observe(&world, NOW);
    let groups = &observed.snapshot.groups;
    let servers: Vec<_> = groups.values().map(|group| group.inventory.servers().len()).collect();
    assert_eq!(servers, [1, 0]);
    for group in groups.values() {
        assert_eq!(group.overlap.as_ref().unwrap().reason, Reason::GroupsOverlap);
    }
}

#[test]
fn a_server_whose_node_is_not_selected_any_more_is_left_and_not_lost() {
    let mut stray = node("a");
    stray.labels.clear();
    let mut there = pod("p", "a");
    there.labels.insert(labels::GROUP.to_owned(), "macs".to_owned());
    let observed = observe(&world(vec![stray, node("b")], vec![there]), NOW);
    let seen: Vec<_> = servers(&observed)
        .into_iter()
        .map(|(name, server)| (name, server.state, server.cordoned))
        .collect();
    let expected = [("a", ServerState::Ready, true), ("b", ServerState::Ready, false)];
    assert_eq!(
        seen,
        expected.map(|(name, state, cordoned)| (name.to_owned(), state, cordoned))
    );
}

#[test]
fn what_was_on_its_way_before_a_restart_is_remembered_until_the_provider_answers() {
    let mut world = world(vec![node("macs-0")], vec![]);
    let mut object = group("home", &json!({"simulated": {}}), "USD");
    object["status"] = json!({"servers": {"target": 3, "ready": 1, "used": 0, "byState": {"Ready": 1, "Booting": 2}}});
    world.groups.insert(GroupName::from("macs"), read(object));
    let observed = observe(&world, NOW);
    match &observed.snapshot.groups["macs"].inventory {
        Inventory::Unknown { last, since } => {
            assert_eq!(*since, world.started, "or it would never be long ago");
            assert_eq!(last.values().filter(|server| server.state.is_coming()).count(), 2);
        }
        Inventory::Known(_) => panic!("nobody has listed them"),
    }
}
