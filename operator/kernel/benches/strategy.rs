//! How long a strategic plan takes, by pools × groups: from nothing, and again with a hundredth of the pools changed and the last prices.
//!
//! The peers are the method of most autoscalers, first-fit, and that of textbooks, a linear program whose servers are rounded up. What they would
//! cost and how long they take is printed beside what the plans do, with their bounds and gaps: as told the median of what arrives, and with the least headroom
//! at which no more windows are missed than by the plan. Their times are among the others as well.
//!
//! Linear programs are solved by microlp, and by `HiGHS` as well where the variable `HIGHS` names its executable.

#![allow(missing_docs)]
// It is not the kernel that prints and takes times here.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)]

mod problems;

use std::time::{Duration, Instant};

use pomarium_kernel::strategy::{Effort, Problem, StrategicPlan, solve};

use self::problems::highs;
use self::problems::many::{SIZES, Size};
use self::problems::milp::Milp;
use self::problems::peers::{Schedule, first_fit as fitted};
use self::problems::rounded::{kinds, rounded};

/// How long a peer may take for one schedule.
const PATIENCE: Duration = Duration::from_secs(120);

/// Over the median of what arrives. The most that arrives here is 1.25 times the median.
const HEADROOMS: [f64; 5] = [1.0, 1.1, 1.2, 1.25, 1.3];

fn main() {
    if std::env::args().any(|argument| argument == "--bench") {
        SIZES.into_iter().for_each(compare);
    }
    divan::main();
}

fn compare(size: Size) {
    let problem = size.problem(false);
    let (plan, took) = timed(|| solve(&problem, None, Effort::COLD));
    println!(
        "{size}: cost {:.0}, gap {:.1} %, windows missed {} of {}, {:.2} s",
        plan.cost,
        plan.gap() * 100.0,
        plan.shortfalls.len(),
        problem.pools.len(),
        took.as_secs_f64(),
    );
    against("first-fit", &problem, (&plan, took), |headroom| {
        Some(fitted(&problem, headroom))
    });
    let kinds = kinds(&problem);
    against("LP-round (microlp)", &kinds, (&plan, took), |headroom| {
        rounded(&kinds, headroom, microlp)
    });
    let Some(executable) = highs::executable() else { return };
    let solver = |program: &Milp| highs::optimum(&executable, program, PATIENCE);
    against("LP-round (HiGHS)", &kinds, (&plan, took), |headroom| {
        rounded(&kinds, headroom, solver)
    });
}

fn microlp(program: &Milp) -> Option<Vec<f64>> {
    program.optimum(PATIENCE)
}

/// Prints the ratios of a plan to a peer's schedules.
fn against(
    peer: &str,
    problem: &Problem,
    (plan, took): (&StrategicPlan, Duration),
    schedule: impl Fn(f64) -> Option<Schedule>,
) {
    let mut fewest = usize::MAX;
    for headroom in HEADROOMS {
        let (schedule, peer_took) = timed(|| schedule(headroom));
        let Some(schedule) = schedule else {
            println!("  {peer}: not solved within {PATIENCE:?}");
            return;
        };
        let missed = schedule.missed(problem);
        fewest = fewest.min(missed);
        let as_good = missed <= plan.shortfalls.len();
        if as_good || headroom <= 1.0 {
            println!(
                "  over {peer} with {headroom} of the median, which misses {missed} windows: cost {:.2}, time {:.2}",
                plan.cost / schedule.cost(problem),
                took.as_secs_f64() / peer_took.as_secs_f64(),
            );
        }
        if as_good {
            return;
        }
    }
    println!("  {peer} misses {fewest} windows or more, whatever its headroom");
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
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
    bencher.bench_local(|| fitted(&problem, 1.0));
}

/// The sizes for which it takes seconds.
#[divan::bench(args = &SIZES[..2], sample_count = 3, sample_size = 1)]
fn lp_round(bencher: divan::Bencher, size: Size) {
    let problem = kinds(&size.problem(false));
    bencher.bench_local(|| rounded(&problem, 1.0, microlp).is_some());
}
