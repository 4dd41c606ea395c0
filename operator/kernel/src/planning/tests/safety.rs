use super::*;
use crate::fixture::{START, group, pool_id};
use crate::lifecycle::{NodeHealth, ReplicaState, ServerState};
use crate::plan::Truth;
use crate::snapshot::{Inventory, Load, Survive, Trust, Use};

fn idle_after(change: impl FnOnce(&mut Stage)) -> (Stage, Vec<Decision>) {
    let mut stage = chat(2.5);
    stage.run(Span::from_minutes(20));
    assert!(stage.count("chat", "ultra") >= 5);
    stage.demand("chat", 0.2);
    change(&mut stage);
    let decisions = stage.run(LONG);
    (stage, decisions)
}

#[test]
fn less_demand_takes_replicas_out() {
    let (stage, decisions) = idle_after(|_| {});
    assert!(!fences(&decisions).is_empty(), "or else the tests below prove nothing");
    assert_eq!(stage.count("chat", "ultra"), 1);
}

#[test]
fn what_was_wanted_back_soon_after_it_was_removed_stays_for_an_hour() {
    let mut stage = chat(2.5);
    stage.run(Span::from_minutes(20));
    let before = stage.count("chat", "ultra");
    stage.demand("chat", 1.5);
    assert!(
        !fences(&stage.run(Span::from_minutes(10))).is_empty(),
        "the first time five minutes are enough"
    );
    stage.demand("chat", 2.5);
    stage.run(Span::from_minutes(5));
    assert_eq!(stage.count("chat", "ultra"), before);
    stage.demand("chat", 1.5);
    let early = stage.run(Span::from_minutes(50));
    assert!(early.is_empty(), "{early:#?}");
    assert!(!fences(&stage.run(Span::from_minutes(15))).is_empty());
}

#[test]
fn nothing_is_removed_on_a_metric_gap() {
    let (stage, decisions) = idle_after(|stage| stage.metrics_gone("chat"));
    assert!(decisions.is_empty(), "{decisions:#?}");
    let plan = stage.plan();
    assert_eq!(
        condition(&plan, ConditionKind::MetricsAvailable).unwrap().status,
        Truth::False
    );
    assert_eq!(
        condition(&plan, ConditionKind::CapacityAvailable).unwrap().status,
        Truth::Unknown
    );
}

#[test]
fn a_stale_sample_is_a_metric_gap() {
    let mut stage = chat(2.5);
    stage.run(Span::from_minutes(20));
    let pool = stage.seen_mut("chat");
    pool.demand = crate::fixture::demand(0.0, START);
    pool.memory.surplus_since = Some(START);
    assert!(stage.plan().decisions.is_empty());
}

#[test]
fn what_is_lost_in_a_metric_gap_is_replaced() {
    let mut stage = chat(1.5);
    stage.run(Span::from_minutes(20));
    let before = stage.count("chat", "ultra");
    stage.metrics_gone("chat");
    let lost = stage.seen("chat").running.keys().next().unwrap().clone();
    stage.seen_mut("chat").running.get_mut(&lost).unwrap().state = ReplicaState::Ended;
    stage.run(Span::from_minutes(3));
    assert_eq!(stage.count("chat", "ultra"), before);
}

#[test]
fn nothing_is_removed_while_lengths_are_unknown() {
    let (_, decisions) = idle_after(|stage| {
        stage.metrics_gone("chat");
        let now = stage.now + LONG;
        let mut demand = crate::fixture::demand(0.2, now);
        if let crate::snapshot::Demand::Known(arrivals) = &mut demand {
            arrivals.lengths = None;
        }
        stage.seen_mut("chat").demand = demand;
    });
    assert!(decisions.is_empty(), "{decisions:#?}");
}

#[test]
fn a_lost_site_loses_no_server() {
    let mut stage = chat(4.0);
    stage.run(Span::from_minutes(30));
    let before = stage.seen("chat").running.clone();
    let leased = stage.count("chat", "m4");
    assert!(leased > 0);
    stage.lose("lease");
    for rate in [4.0, 0.1, 0.0] {
        stage.demand("chat", rate);
        for decision in stage.run(LONG) {
            let touched = format!("{:?}", decision.action);
            assert!(!touched.contains("m4"), "{touched}");
            assert!(fences(std::slice::from_ref(&decision)).is_empty(), "{touched}");
        }
    }
    assert_eq!(stage.seen("chat").running.len(), before.len());
}

#[test]
fn an_unknown_inventory_is_not_acted_on() {
    let mut stage = chat(4.5);
    stage.run(Span::from_minutes(2));
    let found = stage.snapshot.groups.get_mut("m4").unwrap();
    let last = found.servers_mut().clone();
    found.inventory = Inventory::Unknown { last, since: START };
    let decisions = stage.run(Span::from_minutes(30));
    assert!(asks(&decisions).is_empty());
    let decisions = of(&decisions, |action| {
        matches!(
            action,
            Action::DrainServer { .. } | Action::ReleaseServer { .. } | Action::StartReplica { .. }
        )
    });
    assert!(
        decisions
            .iter()
            .all(|decision| !format!("{:?}", decision.action).contains("m4"))
    );
}

#[test]
fn nothing_is_removed_that_an_n_minus_1_what_if_still_needs() {
    let mut stage = hybrid(6, 0).pool("chat", Pool::fixture().surviving(Survive::Server));
    stage.demand("chat", 1.2);
    stage.run(Span::from_minutes(20));
    let spare = stage.count("chat", "ultra");
    // Carried by one less, but not with another one gone.
    stage.demand("chat", 1.05);
    let decisions = stage.run(LONG);
    assert!(fences(&decisions).is_empty(), "{decisions:#?}");
    assert_eq!(stage.count("chat", "ultra"), spare);
}

#[test]
fn nothing_runs_where_trust_residency_or_licence_forbid_it() {
    type Forbid = (fn(&mut Stage), Reason);
    let forbid: [Forbid; 3] = [
        (
            |stage| stage.snapshot.sites.get_mut("cupertino").unwrap().trust = Trust::None,
            Reason::TrustTooLow,
        ),
        (
            |stage| stage.snapshot.sites.get_mut("cupertino").unwrap().residency = ["DE".into()].into(),
            Reason::ResidencyForbidden,
        ),
        (
            |stage| stage.snapshot.sites.get_mut("cupertino").unwrap().permitted_use = Use::DevelopmentOnly,
            Reason::UseForbidden,
        ),
    ];
    for (forbid, reason) in forbid {
        let mut pool = Pool::fixture();
        pool.placement.minimum_trust = Trust::Attested;
        pool.placement.residency = ["US".into()].into();
        let mut stage = hybrid(3, 0).pool("chat", pool);
        stage.demand("chat", 0.3);
        stage.run(Span::from_minutes(5));
        assert!(stage.count("chat", "ultra") > 0);
        stage.snapshot.groups.remove("m4");
        forbid(&mut stage);
        let plan = stage.step();
        let fenced = fences(&plan.decisions);
        assert_eq!(
            fenced.len(),
            stage.seen("chat").running.len(),
            "all at once, whatever it costs"
        );
        assert!(fenced.iter().all(|fence| fence.reason == Reason::NoLongerPermitted));
        assert_eq!(condition(&plan, ConditionKind::Stalled).unwrap().reason, reason);
        stage.run(Span::from_minutes(5));
        assert!(stage.seen("chat").running.is_empty());
    }
}

#[test]
fn a_server_without_evidence_takes_no_attested_pool_and_buys_no_other() {
    let mut pool = Pool::fixture();
    pool.placement.minimum_trust = Trust::Attested;
    let mut stage = hybrid(0, 5).pool("chat", pool);
    stage.demand("chat", 0.1);
    stage.run(Span::from_minutes(10));
    for server in stage.snapshot.groups.get_mut("m4").unwrap().servers_mut().values_mut() {
        server.proven = Trust::Verified;
    }
    let before = stage.snapshot.groups["m4"].inventory.servers().len();
    stage.run(Span::from_hours(1));
    assert_eq!(stage.count("chat", "m4"), 0);
    assert_eq!(stage.snapshot.groups["m4"].inventory.servers().len(), before);
    assert_eq!(
        reason(&stage.plan(), ConditionKind::CapacityAvailable),
        Some(Reason::TrustTooLow)
    );
}

#[test]
fn what_is_paused_or_held_is_left_alone() {
    let pauses: [fn(&mut Stage); 4] = [
        |stage| stage.seen_mut("chat").paused = true,
        |stage| stage.snapshot.groups.get_mut("ultra").unwrap().paused = true,
        |stage| stage.snapshot.sites.get_mut("cupertino").unwrap().paused = true,
        |stage| {
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
        },
    ];
    for pause in pauses {
        let (_, decisions) = idle_after(pause);
        assert!(decisions.is_empty(), "{decisions:#?}");
    }
}

#[test]
fn a_closed_window_and_a_spent_budget_hold_what_is_only_a_choice() {
    for (max_unavailable, window_open) in [(0, true), (1, false)] {
        let (stage, decisions) = idle_after(|stage| {
            let found = stage.snapshot.groups.get_mut("ultra").unwrap();
            found.disruption.max_unavailable = max_unavailable;
            found.disruption.window_open = window_open;
        });
        assert!(decisions.is_empty(), "{decisions:#?}");
        assert!(stage.count("chat", "ultra") > 1);
    }
}

#[test]
fn an_engine_that_cannot_be_read_is_not_idle() {
    let mut stage = chat(2.5);
    stage.run(Span::from_minutes(20));
    stage.seen_mut("chat").deleting = true;
    let all = stage.seen("chat").running.len();
    for _ in 0..200 {
        for replica in stage.seen_mut("chat").running.values_mut() {
            replica.load = Load::Unknown;
        }
        let plan = stage.plan();
        stage.apply(&plan);
        stage.now = stage.now + Span::from_secs(15);
    }
    assert_eq!(stage.seen("chat").running.len(), all, "the pool says Keep");
}

#[test]
fn a_server_that_stops_answering_is_replaced_and_given_up_later() {
    let mut stage = chat(0.3);
    stage.run(Span::from_minutes(10));
    let name = stage.seen("chat").running.values().next().unwrap().server.clone();
    let now = stage.now;
    let server = stage
        .snapshot
        .groups
        .get_mut("ultra")
        .unwrap()
        .servers_mut()
        .get_mut(&name)
        .unwrap();
    (server.state, server.since) = (ServerState::Suspect, now);
    server.node = NodeHealth::Down { since: now };
    for replica in stage.seen_mut("chat").running.values_mut() {
        (replica.state, replica.since) = (ReplicaState::Suspect, now);
        replica.load = Load::Unknown;
    }
    let early = stage.run(Span::from_minutes(5));
    assert!(
        early.iter().any(|decision| decision.reason == Reason::Replacing),
        "{early:#?}"
    );
    assert!(fences(&early).is_empty(), "it is investigated first");
    let later = stage.run(Span::from_minutes(30));
    assert!(fences(&later).iter().all(|fence| fence.reason == Reason::ReplicaLost) && !fences(&later).is_empty());
    assert!(
        stage
            .seen("chat")
            .running
            .values()
            .all(|replica| replica.server != name)
    );
    assert_eq!(
        stage.snapshot.groups[&group("ultra")].inventory.servers()[&name].state,
        ServerState::Suspect
    );
    assert!(stage.snapshot.pools.contains_key(&pool_id("chat")));
}
