//! `SkyServe`'s request-rate autoscaler (`skypilot sky/serve/autoscalers.py`, arXiv 2411.01438).
//!
//! `target = ceil(qps / target_qps_per_replica)` with the queries of the last 60 s, decided every 20 s. It grows only after the target has been
//! higher for 300 s in a row, and shrinks only after it has been lower for 1200 s. Its instance-aware variant has one
//! target per machine type: here in proportion to what a machine of that type does of the current mix, which favours it. What is not
//! ready is stood in for by the next in the order (its dynamic fallback), see `actuator`.
//!
//! Knob: the target of the first group.

use super::Rule;
use super::geometric;
use super::need::{Need, least};
use super::work::request_ms;
use crate::world::{Scenario, View};

const DECIDE_MS: i64 = 20_000;
const WINDOW_SECONDS: f64 = 60.0;
const UP_MS: i64 = 300_000;
const DOWN_MS: i64 = 1_200_000;
/// Before anything is measured, lengths of a conversation.
const PROMPT: f64 = 1_000.0;

pub(crate) struct SkyServe {
    target_qps: f64,
    mean_output: f64,
    /// Of the first group's machines, what one of each group does of the current mix.
    speeds: Vec<f64>,
    replicas: u32,
    next_ms: Option<i64>,
    /// Decisions in a row for more, and for fewer.
    more: i64,
    fewer: i64,
    qps: f64,
}

impl SkyServe {
    pub(crate) fn new(scenario: &Scenario, target_qps: f64) -> Self {
        Self {
            target_qps,
            mean_output: scenario.mean_output_tokens,
            speeds: speeds(scenario, PROMPT, scenario.mean_output_tokens),
            replicas: least(&scenario.groups),
            next_ms: None,
            more: 0,
            fewer: 0,
            qps: 0.0,
        }
    }

    fn units(&self) -> Vec<f64> {
        self.speeds.iter().map(|speed| speed * self.target_qps).collect()
    }

    fn decide(&mut self, target: u32) {
        self.more = if target > self.replicas { self.more + 1 } else { 0 };
        self.fewer = if target < self.replicas { self.fewer + 1 } else { 0 };
        if self.more >= UP_MS / DECIDE_MS || self.fewer >= DOWN_MS / DECIDE_MS {
            self.replicas = target;
            (self.more, self.fewer) = (0, 0);
        }
    }
}

impl Rule for SkyServe {
    fn need(&mut self, view: &View<'_>) -> Need {
        if let Some(window) = view.scrapes.window(WINDOW_SECONDS) {
            self.qps = window.rate;
            if window.mean_prompt > 0.0 {
                let first = view.groups.first().map(|group| group.times);
                let of = |times| request_ms(&times, window.mean_prompt, self.mean_output);
                self.speeds = view
                    .groups
                    .iter()
                    .map(|group| first.map_or(1.0, |first| of(first) / of(group.times)))
                    .collect();
            }
            let need = Need {
                units: self.units(),
                amount: self.qps,
            };
            let target = need.count(view.groups).max(least(view.groups));
            // The ticks are not its own: it decides as often as it would have.
            let next_ms = self.next_ms.get_or_insert(view.now_ms);
            let mut decisions = 0;
            while *next_ms <= view.now_ms {
                *next_ms += DECIDE_MS;
                decisions += 1;
            }
            for _ in 0..decisions {
                self.decide(target);
            }
        }
        Need::first(self.replicas, self.units(), view.groups)
    }

    fn reason(&self) -> String {
        let (qps, target, replicas) = (self.qps, self.target_qps, self.replicas);
        format!("{qps:.2} requests/s at a target of {target:.2} per replica: {replicas} replicas")
    }
}

fn speeds(scenario: &Scenario, prompt: f64, output: f64) -> Vec<f64> {
    let work: Vec<f64> = scenario
        .groups
        .iter()
        .map(|group| request_ms(&group.times, prompt, output))
        .collect();
    work.iter().map(|ms| work[0] / ms).collect()
}

/// What one machine of the first group finishes at most, in requests per second: users measure it to set their target.
pub(crate) fn saturation(scenario: &Scenario) -> f64 {
    scenario.groups.first().map_or(1.0, |group| {
        1e3 / request_ms(&group.times, PROMPT, scenario.mean_output_tokens)
    })
}

/// Around what a machine finishes at most.
pub(crate) fn knobs(scenario: &Scenario) -> Vec<f64> {
    let saturation = saturation(scenario);
    geometric(saturation * 0.2, saturation * 1.6, 11)
}
