//! Pomarium's own policy: the strategic plan of the kernel, carried out tick by tick.
//!
//! Every decision is the kernel's: how many servers to lease and until when each is wanted. What is left to do here is what the
//! controller's tactical pass does without judgement: replicas on every idle machine that is wanted, drains before releases.

use std::time::Instant;

use pomarium_kernel::capacity::curve;
use pomarium_kernel::forecast::Counts;
use pomarium_kernel::performance::Performance;
use pomarium_kernel::snapshot::{Discipline, LengthMix, Objective, Pool, Survive};
use pomarium_kernel::strategy::Effort;
use pomarium_kernel::strategy::dwell::Considered;
use pomarium_kernel::strategy::envelope::{Consumer, Envelope, Held, Memo, SPEND, Situation, Supply, plan};
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Rate;

use crate::machines::{GroupModel, Machine, Phase};
use crate::scrape::Totals;
use crate::world::{Command, Figures, Policy, Scenario, View};

/// The trace's start on the kernel's calendar: midnight UTC of 1 January 2026, from which windows of a day and of a week both tumble.
pub(crate) const EPOCH_MS: i64 = 20_454 * 86_400_000;

/// Strategic plans are made so often.
const REPLAN_MS: i64 = 300_000;
/// And earlier when demand exceeds what was forecast, but no more often than this.
const SURPRISED_MS: i64 = 60_000;
/// Curves that are kept.
const CURVES: usize = 256;
/// Classes of request lengths.
const CLASSES: usize = 64;
/// Lengths are looked at so often.
const MIX_MS: i64 = 1_800_000;
/// Lengths that differ by less are not worth new curves.
const MIX_TOLERANCE: f64 = 0.1;
/// Fewer requests say too little about lengths.
const LEAST_LENGTHS: usize = 200;

/// What is switched off, to see what it is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ablation {
    /// Demand is expected to stay as it is.
    pub forecast: bool,
    /// Leases have no minimum, as far as the plan knows.
    pub leases: bool,
}

/// The policy.
pub struct Pomarium {
    name: String,
    objectives: Vec<Objective>,
    discipline: Discipline,
    survive: Survive,
    miss_penalty: f64,
    spend: f64,
    performance: Vec<Performance>,
    memo: Memo,
    mix: LengthMix,
    mix_at_ms: Option<i64>,
    past: Past,
    seen: Totals,
    looked: Totals,
    /// Serving machines by group, summed over the ticks since then.
    served: Vec<f64>,
    ticks: f64,
    envelope: Option<Envelope>,
    considered: Considered,
    planned_ms: i64,
    /// Machines that are on their way out.
    leaving: Vec<usize>,
    ablation: Ablation,
    reason: String,
    plan_ms: Vec<f64>,
    gaps: Vec<f64>,
    covered: (u64, u64),
}

impl Pomarium {
    /// For `pool`, the one that `scenario` is about.
    pub fn new(name: &str, scenario: &Scenario, pool: &Pool, ablation: Ablation) -> Self {
        Self {
            name: name.to_owned(),
            objectives: scenario.objectives.clone(),
            discipline: scenario.discipline,
            survive: pool.placement.survive_loss_of,
            miss_penalty: pool.miss_penalty.as_f64(),
            spend: SPEND,
            performance: scenario.groups.iter().map(GroupModel::performance).collect(),
            memo: Memo::new(curve::Effort::QUICK, CURVES),
            mix: LengthMix::assumed().within_context(scenario.context_tokens),
            mix_at_ms: None,
            past: Past::default(),
            seen: Totals::default(),
            looked: Totals::default(),
            served: vec![0.0; scenario.groups.len()],
            ticks: 0.0,
            envelope: None,
            considered: Considered::default(),
            planned_ms: i64::MIN,
            leaving: Vec::new(),
            ablation,
            reason: String::new(),
            plan_ms: Vec::new(),
            gaps: Vec::new(),
            covered: (0, 0),
        }
    }

    /// The same, planning to spend this share of every error budget.
    #[must_use]
    pub fn spending(mut self, share: f64) -> Self {
        self.spend = share;
        self
    }

    /// Takes in what the metrics say.
    fn observe(&mut self, view: &View<'_>) {
        let Some(totals) = view.scrapes.totals() else { return };
        let since = std::mem::replace(&mut self.seen, totals.clone());
        // Before its first request a pool has no traffic to learn from.
        if since.at_ms >= totals.at_ms || since.requests == 0 {
            return;
        }
        let counts = Counts {
            requests: totals.requests - since.requests,
            prompt_tokens: totals.prompt_tokens - since.prompt_tokens,
            output_tokens: totals.output_tokens - since.output_tokens,
        };
        let (from, until) = (at(since.at_ms), at(totals.at_ms));
        self.past.arrived(from, until, counts, &[]);
        self.look(view, totals);
    }

    /// Compares what was burnt with what was expected, every few minutes: over less, chance says more than load.
    fn look(&mut self, view: &View<'_>, totals: Totals) {
        for (sum, group) in self.served.iter_mut().zip(0..) {
            let serves = |machine: &Machine| machine.group == group && machine.phase == Phase::Serving;
            *sum += view.live().filter(|(_, machine)| serves(machine)).count() as f64;
        }
        self.ticks += 1.0;
        let since = &self.looked;
        if totals.at_ms < since.at_ms + REPLAN_MS {
            return;
        }
        let until = at(totals.at_ms);
        let answered = (totals.answered - since.answered) as f64;
        let missed: Vec<f64> = (0..totals.missed.len())
            .map(|objective| (totals.missed[objective] - since.missed.get(objective).unwrap_or(&0)) as f64)
            .collect();
        let rate = self.past.history.lately(until).unwrap_or(Rate::ZERO);
        let serving: Vec<f64> = self.served.iter().map(|sum| sum / self.ticks).collect();
        let pool = self.envelope.as_ref().and_then(|envelope| envelope.pools.first());
        let predicted = pool.and_then(|pool| pool.expected_burn(rate, &serving));
        self.past
            .ledger
            .answered(until, &self.objectives, answered, &missed, predicted);
        self.served.fill(0.0);
        self.ticks = 0.0;
        self.looked = totals;
        self.cover(view);
    }

    /// Counts how often the rate of five minutes was within the forecast's band.
    fn cover(&mut self, view: &View<'_>) {
        if let (Some([low, _, high]), Some(window)) = (self.expected(), view.scrapes.window(300.0)) {
            self.covered.1 += 1;
            self.covered.0 += u64::from((low..=high).contains(&window.rate));
        }
    }

    fn is_due(&self, view: &View<'_>) -> bool {
        if self.envelope.is_none() || view.now_ms >= self.planned_ms.saturating_add(REPLAN_MS) {
            return true;
        }
        let surprised = match (self.expected(), view.scrapes.window(120.0)) {
            (Some([_, _, high]), Some(window)) => window.rate > high * 1.1,
            _ => false,
        };
        surprised && view.now_ms >= self.planned_ms.saturating_add(SURPRISED_MS)
    }

    fn plan(&mut self, view: &View<'_>) -> Vec<Command> {
        self.planned_ms = view.now_ms;
        let lengths = view.scrapes.lengths();
        let stale = self.mix_at_ms.is_none_or(|at_ms| view.now_ms >= at_ms + MIX_MS);
        if stale
            && lengths.len() >= LEAST_LENGTHS
            && let Some(mix) = LengthMix::from_samples(lengths, CLASSES)
        {
            self.mix = mix.settled(Some(&self.mix), MIX_TOLERANCE);
            self.mix_at_ms = Some(view.now_ms);
        }
        let machines: Vec<Vec<usize>> = (0..view.groups.len())
            .map(|group| {
                let here = view.live().filter(|(_, machine)| machine.group == group);
                here.map(|(index, _)| index).collect()
            })
            .collect();
        let supplies = (0..view.groups.len())
            .map(|group| self.supply(view, group, &machines[group]))
            .collect();
        let blind = self.ablation.forecast.then(|| Past {
            ledger: self.past.ledger.clone(),
            prices: self.past.prices.clone(),
            ..Past::default()
        });
        let situation = Situation {
            now: at(view.now_ms),
            supplies,
            pools: vec![Consumer {
                performance: self.performance.iter().map(Some).collect(),
                mix: &self.mix,
                discipline: self.discipline,
                objectives: &self.objectives,
                survive: self.survive,
                miss_penalty: self.miss_penalty,
                spend: self.spend,
                recent: view.scrapes.window(120.0).map(|window| Rate::per_second(window.rate)),
                past: blind.as_ref().unwrap_or(&self.past),
                events: &[],
            }],
            considered: self.considered.clone(),
        };
        let started = Instant::now();
        let envelope = plan(&situation, &mut self.memo, Effort::REPLAN);
        self.plan_ms.push(started.elapsed().as_secs_f64() * 1_000.0);
        self.gaps.push(envelope.gap());
        self.considered.clone_from(&envelope.considered);
        if let Some(pool) = envelope.pools.first() {
            self.past.prices.clone_from(&pool.prices);
        }
        let now = at(view.now_ms);
        self.leaving = machines
            .iter()
            .zip(&envelope.supplies)
            .flat_map(|(machines, supply)| machines.iter().zip(&supply.until))
            .filter(|(_, until)| until.is_some_and(|until| until <= now))
            .map(|(&machine, _)| machine)
            .collect();
        let mut commands = Vec::new();
        for (group, supply) in envelope.supplies.iter().enumerate() {
            let free = view.free(group);
            let buy = usize::try_from(supply.buy).unwrap_or(0).min(free);
            commands.extend((0..buy).map(|_| Command::Lease { group }));
        }
        self.reason = describe(view, &envelope, self.leaving.len());
        self.envelope = Some(envelope);
        commands
    }

    fn supply(&self, view: &View<'_>, group: usize, machines: &[usize]) -> Supply {
        let model = &view.groups[group];
        let load = Span::from_millis(model.load_ms);
        let minimum = if self.ablation.leases {
            0
        } else {
            model.minimum_lease_ms
        };
        let held = machines.iter().map(|&index| {
            let machine = &view.machines[index];
            let serves_ms = match machine.phase {
                Phase::Booting { ready_ms } => ready_ms.max(view.now_ms).saturating_add_unsigned(model.load_ms),
                Phase::Loading { loaded_ms } => loaded_ms,
                // It is repaired at some time.
                Phase::Failed => view.now_ms + 3_600_000,
                Phase::Idle | Phase::Serving | Phase::Draining | Phase::Released => view.now_ms,
            };
            Held {
                serves_at: at(serves_ms),
                paid_until: at(machine.leased_ms.saturating_add_unsigned(minimum)),
                fixed: model.always_on,
            }
        });
        let free = view.free_at(group).map(|from_ms| {
            // Out of stock: asked again later, and until then others stand in.
            let again_ms = view
                .out_of_stock_ms(group)
                .map_or(i64::MIN, |refused_ms| refused_ms + 600_000);
            at(from_ms.max(again_ms).max(view.now_ms))
        });
        Supply {
            tier: u32::try_from(group).unwrap_or(u32::MAX),
            site: group,
            hourly: model.hourly,
            energy_hourly: model.idle_watts / 1_000.0 * model.price_per_kwh,
            minimum_lease: Span::from_millis(minimum),
            provision: Span::from_millis(model.lead_ms),
            load,
            recycle: Span::from_millis(model.recycle_ms),
            switch_cost: SWITCH_COST,
            held: held.collect(),
            free: free.collect(),
        }
    }
}

/// A start is only worth it from this saving on, in the hub's currency.
const SWITCH_COST: f64 = 0.02;

impl Policy for Pomarium {
    fn name(&self) -> &str {
        &self.name
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        self.observe(view);
        let mut commands = if self.is_due(view) { self.plan(view) } else { Vec::new() };
        for (index, machine) in view.live() {
            let leaves = self.leaving.contains(&index);
            match machine.phase {
                Phase::Serving | Phase::Loading { .. } if leaves => commands.push(Command::Drain { machine: index }),
                Phase::Idle | Phase::Failed if leaves => commands.push(Command::Release { machine: index }),
                Phase::Idle => commands.push(Command::Serve { machine: index }),
                Phase::Draining if !leaves => commands.push(Command::Resume { machine: index }),
                _ => {}
            }
        }
        commands
    }

    fn reason(&self) -> String {
        self.reason.clone()
    }

    fn expected(&self) -> Option<[f64; 3]> {
        let forecast = self.envelope.as_ref()?.pools.first()?.forecast.as_ref()?;
        let first = forecast.slots.first()?.requests.0;
        Some([first[0], first[2], first[5]].map(Rate::as_per_second))
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

fn describe(view: &View<'_>, envelope: &Envelope, leaving: usize) -> String {
    let bought: Vec<String> = envelope
        .supplies
        .iter()
        .zip(view.groups)
        .filter(|(supply, _)| supply.buy > 0)
        .map(|(supply, group)| format!("{} of {}", supply.buy, group.name))
        .collect();
    let budget = envelope.pools.first().and_then(|pool| pool.windows.first());
    let budget = budget.map_or(String::new(), |(_, burnt)| {
        let share = if burnt.budget > 0.0 {
            burnt.expected / burnt.budget * 100.0
        } else {
            100.0
        };
        format!("; expected to spend {share:.0} % of what is left of the error budget")
    });
    match (bought.is_empty(), leaving) {
        (true, 0) => format!("as planned{budget}"),
        (true, _) => format!("{leaving} no longer wanted{budget}"),
        (false, 0) => format!("lease {} ahead of demand{budget}", bought.join(", ")),
        (false, _) => format!("lease {}, {leaving} no longer wanted{budget}", bought.join(", ")),
    }
}

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(EPOCH_MS.saturating_add(ms))
}
