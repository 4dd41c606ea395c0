//! A lower bound by Lagrangian relaxation.
//!
//! Let serving capacity have a price w per request/s, and burnt requests a price π. Then servers no longer depend on each
//! other, nor slots: every server takes the course that earns most, and every slot buys the capacity that it wants. The sum of
//! what both then cost, less what the error budgets are worth, is never more than the cost of any plan that keeps them, whatever the
//! prices (Geoffrion, "Lagrangean relaxation for integer programming", 1974). Prices are moved along the subgradient: towards where
//! servers and slots agree, and budgets are just spent; steps by Polyak's rule.
//!
//! Losing a server or a site is left out, which only lowers the bound.

use super::course::Course;
use super::sweep::{Solver, Standing};
use super::{Problem, Unit};

/// Prices, and what they yield.
struct Relaxed {
    /// Per pool, per slot: of a request/s of capacity.
    worth: Vec<Vec<f64>>,
    /// Per pool, per window: of a burnt request.
    prices: Vec<Vec<f64>>,
    /// The bound.
    value: f64,
    /// Per pool, per slot: capacity wanted less capacity served.
    gradient: Vec<Vec<f64>>,
}

/// The best bound found in `steps` steps from the marginal values of `standing`, which costs `cost`.
pub(super) fn bound(solver: &mut Solver, standing: &Standing, prices: &[Vec<f64>], cost: f64, steps: u32) -> f64 {
    let worth = marginal(solver, standing, prices);
    let mut at = relax(solver, worth, prices.to_vec());
    // First how dear all of it is: the marginal values of a plan of whole servers can be far above what a smooth one would have.
    for factor in SCALES {
        let scaled = at.scaled(factor);
        let scaled = relax(solver, scaled.0, scaled.1);
        if scaled.value > at.value {
            at = scaled;
        }
    }
    let mut best = at.value;
    let mut direction = at.gradient.clone();
    let (mut stride, mut since) = (0.7, 0);
    for step in 0..steps {
        if best >= cost {
            break;
        }
        if step % RESCALE_EVERY == RESCALE_EVERY - 1 {
            for factor in [1.04, 1.0 / 1.04] {
                let scaled = at.scaled(factor);
                let scaled = relax(solver, scaled.0, scaled.1);
                if scaled.value > at.value {
                    at = scaled;
                    break;
                }
            }
        } else {
            let length: f64 = direction.iter().flatten().map(|excess| excess * excess).sum();
            if length <= 0.0 {
                break;
            }
            let by = stride * (cost - at.value) / length;
            let moved = |(worth, direction): (&Vec<f64>, &Vec<f64>)| {
                worth
                    .iter()
                    .zip(direction)
                    .map(|(worth, excess)| (worth + by * excess).max(0.0))
                    .collect()
            };
            let worth = at.worth.iter().zip(&direction).map(moved).collect();
            at = relax(solver, worth, at.prices);
        }
        // What the last steps agreed on counts on: subgradients zigzag (Camerini, Fratta and Maffioli, 1975).
        for (direction, gradient) in direction.iter_mut().flatten().zip(at.gradient.iter().flatten()) {
            *direction = gradient + DEFLECTION * *direction;
        }
        if at.value > best {
            best = at.value;
            since = 0;
        } else {
            since += 1;
            if since >= PATIENCE {
                stride *= 0.7;
                since = 0;
            }
        }
    }
    best.clamp(0.0, cost)
}

/// Factors by which the first prices are tried.
const SCALES: [f64; 6] = [0.25, 0.5, 0.7, 0.84, 0.92, 1.1];

/// How often all prices are scaled together instead of moved one by one.
const RESCALE_EVERY: u32 = 6;

/// How much of the last direction is kept.
const DEFLECTION: f64 = 0.5;

/// Steps without a better bound before they become smaller.
const PATIENCE: u32 = 4;

impl Relaxed {
    fn scaled(&self, factor: f64) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let scale = |of: &Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            of.iter()
                .map(|values| values.iter().map(|value| value * factor).collect())
                .collect()
        };
        (scale(&self.worth), scale(&self.prices))
    }
}

/// What the relaxed problem costs at these prices.
fn relax(solver: &mut Solver, worth: Vec<Vec<f64>>, prices: Vec<Vec<f64>>) -> Relaxed {
    let problem = solver.problem;
    let (pools, slots) = (problem.pools.len(), problem.slots());
    let mut gradient = vec![vec![0.0; slots]; pools];
    let mut value = respond(solver, &worth, &mut gradient);
    for pool in 0..pools {
        let most = total(problem, pool);
        for slot in 0..slots {
            let window = solver.window[pool][slot];
            let price = problem.pools[pool].miss_value + window.map_or(0.0, |window| prices[pool][window]);
            let (least, wants) = solver.outcomes[pool][slot].least(price, worth[pool][slot], most);
            value += least;
            gradient[pool][slot] = wants - gradient[pool][slot];
        }
        for (price, window) in prices[pool].iter().zip(&problem.pools[pool].windows) {
            value -= price * window.budget;
        }
    }
    Relaxed {
        worth,
        prices,
        value,
        gradient,
    }
}

/// What a request/s of capacity is worth where `standing` is.
fn marginal(solver: &Solver, standing: &Standing, prices: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let problem = solver.problem;
    let unit = smallest(problem);
    (0..problem.pools.len())
        .map(|pool| {
            (0..problem.slots())
                .map(|slot| {
                    let window = solver.window[pool][slot];
                    let price = problem.pools[pool].miss_value + window.map_or(0.0, |window| prices[pool][window]);
                    let have = solver.capacity(standing, pool, slot);
                    let outcomes = &solver.outcomes[pool][slot];
                    price * (outcomes.at(have - unit / 2.0) - outcomes.at(have + unit / 2.0)) / unit
                })
                .collect()
        })
        .collect()
}

/// What all servers cost, less what they earn, when each takes its best course; with the capacity that they then give.
fn respond(solver: &mut Solver, worth: &[Vec<f64>], served: &mut [Vec<f64>]) -> f64 {
    let problem = solver.problem;
    let slots = problem.slots();
    for pool in served.iter_mut() {
        pool.fill(0.0);
    }
    let mut total = 0.0;
    let mut values = vec![0.0; slots];
    let mut chosen = vec![0; slots];
    for (index, class) in problem.classes.iter().enumerate() {
        for slot in 0..slots {
            let (mut best, mut at) = (0.0, 0);
            for (pool, capacity) in class.capacity.iter().enumerate() {
                let value = capacity.map_or(0.0, |capacity| capacity * worth[pool][slot]);
                if value > best {
                    (best, at) = (value, pool);
                }
            }
            values[slot] = best;
            chosen[slot] = at;
        }
        let mut last: Option<(Unit, Course)> = None;
        for &unit in &class.units {
            let course = match last.take() {
                Some((kind, course)) if kind == unit => course,
                _ => solver.best(index, unit, &values),
            };
            total += course.net;
            for leg in &course.legs {
                for slot in 0..slots {
                    let share = leg.share(problem.boundaries_s[slot], problem.boundaries_s[slot + 1]);
                    if share > 0.0 {
                        served[chosen[slot]][slot] += share * class.capacity[chosen[slot]].unwrap_or(0.0);
                    }
                }
            }
            last = Some((unit, course));
        }
    }
    total
}

fn total(problem: &Problem, pool: usize) -> f64 {
    problem
        .classes
        .iter()
        .map(|class| class.capacity[pool].unwrap_or(0.0) * class.units.len() as f64)
        .sum()
}

fn smallest(problem: &Problem) -> f64 {
    let capacities = problem.classes.iter().flat_map(|class| class.capacity.iter().flatten());
    let least = capacities
        .copied()
        .filter(|capacity| *capacity > 0.0)
        .fold(f64::INFINITY, f64::min);
    if least.is_finite() { least } else { 1.0 }
}
