//! The whole: prices per burnt request are moved until every window's budget holds, then what nobody needs is trimmed.

use super::assignment::Assignment;
use super::bound;
use super::defer::defer;
use super::sweep::{Solver, Standing};
use super::{Burnt, Problem, StrategicPlan, Unit};

/// How much work a plan may be. Counts, not seconds: the same problem gives the same plan on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Times that prices are moved.
    pub prices: u32,
    /// Turns of all servers at the same prices, at most.
    pub turns: u32,
    /// Passes of trimming.
    pub trims: u32,
    /// Steps towards a better bound.
    pub bounds: u32,
}

impl Effort {
    /// A plan that is made every few minutes and begins with the prices of the last one.
    pub const REPLAN: Self = Self {
        prices: 10,
        turns: 3,
        trims: 2,
        bounds: 24,
    };

    /// A plan from nothing.
    pub const COLD: Self = Self {
        prices: 24,
        turns: 4,
        trims: 3,
        bounds: 60,
    };

    /// When minutes may pass.
    pub const EXHAUSTIVE: Self = Self {
        prices: 60,
        turns: 12,
        trims: 12,
        bounds: 600,
    };
}

/// Where the search for one window's price stands.
#[derive(Clone, Copy, Debug)]
struct Bracket {
    /// Highest price at which the budget did not hold.
    low: f64,
    /// Lowest price at which it did.
    high: f64,
}

/// A good plan for `problem`, beginning with the `prices` of an earlier one if they fit.
pub fn solve(problem: &Problem, prices: Option<&[Vec<f64>]>, effort: Effort) -> StrategicPlan {
    let mut solver = Solver::new(problem);
    let ceiling = ceiling(problem);
    let mut prices = start(problem, prices, ceiling);
    let mut brackets: Vec<Vec<Bracket>> = prices
        .iter()
        .map(|windows| {
            let bracket = Bracket {
                low: 0.0,
                high: f64::INFINITY,
            };
            vec![bracket; windows.len()]
        })
        .collect();
    let mut standing = solver.sunk(&prices);
    let mut best: Option<(f64, f64, Standing, Vec<Vec<f64>>)> = None;
    for _ in 0..effort.prices {
        for _ in 0..effort.turns {
            if !solver.turn(&mut standing, &prices) {
                break;
            }
        }
        let burnt = solver.burnt(&standing);
        let (violation, cost) = (violation(problem, &burnt), cost(&solver, &standing));
        let better = best.as_ref().is_none_or(|(least, cheapest, _, _)| {
            violation < *least - 1e-9 || (violation <= *least + 1e-9 && cost < *cheapest)
        });
        if better {
            best = Some((violation, cost, standing.clone(), prices.clone()));
        }
        if !adjust(problem, &burnt, &mut prices, &mut brackets, ceiling) {
            break;
        }
    }
    let (mut standing, prices) = match best {
        Some((_, _, standing, prices)) => (standing, prices),
        None => (standing, prices),
    };
    for _ in 0..effort.trims {
        if !trim(&mut solver, &mut standing) {
            break;
        }
    }
    defer(&solver, &mut standing);
    let cost = cost(&solver, &standing);
    let bound = bound::bound(&mut solver, &standing, &prices, cost, effort.bounds);
    let windows = problem
        .pools
        .iter()
        .zip(solver.burnt(&standing))
        .map(|(pool, burnt)| {
            let of = |(window, expected): (&super::Window, f64)| Burnt {
                expected,
                budget: window.budget,
            };
            pool.windows.iter().zip(burnt).map(of).collect()
        })
        .collect();
    let assignment = Assignment::of(&solver, &standing);
    StrategicPlan {
        courses: standing
            .courses
            .iter()
            .map(|class| class.iter().map(|course| course.legs.clone()).collect())
            .collect(),
        serves: assignment.serves,
        windows,
        prices,
        cost,
        pool_costs: assignment.costs,
        bound,
    }
}

/// The highest sensible price: a whole lease for a twentieth of all requests. Of a window that cannot be saved no more is bought.
fn ceiling(problem: &Problem) -> f64 {
    let lease = problem
        .classes
        .iter()
        .filter(|class| class.capacity.iter().any(Option::is_some))
        .map(|class| {
            (class.hourly + class.energy_hourly) * (class.minimum_lease_s / 3_600.0).max(1.0) + class.switch_cost
        })
        .fold(0.01, f64::max);
    20.0 * lease / requests(problem).max(1.0)
}

fn requests(problem: &Problem) -> f64 {
    let of = |slot: usize, arrivals: &[(f64, f64)]| -> f64 {
        let rate: f64 = arrivals.iter().map(|(probability, rate)| probability * rate).sum();
        rate * problem.length_s(slot)
    };
    problem
        .pools
        .iter()
        .flat_map(|pool| pool.arrivals.iter().enumerate())
        .map(|(slot, arrivals)| of(slot, arrivals))
        .sum()
}

fn start(problem: &Problem, prices: Option<&[Vec<f64>]>, ceiling: f64) -> Vec<Vec<f64>> {
    problem
        .pools
        .iter()
        .enumerate()
        .map(|(pool, demand)| {
            (0..demand.windows.len())
                .map(|window| {
                    let before = prices.and_then(|prices| prices.get(pool)?.get(window)).copied();
                    before
                        .filter(|price| *price > 0.0)
                        // From below nothing is bought, and the way up from there would take longer than a plan may.
                        .map_or(ceiling / 1_000.0, |price| price.clamp(ceiling / 10_000.0, ceiling))
                })
                .collect()
        })
        .collect()
}

/// Moves every price towards where its budget is just spent. False if nothing is left to move.
fn adjust(
    problem: &Problem,
    burnt: &[Vec<f64>],
    prices: &mut [Vec<f64>],
    brackets: &mut [Vec<Bracket>],
    ceiling: f64,
) -> bool {
    let mut moved = false;
    for (pool, demand) in problem.pools.iter().enumerate() {
        for (window, spec) in demand.windows.iter().enumerate() {
            let (price, bracket) = (&mut prices[pool][window], &mut brackets[pool][window]);
            let expected = burnt[pool][window];
            let before = *price;
            if expected > spec.budget {
                bracket.low = bracket.low.max(before);
                // Windows share servers: what held at a price may hold no more when another window gives its servers up.
                if bracket.high <= before {
                    bracket.high = f64::INFINITY;
                }
            } else {
                bracket.high = bracket.high.min(before);
                if bracket.low >= before {
                    bracket.low = 0.0;
                }
            }
            *price = match (bracket.low > 0.0, bracket.high.is_finite()) {
                (true, true) => (bracket.low * bracket.high).sqrt(),
                (true, false) => before * 4.0,
                (false, _) => before / 4.0,
            }
            .clamp(ceiling * 1e-9, ceiling);
            moved |= (*price - before).abs() > 1e-3 * before;
        }
    }
    moved
}

/// By how much budgets do not hold, as a share of each, summed.
fn violation(problem: &Problem, burnt: &[Vec<f64>]) -> f64 {
    problem
        .pools
        .iter()
        .zip(burnt)
        .flat_map(|(pool, burnt)| pool.windows.iter().zip(burnt))
        .map(|(window, &expected)| ((expected - window.budget) / window.budget.abs().max(1.0)).max(0.0))
        .sum()
}

/// Money: courses and misses.
pub(super) fn cost(solver: &Solver, standing: &Standing) -> f64 {
    let courses: f64 = standing.courses.iter().flatten().map(|course| course.cost).sum();
    let misses: f64 = solver
        .problem
        .pools
        .iter()
        .enumerate()
        .filter(|(_, pool)| pool.miss_value > 0.0)
        .map(|(index, pool)| {
            let burn: f64 = (0..solver.problem.slots())
                .map(|slot| solver.burn(standing, index, slot))
                .sum();
            burn * pool.miss_value
        })
        .sum();
    courses + misses
}

/// Gives every server the chance of a cheaper course that keeps all budgets, dearest first. False if none has one.
fn trim(solver: &mut Solver, standing: &mut Standing) -> bool {
    let problem = solver.problem;
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (class, courses) in standing.courses.iter().enumerate() {
        for (unit, course) in courses.iter().enumerate() {
            let fixed = matches!(problem.classes[class].units[unit], Unit::Fixed { .. });
            if !fixed && course.cost > 0.0 {
                open.push((class, unit));
            }
        }
    }
    open.sort_by(|&(left_class, left), &(right_class, right)| {
        let cost = |class: usize, unit: usize| standing.courses[class][unit].cost;
        cost(right_class, right)
            .total_cmp(&cost(left_class, left))
            .then((left_class, left).cmp(&(right_class, right)))
    });
    let mut burnt = solver.burnt(standing);
    let mut changed = false;
    for (class, unit) in open {
        let before_cost = cost(solver, standing);
        let mut allowed = violation(problem, &burnt);
        let mut kept = standing.courses[class][unit].clone();
        for candidate in solver.shorter(class, unit, &kept) {
            solver.take(standing, class, unit);
            solver.replace(standing, class, unit, candidate.clone());
            let now = solver.burnt(standing);
            let worse = violation(problem, &now);
            if worse <= allowed + 1e-12 && cost(solver, standing) < before_cost - 1e-9 {
                allowed = allowed.min(worse);
                burnt = now;
                kept = candidate;
                changed = true;
                break;
            }
            solver.take(standing, class, unit);
            solver.replace(standing, class, unit, kept.clone());
        }
    }
    changed
}
