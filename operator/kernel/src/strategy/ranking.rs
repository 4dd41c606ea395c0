//! Which pools another server of a class is worth most to, slot by slot, where many pools share it.
//!
//! To ask every pool for every server takes pools × servers × slots. But a server that comes or goes changes what the next one is worth to the
//! pools that it serves, and to no others. So the best few pools of every slot are kept in order, those that changed are asked again, and all
//! are asked only once none of the best is better than the last of them was. The answer is the same.

use super::sweep::{Solver, Standing};

/// So many pools of a slot are kept in order.
const KEPT: usize = 16;

/// With fewer pools than this it is quicker to ask them all.
pub(super) const MANY: usize = 2 * KEPT;

/// (What a server is worth, which of the class's pools), best first.
type Best = Vec<(f64, usize)>;

/// The best pools of one class's slots.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranking {
    class: usize,
    slots: Vec<Best>,
    /// Per slot: pools that are not kept are no better than this.
    cuts: Vec<Option<(f64, usize)>>,
}

fn beats(left: (f64, usize), right: (f64, usize)) -> bool {
    left.0 > right.0 || (left.0 >= right.0 && left.1 < right.1)
}

/// Keeps a list in order and short.
fn insert(best: &mut Best, new: (f64, usize)) {
    let at = best.partition_point(|&old| beats(old, new));
    best.insert(at, new);
    best.truncate(KEPT);
}

impl Ranking {
    /// Asks all pools of a class.
    pub(super) fn build(&mut self, solver: &Solver, standing: &Standing, class: usize) {
        let slots = solver.grid.slots;
        self.class = class;
        self.slots.resize_with(slots, Best::new);
        self.slots.iter_mut().for_each(Best::clear);
        self.cuts.clear();
        for index in 0..solver.users[class].len() {
            for slot in 0..slots {
                self.offer(solver, standing, index, slot);
            }
        }
        for best in &self.slots {
            self.cuts.push(best.get(KEPT - 1).copied());
        }
    }

    fn offer(&mut self, solver: &Solver, standing: &Standing, index: usize, slot: usize) {
        let best = &mut self.slots[slot];
        let last = best.get(KEPT - 1).map_or(0.0, |last| last.0);
        let worth = solver.worth(standing, self.class, index, slot, last);
        if worth > last {
            insert(best, (worth, index));
        }
    }

    /// Asks the pools again whose slots (pool × slot) have changed.
    pub(super) fn update(&mut self, solver: &Solver, standing: &Standing, changed: &[usize]) {
        let (slots, users) = (solver.grid.slots, &solver.users[self.class]);
        for &at in changed {
            let (pool, slot) = (at / slots, at % slots);
            let Ok(index) = users.binary_search_by_key(&pool, |&(user, _)| user) else {
                continue;
            };
            let best = &mut self.slots[slot];
            best.retain(|&(_, kept)| kept != index);
            let now = (solver.worth(standing, self.class, index, slot, 0.0), index);
            if now.0 > 0.0 && self.cuts[slot].is_none_or(|cut| beats(now, cut)) {
                let place = best.partition_point(|&old| beats(old, now));
                best.insert(place, now);
            }
        }
        for slot in 0..slots {
            if self.slots[slot].is_empty() && self.cuts[slot].is_some() {
                for index in 0..users.len() {
                    self.offer(solver, standing, index, slot);
                }
                self.cuts[slot] = self.slots[slot].get(KEPT - 1).copied();
            }
        }
    }

    /// Of a slot: what another server is worth, and which of the class's pools wants it.
    pub(super) fn first(&self, slot: usize) -> Option<(f64, usize)> {
        self.slots[slot].first().copied()
    }
}
