//! Pools that share servers: prices of a market (see [`super::market`]) say what to begin with, servers take turns while prices follow the
//! budgets, and pools that are still short are given servers of their own.

use super::course::Course;
use super::grid::Term;
use super::local::Local;
use super::market::Market;
use super::money::afford;
use super::parts::size;
use super::solve::{Candidate, Effort, SMALL, finish, is_long, mend, outbids, search, taken, violation, whole_number};
use super::sweep::Solver;
use super::{StrategicPlan, Unit};

/// A good plan for pools that share servers.
pub(super) fn plan(solver: &mut Solver, effort: Effort) -> StrategicPlan {
    let problem = solver.problem;
    let mut market = Market::new(solver);
    market.improve(solver, effort.bounds);
    let mut frozen = Vec::new();
    for class in 0..problem.classes.len() {
        let count = whole_number(market.fresh(class).round());
        frozen.extend(taken(problem, class, market.rounded(class, count)));
    }
    let whole: Vec<usize> = (0..problem.classes.len())
        .filter(|&class| is_long(&problem.classes[class]))
        .collect();
    // One that is cheap and nearly holds may be better, once it does, than one that holds already.
    let complete = |solver: &mut Solver, mut plan: Candidate| {
        mend(solver, &mut plan, effort.bounds / 4, effort.turns);
        rescue(solver, &mut plan);
        Local::new(solver, &whole, effort.swaps).improve(&mut plan, effort.trims);
        plan
    };
    let found = follow(solver, &market.prices, &frozen, effort.bounds / 2);
    let mut best = complete(solver, found);
    if size(problem) <= SMALL {
        for frozen in [&frozen[..], &[]] {
            let found = search(solver, &market.prices, frozen, effort);
            let tried = complete(solver, found);
            if tried.beats(&best, solver) {
                best = tried;
            }
        }
    }
    let forgone = afford(solver, &mut best);
    solver.settle(&mut best.standing);
    let cost = best.standing.cost;
    StrategicPlan {
        forgone,
        ..finish(solver, best, market.best.clamp(0.0, cost))
    }
}

/// Servers take turns while prices follow the budgets, a little at a time.
fn follow(solver: &mut Solver, start: &[Vec<f64>], frozen: &[(usize, usize, Vec<Term>)], rounds: u32) -> Candidate {
    let problem = solver.problem;
    let mut prices = start.to_vec();
    for (pool, prices) in prices.iter_mut().enumerate() {
        let ceiling = solver.ceilings[pool];
        for price in prices {
            *price = if *price < ceiling {
                price.max(ceiling / 10_000.0)
            } else {
                outbids(problem, pool) * ceiling
            };
        }
    }
    solver.price(&prices);
    let mut standing = solver.sunk();
    solver.assign_all(&mut standing, frozen);
    let mut now = Candidate {
        violation: violation(problem, &standing.burnt),
        standing,
        prices,
    };
    let mut best = now.clone();
    let mut pace = FOLLOW_PACE;
    for _ in 0..rounds {
        solver.price(&now.prices);
        solver.turn(&mut now.standing);
        now.violation = violation(problem, &now.standing.burnt);
        if now.beats(&best, solver) {
            best = now.clone();
        }
        for (pool, demand) in problem.pools.iter().enumerate() {
            let ceiling = solver.ceilings[pool];
            for (window, spec) in demand.windows.iter().enumerate() {
                let ratio = if spec.budget > 0.0 {
                    now.standing.burnt[pool][window] / spec.budget
                } else {
                    3.0
                };
                let price = &mut now.prices[pool][window];
                *price = (*price * libm::pow((ratio * MARGIN).clamp(0.3, 20.0), pace))
                    .clamp(ceiling * 1e-9, ceiling * outbids(problem, pool));
            }
        }
        pace *= FOLLOW_SLOWER;
    }
    best
}

/// How fast prices follow at first, and by how much slower from round to round.
const FOLLOW_PACE: f64 = 0.8;
const FOLLOW_SLOWER: f64 = 0.95;

/// Servers are whole: prices aim at a little less burn than budgets allow.
const MARGIN: f64 = 1.1;

/// Adds servers for pools whose windows do not hold yet, each for one pool alone, at a price that rises until they do.
fn rescue(solver: &mut Solver, best: &mut Candidate) {
    let problem = solver.problem;
    let mut order: Vec<usize> = (0..problem.pools.len()).collect();
    order.sort_by_key(|&pool| problem.pools[pool].rank);
    for pool in order {
        let users: Vec<(usize, f64)> = (0..problem.classes.len())
            .filter_map(|class| Some((class, problem.classes[class].capacity[pool]?)))
            .collect();
        for (window, spec) in problem.pools[pool].windows.iter().enumerate() {
            let mut price = best.prices[pool][window].max(solver.ceilings[pool] * 1e-3);
            while best.standing.burnt[pool][window] > spec.budget && price < solver.ceilings[pool] {
                let mut most: Option<(f64, usize, usize, Course)> = None;
                for &(class, each) in &users {
                    let idle = |unit: &usize| {
                        let off = matches!(problem.classes[class].units[*unit], Unit::Off { .. });
                        off && best.standing.courses[class][*unit].terms.is_empty()
                    };
                    let Some(unit) = (0..problem.classes[class].units.len()).find(idle) else {
                        continue;
                    };
                    let (course, gain) = solver.respond_to(&best.standing, class, unit, (pool, each), price);
                    if gain > 1e-9 && most.as_ref().is_none_or(|(most, ..)| gain > *most) {
                        most = Some((gain, class, unit, course));
                    }
                }
                let Some((_, class, unit, course)) = most else {
                    price *= DEARER;
                    continue;
                };
                solver.serve(pool);
                solver.place(&mut best.standing, class, unit, course);
            }
            best.prices[pool][window] = price.min(solver.ceilings[pool]);
        }
    }
    best.violation = violation(problem, &best.standing.burnt);
}

/// By how much a burnt request costs more when at its price nothing is worth adding.
const DEARER: f64 = 1.2;
