//! The reactive rule: what it does when the model is wrong or silent, and where it ends.

use std::sync::Arc;

use super::*;
use crate::fixture::measured;
use crate::snapshot::Group;

/// A pool on leased servers only, whose figures in its spec are ten times too fast.
fn ten_times_too_fast() -> Stage {
    let mut pool = Pool::fixture();
    for figures in &mut pool.performance {
        for figure in [&mut figures.alpha_ms, &mut figures.beta_ms, &mut figures.delta_ms] {
            *figure = figure.map(|ms| ms / 10.0);
        }
    }
    let mut stage = hybrid(0, 40).pool("chat", pool);
    stage.demand("chat", 2.0);
    stage.run(Span::from_hours(1));
    assert!(stage.count("chat", "m4") > 0);
    stage
}

#[test]
fn a_wrong_figure_does_not_buy_without_end() {
    let mut stage = ten_times_too_fast();
    let before = stage.snapshot.groups["m4"].inventory.servers().len();
    let now = stage.now;
    stage.seen_mut("chat").measured[0] = measured(15_000.0, 0.5, now);
    stage.run(Span::from_hours(12));
    let after = stage.snapshot.groups["m4"].inventory.servers().len();
    assert!(after > before, "one or two more may help");
    assert!(after <= 2 * before.max(1), "{before} became {after}");
    let plan = stage.plan();
    let capacity = condition(&plan, ConditionKind::CapacityAvailable).unwrap();
    assert_eq!(capacity.reason, Reason::ObjectiveMissed);
    assert!(
        capacity.message.contains("figures of a machine may be wrong"),
        "{}",
        capacity.message
    );
}

#[test]
fn minutes_of_misses_are_no_reason_for_a_lease_of_a_day_while_the_error_budget_lasts() {
    // Servers of a day's lease that are asked for within twenty minutes, and what is said.
    let bought = |attained: f64, answered_in_time: f64| {
        let mut stage = ten_times_too_fast();
        let before = stage.snapshot.groups["m4"].inventory.servers().len();
        let now = stage.now;
        let pool = stage.seen_mut("chat");
        pool.measured[0] = measured(15_000.0, attained, now);
        let (objectives, none) = (pool.objectives.clone(), vec![0.0; pool.objectives.len()]);
        let ledger = &mut Arc::make_mut(&mut pool.past).ledger;
        ledger.answered(now, &objectives, answered_in_time, &none, None);
        stage.run(Span::from_minutes(20));
        let plan = stage.plan();
        let capacity = condition(&plan, ConditionKind::CapacityAvailable).unwrap();
        let after = stage.snapshot.groups["m4"].inventory.servers().len();
        (after - before, capacity.clone())
    };
    // Two requests/s until midnight are 160,000 at most. A tenth misses, which burns two for each.
    let (servers, condition) = bought(0.9, 200_000.0);
    assert_eq!(servers, 0);
    assert_eq!(condition.reason, Reason::ErrorBudgetLasts, "{condition:?}");
    assert!(
        condition.message.contains("error budget lasts until"),
        "{}",
        condition.message
    );
    assert!(bought(0.9, 1_000.0).0 > 0, "nearly nothing is left");
    assert!(bought(0.1, 200_000.0).0 > 0, "it would be spent within hours");
}

#[test]
fn a_gap_in_the_measurements_does_not_begin_the_rule_anew() {
    let mut stage = ten_times_too_fast();
    let before = stage.snapshot.groups["m4"].inventory.servers().len();
    for _ in 0..12 {
        let now = stage.now;
        stage.seen_mut("chat").measured[0] = measured(15_000.0, 0.5, now);
        stage.run(Span::from_minutes(50));
        stage.seen_mut("chat").measured[0] = crate::snapshot::Measured::ModelOnly;
        stage.run(Span::from_minutes(10));
    }
    let after = stage.snapshot.groups["m4"].inventory.servers().len();
    assert!(after <= 2 * before.max(1), "{before} became {after}");
}

#[test]
fn a_missed_objective_adds_although_nobody_knows_the_demand() {
    let mut stage = chat(1.0);
    stage.run(Span::from_minutes(10));
    let before = stage.count("chat", "ultra");
    stage.metrics_gone("chat");
    for _ in 0..40 {
        let now = stage.now;
        stage.seen_mut("chat").measured[0] = measured(13_000.0, 0.8, now);
        stage.step();
    }
    assert!(stage.count("chat", "ultra") > before);
    let plan = stage.plan();
    assert_eq!(
        reason(&plan, ConditionKind::MetricsAvailable),
        Some(Reason::MetricsUnavailable)
    );
}

#[test]
fn a_percentile_close_to_its_objective_says_why_it_keeps_replicas() {
    let after = |rate: f64, value_ms: f64| {
        let mut stage = chat(2.0);
        stage.seen_mut("chat").objectives[0].threshold = Span::from_secs(8);
        stage.run(Span::from_minutes(20));
        let before = stage.count("chat", "ultra");
        stage.demand("chat", rate);
        let now = stage.now;
        stage.seen_mut("chat").measured[0] = measured(value_ms, 0.96, now);
        stage.run(LONG);
        (stage.plan(), before, stage.count("chat", "ultra"))
    };
    // Removing one more would bring it over: it stays, and the condition names the reason.
    let (plan, before, left) = after(1.2, 7_580.0);
    assert_eq!(left, before);
    let held = plan.pools[&crate::fixture::pool_id("chat")].held.clone().unwrap();
    assert_eq!(held.reason, Reason::ObjectiveNear);
    assert!(
        condition(&plan, ConditionKind::Ready)
            .unwrap()
            .message
            .contains("ObjectiveNear")
    );
    // It is as close with any number of replicas: no reason to keep them for ever.
    let (_, before, left) = after(0.1, 6_800.0);
    assert!(left < before, "{before} stay for ever");
}

#[test]
fn a_slow_server_that_lowers_what_all_sustain_is_not_bought() {
    let mut pool = Pool::fixture();
    pool.discipline = crate::snapshot::Discipline::Weighted;
    let mut stage = hybrid(4, 1).pool("chat", pool);
    stage.demand("chat", 3.0);
    let decisions = stage.run(Span::from_minutes(30));
    assert_eq!(stage.count("chat", "ultra"), 4);
    assert!(asks(&decisions).is_empty(), "{:#?}", asks(&decisions));
    let plan = stage.plan();
    let capacity = condition(&plan, ConditionKind::CapacityAvailable).unwrap();
    assert!(capacity.message.contains("adds nothing"), "{}", capacity.message);
    // Nor is one that the reactive rule would like to have.
    stage.demand("chat", 1.3);
    let now = stage.now;
    stage.seen_mut("chat").measured[0] = measured(14_000.0, 0.8, now);
    let decisions = stage.run(Span::from_hours(1));
    assert!(asks(&decisions).is_empty(), "{:#?}", asks(&decisions));
}

#[test]
fn slow_servers_are_bought_together_if_together_they_carry_the_demand() {
    let mut pool = Pool::fixture();
    pool.discipline = crate::snapshot::Discipline::Weighted;
    let mut stage = hybrid(1, 30).pool("chat", pool);
    stage.demand("chat", 0.9);
    stage.run(Span::from_hours(1));
    assert!(stage.count("chat", "m4") > 1);
    let plan = stage.plan();
    assert_eq!(reason(&plan, ConditionKind::CapacityAvailable), Some(Reason::OnTarget));
    assert_eq!(Group::hosted("lease", 30).size.max, 30);
}
