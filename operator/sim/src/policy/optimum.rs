//! A schedule that knows the future: the strategic plan of the whole trace at once, from its real arrivals.
//!
//! What it burns is predicted by the same curves as Pomarium's plans; [`crate::sweep`] moves its knob, the share of the error budget that is
//! planned to be spent, until the *simulated* objectives just hold. Its plan's bound is a lower bound of the cost of any schedule,
//! if curves predict burn exactly.
//!
//! It knows requests per minute, and the lengths of some: its memory grows with the trace's duration, not with the number of requests.

use pomarium_kernel::capacity::Servers;
use pomarium_kernel::capacity::curve::{self, Curves};
use pomarium_kernel::performance::Performance;
use pomarium_kernel::snapshot::{LengthMix, Survive};
use pomarium_kernel::strategy::envelope::{Judge, steady_burn};
use pomarium_kernel::strategy::{Class, Demand, Effort, Leg, Problem, StrategicPlan, Unit, Window, solve};

use crate::machines::{GroupModel, Phase};
use crate::trace::Arrival;
use crate::world::{Command, Figures, Policy, Scenario, View};

/// Slots of the plan.
const SLOT_MS: i64 = 900_000;
/// Rates are taken over so long.
const BUCKET_MS: i64 = 60_000;
/// Classes of lengths, and requests they are sampled from.
const CLASSES: usize = 64;
const SAMPLES: u64 = 20_000;

/// What is known of a trace that has not been played yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreseen {
    last_ms: Option<u64>,
    /// Requests/s per bucket from the start of the trace.
    rates: Vec<f64>,
    /// Prompt and output tokens of every n-th request.
    samples: Vec<(u32, u32)>,
}

impl Foreseen {
    /// Of `requests`, of which there are `count`.
    pub fn of<E>(requests: impl IntoIterator<Item = Result<Arrival, E>>, count: u64) -> Result<Self, E> {
        let every = (count / SAMPLES).max(1);
        let mut foreseen = Self::default();
        for (index, arrival) in (0_u64..).zip(requests) {
            let arrival = arrival?;
            foreseen.last_ms = Some(arrival.arrival_ms);
            let bucket = usize::try_from(arrival.arrival_ms / BUCKET_MS.unsigned_abs()).unwrap_or(usize::MAX);
            if foreseen.rates.len() <= bucket {
                foreseen.rates.resize(bucket + 1, 0.0);
            }
            foreseen.rates[bucket] += 1_000.0 / BUCKET_MS as f64;
            if index.is_multiple_of(every) {
                foreseen.samples.push((arrival.prompt_tokens, arrival.output_tokens));
            }
        }
        Ok(foreseen)
    }
}

/// A plan of the whole trace.
pub struct Optimum {
    plan: StrategicPlan,
    start_ms: i64,
    end_s: f64,
    /// Per group, per unit: legs still to come, the next one last, and the machine it has become.
    units: Vec<Vec<Planned>>,
}

#[derive(Clone, Debug, Default)]
struct Planned {
    legs: Vec<Leg>,
    machine: Option<usize>,
    asked: bool,
}

impl Optimum {
    /// Plans the whole trace, which does nothing if it is empty, spending `share` of every window's error budget.
    pub fn new(scenario: &Scenario, foreseen: &Foreseen, share: f64, effort: Effort) -> Self {
        let problem = problem(scenario, foreseen, share).unwrap_or_default();
        let plan = solve(&problem, None, effort);
        let units = plan
            .courses
            .iter()
            .map(|class| {
                let planned = |legs: &Vec<Leg>| Planned {
                    legs: legs.iter().rev().copied().collect(),
                    ..Planned::default()
                };
                class.iter().map(planned).collect()
            })
            .collect();
        Self {
            plan,
            start_ms: scenario.start_ms,
            end_s: problem.boundaries_s.last().copied().unwrap_or(0.0),
            units,
        }
    }
}

fn problem(scenario: &Scenario, foreseen: &Foreseen, share: f64) -> Option<Problem> {
    let end_ms = i64::try_from(foreseen.last_ms?).ok()?;
    let mut boundaries_ms = vec![scenario.start_ms];
    while *boundaries_ms.last()? <= end_ms {
        // Slots begin at multiples of their length, so that no window ends inside one.
        boundaries_ms.push((boundaries_ms.last()?.div_euclid(SLOT_MS) + 1) * SLOT_MS);
    }
    let arrivals: Vec<Vec<(f64, f64)>> = boundaries_ms
        .windows(2)
        .map(|slot| {
            let buckets =
                slot[0].div_euclid(BUCKET_MS)..slot[1].div_euclid(BUCKET_MS).max(slot[0].div_euclid(BUCKET_MS) + 1);
            let count = (buckets.end - buckets.start) as f64;
            buckets
                .map(|bucket| {
                    let rate = usize::try_from(bucket)
                        .ok()
                        .and_then(|bucket| foreseen.rates.get(bucket));
                    (1.0 / count, rate.copied().unwrap_or(0.0))
                })
                .collect()
        })
        .collect();
    let windows = windows(scenario, &boundaries_ms, &arrivals, share)?;
    let performance: Vec<Performance> = scenario.groups.iter().map(GroupModel::performance).collect();
    let mix = LengthMix::from_samples(foreseen.samples.iter().copied(), CLASSES)?;
    let all: Vec<Servers> = performance
        .iter()
        .zip(&scenario.groups)
        .map(|(performance, group)| Servers {
            performance,
            count: group.max,
        })
        .collect();
    let mut curves = Curves::new(curve::Effort::QUICK, 64);
    let (capacity, steady) = steady_burn(
        &all,
        &mix,
        scenario.discipline,
        &scenario.objectives,
        Judge::Distributions,
        &mut curves,
    )?;
    let burn = steady.without_bursts()?;
    Some(Problem {
        boundaries_s: boundaries_ms
            .iter()
            .map(|at_ms| seconds(at_ms - scenario.start_ms))
            .collect(),
        classes: classes(scenario, capacity),
        pools: vec![Demand {
            arrivals,
            burn,
            windows,
            miss_value: 0.0,
            survive: Survive::None,
            rank: 0,
            most: u32::MAX,
            budgets: Vec::new(),
            backlog: None,
        }],
        power_limits: Vec::new(),
        overhang: 0.0,
        change_hourly: 0.0,
    })
}

/// The windows of the objectives, each with `share` of the burn that it allows.
fn windows(
    scenario: &Scenario,
    boundaries_ms: &[i64],
    arrivals: &[Vec<(f64, f64)>],
    share: f64,
) -> Option<Vec<Window>> {
    let window = scenario.objectives.iter().map(|objective| objective.window).min()?;
    let window_ms = i64::try_from(window.as_millis()).ok()?.max(SLOT_MS);
    let mut windows: Vec<Window> = Vec::new();
    let mut number = None;
    for (slot, pair) in boundaries_ms.windows(2).enumerate() {
        let length = seconds(pair[1] - pair[0]);
        let requests: f64 = arrivals[slot].iter().map(|(weight, rate)| weight * rate * length).sum();
        let this = pair[0].div_euclid(window_ms);
        match windows.last_mut() {
            Some(last) if number == Some(this) => {
                last.slots.end = slot + 1;
                last.budget += requests * share;
            }
            _ => windows.push(Window {
                slots: slot..slot + 1,
                budget: requests * share,
            }),
        }
        number = Some(this);
    }
    Some(windows)
}

fn classes(scenario: &Scenario, capacity: Vec<f64>) -> Vec<Class> {
    scenario
        .groups
        .iter()
        .zip(capacity)
        .enumerate()
        .map(|(index, (group, capacity))| Class {
            tier: 0,
            site: index,
            hourly: group.hourly,
            energy_hourly: group.idle_watts / 1_000.0 * group.price_per_kwh,
            minimum_lease_s: group.minimum_lease_ms as f64 / 1_000.0,
            lead_s: (group.lead_ms + group.load_ms) as f64 / 1_000.0,
            recycle_s: group.recycle_ms as f64 / 1_000.0,
            switch_cost: 0.0,
            busy_watts: 0.0,
            capacity: vec![Some(capacity)],
            units: vec![
                if group.always_on {
                    Unit::Fixed { serves_s: 0.0 }
                } else {
                    Unit::Off { from_s: 0.0 }
                };
                group.max as usize
            ],
        })
        .collect()
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

impl Policy for Optimum {
    fn name(&self) -> &'static str {
        "optimum"
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let now_s = (view.now_ms - self.start_ms) as f64 / 1_000.0;
        let mut commands = Vec::new();
        for (group, units) in self.units.iter_mut().enumerate() {
            // What was asked for has become machines, in the order in which it was asked for.
            let taken: Vec<usize> = units.iter().filter_map(|unit| unit.machine).collect();
            let mut new = view
                .live()
                .filter(|(index, machine)| machine.group == group && !taken.contains(index))
                .map(|(index, _)| index);
            for unit in units.iter_mut() {
                if unit.machine.is_none() && (unit.asked || view.groups[group].always_on) {
                    unit.machine = new.next();
                    unit.asked = unit.machine.is_none() && unit.asked;
                }
            }
            let mut free = view.free(group);
            for unit in units.iter_mut() {
                let Some(leg) = unit.legs.last().copied() else { continue };
                match unit.machine {
                    None if !unit.asked && leg.from_s <= now_s && free > 0 => {
                        commands.push(Command::Lease { group });
                        unit.asked = true;
                        free -= 1;
                    }
                    None => {}
                    Some(machine) => {
                        // The lease began at a tick, a little later than planned: its term ends as much later.
                        let paid = view.now_ms < view.machines[machine].paid_until_ms(view.groups);
                        let kept = view.groups[group].always_on || leg.to_s >= self.end_s;
                        let over = leg.to_s <= now_s && !paid && !kept;
                        match view.machines[machine].phase {
                            Phase::Serving | Phase::Loading { .. } if over => commands.push(Command::Drain { machine }),
                            Phase::Idle | Phase::Failed if over => {
                                commands.push(Command::Release { machine });
                                unit.legs.pop();
                                unit.machine = None;
                            }
                            Phase::Idle => commands.push(Command::Serve { machine }),
                            _ => {}
                        }
                    }
                }
            }
        }
        commands
    }

    fn reason(&self) -> String {
        "as planned for the whole trace".to_owned()
    }

    fn figures(&self) -> Figures {
        Figures {
            gap_median: Some(self.plan.gap()),
            gap_max: Some(self.plan.gap()),
            bound: Some(self.plan.bound),
            ..Figures::default()
        }
    }
}
