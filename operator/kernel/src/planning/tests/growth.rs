use super::*;
use crate::fixture::{START, group, measured};
use crate::lifecycle::ServerState;
use crate::plan::Truth;
use crate::snapshot::Survive;

#[test]
fn owned_servers_are_used_before_any_is_leased() {
    let mut stage = chat(2.0);
    let decisions = stage.run(Span::from_minutes(5));
    assert!(asks(&decisions).is_empty());
    assert!(stage.count("chat", "ultra") >= 4, "{:?}", stage.by_group("chat"));
    assert_silent(&mut stage);

    stage.demand("chat", 4.0);
    let decisions = stage.run(Span::from_minutes(30));
    assert!(
        !asks(&decisions).is_empty(),
        "six own servers do not carry four requests/s"
    );
    assert_eq!(stage.count("chat", "ultra"), 6);
    assert!(stage.count("chat", "m4") > 0);
}

#[test]
fn a_pool_converges_and_stays_silent() {
    for rate in [0.0, 0.3, 1.5, 2.6, 3.5, 4.2] {
        let mut stage = chat(rate);
        stage.run(Span::from_hours(1));
        for _ in 0..40 {
            let plan = stage.step();
            assert!(plan.decisions.is_empty(), "{rate} requests/s: {:#?}", plan.decisions);
        }
        let plan = stage.plan();
        assert_eq!(condition(&plan, ConditionKind::Ready).unwrap().status, Truth::True);
        assert_eq!(
            condition(&plan, ConditionKind::CapacityAvailable).unwrap().status,
            Truth::True
        );
    }
}

#[test]
fn nothing_is_planned_twice() {
    let mut stage = chat(4.0);
    stage.run(Span::from_minutes(2));
    stage.demand("chat", 5.0);
    until_asked(&mut stage);
    // Effects of the last pass that are not visible yet: the same names again, which changes nothing.
    let (first, again) = (stage.plan(), stage.plan());
    assert_eq!(first, again);
    assert!(!asks(&first.decisions).is_empty());
    // Visible: nothing more is asked for, although nothing has come yet.
    stage.apply(&first);
    stage.pass_time(Span::from_secs(15));
    assert!(asks(&stage.plan().decisions).is_empty());
}

/// Beside one M2 Ultra, nine M4 Pros sustain less than eight: from there on it is their percentile that binds. Ten sustain more again.
#[test]
fn servers_on_their_way_count_even_where_the_first_of_them_sets_a_slower_pace() {
    let mut stage = hybrid(1, 12)
        .group("m4-dear", crate::snapshot::Group::hosted("lease", 12))
        .pool("chat", Pool::fixture());
    stage.demand("chat", 0.8);
    stage.run(Span::from_minutes(30));
    stage.demand("chat", 1.81);
    let asked = asks(&stage.run(Span::from_minutes(5))).len();
    assert_eq!((asked, stage.count("chat", "m4")), (9, 3), "nine come, three serve");
    let now = stage.now;
    let mut running = stage.seen_mut("chat").running.values_mut();
    running.find(|one| one.group == group("m4")).unwrap().silent_since = Some(now);
    let decisions = stage.run(Span::from_minutes(4));
    assert_eq!(asks(&decisions).len(), 1, "one is lost: {:#?}", asks(&decisions));
}

#[test]
fn a_lease_that_does_not_arrive_is_time_boxed_and_the_next_group_is_tried() {
    let mut other = crate::snapshot::Group::hosted("lease", 5);
    other.pricing.hourly = crate::units::Money::from_micros(2_500_000);
    let mut stage = hybrid(1, 5).group("m4-dear", other).pool("chat", Pool::fixture());
    stage.stillborn.push(group("m4"));
    stage.demand("chat", 0.8);
    let decisions = stage.run(Span::from_minutes(50));
    assert!(
        asks(&decisions)
            .iter()
            .all(|ask| matches!(&ask.action, Action::RequestServer { group, .. } if group.as_str() == "m4"))
    );
    let decisions = stage.run(Span::from_minutes(15));
    let next = asks(&decisions);
    assert!(
        next.iter().any(
            |ask| matches!(&ask.action, Action::RequestServer { group, .. } if group.as_str() == "m4-dear")
                && ask.rejected.iter().any(|rejected| rejected.reason == Reason::LeaseLate)
        ),
        "{next:#?}"
    );
    stage.run(Span::from_minutes(20));
    assert!(stage.count("chat", "m4-dear") > 0);
}

#[test]
fn a_group_out_of_stock_is_passed_over() {
    let mut other = crate::snapshot::Group::hosted("lease", 5);
    other.pricing.hourly = crate::units::Money::from_micros(2_500_000);
    let mut stage = hybrid(1, 5).group("m4-dear", other).pool("chat", Pool::fixture());
    stage.demand("chat", 0.8);
    stage.snapshot.groups.get_mut("m4").unwrap().out_of_stock_since = Some(START);
    let plan = until_asked(&mut stage);
    let asked = asks(&plan.decisions);
    assert!(!asked.is_empty());
    for ask in asked {
        assert!(matches!(&ask.action, Action::RequestServer { group, .. } if group.as_str() == "m4-dear"));
    }
}

#[test]
fn a_spare_survives_the_loss_of_a_server() {
    let rates = |survive| {
        let mut stage = hybrid(6, 0).pool("chat", Pool::fixture().surviving(survive));
        stage.demand("chat", 1.2);
        stage.run(Span::from_minutes(5));
        stage.count("chat", "ultra")
    };
    assert!(rates(Survive::Server) > rates(Survive::None));
}

#[test]
fn surviving_a_site_places_at_two_of_them() {
    let mut stage = hybrid(6, 10).pool("chat", Pool::fixture().surviving(Survive::Site));
    stage.demand("chat", 0.3);
    stage.run(Span::from_minutes(40));
    assert!(stage.count("chat", "ultra") > 0 && stage.count("chat", "m4") > 0);
}

#[test]
fn a_missed_objective_adds_by_reaction_even_if_the_model_sees_enough() {
    let mut stage = chat(1.0);
    stage.run(Span::from_minutes(10));
    let before = stage.count("chat", "ultra");
    let now = stage.now;
    stage.seen_mut("chat").measured[0] = measured(13_000.0, 0.8, now);
    let decisions = stage.run(Span::from_minutes(3));
    assert!(
        decisions
            .iter()
            .any(|decision| decision.reason == Reason::ObjectiveMissed),
        "{decisions:#?}"
    );
    assert!(stage.count("chat", "ultra") > before);
    assert_eq!(
        reason(&stage.plan(), ConditionKind::SLOMet),
        Some(Reason::ObjectiveMissed)
    );
}

#[test]
fn deliveries_raise_the_most_when_they_are_due() {
    let mut stage = hybrid(0, 0).pool("chat", Pool::fixture());
    let hosted = crate::snapshot::Group::hosted("lease", 1).delivery(START + Span::from_hours(1), 3);
    stage.snapshot.groups.insert(group("m4"), hosted);
    stage.demand("chat", 0.3);
    stage.run(Span::from_minutes(50));
    assert_eq!(stage.count("chat", "m4"), 1);
    stage.run(Span::from_hours(1));
    assert!(stage.count("chat", "m4") > 1);
}

#[test]
fn a_group_keeps_its_minimum() {
    let mut stage = chat(0.0);
    stage.snapshot.groups.get_mut("m4").unwrap().size.min = 2;
    let decisions = stage.run(LONG);
    assert_eq!(asks(&decisions).len(), 2);
    assert!(
        asks(&decisions)
            .iter()
            .all(|ask| ask.reason == Reason::GroupBelowMinimum)
    );
    let servers = stage.snapshot.groups["m4"].inventory.servers();
    assert!(servers.values().all(|server| server.state == ServerState::Ready));
}

#[test]
fn the_pool_of_higher_priority_gets_the_server() {
    let mut important = Pool::fixture();
    important.priority = 100;
    let mut stage = hybrid(2, 0).pool("batch", Pool::fixture()).pool("chat", important);
    stage.demand("batch", 0.6);
    stage.demand("chat", 0.0);
    stage.run(Span::from_minutes(3));
    assert_eq!((stage.count("batch", "ultra"), stage.count("chat", "ultra")), (1, 1));
    stage.demand("chat", 0.6);
    let decisions = stage.run(Span::from_minutes(10));
    assert!(
        decisions.iter().any(|decision| decision.reason == Reason::Preempted),
        "{decisions:#?}"
    );
    assert_eq!((stage.count("batch", "ultra"), stage.count("chat", "ultra")), (0, 2));
}
