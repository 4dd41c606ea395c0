//! The books of what servers do: whoever takes another course is noted, and what follows is worked out once for all that was noted.

use super::{Solver, Standing};
use crate::snapshot::Survive;
use crate::strategy::Problem;
use crate::strategy::course::Course;

/// How what serves a pool counts once the loss that it wants to survive is taken off.
///
/// The loss is kept simple, so that a first server is worth something although it alone survives nothing: of a server, the largest that
/// the pool may use is always missing; of a site, three quarters of what is missing are the largest site's part and one is an equal part.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    Nothing,
    /// So many requests/s.
    Server(f64),
    /// One of so many sites.
    Site(f64),
}

impl Loss {
    pub(super) fn of(problem: &Problem, pool: usize) -> Self {
        let usable = || problem.classes.iter().filter(|class| class.capacity[pool].is_some());
        match problem.pools[pool].survive {
            Survive::None => Self::Nothing,
            Survive::Server => Self::Server(usable().filter_map(|class| class.capacity[pool]).fold(0.0, f64::max)),
            Survive::Site => {
                let mut sites: Vec<usize> = usable().map(|class| class.site).collect();
                sites.sort_unstable();
                sites.dedup();
                Self::Site(sites.len().max(1) as f64)
            }
        }
    }
}

impl Solver<'_> {
    /// Puts a server on another course, for the pools that it serves.
    pub(in crate::strategy) fn replace(
        &mut self,
        standing: &mut Standing,
        class: usize,
        unit: usize,
        course: Course,
    ) -> Course {
        let before = std::mem::take(&mut standing.courses[class][unit]);
        self.note(standing, class, unit, &before, -1.0);
        self.note(standing, class, unit, &course, 1.0);
        self.apply(standing);
        standing.courses[class][unit] = course;
        before
    }

    /// Takes a server out of the counts.
    pub(in crate::strategy) fn take(&mut self, standing: &mut Standing, class: usize, unit: usize) -> Course {
        self.replace(standing, class, unit, Course::default())
    }

    /// Takes several servers out of the counts.
    pub(in crate::strategy) fn take_all(
        &mut self,
        standing: &mut Standing,
        set: &[(usize, usize)],
    ) -> Vec<(Course, Vec<u16>)> {
        let mut kept = Vec::with_capacity(set.len());
        for &(class, unit) in set {
            let course = std::mem::take(&mut standing.courses[class][unit]);
            self.note(standing, class, unit, &course, -1.0);
            kept.push((course, standing.serves[class][unit].clone()));
        }
        self.apply(standing);
        kept
    }

    /// Undoes that, whatever they do now.
    pub(in crate::strategy) fn put_back(
        &mut self,
        standing: &mut Standing,
        set: &[(usize, usize)],
        kept: Vec<(Course, Vec<u16>)>,
    ) {
        for (&(class, unit), (course, serves)) in set.iter().zip(kept) {
            let now = std::mem::take(&mut standing.courses[class][unit]);
            self.note(standing, class, unit, &now, -1.0);
            standing.serves[class][unit] = serves;
            self.note(standing, class, unit, &course, 1.0);
            standing.courses[class][unit] = course;
        }
        self.apply(standing);
    }

    /// Notes what a course adds, or takes away.
    fn note(&mut self, standing: &mut Standing, class: usize, unit: usize, course: &Course, sign: f64) {
        standing.cost += sign * course.cost;
        let spec = &self.problem.classes[class];
        for term in &course.terms {
            if let Some(watts) = standing.watts.get_mut(spec.site) {
                for watts in &mut watts[term.from..term.to()] {
                    *watts += sign * spec.busy_watts;
                }
            }
            let serves = &standing.serves[class][unit];
            if serves.is_empty() && standing.sites.first().is_none_or(Vec::is_empty) {
                let each = sign * spec.capacity.first().copied().flatten().unwrap_or(0.0);
                for (slot, share) in term.serves.slots() {
                    let change = &mut self.changes[slot];
                    if change.abs() <= 0.0 {
                        self.touched.push(slot);
                    }
                    *change += share * each;
                }
                continue;
            }
            for (slot, share) in term.serves.slots() {
                let pool = serves.get(slot).map_or(0, |pool| usize::from(*pool));
                let Some(each) = spec.capacity.get(pool).copied().flatten() else {
                    continue;
                };
                let more = sign * share * each;
                let at = pool * self.grid.slots + slot;
                if let Some(count) = standing.counts.get_mut(at) {
                    *count = count.saturating_add_signed(if sign > 0.0 { 1 } else { -1 });
                }
                let change = &mut self.changes[at];
                if change.abs() <= 0.0 {
                    self.touched.push(at);
                }
                *change += more;
                if let Some(here) = standing.sites[pool].get_mut(slot * self.sites + spec.site) {
                    *here += more;
                }
            }
        }
    }

    /// Works out what follows from all that was noted.
    fn apply(&mut self, standing: &mut Standing) {
        let mut touched = std::mem::take(&mut self.touched);
        for &at in &touched {
            let change = std::mem::take(&mut self.changes[at]);
            if self.ranked {
                self.moved.push(at);
            }
            // Where a server serves before and after, nothing changes.
            if change.abs() < 1e-12 {
                continue;
            }
            standing.capacity[at] += change;
            let burn = self.outcomes[at].at(self.effective(standing, at, None));
            let rise = burn - standing.burn[at];
            standing.burn[at] = burn;
            let pool = at / self.grid.slots;
            standing.cost += rise * self.problem.pools[pool].miss_value;
            if let Some(window) = self.window[at] {
                standing.burnt[pool][window] += rise;
            }
        }
        touched.clear();
        self.touched = touched;
    }

    /// Capacity of a pool's servers in a slot after the loss that it wants to survive; with one `more` at a site. Below zero if there is
    /// not even enough to lose.
    pub(super) fn effective(&self, standing: &Standing, at: usize, more: Option<(usize, f64)>) -> f64 {
        let total = standing.capacity[at] + more.map_or(0.0, |(_, each)| each);
        let (pool, slot) = (at / self.grid.slots, at % self.grid.slots);
        match self.losses[pool] {
            Loss::Nothing => total,
            Loss::Server(largest) => total - largest,
            Loss::Site(count) => {
                let here = |(site, capacity): (usize, &f64)| match more {
                    Some((at, each)) if at == site => capacity + each,
                    _ => *capacity,
                };
                let sites = &standing.sites[pool][slot * self.sites..(slot + 1) * self.sites];
                let largest = sites.iter().enumerate().map(here).fold(0.0, f64::max);
                total - 0.75 * largest - 0.25 * total / count
            }
        }
    }

    /// What is known of [`Loss`] for any servers of a pool: they count for at most `share` of their capacity, less `lost`.
    pub(in crate::strategy) fn at_best(&self, pool: usize) -> (f64, f64) {
        match self.losses[pool] {
            Loss::Nothing => (1.0, 0.0),
            Loss::Server(largest) => (1.0, largest),
            Loss::Site(count) => (1.0 - 1.0 / count, 0.0),
        }
    }

    /// The same sums without what rounding has added up.
    pub(in crate::strategy) fn settle(&self, standing: &mut Standing) {
        standing.cost = standing.courses.iter().flatten().map(|course| course.cost).sum();
        for (pool, demand) in self.problem.pools.iter().enumerate() {
            standing.burnt[pool].fill(0.0);
            for slot in 0..self.grid.slots {
                let at = pool * self.grid.slots + slot;
                standing.cost += standing.burn[at] * demand.miss_value;
                if let Some(window) = self.window[at] {
                    standing.burnt[pool][window] += standing.burn[at];
                }
            }
        }
    }
}
