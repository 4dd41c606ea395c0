//! The planner's promises, played on a small world.

#![allow(clippy::unwrap_used)]

mod doubted;
mod faults;
mod foresight;
mod foresight_laws;
mod fuzz;
mod golden;
mod growth;
mod leases;
mod life_laws;
mod limits;
mod limits_laws;
mod memo;
mod money;
mod properties;
mod reaction;
mod replacement;
mod safety;
mod unsure;
mod worlds;

use crate::fixture::{Stage, hybrid};
use crate::plan::{Action, Condition, ConditionKind, Decision, Plan};
use crate::reason::Reason;
use crate::snapshot::Pool;
use crate::time::Span;

/// Six own M2 Ultras, up to ten M4 Pros to lease, and the pool `chat` that demands `rate`.
fn chat(rate: f64) -> Stage {
    let mut stage = hybrid(6, 10).pool("chat", Pool::fixture());
    stage.demand("chat", rate);
    stage
}

fn asks(decisions: &[Decision]) -> Vec<&Decision> {
    of(decisions, |action| matches!(action, Action::RequestServer { .. }))
}

fn fences(decisions: &[Decision]) -> Vec<&Decision> {
    of(decisions, |action| {
        matches!(
            action,
            Action::DrainReplica {
                step: crate::lifecycle::DrainStep::Fence,
                ..
            }
        )
    })
}

fn of(decisions: &[Decision], predicate: impl Fn(&Action) -> bool) -> Vec<&Decision> {
    decisions
        .iter()
        .filter(|decision| predicate(&decision.action))
        .collect()
}

fn condition(plan: &Plan, kind: ConditionKind) -> Option<&Condition> {
    let outlook = &plan.pools[&crate::fixture::pool_id("chat")];
    outlook.conditions.iter().find(|condition| condition.kind == kind)
}

fn reason(plan: &Plan, kind: ConditionKind) -> Option<Reason> {
    condition(plan, kind).map(|condition| condition.reason)
}

/// Passes until servers are asked for or proposed; the plan that does, not carried out yet.
fn until_asked(stage: &mut Stage) -> Plan {
    for _ in 0..20 {
        let plan = stage.plan();
        if !asks(&plan.decisions).is_empty() {
            return plan;
        }
        stage.step();
    }
    panic!("nothing is asked for: {:#?}", stage.plan());
}

/// Two consecutive passes decide nothing.
fn assert_silent(stage: &mut Stage) {
    for _ in 0..2 {
        let plan = stage.step();
        assert!(plan.decisions.is_empty(), "{:#?}", plan.decisions);
    }
}

const LONG: Span = Span::from_hours(2);
