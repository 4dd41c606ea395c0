//! What breaks, and what the plan makes of it.

use super::*;
use crate::fixture::{START, group};
use crate::lifecycle::{NodeHealth, ReplicaState, ServerState};
use crate::names::{ReplicaId, ServerName};
use crate::reason::Problem;
use crate::snapshot::{Demand, Group, Inventory, Load, Server};
use crate::units::Rate;

/// Two own servers and leased ones on their way: the state in which most is to lose.
fn growing() -> Stage {
    let mut dear = Group::hosted("lease", 10);
    dear.pricing.hourly = crate::units::Money::from_micros(2_500_000);
    let mut stage = hybrid(2, 10).group("m4-dear", dear).pool("chat", Pool::fixture());
    stage.demand("chat", 1.6);
    while coming(&stage) == 0 {
        stage.step();
        assert!(stage.now < START + Span::from_minutes(10));
    }
    stage
}

fn coming(stage: &Stage) -> usize {
    let servers = stage.snapshot.groups["m4"].inventory.servers().values();
    servers.filter(|server| server.state.is_coming()).count()
}

fn unlist(stage: &mut Stage, name: &str) {
    let since = stage.now;
    let found = stage.snapshot.groups.get_mut(name).unwrap();
    let last = found.servers_mut().clone();
    found.inventory = Inventory::Unknown { last, since };
}

fn broken() -> Problem {
    Problem::new(Reason::InvalidSpec, "spec.disruption is a mess")
}

fn on(stage: &mut Stage, group: &str, server: &ServerName, change: impl Fn(&mut Server)) {
    change(
        stage
            .snapshot
            .groups
            .get_mut(group)
            .unwrap()
            .servers_mut()
            .get_mut(server)
            .unwrap(),
    );
}

/// The machine falls silent: its Node and what runs there with it.
fn silence(stage: &mut Stage, group: &str, server: &ServerName) {
    let since = stage.now;
    on(stage, group, server, |server| {
        (server.state, server.since) = (ServerState::Suspect, since);
        server.node = NodeHealth::Down { since };
    });
    for replica in stage
        .seen_mut("chat")
        .running
        .values_mut()
        .filter(|replica| replica.server == *server)
    {
        (replica.state, replica.since, replica.load) = (ReplicaState::Suspect, since, Load::Unknown);
    }
}

#[test]
fn what_is_on_its_way_is_not_bought_again_while_its_provider_lists_nothing() {
    type Blind = fn(&mut Stage);
    let blinds: [Blind; 4] = [
        |stage| unlist(stage, "m4"),
        |stage| stage.snapshot.groups.get_mut("m4").unwrap().problem = Some(broken()),
        |stage| stage.snapshot.groups.get_mut("m4").unwrap().paused = true,
        |stage| stage.snapshot.sites.get_mut("lease").unwrap().problem = Some(broken()),
    ];
    for (index, blind) in blinds.into_iter().enumerate() {
        let mut stage = growing();
        blind(&mut stage);
        for _ in 0..30 {
            let plan = stage.step();
            assert!(asks(&plan.decisions).is_empty(), "{index}: {:#?}", plan.decisions);
        }
    }
}

#[test]
fn a_provider_that_lists_nothing_for_long_is_done_without_and_the_reason_is_said() {
    let mut stage = growing();
    unlist(&mut stage, "m4");
    stage.run(Span::from_minutes(9));
    let decisions = stage.run(Span::from_minutes(3));
    let asked = asks(&decisions);
    assert!(!asked.is_empty(), "the demand is there all the same");
    for ask in asked {
        let why = ask.rejected.iter().find(|rejected| rejected.alternative == "m4");
        assert_eq!(why.unwrap().reason, Reason::InventoryUnknown, "{ask:#?}");
    }
}

#[test]
fn replicas_of_a_broken_group_count_and_are_left_alone() {
    type Break = fn(&mut Stage);
    let breaks: [Break; 3] = [
        |stage| stage.snapshot.groups.get_mut("ultra").unwrap().problem = Some(broken()),
        |stage| stage.snapshot.sites.get_mut("cupertino").unwrap().problem = Some(broken()),
        // Not even the machine can be read.
        |stage| {
            let found = stage.snapshot.groups.get_mut("ultra").unwrap();
            (found.problem, found.machine.gpu_cores) = (Some(broken()), 0);
        },
    ];
    for (index, broken) in breaks.into_iter().enumerate() {
        let mut stage = chat(1.2);
        stage.run(Span::from_minutes(10));
        let before = stage.count("chat", "ultra");
        broken(&mut stage);
        let decisions = stage.run(Span::from_hours(1));
        assert!(decisions.is_empty(), "{index}: {decisions:#?}");
        assert_eq!(stage.count("chat", "ultra"), before);
    }
}

#[test]
fn replicas_of_a_group_that_is_not_selected_any_more_serve_until_their_replacements_do() {
    let mut stage = chat(0.3);
    for found in stage.snapshot.groups.values_mut() {
        found.labels.insert("tier".to_owned(), "gold".to_owned());
    }
    stage.seen_mut("chat").placement.group_labels = [("tier".to_owned(), "gold".to_owned())].into();
    stage.run(Span::from_minutes(5));
    assert_eq!(stage.count("chat", "ultra"), 1);
    stage.snapshot.groups.get_mut("ultra").unwrap().labels.clear();
    for _ in 0..200 {
        stage.step();
        assert!(
            !stage.by_group("chat").is_empty(),
            "fenced before its replacement served"
        );
    }
    assert_eq!(stage.count("chat", "ultra"), 0);
    assert!(stage.count("chat", "m4") > 0);
    let moved = stage.history.iter().map(|(_, decision)| decision.reason);
    assert!(moved.into_iter().any(|reason| reason == Reason::NoLongerSelected));
}

#[test]
fn replicas_that_no_selector_chooses_stay_where_nothing_can_replace_them() {
    let mut stage = hybrid(3, 0).pool("chat", Pool::fixture());
    stage.demand("chat", 0.7);
    stage.run(Span::from_minutes(5));
    let before = stage.count("chat", "ultra");
    stage.seen_mut("chat").placement.group_labels = [("tier".to_owned(), "gold".to_owned())].into();
    let decisions = stage.run(Span::from_hours(1));
    assert!(decisions.is_empty(), "{decisions:#?}");
    assert_eq!(stage.count("chat", "ultra"), before);
    assert_eq!(reason(&stage.plan(), ConditionKind::Stalled), Some(Reason::NoGroup));
}

#[test]
fn servers_of_one_name_at_two_sites_run_two_replicas() {
    let site = || crate::snapshot::Site::fixture(crate::snapshot::Ownership::Owned);
    let mut stage = Stage::new(START)
        .site("east", site())
        .site("west", site())
        .group("a", Group::owned("east", "mac", 1))
        .group("b", Group::owned("west", "mac", 1))
        .pool("chat", Pool::fixture().replicas(2, 2));
    stage.demand("chat", 0.1);
    stage.run(Span::from_minutes(5));
    assert_eq!((stage.count("chat", "a"), stage.count("chat", "b")), (1, 1));
    assert_silent(&mut stage);
    let text = serde_json::to_string(&stage.snapshot).unwrap();
    assert_eq!(
        serde_json::from_str::<crate::snapshot::Snapshot>(&text).unwrap(),
        stage.snapshot
    );
}

/// One replica on a leased server with a paid day before it.
fn leased() -> (Stage, ServerName) {
    let mut stage = hybrid(0, 5).pool("chat", Pool::fixture());
    stage.demand("chat", 0.0);
    stage.run(Span::from_minutes(20));
    assert_eq!(stage.count("chat", "m4"), 1);
    let server = stage.seen("chat").running.values().next().unwrap().server.clone();
    (stage, server)
}

#[test]
fn a_dead_leased_server_is_given_back_although_nobody_ends_its_pod() {
    let (mut stage, server) = leased();
    silence(&mut stage, "m4", &server);
    let died = stage.now;
    let mut released = None;
    for _ in 0..400 {
        let plan = stage.plan();
        // The kubelet is dead: what is removed stays Terminating.
        let before = stage.seen("chat").running.clone();
        stage.apply(&plan);
        for decision in &plan.decisions {
            match &decision.action {
                Action::RemoveReplica { replica, .. } if before[replica].server == server => {
                    let until = stage.now + Span::from_minutes(15);
                    let mut left = before[replica].clone();
                    (left.state, left.since, left.serving) = (ReplicaState::Terminating, until, false);
                    stage.seen_mut("chat").running.insert(replica.clone(), left);
                }
                Action::ReleaseServer { server: given, .. } if *given == server => {
                    released.get_or_insert((stage.now, decision.reason));
                }
                _ => {}
            }
        }
        stage.pass_time(Span::from_secs(15));
    }
    let (at, reason) = released.expect("it is paid for ever");
    assert_eq!(reason, Reason::ServerLost);
    assert!(at.since(died) >= Span::from_minutes(10), "it is investigated first");
    assert!(stage.count("chat", "m4") > 0, "and replaced");
}

#[test]
fn a_silent_server_that_comes_back_in_time_is_kept() {
    let (mut stage, server) = leased();
    silence(&mut stage, "m4", &server);
    let early = stage.run(Span::from_minutes(9));
    assert!(
        of(&early, |action| matches!(
            action,
            Action::DrainServer { .. } | Action::ReleaseServer { .. }
        ))
        .is_empty()
    );
}

#[test]
fn a_paused_pool_keeps_its_silent_server_without_a_flap() {
    let (mut stage, server) = leased();
    stage.seen_mut("chat").paused = true;
    silence(&mut stage, "m4", &server);
    let decisions = stage.run(LONG);
    assert!(decisions.is_empty(), "{decisions:#?}");
}

#[test]
fn a_replica_that_never_becomes_ready_gives_its_place_up_and_buys_no_other() {
    let mut stage = hybrid(1, 5).pool("chat", Pool::fixture());
    stage.demand("chat", 0.1);
    let mut late = 0;
    for _ in 0..240 {
        for replica in stage.seen_mut("chat").running.values_mut() {
            (replica.state, replica.load) = (ReplicaState::Loading, Load::Unknown);
        }
        let plan = stage.plan();
        assert!(
            asks(&plan.decisions).is_empty(),
            "another server does not help: {:#?}",
            plan.decisions
        );
        late += fences(&plan.decisions)
            .iter()
            .filter(|fence| fence.reason == Reason::ReplicaLate)
            .count();
        stage.apply(&plan);
        stage.now = stage.now + Span::from_secs(15);
        stage.demand("chat", 0.1);
    }
    assert!(
        (2..=6).contains(&late),
        "started again every twelve minutes or so, not {late} times in an hour"
    );
}

#[test]
fn a_replica_that_stays_unready_is_replaced_at_once_and_given_up_later() {
    let mut stage = chat(0.3);
    stage.run(Span::from_minutes(10));
    let (id, since) = (stage.seen("chat").running.keys().next().unwrap().clone(), stage.now);
    let stumble = |stage: &mut Stage| {
        if let Some(replica) = stage.seen_mut("chat").running.get_mut(&id) {
            (replica.state, replica.since, replica.load) = (ReplicaState::Suspect, since, Load::Unknown);
        }
    };
    stumble(&mut stage);
    let early = stage.run(Span::from_minutes(5));
    assert!(
        early.iter().any(|decision| decision.reason == Reason::Replacing),
        "{early:#?}"
    );
    assert!(fences(&early).is_empty(), "its engine may only be restarting");
    let later = stage.run(Span::from_minutes(40));
    assert!(
        fences(&later).iter().any(|fence| fence.reason == Reason::ReplicaLost),
        "{later:#?}"
    );
    assert!(
        !stage.seen("chat").running.contains_key(&id),
        "it keeps its server for ever"
    );
}

fn hush(stage: &mut Stage, ids: &[ReplicaId]) {
    let since = stage.now;
    for id in ids {
        let replica = stage.seen_mut("chat").running.get_mut(id).unwrap();
        replica.silent_since = Some(since);
    }
}

#[test]
fn an_engine_that_falls_silent_is_replaced_and_leaves_only_after_its_replacement_serves() {
    let mut stage = chat(0.7);
    stage.run(Span::from_minutes(10));
    let ids: Vec<_> = stage.seen("chat").running.keys().cloned().collect();
    assert_eq!(ids.len(), 2);
    hush(&mut stage, &ids[..1]);
    stage.pass_time(Span::from_secs(15));
    assert!(
        stage.plan().decisions.is_empty(),
        "one look that was missed says little"
    );
    let early = stage.run(Span::from_minutes(1));
    assert!(
        early.iter().any(|decision| decision.reason == Reason::Replacing),
        "{early:#?}"
    );
    let later = stage.run(Span::from_minutes(15));
    assert_eq!(fences(&later).len(), 1);
    assert_eq!(fences(&later)[0].reason, Reason::EngineSilent);
    assert_eq!(stage.count("chat", "ultra"), 2);
}

#[test]
fn engines_that_fall_silent_together_prove_nothing() {
    let mut stage = chat(0.7);
    stage.run(Span::from_minutes(10));
    let ids: Vec<_> = stage.seen("chat").running.keys().cloned().collect();
    hush(&mut stage, &ids);
    for replica in stage.seen_mut("chat").running.values_mut() {
        replica.load = Load::Unknown;
    }
    let plan = stage.plan();
    stage.now = stage.now + Span::from_minutes(1);
    stage.demand("chat", 0.7);
    assert_eq!(
        (plan.decisions.len(), stage.plan().decisions.len()),
        (0, 0),
        "the way to them is broken"
    );
}

#[test]
fn a_scale_group_with_a_late_server_grows_again_and_goes_to_zero_in_the_end() {
    let mut stage = hybrid(0, 0).pool("chat", Pool::fixture().replicas(0, 40));
    let mut scale = Group::hosted("lease", 4).minimum_lease(Span::ZERO);
    scale.provider.releases_chosen = false;
    scale.pricing.hourly = crate::units::Money::ZERO;
    let late = Server {
        state: ServerState::Failed,
        node: NodeHealth::Absent,
        ..Server::fixture(START - Span::from_hours(1))
    };
    scale.servers_mut().insert("m4-0".into(), late);
    stage.snapshot.groups.insert(group("m4"), scale);
    stage.demand("chat", 0.1);
    let plan = stage.plan();
    assert!(
        !asks(&plan.decisions).is_empty(),
        "locked by a server that nobody can give back"
    );
    stage.run(Span::from_minutes(30));
    assert!(stage.count("chat", "m4") > 0);
    stage.demand("chat", 0.0);
    let decisions = stage.run(LONG);
    let released = of(
        &decisions,
        |action| matches!(action, Action::ReleaseServer { server, .. } if server.as_str() == "m4-0"),
    );
    assert!(!released.is_empty(), "{decisions:#?}");
}

#[test]
fn a_server_that_its_provider_gave_up_is_drained_while_its_node_is_ready() {
    for state in [ServerState::Failed, ServerState::Releasing] {
        let (mut stage, server) = leased();
        on(&mut stage, "m4", &server, |server| server.state = state);
        let decisions = stage.run(Span::from_minutes(60));
        let fence = decisions
            .iter()
            .position(|decision| fences(std::slice::from_ref(decision)).len() == 1);
        let removal = decisions
            .iter()
            .position(|decision| matches!(decision.action, Action::RemoveReplica { .. }));
        assert!(fence.is_some() && fence < removal, "{state:?}: {decisions:#?}");
        assert!(stage.count("chat", "m4") > 0, "replaced");
        if state == ServerState::Failed {
            let by_its_provider = stage
                .history
                .iter()
                .any(|(_, decision)| decision.reason == Reason::ServerFailed);
            assert!(by_its_provider, "replaced first");
        }
    }
}

#[test]
fn a_pod_that_somebody_else_deleted_is_drained_to_the_end() {
    let mut stage = chat(0.7);
    stage.run(Span::from_minutes(10));
    let (id, until) = (
        stage.seen("chat").running.keys().next().unwrap().clone(),
        stage.now + Span::from_minutes(15),
    );
    let replica = stage.seen_mut("chat").running.get_mut(&id).unwrap();
    (replica.state, replica.since) = (ReplicaState::Terminating, until);
    let plan = stage.step();
    let fence = fences(&plan.decisions);
    assert_eq!(fence.len(), 1, "{:#?}", plan.decisions);
    assert_eq!(fence[0].reason, Reason::PodDeleted);
    stage.step();
    stage.pass_time(Span::from_secs(15));
    let now = stage.now;
    let replica = stage.seen_mut("chat").running.get_mut(&id).unwrap();
    replica.load = Load::Known {
        running: 0,
        queued: 0,
        at: now,
    };
    let plan = stage.step();
    let removed = of(&plan.decisions, |action| matches!(action, Action::RemoveReplica { .. }));
    assert_eq!(
        removed.len(),
        1,
        "it waits for its whole time-out: {:#?}",
        plan.decisions
    );
}

#[test]
fn a_group_that_is_deleted_is_left_after_its_replacements_serve_and_then_given_back() {
    let (mut stage, _) = leased();
    let other = Group::hosted("lease", 5);
    stage = stage.group("other", other);
    stage.snapshot.groups.get_mut("m4").unwrap().deleting = true;
    for _ in 0..240 {
        stage.step();
        assert!(
            !stage.by_group("chat").is_empty(),
            "fenced before its replacement served"
        );
    }
    assert_eq!((stage.count("chat", "m4"), stage.count("chat", "other")), (0, 1));
    let left = stage.snapshot.groups["m4"].inventory.servers();
    assert!(
        left.values().all(|server| server.state == ServerState::Recycling),
        "{left:#?}"
    );
    let moved: Vec<_> = stage.history.iter().map(|(_, decision)| decision.reason).collect();
    assert!(moved.contains(&Reason::GroupDeleted));
}

#[test]
fn what_is_certain_of_a_demand_is_enough_to_add_for_and_not_to_take_away_by() {
    let part = |stage: &mut Stage, per_second: f64| {
        stage.metrics_gone("chat");
        if let Demand::Unknown { at_least, .. } = &mut stage.seen_mut("chat").demand {
            *at_least = Some(Rate::per_second(per_second));
        }
    };
    let mut stage = chat(0.7);
    stage.run(Span::from_minutes(10));
    let before = stage.count("chat", "ultra");
    part(&mut stage, 0.01);
    let decisions = stage.run(LONG);
    assert!(decisions.is_empty(), "{decisions:#?}");
    part(&mut stage, 1.8);
    stage.run(Span::from_minutes(10));
    assert!(stage.count("chat", "ultra") > before);
}
