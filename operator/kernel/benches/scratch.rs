#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::disallowed_macros, clippy::disallowed_methods)]
mod problems;
use problems::many::*;
use pomarium_kernel::strategy::{Effort, solve};
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let most: usize = a.first().and_then(|a| a.parse().ok()).unwrap_or(50);
    for size in SIZES {
        if size.pools > most { continue; }
        let p = size.problem(false);
        if let Some(dir) = a.get(1).filter(|a| a.starts_with('/')) {
            std::fs::write(format!("{dir}/{}-{}-{}.lp", size.pools, size.groups, size.regions), problems::milp::milp(&p).lp_file()).unwrap();
            continue;
        }
        if a.len() > 2 { for bounds in [40, 100, 300, 1000] {
            let t = Instant::now();
            let plan = solve(&p, None, Effort { bounds, prices: 1, turns: 1, trims: 0, swaps: 0 });
            println!("{size} {bounds}: bound {:.2} {:.3} s", plan.bound, t.elapsed().as_secs_f64());
        } continue; }
        let t = Instant::now();
        let plan = solve(&p, None, Effort::COLD);
        let cold = t.elapsed().as_secs_f64();
        let p = size.problem(true);
        let t = Instant::now();
        let again = solve(&p, Some(&plan.prices), Effort::REPLAN);
        let warm = t.elapsed().as_secs_f64();
        println!("{size}: cold {:.3} s cost {:.2} bound {:.2} gap {:.2} % holds {} short {} | again {:.3} s cost {:.2} bound {:.2} gap {:.2} % holds {} short {}", cold, plan.cost, plan.bound, plan.gap()*100.0, plan.holds(), plan.shortfalls.len(), warm, again.cost, again.bound, again.gap()*100.0, again.holds(), again.shortfalls.len());
    }
}
