//! How long a strategic plan takes, by pools × groups: from nothing, and again with a hundredth of the demand changed and the last prices.
//!
//! The ratio is against the method of most autoscalers: first-fit, slot by slot, without leases. Gaps are printed with the names.

#![allow(missing_docs)]
// It is not the kernel that prints here.
#![allow(clippy::disallowed_macros)]

mod problems;

use pomarium_kernel::strategy::{Effort, StrategicPlan, solve};

use self::problems::many::{SIZES, Size};

fn main() {
    for size in SIZES {
        let problem = size.problem(false);
        let plan = solve(&problem, None, Effort::COLD);
        println!(
            "{size}: gap {:.1} %, budgets held: {}",
            plan.gap() * 100.0,
            plan.holds()
        );
    }
    divan::main();
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn cold(bencher: divan::Bencher, size: Size) {
    let problem = size.problem(false);
    bencher.bench_local(|| solve(&problem, None, Effort::COLD));
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn again_with_a_hundredth_changed(bencher: divan::Bencher, size: Size) {
    let before: StrategicPlan = solve(&size.problem(false), None, Effort::COLD);
    let problem = size.problem(true);
    bencher.bench_local(|| solve(&problem, Some(&before.prices), Effort::REPLAN));
}

/// Servers per slot until nobody is beyond 0.85 of saturation, in the order of the groups.
#[divan::bench(args = SIZES, sample_count = 5)]
fn first_fit(bencher: divan::Bencher, size: Size) {
    let problem = size.problem(false);
    bencher.bench_local(|| {
        let mut used = 0_usize;
        for slot in 0..problem.slots() {
            let mut left: Vec<usize> = problem.classes.iter().map(|class| class.units.len()).collect();
            for (pool, demand) in problem.pools.iter().enumerate() {
                let mut lacking = demand.arrivals[slot][1].1 / 0.85;
                for (class, left) in problem.classes.iter().zip(&mut left) {
                    let Some(each) = class.capacity[pool] else { continue };
                    while lacking > 0.0 && *left > 0 {
                        lacking -= each;
                        *left -= 1;
                        used += 1;
                    }
                }
            }
        }
        used
    });
}
