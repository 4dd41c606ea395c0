//! How long the capacity model takes, beside the sizing of llm-d's Workload Variant Autoscaler in the same run.
//!
//! `cargo bench -p pomarium-kernel --bench capacity`. All ask the same question, what so many M2 Ultras sustain of azure-conv at
//! TTFT p95 12 s and ITL p95 250 ms, except `look_up`, which asks a known curve for the attainment at one rate. Ratios hold
//! on any machine; `wva_means` is the row to divide by.

#![allow(missing_docs)]

use divan::{Bencher, black_box};
use pomarium_kernel::capacity::{Curves, Effort, Servers, Traffic, sustainable};
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::performance::Performance;
use pomarium_kernel::snapshot::{Discipline, LengthMix, Metric, Objective};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::{Fraction, Rate};

const COUNTS: [u32; 3] = [4, 16, 32];

fn main() {
    divan::main();
}

fn m2_ultra() -> Performance {
    Performance {
        times: StepTimes {
            alpha_ns: 10_200_000,
            beta_ns: 2_500_000,
            delta_ns: 1_000_000,
            kv_tokens: 400_000,
            max_batch: 16,
            prefill_chunk: 256,
        },
        load_time: Span::from_secs(30),
        source: String::new(),
    }
}

fn objectives() -> Vec<Objective> {
    [(Metric::TimeToFirstToken, 12_000), (Metric::InterTokenLatency, 250)]
        .map(|(metric, threshold)| Objective {
            metric,
            percentile: Fraction::new(0.95),
            threshold: Span::from_millis(threshold),
            window: Span::from_hours(24),
        })
        .to_vec()
}

fn traffic() -> Traffic {
    Traffic::new(LengthMix::assumed(), Discipline::LeastWork, &objectives())
}

#[divan::bench(args = COUNTS)]
fn wva_means(bencher: Bencher, count: u32) {
    let (performance, (prompt, output)) = (m2_ultra(), LengthMix::assumed().means());
    bencher
        .bench(|| f64::from(count) * wva::sustainable(black_box(&performance.times), prompt, output, 12_000.0, 250.0));
}

#[divan::bench(args = COUNTS)]
fn formulas(bencher: Bencher, count: u32) {
    let (performance, objectives) = (m2_ultra(), objectives());
    let servers = [Servers {
        performance: &performance,
        count,
    }];
    bencher.bench(|| {
        sustainable(
            black_box(&servers),
            LengthMix::assumed(),
            &objectives,
            Discipline::LeastWork,
        )
    });
}

fn curve(bencher: Bencher, count: u32, effort: Effort) {
    let (performance, traffic) = (m2_ultra(), traffic());
    let servers = [Servers {
        performance: &performance,
        count,
    }];
    bencher
        .with_inputs(|| Curves::new(effort, 8))
        .bench_refs(|curves| curves.curve(black_box(&servers), &traffic).sustainable());
}

#[divan::bench(args = COUNTS)]
fn curve_quick(bencher: Bencher, count: u32) {
    curve(bencher, count, Effort::QUICK);
}

#[divan::bench(args = COUNTS)]
fn curve_usual(bencher: Bencher, count: u32) {
    curve(bencher, count, Effort::USUAL);
}

/// A known curve is found again, by what it is of.
#[divan::bench(args = COUNTS)]
fn memo(bencher: Bencher, count: u32) {
    let (performance, traffic) = (m2_ultra(), traffic());
    let servers = [Servers {
        performance: &performance,
        count,
    }];
    let mut curves = Curves::new(Effort::QUICK, 8);
    curves.curve(&servers, &traffic);
    bencher.bench_local(|| curves.curve(black_box(&servers), &traffic).sustainable());
}

#[divan::bench(args = COUNTS)]
fn look_up(bencher: Bencher, count: u32) {
    let performance = m2_ultra();
    let servers = [Servers {
        performance: &performance,
        count,
    }];
    let curve = Curves::new(Effort::QUICK, 8).curve(&servers, &traffic());
    let rate = Rate::per_second(0.8 * curve.saturation().as_per_second());
    bencher.bench(|| curve.attainment(black_box(rate)));
}

/// Sizing by means, as llm-d's Workload Variant Autoscaler does it (`pkg/analyzer/queueanalyzer.go`, October 2025): an M/M/1/K
/// queue per server, with a service rate that depends on how many requests are in the batch.
mod wva {
    use super::StepTimes;

    const QUEUE_TO_BATCH: usize = 10;
    const BISECTIONS: u32 = 30;

    pub(crate) fn sustainable(times: &StepTimes, prompt: f64, output: f64, ttft_ms: f64, itl_ms: f64) -> f64 {
        let ms = |ns: u64| ns as f64 / 1e6;
        let (alpha, beta, delta) = (ms(times.alpha_ns), ms(times.beta_ns), ms(times.delta_ns));
        let gamma = alpha * (prompt / f64::from(times.prefill_chunk)).ceil();
        let batch = times.max_batch as usize;
        let rates: Vec<f64> = (1..=batch)
            .map(|n| {
                let n = n as f64;
                n / (gamma + delta * prompt * n + (output - 1.0) * (alpha + beta * n))
            })
            .collect();
        let largest = rates[batch - 1];
        let holds = |rate: f64| {
            let (mut share, mut all, mut requests, mut served, mut lost) = (1.0, 1.0, 0.0, 0.0, 0.0);
            for n in 1..=batch * (1 + QUEUE_TO_BATCH) {
                share *= rate / rates[n.min(batch) - 1];
                all += share;
                requests += share * n as f64;
                served += share * n.min(batch) as f64;
                lost = share;
            }
            let through = rate * (1.0 - lost / all);
            let (response, service) = (requests / all / through, served / all / through);
            let concurrent = ((service - gamma - alpha * (output - 1.0)) / (delta * prompt + beta * (output - 1.0)))
                .clamp(0.0, batch as f64);
            response - service + gamma + delta * prompt * concurrent <= ttft_ms && alpha + beta * concurrent <= itl_ms
        };
        let (mut low, mut high) = (0.001 * rates[0], 0.999 * largest);
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(low, high);
            if holds(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low * 1e3
    }
}
