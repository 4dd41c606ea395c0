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
    /// What this pass has asked for.
    asked: BTreeMap<Traffic, Sets>,
    /// What only the last one has.
    last: BTreeMap<Traffic, Sets>,
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
    /// Lends what is known of sets of servers that serve `pool`, whose requests have these `lengths`.
    pub(super) fn lend(&mut self, pool: &Pool, lengths: &LengthMix) -> Lent {
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
        let known = self
            .asked
            .remove_entry(&traffic)
            .or_else(|| self.last.remove_entry(&traffic));
        let fresh = || Sets::new(lengths.clone(), pool.objectives.clone(), pool.discipline);
        let (traffic, sets) = known.unwrap_or_else(|| (traffic, fresh()));
        Lent {
            traffic,
            sets: RefCell::new(sets),
        }
    }

    /// Takes back what was lent, and what has been found out since.
    pub(super) fn give_back(&mut self, lent: Lent) {
        self.asked.insert(lent.traffic, lent.sets.into_inner());
    }

    /// To be called after each pass: forgets what it has not asked for.
    pub(super) fn forget(&mut self) {
        self.last = std::mem::take(&mut self.asked);
    }
}

/// What is known of one pool's traffic, while the pool is decided about.
pub(super) struct Lent {
    traffic: Traffic,
    pub(super) sets: RefCell<Sets>,
}
