//! What a pass has computed that the next one will ask for again.
//!
//! # Guarantees
//! Everything is kept by all that it was computed from: a plan with a memo is the plan without one.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::capacity::Sets;
use crate::snapshot::{Discipline, LengthMix, Metric, Pool};
use crate::time::Span;

/// What earlier passes have computed. Whoever plans again and again keeps one; it grows with the number of pools, and forgets what no pool
/// of the last pass asked for.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    traffics: BTreeMap<Traffic, (RefCell<Sets>, bool)>,
}

/// What the capacity of servers depends on beside the servers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Traffic {
    discipline: Discipline,
    /// Metric, bits of the percentile, threshold.
    objectives: Vec<(Metric, u64, Span)>,
    classes: Vec<(u32, u32)>,
}

impl Memo {
    /// What is known of sets of servers that serve `pool`, whose requests have these `lengths`.
    pub(super) fn sets(&mut self, pool: &Pool, lengths: &LengthMix) -> &RefCell<Sets> {
        let objectives = pool.objectives.iter();
        let traffic = Traffic {
            discipline: pool.discipline,
            objectives: objectives
                .map(|objective| {
                    (
                        objective.metric,
                        objective.percentile.get().to_bits(),
                        objective.threshold,
                    )
                })
                .collect(),
            classes: lengths.classes.clone(),
        };
        let fresh = || RefCell::new(Sets::new(lengths.clone(), pool.objectives.clone(), pool.discipline));
        let (sets, used) = self.traffics.entry(traffic).or_insert_with(|| (fresh(), true));
        *used = true;
        sets
    }

    /// Forgets what has not been asked for since it was called last.
    pub(super) fn forget(&mut self) {
        self.traffics.retain(|_, (_, used)| std::mem::take(used));
    }
}
