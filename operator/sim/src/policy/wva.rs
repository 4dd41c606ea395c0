//! llm-d's Workload Variant Autoscaler: sizing by a queueing model, one variant per group.
//!
//! The model of its first version (`pkg/analyzer/queueanalyzer.go`, October 2025): with `n` requests in service,
//! `prefill(n) = γ + δ·in·n`, `decode(n) = α + β·n`, service rate `μ(n) = n / (prefill(n) + (out − 1)·decode(n))`; a birth-death chain up to
//! `K = N + 10·N` requests gives the mean wait and service. The effective concurrency
//! `n̂ = (S − γ − α(out − 1)) / (δ·in + β(out − 1))` gives `TTFT = wait + prefill(n̂)` and `ITL = decode(n̂)`. Bisection finds the largest rate
//! at which both *means* meet the thresholds, and 0.9 of the largest rate at all. Machines in the order of placement
//! cover the arrival rate. α, β and δ are the machines' own; γ is the fixed part of the chunks of one mean prompt.
//!
//! Every 60 s; its Helm chart's autoscaler stabilises 240 s both ways, with at most 10 Pods per 150 s. The autoscaler's tolerance is left out in
//! its favour, and so is its inability to prefer one variant over another.
//! Knob: the share of the model's capacity that is used.

use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::snapshot::{Metric, Objective};

use super::Rule;
use super::autoscaler::{Autoscaler, Scaling};
use super::need::{Need, least, most};
use crate::world::View;

const LOOP_MS: i64 = 60_000;
const METRIC_SECONDS: f64 = 60.0;
const QUEUE_TO_BATCH: u32 = 10;
/// `StabilitySafetyFraction` is 0.1.
const SAFE: f64 = 0.9;
const BISECTIONS: u32 = 30;
/// Sizing is repeated when a mean length has moved by more than this.
const SAME_MIX: f64 = 0.01;

pub(crate) struct Wva {
    objectives: Vec<Objective>,
    utilisation: f64,
    autoscaler: Autoscaler,
    next_ms: Option<i64>,
    /// The mean lengths that `capacities` are for.
    mix: (f64, f64),
    /// Requests per second that one machine of each group takes.
    capacities: Vec<f64>,
    desired: Option<u32>,
    rate: f64,
}

impl Wva {
    pub(crate) fn new(objectives: &[Objective], utilisation: f64) -> Self {
        let scaling = Scaling {
            stabilisation_ms: 240_000,
            share: 0.0,
            pods: 10,
            period_ms: 150_000,
        };
        Self {
            objectives: objectives.to_vec(),
            utilisation,
            autoscaler: Autoscaler::new(scaling, scaling),
            next_ms: None,
            mix: (0.0, 0.0),
            capacities: Vec::new(),
            desired: None,
            rate: 0.0,
        }
    }

    fn size(&mut self, view: &View<'_>) {
        let Some(window) = view.scrapes.window(METRIC_SECONDS) else {
            return;
        };
        self.rate = window.rate;
        if window.mean_prompt > 0.0 {
            let moved = |old: f64, new: f64| (new - old).abs() > SAME_MIX * old;
            if moved(self.mix.0, window.mean_prompt) || moved(self.mix.1, window.mean_output) {
                self.mix = (window.mean_prompt, window.mean_output);
                self.capacities = view
                    .groups
                    .iter()
                    .map(|group| Queue::new(&group.times, self.mix).largest_rate(&self.objectives))
                    .collect();
            }
        }
        if !self.capacities.is_empty() {
            let need = Need {
                units: self.units(),
                amount: self.rate,
            };
            self.desired = Some(need.count(view.groups));
        }
    }

    fn units(&self) -> Vec<f64> {
        self.capacities
            .iter()
            .map(|capacity| capacity * self.utilisation)
            .collect()
    }
}

impl Rule for Wva {
    fn need(&mut self, view: &View<'_>) -> Need {
        self.autoscaler.bound(least(view.groups), most(view.groups));
        if view.now_ms >= *self.next_ms.get_or_insert(view.now_ms) {
            self.next_ms = Some(view.now_ms + LOOP_MS);
            self.size(view);
        }
        // The autoscaler syncs every 15 s, on the last size.
        if let Some(desired) = self.desired {
            self.autoscaler.sync(view.now_ms, desired);
        }
        if self.capacities.is_empty() {
            return Need::replicas(self.autoscaler.replicas(), view.groups);
        }
        Need::first(self.autoscaler.replicas(), self.units(), view.groups)
    }

    fn reason(&self) -> String {
        let (rate, replicas) = (self.rate, self.autoscaler.replicas());
        let capacities: Vec<String> = self.units().iter().map(|unit| format!("{unit:.2}")).collect();
        let capacities = capacities.join(", ");
        format!("{rate:.2} requests/s at {capacities} per replica of each variant: {replicas} replicas")
    }
}

/// One machine with one mix of mean lengths. Times in ms, rates per ms.
struct Queue {
    alpha: f64,
    beta: f64,
    gamma: f64,
    /// `δ·in`.
    prefill: f64,
    /// `out − 1`.
    decodes: f64,
    batch: u32,
    /// `μ(n)` for `n` from 1.
    rates: Vec<f64>,
}

impl Queue {
    fn new(times: &StepTimes, (prompt, output): (f64, f64)) -> Self {
        let alpha = times.alpha_ns as f64 / 1e6;
        let mut queue = Self {
            alpha,
            beta: times.beta_ns as f64 / 1e6,
            gamma: alpha * (prompt / f64::from(times.prefill_chunk.max(1))).ceil(),
            prefill: times.delta_ns as f64 / 1e6 * prompt,
            decodes: (output - 1.0).max(0.0),
            batch: times.max_batch.max(1),
            rates: Vec::new(),
        };
        queue.rates = (1..=queue.batch)
            .map(|held| {
                let held = f64::from(held);
                held / (queue.gamma + queue.prefill * held + queue.decodes * (queue.alpha + queue.beta * held))
            })
            .collect();
        queue
    }

    /// Requests per second that one machine takes.
    fn largest_rate(&self, objectives: &[Objective]) -> f64 {
        let first = self.rates.first().copied().unwrap_or_default();
        let last = self.rates.iter().copied().fold(0.0, f64::max);
        let mut rate = SAFE * last;
        for objective in objectives {
            let meets = |rate: f64| {
                let (ttft, itl) = self.means(rate);
                let mean = match objective.metric {
                    Metric::TimeToFirstToken => ttft,
                    Metric::InterTokenLatency => itl,
                };
                mean <= objective.threshold.as_millis() as f64
            };
            let (mut low, mut high) = (0.001 * first, 0.999 * last);
            if !meets(low) {
                return 0.0;
            }
            if meets(high) {
                low = high;
            }
            for _ in 0..BISECTIONS {
                let middle = f64::midpoint(low, high);
                if meets(middle) {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            rate = rate.min(low);
        }
        rate * 1e3
    }

    /// Mean TTFT and ITL at `rate`.
    fn means(&self, rate: f64) -> (f64, f64) {
        let most = self.batch * (1 + QUEUE_TO_BATCH);
        let (mut weight, mut sum, mut held_sum, mut served_sum) = (1.0, 1.0, 0.0, 0.0);
        for held in 1..=most {
            let served = held.min(self.batch);
            weight *= rate / self.rates[(served - 1) as usize];
            sum += weight;
            held_sum += weight * f64::from(held);
            served_sum += weight * f64::from(served);
        }
        let through = rate * (1.0 - weight / sum);
        let response = held_sum / sum / through;
        let service = served_sum / sum / through;
        let concurrency =
            (service - self.gamma - self.alpha * self.decodes) / (self.prefill + self.beta * self.decodes);
        let concurrency = concurrency.clamp(0.0, f64::from(self.batch));
        let ttft = response - service + self.gamma + self.prefill * concurrency;
        (ttft, self.alpha + self.beta * concurrency)
    }
}

#[cfg(test)]
mod tests {
    use pomarium_kernel::time::Span;
    use pomarium_kernel::units::Fraction;

    use super::*;

    fn objective(metric: Metric, threshold_ms: u64) -> Objective {
        Objective {
            metric,
            percentile: Fraction::new(0.95),
            threshold: Span::from_millis(threshold_ms),
            window: Span::from_hours(24),
        }
    }

    fn times(factor: u64) -> StepTimes {
        StepTimes {
            alpha_ns: 10_000_000 * factor,
            beta_ns: 2_000_000 * factor,
            delta_ns: 1_000_000 * factor,
            kv_tokens: 100_000,
            max_batch: 8,
            prefill_chunk: 256,
        }
    }

    #[test]
    fn an_idle_machine_has_the_latencies_of_one_request_alone() {
        let queue = Queue::new(&times(1), (256.0, 101.0));
        let (ttft, itl) = queue.means(1e-9);
        assert!((ttft - 266.0).abs() < 0.01, "{ttft}");
        assert!((itl - 12.0).abs() < 0.01, "{itl}");
    }

    #[test]
    fn capacity_falls_with_the_objectives_and_the_machine_and_never_exceeds_nine_tenths_of_the_most() {
        let queue = Queue::new(&times(1), (256.0, 101.0));
        let rate = |ttft_ms, itl_ms| {
            queue.largest_rate(&[
                objective(Metric::TimeToFirstToken, ttft_ms),
                objective(Metric::InterTokenLatency, itl_ms),
            ])
        };
        let loose = rate(100_000, 1_000);
        assert!((loose - 0.9 * queue.rates[7] * 1e3).abs() < 1e-9);
        assert!(rate(1_000, 1_000) < loose);
        assert!(rate(100_000, 16) < loose);
        assert!((rate(100, 1_000)).abs() < 1e-12, "not reachable even idle");
        let slow = Queue::new(&times(2), (256.0, 101.0));
        assert!(slow.largest_rate(&[objective(Metric::TimeToFirstToken, 2_000)]) < rate(2_000, 1_000));
    }
}
