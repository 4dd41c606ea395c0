//! Holds predicted latencies against the simulator and writes `operator/docs/capacity.md`.
//!
//! ```text
//! cargo run --release -p pomarium-sim --example capacity                  # prints it
//! UPDATE_DOCS=1 cargo run --release -p pomarium-sim --example capacity    # writes it
//! ```
//!
//! A first argument limits it to cells whose name contains it, such as `M4/chat`; a second one sets the requests per curve, and
//! a third one multiplies those of the simulator. Takes some minutes on two cores.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a report on counts and times"
)]

use std::fmt::Write;
use std::time::Instant;

use pomarium_kernel::capacity::published::{self, Published};
use pomarium_kernel::capacity::{Curves, Effort, Prediction, Servers, Traffic, predict};
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::performance::Performance;
use pomarium_kernel::snapshot::{Discipline, Metric};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::{Fraction, Rate};
use pomarium_sim::steady::Steady;

const COUNTS: [u32; 5] = [1, 2, 4, 8, 16];
const LOADS: [f64; 5] = [0.3, 0.5, 0.7, 0.8, 0.9];
const FIGURES: [(Metric, f64); 4] = [
    (Metric::TimeToFirstToken, 0.5),
    (Metric::TimeToFirstToken, 0.95),
    (Metric::InterTokenLatency, 0.5),
    (Metric::InterTokenLatency, 0.95),
];
const NAMES: [&str; 4] = ["TTFT p50", "TTFT p95", "ITL p50", "ITL p95"];

/// A prediction that is off by more than this is told.
const BAR: f64 = 0.10;

/// One figure of one cell.
struct Figure {
    seen: f64,
    /// How far two halves of the simulation are apart, relative to their mean.
    noise: f64,
    curve: f64,
    analytic: f64,
    /// Share of requests that the curve predicts within `seen`, less what it should be.
    share_off: f64,
}

struct Cell {
    machine: &'static str,
    mix: &'static str,
    count: u32,
    load: f64,
    rate: f64,
    figures: Vec<Figure>,
}

struct Report {
    cells: Vec<Cell>,
    curve_ms: Vec<f64>,
    analytic_ms: Vec<f64>,
}

fn main() -> std::io::Result<()> {
    let argument = |index: usize| std::env::args().nth(index).unwrap_or_default();
    let effort = argument(2)
        .parse()
        .map_or(Effort::default(), |requests| Effort { requests });
    let scale = argument(3).parse().unwrap_or(1.0);
    let filter = argument(1);

    let machines = machines();
    // Every other machine on a core of its own.
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let half = |parity: usize| {
            let (machines, filter) = (&machines, &filter);
            scope.spawn(move || {
                let mine = machines.iter().enumerate().filter(|(index, _)| index % 2 == parity);
                mine.map(|(_, (name, performance))| measure(name, performance, effort, scale, filter))
                    .collect::<Vec<_>>()
            })
        };
        let halves = [half(0), half(1)].map(|half| half.join().unwrap_or_default());
        halves.into_iter().flatten().collect()
    });
    let text = document(&machines, effort, &reports);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/capacity.md"), text)
    } else {
        print!("{text}");
        Ok(())
    }
}

/// Machines with an 8B model in 4 bits: alpha, beta and delta in ms, and the chunk. The first three as in the design's example,
/// the others from the benchmarks behind the catalogue.
fn machines() -> Vec<(&'static str, Performance)> {
    let machine = |alpha_us: u64, beta_us: u64, delta_us: u64, prefill_chunk| Performance {
        times: StepTimes {
            alpha_ns: alpha_us * 1_000,
            beta_ns: beta_us * 1_000,
            delta_ns: delta_us * 1_000,
            kv_tokens: 400_000,
            max_batch: 16,
            prefill_chunk,
        },
        load_time: Span::from_secs(30),
        source: String::new(),
    };
    vec![
        ("M2 Ultra", machine(10_200, 2_500, 1_000, 256)),
        ("M4 Max", machine(12_000, 3_000, 1_300, 256)),
        ("M4 Pro", machine(18_400, 4_600, 2_300, 256)),
        ("M4", machine(38_300, 9_600, 4_450, 512)),
        ("M3 Ultra", machine(9_600, 2_400, 700, 512)),
        ("M1 Max", machine(17_300, 4_300, 2_000, 512)),
    ]
}

fn measure(machine: &'static str, performance: &Performance, effort: Effort, scale: f64, filter: &str) -> Report {
    let mut report = Report {
        cells: Vec::new(),
        curve_ms: Vec::new(),
        analytic_ms: Vec::new(),
    };
    for Published {
        name: mix_name, mix, ..
    } in published::mixes()
    {
        let mut curves = Curves::new(effort, 100);
        let traffic = Traffic::new(&mix, Discipline::LeastWork, &[]);
        for count in COUNTS
            .into_iter()
            .filter(|count| format!("{machine}/{mix_name}/{count}").contains(filter))
        {
            let servers = [Servers { performance, count }];
            let begun = Instant::now();
            let curve = curves.curve(&servers, &traffic);
            report.curve_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            for load in LOADS {
                let rate = load * curve.saturation().as_per_second();
                let begun = Instant::now();
                let analytic = predict(&servers, &mix, Discipline::LeastWork, Rate::per_second(rate));
                report.analytic_ms.push(begun.elapsed().as_secs_f64() * 1e3);
                let predicted = curve.prediction(Rate::per_second(rate));
                // The fewer servers and the busier they are, the longer a queue remembers.
                let requests = scale * 20_000.0 / (1.0 - load).powi(2) / f64::from(count.min(4));
                let half = |seed| {
                    let steady = Steady {
                        servers: &[(performance.times, count)],
                        mix: &mix,
                        discipline: Discipline::LeastWork,
                        rate,
                        requests: (requests as u64).max(20_000),
                        seed,
                    };
                    steady.latencies(&FIGURES)
                };
                let (first, second) = (half(0xA11CE), half(0xB0B));
                let of = |prediction: &Prediction, metric, share| prediction.of(metric).at(Fraction::new(share));
                let figures = FIGURES.into_iter().zip(first.into_iter().zip(second));
                let figures = figures.map(|((metric, share), (first, second))| {
                    let seen = f64::midpoint(first, second);
                    Figure {
                        seen,
                        noise: (first - second).abs() / seen,
                        curve: of(&predicted, metric, share),
                        analytic: analytic
                            .as_ref()
                            .map_or(f64::NAN, |prediction| of(prediction, metric, share)),
                        share_off: share_off(&predicted, metric, share, seen),
                    }
                });
                report.cells.push(Cell {
                    machine,
                    mix: mix_name,
                    count,
                    load,
                    rate,
                    figures: figures.collect(),
                });
            }
        }
    }
    report
}

/// By how much `share` is beside what the curve predicts to be within `seen`, give or take half a percent: many
/// requests may take equally long.
fn share_off(predicted: &Prediction, metric: Metric, share: f64, seen: f64) -> f64 {
    let within = |ms| predicted.of(metric).within(ms).get();
    let (least, most) = (within(seen * 0.995), within(seen * 1.005));
    (least - share).max(0.0) + (most - share).min(0.0)
}

/// The value below which this share of `values` is.
fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

fn document(machines: &[(&'static str, Performance)], effort: Effort, reports: &[Report]) -> String {
    let cells: Vec<&Cell> = reports.iter().flat_map(|report| &report.cells).collect();
    let mut text = INTRODUCTION.to_owned();
    let _ = writeln!(text, "\n## How far off\n");
    let _ = writeln!(
        text,
        "{} machines × 4 mixes × n = 1, 2, 4, 8, 16 × loads of 30, 50, 70, 80 and 90 % of saturation: {} cells. Curves of {} \
         requests. Errors are relative to the simulator; *noise* is how far two halves of the simulator's run are apart; *share* \
         is how far the predicted share of requests within the simulator's percentile is from that percentile.\n",
        machines.len(),
        cells.len(),
        effort.requests
    );
    let _ = writeln!(
        text,
        "| | curve: median | p95 | max | over 10 % | share off: p95, max | noise: p95 | formulas: median | p95 | over 10 % |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|---|");
    for (index, name) in NAMES.into_iter().enumerate() {
        let of = |value: fn(&Figure) -> f64| -> Vec<f64> {
            cells.iter().map(|cell| value(&cell.figures[index]).abs()).collect()
        };
        let (curve, analytic) = (of(|f| f.curve / f.seen - 1.0), of(|f| f.analytic / f.seen - 1.0));
        let over = |errors: &[f64]| errors.iter().filter(|error| **error > BAR).count();
        let share = of(|f| f.share_off);
        let _ = writeln!(
            text,
            "| {name} | {:.1} % | {:.1} % | {:.1} % | {} | {:.1}, {:.1} points | {:.1} % | {:.1} % | {:.0} % | {} |",
            percentile(curve.clone(), 0.5) * 100.0,
            percentile(curve.clone(), 0.95) * 100.0,
            percentile(curve.clone(), 1.0) * 100.0,
            over(&curve),
            percentile(share.clone(), 0.95) * 100.0,
            percentile(share, 1.0) * 100.0,
            percentile(of(|f| f.noise), 0.95) * 100.0,
            percentile(analytic.clone(), 0.5) * 100.0,
            percentile(analytic.clone(), 0.95) * 100.0,
            over(&analytic),
        );
    }
    let all = |of: fn(&Report) -> &Vec<f64>| reports.iter().flat_map(of).copied().collect::<Vec<f64>>();
    let (curve, analytic) = (all(|report| &report.curve_ms), all(|report| &report.analytic_ms));
    let _ = writeln!(
        text,
        "\nTime of one curve: median {:.0} ms, at most {:.0} ms; of one set of formulas at one rate: median {:.2} ms. Wall time with both \
         cores busy; `cargo bench -p pomarium-kernel --bench capacity` measures it alone.",
        percentile(curve.clone(), 0.5),
        percentile(curve, 1.0),
        percentile(analytic, 0.5)
    );
    misses(&mut text, &cells);
    sources(&mut text, machines);
    tables(&mut text, machines, &cells);
    text
}

fn misses(text: &mut String, cells: &[&Cell]) {
    let _ = writeln!(text, "\n{MISSES}\n");
    let _ = writeln!(text, "| cell | | simulator | curve | error | noise | share off |");
    let _ = writeln!(text, "|---|---|---|---|---|---|---|");
    for cell in cells {
        for (name, figure) in NAMES.iter().zip(&cell.figures) {
            let error = figure.curve / figure.seen - 1.0;
            if error.abs() > BAR {
                let _ = writeln!(
                    text,
                    "| {} × {}, {}, {:.0} % | {name} | {} | {} | {:+.0} % | {:.0} % | {:+.1} points |",
                    cell.count,
                    cell.machine,
                    cell.mix,
                    cell.load * 100.0,
                    milliseconds(figure.seen),
                    milliseconds(figure.curve),
                    error * 100.0,
                    figure.noise * 100.0,
                    figure.share_off * 100.0,
                );
            }
        }
    }
}

fn sources(text: &mut String, machines: &[(&'static str, Performance)]) {
    let _ = writeln!(text, "\n## Machines and mixes\n");
    let _ = writeln!(
        text,
        "| machine | alpha ms | beta ms | delta ms | chunk |\n|---|---|---|---|---|"
    );
    for (name, Performance { times, .. }) in machines {
        let ms = |ns: u64| ns as f64 / 1e6;
        let (alpha, beta, delta) = (ms(times.alpha_ns), ms(times.beta_ns), ms(times.delta_ns));
        let _ = writeln!(
            text,
            "| {name} | {alpha} | {beta} | {delta} | {} |",
            times.prefill_chunk
        );
    }
    let _ = writeln!(text, "\nAll with 16 slots and a KV cache of 400,000 tokens.\n");
    let _ = writeln!(text, "| mix | mean prompt | mean output | source |\n|---|---|---|---|");
    for Published { name, source, mix } in published::mixes() {
        let (prompt, output) = mix.means();
        let _ = writeln!(text, "| {name} | {prompt:.0} | {output:.0} | {source} |");
    }
}

fn tables(text: &mut String, machines: &[(&'static str, Performance)], cells: &[&Cell]) {
    let _ = writeln!(text, "\n## The whole table\n\nEach cell: simulator / curve.");
    for (machine, _) in machines {
        for Published { name: mix, .. } in published::mixes() {
            let those: Vec<&&Cell> = cells
                .iter()
                .filter(|cell| cell.machine == *machine && cell.mix == mix)
                .collect();
            if those.is_empty() {
                continue;
            }
            let _ = writeln!(text, "\n### {machine}, {mix}\n");
            let _ = writeln!(
                text,
                "| n | load | requests/s | {} |\n|---|---|---|---|---|---|---|",
                NAMES.join(" | ")
            );
            for cell in those {
                let _ = write!(
                    text,
                    "| {} | {:.0} % | {:.3} |",
                    cell.count,
                    cell.load * 100.0,
                    cell.rate
                );
                for figure in &cell.figures {
                    let _ = write!(
                        text,
                        " {} / {} |",
                        milliseconds(figure.seen),
                        milliseconds(figure.curve)
                    );
                }
                let _ = writeln!(text);
            }
        }
    }
}

fn milliseconds(ms: f64) -> String {
    if ms < 1_000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

const INTRODUCTION: &str = "\
# Predicted latencies against the simulator

Written by `UPDATE_DOCS=1 cargo run --release -p pomarium-sim --example capacity`. A sample of it is a test.

Two models answer the same questions with the same types: `capacity::predict` and `capacity::sustainable` from formulas, and
`capacity::Curve` from a simulation of the engine at a grid of loads. This table holds both against the simulator of
`pomarium replay`, which runs the same engine but shares neither random numbers nor code of routing and accounting with the curves.
";

const MISSES: &str = "\
## Where 10 % is missed

All figures of the table that the curve misses by more than 10 %. About half are *cliffs*: percentiles at which the
distribution is nearly flat, or jumps, such as the ITL of coding, where half of the requests decode undisturbed and the other half wait for whole
chunks; the TTFT of chat at the load where just a twentieth of the requests has to wait for a slot; or a median that falls between two
of the mix's sixteen lengths of prompts. There a percentile jumps while the share of requests hardly moves: the last column is what
attainment, and with it every decision, is off by. The others are samples too small: the high percentiles of ITL at low load, which few
requests of the curve's simulation reach, and shares that are two to five points off because 2,000 to 4,000 requests per load decide
them. More requests per curve make those smaller, and cost time. The random numbers are the same for all machines, so that a miss occurs
at several at once: the machines are not six independent samples.";
