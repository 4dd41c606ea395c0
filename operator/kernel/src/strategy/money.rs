//! Budgets of money: what a plan spends of each, and which servers it does without until none is exceeded.
//!
//! Servers that are not ours to switch off are not here either: what they cost is not planned.
//!
//! A lease's whole minimum is spent when it is bought; what follows it, and energy, as time passes. A server that serves several pools is
//! split between them by time. What is paid for already is not here: it is in what a budget has left.
//!
//! A plan is made as if money were no object, and then does without one term after the other, the one that is missed least for its price
//! first. Which one that is does not depend on how much there is to spend, so that with more money a pool never does worse.

use super::course::Course;
use super::cuts::shorter;
use super::grid::Term;
use super::solve::{Candidate, violation};
use super::sweep::{Solver, Standing};
use super::{Problem, Unit};

/// One budget: pool, index, and the period that lies within the horizon.
#[derive(Clone, Copy, Debug)]
struct Purse {
    pool: usize,
    index: usize,
    from_s: f64,
    to_s: f64,
    left: f64,
}

fn purses(problem: &Problem) -> Vec<Purse> {
    let of = |(pool, demand): (usize, &super::Demand)| -> Vec<Purse> {
        let purse = |(index, budget): (usize, &super::MoneyBudget)| Purse {
            pool,
            index,
            from_s: budget.from_s,
            to_s: budget.to_s,
            left: budget.left,
        };
        demand.budgets.iter().enumerate().map(purse).collect()
    };
    problem.pools.iter().enumerate().flat_map(of).collect()
}

/// Per pool, per budget: what a plan spends of it.
pub(super) fn spent(solver: &Solver, standing: &Standing) -> Vec<Vec<f64>> {
    let mut spent: Vec<Vec<f64>> = solver
        .problem
        .pools
        .iter()
        .map(|pool| vec![0.0; pool.budgets.len()])
        .collect();
    for purse in purses(solver.problem) {
        for (class, courses) in standing.courses.iter().enumerate() {
            for unit in 0..courses.len() {
                spent[purse.pool][purse.index] += of_unit(solver, standing, class, unit, purse);
            }
        }
    }
    spent
}

/// What a unit takes out of a purse.
fn of_unit(solver: &Solver, standing: &Standing, class: usize, unit: usize, purse: Purse) -> f64 {
    let terms = &standing.courses[class][unit].terms;
    terms
        .iter()
        .map(|term| paid(solver, class, unit, term, purse) * share(solver, standing, class, unit, term, purse.pool))
        .sum()
}

/// What is paid for a term within the period of a purse.
fn paid(solver: &Solver, class: usize, unit: usize, term: &Term, purse: Purse) -> f64 {
    let spec = &solver.problem.classes[class];
    if matches!(spec.units[unit], Unit::Fixed { .. }) {
        return 0.0;
    }
    let leg = solver.grid.leg(class, spec.units[unit], term);
    let within = |from_s: f64, to_s: f64| (to_s.min(purse.to_s) - from_s.max(purse.from_s)).max(0.0) / 3_600.0;
    let energy = spec.energy_hourly * within(leg.serves_s, leg.to_s);
    let billed_from_s = match (term.given, spec.units[unit]) {
        (true, Unit::On { paid_until_s, .. }) => paid_until_s.max(0.0),
        (true, _) => f64::INFINITY,
        (false, _) => leg.from_s + spec.minimum_lease_s,
    };
    let minimum = if !term.given && (purse.from_s..purse.to_s).contains(&leg.from_s) {
        spec.hourly * spec.minimum_lease_s / 3_600.0
    } else {
        0.0
    };
    energy + minimum + spec.hourly * within(billed_from_s, leg.to_s)
}

/// The share of a term's serving time that a pool has. One that never serves is everybody's who could use it.
fn share(solver: &Solver, standing: &Standing, class: usize, unit: usize, term: &Term, pool: usize) -> f64 {
    if solver.problem.pools.len() == 1 {
        return 1.0;
    }
    let users = &solver.users[class];
    let (mut mine, mut all) = (0.0, 0.0);
    for (slot, part) in term.serves.slots() {
        let length = part * solver.problem.length_s(slot);
        let serves = standing.pool(class, unit, slot);
        if users.iter().any(|&(user, _)| user == serves) {
            all += length;
            mine += if serves == pool { length } else { 0.0 };
        }
    }
    if all > 0.0 {
        mine / all
    } else if users.iter().any(|&(user, _)| user == pool) {
        1.0 / users.len() as f64
    } else {
        0.0
    }
}

/// Does without servers until no budget is exceeded by what is not paid for already. Per pool: what those would have cost.
pub(super) fn afford(solver: &mut Solver, plan: &mut Candidate) -> Vec<f64> {
    let purses = purses(solver.problem);
    let mut forgone = vec![0.0; solver.problem.pools.len()];
    // To do without a part of a term that served another pool leaves more of it to the first: until nothing changes any more.
    let mut changed = !purses.is_empty();
    while changed {
        changed = false;
        for &purse in &purses {
            let mut left = purse.left;
            for (class, courses) in plan.standing.courses.iter().enumerate() {
                for unit in 0..courses.len() {
                    left -= of_unit(solver, &plan.standing, class, unit, purse);
                }
            }
            while left < -1e-9 {
                let Some(saved) = do_without(solver, &mut plan.standing, purse) else {
                    break;
                };
                left += saved;
                forgone[purse.pool] += saved;
                changed = true;
            }
        }
    }
    plan.violation = violation(solver.problem, &plan.standing.burnt);
    forgone
}

/// A course that pays for less.
struct Cut {
    missed_per_money: f64,
    saved: f64,
    class: usize,
    unit: usize,
    course: Course,
}

/// Does without what is missed least for its price; what that saves.
fn do_without(solver: &mut Solver, standing: &mut Standing, purse: Purse) -> Option<f64> {
    let mut least: Option<Cut> = None;
    for class in 0..standing.courses.len() {
        if !solver.users[class].iter().any(|&(user, _)| user == purse.pool) {
            continue;
        }
        for unit in 0..standing.courses[class].len() {
            let before = of_unit(solver, standing, class, unit, purse);
            if before <= 1e-9 {
                continue;
            }
            let kind = solver.problem.classes[class].units[unit];
            for terms in shorter(&solver.grid, class, kind, &standing.courses[class][unit].terms) {
                let burnt: f64 = standing.burnt.iter().flatten().sum();
                let cost = solver.grid.total(class, kind, &terms);
                let course = Course { terms, cost };
                let kept = solver.replace(standing, class, unit, course.clone());
                let missed = standing.burnt.iter().flatten().sum::<f64>() - burnt;
                let saved = before - of_unit(solver, standing, class, unit, purse);
                solver.replace(standing, class, unit, kept);
                let missed_per_money = missed / saved;
                if saved > 1e-9
                    && least
                        .as_ref()
                        .is_none_or(|least| missed_per_money < least.missed_per_money)
                {
                    least = Some(Cut {
                        missed_per_money,
                        saved,
                        class,
                        unit,
                        course,
                    });
                }
            }
        }
    }
    let cut = least?;
    solver.replace(standing, cut.class, cut.unit, cut.course);
    Some(cut.saved)
}
