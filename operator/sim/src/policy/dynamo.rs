//! NVIDIA Dynamo's SLA planner (`ai-dynamo/dynamo components/src/dynamo/planner`).
//!
//! Every 180 s it predicts the next interval's requests, prompt and output lengths, one step ahead. Prefill needs
//! `req·ISL/interval·min(1, c_ttft)` over the throughput of a prefill; decode needs `req·OSL/interval` over the best decode throughput
//! whose step meets `ITL / c_itl`. The corrections `c` are observed over expected latencies. Here one engine does both, so the two shares of its time
//! are added; the profile is the machines' own step times, for each group. No stabilisation.
//!
//! Its default predictor is ARIMA: here of the order (1, 1, 0), fitted by least squares over the last 50 intervals, and the last value before there
//! are five. Knob: a factor on the predicted load.

use std::collections::VecDeque;

use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::snapshot::{Metric, Objective};

use super::Rule;
use super::need::{Need, least};
use crate::machines::Phase;
use crate::world::View;

const INTERVAL_MS: i64 = 180_000;
const INTERVAL_SECONDS: f64 = 180.0;
const KEPT: usize = 50;
const LEAST: usize = 5;

pub(crate) struct Dynamo {
    itl_ms: Option<f64>,
    factor: f64,
    next_ms: Option<i64>,
    rate: Predictor,
    prompt: Predictor,
    output: Predictor,
    need: Option<Need>,
    replicas: u32,
}

impl Dynamo {
    pub(crate) fn new(objectives: &[Objective], factor: f64) -> Self {
        let itl = objectives
            .iter()
            .find(|objective| objective.metric == Metric::InterTokenLatency);
        Self {
            itl_ms: itl.map(|objective| objective.threshold.as_millis() as f64),
            factor,
            next_ms: None,
            rate: Predictor::default(),
            prompt: Predictor::default(),
            output: Predictor::default(),
            need: None,
            replicas: 1,
        }
    }

    fn plan(&mut self, view: &View<'_>) {
        let Some(window) = view.scrapes.window(INTERVAL_SECONDS) else {
            return;
        };
        self.rate.add(window.rate);
        if window.mean_prompt > 0.0 {
            self.prompt.add(window.mean_prompt);
            self.output.add(window.mean_output);
        }
        let (Some(rate), Some(prompt), Some(output)) = (self.rate.next(), self.prompt.next(), self.output.next())
        else {
            return;
        };

        let serving: Vec<&StepTimes> = view
            .live()
            .filter(|(_, machine)| machine.phase == Phase::Serving)
            .map(|(_, machine)| &view.groups[machine.group].times)
            .collect();
        let held = window.in_flight / serving.len().max(1) as f64;
        let expected = |of: &dyn Fn(&Profile) -> f64| {
            serving.iter().map(|times| of(&Profile::new(times))).sum::<f64>() / serving.len() as f64
        };
        let correction = |observed_ms: f64, expected_ms: f64| {
            let known = window.answered > 0 && expected_ms.is_finite() && expected_ms > 0.0 && observed_ms > 0.0;
            if known { observed_ms / expected_ms } else { 1.0 }
        };
        let ttft = correction(window.mean_ttft_ms, expected(&|profile| profile.ttft_ms(prompt)));
        let itl = correction(window.mean_itl_ms, expected(&|profile| profile.step_ms(held)));
        let units: Vec<f64> = view
            .groups
            .iter()
            .map(|group| {
                let profile = Profile::new(&group.times);
                let step_limit_ms = self.itl_ms.map_or(f64::INFINITY, |itl_ms| itl_ms / itl);
                let prefill_ms = prompt * ttft.min(1.0) * profile.ms_per_prompt_token();
                let decode_ms = output * profile.ms_per_output_token(step_limit_ms);
                1e3 / (prefill_ms + decode_ms).max(1e-3)
            })
            .collect();
        let need = Need {
            units,
            amount: rate * self.factor,
        };
        self.replicas = need.count(view.groups).max(least(view.groups));
        self.need = Some(Need::first(self.replicas, need.units, view.groups));
    }
}

impl Rule for Dynamo {
    fn need(&mut self, view: &View<'_>) -> Need {
        if view.now_ms >= *self.next_ms.get_or_insert(view.now_ms + INTERVAL_MS) {
            self.next_ms = Some(view.now_ms + INTERVAL_MS);
            self.plan(view);
        }
        let at_first = || Need::replicas(least(view.groups), view.groups);
        self.need.clone().unwrap_or_else(at_first)
    }

    fn reason(&self) -> String {
        let rate = self.rate.next().unwrap_or_default();
        format!(
            "{rate:.2} requests/s predicted, times {:.2}: {} replicas",
            self.factor, self.replicas
        )
    }
}

/// What its profiler would have measured of a machine. Times in ms.
struct Profile {
    alpha: f64,
    beta: f64,
    delta: f64,
    chunk: f64,
    batch: f64,
}

impl Profile {
    fn new(times: &StepTimes) -> Self {
        Self {
            alpha: times.alpha_ns as f64 / 1e6,
            beta: times.beta_ns as f64 / 1e6,
            delta: times.delta_ns as f64 / 1e6,
            chunk: f64::from(times.prefill_chunk.max(1)),
            batch: f64::from(times.max_batch.max(1)),
        }
    }

    fn ms_per_prompt_token(&self) -> f64 {
        self.delta + self.alpha / self.chunk
    }

    fn ttft_ms(&self, prompt: f64) -> f64 {
        self.delta * prompt + self.alpha * (prompt / self.chunk).ceil()
    }

    fn step_ms(&self, held: f64) -> f64 {
        self.alpha + self.beta * held.clamp(1.0, self.batch)
    }

    /// At the largest batch whose step is within `limit_ms`; one sequence if none is.
    fn ms_per_output_token(&self, limit_ms: f64) -> f64 {
        let within = if self.beta > 0.0 {
            ((limit_ms - self.alpha) / self.beta).floor()
        } else {
            self.batch
        };
        let batch = within.clamp(1.0, self.batch);
        self.step_ms(batch) / batch
    }
}

/// One step ahead.
#[derive(Clone, Debug, Default)]
struct Predictor(VecDeque<f64>);

impl Predictor {
    fn add(&mut self, value: f64) {
        self.0.push_back(value);
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    fn next(&self) -> Option<f64> {
        let last = *self.0.back()?;
        if self.0.len() < LEAST {
            return Some(last);
        }
        let changes: Vec<f64> = self
            .0
            .iter()
            .zip(self.0.iter().skip(1))
            .map(|(old, new)| new - old)
            .collect();
        let (products, squares) = changes.windows(2).fold((0.0, 0.0), |(products, squares), pair| {
            (products + pair[0] * pair[1], squares + pair[0] * pair[0])
        });
        let phi: f64 = if squares > 0.0 { products / squares } else { 0.0 };
        let step = changes.last().copied().unwrap_or_default();
        Some((last + phi.clamp(-1.0, 1.0) * step).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_predictor_follows_a_trend_one_step_ahead() {
        let mut predictor = Predictor::default();
        assert_eq!(predictor.next(), None);
        (0..4).for_each(|value| predictor.add(f64::from(value)));
        assert!(
            (predictor.next().unwrap() - 3.0).abs() < 1e-9,
            "the last value before there are five"
        );
        (4..20).for_each(|value| predictor.add(f64::from(value)));
        assert!((predictor.next().unwrap() - 20.0).abs() < 1e-9);
        let mut falling = Predictor::default();
        (0..20).for_each(|value| falling.add(f64::from(19 - value)));
        assert!(falling.next().unwrap() >= 0.0, "a load is never negative");
    }

    #[test]
    fn a_tighter_step_leaves_smaller_batches_and_less_throughput() {
        let profile = Profile {
            alpha: 10.0,
            beta: 2.0,
            delta: 1.0,
            chunk: 256.0,
            batch: 16.0,
        };
        assert!((profile.ms_per_output_token(1_000.0) - 42.0 / 16.0).abs() < 1e-9);
        assert!((profile.ms_per_output_token(20.0) - 20.0 / 5.0).abs() < 1e-9);
        assert!((profile.ms_per_output_token(1.0) - 12.0).abs() < 1e-9);
    }
}
