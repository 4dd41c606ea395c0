//! What a pool has lived through, as far as the strategic plan needs it. Bounded; kept between passes and across restarts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::burn::{BurnTable, LOADS};
use super::bursts::Bursts;
use super::horizon::start_of;
use crate::capacity::Calibrations;
use crate::forecast::{Backtest, Counts, Event, History};
use crate::snapshot::Objective;
use crate::time::{Span, Timestamp};

/// After so long, half of what was burnt at some load is forgotten.
const HALF_LIFE: Span = Span::from_hours(24);

/// As long as less was burnt than this, what is assumed counts more than what was measured.
const PRIOR_BURN: f64 = 500.0;

/// What is assumed counts as much as so large a part of what the requests were allowed to burn: a few bursts prove little.
const PRIOR_SHARE: f64 = 0.25;

/// What is measured is believed to be at most so many times what was predicted: beyond, something else is wrong.
const MOST_CORRECTION: f64 = 2.0;

/// And at least so many times.
const LEAST_CORRECTION: f64 = 1.0 / 3.0;

/// At most so large a part of what a window allows is made up for in later ones: one terrible day is not answered with a dear week.
const MOST_OWED: f64 = 0.35;

/// So large a part of what a window allows is never planned with: requests that are under way when it ends may still miss, and nothing is left
/// of it to make up for what surges in its last hour.
const KEPT_BACK: f64 = 0.08;

/// One pool's past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// What arrived.
    pub history: History,
    /// How it came within minutes.
    #[serde(default)]
    pub bursts: Bursts,
    /// How forecasts have done.
    pub backtest: Backtest,
    /// What was burnt of the error budgets.
    pub ledger: Ledger,
    /// Prices of a burnt request by start of the window: the next plan begins with them.
    pub prices: BTreeMap<Timestamp, f64>,
    /// What was found out about the figures of machines.
    #[serde(default)]
    pub calibrations: Calibrations,
}

impl Past {
    /// Adds what arrived in `[from, until)`.
    pub fn arrived(&mut self, from: Timestamp, until: Timestamp, counts: Counts, events: &[Event]) {
        // What cannot be recorded is a gap, which is what it is.
        if self.history.record(from, until, counts).is_ok() {
            self.bursts.record(from, until, counts);
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
    /// Per objective: burn beyond what earlier windows allowed that later ones have not made up for.
    #[serde(default)]
    debts: Vec<f64>,
    /// What was burnt lately, by load: one entry from each of [`LOADS`] up to the next.
    #[serde(default)]
    loads: Vec<Experience>,
    /// Of records that were written before loads were: what was expected of some requests, fading like them.
    #[serde(default)]
    predicted: f64,
    /// These requests.
    #[serde(default)]
    over: f64,
    /// What they burnt.
    #[serde(default)]
    measured: f64,
    /// When the last was added.
    at: Option<Timestamp>,
}

/// The load under which requests were answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// What arrived, as work per second, see [`crate::work`].
    pub work_per_s: f64,
    /// What the servers could finish at saturation, likewise. Above zero.
    pub capacity: f64,
}

/// What was burnt at about the same load, half of it forgotten after [`HALF_LIFE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Experience {
    /// Requests.
    requests: f64,
    /// Sum over them of the work that arrived per second.
    work_per_s: f64,
    /// Sum over them of what the servers could finish.
    capacity: f64,
    /// What they burnt.
    burnt: f64,
}

impl Experience {
    fn fade(&mut self, kept: f64) {
        self.requests *= kept;
        self.work_per_s *= kept;
        self.capacity *= kept;
        self.burnt *= kept;
    }

    fn add(&mut self, requests: f64, load: Load, burnt: f64) {
        self.requests += requests;
        self.work_per_s += requests * load.work_per_s;
        self.capacity += requests * load.capacity;
        self.burnt += burnt;
    }

    /// What `table` expects of as many requests under the same load, when one is so much `work` on average.
    fn expected(&self, table: &BurnTable, work: f64) -> f64 {
        let of = |sum: f64| sum / self.requests / work;
        if self.requests > 0.0 {
            self.requests * table.at(of(self.work_per_s), of(self.capacity))
        } else {
            0.0
        }
    }
}

impl Ledger {
    /// Adds `requests` that were answered up to `at`, `misses` of them per objective, under `load`; `None` if what they burnt says nothing of a
    /// load.
    pub fn answered(
        &mut self,
        at: Timestamp,
        objectives: &[Objective],
        requests: f64,
        misses: &[f64],
        load: Option<Load>,
    ) {
        let window = start_of(at, window(objectives));
        if self.window != Some(window) || self.misses.len() != objectives.len() {
            self.debts = self.owed(objectives).collect();
            self.window = Some(window);
            self.requests = 0.0;
            self.misses = vec![0.0; objectives.len()];
        }
        self.requests += requests;
        for (sum, misses) in self.misses.iter_mut().zip(misses) {
            *sum += misses;
        }
        if let Some(load) = load {
            let aged = self.at.map_or(0.0, |last| at.since(last).as_hours_f64()) / HALF_LIFE.as_hours_f64();
            let kept = libm::exp2(-aged);
            self.loads.resize(LOADS.len(), Experience::default());
            for known in &mut self.loads {
                known.fade(kept);
            }
            for sum in [&mut self.predicted, &mut self.over, &mut self.measured] {
                *sum *= kept;
            }
            let above = LOADS.partition_point(|entry| *entry <= load.work_per_s / load.capacity);
            if let Some(known) = above.checked_sub(1).and_then(|entry| self.loads.get_mut(entry)) {
                known.add(requests, load, burn(objectives, misses));
            }
            self.at = Some(at);
        }
    }

    /// What is left of the window that contains `now`: requests so far, but for a small reserve, less what they burnt and what earlier windows overdrew. Below zero if it is
    /// overdrawn.
    ///
    /// A promise is kept window by window. If one was broken, the next windows make up for it, so that what is promised holds over weeks even if
    /// something is misjudged every day.
    pub fn carried(&self, now: Timestamp, objectives: &[Objective]) -> f64 {
        if self.misses.len() != objectives.len() {
            0.0
        } else if self.window == Some(start_of(now, window(objectives))) {
            let burnt = objectives.iter().zip(&self.misses).enumerate();
            let burnt = burnt.map(|(index, (objective, misses))| {
                misses * per_miss(objective) + self.debts.get(index).copied().unwrap_or(0.0)
            });
            self.requests * (1.0 - KEPT_BACK) - burnt.fold(0.0, f64::max)
        } else {
            -self.owed(objectives).fold(0.0, f64::max)
        }
    }

    /// Per objective: what is owed once the window under way is over.
    fn owed<'l>(&'l self, objectives: &'l [Objective]) -> impl Iterator<Item = f64> + 'l {
        let known = self.misses.len() == objectives.len();
        objectives.iter().enumerate().map(move |(index, objective)| {
            let (Some(misses), true) = (self.misses.get(index), known) else {
                return 0.0;
            };
            let before = self.debts.get(index).copied().unwrap_or(0.0);
            let owed = before + misses * per_miss(objective) - self.requests;
            owed.clamp(0.0, MOST_OWED * self.requests)
        })
    }

    /// How many times as much is burnt as `table` expects of what was lived through lately, when a request is so much `work`; 1 as long as
    /// little was.
    ///
    /// A catalogue figure that is too good and a router that is worse than said both burn more than the model knows; both are answered
    /// with headroom, within bounds. It is the table of today that is asked, not those of then: a burst that it has learnt of since is not
    /// counted twice.
    pub fn correction(&self, table: &BurnTable, work: f64) -> f64 {
        let sum = |of: fn(&Experience) -> f64| self.loads.iter().map(of).sum::<f64>();
        let prior = (self.over + sum(|known| known.requests)) * PRIOR_SHARE + PRIOR_BURN;
        let expected: f64 = self.loads.iter().map(|known| known.expected(table, work)).sum();
        let burnt = self.measured + sum(|known| known.burnt);
        let correction = (burnt + prior) / (self.predicted + expected + prior);
        // A record with absurd figures corrects nothing.
        if correction.is_finite() {
            correction.clamp(LEAST_CORRECTION, MOST_CORRECTION)
        } else {
            1.0
        }
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
pub(crate) fn per_miss(objective: &Objective) -> f64 {
    1.0 / (1.0 - objective.percentile.get()).max(0.001)
}

/// The window that is planned for: the shortest of all objectives.
pub(crate) fn window(objectives: &[Objective]) -> Span {
    objectives
        .iter()
        .map(|objective| objective.window)
        .min()
        .unwrap_or(Span::from_hours(24))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
        // 10 × 20 of the first, 10 × 10 of the second; eight hundredths are kept back.
        assert!((ledger.carried(at(5), &objectives()) - 720.0).abs() < 1e-6);
        assert!(ledger.carried(at(25), &objectives()).abs() < 1e-9);
        ledger.answered(at(25), &objectives(), 100.0, &[50.0, 0.0], None);
        assert!(
            (ledger.carried(at(26), &objectives()) + 908.0).abs() < 1e-6,
            "overdrawn"
        );
    }

    #[test]
    fn what_a_window_overdraws_the_next_one_makes_up_for_within_bounds() {
        let mut ledger = Ledger::default();
        let at = |hours| Timestamp::from_millis(0) + Span::from_hours(hours);
        // 60 × 20 of the first objective, 200 more than is allowed; far too many of the second on the day after.
        ledger.answered(at(3), &objectives(), 1_000.0, &[60.0, 10.0], None);
        assert!((ledger.carried(at(23), &objectives()) + 280.0).abs() < 1e-6);
        assert!((ledger.carried(at(25), &objectives()) + 200.0).abs() < 1e-6);
        ledger.answered(at(25), &objectives(), 1_000.0, &[10.0, 500.0], None);
        // What the first owes is not added to what the second burns: 920 less 5,000.
        assert!((ledger.carried(at(26), &objectives()) + 4_080.0).abs() < 1e-6);
        assert!(
            (ledger.carried(at(49), &objectives()) + 350.0).abs() < 1e-6,
            "and no more"
        );
        ledger.answered(at(50), &objectives(), 1_000.0, &[10.0, 10.0], None);
        assert!(
            ledger.carried(at(73), &objectives()).abs() < 1e-6,
            "a good day settles it"
        );
    }

    /// Whatever the load, a request burns so much.
    fn table(burn: f64) -> BurnTable {
        BurnTable::new(vec![(1.0, [burn; LOADS.len()])]).unwrap()
    }

    #[test]
    fn what_burns_more_than_expected_is_answered_with_headroom_within_bounds_and_slowly() {
        let mut ledger = Ledger::default();
        let at = |hours| Timestamp::from_millis(0) + Span::from_hours(hours);
        let load = Some(Load {
            work_per_s: 3.0,
            capacity: 6.0,
        });
        let correction = |ledger: &Ledger, expected| ledger.correction(&table(expected), 1.5);
        assert!((correction(&ledger, 0.5) - 1.0).abs() < 1e-9);
        ledger.answered(at(1), &objectives(), 100.0, &[5.0, 0.0], load);
        assert!(
            (1.0..1.15).contains(&correction(&ledger, 0.5)),
            "one hundred requests say little"
        );
        for hour in 2..20 {
            // 0.6 burnt per request.
            ledger.answered(at(hour), &objectives(), 10_000.0, &[300.0, 0.0], load);
        }
        // (0.6 + 0.25) ÷ (0.4 + 0.25).
        let known = correction(&ledger, 0.4);
        assert!((known - 1.307).abs() < 0.01, "{known}");
        let learnt = correction(&ledger, 0.6);
        assert!((learnt - 1.0).abs() < 0.01, "a table that has learnt it: {learnt}");
        for hour in 20..60 {
            ledger.answered(at(hour), &objectives(), 10_000.0, &[9_000.0, 0.0], load);
        }
        assert!(correction(&ledger, 0.4) <= 2.0);
    }

    #[test]
    fn what_was_burnt_is_compared_with_what_is_expected_of_the_same_load() {
        let mut ledger = Ledger::default();
        let steep = BurnTable::new(vec![(1.0, LOADS), (10.0, LOADS)]).unwrap();
        for hour in 0..48 {
            let load = Load {
                work_per_s: if hour % 2 == 0 { 1.0 } else { 4.0 },
                capacity: 5.0,
            };
            let burnt_each = load.work_per_s / load.capacity;
            let misses = 10_000.0 * burnt_each / per_miss(&objectives()[0]);
            let at = Timestamp::from_millis(0) + Span::from_hours(hour);
            ledger.answered(at, &objectives(), 10_000.0, &[misses, 0.0], Some(load));
        }
        let correction = ledger.correction(&steep, 1.0);
        assert!((correction - 1.0).abs() < 1e-6, "{correction}");
    }
}
