//! What a pass has computed that the next one will ask for again.
//!
//! # Guarantees
//! Everything is kept by all that it was computed from: a plan with a memo is the plan without one.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::capacity::Sets;
use crate::snapshot::{LengthMix, Pool};

/// What earlier passes have computed. Whoever plans again and again keeps one; it grows with the number of pools, and forgets what no pool
/// of the last pass asked for.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    /// By [`Sets::fingerprint`], which is compared sooner than a hundred lengths are. Those with the same one are told apart by what they are of.
    known: BTreeMap<u64, Vec<Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    sets: Sets,
    /// This pass has asked for it.
    asked: bool,
}

impl Memo {
    /// Lends what is known of sets of servers that serve `pool`, whose requests have these `lengths`.
    pub(super) fn lend(&mut self, pool: &Pool, lengths: &LengthMix) -> Lent {
        let fingerprint = Sets::fingerprint(lengths, &pool.objectives, pool.discipline);
        let known = self.known.get_mut(&fingerprint).and_then(|alike| {
            let is_of = |known: &Known| known.sets.is_of(lengths, &pool.objectives, pool.discipline);
            let found = alike.iter().position(is_of)?;
            Some(alike.swap_remove(found).sets)
        });
        let fresh = || Sets::new(lengths.clone(), pool.objectives.clone(), pool.discipline);
        Lent {
            fingerprint,
            sets: RefCell::new(known.unwrap_or_else(fresh)),
        }
    }

    /// Takes back what was lent, and what has been found out since.
    pub(super) fn give_back(&mut self, lent: Lent) {
        let sets = lent.sets.into_inner();
        let alike = self.known.entry(lent.fingerprint).or_default();
        alike.push(Known { sets, asked: true });
    }

    /// To be called after each pass: forgets what it has not asked for.
    pub(super) fn forget(&mut self) {
        self.known.retain(|_, alike| {
            alike.retain_mut(|known| std::mem::take(&mut known.asked));
            !alike.is_empty()
        });
    }
}

/// What is known of one pool's traffic, while the pool is decided about.
pub(super) struct Lent {
    fingerprint: u64,
    pub(super) sets: RefCell<Sets>,
}
