//! The results as JSON. Third parties read it: names and shapes change only with a note in the changelog.

use std::collections::BTreeMap;

use serde::Serialize;

use super::comparison::{Comparison, compare};
use super::{Played, Report};
use crate::score::{ObjectiveScore, Requests};
use crate::world::Accounting;

/// The results of a replay.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Name of the trace's file.
    pub trace: String,
    /// The seed.
    pub seed: u64,
    /// In the order in which they were asked for.
    pub policies: Vec<PolicyResult>,
    /// What no policy can cost less than; `null` if it is not known.
    pub bound: Option<f64>,
    /// Several policies at equal attainment; absent with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyResult {
    /// Its name; with `+leases` in its lease-aware variant.
    pub policy: String,
    /// The knob's value; `null` for a policy without one.
    pub knob: Option<f64>,
    /// By what became of them.
    pub requests: Requests,
    /// In the order of the pool's objectives.
    pub objectives: Vec<ObjectiveScore>,
    /// To the trace's end.
    pub cost: Cost,
    /// How many.
    pub servers: Servers,
    /// Replicas started and drained by decision, per day.
    pub moves_per_day: f64,
    /// Machines given back before the end of their minimum lease.
    pub early_releases: u32,
    /// Share of actual rates within the forecast's band; `null` for a policy without a forecast.
    pub forecast_coverage: Option<f64>,
    /// How good its plans were, and how long they took.
    pub plan: Plans,
}

/// What a policy cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// ISO 4217.
    pub currency: String,
    /// Leases, to the trace's end; the rest of a minimum lease if a machine was given back before.
    pub leases: f64,
    /// Electricity.
    pub energy: f64,
    /// What minimum leases still cost after the trace's end; not in the total.
    pub obligations: f64,
    /// Leases and energy.
    pub total: f64,
}

/// How many servers a policy used.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Servers {
    /// Most serving at once.
    pub peak: u32,
    /// Hours that servers were on, by group.
    pub hours_by_group: BTreeMap<String, f64>,
}

/// How good plans were, and how long they took; all `null` for a policy that does not plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plans {
    /// Median gap to the bound of the plan's own problem.
    pub gap_median: Option<f64>,
    /// Its largest.
    pub gap_max: Option<f64>,
    /// Median time of a decision, in ms.
    pub ms_p50: Option<f64>,
    /// Its 99th percentile.
    pub ms_p99: Option<f64>,
}

impl Report<'_> {
    /// What `--json` writes.
    pub fn results(&self) -> Results {
        Results {
            trace: self.trace.name.clone(),
            seed: self.seed,
            policies: self.played.iter().map(|played| self.result(played)).collect(),
            bound: self.bound,
            comparison: (self.played.len() > 1).then(|| compare(self)),
        }
    }

    fn result(&self, played: &Played) -> PolicyResult {
        let outcome = &played.run.outcome;
        let groups = self.setting.scenario.groups.iter().zip(&outcome.paid);
        PolicyResult {
            policy: played.run.policy.clone(),
            knob: played.knob.is_some().then_some(played.run.knob),
            requests: outcome.requests,
            objectives: outcome.objectives.clone(),
            cost: Cost {
                currency: self.currency.clone(),
                leases: outcome.leases(),
                energy: outcome.energy(),
                obligations: outcome.obligations(),
                total: outcome.cost(Accounting::ToTheEnd),
            },
            servers: Servers {
                peak: outcome.peak,
                hours_by_group: groups
                    .map(|(group, paid)| (group.name.clone(), paid.machine_hours))
                    .collect(),
            },
            moves_per_day: outcome.moves_per_day(),
            early_releases: outcome.early_releases(),
            forecast_coverage: played.figures.forecast_coverage,
            plan: Plans {
                gap_median: played.figures.gap_median,
                gap_max: played.figures.gap_max,
                ms_p50: played.figures.plan_ms_p50,
                ms_p99: played.figures.plan_ms_p99,
            },
        }
    }
}
