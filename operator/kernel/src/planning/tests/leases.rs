use super::*;
use crate::fixture::{START, group};
use crate::lifecycle::ServerState;
use crate::snapshot::Group;
use crate::time::Timestamp;

/// Everything carried at 4 requests/s, leases of an hour taken; then the demand falls to what own servers carry.
fn after_a_peak() -> (Stage, Timestamp) {
    let mut stage = hybrid(6, 10).pool("chat", Pool::fixture());
    let hosted = Group::hosted("lease", 10).minimum_lease(Span::from_hours(1));
    stage.snapshot.groups.insert(group("m4"), hosted);
    stage.demand("chat", 4.0);
    stage.run(Span::from_minutes(20));
    assert!(stage.count("chat", "m4") > 0, "{:?}", stage.by_group("chat"));
    let ends = stage.snapshot.groups["m4"].inventory.servers().values();
    let end = ends
        .filter_map(|server| server.lease)
        .map(|lease| lease.minimum_until)
        .min()
        .unwrap();
    stage.demand("chat", 1.0);
    (stage, end)
}

#[test]
fn a_paid_lease_is_kept_until_its_last_useful_moment() {
    let (mut stage, end) = after_a_peak();
    let leased = stage.count("chat", "m4");
    while stage.now < end - Span::from_minutes(3) {
        stage.step();
        assert_eq!(stage.count("chat", "m4"), leased, "at {}, paid until {end}", stage.now);
    }
    let held = stage.plan();
    let ready = condition(&held, ConditionKind::Ready).unwrap();
    assert!(ready.message.contains("may as well serve"), "{}", ready.message);
    let decisions = stage.run(LONG);
    assert!(!fences(&decisions).is_empty());
    assert_eq!(stage.count("chat", "m4"), 0);
    let left = stage.snapshot.groups["m4"].inventory.servers();
    assert!(
        left.values()
            .all(|server| !matches!(server.state, ServerState::Ready | ServerState::Draining))
    );
    let released = stage
        .history
        .iter()
        .filter(|(_, decision)| matches!(decision.action, Action::ReleaseServer { .. }));
    for (at, decision) in released {
        assert!(*at >= end, "released before the paid term ended: {decision:?}");
    }
}

#[test]
fn an_idle_lease_is_kept_and_used_before_another_is_bought() {
    let mut stage = hybrid(1, 10).pool("chat", Pool::fixture());
    stage.demand("chat", 0.9);
    stage.run(Span::from_minutes(5));
    let coming = stage.snapshot.groups["m4"].inventory.servers().len();
    assert!(coming > 0);
    stage.demand("chat", 0.1);
    stage.run(Span::from_minutes(30));
    let servers = stage.snapshot.groups["m4"].inventory.servers();
    assert!(
        servers.values().all(|server| server.state == ServerState::Ready),
        "paid for a day"
    );
    stage.demand("chat", 0.9);
    let decisions = stage.run(Span::from_minutes(5));
    assert!(asks(&decisions).is_empty(), "{:#?}", asks(&decisions));
    assert!(stage.count("chat", "m4") > 0);
}

#[test]
fn work_returns_from_hosted_to_owned_only_after_a_hold_down() {
    let (mut stage, end) = after_a_peak();
    let now = stage.now;
    // A lease without a minimum: it is only the hold-down that keeps it.
    for server in stage.snapshot.groups.get_mut("m4").unwrap().servers_mut().values_mut() {
        server.lease.as_mut().unwrap().minimum_until = now;
    }
    assert!(now < end);
    let early = stage.run(Span::from_minutes(9));
    assert!(fences(&early).is_empty(), "{:#?}", fences(&early));
    let later = stage.run(Span::from_minutes(5));
    assert!(fences(&later).iter().any(|fence| fence.reason == Reason::ReturnToOwned));
}

#[test]
fn an_own_server_that_is_back_takes_over_from_a_leased_one() {
    let mut stage = hybrid(2, 4).pool("chat", Pool::fixture());
    let hosted = Group::hosted("lease", 4).minimum_lease(Span::from_minutes(20));
    stage.snapshot.groups.insert(group("m4"), hosted);
    for server in stage
        .snapshot
        .groups
        .get_mut("ultra")
        .unwrap()
        .servers_mut()
        .values_mut()
    {
        server.cordoned = true;
    }
    stage.demand("chat", 0.1);
    stage.run(Span::from_minutes(20));
    assert!(stage.count("chat", "m4") > 0 && stage.count("chat", "ultra") == 0);
    for server in stage
        .snapshot
        .groups
        .get_mut("ultra")
        .unwrap()
        .servers_mut()
        .values_mut()
    {
        server.cordoned = false;
    }
    stage.run(Span::from_hours(1));
    assert_eq!((stage.count("chat", "ultra"), stage.count("chat", "m4")), (1, 0));
    let alive = stage.snapshot.groups["m4"].inventory.servers().values();
    assert_eq!(alive.filter(|server| server.state == ServerState::Ready).count(), 0);
    stage.run(Span::from_hours(2));
    assert_silent(&mut stage);
}

#[test]
fn a_drain_is_called_off_when_the_demand_is_back() {
    let (mut stage, end) = after_a_peak();
    stage.run(end.since(stage.now));
    let begun = loop {
        let plan = stage.step();
        if !fences(&plan.decisions).is_empty() {
            break plan;
        }
        assert!(stage.now < end + Span::from_hours(1));
    };
    assert!(of(&begun.decisions, |action| matches!(action, Action::DrainServer { .. })).len() <= 10);
    stage.demand("chat", 4.0);
    let plan = stage.step();
    assert!(
        plan.decisions
            .iter()
            .any(|decision| decision.reason == Reason::DrainCancelled
                && matches!(decision.action, Action::OpenReplica { .. })),
        "{:#?}",
        plan.decisions
    );
    assert!(!of(&plan.decisions, |action| matches!(action, Action::UndrainServer { .. })).is_empty());
    assert!(START < stage.now);
}
