//! What to say about every object, by the kstatus conventions.
//!
//! `Ready` is about the spec: the object is as its owner wants it. `Reconciling` and `Stalled` are present only while true,
//! and only work that a spec asked for is `Reconciling`: capacity that follows the demand up and down is normal life, and is
//! said in `CapacityAvailable`.

pub(crate) mod group;
pub(crate) mod pool;
pub(crate) mod site;

use crate::plan::{Condition, ConditionKind, Truth};
use crate::reason::{Problem, Reason};

fn condition(kind: ConditionKind, status: Truth, reason: Reason, message: impl Into<String>) -> Condition {
    Condition {
        kind,
        status,
        reason,
        message: message.into(),
    }
}

fn because(kind: ConditionKind, status: Truth, problem: Problem) -> Condition {
    condition(kind, status, problem.reason, problem.message)
}
