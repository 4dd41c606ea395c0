//! Pomarium's own policy: the kernel's two passes, as the controller runs them.
//!
//! Every few minutes, or when demand is a surprise, [`look_ahead_by`] plans the next 36 hours; at every tick [`planning::plan`] says what to do
//! now. What the simulated world looks like to them is [`fleet`]'s part.

mod fleet;

use std::sync::Arc;
use std::time::Instant;

use pomarium_kernel::capacity::curve;
use pomarium_kernel::forecast::Counts;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::plan::{Plan, Verdict};
use pomarium_kernel::planning;
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::strategy::Effort;
use pomarium_kernel::strategy::ahead::{PoolAhead, look_ahead_by};
use pomarium_kernel::strategy::due::due;
use pomarium_kernel::strategy::envelope::{Memo, Method};
use pomarium_kernel::strategy::learning::{Answered, Circumstances, Counted, Learner};
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Rate;
use pomarium_kernel::work::of_tokens;

use self::fleet::Fleet;
use crate::world::{Command, Figures, Policy, Scenario, View};

/// The trace's start on the kernel's calendar: midnight UTC of 1 January 2026, from which windows of a day and of a week both tumble.
pub(crate) const EPOCH_MS: i64 = 20_454 * 86_400_000;

/// Curves that are kept.
const CURVES: usize = 256;

/// Scrapes that are further apart have a gap between them.
const GAP: Span = Span::from_minutes(2);

/// Forecasts are compared with what came over so long.
const COVERED_S: f64 = 300.0;

/// Decisions that are told in one reason.
const TOLD: usize = 3;

/// What is switched off, to see what it is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ablation {
    /// Demand is expected to stay as it is.
    pub forecast: bool,
    /// Leases have no minimum, as far as the plan knows.
    pub leases: bool,
    /// Of demand and latencies the plan knows only the means.
    pub percentiles: bool,
}

/// The policy.
pub struct Pomarium {
    name: String,
    fleet: Fleet,
    method: Method,
    memo: Memo,
    /// What earlier passes have computed.
    passes: planning::Memo,
    learner: Learner,
    ablation: Ablation,
    reason: String,
    plan_ms: Vec<f64>,
    gaps: Vec<f64>,
    covered: (u64, u64),
    covered_ms: i64,
}

impl Pomarium {
    /// For the pool `id` of `declared`, the one that `scenario` is about.
    pub fn new(name: &str, scenario: &Scenario, declared: &Snapshot, id: &PoolId, ablation: Ablation) -> Self {
        Self {
            name: name.to_owned(),
            fleet: Fleet::new(scenario, declared, id, ablation.leases),
            method: Method {
                means: ablation.percentiles,
                ..Method::default()
            },
            memo: Memo::new(curve::Effort::QUICK, CURVES),
            passes: planning::Memo::default(),
            learner: Learner::default(),
            ablation,
            reason: String::new(),
            plan_ms: Vec::new(),
            gaps: Vec::new(),
            covered: (0, 0),
            covered_ms: i64::MIN,
        }
    }

    /// The same, planning to spend this share of every error budget.
    #[must_use]
    pub fn spending(mut self, share: f64) -> Self {
        self.method.spend = share;
        self
    }

    /// The plan that is followed.
    fn planned(&self) -> Option<&PoolAhead> {
        self.fleet.snapshot.ahead.as_ref()?.pools.get(&self.fleet.pool)
    }

    /// Takes in what the metrics say.
    fn learn(&mut self, view: &View<'_>) {
        let Some(totals) = view.scrapes.totals() else { return };
        let (Some(pool), serving) = (self.fleet.pool(), self.fleet.serving()) else {
            return;
        };
        let counted = Counted {
            at: at(totals.at_ms),
            arrived: Counts {
                requests: totals.requests,
                prompt_tokens: totals.prompt_tokens,
                output_tokens: totals.output_tokens,
            },
            answered: Some(Answered {
                objectives: pool.objectives.clone(),
                requests: totals.answered as f64,
                measured: totals.measured.iter().map(|measured| *measured as f64).collect(),
                missed: totals.missed.iter().map(|missed| *missed as f64).collect(),
            }),
        };
        let (events, ahead) = (pool.events.clone(), self.fleet.snapshot.ahead.clone());
        let seen = Circumstances {
            events: &events,
            serving: &serving,
            ahead: ahead.as_ref().and_then(|ahead| ahead.pools.get(&self.fleet.pool)),
            gap: GAP,
        };
        if let Some(past) = self.fleet.past_mut() {
            self.learner.learn(Arc::make_mut(past), &counted, &seen);
        }
        self.cover(view);
    }

    /// Counts how often the rate of five minutes was within the forecast's band.
    fn cover(&mut self, view: &View<'_>) {
        if view.now_ms < self.covered_ms.saturating_add(300_000) {
            return;
        }
        if let (Some([low, _, high]), Some(work), Some(window)) = (
            self.expected(),
            self.planned().map(|planned| planned.work),
            view.scrapes.window(COVERED_S),
        ) {
            self.covered_ms = view.now_ms;
            self.covered.1 += 1;
            // In requests of the size that was planned for.
            let rate = window.rate * of_tokens(window.mean_prompt, window.mean_output) / work;
            self.covered.0 += u64::from((low..=high).contains(&rate));
        }
    }

    /// Plans ahead, if it is time to.
    fn look_ahead(&mut self, now: Timestamp) {
        let tried_at = self.fleet.snapshot.ahead.as_ref().map(|ahead| ahead.made_at);
        if due(&self.fleet.snapshot, now, tried_at, false).is_none() {
            return;
        }
        let known = self.ablation.forecast.then(|| self.blind()).flatten();
        let started = Instant::now();
        let ahead = look_ahead_by(self.method, &self.fleet.snapshot, now, &mut self.memo, Effort::REPLAN);
        self.plan_ms.push(started.elapsed().as_secs_f64() * 1_000.0);
        self.gaps.push(ahead.gap());
        if let (Some(known), Some(past)) = (known, self.fleet.past_mut()) {
            *past = known;
        }
        if let (Some(planned), Some(past)) = (ahead.pools.get(&self.fleet.pool), self.fleet.past_mut()) {
            Arc::make_mut(past).prices.clone_from(&planned.prices);
        }
        if let (Some(known), Some(past)) = (ahead.calibrations.get(&self.fleet.pool), self.fleet.past_mut()) {
            Arc::make_mut(past).calibrations.clone_from(known);
        }
        self.fleet.snapshot.ahead = Some(Arc::new(ahead));
    }

    /// Takes the history away. What it was.
    fn blind(&mut self) -> Option<Arc<Past>> {
        let past = self.fleet.past_mut()?;
        let blind = Past {
            ledger: past.ledger.clone(),
            prices: past.prices.clone(),
            calibrations: past.calibrations.clone(),
            ..Past::default()
        };
        Some(std::mem::replace(past, Arc::new(blind)))
    }
}

impl Policy for Pomarium {
    fn name(&self) -> &str {
        &self.name
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let now = at(view.now_ms);
        self.fleet.look(view);
        self.learn(view);
        self.look_ahead(now);
        let plan = planning::plan_again(&self.fleet.snapshot, now, &mut self.passes);
        if let Some(reason) = describe(&plan) {
            self.reason = reason;
        }
        self.fleet.carry_out(plan, now)
    }

    fn reason(&self) -> String {
        self.reason.clone()
    }

    fn expected(&self) -> Option<[f64; 3]> {
        Some(self.planned()?.expected()?.map(Rate::as_per_second))
    }

    fn figures(&self) -> Figures {
        let sorted = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted
        };
        let (gaps, times) = (sorted(&self.gaps), sorted(&self.plan_ms));
        let at = |values: &[f64], percent: usize| values.get(values.len().saturating_sub(1) * percent / 100).copied();
        Figures {
            forecast_coverage: (self.covered.1 > 0).then(|| self.covered.0 as f64 / self.covered.1 as f64),
            gap_median: at(&gaps, 50),
            gap_max: gaps.last().copied(),
            bound: None,
            plan_ms_p50: at(&times, 50),
            plan_ms_p99: at(&times, 99),
        }
    }
}

/// Why the plan does what it does; `None` if it does nothing.
fn describe(plan: &Plan) -> Option<String> {
    let mut told: Vec<String> = Vec::new();
    for decision in plan
        .decisions
        .iter()
        .filter(|decision| decision.verdict == Verdict::Act)
    {
        let text = format!("{} ({})", decision.message, decision.reason);
        if !told.contains(&text) {
            told.push(text);
        }
        if told.len() == TOLD {
            break;
        }
    }
    (!told.is_empty()).then(|| told.join("; "))
}

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(EPOCH_MS.saturating_add(ms))
}
