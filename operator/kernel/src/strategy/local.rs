//! Small changes of a plan that make it cheaper and keep every budget: some servers are taken out, and each is given the course that is best
//! given the rest, at prices of a burnt request around those that led to the plan.

use std::ops::Range;

use super::Unit;
use super::course::Course;
use super::cuts::shorter;
use super::grid::Term;
use super::solve::{Candidate, violation};
use super::sweep::Solver;

/// Prices that are tried, as a share of those of the plan.
const FACTORS: [f64; 5] = [1.0, 0.85, 1.2, 0.6, 1.6];

/// Long leases times short ones, up to which all of the short are tried together with each of the long: with more, others stand in one by
/// one anyway.
const MOST_TOGETHER: usize = 600;

/// A search around one plan.
pub(super) struct Local<'s, 'p> {
    solver: &'s mut Solver<'p>,
    factors: &'static [f64],
    /// Units of classes whose leases are short, in the order of their turns.
    short: Vec<(usize, usize)>,
    /// Units of the others.
    long: Vec<(usize, usize)>,
}

impl<'s, 'p> Local<'s, 'p> {
    /// `whole` are the classes whose leases are long.
    pub(super) fn new(solver: &'s mut Solver<'p>, whole: &[usize], factors: u32) -> Self {
        let factors = usize::try_from(factors).unwrap_or(0).min(FACTORS.len());
        let mut local = Self {
            solver,
            factors: &FACTORS[..factors],
            short: Vec::new(),
            long: Vec::new(),
        };
        for (class, spec) in local.solver.problem.classes.iter().enumerate() {
            if local.solver.users[class].is_empty() {
                continue;
            }
            let open = (0..spec.units.len()).filter(|&unit| !matches!(spec.units[unit], Unit::Fixed { .. }));
            let units = open.map(|unit| (class, unit));
            if whole.contains(&class) {
                local.long.extend(units);
            } else {
                local.short.extend(units);
            }
        }
        local
    }

    /// So many passes over all servers, as long as they help.
    pub(super) fn improve(&mut self, plan: &mut Candidate, passes: u32) {
        for _ in 0..passes {
            let before = (plan.violation, plan.standing.cost);
            self.trim(plan);
            self.again(plan);
            self.postpone(plan);
            self.merge(plan);
            self.elsewhere(plan);
            if self.short.len() * self.long.len() <= MOST_TOGETHER {
                self.instead(plan);
            }
            if before == (plan.violation, plan.standing.cost) {
                break;
            }
        }
        self.trim(plan);
    }

    /// Gives every server the chance of a cheaper course within its own, dearest first.
    fn trim(&mut self, plan: &mut Candidate) {
        let mut open: Vec<(usize, usize)> = self.short.iter().chain(&self.long).copied().collect();
        let cost = |&(class, unit): &(usize, usize)| plan.standing.courses[class][unit].cost;
        open.retain(|at| cost(at) > 0.0);
        open.sort_by(|left, right| cost(right).total_cmp(&cost(left)).then(left.cmp(right)));
        for (class, unit) in open {
            let kind = self.solver.problem.classes[class].units[unit];
            for terms in shorter(
                &self.solver.grid,
                class,
                kind,
                &plan.standing.courses[class][unit].terms,
            ) {
                if self.instated(plan, class, unit, terms) {
                    break;
                }
            }
        }
    }

    /// Puts a server on another course. Kept if the plan becomes cheaper, and budgets are kept no worse.
    fn instated(&mut self, plan: &mut Candidate, class: usize, unit: usize, terms: Vec<Term>) -> bool {
        let kind = self.solver.problem.classes[class].units[unit];
        let cost = self.solver.grid.total(class, kind, &terms);
        let before = plan.standing.cost;
        let kept = self
            .solver
            .replace(&mut plan.standing, class, unit, Course { terms, cost });
        let worse = violation(self.solver.problem, &plan.standing.burnt);
        if plan.standing.cost < before - 1e-9 && worse <= plan.violation + 1e-12 {
            plan.violation = worse;
            return true;
        }
        self.solver.replace(&mut plan.standing, class, unit, kept);
        false
    }

    /// Every server once more, alone.
    fn again(&mut self, plan: &mut Candidate) {
        let open: Vec<(usize, usize)> = self.short.iter().chain(&self.long).copied().collect();
        for at in open {
            if plan.standing.courses[at.0][at.1].cost > 0.0 {
                for &factor in self.factors {
                    if self.recreate(plan, &[at], factor) {
                        break;
                    }
                }
            }
        }
    }

    /// The same leases from another class: it may be cheaper.
    fn elsewhere(&mut self, plan: &mut Candidate) {
        let mut classes: Vec<usize> = self.long.iter().map(|&(class, _)| class).collect();
        classes.dedup();
        if classes.len() < 2 || self.long.len() * classes.len() > MOST_TOGETHER {
            return;
        }
        for index in 0..self.long.len() {
            for &other in &classes {
                let (class, unit) = self.long[index];
                let course = &plan.standing.courses[class][unit];
                if other == class || course.terms.is_empty() || course.terms[0].given {
                    continue;
                }
                let idle = |&&(class, unit): &&(usize, usize)| {
                    let free =
                        matches!(self.solver.problem.classes[class].units[unit], Unit::Off { from_s } if from_s <= 0.0);
                    class == other && free && plan.standing.courses[class][unit].terms.is_empty()
                };
                if let Some(&(_, idle)) = self.long.iter().find(idle) {
                    self.exchange(plan, (class, unit), (other, idle));
                }
            }
        }
    }

    /// One server's leases for another one. Kept if the plan becomes cheaper, and budgets are kept no worse.
    fn exchange(&mut self, plan: &mut Candidate, from: (usize, usize), to: (usize, usize)) {
        let terms: Vec<Term> = plan.standing.courses[from.0][from.1]
            .terms
            .iter()
            .map(|term| {
                let lease = self.solver.grid.leased(to.0, term.from);
                lease.until(lease.to().max(term.to()))
            })
            .collect();
        let kind = self.solver.problem.classes[to.0].units[to.1];
        let cost = self.solver.grid.total(to.0, kind, &terms);
        let again = &self.solver.grid.timetables[to.0].again;
        let too_soon = |end: usize, next: usize| again.get(end).is_none_or(|again| *again > next);
        if cost >= plan.standing.courses[from.0][from.1].cost - 1e-9
            || terms.windows(2).any(|pair| too_soon(pair[0].to(), pair[1].from))
        {
            return;
        }
        let before = plan.standing.cost;
        let kept = self.solver.take_all(&mut plan.standing, &[from, to]);
        self.solver
            .assign(&mut plan.standing, to.0, to.1, Course { terms, cost });
        let worse = violation(self.solver.problem, &plan.standing.burnt);
        if worse <= plan.violation + 1e-12 && plan.standing.cost < before - 1e-9 {
            plan.violation = worse;
        } else {
            self.solver.put_back(&mut plan.standing, &[from, to], kept);
        }
    }

    /// Long leases begin as late as they may.
    fn postpone(&mut self, plan: &mut Candidate) {
        for index in 0..self.long.len() {
            let (class, unit) = self.long[index];
            let mut steps = self.solver.grid.slots;
            while steps > 0 {
                if !self.begin_later(plan, class, unit, steps) {
                    steps /= 2;
                }
            }
        }
    }

    /// The first lease of a server so many slots later, joined with the next one if it reaches that. Kept if the plan becomes cheaper, and budgets
    /// are kept no worse.
    fn begin_later(&mut self, plan: &mut Candidate, class: usize, unit: usize, slots: usize) -> bool {
        let grid = &self.solver.grid;
        let course = &plan.standing.courses[class][unit];
        let Some((term, rest)) = course.terms.split_first() else {
            return false;
        };
        let from = term.from + slots;
        if term.given || from >= grid.slots {
            return false;
        }
        let lease = grid.leased(class, from);
        let prolonged = term.to() > grid.leased(class, term.from).to();
        let to = if prolonged {
            lease.to().max(term.to())
        } else {
            lease.to()
        };
        let mut terms = vec![lease.until(to)];
        match rest.split_first() {
            Some((next, rest)) if to >= grid.slots || grid.timetables[class].again[to] > next.from => {
                terms[0] = lease.until(to.max(next.to()));
                terms.extend_from_slice(rest);
            }
            _ => terms.extend_from_slice(rest),
        }
        let kind = self.solver.problem.classes[class].units[unit];
        let cost = grid.total(class, kind, &terms);
        if cost >= course.cost - 1e-9 {
            return false;
        }
        let kept = self.solver.take(&mut plan.standing, class, unit);
        let fits = self.solver.fits(&plan.standing, class, unit, &terms);
        self.solver.replace(&mut plan.standing, class, unit, kept);
        fits && self.instated(plan, class, unit, terms)
    }

    /// Two fresh leases: one may do. Tried are those that begin one after the other, and those of which the second begins when the first has ended.
    fn merge(&mut self, plan: &mut Candidate) {
        let mut fresh: Vec<(usize, usize, (usize, usize))> = Vec::new();
        for &(class, unit) in &self.long {
            if let Some(first) = plan.standing.courses[class][unit].terms.first()
                && !first.given
            {
                fresh.push((first.from, first.to(), (class, unit)));
            }
        }
        fresh.sort_unstable();
        for (index, &(from, to, first)) in fresh.iter().enumerate() {
            let later = || fresh.iter().skip(index + 1);
            let after = |&&(next, _, second): &&(usize, usize, (usize, usize))| {
                next >= to && !plan.standing.courses[second.0][second.1].terms.is_empty()
            };
            let after = later().find(after);
            for &(next, _, second) in later().take(1).chain(after) {
                self.one_of(plan, from..next, [first, second]);
            }
        }
    }

    /// One lease instead of two, the first of which begins at the start of `from` and the second at its end.
    fn one_of(&mut self, plan: &mut Candidate, from: Range<usize>, set: [(usize, usize); 2]) {
        if set[0].0 == set[1].0 && self.stretch(plan, from, set) {
            return;
        }
        for &factor in self.factors {
            if self.recreate(plan, &set, factor) {
                return;
            }
        }
    }

    /// One lease from as late as possible instead of two single ones, the second of which begins at the end of `from`.
    fn stretch(&mut self, plan: &mut Candidate, from: Range<usize>, set: [(usize, usize); 2]) -> bool {
        let [(class, first), (_, second)] = set;
        let courses = &plan.standing.courses[class];
        let ([only], [last]) = (&courses[first].terms[..], &courses[second].terms[..]) else {
            return false;
        };
        let (only, last) = (only.serves.to, *last);
        let before = plan.standing.cost;
        let kind = self.solver.problem.classes[class].units[second];
        let earliest = match kind {
            Unit::Off { from_s } => self.solver.grid.boundary(from_s).max(from.start),
            Unit::On { .. } | Unit::Fixed { .. } => return false,
        };
        let kept = self.solver.take_all(&mut plan.standing, &set);
        for from in (earliest..from.end).rev() {
            let lease = self.solver.grid.leased(class, from);
            let to = lease.to().max(last.to()).max(only.min(last.from));
            let terms = vec![lease.until(to)];
            let cost = self.solver.grid.total(class, kind, &terms);
            if plan.standing.cost + cost >= before - 1e-9 || !self.solver.fits(&plan.standing, class, second, &terms) {
                continue;
            }
            self.solver
                .replace(&mut plan.standing, class, second, Course { terms, cost });
            let worse = violation(self.solver.problem, &plan.standing.burnt);
            if worse <= plan.violation + 1e-12 {
                plan.violation = worse;
                return true;
            }
            self.solver.take(&mut plan.standing, class, second);
        }
        self.solver.put_back(&mut plan.standing, &set, kept);
        false
    }

    /// Every long lease together with all short ones: hours may stand in for a day, or a day for hours.
    fn instead(&mut self, plan: &mut Candidate) {
        let mut idle: Vec<Unit> = Vec::new();
        for index in 0..self.long.len() {
            let (class, unit) = self.long[index];
            let kind = self.solver.problem.classes[class].units[unit];
            let more = plan.standing.courses[class][unit].terms.is_empty();
            if more && idle.contains(&kind) {
                continue;
            }
            let mut set = self.short.clone();
            if more {
                idle.push(kind);
                set.insert(0, (class, unit));
            } else {
                set.push((class, unit));
            }
            for &factor in self.factors {
                if self.recreate(plan, &set, factor) {
                    break;
                }
            }
        }
        let set = self.short.clone();
        for &factor in self.factors {
            self.recreate(plan, &set, factor);
        }
    }

    /// Takes servers out and asks them one by one. Kept if the plan becomes cheaper, and budgets are kept no worse.
    fn recreate(&mut self, plan: &mut Candidate, set: &[(usize, usize)], factor: f64) -> bool {
        let prices: Vec<Vec<f64>> = plan
            .prices
            .iter()
            .map(|windows| windows.iter().map(|price| price * factor).collect())
            .collect();
        self.solver.price(&prices);
        let before = plan.standing.cost;
        let kept = self.solver.take_all(&mut plan.standing, set);
        for &(class, unit) in set {
            let course = self.solver.respond(&plan.standing, class, unit);
            self.solver.place(&mut plan.standing, class, unit, course);
        }
        let worse = violation(self.solver.problem, &plan.standing.burnt);
        if worse <= plan.violation + 1e-12 && plan.standing.cost < before - 1e-9 {
            plan.violation = worse;
            return true;
        }
        self.solver.put_back(&mut plan.standing, set, kept);
        false
    }
}
