//! A fixed set of servers under steady traffic: what the capacity model's predictions are held against.
//!
//! It shares the engine with [`pomarium_kernel::capacity::curve`], but neither random numbers nor routing nor accounting.

use std::convert::Infallible;

use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::random::SplitMix;
use pomarium_kernel::snapshot::{Discipline, LengthMix, Metric, Objective};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Fraction;

use crate::machines::{GroupModel, Phase};
use crate::trace::Arrival;
use crate::world::{Command, Policy, Scenario, View, World};

/// Servers and their traffic.
#[derive(Clone, Debug)]
pub struct Steady<'a> {
    /// Step times of the servers, and how many there are of each kind.
    pub servers: &'a [(StepTimes, u32)],
    /// Lengths of the requests: each class is equally likely.
    pub mix: &'a LengthMix,
    /// How requests meet servers.
    pub discipline: Discipline,
    /// Requests per second, a Poisson stream.
    pub rate: f64,
    /// How many requests; a twentieth of them fills the servers and is not counted.
    pub requests: u64,
    /// For arrivals, lengths and routing.
    pub seed: u64,
}

impl Steady<'_> {
    /// The latencies in ms that these shares of the requests stay within; infinite where too many had no answer.
    pub fn latencies(&self, at: &[(Metric, f64)]) -> Vec<f64> {
        let objectives = at.iter().map(|&(metric, share)| Objective {
            metric,
            percentile: Fraction::new(share),
            threshold: Span::from_secs(1),
            window: Span::from_hours(24),
        });
        let group = |(index, &(times, count)): (usize, &(StepTimes, u32))| GroupModel {
            name: format!("kind{index}"),
            times,
            load_ms: 0,
            lead_ms: 0,
            recycle_ms: 0,
            minimum_lease_ms: 0,
            hourly: 0.0,
            idle_watts: 0.0,
            busy_watts: 0.0,
            price_per_kwh: 0.0,
            max: count,
            always_on: true,
        };
        let groups = self.servers.iter().enumerate().map(group).collect();
        let (_, mean_output) = self.mix.means();
        #[expect(clippy::cast_possible_truncation, reason = "a time in ms")]
        let scenario = Scenario {
            discipline: self.discipline,
            start_ms: -1_000,
            score_from_ms: (self.requests as f64 / self.rate * 50.0) as i64,
            tick_ms: 600_000,
            grace_ms: 100_000_000,
            seed: self.seed,
            ..Scenario::new(groups, objectives.collect(), mean_output)
        };
        let mut random = SplitMix::new(self.seed);
        let mut at_ms = 0.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time, and an index"
        )]
        let trace = (0..self.requests).map(|_| {
            at_ms -= (1.0 - random.unit()).ln() / self.rate * 1e3;
            let class = (random.unit() * self.mix.classes.len() as f64) as usize;
            let (prompt_tokens, output_tokens) = self.mix.classes[class];
            Ok::<_, Infallible>(Arrival {
                arrival_ms: at_ms as u64,
                prompt_tokens,
                output_tokens,
            })
        });
        let Ok(outcome) = World::new(&scenario, None).run(trace, &mut ServeWithAll);
        let value =
            |score: &crate::score::ObjectiveScore| score.value_seconds.map_or(f64::INFINITY, |value| value * 1e3);
        outcome.objectives.iter().map(value).collect()
    }
}

struct ServeWithAll;

impl Policy for ServeWithAll {
    fn name(&self) -> &'static str {
        "serve with all"
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let idle = |machine: &usize| view.machines[*machine].phase == Phase::Idle;
        let serve = |machine| Command::Serve { machine };
        (0..view.machines.len()).filter(idle).map(serve).collect()
    }
}
