//! A lower bound by Lagrangian relaxation, from servers that may be divided.
//!
//! Let serving capacity have a price w per request/s, and burnt requests a price π. Then servers no longer depend on each
//! other, nor slots: every server takes the course that earns most, and every slot buys the capacity that it wants. The sum of
//! what both then cost, less what the error budgets are worth, is never more than the cost of any plan that keeps them, whatever the
//! prices (Geoffrion, "Lagrangean relaxation for integer programming", 1974).
//!
//! Good prices are those at which servers that may be divided between courses come to rest. Parts of servers are moved from the course that
//! pays least to the one that pays best, as traffic finds its routes (gradient projection: Jayakrishnan et al., 1994), while courses
//! are found by dynamic programming as they are needed; π follows the budgets. Where burn has a kink, prices swing around the one that is right,
//! and their mean over the last rounds is a better bound than any of them (Nesterov, "Primal-dual subgradient methods", 2009).
//!
//! Leases are whole, though: if the divided optimum takes 7.4 leases of a class, then a plan takes at most 7 or at least 8, and the cheaper
//! of both divided optima is a bound, too. A price on leases keeps the number on its side.

use super::Unit;
use super::course::Tariff;
use super::divided::Division;
use super::grid::Term;
use super::sweep::Solver;

/// Servers of one kind, divided between courses.
#[derive(Clone, Debug)]
struct Block {
    class: usize,
    unit: Unit,
    servers: f64,
    courses: Vec<Divided>,
}

/// A course, and how many servers follow it.
#[derive(Clone, Debug)]
struct Divided {
    terms: Vec<Term>,
    cost: f64,
    leases: f64,
    /// (slot, share of it), ascending.
    serves: Vec<(usize, f64)>,
    servers: f64,
}

impl Divided {
    fn of(solver: &Solver, class: usize, unit: Unit, terms: Vec<Term>, servers: f64) -> Self {
        Self {
            cost: solver.grid.total(class, unit, &terms),
            leases: terms.iter().filter(|term| !term.given).count() as f64,
            serves: terms.iter().flat_map(|term| term.serves.slots()).collect(),
            terms,
            servers,
        }
    }

    fn earns(&self, values: &[f64]) -> f64 {
        self.serves.iter().map(|&(slot, share)| share * values[slot]).sum()
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
    /// In the order of their classes.
    blocks: Vec<Block>,
    /// Whom they serve.
    division: Division,
    /// Per pool, per window: of a burnt request.
    pub(super) prices: Vec<Vec<f64>>,
    side: Option<Side>,
    /// What every lease of the side's class costs besides; below zero if leases are wanted.
    toll: f64,
    /// Means of both over the last rounds.
    mean: (Vec<Vec<f64>>, f64),
    /// The best bound so far.
    pub(super) best: f64,
}

impl Relaxation {
    pub(super) fn new(solver: &Solver, prices: &[Vec<f64>]) -> Self {
        let mut division = Division::new(solver, prices);
        let mut blocks: Vec<Block> = Vec::new();
        for (class, spec) in solver.problem.classes.iter().enumerate() {
            let first = blocks.len();
            for &unit in &spec.units {
                if let Some(block) = blocks[first..].iter_mut().find(|block| block.unit == unit) {
                    block.servers += 1.0;
                    block.courses[0].servers += 1.0;
                } else {
                    // What is paid for already cannot be left.
                    let terms = solver.grid.given(unit).into_iter().collect();
                    let courses = vec![Divided::of(solver, class, unit, terms, 1.0)];
                    blocks.push(Block {
                        class,
                        unit,
                        servers: 1.0,
                        courses,
                    });
                }
            }
            for block in &blocks[first..] {
                let given = &block.courses[0];
                for &(slot, share) in &given.serves {
                    division.add(solver, class, slot, share * given.servers);
                }
            }
        }
        Self {
            blocks,
            division,
            prices: prices.to_vec(),
            side: None,
            toll: 0.0,
            mean: (prices.to_vec(), 0.0),
            best: 0.0,
        }
    }

    /// So many rounds. Stops early once the bound is above `enough`.
    pub(super) fn improve(&mut self, solver: &mut Solver, rounds: u32, enough: f64) {
        let settled = rounds / 3;
        for round in 0..rounds {
            let value = self.read(solver);
            self.best = self.best.max(value);
            if self.best >= enough {
                return;
            }
            self.shift_all(solver);
            self.follow(solver);
            if round >= settled {
                self.average(1.0 / f64::from(round - settled + 1).min(MEMORY));
                if (rounds - round - 1).is_multiple_of(READ_EVERY) {
                    self.exchange();
                    let value = self.read(solver);
                    self.exchange();
                    self.best = self.best.max(value);
                }
            }
        }
    }

    /// What the prices of now say of the cost of any plan. Every class finds the courses that are best at them.
    fn read(&mut self, solver: &mut Solver) -> f64 {
        let mut value = 0.0;
        let mut lease = Vec::new();
        let mut swept = usize::MAX;
        for index in 0..self.blocks.len() {
            let (class, unit) = (self.blocks[index].class, self.blocks[index].unit);
            if class != swept {
                let timetable = &solver.grid.timetables[class];
                self.division.look(solver, class);
                let mut tariff = Tariff::of(timetable);
                if self.side.is_some_and(|side| side.class == class) {
                    lease.clear();
                    lease.extend(timetable.lease_cost.iter().map(|cost| cost + self.toll));
                    tariff.lease = &lease;
                }
                solver.planner.sweep(timetable, tariff, self.division.values(class));
                swept = class;
            }
            value += self.blocks[index].servers * solver.planner.net(&solver.grid, class, unit);
            let terms = solver.planner.terms(&solver.grid, class, unit);
            self.admit(solver, index, terms);
        }
        value -= self.side.map_or(0.0, |side| self.toll * side.count);
        for (prices, demand) in self.prices.iter().zip(&solver.problem.pools) {
            for (price, window) in prices.iter().zip(&demand.windows) {
                value -= price * window.budget;
            }
        }
        value + self.division.least(solver)
    }

    fn average(&mut self, weight: f64) {
        self.division.average(weight);
        let (prices, toll) = &mut self.mean;
        for (mean, price) in prices.iter_mut().flatten().zip(self.prices.iter().flatten()) {
            *mean += (price - *mean) * weight;
        }
        *toll += (self.toll - *toll) * weight;
    }

    /// Lets prices and their means change places.
    fn exchange(&mut self) {
        self.division.exchange();
        std::mem::swap(&mut self.prices, &mut self.mean.0);
        std::mem::swap(&mut self.toll, &mut self.mean.1);
    }

    /// Moves parts of servers between courses, and between pools.
    fn shift_all(&mut self, solver: &Solver) {
        for pass in 0..MOVES {
            let mut index = 0;
            while let Some(class) = self.blocks.get(index).map(|block| block.class) {
                // What is worth most has changed since with what other classes did.
                if pass == 0 && solver.users[class].len() > 1 {
                    self.division.look(solver, class);
                }
                while self.blocks.get(index).is_some_and(|block| block.class == class) {
                    self.shift(solver, index);
                    index += 1;
                }
                self.division.balance(solver, class);
            }
        }
    }

    /// Makes a course known to a block.
    fn admit(&mut self, solver: &Solver, block: usize, terms: Vec<Term>) {
        let Block {
            class, unit, courses, ..
        } = &mut self.blocks[block];
        if !courses.iter().any(|course| course.terms == terms) {
            courses.push(Divided::of(solver, *class, *unit, terms, 0.0));
        }
    }

    /// Moves servers of a block from the courses that lose most to the one that pays best.
    fn shift(&mut self, solver: &Solver, block: usize) {
        let Block { class, courses, .. } = &self.blocks[block];
        let toll = self.side.filter(|side| side.class == *class).map_or(0.0, |_| self.toll);
        let values = self.division.values(*class);
        let mut nets = Vec::with_capacity(courses.len());
        nets.extend(
            courses
                .iter()
                .map(|course| course.cost + toll * course.leases - course.earns(values)),
        );
        let least = nets.iter().copied().fold(f64::INFINITY, f64::min);
        let mut worst = [(0.0, usize::MAX); RELIEVED];
        for (index, (course, net)) in courses.iter().zip(&nets).enumerate() {
            let loss = (net - least) * course.servers;
            if let Some(last) = worst.last_mut().filter(|last| loss > last.0) {
                *last = (loss, index);
                worst.sort_by(|left, right| right.0.total_cmp(&left.0));
            }
        }
        // With one pool alone, what moves settles at once.
        let most = if solver.problem.pools.len() > 1 { RELIEVED } else { 1 };
        for &(_, from) in worst.iter().take(most).filter(|&&(_, from)| from < usize::MAX) {
            self.relieve(solver, block, from, toll);
        }
        let courses = &mut self.blocks[block].courses;
        if courses.len() > KEPT {
            let mut index = 0;
            courses.retain(|course| {
                index += 1;
                course.servers > 1e-9 || index > KEPT / 2
            });
        }
    }

    /// Moves servers from one course to the one that pays best.
    fn relieve(&mut self, solver: &Solver, block: usize, from: usize, toll: f64) {
        let Block { class, courses, .. } = &self.blocks[block];
        let class = *class;
        let values = self.division.values(class);
        let net = |course: &Divided| course.cost + toll * course.leases - course.earns(values);
        let most = net(&courses[from]);
        let mut best = (from, most);
        for (index, course) in courses.iter().enumerate() {
            let net = net(course);
            if net < best.1 {
                best = (index, net);
            }
        }
        let (best, least) = best;
        if best == from || most - least < 1e-9 {
            return;
        }
        let all = courses[from].servers;
        let changes = changes(&courses[from].serves, &courses[best].serves);
        let bend = self.division.bend(class, &changes, &solver.users[class]);
        let mut part = if bend > 0.0 {
            ((most - least) / bend).min(all)
        } else {
            all
        };
        let fixed = courses[best].cost + toll * courses[best].leases - courses[from].cost - toll * courses[from].leases;
        self.division.change(solver, class, &changes, part);
        for _ in 0..BACKTRACKS {
            let values = self.division.values(class);
            let earns: f64 = changes.iter().map(|&(slot, change)| change * values[slot]).sum();
            let rest = fixed - earns;
            if rest <= 0.1 * (most - least) {
                break;
            }
            // Too far: back to where the line between both slopes is level.
            let back = part * rest / (rest + most - least);
            self.division.change(solver, class, &changes, -back);
            part -= back;
        }
        let courses = &mut self.blocks[block].courses;
        courses[from].servers = (courses[from].servers - part).max(0.0);
        courses[best].servers += part;
    }

    /// Moves prices of burnt requests towards where budgets are just spent, and the toll to where the leases are as many as they should.
    fn follow(&mut self, solver: &Solver) {
        let problem = solver.problem;
        for (pool, demand) in problem.pools.iter().enumerate() {
            let ceiling = solver.ceilings[pool];
            for (index, window) in demand.windows.iter().enumerate() {
                let burnt = self.division.burnt(solver, pool, window.slots.clone());
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
        self.division.price(solver, &self.prices);
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

/// What changes in every slot when a server leaves one course for another. Both are sorted; where both serve nothing changes.
fn changes(from: &[(usize, f64)], to: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let (mut from, mut to) = (from.iter().peekable(), to.iter().peekable());
    let mut changes = Vec::new();
    loop {
        let (slot, change) = match (from.peek(), to.peek()) {
            (Some(&&(left, before)), Some(&&(right, after))) if left == right => {
                from.next();
                to.next();
                (left, after - before)
            }
            (Some(&&(left, before)), right) if right.is_none_or(|&&(right, _)| left < right) => {
                from.next();
                (left, -before)
            }
            (_, Some(&&(right, after))) => {
                to.next();
                (right, after)
            }
            (_, None) => return changes,
        };
        if change.abs() > 0.0 {
            changes.push((slot, change));
        }
    }
}

/// Times that parts of servers are moved between two rounds.
const MOVES: u32 = 3;

/// Times that a step is taken back in part.
const BACKTRACKS: u32 = 3;

/// Courses of a block that servers are moved from at a time.
const RELIEVED: usize = 3;

/// Rounds that means go back, about.
const MEMORY: f64 = 10.0;

/// The bound of the means is read once in so many rounds.
const READ_EVERY: u32 = 4;

/// Courses of a block, before those that nobody follows are forgotten.
const KEPT: usize = 24;

/// How fast prices of burnt requests follow.
const PACE: f64 = 0.25;

/// How fast the toll follows.
const TOLL_PACE: f64 = 0.3;
