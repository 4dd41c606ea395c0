//! Many runs of one scenario: a baseline over its knobs, the Pareto front, and the cheapest run that attains.
//!
//! Runs go through the trace each for itself and are spread over threads; results are in the order of what was asked for, whichever
//! thread was faster.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::policy::Baseline;
use crate::trace::{Trace, TraceError};
use crate::world::{Accounting, Outcome, Over, Policy, Scenario, World};

/// Bisections of a knob between a run that attains and one that does not.
const BISECTIONS: u32 = 4;
/// How far a sweep goes beyond the knobs that it began with.
const EXTENSIONS: u32 = 6;

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Name of the policy; with `+leases` if it is lease-aware.
    pub policy: String,
    /// The knob's value.
    pub knob: f64,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a comparison holds equal, and what it compares.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Over which spans objectives must hold.
    pub over: Over,
    /// Which costs count.
    pub accounting: Accounting,
}

impl Default for Goal {
    fn default() -> Self {
        Self {
            over: Over::Trace,
            accounting: Accounting::ToTheEnd,
        }
    }
}

/// A scenario with its trace, and who is told after each run.
pub struct Bench<'a> {
    /// What is simulated.
    pub scenario: &'a Scenario,
    /// The requests.
    pub trace: &'a dyn Trace,
    /// Told after each run.
    pub progress: &'a (dyn Fn(&Run) + Sync),
}

impl Bench<'_> {
    /// One run of `policy`.
    pub fn run(&self, policy: &mut dyn Policy, knob: f64) -> Result<Run, TraceError> {
        let outcome = World::new(self.scenario, None).run(self.trace.requests()?, policy)?;
        let run = Run {
            policy: policy.name().to_owned(),
            knob,
            outcome,
        };
        (self.progress)(&run);
        Ok(run)
    }

    /// `baseline` with each of `knobs`, in their order.
    pub fn runs(&self, baseline: &Baseline, lease_aware: bool, knobs: &[f64]) -> Result<Vec<Run>, TraceError> {
        let runs = in_parallel(knobs, |&knob| {
            let mut policy = baseline.build(lease_aware, knob, self.scenario);
            self.run(policy.as_mut(), knob)
        });
        runs.into_iter().collect()
    }

    /// `baseline` over all its knobs, further out where the cheapest that attains is at an end, and closer between those that attain
    /// and those that do not: all runs, in ascending order of the knob.
    pub fn sweep(&self, baseline: &Baseline, lease_aware: bool, goal: Goal) -> Result<Vec<Run>, TraceError> {
        let mut knobs = baseline.knobs(self.scenario);
        if baseline.whole {
            // Every server more costs more and serves more: halving is enough.
            let ends = knobs.first().into_iter().chain(knobs.last());
            knobs = ends.copied().collect();
        }
        let mut runs = self.runs(baseline, lease_aware, &knobs)?;
        let add = |runs: &mut Vec<Run>, knobs: &[f64]| {
            runs.extend(self.runs(baseline, lease_aware, knobs)?);
            runs.sort_by(|left, right| left.knob.total_cmp(&right.knob));
            Ok::<_, TraceError>(())
        };
        for _ in 0..if baseline.whole { 0 } else { EXTENSIONS } {
            let Some(beyond) = beyond(&runs, goal) else { break };
            add(&mut runs, &[beyond])?;
        }
        for _ in 0..if baseline.whole { u32::BITS } else { BISECTIONS } {
            let between = between(&runs, goal, baseline.whole);
            if between.is_empty() {
                break;
            }
            add(&mut runs, &between)?;
        }
        Ok(runs)
    }

    /// The cheapest of [`Self::sweep`]'s runs that attains every objective, and all runs: of both variants, unless `lease_aware` names
    /// one.
    pub fn cheapest_attaining(
        &self,
        baseline: &Baseline,
        lease_aware: Option<bool>,
        goal: Goal,
    ) -> Result<Search, TraceError> {
        let mut runs = Vec::new();
        for &variant in baseline.variants() {
            if lease_aware.is_none_or(|only| only == variant) {
                runs.extend(self.sweep(baseline, variant, goal)?);
            }
        }
        Ok(Search {
            best: cheapest(&runs, goal),
            runs,
        })
    }
}

/// A search for the cheapest run.
#[derive(Clone, Debug)]
pub struct Search {
    /// Everything that was tried.
    pub runs: Vec<Run>,
    /// Index of the cheapest run that attains; `None` if none does.
    pub best: Option<usize>,
}

/// Index of the cheapest run that attains every objective.
pub fn cheapest(runs: &[Run], goal: Goal) -> Option<usize> {
    let cost = |index: &usize| runs[*index].outcome.cost(goal.accounting);
    (0..runs.len())
        .filter(|&index| runs[index].outcome.attains(goal.over))
        .min_by(|left, right| cost(left).total_cmp(&cost(right)))
}

/// The runs that no other beats in both cost and attainment, cheapest first.
pub fn pareto(runs: &[Run], goal: Goal) -> Vec<&Run> {
    let mut sorted: Vec<&Run> = runs.iter().collect();
    let cost = |run: &Run| run.outcome.cost(goal.accounting);
    let margin = |run: &Run| run.outcome.margin(goal.over);
    sorted.sort_by(|left, right| {
        let by_cost = cost(left).total_cmp(&cost(right));
        by_cost.then(margin(right).total_cmp(&margin(left)))
    });
    let mut best = f64::NEG_INFINITY;
    sorted.retain(|run| {
        let better = margin(run) > best;
        best = best.max(margin(run));
        better
    });
    sorted
}

/// The knob beyond the end at which the cheapest run that attains is.
fn beyond(runs: &[Run], goal: Goal) -> Option<f64> {
    let best = cheapest(runs, goal)?;
    let knob = |index: usize| runs.get(index).map(|run| run.knob);
    if best == 0 {
        Some(knob(0)? * knob(0)? / knob(1)?)
    } else if best + 1 == runs.len() {
        Some(knob(best)? * knob(best)? / knob(best - 1)?)
    } else {
        None
    }
}

/// Knobs halfway between neighbours of which one attains and one does not.
fn between(runs: &[Run], goal: Goal, whole: bool) -> Vec<f64> {
    runs.windows(2)
        .filter(|pair| pair[0].outcome.attains(goal.over) != pair[1].outcome.attains(goal.over))
        .map(|pair| {
            let (low, high) = (pair[0].knob, pair[1].knob);
            if whole {
                f64::midpoint(low, high).floor()
            } else {
                (low * high).sqrt()
            }
        })
        .filter(|knob| runs.iter().all(|run| (run.knob - knob).abs() > 1e-9))
        .collect()
}

/// Maps `items` on all cores.
fn in_parallel<T: Sync, R: Send>(items: &[T], map: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let Some((index, item)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).map(|item| (index, item))
                } {
                    let result = map(item);
                    // Poisoned only if another thread panicked, which the scope passes on.
                    done.lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
