//! Cost, bound and gap of strategic plans over a fixed set of made-up days, from nothing and again a few minutes later, with times.
//!
//! `cargo bench -p pomarium-kernel --bench gap [-- -v] [SEED…] [DIR/]`; with a folder, problems are written there in the LP format for a
//! general solver to judge. Times are of one run each; costs, bounds and gaps are the same on every
//! machine.

#![allow(missing_docs)]
// It is not the kernel that prints and takes times here.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)]

mod problems;

use std::time::Instant;

use pomarium_kernel::strategy::{Effort, StrategicPlan, solve};

use self::problems::milp::{Milp, Servers, milp};

const DAYS: u64 = 60;

/// Plans of one effort.
#[derive(Default)]
struct Row {
    gaps: Vec<f64>,
    ms: Vec<f64>,
    cost: f64,
    bound: f64,
    held: usize,
}

impl Row {
    fn add(&mut self, plan: &StrategicPlan, ms: f64) {
        self.gaps.push(plan.gap() * 100.0);
        self.ms.push(ms);
        self.cost += plan.cost;
        self.bound += plan.bound;
        self.held += usize::from(plan.holds());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let verbose = arguments.iter().any(|argument| argument == "-v");
    let only: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let folder = arguments.iter().find(|argument| argument.ends_with('/'));
    if let Some(folder) = folder {
        let shared = problems::many::SIZES[0].problem(false);
        write(folder, "many", &milp(&shared, Servers::Whole));
        write(folder, "many-divided", &milp(&shared, Servers::Divided));
    }
    let mut rows = [Row::default(), Row::default()];
    for seed in (0..DAYS).filter(|seed| only.is_empty() || only.contains(seed)) {
        let problem = problems::hybrid(seed);
        let later = problems::nudged(&problem, seed);
        if let Some(folder) = folder {
            write(folder, &seed.to_string(), &milp(&problem, Servers::Whole));
        }
        let mut prices = None;
        for (index, (problem, effort)) in [(&problem, Effort::COLD), (&later, Effort::REPLAN)]
            .into_iter()
            .enumerate()
        {
            let started = Instant::now();
            let plan = solve(problem, prices.as_deref(), effort);
            let ms = started.elapsed().as_secs_f64() * 1_000.0;
            if verbose {
                println!(
                    "{seed} {index} cost {:.3} bound {:.3} gap {:.2} holds {} ms {ms:.2}",
                    plan.cost,
                    plan.bound,
                    plan.gap() * 100.0,
                    plan.holds()
                );
            }
            rows[index].add(&plan, ms);
            prices = Some(plan.prices);
        }
    }
    for (name, row) in ["from nothing", "again"].into_iter().zip(&mut rows) {
        let [gap, gap_most] = median_and_most(&mut row.gaps);
        let [ms, ms_most] = median_and_most(&mut row.ms);
        println!(
            "{name}: gap median {gap:.2} % most {gap_most:.2} %, cost {:.2}, bound {:.2}, {} of {} keep their budgets, ms median {ms:.2} most {ms_most:.2}",
            row.cost,
            row.bound,
            row.held,
            row.gaps.len()
        );
    }
}

fn write(folder: &str, name: &str, program: &Milp) {
    if let Err(error) = std::fs::write(format!("{folder}{name}.lp"), program.lp_file()) {
        println!("writing {folder}{name}.lp: {error}");
    }
}

fn median_and_most(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    [at(values.len() / 2), at(values.len().saturating_sub(1))]
}
