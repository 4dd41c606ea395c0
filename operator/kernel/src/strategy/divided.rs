//! Whom servers serve that may be divided between pools: part of the relaxation in [`super::bound`].
//!
//! In every slot, each class's servers are split between the pools that may use them. Parts move from the pool that pays least to the one
//! that pays best, slot by slot and whatever courses the servers follow: if a course said which pools it serves when, servers that several
//! pools share would come to rest only after every combination had been tried.

use std::ops::Range;

use super::sweep::Solver;

/// Servers of every class in every slot, by pool, and what they are worth there.
#[derive(Clone, Debug)]
pub(super) struct Division {
    slots: usize,
    /// Per pool × slot: requests/s.
    capacity: Vec<f64>,
    /// Per pool × slot: what a burnt request costs.
    price: Vec<f64>,
    /// Per pool × slot: what a request/s is worth there, and how fast that falls.
    worth: Vec<f64>,
    bend: Vec<f64>,
    /// Means of price and worth over the last rounds.
    mean: (Vec<f64>, Vec<f64>),
    /// Per class × slot.
    splits: Vec<Split>,
    /// Per class × slot: what a server is worth there.
    values: Vec<f64>,
}

/// Servers of a class in a slot: (which of the class's pools, servers). The pool that pays best is among them.
type Split = Vec<(u32, f64)>;

impl Division {
    /// Nothing serves.
    pub(super) fn new(solver: &Solver, prices: &[Vec<f64>]) -> Self {
        let slots = solver.grid.slots;
        let size = solver.problem.pools.len() * slots;
        let classes = solver.problem.classes.len();
        let mut division = Self {
            slots,
            capacity: vec![0.0; size],
            price: vec![0.0; size],
            worth: vec![0.0; size],
            bend: vec![0.0; size],
            mean: (vec![0.0; size], vec![0.0; size]),
            splits: vec![Split::new(); classes * slots],
            values: vec![0.0; classes * slots],
        };
        division.price(solver, prices);
        for class in 0..classes {
            division.look(solver, class);
        }
        division
    }

    /// Lets a burnt request cost so much, per pool and window.
    pub(super) fn price(&mut self, solver: &Solver, prices: &[Vec<f64>]) {
        for at in 0..self.price.len() {
            let pool = at / self.slots;
            self.price[at] =
                solver.problem.pools[pool].miss_value + solver.window[at].map_or(0.0, |window| prices[pool][window]);
            self.value(solver, at);
        }
    }

    /// Moves the means of prices and worth towards those of now.
    pub(super) fn average(&mut self, weight: f64) {
        let (price, worth) = &mut self.mean;
        for (means, values) in [(price, &self.price), (worth, &self.worth)] {
            for (mean, value) in means.iter_mut().zip(values) {
                *mean += (value - *mean) * weight;
            }
        }
    }

    /// Lets prices and worth change places with their means.
    pub(super) fn exchange(&mut self) {
        std::mem::swap(&mut self.price, &mut self.mean.0);
        std::mem::swap(&mut self.worth, &mut self.mean.1);
    }

    /// What serving is worth to a server of a class, per slot.
    pub(super) fn values(&self, class: usize) -> &[f64] {
        &self.values[class * self.slots..(class + 1) * self.slots]
    }

    /// Finds the pools that pay best for servers of a class.
    pub(super) fn look(&mut self, solver: &Solver, class: usize) {
        let range = class * self.slots..(class + 1) * self.slots;
        let (splits, values) = (&mut self.splits[range.clone()], &mut self.values[range]);
        let users = &solver.users[class];
        // Nothing is worth less than nothing.
        let mut best = vec![[(0.0, u32::MAX); LOOKED_AT]; self.slots];
        for (index, &(pool, each)) in (0_u32..).zip(users) {
            let worth = &self.worth[pool * self.slots..(pool + 1) * self.slots];
            for (best, worth) in best.iter_mut().zip(worth) {
                let worth = each * worth;
                if worth > best[LOOKED_AT - 1].0 {
                    let mut at = LOOKED_AT - 1;
                    while at > 0 && worth > best[at - 1].0 {
                        best[at] = best[at - 1];
                        at -= 1;
                    }
                    best[at] = (worth, index);
                }
            }
        }
        for ((split, value), best) in splits.iter_mut().zip(values).zip(best) {
            let is_best = |index: u32| best.iter().any(|&(_, good)| good == index);
            split.retain(|&(index, servers)| servers > 0.0 || is_best(index));
            *value = best[0].0;
            for (_, index) in best {
                if index < u32::MAX && !split.iter().any(|&(known, _)| known == index) {
                    split.push((index, 0.0));
                }
            }
            // Where nothing is worth anything somebody has to have it.
            if split.is_empty() && !users.is_empty() {
                split.push((0, 0.0));
            }
        }
    }

    /// The least that all slots can cost when capacity is paid for at what it is worth: their part of the Lagrangian bound.
    pub(super) fn least(&self, solver: &Solver) -> f64 {
        let mut least = 0.0;
        for pool in 0..solver.problem.pools.len() {
            let (share, lost) = solver.at_best(pool);
            for at in pool * self.slots..(pool + 1) * self.slots {
                let worth = self.worth[at] / share;
                least += solver.outcomes[at].least(self.price[at], worth, -lost) + worth * lost;
            }
        }
        least
    }

    /// Expected burn of a pool in some slots.
    pub(super) fn burnt(&self, solver: &Solver, pool: usize, slots: Range<usize>) -> f64 {
        let (share, lost) = solver.at_best(pool);
        let first = pool * self.slots;
        (first + slots.start..first + slots.end)
            .map(|at| solver.outcomes[at].at(self.capacity[at] * share - lost))
            .sum()
    }

    /// How fast what a change gains falls as servers make it.
    pub(super) fn bend(&self, class: usize, changes: &[(usize, f64)], users: &[(usize, f64)]) -> f64 {
        let of = |&(slot, change): &(usize, f64)| {
            let (_, entry) = self.best(class, slot, users)?;
            let (index, _) = self.splits[class * self.slots + slot][entry];
            Some(change * change * self.bend_of(index, slot, users))
        };
        changes.iter().filter_map(of).sum()
    }

    /// So many servers make a change: more of a slot goes to the pool that pays best, less is taken from those that pay least.
    pub(super) fn change(&mut self, solver: &Solver, class: usize, changes: &[(usize, f64)], servers: f64) {
        for &(slot, change) in changes {
            let more = change * servers;
            if more > 0.0 {
                self.add(solver, class, slot, more);
            } else {
                self.take(solver, class, slot, -more);
            }
        }
    }

    /// More servers of a class in a slot.
    pub(super) fn add(&mut self, solver: &Solver, class: usize, slot: usize, servers: f64) {
        let users = &solver.users[class];
        if let Some((_, entry)) = self.best(class, slot, users) {
            self.put(solver, class, slot, entry, servers);
            self.refresh(class, slot, users);
        }
    }

    fn take(&mut self, solver: &Solver, class: usize, slot: usize, mut servers: f64) {
        let users = &solver.users[class];
        while servers > 0.0 {
            let Some((_, entry)) = self.worst(class, slot, users) else {
                break;
            };
            let here = self.splits[class * self.slots + slot][entry].1.min(servers);
            self.put(solver, class, slot, entry, -here);
            servers -= here;
        }
        self.refresh(class, slot, users);
    }

    /// Moves servers to the pool that pays best, in every slot.
    pub(super) fn balance(&mut self, solver: &Solver, class: usize) {
        let users = &solver.users[class];
        if users.len() < 2 {
            return;
        }
        for slot in 0..self.slots {
            if self.splits[class * self.slots + slot].len() < 2 {
                continue;
            }
            for from in 0..self.splits[class * self.slots + slot].len() {
                self.relieve(solver, class, slot, from);
            }
            self.refresh(class, slot, users);
        }
    }

    /// Moves servers from one pool to the one that pays best.
    fn relieve(&mut self, solver: &Solver, class: usize, slot: usize, from: usize) {
        let users = &solver.users[class];
        let Some((most, best)) = self.best(class, slot, users) else {
            return;
        };
        let split = &self.splits[class * self.slots + slot];
        let (index, all) = split[from];
        let gain = most - self.pays(index, slot, users);
        if from == best || all <= 0.0 || gain < 1e-9 {
            return;
        }
        let bend = self.bend_of(split[best].0, slot, users) + self.bend_of(index, slot, users);
        let mut part = if bend > 0.0 && all > CRUMB {
            (gain / bend).min(all)
        } else {
            all
        };
        self.swap(solver, class, slot, (from, best), part);
        for _ in 0..BACKTRACKS {
            let split = &self.splits[class * self.slots + slot];
            let rest = self.pays(split[from].0, slot, users) - self.pays(split[best].0, slot, users);
            if rest <= 0.1 * gain {
                break;
            }
            let back = part * rest / (rest + gain);
            self.swap(solver, class, slot, (best, from), back);
            part -= back;
        }
    }

    fn swap(&mut self, solver: &Solver, class: usize, slot: usize, (from, to): (usize, usize), servers: f64) {
        self.put(solver, class, slot, from, -servers);
        self.put(solver, class, slot, to, servers);
    }

    fn put(&mut self, solver: &Solver, class: usize, slot: usize, entry: usize, servers: f64) {
        let (index, here) = &mut self.splits[class * self.slots + slot][entry];
        *here = (*here + servers).max(0.0);
        let (pool, each) = solver.users[class][*index as usize];
        let at = pool * self.slots + slot;
        self.capacity[at] += each * servers;
        self.value(solver, at);
    }

    /// What a server is worth to a pool in a slot.
    fn pays(&self, index: u32, slot: usize, users: &[(usize, f64)]) -> f64 {
        let (pool, each) = users[index as usize];
        each * self.worth[pool * self.slots + slot]
    }

    fn bend_of(&self, index: u32, slot: usize, users: &[(usize, f64)]) -> f64 {
        let (pool, each) = users[index as usize];
        each * each * self.bend[pool * self.slots + slot]
    }

    /// Of the pools in a split: what the one that pays best pays, and where it stands.
    fn best(&self, class: usize, slot: usize, users: &[(usize, f64)]) -> Option<(f64, usize)> {
        let mut best: Option<(f64, usize)> = None;
        for (entry, &(index, _)) in self.splits[class * self.slots + slot].iter().enumerate() {
            let pays = self.pays(index, slot, users);
            if best.is_none_or(|(most, _)| pays > most) {
                best = Some((pays, entry));
            }
        }
        best
    }

    /// Of the pools that have servers: what the one that pays least pays, and where it stands.
    fn worst(&self, class: usize, slot: usize, users: &[(usize, f64)]) -> Option<(f64, usize)> {
        let mut worst: Option<(f64, usize)> = None;
        for (entry, &(index, servers)) in self.splits[class * self.slots + slot].iter().enumerate() {
            let pays = self.pays(index, slot, users);
            if servers > 0.0 && worst.is_none_or(|(least, _)| pays < least) {
                worst = Some((pays, entry));
            }
        }
        worst
    }

    fn refresh(&mut self, class: usize, slot: usize, users: &[(usize, f64)]) {
        self.values[class * self.slots + slot] = self.best(class, slot, users).map_or(0.0, |(most, _)| most);
    }

    /// What a request/s is worth in a slot, from the capacity there.
    fn value(&mut self, solver: &Solver, at: usize) {
        let (share, lost) = solver.at_best(at / self.slots);
        let price = self.price[at];
        let (slope, bend) = solver.outcomes[at].slope(self.capacity[at] * share - lost);
        self.worth[at] = price * slope * share;
        self.bend[at] = price * bend * share * share;
    }
}

/// So little of a server is moved as a whole.
const CRUMB: f64 = 1e-3;

/// So many pools that pay best are considered at a time.
const LOOKED_AT: usize = 4;

/// Times that a step is taken back in part.
const BACKTRACKS: u32 = 3;
