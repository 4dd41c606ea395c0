//! Figures of machines that engines contradict, and engines that cannot be believed.

use super::*;
use crate::fixture::{START, pool_id};
use crate::snapshot::{Demand, EnginesMeasured};
use crate::time::Timestamp;
use crate::units::Rate;

fn quiet(_: Timestamp) -> f64 {
    0.8
}

/// Three own servers that serve, up to twelve to lease.
fn serving() -> Stage {
    let mut stage = hybrid(3, 12).pool("chat", Pool::fixture());
    stage.now = START - Span::from_hours(7);
    for server in ["ultra-0", "ultra-1", "ultra-2"] {
        stage = stage.serving("chat", "ultra", server);
    }
    stage.living("chat", quiet).planning_ahead()
}

/// So many minutes in which the engines say that every latency is so many ms.
fn measure(stage: &mut Stage, minutes: u32, latency_ms: impl Fn(u32) -> f64) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for minute in 0..minutes {
        let at = stage.now;
        let pool = stage.seen_mut("chat");
        let measured = EnginesMeasured {
            engines: 3,
            rate: Rate::per_second(quiet(at)),
            values_ms: pool.objectives.iter().map(|_| Some(latency_ms(minute))).collect(),
            samples: 240,
            at,
        };
        pool.engines = [("ultra".into(), measured)].into();
        let lived = stage.live(Span::from_minutes(1), "chat", quiet);
        decisions.extend(lived.into_iter().map(|(_, decision)| decision));
    }
    decisions
}

/// What figures that are clamped ask for at most: as many again.
const MOST_BOUGHT: usize = 3;

#[test]
fn a_metric_that_lies_is_not_planned_with_and_the_pool_says_so() {
    for lie in [1e-3, 1e6, f64::MAX] {
        let mut stage = serving();
        assert_eq!(
            reason(&stage.plan(), ConditionKind::MetricsAvailable),
            Some(Reason::MetricsRead)
        );
        let mut decisions = measure(&mut stage, 20, |_| lie);
        let later = measure(&mut stage, 40, |_| lie);
        let plan = stage.plan();
        let metrics = condition(&plan, ConditionKind::MetricsAvailable).unwrap();
        assert_eq!(metrics.reason, Reason::FiguresDoubted, "{lie}: {}", metrics.message);
        assert!(
            metrics.message.contains("as long as the figures of"),
            "{}",
            metrics.message
        );
        assert_eq!(
            reason(&plan, ConditionKind::CapacityAvailable),
            Some(Reason::FiguresDoubted),
            "{lie}"
        );
        if lie > 1.0 {
            assert!(fences(&later).is_empty(), "nothing is taken away: {later:#?}");
        }
        decisions.extend(later);
        let (bought, most) = (asks(&decisions).len(), if lie > 1.0 { MOST_BOUGHT } else { 0 });
        assert!(bought <= most, "{lie}: {bought} servers are bought for it");
    }
}

#[test]
fn a_metric_that_contradicts_itself_corrects_nothing_and_the_pool_says_so() {
    let mut stage = serving();
    let decisions = measure(
        &mut stage,
        60,
        |minute| if minute / 5 % 2 == 0 { 2.0 } else { 200_000.0 },
    );
    let plan = stage.plan();
    let metrics = condition(&plan, ConditionKind::MetricsAvailable).unwrap();
    assert_eq!(metrics.reason, Reason::FiguresDoubted, "{}", metrics.message);
    assert!(metrics.message.contains("contradict each other"), "{}", metrics.message);
    assert!(asks(&decisions).len() <= MOST_BOUGHT, "{decisions:#?}");
    // With the figures as they are declared, the plan goes on.
    let capacity = condition(&plan, ConditionKind::CapacityAvailable).unwrap();
    assert!(capacity.message.contains("as planned ahead"), "{}", capacity.message);
}

#[test]
fn a_gap_in_what_engines_say_changes_nothing() {
    let mut stage = serving();
    measure(&mut stage, 30, |_| 1e6);
    let known = stage.seen("chat").past.calibrations.clone();
    assert_ne!(known, crate::capacity::Calibrations::default());
    stage.seen_mut("chat").engines.clear();
    stage.live(Span::from_hours(3), "chat", quiet);
    assert_eq!(stage.seen("chat").past.calibrations, known);
    assert_eq!(
        reason(&stage.plan(), ConditionKind::MetricsAvailable),
        Some(Reason::FiguresDoubted)
    );
    // Nor does one in the demand.
    let since = stage.now;
    stage.seen_mut("chat").demand = Demand::Unknown {
        since,
        problem: crate::reason::Problem::new(Reason::MetricsUnavailable, "no answer"),
        at_least: None,
    };
    let before = stage.snapshot.pools[&pool_id("chat")].past.calibrations.clone();
    stage.run(Span::from_hours(1));
    assert_eq!(stage.seen("chat").past.calibrations, before);
}
