//! How long a strategic plan takes, by pools × groups: from nothing, and again with a hundredth of the demand changed and the last prices.
//!
//! The ratio is against the method of most autoscalers: first-fit, slot by slot, without leases. Gaps are printed with the names.

#![allow(missing_docs)]
// It is not the kernel that prints here.
#![allow(clippy::disallowed_macros)]

use std::fmt;

use pomarium_kernel::snapshot::Survive;
use pomarium_kernel::strategy::burn::{BurnTable, LOADS};
use pomarium_kernel::strategy::{Class, Demand, Effort, Problem, StrategicPlan, Unit, Window, solve};

fn main() {
    for size in SIZES {
        let problem = size.problem(1.0);
        let plan = solve(&problem, None, Effort::COLD);
        println!(
            "{size}: gap {:.1} %, budgets held: {}",
            plan.gap() * 100.0,
            plan.holds()
        );
    }
    divan::main();
}

#[derive(Clone, Copy)]
struct Size {
    pools: usize,
    groups: usize,
}

const SIZES: [Size; 3] = [
    Size { pools: 1, groups: 3 },
    Size { pools: 10, groups: 5 },
    Size { pools: 50, groups: 20 },
];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.pools, self.groups)
    }
}

impl Size {
    /// Pools with a daily peak each at its own hour, over groups of ten servers of which every pool may use half.
    fn problem(self, changed: f64) -> Problem {
        let boundaries_s: Vec<f64> = (0..=80).map(|slot| f64::from(slot) * 1_620.0).collect();
        let slots = boundaries_s.len() - 1;
        let burn = LOADS.map(|load| if load < 0.85 { 0.1 } else { 0.1 + (load - 0.85) * 100.0 });
        let pools = (0..self.pools)
            .map(|pool| {
                let factor = if pool % 100 == 0 { changed } else { 1.0 };
                let arrivals: Vec<Vec<(f64, f64)>> = (0..slots)
                    .map(|slot| {
                        let phase = (slot * 3 + pool * 7) % 53;
                        let rate = factor * (0.4 + if phase < 20 { 1.2 } else { 0.0 });
                        vec![(0.25, rate * 0.8), (0.5, rate), (0.25, rate * 1.25)]
                    })
                    .collect();
                let requests: f64 = arrivals.iter().map(|arrivals| arrivals[1].1 * 1_620.0).sum();
                Demand {
                    arrivals,
                    burn: BurnTable::new(vec![(1.0, burn)]).unwrap_or_else(|| unreachable!("one entry")),
                    windows: vec![Window {
                        slots: 0..slots,
                        budget: requests * 0.6,
                    }],
                    miss_value: 0.0,
                    survive: Survive::None,
                    rank: 0,
                    most: u32::MAX,
                    budgets: Vec::new(),
                }
            })
            .collect();
        let servers = (self.pools * 4).div_ceil(self.groups);
        let classes = (0..self.groups)
            .map(|group| Class {
                tier: u32::from(group % 3 != 0),
                site: group % 4,
                hourly: [0.0, 1.5, 2.0][group % 3],
                energy_hourly: 0.002,
                minimum_lease_s: [0.0, 3_600.0, 86_400.0][group % 3],
                lead_s: [90.0, 330.0, 950.0][group % 3],
                recycle_s: [0.0, 0.0, 6_600.0][group % 3],
                switch_cost: 0.02,
                busy_watts: 0.0,
                capacity: (0..self.pools)
                    .map(|pool| ((pool + group) % 2 == 0 || self.groups < 4).then_some([1.0, 0.8, 0.5][group % 3]))
                    .collect(),
                units: vec![Unit::Off { from_s: 0.0 }; servers],
            })
            .collect();
        Problem {
            boundaries_s,
            classes,
            pools,
            power_limits: Vec::new(),
            overhang: 0.1,
        }
    }
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn cold(bencher: divan::Bencher, size: Size) {
    let problem = size.problem(1.0);
    bencher.bench_local(|| solve(&problem, None, Effort::COLD));
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn again_with_a_hundredth_changed(bencher: divan::Bencher, size: Size) {
    let before: StrategicPlan = solve(&size.problem(1.0), None, Effort::COLD);
    let problem = size.problem(1.05);
    bencher.bench_local(|| solve(&problem, Some(&before.prices), Effort::REPLAN));
}

/// Servers per slot until nobody is beyond 0.85 of saturation, in the order of the groups.
#[divan::bench(args = SIZES, sample_count = 5)]
fn first_fit(bencher: divan::Bencher, size: Size) {
    let problem = size.problem(1.0);
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
