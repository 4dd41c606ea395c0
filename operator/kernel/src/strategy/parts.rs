//! A problem falls apart where pools share nothing: no class that both may use, and no site whose power is limited. Its parts are solved each for
//! itself, which is as good and takes less time.

use super::alike::Merged;
use super::solve::{Effort, whole};
use super::{Problem, StrategicPlan, Unit};

/// Pools and classes of a part, by their numbers in the whole.
#[derive(Debug, Default)]
struct Part {
    pools: Vec<usize>,
    classes: Vec<usize>,
}

/// A good plan for `problem`, beginning with the `prices` of an earlier one if they fit.
pub fn solve(problem: &Problem, prices: Option<&[Vec<f64>]>, effort: Effort) -> StrategicPlan {
    let parts = parts(problem);
    if parts.len() < 2 {
        let merged = Merged::of(problem.clone());
        let plan = whole(&merged.problem, prices, effort.within(size(&merged.problem)));
        return merged.split(plan, problem.classes.iter().map(|class| class.units.len()));
    }
    let mut plan = StrategicPlan {
        courses: vec![Vec::new(); problem.classes.len()],
        serves: vec![Vec::new(); problem.classes.len()],
        windows: vec![Vec::new(); problem.pools.len()],
        prices: vec![Vec::new(); problem.pools.len()],
        cost: 0.0,
        spending: vec![Vec::new(); problem.pools.len()],
        forgone: vec![0.0; problem.pools.len()],
        shortfalls: Vec::new(),
        pool_costs: vec![0.0; problem.pools.len()],
        bound: 0.0,
    };
    let merged: Vec<Merged> = parts.iter().map(|part| Merged::of(part.cut(problem))).collect();
    let effort = effort.within(merged.iter().map(|part| size(&part.problem)).sum());
    for (part, merged) in parts.iter().zip(&merged) {
        let of = |pool: &usize| prices.and_then(|prices| prices.get(*pool)).cloned().unwrap_or_default();
        let start: Option<Vec<Vec<f64>>> = prices.map(|_| part.pools.iter().map(of).collect());
        let found = whole(&merged.problem, start.as_deref(), effort);
        let units = part.classes.iter().map(|&class| problem.classes[class].units.len());
        part.join(&mut plan, merged.split(found, units));
    }
    plan.bound = plan.bound.min(plan.cost);
    plan.shortfalls
        .sort_by_key(|short| (problem.pools[short.pool].rank, short.pool, short.window));
    plan
}

impl Part {
    /// The part as a problem of its own.
    fn cut(&self, problem: &Problem) -> Problem {
        let class = |&class: &usize| {
            let spec = &problem.classes[class];
            super::Class {
                capacity: self.pools.iter().map(|&pool| spec.capacity[pool]).collect(),
                units: spec.units.clone(),
                ..*spec
            }
        };
        Problem {
            boundaries_s: problem.boundaries_s.clone(),
            classes: self.classes.iter().map(class).collect(),
            pools: self.pools.iter().map(|&pool| problem.pools[pool].clone()).collect(),
            power_limits: problem.power_limits.clone(),
            overhang: problem.overhang,
            change_hourly: problem.change_hourly,
        }
    }

    /// Puts the plan of the part where it belongs.
    fn join(&self, plan: &mut StrategicPlan, part: StrategicPlan) {
        plan.cost += part.cost;
        plan.bound += part.bound;
        for ((&class, courses), serves) in self.classes.iter().zip(part.courses).zip(part.serves) {
            plan.courses[class] = courses;
            let named = |pool: Option<usize>| pool.and_then(|pool| self.pools.get(pool).copied());
            plan.serves[class] = serves.into_iter().map(named).collect();
        }
        let figures = part
            .windows
            .into_iter()
            .zip(part.prices)
            .zip(part.spending)
            .zip(part.pool_costs)
            .zip(part.forgone);
        for (&pool, ((((windows, prices), spending), cost), forgone)) in self.pools.iter().zip(figures) {
            plan.windows[pool] = windows;
            plan.prices[pool] = prices;
            plan.spending[pool] = spending;
            plan.pool_costs[pool] = cost;
            plan.forgone[pool] = forgone;
        }
        plan.shortfalls
            .extend(part.shortfalls.into_iter().map(|short| super::Shortfall {
                pool: self.pools[short.pool],
                ..short
            }));
    }
}

/// Sets of numbers that are joined.
struct Sets(Vec<usize>);

impl Sets {
    fn of(&mut self, mut item: usize) -> usize {
        while self.0[item] != item {
            self.0[item] = self.0[self.0[item]];
            item = self.0[item];
        }
        item
    }

    /// The lower one stands for both.
    fn join(&mut self, left: usize, right: usize) {
        let (left, right) = (self.of(left), self.of(right));
        self.0[left.max(right)] = left.min(right);
    }
}

/// In the order of their first pools. A class that no pool may use is everybody's and makes no difference: it is in the first part, unless it draws
/// power where that is limited.
fn parts(problem: &Problem) -> Vec<Part> {
    let (pools, classes) = (problem.pools.len(), problem.classes.len());
    let sites = problem.power_limits.len();
    // Pools, then classes, then sites.
    let mut sets = Sets((0..pools + classes + sites).collect());
    for (class, spec) in problem.classes.iter().enumerate() {
        for (pool, _) in spec.capacity.iter().enumerate().filter(|(_, each)| each.is_some()) {
            sets.join(pool, pools + class);
        }
        if problem.power_limits.get(spec.site).is_some_and(Option::is_some) && spec.busy_watts > 0.0 {
            sets.join(pools + class, pools + classes + spec.site);
        }
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut part_of = vec![usize::MAX; pools + classes + sites];
    for pool in 0..pools {
        let set = sets.of(pool);
        if part_of[set] == usize::MAX {
            part_of[set] = parts.len();
            parts.push(Part::default());
        }
        parts[part_of[set]].pools.push(pool);
    }
    for class in 0..classes {
        let part = part_of[sets.of(pools + class)];
        if let Some(part) = parts.get_mut(if part == usize::MAX { 0 } else { part }) {
            part.classes.push(class);
        }
    }
    parts
}

/// Checks of pools × slots that one turn of all servers takes, about: what a problem's size is measured in.
pub(super) fn size(problem: &Problem) -> usize {
    let of = |class: &super::Class| {
        let kinds = class
            .units
            .iter()
            .filter(|unit| !matches!(unit, Unit::Fixed { .. }))
            .count();
        class.capacity.iter().flatten().count() + kinds
    };
    let classes: usize = problem.classes.iter().map(of).sum();
    (classes + 8 * problem.pools.len()) * problem.slots()
}
