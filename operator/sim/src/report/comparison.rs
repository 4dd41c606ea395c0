//! Several policies at equal attainment: each with the knob that costs least while every objective holds.

use serde::Serialize;

use super::Report;
use crate::sweep::{Run, pareto};
use crate::world::{Accounting, Over};

/// Several policies at equal attainment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Objectives hold over the whole `Trace`, or in each of their `Windows`.
    pub over: &'static str,
    /// Costs `ToTheEnd` of the trace, or `WithObligations`.
    pub accounting: &'static str,
    /// One for each policy: its cheapest run that attains every objective, or the one that comes nearest.
    pub policies: Vec<Compared>,
    /// Every run of every sweep, in ascending order of the knob.
    pub runs: Vec<Tried>,
}

/// A policy at the knob that counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Its name; with `+leases` in its lease-aware variant.
    pub policy: String,
    /// Whether every objective holds.
    pub attains: bool,
    /// What counts of its cost.
    pub cost: f64,
    /// Its cost over that of the cheapest that attains; `null` if it does not attain, or none does.
    pub ratio_to_best: Option<f64>,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// Name of the policy; with `+leases` in its lease-aware variant.
    pub policy: String,
    /// The knob's value.
    pub knob: f64,
    /// What counts of its cost.
    pub cost: f64,
    /// By how much the objective that is met worst exceeds its percentile; negative if one is missed.
    pub margin: f64,
    /// No other run is both cheaper and better.
    pub on_front: bool,
}

/// Compares what was played.
pub fn compare(report: &Report<'_>) -> Comparison {
    let goal = report.goal;
    let cost = |run: &Run| run.outcome.cost(goal.accounting);
    let attains = |run: &Run| run.outcome.attains(goal.over);
    let best = report
        .played
        .iter()
        .map(|played| &played.run)
        .filter(|run| attains(run))
        .map(cost)
        .min_by(f64::total_cmp);
    let policies = report.played.iter().map(|played| Compared {
        policy: played.run.policy.clone(),
        attains: attains(&played.run),
        cost: cost(&played.run),
        ratio_to_best: best
            .filter(|best| attains(&played.run) && *best > 0.0)
            .map(|best| cost(&played.run) / best),
    });
    let all: Vec<Run> = report.all_runs().cloned().collect();
    let front = pareto(&all, goal);
    let runs = all.iter().map(|run| Tried {
        policy: run.policy.clone(),
        knob: run.knob,
        cost: cost(run),
        margin: run.outcome.margin(goal.over),
        on_front: front.iter().any(|other| std::ptr::eq(*other, run)),
    });
    Comparison {
        over: match goal.over {
            Over::Trace => "Trace",
            Over::Windows => "Windows",
        },
        accounting: match goal.accounting {
            Accounting::ToTheEnd => "ToTheEnd",
            Accounting::WithObligations => "WithObligations",
        },
        policies: policies.collect(),
        runs: runs.collect(),
    }
}

impl Report<'_> {
    /// Every run there was, each once: those of sweeps, and policies that were not swept.
    fn all_runs(&self) -> impl Iterator<Item = &Run> {
        let swept = |run: &Run| {
            self.runs
                .iter()
                .any(|other| other.policy == run.policy && (other.knob - run.knob).abs() < 1e-12)
        };
        let others = self
            .played
            .iter()
            .map(|played| &played.run)
            .filter(move |run| !swept(run));
        self.runs.iter().chain(others)
    }
}
