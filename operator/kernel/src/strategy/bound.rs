//! A lower bound by Lagrangian relaxation, from servers that may be divided.
//!
//! Let serving capacity have a price w per request/s, and burnt requests a price π. Then servers no longer depend on each
//! other, nor slots: every server takes the course that earns most, and every slot buys the capacity that it wants. The sum of
//! what both then cost, less what the error budgets are worth, is never more than the cost of any plan that keeps them, whatever the
//! prices (Geoffrion, "Lagrangean relaxation for integer programming", 1974).
//!
//! Good prices are those at which servers that may be divided between courses come to rest. Parts of servers are moved from the course that
//! pays least to the one that pays best, as traffic finds its routes (gradient projection: Jayakrishnan et al., 1994), while courses
//! are found by dynamic programming as they are needed; π follows the budgets.
//!
//! Leases are whole, though: if the divided optimum takes 7.4 leases of a class, then a plan takes at most 7 or at least 8, and the cheaper
//! of both divided optima is a bound, too. A price on leases keeps the number on its side.

use super::course::Tariff;
use super::grid::Term;
use super::sweep::Solver;
use super::{Problem, Unit};

/// Servers of one kind, divided between courses.
#[derive(Clone, Debug)]
struct Block {
    class: usize,
    unit: Unit,
    courses: Vec<Divided>,
}

/// A course, and how many servers follow it.
#[derive(Clone, Debug)]
struct Divided {
    terms: Vec<Term>,
    cost: f64,
    leases: f64,
    /// (pool × slot, requests/s).
    gives: Vec<(u32, f64)>,
    servers: f64,
}

impl Divided {
    fn earns(&self, worth: &[f64]) -> f64 {
        self.gives.iter().map(|&(at, each)| each * worth[at as usize]).sum()
    }
}

/// At least or at most so many leases of a class.
#[derive(Clone, Copy, Debug)]
struct Side {
    class: usize,
    count: f64,
    at_least: bool,
}

/// Servers divided between courses, and the prices that led there.
#[derive(Clone, Debug)]
pub(super) struct Relaxation {
    blocks: Vec<Block>,
    /// Per pool × slot: requests/s.
    capacity: Vec<f64>,
    /// Per pool × slot: what a request/s is worth there, and how fast that falls.
    worth: Vec<f64>,
    bend: Vec<f64>,
    /// Per pool, per window: of a burnt request.
    pub(super) prices: Vec<Vec<f64>>,
    side: Option<Side>,
    /// What every lease of the side's class costs besides; below zero if leases are wanted.
    toll: f64,
    /// The best bound so far.
    pub(super) best: f64,
}

impl Relaxation {
    pub(super) fn new(solver: &Solver, prices: &[Vec<f64>]) -> Self {
        let problem = solver.problem;
        let mut blocks: Vec<Block> = Vec::new();
        for (class, spec) in problem.classes.iter().enumerate() {
            let first = blocks.len();
            for &unit in &spec.units {
                if let Some(block) = blocks[first..].iter_mut().find(|block| block.unit == unit) {
                    block.courses[0].servers += 1.0;
                } else {
                    let nothing = Divided {
                        terms: Vec::new(),
                        cost: 0.0,
                        leases: 0.0,
                        gives: Vec::new(),
                        servers: 1.0,
                    };
                    blocks.push(Block {
                        class,
                        unit,
                        courses: vec![nothing],
                    });
                }
            }
        }
        let size = problem.pools.len() * solver.grid.slots;
        let mut relaxation = Self {
            blocks,
            capacity: vec![0.0; size],
            worth: vec![0.0; size],
            bend: vec![0.0; size],
            prices: prices.to_vec(),
            side: None,
            toll: 0.0,
            best: 0.0,
        };
        for at in 0..size {
            relaxation.value(solver, at);
        }
        relaxation
    }

    /// So many rounds. Stops early once the bound is above `enough`.
    pub(super) fn improve(&mut self, solver: &mut Solver, rounds: u32, enough: f64, ceiling: f64) {
        for _ in 0..rounds {
            self.round(solver);
            if self.best >= enough {
                return;
            }
            self.follow(solver.problem, solver, ceiling);
        }
    }

    /// One round: every class finds its best courses, parts of servers move to them, and the bound is read off.
    fn round(&mut self, solver: &mut Solver) {
        let slots = solver.grid.slots;
        let mut value = 0.0;
        let mut values = vec![0.0; slots];
        let mut chosen = vec![0_usize; slots];
        let mut lease = Vec::new();
        let mut swept = usize::MAX;
        for index in 0..self.blocks.len() {
            let (class, unit) = (self.blocks[index].class, self.blocks[index].unit);
            if class != swept {
                self.values(solver, class, &mut values, &mut chosen);
                let timetable = &solver.grid.timetables[class];
                let mut tariff = Tariff::of(timetable);
                if self.side.is_some_and(|side| side.class == class) {
                    lease.clear();
                    lease.extend(timetable.lease_cost.iter().map(|cost| cost + self.toll));
                    tariff.lease = &lease;
                }
                solver.planner.sweep(timetable, tariff, &values);
                swept = class;
            }
            let count: f64 = self.blocks[index].courses.iter().map(|course| course.servers).sum();
            value += count * solver.planner.net(&solver.grid, class, unit);
            let terms = solver.planner.terms(&solver.grid, class, unit);
            self.admit(solver, index, terms, &chosen);
        }
        value -= self.side.map_or(0.0, |side| self.toll * side.count);
        for (pool, demand) in solver.problem.pools.iter().enumerate() {
            let (share, lost) = solver.at_best(pool);
            for slot in 0..slots {
                let price = self.price(solver, pool, slot);
                let worth = self.worth[pool * slots + slot] / share;
                value += solver.outcomes[pool * solver.grid.slots + slot].least(price, worth, -lost) + worth * lost;
            }
            for (price, window) in self.prices[pool].iter().zip(&demand.windows) {
                value -= price * window.budget;
            }
        }
        self.best = self.best.max(value);
        for _ in 0..MOVES {
            for block in 0..self.blocks.len() {
                self.shift(solver, block);
            }
        }
    }

    /// What serving is worth to a server of `class`, and which pool it serves.
    fn values(&self, solver: &Solver, class: usize, values: &mut [f64], chosen: &mut [usize]) {
        let slots = values.len();
        values.fill(0.0);
        chosen.fill(0);
        for &(pool, each) in &solver.users[class] {
            for slot in 0..slots {
                let worth = each * self.worth[pool * slots + slot];
                if worth > values[slot] {
                    values[slot] = worth;
                    chosen[slot] = pool;
                }
            }
        }
    }

    fn price(&self, solver: &Solver, pool: usize, slot: usize) -> f64 {
        let window = solver.window[pool * solver.grid.slots + slot];
        solver.problem.pools[pool].miss_value + window.map_or(0.0, |window| self.prices[pool][window])
    }

    /// Makes a course known to a block.
    fn admit(&mut self, solver: &Solver, block: usize, terms: Vec<Term>, chosen: &[usize]) {
        let slots = solver.grid.slots;
        let Block { class, unit, courses } = &mut self.blocks[block];
        let spec = &solver.problem.classes[*class];
        let mut gives = Vec::new();
        for term in &terms {
            for (slot, share) in term.serves.slots() {
                let each = spec.capacity[chosen[slot]].unwrap_or(0.0);
                if each > 0.0 {
                    gives.push((
                        u32::try_from(chosen[slot] * slots + slot).unwrap_or(u32::MAX),
                        share * each,
                    ));
                }
            }
        }
        gives.sort_unstable_by_key(|&(at, _)| at);
        if courses
            .iter()
            .any(|course| course.terms == terms && course.gives == gives)
        {
            return;
        }
        let new = Divided {
            cost: solver.grid.total(*class, *unit, &terms),
            leases: terms.iter().filter(|term| !term.given).count() as f64,
            terms,
            gives,
            servers: 0.0,
        };
        // What is paid for already cannot be left: the first course that is found replaces the empty one.
        if courses.len() == 1 && courses[0].terms.is_empty() && !matches!(unit, Unit::Off { .. }) {
            let servers = courses[0].servers;
            courses[0] = Divided { servers, ..new };
            let moved = courses[0].gives.clone();
            for (at, each) in moved {
                self.capacity[at as usize] += each * servers;
                self.value(solver, at as usize);
            }
        } else {
            courses.push(new);
        }
    }

    /// Moves servers of a block from the course that pays least to the one that pays best.
    fn shift(&mut self, solver: &Solver, block: usize) {
        let Block { class, courses, .. } = &self.blocks[block];
        if courses.len() < 2 {
            return;
        }
        let side = self.side.filter(|side| side.class == *class);
        let toll = side.map_or(0.0, |_| self.toll);
        let (mut worst, mut best) = (None, None);
        for (index, course) in courses.iter().enumerate() {
            let net = course.cost + toll * course.leases - course.earns(&self.worth);
            if best.is_none_or(|(_, least)| net < least) {
                best = Some((index, net));
            }
            if course.servers > 1e-9 && worst.is_none_or(|(_, most)| net > most) {
                worst = Some((index, net));
            }
        }
        let (Some((worst, most)), Some((best, least))) = (worst, best) else {
            return;
        };
        if worst == best || most - least < 1e-9 {
            return;
        }
        let all = courses[worst].servers;
        let bend = bend(&courses[worst].gives, &courses[best].gives, &self.bend);
        let mut part = if bend > 0.0 {
            ((most - least) / bend).min(all)
        } else {
            all
        };
        let fixed =
            courses[best].cost + toll * courses[best].leases - courses[worst].cost - toll * courses[worst].leases;
        self.transfer(solver, block, worst, best, part);
        for _ in 0..BACKTRACKS {
            let courses = &self.blocks[block].courses;
            let rest = fixed - courses[best].earns(&self.worth) + courses[worst].earns(&self.worth);
            if rest <= 0.1 * (most - least) {
                break;
            }
            // Too far: back to where the line between both slopes is level.
            let back = part * rest / (rest + most - least);
            self.transfer(solver, block, best, worst, back);
            part -= back;
        }
        let courses = &mut self.blocks[block].courses;
        if courses.len() > KEPT {
            let mut index = 0;
            courses.retain(|course| {
                index += 1;
                // The first one may stand for what is paid for already.
                course.servers > 1e-9 || index > KEPT / 2
            });
        }
    }

    fn transfer(&mut self, solver: &Solver, block: usize, from: usize, to: usize, servers: f64) {
        for (course, servers) in [(from, -servers), (to, servers)] {
            let course = &mut self.blocks[block].courses[course];
            course.servers = (course.servers + servers).max(0.0);
            for &(at, each) in &course.gives {
                self.capacity[at as usize] += each * servers;
            }
        }
        for course in [from, to] {
            for index in 0..self.blocks[block].courses[course].gives.len() {
                let at = self.blocks[block].courses[course].gives[index].0 as usize;
                self.value(solver, at);
            }
        }
    }

    /// What a request/s is worth in a slot, from the capacity there.
    fn value(&mut self, solver: &Solver, at: usize) {
        let (pool, slot) = (at / solver.grid.slots, at % solver.grid.slots);
        let (share, lost) = solver.at_best(pool);
        let price = self.price(solver, pool, slot);
        let (slope, bend) = solver.outcomes[pool * solver.grid.slots + slot].slope(self.capacity[at] * share - lost);
        self.worth[at] = price * slope * share;
        self.bend[at] = price * bend * share * share;
    }

    /// Expected burn of a pool in a window.
    fn burnt(&self, solver: &Solver, pool: usize, window: usize) -> f64 {
        let (share, lost) = solver.at_best(pool);
        let slots = solver.problem.pools[pool].windows[window].slots.clone();
        slots
            .map(|slot| {
                let capacity = self.capacity[pool * solver.grid.slots + slot];
                solver.outcomes[pool * solver.grid.slots + slot].at(capacity * share - lost)
            })
            .sum()
    }

    /// Moves prices of burnt requests towards where budgets are just spent, and the toll to where the leases are as many as they should.
    fn follow(&mut self, problem: &Problem, solver: &Solver, ceiling: f64) {
        for (pool, demand) in problem.pools.iter().enumerate() {
            for (index, window) in demand.windows.iter().enumerate() {
                let burnt = self.burnt(solver, pool, index);
                let ratio = if window.budget > 0.0 {
                    burnt / window.budget
                } else {
                    4.0
                };
                let price = &mut self.prices[pool][index];
                *price = (*price * libm::pow(ratio.clamp(0.2, 5.0), PACE)).clamp(ceiling * 1e-9, ceiling);
            }
        }
        if let Some(side) = self.side {
            let excess = self.leases(side.class) - side.count;
            let class = &problem.classes[side.class];
            let price = class.hourly * class.minimum_lease_s / 3_600.0;
            self.toll += price * TOLL_PACE * excess / side.count.max(1.0);
            self.toll = if side.at_least {
                self.toll.min(0.0)
            } else {
                self.toll.max(0.0)
            };
        }
        for at in 0..self.worth.len() {
            self.value(solver, at);
        }
    }

    /// Leases of a class, in parts.
    pub(super) fn leases(&self, class: usize) -> f64 {
        let blocks = self.blocks.iter().filter(|block| block.class == class);
        blocks
            .flat_map(|block| &block.courses)
            .map(|course| course.leases * course.servers)
            .sum()
    }

    /// Servers of a class that are not there yet and are leased, in parts.
    pub(super) fn fresh(&self, class: usize) -> f64 {
        let blocks = self.blocks.iter().filter(|block| block.class == class);
        let courses = blocks.flat_map(|block| &block.courses);
        courses
            .filter(|course| course.terms.first().is_some_and(|first| !first.given))
            .map(|course| course.servers)
            .sum()
    }

    /// Courses of servers of a class that are not there yet, rounded to `count` whole ones that are spread over time as the parts are.
    pub(super) fn rounded(&self, class: usize, count: usize) -> Vec<(Unit, Vec<Term>)> {
        let mut parts: Vec<(usize, usize, f64, Unit, &[Term])> = Vec::new();
        for block in self.blocks.iter().filter(|block| block.class == class) {
            for course in block.courses.iter().filter(|course| course.servers > 1e-6) {
                if let (Some(first), Some(last)) = (course.terms.first(), course.terms.last())
                    && !first.given
                {
                    parts.push((first.from, last.to(), course.servers, block.unit, &course.terms));
                }
            }
        }
        parts.sort_by_key(|part| (part.0, part.1));
        let all: f64 = parts.iter().map(|part| part.2).sum();
        let mut rounded = Vec::new();
        let mut passed = 0.0;
        for (_, _, servers, unit, terms) in parts {
            passed += servers;
            // The middle of each of `count` equal parts.
            while rounded.len() < count && (rounded.len() as f64 + 0.5) * all <= passed * count as f64 {
                rounded.push((unit, terms.to_vec()));
            }
        }
        rounded
    }

    /// The same with at least or at most so many leases of a class.
    pub(super) fn with(&self, class: usize, count: f64, at_least: bool) -> Self {
        Self {
            side: Some(Side { class, count, at_least }),
            toll: 0.0,
            best: 0.0,
            ..self.clone()
        }
    }
}

/// How fast what a move from one course to another gains falls as servers are moved. Both are sorted; where both serve nothing changes.
fn bend(from: &[(u32, f64)], to: &[(u32, f64)], bends: &[f64]) -> f64 {
    let (mut from, mut to) = (from.iter().peekable(), to.iter().peekable());
    let mut sum = 0.0;
    loop {
        let (at, change) = match (from.peek(), to.peek()) {
            (Some(&&(left, each)), Some(&&(right, other))) if left == right => {
                from.next();
                to.next();
                (left, other - each)
            }
            (Some(&&(left, each)), right) if right.is_none_or(|&&(right, _)| left < right) => {
                from.next();
                (left, each)
            }
            (_, Some(&&(right, each))) => {
                to.next();
                (right, each)
            }
            (_, None) => return sum,
        };
        sum += change * change * bends[at as usize];
    }
}

/// Times that parts of servers are moved between two rounds.
const MOVES: u32 = 3;

/// Times that a step is taken back in part.
const BACKTRACKS: u32 = 3;

/// Courses of a block, before those that nobody follows are forgotten.
const KEPT: usize = 24;

/// How fast prices of burnt requests follow.
const PACE: f64 = 0.25;

/// How fast the toll follows.
const TOLL_PACE: f64 = 0.3;
