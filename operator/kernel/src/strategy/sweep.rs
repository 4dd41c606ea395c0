//! Servers take turns: each takes the course that is best given what all others do, under a price per burnt request.
//!
//! Since every slot's burn is convex in its capacity, a server is worth the more the fewer there are; each turn lowers the total of cost and
//! priced burn, so turns converge.

use super::burn::Outcomes;
use super::course::{Course, Leg, Planner};
use super::{Class, Problem, Unit};
use crate::snapshot::Survive;

/// What all servers do, and what follows.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Per class, per unit.
    pub(super) courses: Vec<Vec<Course>>,
    /// Per class, per unit, per slot: which pool it serves. Empty with one pool.
    serves: Vec<Vec<Vec<u16>>>,
    /// Per pool, per slot, per class: servers that serve, in fractions of the slot.
    servers: Vec<Vec<Vec<f64>>>,
}

impl Standing {
    /// The pool that a server serves in a slot, if it serves then.
    pub(super) fn pool(&self, class: usize, unit: usize, slot: usize) -> usize {
        let serves = &self.serves[class][unit];
        serves.get(slot).map_or(0, |pool| usize::from(*pool))
    }
}

/// A problem with what follows from it alone.
#[derive(Debug)]
pub(super) struct Solver<'a> {
    pub(super) problem: &'a Problem,
    /// Per pool, per slot.
    pub(super) outcomes: Vec<Vec<Outcomes>>,
    /// Per pool, per slot: the window, if any.
    pub(super) window: Vec<Vec<Option<usize>>>,
    /// Classes in the order in which they are filled.
    order: Vec<usize>,
    /// Per class: units in the order of their turns.
    turns: Vec<Vec<usize>>,
    planner: Planner<'a>,
    values: Vec<f64>,
    pools: Vec<u16>,
}

impl<'a> Solver<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        let slots = problem.slots();
        let outcomes = problem
            .pools
            .iter()
            .map(|pool| {
                pool.arrivals
                    .iter()
                    .enumerate()
                    .map(|(slot, arrivals)| Outcomes::new(&pool.burn, arrivals, problem.length_s(slot)))
                    .collect()
            })
            .collect();
        let window = problem
            .pools
            .iter()
            .map(|pool| {
                (0..slots)
                    .map(|slot| pool.windows.iter().position(|window| window.slots.contains(&slot)))
                    .collect()
            })
            .collect();
        let mut order: Vec<usize> = (0..problem.classes.len()).collect();
        order.sort_by_key(|&class| (problem.classes[class].tier, class));
        let turns = problem.classes.iter().map(turns).collect();
        Self {
            problem,
            outcomes,
            window,
            order,
            turns,
            planner: Planner::new(&problem.boundaries_s),
            values: vec![0.0; slots],
            pools: vec![0; slots],
        }
    }

    /// Only what is paid for already.
    pub(super) fn sunk(&mut self, prices: &[Vec<f64>]) -> Standing {
        let problem = self.problem;
        let slots = problem.slots();
        let classes = problem.classes.len();
        let mut standing = Standing {
            courses: problem
                .classes
                .iter()
                .map(|class| vec![Course::default(); class.units.len()])
                .collect(),
            serves: problem
                .classes
                .iter()
                .map(|class| vec![Vec::new(); class.units.len()])
                .collect(),
            servers: vec![vec![vec![0.0; classes]; slots]; problem.pools.len()],
        };
        for class in 0..classes {
            for unit in 0..problem.classes[class].units.len() {
                if !matches!(problem.classes[class].units[unit], Unit::Off { .. }) {
                    // Nothing to decide but which pool it serves: what is worth nothing is kept no longer than it is paid for.
                    self.value(&standing, class, prices);
                    self.values.fill(0.0);
                    let course = self.planner.best(
                        &problem.classes[class],
                        problem.classes[class].units[unit],
                        &self.values,
                    );
                    self.place(&mut standing, class, unit, course);
                }
            }
        }
        standing
    }

    /// Every server takes `turns` turns. False if nothing changed any more.
    pub(super) fn turn(&mut self, standing: &mut Standing, prices: &[Vec<f64>]) -> bool {
        let mut changed = false;
        for index in 0..self.order.len() {
            let class = self.order[index];
            // Identical servers that nobody wants need not be asked one by one.
            let mut unwanted: Option<Unit> = None;
            for turn in 0..self.turns[class].len() {
                let unit = self.turns[class][turn];
                let kind = self.problem.classes[class].units[unit];
                if unwanted == Some(kind) && standing.courses[class][unit].legs.is_empty() {
                    continue;
                }
                let before = self.take(standing, class, unit);
                let course = self.respond(standing, class, unit, prices);
                if course.legs.is_empty() {
                    unwanted = Some(kind);
                }
                changed |= course.legs != before.legs;
                self.place(standing, class, unit, course);
            }
        }
        changed
    }

    /// The best course of a server that stands aside at the moment.
    pub(super) fn respond(&mut self, standing: &Standing, class: usize, unit: usize, prices: &[Vec<f64>]) -> Course {
        self.value(standing, class, prices);
        let class = &self.problem.classes[class];
        self.planner.best(class, class.units[unit], &self.values)
    }

    /// The best course at given values, one per slot.
    pub(super) fn best(&mut self, class: usize, unit: Unit, values: &[f64]) -> Course {
        self.planner.best(&self.problem.classes[class], unit, values)
    }

    /// What another server of a class is worth in every slot, and for which pool.
    fn value(&mut self, standing: &Standing, class: usize, prices: &[Vec<f64>]) {
        let problem = self.problem;
        for slot in 0..problem.slots() {
            let (mut best, mut chosen) = (0.0, 0);
            for (index, pool) in problem.pools.iter().enumerate() {
                let Some(capacity) = problem.classes[class].capacity[index] else {
                    continue;
                };
                let price = pool.miss_value + self.window[index][slot].map_or(0.0, |window| prices[index][window]);
                if price <= 0.0 {
                    continue;
                }
                let outcomes = &self.outcomes[index][slot];
                let servers = &standing.servers[index][slot];
                let have = effective(problem, index, servers, None);
                let with = if pool.survive == Survive::None {
                    have + capacity
                } else {
                    effective(problem, index, servers, Some(class))
                };
                let worth = price * (outcomes.at(have) - outcomes.at(with));
                if worth > best {
                    (best, chosen) = (worth, index);
                }
            }
            self.values[slot] = best;
            self.pools[slot] = u16::try_from(chosen).unwrap_or(u16::MAX);
        }
    }

    /// Puts a server on its course, where [`Solver::value`] saw it worth most.
    pub(super) fn place(&mut self, standing: &mut Standing, class: usize, unit: usize, course: Course) {
        if self.problem.pools.len() > 1 {
            standing.serves[class][unit].clone_from(&self.pools);
        }
        self.count(standing, class, unit, &course, 1.0);
        standing.courses[class][unit] = course;
    }

    /// Puts a server on a course, for the pools that it served.
    pub(super) fn replace(&self, standing: &mut Standing, class: usize, unit: usize, course: Course) {
        self.count(standing, class, unit, &course, 1.0);
        standing.courses[class][unit] = course;
    }

    /// Courses of a server that pay for less, the boldest first.
    pub(super) fn shorter(&self, class: usize, unit: usize, course: &Course) -> Vec<Course> {
        let problem = self.problem;
        let (class, unit) = (&problem.classes[class], problem.classes[class].units[unit]);
        let boundaries = &problem.boundaries_s;
        let mut found = Vec::new();
        for (index, leg) in course.legs.iter().enumerate() {
            let given = index == 0 && !matches!(unit, Unit::Off { .. });
            let with = |leg: Option<Leg>| {
                let mut legs = course.legs.clone();
                match leg {
                    Some(leg) => legs[index] = leg,
                    None => drop(legs.remove(index)),
                }
                Course::of(class, unit, legs)
            };
            let earliest = if given {
                match unit {
                    Unit::On { serves_s, paid_until_s } => serves_s.max(paid_until_s),
                    Unit::Off { .. } | Unit::Fixed { .. } => f64::INFINITY,
                }
            } else {
                found.push(with(None));
                (leg.from_s + class.minimum_lease_s).max(leg.serves_s)
            };
            let ends = boundaries.partition_point(|start| *start < earliest)
                ..boundaries.partition_point(|start| *start < leg.to_s);
            if let Some(first) = ends.clone().next() {
                found.push(with(Some(Leg {
                    to_s: boundaries[first],
                    ..*leg
                })));
                found.push(with(Some(Leg {
                    to_s: boundaries[ends.end - 1],
                    ..*leg
                })));
            }
            let next = boundaries.partition_point(|start| *start <= leg.from_s);
            if !given && let Some(&from_s) = boundaries.get(next) {
                let later = Leg {
                    from_s,
                    serves_s: from_s + class.lead_s,
                    to_s: leg.to_s,
                };
                let beyond = boundaries.last().is_some_and(|end| leg.to_s >= *end);
                if later.serves_s < leg.to_s && (beyond || leg.to_s - from_s >= class.minimum_lease_s) {
                    found.push(with(Some(later)));
                }
            }
        }
        found
    }

    /// Takes a server out of the counts.
    pub(super) fn take(&self, standing: &mut Standing, class: usize, unit: usize) -> Course {
        let course = std::mem::take(&mut standing.courses[class][unit]);
        self.count(standing, class, unit, &course, -1.0);
        course
    }

    fn count(&self, standing: &mut Standing, class: usize, unit: usize, course: &Course, sign: f64) {
        let boundaries = &self.problem.boundaries_s;
        for leg in &course.legs {
            let first = boundaries
                .partition_point(|start| *start <= leg.serves_s)
                .saturating_sub(1);
            for slot in first..self.problem.slots() {
                if boundaries[slot] >= leg.to_s {
                    break;
                }
                let share = leg.share(boundaries[slot], boundaries[slot + 1]);
                let pool = standing.pool(class, unit, slot);
                if let Some(servers) = standing.servers.get_mut(pool) {
                    servers[slot][class] += sign * share;
                }
            }
        }
    }

    /// Burn of a pool in a slot.
    pub(super) fn burn(&self, standing: &Standing, pool: usize, slot: usize) -> f64 {
        let servers = &standing.servers[pool][slot];
        self.outcomes[pool][slot].at(effective(self.problem, pool, servers, None))
    }

    /// Per pool, per window: expected burn.
    pub(super) fn burnt(&self, standing: &Standing) -> Vec<Vec<f64>> {
        (0..self.problem.pools.len())
            .map(|pool| {
                let windows = &self.problem.pools[pool].windows;
                windows
                    .iter()
                    .map(|window| window.slots.clone().map(|slot| self.burn(standing, pool, slot)).sum())
                    .collect()
            })
            .collect()
    }

    /// The capacity that counts, at saturation.
    pub(super) fn capacity(&self, standing: &Standing, pool: usize, slot: usize) -> f64 {
        effective(self.problem, pool, &standing.servers[pool][slot], None)
    }
}

/// Servers that are paid for longest come first: what they do is least open.
fn turns(class: &Class) -> Vec<usize> {
    let mut turns: Vec<usize> = (0..class.units.len()).collect();
    let key = |unit: &Unit| match *unit {
        Unit::Fixed { .. } => (0, 0.0),
        Unit::On { paid_until_s, .. } => (1, -paid_until_s),
        Unit::Off { from_s } => (2, from_s),
    };
    turns.sort_by(|&left, &right| {
        let ((left_rank, left_at), (right_rank, right_at)) = (key(&class.units[left]), key(&class.units[right]));
        left_rank
            .cmp(&right_rank)
            .then(left_at.total_cmp(&right_at))
            .then(left.cmp(&right))
    });
    turns
}

/// Capacity of a pool's servers in a slot after the loss that it wants to survive; with one `more` of a class. Below zero if there is not
/// even enough to lose.
///
/// The loss is kept simple, so that a first server is worth something although it alone survives nothing: of a server, the largest that
/// the pool may use is always missing; of a site, half of what is missing is the largest site's part and half is an equal part.
fn effective(problem: &Problem, pool: usize, servers: &[f64], more: Option<usize>) -> f64 {
    let each = |class: usize| problem.classes[class].capacity[pool].unwrap_or(0.0);
    let of = |class: usize| (servers[class] + f64::from(u8::from(more == Some(class)))) * each(class);
    let all = 0..servers.len();
    let total: f64 = all.clone().map(of).sum();
    match problem.pools[pool].survive {
        Survive::None => total,
        Survive::Server => total - all.map(each).fold(0.0, f64::max),
        Survive::Site => {
            let (mut sites, mut largest) = (0_u32, 0.0_f64);
            for class in all.clone().filter(|&class| each(class) > 0.0) {
                let site = problem.classes[class].site;
                let here = || all.clone().filter(|&other| problem.classes[other].site == site);
                if here().find(|&other| each(other) > 0.0) == Some(class) {
                    sites += 1;
                    largest = largest.max(here().map(of).sum());
                }
            }
            total - f64::midpoint(largest, total / f64::from(sites.max(1)))
        }
    }
}
