//! What a pool has lived through, as far as the strategic plan needs it. Bounded; kept between passes and across restarts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::horizon::start_of;
use crate::forecast::{Backtest, Counts, Event, History};
use crate::snapshot::Objective;
use crate::time::{Span, Timestamp};

/// After so long, half of what was predicted and measured is forgotten.
const HALF_LIFE: Span = Span::from_hours(24);

/// As long as less was burnt than this, a model's word counts more than the measurement.
const PRIOR_BURN: f64 = 200.0;

/// A model that is off by more than these factors says nothing about burn any more; errors beyond are capped.
const BURN_RATIO: (f64, f64) = (0.5, 6.0);

/// One pool's past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// What arrived.
    pub history: History,
    /// How forecasts have done.
    pub backtest: Backtest,
    /// What was burnt of the error budgets.
    pub ledger: Ledger,
    /// Prices of a burnt request by start of the window: the next plan begins with them.
    pub prices: BTreeMap<Timestamp, f64>,
}

impl Past {
    /// Adds what arrived in `[from, until)`.
    pub fn arrived(&mut self, from: Timestamp, until: Timestamp, counts: Counts, events: &[Event]) {
        // What cannot be recorded is a gap, which is what it is.
        if self.history.record(from, until, counts).is_ok() {
            self.backtest.advance(&self.history, events);
        }
    }
}

/// What was burnt of the current window's error budget, and how well burn was predicted lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// When the window began.
    window: Option<Timestamp>,
    /// Requests answered in it.
    requests: f64,
    /// Misses in it, per objective.
    misses: Vec<f64>,
    /// Burn that was predicted lately, and burn that was measured for the same time.
    predicted: f64,
    measured: f64,
    at: Option<Timestamp>,
}

impl Ledger {
    /// Adds `requests` that were answered up to `at`, `misses` of them per objective, where `predicted` burn per request was expected
    /// (`None` if nothing was).
    pub fn answered(
        &mut self,
        at: Timestamp,
        objectives: &[Objective],
        requests: f64,
        misses: &[f64],
        predicted: Option<f64>,
    ) {
        let window = start_of(at, window(objectives));
        if self.window != Some(window) || self.misses.len() != objectives.len() {
            self.window = Some(window);
            self.requests = 0.0;
            self.misses = vec![0.0; objectives.len()];
        }
        self.requests += requests;
        for (sum, misses) in self.misses.iter_mut().zip(misses) {
            *sum += misses;
        }
        if let Some(predicted) = predicted {
            let aged = self.at.map_or(0.0, |last| at.since(last).as_hours_f64()) / HALF_LIFE.as_hours_f64();
            let kept = libm::exp2(-aged);
            self.predicted = self.predicted * kept + predicted * requests;
            self.measured = self.measured * kept + burn(objectives, misses);
            self.at = Some(at);
        }
    }

    /// What is left of the window that contains `now`: requests so far, less what they burnt. Below zero if it is overdrawn.
    pub fn carried(&self, now: Timestamp, objectives: &[Objective]) -> f64 {
        if self.window == Some(start_of(now, window(objectives))) && self.misses.len() == objectives.len() {
            self.requests - burn(objectives, &self.misses)
        } else {
            0.0
        }
    }

    /// Burn measured over burn predicted, lately: what the model's burn is to be multiplied with.
    pub fn ratio(&self) -> f64 {
        let ratio = (self.measured + PRIOR_BURN) / (self.predicted + PRIOR_BURN);
        ratio.clamp(BURN_RATIO.0, BURN_RATIO.1)
    }
}

/// What `misses` per objective burn: the objective that burns most counts.
fn burn(objectives: &[Objective], misses: &[f64]) -> f64 {
    objectives
        .iter()
        .zip(misses)
        .map(|(objective, misses)| misses * per_miss(objective))
        .fold(0.0, f64::max)
}

/// What one miss burns: 1 ÷ (1 − percentile), at most 1,000.
pub(super) fn per_miss(objective: &Objective) -> f64 {
    1.0 / (1.0 - objective.percentile.get()).max(0.001)
}

/// The window that is planned for: the shortest of all objectives.
pub(super) fn window(objectives: &[Objective]) -> Span {
    objectives
        .iter()
        .map(|objective| objective.window)
        .min()
        .unwrap_or(Span::from_hours(24))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Metric;
    use crate::units::Fraction;

    fn objectives() -> Vec<Objective> {
        [(Metric::TimeToFirstToken, 0.95), (Metric::InterTokenLatency, 0.9)]
            .map(|(metric, percentile)| Objective {
                metric,
                percentile: Fraction::new(percentile),
                threshold: Span::from_secs(1),
                window: Span::from_hours(24),
            })
            .to_vec()
    }

    #[test]
    fn what_is_left_of_a_window_ends_with_it() {
        let mut ledger = Ledger::default();
        let at = |hours| Timestamp::from_millis(0) + Span::from_hours(hours);
        ledger.answered(at(3), &objectives(), 1_000.0, &[10.0, 10.0], None);
        // 10 × 20 of the first, 10 × 10 of the second.
        assert!((ledger.carried(at(5), &objectives()) - 800.0).abs() < 1e-6);
        assert!(ledger.carried(at(25), &objectives()).abs() < 1e-9);
        ledger.answered(at(25), &objectives(), 100.0, &[50.0, 0.0], None);
        assert!((ledger.carried(at(26), &objectives()) + 900.0).abs() < 1e-6, "overdrawn");
    }

    #[test]
    fn a_model_that_is_wrong_is_corrected_within_bounds_and_slowly() {
        let mut ledger = Ledger::default();
        let at = |hours| Timestamp::from_millis(0) + Span::from_hours(hours);
        assert!((ledger.ratio() - 1.0).abs() < 1e-9);
        ledger.answered(at(1), &objectives(), 100.0, &[5.0, 0.0], Some(0.1));
        assert!(ledger.ratio() < 1.5, "one hundred requests say little: {}", ledger.ratio());
        for hour in 2..20 {
            ledger.answered(at(hour), &objectives(), 10_000.0, &[500.0, 0.0], Some(0.1));
        }
        assert!((ledger.ratio() - 6.0).abs() < 1e-9, "ten times as much: {}", ledger.ratio());
    }
}
