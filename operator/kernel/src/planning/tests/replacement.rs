use super::*;
use crate::snapshot::{Maintenance, Survive};

#[test]
fn a_cordoned_server_is_left_after_its_replacement_serves() {
    let mut stage = hybrid(3, 0).pool("chat", Pool::fixture());
    stage.demand("chat", 0.7);
    stage.run(Span::from_minutes(5));
    assert_eq!(stage.count("chat", "ultra"), 2);
    let left = stage.seen("chat").running.values().next().unwrap().server.clone();
    stage
        .snapshot
        .groups
        .get_mut("ultra")
        .unwrap()
        .servers_mut()
        .get_mut(&left)
        .unwrap()
        .cordoned = true;
    let mut replaced = false;
    for _ in 0..40 {
        let plan = stage.step();
        assert!(
            stage.count("chat", "ultra") >= 2,
            "fenced before its replacement served"
        );
        replaced |= fences(&plan.decisions)
            .iter()
            .any(|fence| fence.reason == Reason::ServerCordoned);
    }
    assert!(replaced);
    assert!(
        stage
            .seen("chat")
            .running
            .values()
            .all(|replica| replica.server != left)
    );
    assert_silent(&mut stage);
}

#[test]
fn a_cordoned_server_is_kept_while_nothing_can_replace_it() {
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
    let decisions = stage.run(Span::from_hours(1));
    assert!(fences(&decisions).is_empty(), "{decisions:#?}");
    assert_eq!(stage.count("chat", "ultra"), 2);
}

#[test]
fn a_new_revision_surges_one_and_drains_one() {
    let mut stage = hybrid(4, 0).pool("chat", Pool::fixture());
    stage.demand("chat", 1.2);
    stage.run(Span::from_minutes(10));
    let serving = stage.count("chat", "ultra");
    assert!((2..4).contains(&serving));
    stage.seen_mut("chat").revision = "r2".into();
    for _ in 0..200 {
        stage.step();
        assert!(stage.count("chat", "ultra") >= serving, "the roll takes capacity away");
        let running = stage.seen("chat").running.len();
        assert!(
            running <= usize::try_from(serving).unwrap() + 1,
            "more than one at a time"
        );
    }
    assert!(
        stage
            .seen("chat")
            .running
            .values()
            .all(|replica| replica.revision.as_str() == "r2")
    );
    assert_silent(&mut stage);
}

#[test]
fn a_full_group_rolls_on_the_spare_that_it_has_for_losses() {
    let mut stage = hybrid(4, 0).pool("chat", Pool::fixture().surviving(Survive::Server));
    stage.demand("chat", 1.2);
    stage.run(Span::from_minutes(10));
    assert_eq!(stage.count("chat", "ultra"), 4);
    stage.seen_mut("chat").revision = "r2".into();
    stage.run(LONG);
    assert!(
        stage
            .seen("chat")
            .running
            .values()
            .all(|replica| replica.revision.as_str() == "r2")
    );
    assert_eq!(stage.count("chat", "ultra"), 4);
    assert_silent(&mut stage);
}

#[test]
fn a_site_in_maintenance_is_emptied_after_its_replacements_serve() {
    let mut stage = chat(0.3);
    stage.run(Span::from_minutes(5));
    stage.snapshot.sites.get_mut("cupertino").unwrap().maintenance = Maintenance::Draining;
    for _ in 0..200 {
        stage.step();
        assert!(
            !stage.by_group("chat").is_empty(),
            "fenced before its replacement served"
        );
    }
    assert_eq!(stage.count("chat", "ultra"), 0);
    assert!(stage.count("chat", "m4") > 0);
}

#[test]
fn a_deleted_pool_is_drained_and_its_leases_end() {
    let mut stage = chat(4.0);
    stage.run(Span::from_minutes(30));
    stage.seen_mut("chat").deleting = true;
    let decisions = stage.run(Span::from_minutes(5));
    assert!(
        fences(&decisions)
            .iter()
            .all(|fence| fence.reason == Reason::PoolDeleted)
    );
    assert!(stage.seen("chat").running.is_empty());
    let plan = stage.plan();
    assert_eq!(reason(&plan, ConditionKind::Reconciling), Some(Reason::PoolDeleted));
}

#[test]
fn fewer_replicas_than_there_are_may_be_asked_for() {
    let mut stage = chat(2.5);
    stage.run(Span::from_minutes(10));
    stage.seen_mut("chat").replicas.max = 2;
    stage.run(LONG);
    assert_eq!(stage.count("chat", "ultra"), 2);
}
