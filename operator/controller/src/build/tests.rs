#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pomarium_kernel::names::ReplicaId;
use pomarium_kernel::planning;
use pomarium_kernel::time::Span;
use serde_json::json;

use super::*;
use crate::fixture::{NOW, chat, context, edit_node, edit_pod, play, pool, read, snapshot, world};
use crate::world::TaintSeen;

fn plan_of(actions: &[(Action, Reason)], verdict: Verdict) -> Plan {
    let decision = |(action, reason): &(Action, Reason)| Decision {
        action: action.clone(),
        reason: *reason,
        message: String::new(),
        verdict,
        rejected: Vec::new(),
    };
    Plan {
        decisions: actions.iter().map(decision).collect(),
        ..Plan::default()
    }
}

fn built(world: &World, actions: &[(Action, Reason)]) -> Vec<Effect> {
    effects(&plan_of(actions, Verdict::Act), &snapshot(world), world, &context())
}

fn names(effects: &[Effect]) -> Vec<&'static str> {
    effects.iter().map(Effect::name).collect()
}

fn start(server: &str) -> (Action, Reason) {
    let action = Action::StartReplica {
        pool: chat(),
        group: "owned".into(),
        server: server.into(),
        revision: "0a1b2c3d".into(),
    };
    (action, Reason::BelowMinimum)
}

/// A world in which the pool runs on both owned servers.
fn running() -> World {
    let mut world = world();
    for effect in built(&world, &[start("owned-0"), start("owned-1")]) {
        play(&mut world, &effect);
    }
    world
}

const FIRST: &str = "chat-owned-0-0a1b2c3d";

#[test]
fn a_replica_is_a_pod_pinned_to_its_server_that_nobody_else_may_evict() {
    let mut world = world();
    edit_node(&mut world, "home", "owned-0", |node| {
        node.taints = vec![TaintSeen {
            key: "pomarium.dev/dedicated".to_owned(),
            value: String::new(),
            effect: "NoSchedule".to_owned(),
        }];
    });
    let effects = built(&world, &[start("owned-0")]);
    assert_eq!(
        names(&effects),
        ["ApplyBudget", "ApplyPod"],
        "protected before it exists"
    );
    insta::assert_yaml_snapshot!("replica", effects.iter().map(object).collect::<Vec<_>>());
}

fn object(effect: &Effect) -> serde_json::Value {
    match effect {
        Effect::ApplyPod { pod, .. } => serde_json::to_value(pod).unwrap(),
        Effect::ApplyBudget { budget, .. } => serde_json::to_value(budget).unwrap(),
        _ => serde_json::Value::Null,
    }
}

#[test]
fn the_budget_is_made_once_per_site() {
    let world = world();
    assert_eq!(
        names(&built(&world, &[start("owned-0"), start("owned-1")])),
        ["ApplyBudget", "ApplyPod", "ApplyPod"]
    );
    let mut world = world;
    for effect in built(&world, &[start("owned-0")]) {
        play(&mut world, &effect);
    }
    assert_eq!(names(&built(&world, &[start("owned-1")])), ["ApplyPod"]);
}

#[test]
fn nothing_is_made_outside_of_the_hub_before_the_finalizer_is_on() {
    let mut world = world();
    Arc::make_mut(world.pools.get_mut(&chat()).unwrap()).metadata.finalizers = None;
    let effects = built(&world, &[start("owned-0")]);
    assert_eq!(effects, [Effect::AddFinalizer(Object::Pool(chat()))]);
    play(&mut world, &effects[0]);
    assert_eq!(names(&built(&world, &[start("owned-0")])), ["ApplyBudget", "ApplyPod"]);
}

#[test]
fn what_is_not_there_any_more_is_left_out() {
    assert_eq!(built(&world(), &[start("gone")]), []);
    let mut lost = world();
    lost.sites.get_mut("home").unwrap().contact = Contact::Lost {
        since: NOW,
        message: String::new(),
    };
    assert_eq!(built(&lost, &[start("owned-0")]), [], "no site that does not answer");
}

fn drain(step: DrainStep, deadline: Span) -> (Action, Reason) {
    let action = Action::DrainReplica {
        pool: chat(),
        replica: ReplicaId::new("home", FIRST),
        step,
        deadline: NOW + deadline,
    };
    (action, Reason::DemandFell)
}

fn recorded(effects: &[Effect]) -> (bool, Option<Drain>) {
    let [Effect::SetLifecycle { serving, drain, .. }] = effects else {
        panic!("one lifecycle effect, not {effects:?}")
    };
    (*serving, *drain)
}

#[test]
fn a_drain_keeps_its_start_and_reason_and_its_deadline_only_comes_nearer() {
    let mut world = running();
    let fence = built(&world, &[drain(DrainStep::Fence, Span::from_minutes(15))]);
    let first = Drain {
        step: DrainStep::Fence,
        step_since: NOW,
        reason: Reason::DemandFell,
        deadline: NOW + Span::from_minutes(15),
    };
    assert_eq!(recorded(&fence), (false, Some(first)));
    play(&mut world, &fence[0]);

    assert_eq!(
        built(&world, &[drain(DrainStep::Fence, Span::from_minutes(20))]),
        [],
        "a repeated step changes nothing"
    );
    let (_, tighter) = recorded(&built(&world, &[drain(DrainStep::Fence, Span::from_minutes(5))]));
    assert_eq!(tighter.unwrap().deadline, NOW + Span::from_minutes(5));

    let later = Context {
        now: NOW + Span::from_minutes(1),
        ..context()
    };
    let plan = plan_of(&[drain(DrainStep::Quiesce, Span::from_minutes(20))], Verdict::Act);
    let (_, quiesce) = recorded(&effects(&plan, &snapshot(&world), &world, &later));
    assert_eq!(
        quiesce,
        Some(Drain {
            step: DrainStep::Quiesce,
            step_since: later.now,
            ..first
        })
    );

    let open = Action::OpenReplica {
        pool: chat(),
        replica: ReplicaId::new("home", FIRST),
    };
    let reopened = built(&world, &[(open.clone(), Reason::DrainCancelled)]);
    assert_eq!(recorded(&reopened), (true, None));
    play(&mut world, &reopened[0]);
    assert_eq!(
        built(&world, &[(open, Reason::DrainCancelled)]),
        [],
        "it is open already"
    );
}

#[test]
fn a_pod_says_goodbye_as_its_state_and_the_reason_demand() {
    let remove = |world: &World, cut, reason| {
        let action = Action::RemoveReplica {
            pool: chat(),
            replica: ReplicaId::new("home", FIRST),
            uid: format!("uid-{FIRST}"),
            cut,
        };
        match built(world, &[(action, reason)]).as_slice() {
            [Effect::DeletePod { farewell, .. }] => *farewell,
            other => panic!("one deletion, not {other:?}"),
        }
    };
    let ready = running();
    let mut ended = running();
    edit_pod(&mut ended, "home", FIRST, |pod| pod.phase = "Failed".to_owned());
    let mut loading = running();
    edit_pod(&mut loading, "home", FIRST, |pod| pod.ready = false);
    for (world, cut, reason, expected) in [
        (&ready, 0, Reason::Quiet, Farewell::Quiet),
        (&ready, 3, Reason::DeadlineCut, Farewell::Cut { requests: 3 }),
        (&ready, 0, Reason::DeadlineCut, Farewell::Cut { requests: 0 }),
        (&ready, 0, Reason::ReplicaLost, Farewell::Lost),
        (&ended, 0, Reason::ReplicaLost, Farewell::NotRunning),
        (&loading, 0, Reason::Quiet, Farewell::NotRunning),
    ] {
        assert_eq!(remove(world, cut, reason), expected, "{reason} {cut}");
    }
    let other_uid = Action::RemoveReplica {
        pool: chat(),
        replica: ReplicaId::new("home", FIRST),
        uid: "another".to_owned(),
        cut: 0,
    };
    assert_eq!(
        built(&ready, &[(other_uid, Reason::Quiet)]),
        [],
        "not another Pod of the same name"
    );
}

#[test]
fn a_server_is_marked_and_unmarked_once() {
    let mut world = world();
    let (group, server) = (GroupName::from("owned"), ServerName::from("owned-0"));
    let mark = [(
        Action::DrainServer {
            group: group.clone(),
            server: server.clone(),
        },
        Reason::ServerCordoned,
    )];
    let unmark = [(Action::UndrainServer { group, server }, Reason::DrainCancelled)];
    assert_eq!(built(&world, &unmark), []);
    let marked = built(&world, &mark);
    assert_eq!(names(&marked), ["MarkServer"]);
    play(&mut world, &marked[0]);
    assert_eq!(built(&world, &mark), []);
    assert_eq!(names(&built(&world, &unmark)), ["UnmarkServer"]);
}

#[test]
fn sizes_count_up_and_only_all_servers_of_a_blind_provider_are_given_back() {
    let mut world = world();
    let target = json!({"targetRef": {"apiVersion": "a/v1", "kind": "K", "namespace": "n", "name": "x"}});
    let hosted = Arc::make_mut(world.groups.get_mut("hosted").unwrap());
    hosted.spec.provider = serde_json::from_value(json!({"scale": target})).unwrap();
    Arc::make_mut(world.inventories.get_mut("hosted").unwrap()).size = Some(2);
    let request = |n: u32| {
        let action = Action::RequestServer {
            group: "hosted".into(),
            server: format!("hosted-{n}").into(),
        };
        (action, Reason::ServersNeeded)
    };
    let sizes: Vec<u32> = built(&world, &[request(2), request(3)])
        .iter()
        .map(|effect| match effect {
            Effect::RequestServer { size, .. } => *size,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [3, 4]);

    let release = |n: u32| {
        let action = Action::ReleaseServer {
            group: "hosted".into(),
            server: format!("hosted-{n}").into(),
        };
        (action, Reason::ServerIdle)
    };
    assert_eq!(built(&world, &[release(0)]), [], "one of two cannot be named");
    assert_eq!(names(&built(&world, &[release(0), release(1)])), ["EmptyGroup"]);
}

#[test]
fn where_people_want_to_be_asked_money_is_only_proposed() {
    let mut world = world();
    Arc::make_mut(world.groups.get_mut("hosted").unwrap()).spec.mode = Some(pomarium_api::common::Mode::Approve);
    let action = Action::RequestServer {
        group: "hosted".into(),
        server: "hosted-0".into(),
    };
    let proposed = || {
        let plan = plan_of(&[(action.clone(), Reason::ServersNeeded)], Verdict::Propose);
        effects(&plan, &snapshot(&world), &world, &context())
    };
    let effects = proposed();
    let [Effect::Propose(plan)] = effects.as_slice() else {
        panic!("one proposal, not {effects:?}")
    };
    assert_eq!(plan.spec.hourly_change, "1.97 USD");
    assert_eq!(plan.metadata.namespace.as_deref(), Some("pomarium-system"));
    assert_eq!(proposed(), effects, "the same proposal is the same object");
    assert_eq!(
        built(&world, &[(action.clone(), Reason::ServersNeeded)]),
        [],
        "whatever the plan says, the group's mode is the last word"
    );
}

#[test]
fn a_pool_leaves_nothing_behind_and_its_finalizer_goes_last() {
    let mut world = running();
    let leave = |world: &World| names(&effects(&Plan::default(), &snapshot(world), world, &context()));
    let mut object = pool();
    object["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
    world.pools.insert(chat(), read(object));
    assert_eq!(leave(&world), Vec::<&str>::new(), "it still has Pods");

    world.sites.get_mut("home").unwrap().pods = Arc::default();
    let mut lost = world.clone();
    lost.sites.get_mut("away").unwrap().contact = Contact::Lost {
        since: NOW,
        message: String::new(),
    };
    assert_eq!(leave(&world), ["DeleteBudget"]);
    for world in [&mut world, &mut lost] {
        world.sites.get_mut("home").unwrap().budgets = Arc::default();
    }
    assert_eq!(leave(&world), ["RemoveFinalizer"]);
    assert_eq!(
        leave(&lost),
        Vec::<&str>::new(),
        "a site that does not answer may still have some"
    );
}

#[test]
fn a_site_is_let_go_when_nothing_is_there_and_silence_is_not_nothing() {
    let mut world = world();
    world.groups.clear();
    let away = world.sites.get_mut("away").unwrap();
    Arc::make_mut(&mut away.object).metadata.deletion_timestamp =
        serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap();
    let leave = |world: &World| names(&effects(&Plan::default(), &snapshot(world), world, &context()));
    assert_eq!(leave(&world), ["RemoveFinalizer"]);
    let away = world.sites.get_mut("away").unwrap();
    away.contact = Contact::Lost {
        since: NOW,
        message: String::new(),
    };
    assert_eq!(leave(&world), Vec::<&str>::new(), "it may still have Pods");
    // Nobody could ever delete a site whose kubeconfig is refused.
    world.sites.get_mut("away").unwrap().problem = Some(Problem::new(Reason::CredentialRejected, ""));
    assert_eq!(leave(&world), ["RemoveFinalizer"]);
}

/// One pass of the real planner over a world in which effects work at once.
fn pass(world: &World, now: Timestamp) -> Vec<Effect> {
    let snapshot = crate::observe::observe(world, now).snapshot;
    let plan = planning::plan(&snapshot, now);
    effects(&plan, &snapshot, world, &Context { now, ..context() })
}

/// Passes until one has no effects. Time stands still: nothing but the effects themselves moves the world.
fn settle(world: &mut World) -> usize {
    for passes in 0..50 {
        let effects = pass(world, NOW);
        if effects.is_empty() {
            return passes;
        }
        for effect in &effects {
            play(world, effect);
        }
    }
    panic!("it does not settle: {:?}", names(&pass(world, NOW)));
}

fn pods(world: &World) -> Vec<(String, bool)> {
    let all = world.sites.values().flat_map(|site| site.pods.values());
    all.map(|pod| (pod.name.clone(), is_serving(pod))).collect()
}

#[test]
fn a_crash_after_any_effect_leads_to_the_same_world() {
    let mut reference = world();
    settle(&mut reference);
    let expected = pods(&reference);
    assert_eq!(
        expected.iter().filter(|(_, serving)| *serving).count(),
        2,
        "the pool wants two: {expected:?}"
    );
    // Cut each of the first passes after each of its effects.
    for cut_pass in 0..4 {
        for cut_after in 0..8 {
            let mut world = world();
            for number in 0..=cut_pass {
                let effects = pass(&world, NOW);
                let done = if number == cut_pass { cut_after } else { effects.len() };
                for effect in effects.iter().take(done) {
                    play(&mut world, effect);
                }
            }
            settle(&mut world);
            assert_eq!(
                pods(&world),
                expected,
                "cut in pass {cut_pass} after {cut_after} effects"
            );
        }
    }
}

#[test]
fn a_deleted_group_keeps_its_finalizer_until_nothing_runs_there() {
    let mut world = running();
    let leaving = Arc::make_mut(world.groups.get_mut("owned").unwrap());
    leaving.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
    let gone = Effect::RemoveFinalizer(Object::Group("owned".into()));
    assert!(!built(&world, &[]).contains(&gone), "its replicas serve");
    for site in world.sites.values_mut() {
        site.pods = Arc::default();
    }
    assert!(built(&world, &[]).contains(&gone));
}
