//! Says what was done, and why.
//!
//! Builds the status of every pool, group and site from the plan and from what was applied, and writes those that differ
//! in substance from what the objects say. A figure that moved by a few percent is no difference: status is for people
//! and for tools that wait, and metrics are for curves.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`condition`] | conditions: what changes, and when `lastTransitionTime` does |
//! | [`steady`] | when two texts with figures say the same |
//! | [`object`] | the status of a pool, a group and a site |
//! | [`mod@write`] | writes what differs |

mod condition;
mod object;
mod steady;
mod write;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::plan::{Condition, Plan};
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::time::Timestamp;

use crate::effect::{Applied, Effect, Farewell, Outcome};
use crate::route;
use crate::world::World;

pub use object::{Statuses, statuses};
pub use write::StatusWriter;

/// What statuses are made from.
pub struct Said<'a> {
    /// What was planned.
    pub plan: &'a Plan,
    /// What it was planned from.
    pub snapshot: &'a Snapshot,
    /// What was seen.
    pub world: &'a World,
    /// What was done.
    pub done: &'a Done,
    /// The hub's one currency.
    pub currency: &'a str,
    /// The virtual time of the pass.
    pub now: Timestamp,
    /// The real time, for `lastTransitionTime`.
    pub clock: Time,
}

/// What statuses need to know of what was applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// Requests that were cut, by pool.
    pub cut: BTreeMap<PoolId, u64>,
    /// What became of routes, by pool.
    pub routes: BTreeMap<PoolId, Condition>,
    /// The first failure of each pool's effects, for people.
    pub failures: BTreeMap<PoolId, String>,
}

impl Done {
    /// Sums up what was applied.
    pub fn new(applied: &[Applied]) -> Self {
        let mut done = Self::default();
        for Applied { effect, outcome } in applied {
            if let Effect::DeletePod {
                pod,
                farewell: Farewell::Cut { requests },
                ..
            } = effect
                && *outcome == Outcome::Done
            {
                *done.cut.entry(pod.pool.clone()).or_default() += u64::from(*requests);
            }
            if let Effect::ApplyRoute { pool, route } = effect
                && let Some(condition) = route::condition(route, outcome)
            {
                done.routes.insert(pool.clone(), condition);
            }
            if let (Some(pool), Outcome::Failed { message, .. }) = (effect.pool(), outcome) {
                let text = format!("{}: {message}", effect.name());
                done.failures.entry(pool.clone()).or_insert(text);
            }
        }
        done
    }
}

#[cfg(test)]
mod tests;
