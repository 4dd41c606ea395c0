//! Runs policies: once each, or over their knobs; and tells how far it is.

use indicatif::{ProgressBar, ProgressStyle};
use pomarium_kernel::names::PoolId;
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::strategy::Effort;
use pomarium_sim::policy::optimum::{Foreseen, Optimum};
use pomarium_sim::policy::pomarium::Pomarium;
use pomarium_sim::report::Played;
use pomarium_sim::schedule::Schedule;
use pomarium_sim::sweep::{Bench, Goal, Run};
use pomarium_sim::timeline::Timeline;
use pomarium_sim::trace::{Trace, TraceError};
use pomarium_sim::world::{Policy, Scenario, World};

use super::contenders::{Contender, Kind};
use super::is_watched;

/// Requests between two looks at the clock.
const STRIDE: u64 = 1_024;

/// Predicted burn over the error budget, at which schedules that know the future are tried: what is predicted from the rates of single minutes
/// is more than what is burnt.
const OPTIMUM_KNOBS: [f64; 6] = [0.7, 1.0, 1.5, 2.5, 4.0, 8.0];

/// Then closer between the highest that attains and the next that does not.
const OPTIMUM_BISECTIONS: usize = 5;

/// What policies are run on.
pub(super) struct Stage<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) trace: &'a dyn Trace,
    /// How many requests that are.
    pub(super) requests: u64,
    /// What who knows the future knows of it; empty if nobody does.
    pub(super) foreseen: &'a Foreseen,
    pub(super) goal: Goal,
    /// The objects behind it.
    pub(super) declared: &'a Snapshot,
    /// The pool whose requests these are.
    pub(super) pool: &'a PoolId,
    /// Whether to record what happens when.
    pub(super) timelines: bool,
}

impl Stage<'_> {
    /// One contender runs once. Of several each is swept, unless its knob is fixed; what counts of it is played again with its time
    /// line. The second result is every run of every sweep.
    pub(super) fn play(
        &self,
        contenders: &[Contender],
        schedule: Option<&mut Schedule>,
    ) -> Result<(Vec<Played>, Vec<Run>), TraceError> {
        if let [contender] = contenders {
            let knob = contender.knob.unwrap_or_else(|| contender.published(self.scenario));
            let lease_aware = contender.lease_aware.unwrap_or(false);
            return Ok((vec![self.once(contender, lease_aware, knob, schedule)?], Vec::new()));
        }
        let mut runs = Vec::new();
        let mut chosen = Vec::new();
        for contender in contenders {
            if let Some(knob) = contender.knob {
                chosen.push((contender, contender.lease_aware.unwrap_or(false), knob));
                continue;
            }
            let mut swept = self.sweep(contender)?;
            if let Some(best) = self.best(&swept) {
                chosen.push((contender, best.policy.ends_with("+leases"), best.knob));
            }
            runs.append(&mut swept);
        }
        let played = chosen
            .into_iter()
            .map(|(contender, lease_aware, knob)| self.once(contender, lease_aware, knob, None));
        Ok((played.collect::<Result<_, _>>()?, runs))
    }

    /// The cheapest run that attains, or else the one that comes nearest.
    fn best<'r>(&self, runs: &'r [Run]) -> Option<&'r Run> {
        let Goal { over, accounting } = self.goal;
        let cost = |run: &Run| run.outcome.cost(accounting);
        let attaining = runs.iter().filter(|run| run.outcome.attains(over));
        let nearest = || {
            runs.iter().max_by(|left, right| {
                let by_margin = left.outcome.margin(over).total_cmp(&right.outcome.margin(over));
                by_margin.then(cost(right).total_cmp(&cost(left)))
            })
        };
        attaining
            .min_by(|left, right| cost(left).total_cmp(&cost(right)))
            .or_else(nearest)
    }

    fn sweep(&self, contender: &Contender) -> Result<Vec<Run>, TraceError> {
        let expected = match contender.kind {
            Kind::Peer(baseline) if baseline.whole => 2 + self.machines().ilog2() as usize,
            Kind::Peer(baseline) => baseline.knobs(self.scenario).len() + 4,
            Kind::Pomarium(_) => 1,
            Kind::Optimum => OPTIMUM_KNOBS.len() + OPTIMUM_BISECTIONS,
        };
        let bar = bar(
            (contender.variants() * expected) as u64,
            &format!("{}: sweeping its knob", contender.name()),
            "{msg:32} {bar:30} {pos}/~{len} runs, {eta} left",
        );
        let told = |_: &Run| {
            bar.inc(1);
            if bar.position() > bar.length().unwrap_or(0) {
                bar.inc_length(1);
            }
        };
        let bench = Bench {
            scenario: self.scenario,
            trace: self.trace,
            progress: &told,
        };
        let runs = match contender.kind {
            Kind::Peer(baseline) => bench
                .cheapest_attaining(baseline, contender.lease_aware, self.goal)
                .map(|search| search.runs),
            // Nobody tunes it: it is told the objectives, not the answer.
            Kind::Pomarium(_) => {
                let knob = contender.published(self.scenario);
                let mut policy = self.build(contender, false, knob);
                bench.run(policy.as_mut(), knob).map(|run| vec![run])
            }
            Kind::Optimum => self.optimum(contender, &bench),
        };
        bar.finish_and_clear();
        runs
    }

    /// Schedules that know the future, from many servers to few, and closer where objectives just hold.
    fn optimum(&self, contender: &Contender, bench: &Bench) -> Result<Vec<Run>, TraceError> {
        let run = |knob: f64| bench.run(self.build(contender, false, knob).as_mut(), knob);
        let mut runs = OPTIMUM_KNOBS.into_iter().map(run).collect::<Result<Vec<Run>, _>>()?;
        for _ in 0..OPTIMUM_BISECTIONS {
            let knobs = |attains: bool| {
                let those = runs
                    .iter()
                    .filter(move |run| run.outcome.attains(self.goal.over) == attains);
                those.map(|run| run.knob)
            };
            let highest = knobs(true).fold(0.0, f64::max);
            let above = knobs(false)
                .filter(|knob| *knob > highest)
                .fold(f64::INFINITY, f64::min);
            if highest <= 0.0 || !above.is_finite() {
                break;
            }
            runs.push(run(f64::midpoint(highest, above))?);
        }
        Ok(runs)
    }

    fn build(&self, contender: &Contender, lease_aware: bool, knob: f64) -> Box<dyn Policy> {
        match contender.kind {
            Kind::Peer(baseline) => baseline.build(lease_aware, knob, self.scenario),
            Kind::Pomarium(ablation) => {
                let policy = Pomarium::new(contender.name(), self.scenario, self.declared, self.pool, ablation);
                Box::new(policy.spending(knob))
            }
            Kind::Optimum => Box::new(Optimum::new(self.scenario, self.foreseen, knob, Effort::EXHAUSTIVE)),
        }
    }

    fn machines(&self) -> u32 {
        let machines: u32 = self.scenario.groups.iter().map(|group| group.max).sum();
        machines.max(1)
    }

    fn once(
        &self,
        contender: &Contender,
        lease_aware: bool,
        knob: f64,
        schedule: Option<&mut Schedule>,
    ) -> Result<Played, TraceError> {
        let mut policy = self.build(contender, lease_aware, knob);
        let bar = bar(
            self.requests,
            policy.name(),
            "{msg:32} {bar:30} {percent:>3} % of {len} requests, {eta} left",
        );
        let requests = (0_u64..).zip(self.trace.requests()?).map(|(index, arrival)| {
            if index.is_multiple_of(STRIDE) {
                bar.set_position(index);
            }
            arrival
        });
        let mut timeline = self.timelines.then(Timeline::new);
        let mut world = World::new(self.scenario, schedule);
        if let Some(timeline) = &mut timeline {
            world = world.with_timeline(timeline);
        }
        let outcome = world.run(requests, policy.as_mut());
        bar.finish_and_clear();
        Ok(Played {
            run: Run {
                policy: policy.name().to_owned(),
                knob,
                outcome: outcome?,
            },
            knob: Some(contender.knob_name().to_owned()),
            figures: policy.figures(),
            timeline,
        })
    }
}

/// A bar on stderr, if somebody watches it.
fn bar(length: u64, message: &str, template: &str) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length).with_message(message.to_owned());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
