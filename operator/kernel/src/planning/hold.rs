//! Why something that is right to take out has to wait.

use std::collections::BTreeMap;

use super::crew::{Standing, voluntary};
use super::policy::{HOLD_DOWN, HOLD_DOWN_HOSTED, REMOVAL_STEP, WANTED_BACK};
use super::shrink::{Case, Shrinkage};
use crate::names::GroupName;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Disruption, Ownership, PoolMemory};
use crate::time::{Span, Timestamp};

/// Why a removal from `group` has to wait, although it is right.
pub(crate) fn not_yet(case: &Case, group: &GroupName) -> Option<Shrinkage> {
    let (memory, now) = (&case.crew.pool.memory, case.world.now);
    let hold_down = match case.ownership(group) {
        Ownership::Owned | Ownership::Managed => HOLD_DOWN,
        Ownership::Hosted => HOLD_DOWN_HOSTED,
    };
    let after = |at: Option<Timestamp>, span: Span| at.map_or(now, |at| at + span);
    let until = (memory.surplus_since.unwrap_or(now) + hold_down)
        .max(after(memory.last_added, after_addition(memory).unwrap_or(hold_down)))
        .max(after(memory.last_removed, REMOVAL_STEP));
    if now < until {
        let message = format!("fewer would do; nothing is removed before {until}");
        return Some(Shrinkage::hold(true, Reason::HoldDown, message, Some(until)));
    }
    others(case, group)
}

/// For how long nothing is removed after the last addition, if it took back what had been removed shortly before.
fn after_addition(memory: &PoolMemory) -> Option<Span> {
    let (added, removed) = (memory.last_added?, memory.last_removed?);
    (removed < added && added.since(removed) < WANTED_BACK).then_some(WANTED_BACK)
}

/// Why a removal from `group` has to wait for others.
pub(crate) fn others(case: &Case, group: &GroupName) -> Option<Shrinkage> {
    let under_way = case
        .crew
        .of(Standing::Draining)
        .any(|member| member.replica.drain.is_some_and(|drain| voluntary(drain.reason)));
    if under_way {
        let message = "one replica at a time: another one is being drained";
        return Some(Shrinkage::hold(true, Reason::ReplicasDraining, message, None));
    }
    let (found, _) = case.world.group(group)?;
    disruption(group, &found.disruption, case.draining)
        .map(|problem| Shrinkage::hold(true, problem.reason, problem.message, None))
}

/// Why no more may be taken out of a group by choice.
pub(crate) fn disruption(
    group: &GroupName,
    allowed: &Disruption,
    draining: &BTreeMap<GroupName, u32>,
) -> Option<Problem> {
    let out = draining.get(group).copied().unwrap_or(0);
    if !allowed.window_open {
        let message = format!("no disruption window of group {group} is open");
        Some(Problem::new(Reason::WindowClosed, message))
    } else if out >= allowed.max_unavailable {
        let most = allowed.max_unavailable;
        let message = format!("{out} of at most {most} replicas drain in group {group}");
        Some(Problem::new(Reason::DisruptionBudget, message))
    } else {
        None
    }
}
