//! Servers take turns: each takes the course that is best given what all others do, under a price per burnt request.
//!
//! Since every slot's burn is convex in its capacity, a server is worth the more the fewer there are; each turn lowers the total of cost and
//! priced burn, so turns converge.

mod books;

use super::burn::Outcomes;
use super::course::{Course, Planner, Tariff};
use super::grid::{Grid, Term};
use super::ranking::{MANY, Ranking};
use super::{Class, Problem, Unit, mean};
use books::Loss;

/// A server that is on and serves no pool in a slot.
const NOBODY: u16 = u16::MAX;

/// What all servers do, and what follows.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Per class, per unit.
    pub(super) courses: Vec<Vec<Course>>,
    /// Per class, per unit, per slot: which pool it serves. Empty where there is nothing to choose.
    serves: Vec<Vec<Vec<u16>>>,
    /// Per pool × slot: requests/s at saturation of all that serve.
    capacity: Vec<f64>,
    /// Per pool, per slot × site: the same, for pools that are to survive the loss of a site.
    sites: Vec<Vec<f64>>,
    /// Per pool × slot: servers that serve it. Empty where there is nothing to choose.
    counts: Vec<u32>,
    /// Per pool × slot: expected burn.
    burn: Vec<f64>,
    /// Per pool, per window: expected burn.
    pub(super) burnt: Vec<Vec<f64>>,
    /// Per site with a limit, per slot: watts of servers that are on.
    watts: Vec<Vec<f64>>,
    /// Money: courses and misses.
    pub(super) cost: f64,
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
    pub(super) grid: Grid<'a>,
    /// Per pool × slot.
    pub(super) outcomes: Vec<Outcomes>,
    /// Per pool × slot: the window, if any.
    pub(super) window: Vec<Option<usize>>,
    /// How many sites there are.
    sites: usize,
    /// Per class: pools that may use it, and requests/s of one server.
    pub(super) users: Vec<Vec<(usize, f64)>>,
    losses: Vec<Loss>,
    /// Per pool: the highest sensible price of a burnt request.
    pub(super) ceilings: Vec<f64>,
    /// Whether servers have a choice: several pools, or one that may not have them all.
    chooses: bool,
    /// Classes in the order in which they are filled.
    order: Vec<usize>,
    /// Per class: units in the order of their turns.
    turns: Vec<Vec<usize>>,
    /// Per class: at most so many servers may be leased besides those that are on.
    pub(super) limits: Vec<usize>,
    pub(super) planner: Planner,
    /// Per pool × slot: what a burnt request is taken to cost.
    prices: Vec<f64>,
    values: Vec<f64>,
    pools: Vec<u16>,
    lease: Vec<f64>,
    keep: Vec<f64>,
    /// Per pool × slot: capacity that is being added, and where that is not zero.
    changes: Vec<f64>,
    touched: Vec<usize>,
    /// Where capacity has changed since they were last looked at by the ranking.
    moved: Vec<usize>,
    ranked: bool,
    ranking: Ranking,
}

impl<'a> Solver<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        let slots = problem.slots();
        let outcomes = problem.pools.iter().flat_map(|pool| {
            let of = |(slot, arrivals): (usize, &Vec<(f64, f64)>)| {
                let backlog = pool.backlog.as_ref().filter(|backlog| backlog.slot == slot);
                Outcomes::new(&pool.burn, arrivals, problem.length_s(slot), backlog)
            };
            pool.arrivals.iter().enumerate().map(of)
        });
        let window = problem.pools.iter().flat_map(|pool| {
            let mut of = vec![None; slots];
            for (index, window) in pool.windows.iter().enumerate() {
                of[window.slots.clone()].fill(Some(index));
            }
            of
        });
        let users: Vec<Vec<(usize, f64)>> = problem
            .classes
            .iter()
            .map(|class| {
                let capacity = class.capacity.iter().enumerate();
                capacity
                    .filter_map(|(pool, each)| each.filter(|each| *each > 0.0).map(|each| (pool, each)))
                    .collect()
            })
            .collect();
        let all = |pool: &super::Demand| {
            let units = problem.classes.iter().map(|class| class.units.len());
            usize::try_from(pool.most).is_ok_and(|most| units.sum::<usize>() > most)
        };
        let chooses = problem.pools.len() > 1 || problem.pools.iter().any(all);
        let mut order: Vec<usize> = (0..problem.classes.len()).collect();
        order.sort_by_key(|&class| (problem.classes[class].tier, class));
        Self {
            problem,
            grid: Grid::new(problem),
            outcomes: outcomes.collect(),
            window: window.collect(),
            losses: (0..problem.pools.len()).map(|pool| Loss::of(problem, pool)).collect(),
            users,
            ceilings: (0..problem.pools.len()).map(|pool| ceiling(problem, pool)).collect(),
            chooses,
            order,
            turns: problem.classes.iter().map(turns).collect(),
            limits: vec![usize::MAX; problem.classes.len()],
            planner: Planner::new(slots),
            prices: vec![0.0; problem.pools.len() * slots],
            sites: problem.classes.iter().map(|class| class.site + 1).max().unwrap_or(0),
            values: vec![0.0; slots],
            pools: vec![0; slots],
            lease: Vec::new(),
            keep: Vec::new(),
            changes: vec![0.0; problem.pools.len() * slots],
            touched: Vec::new(),
            moved: Vec::new(),
            ranked: false,
            ranking: Ranking::default(),
        }
    }

    /// Lets a burnt request cost so much, per pool and window.
    pub(super) fn price(&mut self, prices: &[Vec<f64>]) {
        for (at, price) in self.prices.iter_mut().enumerate() {
            let pool = at / self.grid.slots;
            *price = self.problem.pools[pool].miss_value + self.window[at].map_or(0.0, |window| prices[pool][window]);
        }
    }

    /// Only what is paid for already.
    pub(super) fn sunk(&mut self) -> Standing {
        let problem = self.problem;
        let (slots, pools) = (self.grid.slots, problem.pools.len());
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
            capacity: vec![0.0; slots * pools],
            sites: (0..pools)
                .map(|pool| match self.losses[pool] {
                    Loss::Site(_) => vec![0.0; self.sites * slots],
                    Loss::Nothing | Loss::Server(_) => Vec::new(),
                })
                .collect(),
            counts: if self.chooses {
                vec![0; slots * pools]
            } else {
                Vec::new()
            },
            burn: Vec::new(),
            burnt: problem.pools.iter().map(|pool| vec![0.0; pool.windows.len()]).collect(),
            watts: vec![vec![0.0; slots]; problem.power_limits.len()],
            cost: 0.0,
        };
        standing.burn = (0..slots * pools)
            .map(|at| self.outcomes[at].at(self.effective(&standing, at, None)))
            .collect();
        self.settle(&mut standing);
        for class in 0..problem.classes.len() {
            for unit in 0..problem.classes[class].units.len() {
                let kind = problem.classes[class].units[unit];
                if let Some(term) = self.grid.given(kind) {
                    // Nothing to decide but which pool it serves: what is worth nothing is kept no longer than it is paid for.
                    self.value(&standing, class);
                    let cost = self.grid.cost(class, kind, &term);
                    let terms = vec![term];
                    self.place(&mut standing, class, unit, Course { terms, cost });
                }
            }
        }
        standing
    }

    /// Every server takes a turn. False if nothing changed any more.
    pub(super) fn turn(&mut self, standing: &mut Standing) -> bool {
        let mut changed = false;
        for index in 0..self.order.len() {
            let class = self.order[index];
            self.ranked = false;
            if self.users[class].len() >= MANY {
                self.rank(standing, class);
            }
            // Identical servers that nobody wants need not be asked one by one.
            let mut unwanted: Option<Unit> = None;
            let mut left = self.limits[class];
            for turn in 0..self.turns[class].len() {
                let unit = self.turns[class][turn];
                let kind = self.problem.classes[class].units[unit];
                let empty = standing.courses[class][unit].terms.is_empty();
                if unwanted == Some(kind) && empty {
                    continue;
                }
                let off = matches!(kind, Unit::Off { .. });
                if off && left == 0 {
                    continue;
                }
                let before = self.take(standing, class, unit);
                let course = if self.ranked {
                    self.respond_ranked(standing, class, unit)
                } else {
                    self.respond(standing, class, unit)
                };
                if course.terms.is_empty() {
                    unwanted = Some(kind);
                } else if off {
                    left -= 1;
                }
                changed |= course.terms != before.terms;
                self.place(standing, class, unit, course);
            }
        }
        self.ranked = false;
        changed
    }

    /// Ranks the pools of a class.
    pub(super) fn rank(&mut self, standing: &Standing, class: usize) {
        let mut ranking = std::mem::take(&mut self.ranking);
        ranking.build(self, standing, class);
        self.ranking = ranking;
        self.ranked = true;
        self.moved.clear();
    }

    /// The same as [`Solver::respond`], for the class that has been ranked and if nothing but its servers have moved since.
    pub(super) fn respond_ranked(&mut self, standing: &Standing, class: usize, unit: usize) -> Course {
        self.look_ranked(standing, class);
        self.sweep(standing, class);
        self.planner
            .course(&self.grid, class, self.problem.classes[class].units[unit])
    }

    /// The same as [`Solver::value`], for the class that has been ranked.
    fn look_ranked(&mut self, standing: &Standing, class: usize) {
        let mut ranking = std::mem::take(&mut self.ranking);
        ranking.update(self, standing, &self.moved);
        self.moved.clear();
        for slot in 0..self.grid.slots {
            let users = &self.users[class];
            let (worth, first) = match ranking.first(slot) {
                Some((worth, index)) => (worth, Some(&users[index])),
                None => (
                    0.0,
                    users
                        .iter()
                        .find(|(pool, _)| !self.is_full(standing, pool * self.grid.slots + slot)),
                ),
            };
            self.values[slot] = worth;
            self.pools[slot] = first.map_or(NOBODY, |&(pool, _)| u16::try_from(pool).unwrap_or(NOBODY));
        }
        self.ranking = ranking;
    }

    /// What was found last: per slot, what a server is worth and to which pool.
    #[cfg(test)]
    pub(super) fn found(&self) -> (&[f64], &[u16]) {
        (&self.values, &self.pools)
    }

    /// Whether a pool has all the servers that it may have in a slot.
    fn is_full(&self, standing: &Standing, at: usize) -> bool {
        let most = || self.problem.pools[at / self.grid.slots].most;
        standing.counts.get(at).is_some_and(|count| *count >= most())
    }

    /// What another server of a class is worth to one of its pools in a slot; zero if that is not more than `least`.
    pub(super) fn worth(&self, standing: &Standing, class: usize, index: usize, slot: usize, least: f64) -> f64 {
        let (pool, each) = self.users[class][index];
        let at = pool * self.grid.slots + slot;
        if self.is_full(standing, at) {
            return 0.0;
        }
        self.gain(standing, at, (self.problem.classes[class].site, each), least)
    }

    /// What `more` capacity at a site is worth to a pool in a slot; zero if that is not more than `least`.
    fn gain(&self, standing: &Standing, at: usize, more: (usize, f64), least: f64) -> f64 {
        let (price, burn) = (self.prices[at], standing.burn[at]);
        if price * burn <= least {
            return 0.0;
        }
        price * (burn - self.outcomes[at].at(self.effective(standing, at, Some(more))))
    }

    /// The best course of a server that stands aside at the moment.
    pub(super) fn respond(&mut self, standing: &Standing, class: usize, unit: usize) -> Course {
        self.value(standing, class);
        self.sweep(standing, class);
        self.planner
            .course(&self.grid, class, self.problem.classes[class].units[unit])
    }

    fn sweep(&mut self, standing: &Standing, class: usize) {
        let timetable = &self.grid.timetables[class];
        let spec = &self.problem.classes[class];
        let limit = self.problem.power_limits.get(spec.site).copied().flatten();
        let Some(limit) = limit.filter(|_| spec.busy_watts > 0.0) else {
            self.planner.sweep(timetable, Tariff::of(timetable), &self.values);
            return;
        };
        self.keep.clone_from(&timetable.keep_cost);
        self.lease.clone_from(&timetable.lease_cost);
        let mut blocked = usize::MAX;
        for slot in (0..self.grid.slots).rev() {
            if standing.watts[spec.site][slot] + spec.busy_watts > limit * (1.0 + 1e-9) {
                self.keep[slot] = f64::INFINITY;
                blocked = slot;
            }
            if blocked < timetable.leases[slot].to {
                self.lease[slot] = f64::INFINITY;
            }
        }
        let tariff = Tariff {
            lease: &self.lease,
            keep: &self.keep,
        };
        self.planner.sweep(timetable, tariff, &self.values);
    }

    /// What another server of a class is worth in every slot, and for which pool.
    fn value(&mut self, standing: &Standing, class: usize) {
        let site = self.problem.classes[class].site;
        self.values.fill(0.0);
        self.pools.fill(NOBODY);
        for &(pool, each) in &self.users[class] {
            let index = u16::try_from(pool).unwrap_or(u16::MAX);
            let first = pool * self.grid.slots;
            for slot in 0..self.grid.slots {
                let at = first + slot;
                if self.is_full(standing, at) {
                    continue;
                }
                if self.pools[slot] == NOBODY {
                    self.pools[slot] = index;
                }
                let worth = self.gain(standing, at, (site, each), self.values[slot]);
                if worth > self.values[slot] {
                    self.values[slot] = worth;
                    self.pools[slot] = index;
                }
            }
        }
    }

    /// Puts a server on its course, where [`Solver::value`] saw it worth most.
    pub(super) fn place(&mut self, standing: &mut Standing, class: usize, unit: usize, course: Course) {
        if self.chooses {
            standing.serves[class][unit].clone_from(&self.pools);
        }
        self.replace(standing, class, unit, course);
    }

    /// Puts a server on a given course, for the pools that it is worth most to, if its site has the power.
    pub(super) fn assign(&mut self, standing: &mut Standing, class: usize, unit: usize, course: Course) {
        if self.is_powered(standing, class, &course.terms) {
            self.value(standing, class);
            self.place(standing, class, unit, course);
        }
    }

    /// The same for several servers, given class by class.
    pub(super) fn assign_all(&mut self, standing: &mut Standing, courses: &[(usize, usize, Vec<Term>)]) {
        for of_class in courses.chunk_by(|left, right| left.0 == right.0) {
            let class = of_class[0].0;
            if self.users[class].len() >= MANY {
                self.rank(standing, class);
            }
            for (_, unit, terms) in of_class {
                let unit = *unit;
                if self.is_powered(standing, class, terms) {
                    if self.ranked {
                        self.look_ranked(standing, class);
                    } else {
                        self.value(standing, class);
                    }
                    let cost = self.grid.total(class, self.problem.classes[class].units[unit], terms);
                    let terms = terms.clone();
                    self.place(standing, class, unit, Course { terms, cost });
                }
            }
            self.ranked = false;
        }
    }

    /// The best course of one more server of a class that serves one pool alone when a burnt request of its costs so much, and what it gains.
    pub(super) fn respond_to(
        &mut self,
        standing: &Standing,
        class: usize,
        unit: usize,
        (pool, each): (usize, f64),
        price: f64,
    ) -> (Course, f64) {
        let site = self.problem.classes[class].site;
        for slot in 0..self.grid.slots {
            let at = pool * self.grid.slots + slot;
            self.values[slot] = if self.is_full(standing, at) || self.window[at].is_none() {
                0.0
            } else {
                let burn = self.outcomes[at].at(self.effective(standing, at, Some((site, each))));
                price * (standing.burn[at] - burn)
            };
        }
        self.sweep(standing, class);
        let course = self
            .planner
            .course(&self.grid, class, self.problem.classes[class].units[unit]);
        let serving = course.terms.iter().flat_map(|term| term.serves.slots());
        let worth: f64 = serving.map(|(slot, share)| share * self.values[slot]).sum();
        let gain = worth - course.cost;
        (course, gain)
    }

    /// Whoever is placed next serves this pool alone.
    pub(super) fn serve(&mut self, pool: usize) {
        self.pools.fill(u16::try_from(pool).unwrap_or(NOBODY));
    }

    /// Whether a site has the power for one more server of a class.
    fn is_powered(&self, standing: &Standing, class: usize, terms: &[Term]) -> bool {
        let spec = &self.problem.classes[class];
        let Some(limit) = self.problem.power_limits.get(spec.site).copied().flatten() else {
            return true;
        };
        let exceeded = |watts: &f64| watts + spec.busy_watts > limit * (1.0 + 1e-9);
        spec.busy_watts <= 0.0
            || !terms
                .iter()
                .any(|term| standing.watts[spec.site][term.from..term.to()].iter().any(exceeded))
    }

    /// Whether a server that stands aside may take a course: its site has the power, and the pools that it serves have room for it.
    pub(super) fn fits(&self, standing: &Standing, class: usize, unit: usize, terms: &[Term]) -> bool {
        let full = |(slot, _)| self.is_full(standing, standing.pool(class, unit, slot) * self.grid.slots + slot);
        self.is_powered(standing, class, terms) && !terms.iter().flat_map(|term| term.serves.slots()).any(full)
    }
}

/// The highest sensible price of a pool's burnt requests: a whole lease for a twentieth of all its requests. Of a window that cannot be saved
/// no more is bought.
fn ceiling(problem: &Problem, pool: usize) -> f64 {
    let lease = |class: &Class| {
        (class.hourly + class.energy_hourly) * (class.minimum_lease_s / 3_600.0).max(1.0) + class.switch_cost
    };
    let usable = problem.classes.iter().filter(|class| class.capacity[pool].is_some());
    let requests: f64 = problem.pools[pool]
        .arrivals
        .iter()
        .enumerate()
        .map(|(slot, arrivals)| mean(arrivals) * problem.length_s(slot))
        .sum();
    20.0 * usable.map(lease).fold(0.01, f64::max) / requests.max(1.0)
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
