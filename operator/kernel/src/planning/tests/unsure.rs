//! What is not known refuses nothing, and what is held says why.

use super::*;
use crate::fixture::{group, pool_id};
use crate::plan::Truth;
use crate::snapshot::{Demand, LengthMix, Survive};

/// A pool whose first token is out of reach with the assumed lengths, on any server.
fn impatient(min: u32) -> Pool {
    let mut pool = Pool::fixture().replicas(min, 5);
    pool.objectives[0].threshold = Span::from_secs(3);
    pool
}

fn lengths(stage: &mut Stage, lengths: Option<LengthMix>) {
    if let Demand::Known(arrivals) = &mut stage.seen_mut("chat").demand {
        arrivals.lengths = lengths;
    }
}

fn short() -> LengthMix {
    LengthMix {
        classes: vec![(200, 100), (300, 100)],
    }
}

#[test]
fn a_pool_that_was_never_measured_serves_and_is_measured() {
    for (min, rate) in [(1, None), (0, Some(0.1))] {
        let mut stage = hybrid(3, 0).pool("chat", impatient(min));
        if let Some(rate) = rate {
            stage.demand("chat", rate);
        }
        for _ in 0..20 {
            lengths(&mut stage, None);
            stage.step();
        }
        lengths(&mut stage, None);
        assert_eq!(stage.count("chat", "ultra"), 1, "at {rate:?}");
        let plan = stage.plan();
        assert_eq!(condition(&plan, ConditionKind::Stalled), None);
        if rate.is_some() {
            let told = &condition(&plan, ConditionKind::MetricsAvailable).unwrap().message;
            assert!(
                told.contains("TTFT p95 3.0s is unreachable") || told.contains("TTFT p95 3s"),
                "{told}"
            );
        }
    }
}

#[test]
fn where_assumed_lengths_say_nothing_the_measured_percentile_speaks() {
    let mut stage = hybrid(3, 0).pool("chat", impatient(1));
    stage.demand("chat", 0.5);
    for _ in 0..60 {
        lengths(&mut stage, None);
        let now = stage.now;
        stage.seen_mut("chat").measured[0] = crate::fixture::measured(4_000.0, 0.8, now);
        stage.step();
    }
    assert!(stage.count("chat", "ultra") > 1);
}

#[test]
fn the_last_measured_lengths_are_used_when_measurements_stop() {
    let mut stage = hybrid(3, 0)
        .pool("chat", impatient(1))
        .serving("chat", "ultra", "ultra-0");
    stage.demand("chat", 0.4);
    lengths(&mut stage, Some(short()));
    let plan = stage.plan();
    assert_eq!(plan.pools[&pool_id("chat")].memory.lengths, Some(short()));
    stage.apply(&plan);
    // Nothing is measured any more: the same lengths, and therefore the same capacity.
    let sustainable = |stage: &Stage| stage.plan().pools[&pool_id("chat")].sustainable;
    let before = sustainable(&stage);
    lengths(&mut stage, None);
    assert_eq!(sustainable(&stage), before);
    stage.seen_mut("chat").memory.lengths = None;
    assert_ne!(sustainable(&stage), before, "or else this proves nothing");
    // A mix that is nearly the same is not written again: a status must come to rest.
    let near = LengthMix {
        classes: vec![(205, 100), (310, 100)],
    };
    stage.seen_mut("chat").memory.lengths = Some(short());
    lengths(&mut stage, Some(near));
    assert_eq!(stage.plan().pools[&pool_id("chat")].memory.lengths, Some(short()));
}

#[test]
fn capacity_that_the_route_does_not_reach_is_none() {
    let mut pool = Pool::fixture();
    pool.routable_at = Some(["cupertino".into()].into());
    let mut stage = hybrid(2, 10).pool("chat", pool);
    stage.demand("chat", 2.0);
    let decisions = stage.run(Span::from_minutes(30));
    assert!(asks(&decisions).is_empty());
    assert_eq!((stage.count("chat", "ultra"), stage.count("chat", "m4")), (2, 0));

    // A route is asked for after servers were leased elsewhere: they are not counted, and given up.
    let mut stage = chat(4.0);
    stage.run(Span::from_hours(1));
    assert!(stage.count("chat", "m4") > 0);
    let all = stage.plan().pools[&pool_id("chat")].sustainable.unwrap();
    stage.seen_mut("chat").routable_at = Some(["cupertino".into()].into());
    let local = stage.plan().pools[&pool_id("chat")].sustainable.unwrap();
    assert!(local < all, "{local} of {all}");
}

#[test]
fn a_spare_for_which_the_spec_has_no_room_is_said_and_blocks_nothing() {
    let mut stage = hybrid(2, 0).pool("chat", Pool::fixture().replicas(0, 1).surviving(Survive::Server));
    stage.demand("chat", 0.2);
    stage.run(Span::from_minutes(10));
    let plan = stage.plan();
    let capacity = condition(&plan, ConditionKind::CapacityAvailable).unwrap();
    assert_eq!((capacity.status, capacity.reason), (Truth::False, Reason::SpareForLoss));
    assert!(
        capacity.message.contains("no room for the spare"),
        "{}",
        capacity.message
    );
    assert_eq!(condition(&plan, ConditionKind::Ready).unwrap().status, Truth::True);
    // Not a deadlock: a revision rolls, and without demand the replica goes.
    stage.seen_mut("chat").revision = "r2".into();
    stage.run(Span::from_minutes(10));
    assert!(
        stage
            .seen("chat")
            .running
            .values()
            .all(|replica| replica.revision.as_str() == "r2")
    );
    assert_eq!(stage.count("chat", "ultra"), 1);
    stage.demand("chat", 0.0);
    stage.run(Span::from_minutes(30));
    assert_eq!(stage.count("chat", "ultra"), 0);
}

#[test]
fn a_spare_is_neither_added_nor_removed_when_demand_wobbles() {
    let mut stage = hybrid(6, 0).pool("chat", Pool::fixture().surviving(Survive::Server));
    stage.demand("chat", 1.0);
    stage.run(Span::from_minutes(20));
    let mut rate = 1.0;
    let mut spare = stage.count("chat", "ultra");
    // Up to where one more is just needed for a loss …
    while stage.count("chat", "ultra") == spare && rate < 2.0 {
        spare = stage.count("chat", "ultra");
        rate += 0.02;
        stage.demand("chat", rate);
        stage.run(Span::from_minutes(2));
    }
    stage.run(Span::from_minutes(20));
    let moves = stage.history.len();
    // … and five percent down and up again, for hours.
    for step in 0..12 {
        stage.demand("chat", if step % 2 == 0 { rate * 0.95 } else { rate });
        stage.run(Span::from_minutes(20));
    }
    assert_eq!(stage.history.len(), moves, "{:#?}", stage.history.last());
}

#[test]
fn a_preemption_respects_windows_and_disruption_budgets() {
    let fenced_at_once = |max_unavailable: u32, window_open: bool| {
        let mut important = Pool::fixture();
        important.priority = 100;
        let mut stage = hybrid(4, 0)
            .pool("batch", Pool::fixture().replicas(3, 3))
            .pool("chat", important);
        stage.demand("batch", 0.1);
        stage.demand("chat", 0.0);
        stage.run(Span::from_minutes(3));
        let found = stage.snapshot.groups.get_mut("ultra").unwrap();
        (found.disruption.max_unavailable, found.disruption.window_open) = (max_unavailable, window_open);
        stage.demand("chat", 1.8);
        let most = (0..40).map(|_| {
            stage.step();
            let batch = stage.seen("batch").running.values();
            batch.filter(|replica| replica.drain.is_some()).count()
        });
        (most.max().unwrap_or(0), stage.count("chat", "ultra"))
    };
    assert_eq!(fenced_at_once(1, true), (1, 4), "one after the other");
    assert_eq!(fenced_at_once(2, true).0, 2);
    assert_eq!(fenced_at_once(1, false), (0, 1));
}

#[test]
fn what_has_to_go_and_is_held_says_why_and_stalls_after_a_while() {
    let mut stage = hybrid(2, 0).pool("chat", Pool::fixture());
    stage.demand("chat", 0.7);
    stage.run(Span::from_minutes(5));
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
    stage.step();
    let plan = stage.plan();
    let reconciling = condition(&plan, ConditionKind::Reconciling).unwrap();
    assert!(
        reconciling.message.contains("it waits (CapacityExhausted)"),
        "{}",
        reconciling.message
    );
    assert_eq!(
        plan.pools[&pool_id("chat")].held.as_ref().unwrap().reason,
        Reason::CapacityExhausted
    );
    stage.run(Span::from_minutes(65));
    assert_eq!(
        reason(&stage.plan(), ConditionKind::Stalled),
        Some(Reason::CapacityExhausted)
    );
    // Help comes: it is over.
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
    stage.step();
    let plan = stage.plan();
    assert_eq!(condition(&plan, ConditionKind::Stalled), None);
    assert_eq!(plan.pools[&pool_id("chat")].memory.held_since, None);
}

#[test]
fn a_closed_window_is_waited_for_without_a_word_of_stalling() {
    let mut stage = hybrid(3, 0).pool("chat", Pool::fixture());
    stage.demand("chat", 0.3);
    stage.run(Span::from_minutes(5));
    stage.snapshot.groups.get_mut("ultra").unwrap().disruption.window_open = false;
    stage.seen_mut("chat").revision = "r2".into();
    stage.run(Span::from_hours(3));
    let plan = stage.plan();
    assert_eq!(condition(&plan, ConditionKind::Stalled), None);
    assert_eq!(
        plan.pools[&pool_id("chat")].held.as_ref().unwrap().reason,
        Reason::WindowClosed
    );
    stage.snapshot.groups.get_mut("ultra").unwrap().disruption.window_open = true;
    stage.run(Span::from_minutes(10));
    assert!(
        stage
            .seen("chat")
            .running
            .values()
            .all(|replica| replica.revision.as_str() == "r2")
    );
}

#[test]
fn servers_that_people_hold_are_named_as_the_reason() {
    let mut stage = chat(2.5);
    stage.run(Span::from_minutes(20));
    for server in stage
        .snapshot
        .groups
        .get_mut("ultra")
        .unwrap()
        .servers_mut()
        .values_mut()
    {
        server.held = true;
    }
    stage.demand("chat", 0.1);
    stage.run(Span::from_minutes(30));
    let plan = stage.plan();
    assert_eq!(plan.pools[&pool_id("chat")].held.as_ref().unwrap().reason, Reason::Held);
}

#[test]
fn a_machine_that_nobody_knows_is_said_on_its_group() {
    let mut stage = chat(0.3);
    stage.snapshot.groups.get_mut("m4").unwrap().machine.chip = "M9 Ultra".to_owned();
    let told = |stage: &Stage| {
        let plan = stage.plan();
        let conditions = &plan.groups[&group("m4")].conditions;
        let found = conditions
            .iter()
            .find(|condition| condition.kind == ConditionKind::CapacityAvailable);
        found.map(|condition| condition.reason)
    };
    assert_eq!(told(&stage), Some(Reason::MachineUnknown));
    let mut figures = stage.seen("chat").performance[1].clone();
    figures.chip = "M9 Ultra".to_owned();
    stage.seen_mut("chat").performance.push(figures);
    assert_ne!(told(&stage), Some(Reason::MachineUnknown));
}

#[test]
fn idle_servers_that_stay_because_the_provider_would_choose_say_so() {
    let mut stage = chat(0.1);
    let found = stage.snapshot.groups.get_mut("ultra").unwrap();
    found.provider.always_on = false;
    stage.run(Span::from_minutes(30));
    let plan = stage.plan();
    let ready = &plan.groups[&group("ultra")].conditions[0];
    assert_eq!((ready.status, ready.reason), (Truth::True, Reason::CannotChooseVictim));
}

#[test]
fn replicas_of_a_deleted_pool_that_nobody_can_reach_are_not_forgotten() {
    let mut stage = chat(0.3);
    stage.run(Span::from_minutes(5));
    stage.seen_mut("chat").deleting = true;
    assert_eq!(
        reason(&stage.plan(), ConditionKind::Reconciling),
        Some(Reason::PoolDeleted)
    );
    stage.lose("cupertino");
    assert_eq!(
        reason(&stage.plan(), ConditionKind::Reconciling),
        Some(Reason::Forgotten)
    );
}
