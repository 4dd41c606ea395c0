//! The whole: prices per burnt request are moved until every window's budget holds, then what nobody needs is trimmed.

use super::assignment::Assignment;
use super::bound::Relaxation;
use super::grid::Term;
use super::local::Local;
use super::money::{afford, spent};
use super::parts::size;
use super::shared;
use super::sweep::{Solver, Standing};
use super::{Burnt, Class, LONG_LEASE_S, Problem, Shortfall, StrategicPlan, Unit};

/// How much work a plan may be. Counts, not seconds: the same problem gives the same plan on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Times that prices are moved.
    pub prices: u32,
    /// Turns of all servers at the same prices, at most.
    pub turns: u32,
    /// Passes over all servers for cheaper courses.
    pub trims: u32,
    /// Rounds towards a better bound.
    pub bounds: u32,
    /// Prices at which they are tried again, at most 5.
    pub swaps: u32,
}

impl Effort {
    /// A plan that is made every few minutes and begins with the prices of the last one.
    pub const REPLAN: Self = Self {
        prices: 8,
        turns: 2,
        trims: 2,
        bounds: 16,
        swaps: 2,
    };

    /// A plan from nothing.
    pub const COLD: Self = Self {
        prices: 16,
        turns: 3,
        trims: 3,
        bounds: 40,
        swaps: 4,
    };

    /// When minutes may pass.
    pub const EXHAUSTIVE: Self = Self {
        prices: 60,
        turns: 12,
        trims: 12,
        bounds: 300,
        swaps: 5,
    };
}

/// Problems up to this size are given all the work that they are allowed; see [`size`].
pub(super) const SMALL: usize = 40_000;

impl Effort {
    /// The same for problems of this [`size`]: the larger it is, the less often everything is gone through. No problem takes much more than
    /// in proportion to its size.
    pub(super) fn within(self, size: usize) -> Self {
        let size = size.max(1);
        let part = |work: u32, least: u32| {
            let part = u64::from(work) * SMALL as u64 / size as u64;
            work.min(u32::try_from(part).unwrap_or(u32::MAX).max(least))
        };
        Self {
            prices: part(self.prices, 4),
            turns: part(self.turns, 1),
            trims: part(self.trims, 0),
            bounds: part(self.bounds, self.bounds * 5 / 8),
            swaps: part(self.swaps, 0),
        }
    }
}

/// Where the search for one window's price stands.
#[derive(Clone, Copy, Debug)]
struct Bracket {
    /// Highest price at which the budget did not hold.
    low: f64,
    /// Lowest price at which it did.
    high: f64,
    /// By how much the next price is higher or lower.
    factor: f64,
}

/// A plan on the way.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) violation: f64,
    pub(super) standing: Standing,
    pub(super) prices: Vec<Vec<f64>>,
}

impl Candidate {
    fn holds(&self) -> bool {
        self.violation <= 1e-9
    }

    /// A plan that holds beats one that does not. Of two that do not, the one that is cheaper beats the other, when what they burn beyond
    /// their budgets costs the highest price that is sensible.
    pub(super) fn beats(&self, other: &Self, solver: &Solver) -> bool {
        if self.holds() != other.holds() {
            return self.holds();
        }
        let cost = |plan: &Self| {
            let short = if plan.holds() {
                0.0
            } else {
                excess(solver, &plan.standing.burnt)
            };
            plan.standing.cost + short
        };
        cost(self) < cost(other) - 1e-9
    }
}

/// A good plan for a problem that does not fall apart.
pub(super) fn whole(problem: &Problem, prices: Option<&[Vec<f64>]>, effort: Effort) -> StrategicPlan {
    let mut solver = Solver::new(problem);
    if problem.pools.len() > 1 {
        return shared::plan(&mut solver, effort);
    }
    let prices = start(&solver, prices);
    let mut divided = Relaxation::new(&solver, &prices);
    divided.improve(&mut solver, effort.bounds, f64::INFINITY);
    let mut whole: Vec<usize> = (0..problem.classes.len())
        .filter(|&class| is_long(&problem.classes[class]))
        .collect();
    let few = whole.len() * size(problem) <= SMALL;
    let mut best = search(&mut solver, &divided.prices, &[], effort);
    for &class in whole.iter().filter(|_| few) {
        let fresh = divided.fresh(class);
        for count in [fresh.floor(), fresh.ceil()] {
            let frozen = freeze(problem, &divided, class, count);
            if frozen.is_empty() {
                continue;
            }
            solver.limits[class] = 0;
            let tried = search(&mut solver, &divided.prices, &frozen, effort);
            solver.limits[class] = usize::MAX;
            if tried.beats(&best, &solver) {
                best = tried;
            }
        }
    }
    mend(&mut solver, &mut best, effort.prices, effort.turns);
    Local::new(&mut solver, &whole, effort.swaps).improve(&mut best, effort.trims);
    let forgone = afford(&mut solver, &mut best);
    solver.settle(&mut best.standing);
    let cost = best.standing.cost;
    let mut bound = divided.best;
    if !few {
        whole.clear();
    }
    for &class in &whole {
        if bound >= cost {
            break;
        }
        let leases = divided.leases(class);
        let below = leases.floor();
        if leases - below < 0.02 || below + 1.0 - leases < 0.02 {
            continue;
        }
        let mut side = |count: f64, at_least: bool| {
            let mut side = divided.with(class, count, at_least);
            side.improve(&mut solver, effort.bounds, cost);
            side.best
        };
        let least = side(below, false).min(side(below + 1.0, true));
        bound = bound.max(least);
    }
    StrategicPlan {
        forgone,
        ..finish(&solver, best, bound.clamp(0.0, cost))
    }
}

pub(super) fn is_long(class: &Class) -> bool {
    class.hourly > 0.0 && class.minimum_lease_s >= LONG_LEASE_S
}

pub(super) fn whole_number(count: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number of servers"
    )]
    let count = count as usize;
    count
}

/// So many leases of a class, as the divided optimum has them, for units that are off.
fn freeze(problem: &Problem, divided: &Relaxation, class: usize, count: f64) -> Vec<(usize, usize, Vec<Term>)> {
    taken(problem, class, divided.rounded(class, whole_number(count)))
}

/// The first units that are as these, on their courses.
pub(super) fn taken(
    problem: &Problem,
    class: usize,
    courses: Vec<(Unit, Vec<Term>)>,
) -> Vec<(usize, usize, Vec<Term>)> {
    let mut taken = vec![false; problem.classes[class].units.len()];
    let mut frozen = Vec::new();
    for (unit, terms) in courses {
        let free = |&index: &usize| !taken[index] && problem.classes[class].units[index] == unit;
        if let Some(index) = (0..taken.len()).find(free) {
            taken[index] = true;
            frozen.push((class, index, terms));
        }
    }
    frozen
}

/// Moves prices from `start` on until every budget is just held by servers that take turns.
pub(super) fn search(
    solver: &mut Solver,
    start: &[Vec<f64>],
    frozen: &[(usize, usize, Vec<Term>)],
    effort: Effort,
) -> Candidate {
    let problem = solver.problem;
    let mut prices = start.to_vec();
    let bracket = Bracket {
        low: 0.0,
        high: f64::INFINITY,
        // Pools that share servers take them from each other: their prices move with care.
        factor: if solver.problem.pools.len() > 1 { 1.1 } else { 1.25 },
    };
    let mut brackets: Vec<Vec<Bracket>> = prices.iter().map(|windows| vec![bracket; windows.len()]).collect();
    let mut standing = solver.sunk();
    solver.price(start);
    solver.assign_all(&mut standing, frozen);
    let mut best: Option<Candidate> = None;
    for _ in 0..effort.prices {
        solver.price(&prices);
        for _ in 0..effort.turns {
            if !solver.turn(&mut standing) {
                break;
            }
        }
        let now = Candidate {
            violation: violation(problem, &standing.burnt),
            standing: standing.clone(),
            prices: prices.clone(),
        };
        let moved = adjust(solver, &standing.burnt, &mut prices, &mut brackets);
        if best.as_ref().is_none_or(|best| now.beats(best, solver)) {
            best = Some(now);
        }
        if !moved {
            break;
        }
    }
    best.unwrap_or(Candidate {
        violation: violation(problem, &standing.burnt),
        standing,
        prices,
    })
}

/// Raises the price of every window whose budget does not hold yet, until it does or nothing more is worth its price.
pub(super) fn mend(solver: &mut Solver, best: &mut Candidate, rounds: u32, turns: u32) {
    let mut now = best.clone();
    for _ in 0..rounds {
        let mut raised = false;
        for (pool, demand) in solver.problem.pools.iter().enumerate() {
            for (window, spec) in demand.windows.iter().enumerate() {
                let price = &mut now.prices[pool][window];
                if now.standing.burnt[pool][window] > spec.budget && *price < solver.ceilings[pool] {
                    *price = (*price * 1.5).min(solver.ceilings[pool]);
                    raised = true;
                }
            }
        }
        if !raised || now.violation <= 1e-9 {
            break;
        }
        solver.price(&now.prices);
        for _ in 0..turns {
            if !solver.turn(&mut now.standing) {
                break;
            }
        }
        now.violation = violation(solver.problem, &now.standing.burnt);
        if now.beats(best, solver) {
            *best = now.clone();
        }
    }
}

pub(super) fn finish(solver: &Solver, best: Candidate, bound: f64) -> StrategicPlan {
    let problem = solver.problem;
    let windows = problem.pools.iter().zip(&best.standing.burnt).map(|(pool, burnt)| {
        let of = |(window, &expected): (&super::Window, &f64)| Burnt {
            expected,
            budget: window.budget,
        };
        pool.windows.iter().zip(burnt).map(of).collect()
    });
    let courses = best.standing.courses.iter().enumerate().map(|(class, courses)| {
        let units = &problem.classes[class].units;
        courses
            .iter()
            .zip(units)
            .map(|(course, &unit)| {
                let leg = |term| solver.grid.leg(class, unit, term);
                course.terms.iter().map(leg).collect()
            })
            .collect()
    });
    let assignment = Assignment::of(solver, &best.standing);
    let windows: Vec<Vec<Burnt>> = windows.collect();
    let mut shortfalls: Vec<Shortfall> = Vec::new();
    for (pool, (demand, burnt)) in problem.pools.iter().zip(&windows).enumerate() {
        for (window, burnt) in burnt.iter().enumerate().filter(|(_, burnt)| !burnt.holds()) {
            let burn = burnt.expected - burnt.budget;
            let cost = burn * demand.miss_value;
            shortfalls.push(Shortfall {
                pool,
                window,
                burn,
                cost,
            });
        }
    }
    shortfalls.sort_by_key(|short| (problem.pools[short.pool].rank, short.pool, short.window));
    StrategicPlan {
        courses: courses.collect(),
        serves: assignment.serves,
        windows,
        spending: spent(solver, &best.standing),
        forgone: Vec::new(),
        shortfalls,
        prices: best.prices,
        cost: best.standing.cost,
        pool_costs: assignment.costs,
        bound,
    }
}

fn start(solver: &Solver, prices: Option<&[Vec<f64>]>) -> Vec<Vec<f64>> {
    let pools = solver.problem.pools.iter().zip(&solver.ceilings).enumerate();
    pools
        .map(|(pool, (demand, &ceiling))| {
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
fn adjust(solver: &Solver, burnt: &[Vec<f64>], prices: &mut [Vec<f64>], brackets: &mut [Vec<Bracket>]) -> bool {
    let problem = solver.problem;
    let mut moved = false;
    let growth = if problem.pools.len() > 1 { 1.3 } else { 2.0 };
    for (pool, demand) in problem.pools.iter().enumerate() {
        for (window, spec) in demand.windows.iter().enumerate() {
            let (price, bracket) = (&mut prices[pool][window], &mut brackets[pool][window]);
            let expected = burnt[pool][window];
            let before = *price;
            let ceiling = solver.ceilings[pool];
            let most = ceiling * outbids(problem, pool);
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
                (true, false) => {
                    bracket.factor = libm::pow(bracket.factor, growth);
                    before * bracket.factor
                }
                (false, _) => {
                    bracket.factor = libm::pow(bracket.factor, growth);
                    before / bracket.factor
                }
            }
            .clamp(ceiling * 1e-9, most);
            moved |= (*price - before).abs() > 5e-3 * before;
        }
    }
    moved
}

/// By how much budgets do not hold, as a share of each, summed; what a pool that is served first lacks counts for more than all that those
/// after it lack.
pub(super) fn violation(problem: &Problem, burnt: &[Vec<f64>]) -> f64 {
    problem
        .pools
        .iter()
        .zip(burnt)
        .map(|(pool, burnt)| {
            let short = |(window, expected): (&super::Window, &f64)| {
                ((expected - window.budget) / window.budget.abs().max(1.0)).max(0.0)
            };
            pool.windows.iter().zip(burnt).map(short).sum::<f64>() * weight(pool.rank)
        })
        .sum()
}

/// What is burnt beyond budgets, at the highest price that is sensible; whose pool is served first outbids the others.
fn excess(solver: &Solver, burnt: &[Vec<f64>]) -> f64 {
    let problem = solver.problem;
    let of = |(pool, burnt): (usize, &Vec<f64>)| {
        let short = |(window, expected): (&super::Window, &f64)| (expected - window.budget).max(0.0);
        let short: f64 = problem.pools[pool].windows.iter().zip(burnt).map(short).sum();
        short * solver.ceilings[pool] * outbids(problem, pool)
    };
    burnt.iter().enumerate().map(of).sum()
}

/// Where servers run out, those who are served first outbid the others by so much.
pub(super) fn outbids(problem: &Problem, pool: usize) -> f64 {
    let last = problem.pools.iter().map(|pool| pool.rank).max().unwrap_or(0);
    weight(problem.pools[pool].rank) / weight(last)
}

/// What a pool of a rank counts for; ranks beyond the tenth are one.
fn weight(rank: u32) -> f64 {
    libm::exp2(-3.0 * f64::from(rank.min(10)))
}
