//! How long a strategic plan takes, by pools × groups: from nothing, and again with a hundredth of the pools changed and the last prices.
//!
//! The peer is the method of most autoscalers: first-fit, slot by slot, without a look at leases; its times are among the others, and what it
//! would cost is printed beside what the plans cost, with their bounds and gaps.

#![allow(missing_docs)]
// It is not the kernel that prints here.
#![allow(clippy::disallowed_macros)]

mod problems;

use pomarium_kernel::strategy::{Effort, Problem, StrategicPlan, solve};

use self::problems::many::{SIZES, Size};

fn main() {
    for size in SIZES {
        let problem = size.problem(false);
        let plan = solve(&problem, None, Effort::COLD);
        let peer = first_fit_cost(&problem);
        println!(
            "{size}: cost {:.0}, {:.2} of first-fit's; gap {:.1} %; windows that do not hold: {} of {}",
            plan.cost,
            plan.cost / peer,
            plan.gap() * 100.0,
            plan.shortfalls.len(),
            problem.pools.len(),
        );
    }
    divan::main();
}

/// Servers per slot and class until nobody is beyond 0.85 of saturation, in the order of the groups.
fn fitted(problem: &Problem) -> Vec<Vec<usize>> {
    let slot = |slot: usize| {
        let mut used = vec![0_usize; problem.classes.len()];
        for (pool, demand) in problem.pools.iter().enumerate() {
            let mut lacking = demand.arrivals[slot][1].1 / 0.85;
            for (class, used) in problem.classes.iter().zip(&mut used) {
                let Some(each) = class.capacity[pool] else { continue };
                while lacking > 0.0 && *used < class.units.len() {
                    lacking -= each;
                    *used += 1;
                }
            }
        }
        used
    };
    (0..problem.slots()).map(slot).collect()
}

/// What that costs when every lease is paid to the end of its minimum, and what is paid is used first.
fn first_fit_cost(problem: &Problem) -> f64 {
    let mut cost = 0.0;
    let fitted = fitted(problem);
    for (index, class) in problem.classes.iter().enumerate() {
        // When the minimum of each server that is on ends.
        let mut on: Vec<f64> = Vec::new();
        for (slot, used) in fitted.iter().enumerate() {
            let (from_s, length_s) = (problem.boundaries_s[slot], problem.length_s(slot));
            on.sort_by(f64::total_cmp);
            while on.len() > used[index] && on.first().is_some_and(|end| *end <= from_s) {
                on.remove(0);
            }
            while on.len() < used[index] {
                on.push(from_s + class.minimum_lease_s);
                cost += class.switch_cost;
            }
            cost += (class.hourly + class.energy_hourly) * on.len() as f64 * length_s / 3_600.0;
        }
    }
    cost
}

#[divan::bench(args = SIZES, sample_count = 3, sample_size = 1)]
fn cold(bencher: divan::Bencher, size: Size) {
    let problem = size.problem(false);
    bencher.bench_local(|| solve(&problem, None, Effort::COLD));
}

#[divan::bench(args = SIZES, sample_count = 3, sample_size = 1)]
fn again_with_a_hundredth_changed(bencher: divan::Bencher, size: Size) {
    let before: StrategicPlan = solve(&size.problem(false), None, Effort::COLD);
    let problem = size.problem(true);
    bencher.bench_local(|| solve(&problem, Some(&before.prices), Effort::REPLAN));
}

#[divan::bench(args = SIZES, sample_count = 3, sample_size = 1)]
fn first_fit(bencher: divan::Bencher, size: Size) {
    let problem = size.problem(false);
    bencher.bench_local(|| fitted(&problem));
}
