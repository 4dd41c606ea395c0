//! The plan while it is being made.

use std::collections::BTreeSet;

use crate::names::PoolId;
use crate::plan::{Action, Decision, Plan, PoolOutlook, Rejected, Verdict};
use crate::reason::Reason;
use crate::time::Timestamp;

/// Decisions collected so far, and when to look again.
#[derive(Debug)]
pub(crate) struct Draft {
    now: Timestamp,
    pub(crate) plan: Plan,
    /// What is decided.
    actions: BTreeSet<Action>,
    /// What is said of pools, in any order: a map of a thousand is made faster at once than one by one.
    outlooks: Vec<(PoolId, PoolOutlook)>,
}

impl Draft {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            now,
            plan: Plan::default(),
            actions: BTreeSet::new(),
            outlooks: Vec::new(),
        }
    }

    /// Adds what is to be said of a pool.
    pub(crate) fn describe(&mut self, pool: &PoolId, outlook: PoolOutlook) {
        self.outlooks.push((pool.clone(), outlook));
    }

    /// Adds a decision without rejected alternatives.
    pub(crate) fn decide(&mut self, action: Action, reason: Reason, message: impl Into<String>) {
        self.decide_against(action, reason, message, Vec::new());
    }

    /// Adds a decision that is carried out only if `verdict` says so.
    pub(crate) fn gated(
        &mut self,
        verdict: Verdict,
        action: Action,
        reason: Reason,
        message: impl Into<String>,
        rejected: Vec<Rejected>,
    ) {
        self.decide_against(action, reason, message, rejected);
        if let Some(decision) = self.plan.decisions.last_mut() {
            decision.verdict = verdict;
        }
    }

    /// Adds a decision. The same action twice is one.
    pub(crate) fn decide_against(
        &mut self,
        action: Action,
        reason: Reason,
        message: impl Into<String>,
        mut rejected: Vec<Rejected>,
    ) {
        if !self.actions.insert(action.clone()) {
            return;
        }
        rejected.truncate(Decision::MAX_REJECTED);
        self.plan.decisions.push(Decision {
            action,
            reason,
            message: message.into(),
            verdict: Verdict::Act,
            rejected,
        });
    }

    /// Asks for another look at `at`, if that is still to come.
    pub(crate) fn wake(&mut self, at: Timestamp) {
        if at > self.now && self.plan.wake_at.is_none_or(|earlier| at < earlier) {
            self.plan.wake_at = Some(at);
        }
    }

    /// The finished plan: what brings capacity comes before what takes it away.
    pub(crate) fn finish(mut self) -> Plan {
        self.plan.decisions.sort_by_key(|decision| phase(&decision.action));
        self.plan.pools = self.outlooks.into_iter().collect();
        self.plan
    }
}

fn phase(action: &Action) -> u8 {
    match action {
        Action::UndrainServer { .. } => 0,
        Action::OpenReplica { .. } => 1,
        Action::StartReplica { .. } => 2,
        Action::RequestServer { .. } => 3,
        // The taint first, so that nothing new lands on a server whose replica is being fenced.
        Action::DrainServer { .. } => 4,
        Action::DrainReplica { .. } => 5,
        Action::RemoveReplica { .. } => 6,
        Action::ReleaseServer { .. } => 7,
    }
}
