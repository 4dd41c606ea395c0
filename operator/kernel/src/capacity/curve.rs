//! Latencies of one set of servers as a function of load, measured with the engine itself.
//!
//! [`super::predict`] answers from formulas; a [`Curve`] answers from a simulation of the engine: a few thousand requests of the
//! mix at each of a dozen loads, through the very router that the simulator and the demo use. It costs milliseconds once;
//! then every question is a look-up. [`Curves`] keeps them.
//!
//! # Guarantees
//! - Deterministic: the same servers, mix and discipline give the same bits, in whatever order servers are listed.
//! - Latencies never fall, and attainment never rises, with the rate; neither is ever NaN.
//! - At a rate of zero they are those of an idle server.
//!
//! # Assumptions
//! Poisson arrivals in steady state. Beyond [`HIGHEST_LOAD`] there is none worth measuring: the excess is taken to queue for
//! [`HORIZON_S`], which is about as long as it takes to bring more servers up.

mod memo;
mod stream;
mod trial;

use std::cmp::Reverse;

use super::{Percentiles, Prediction};
use crate::engine::StepTimes;
#[cfg(test)]
use crate::snapshot::Discipline;
use crate::snapshot::{LengthMix, Metric, Objective};
use crate::units::{Fraction, Rate};

pub use memo::{Curves, Traffic};

use super::quantiles::Quantiles;
use stream::Stream;
use trial::Latencies;

/// Loads that are measured: rates over saturation.
const LOADS: [f64; 14] = [
    0.15,
    0.3,
    0.45,
    0.57,
    0.66,
    0.73,
    0.78,
    0.82,
    0.855,
    0.885,
    0.91,
    0.935,
    0.955,
    HIGHEST_LOAD,
];

/// The highest load that is measured.
pub const HIGHEST_LOAD: f64 = 0.97;

/// For so long, in seconds, requests beyond [`HIGHEST_LOAD`] are taken to queue up.
pub const HORIZON_S: f64 = 900.0;

/// Latencies grow with the load `x` about as `1 / (POLE − x)`: between two measured loads they are interpolated in that.
const POLE: f64 = 1.03;

/// No more servers than this are simulated: the gains of pooling are had by then. Larger sets are scaled down.
const MOST_SIMULATED: u32 = 32;

/// How much work a curve is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort {
    /// Requests that are simulated, all loads together; about a microsecond each.
    pub requests: u32,
}

impl Effort {
    /// About 15 ms.
    pub const QUICK: Self = Self { requests: 15_000 };
    /// For reports and for what is kept long.
    pub const THOROUGH: Self = Self { requests: 150_000 };
}

/// Latencies over loads, from zero to [`HIGHEST_LOAD`].
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    /// Requests per second.
    saturation: f64,
    /// One more than [`LOADS`]: the first is of idle servers.
    points: Vec<Latencies>,
}

/// What one set of servers does with one mix of lengths, at every rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    measured: Measured,
    objectives: Vec<Objective>,
    sustainable: f64,
    estimate: bool,
}

/// A kind of server and how many there are; what a curve depends on.
type Kind = (StepTimes, u32);

impl Measured {
    /// `kinds` in canonical order; none of them zero.
    fn simulate(kinds: &[Kind], saturations: &[f64], mix: &LengthMix, effort: Effort) -> Self {
        let saturation = kinds
            .iter()
            .zip(saturations)
            .map(|(kind, each)| f64::from(kind.1) * each)
            .sum();
        let simulated = scaled_down(kinds);
        let servers: Vec<StepTimes> = simulated
            .iter()
            .flat_map(|&(times, count)| std::iter::repeat_n(times, count as usize))
            .collect();
        let full: f64 = simulated
            .iter()
            .map(|(times, count)| {
                let index = kinds.iter().position(|(other, _)| other == times).unwrap_or(0);
                f64::from(*count) * saturations[index]
            })
            .sum();
        let work = work(&simulated, mix);
        let mut points = vec![idle(&servers[0], mix)];
        // Waits near saturation vary most: they get most of the effort.
        let shares: f64 = LOADS.iter().map(|load| share(*load)).sum();
        for (index, load) in LOADS.into_iter().enumerate() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a u32")]
            let requests = (f64::from(effort.requests) * share(load) / shares) as usize;
            // Whole rounds of the classes.
            let rounds = (requests / mix.classes.len().max(1)).max(1);
            let stream = Stream::typical(&work, load, rounds * mix.classes.len(), index as u64 + 1);
            points.push(trial::serve(&servers, mix, &stream, load * full));
        }
        let mut measured = Self { saturation, points };
        measured.smooth();
        measured
    }

    /// Makes every quantile rise with the load: neighbours that do not are replaced by their mean, however many it takes.
    fn smooth(&mut self) {
        let latencies: [fn(&mut Latencies) -> &mut Quantiles; 2] = [|point| &mut point.ttft, |point| &mut point.itl];
        for of in latencies {
            let levels = of(&mut self.points[0]).values().len();
            for level in 0..levels {
                let mut blocks: Vec<(f64, f64)> = Vec::new();
                for point in &mut self.points {
                    let mut block = (of(point).values()[level], 1.0);
                    while let Some(&(value, weight)) = blocks.last()
                        && value > block.0
                    {
                        blocks.pop();
                        block = (
                            (value * weight + block.0 * block.1) / (weight + block.1),
                            weight + block.1,
                        );
                    }
                    blocks.push(block);
                }
                let smoothed = blocks.into_iter().flat_map(|(value, weight)| {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
                    std::iter::repeat_n(value, weight as usize)
                });
                for (point, value) in self.points.iter_mut().zip(smoothed) {
                    of(point).values_mut()[level] = value;
                }
            }
        }
    }

    /// Latencies at a load.
    fn at(&self, load: f64) -> Latencies {
        let capped = load.clamp(0.0, HIGHEST_LOAD);
        let above = LOADS.partition_point(|point| *point < capped).min(LOADS.len() - 1);
        let low = above.checked_sub(1).map_or(0.0, |below| LOADS[below]);
        let steep = |load: f64| 1.0 / (POLE - load);
        let weight = ((steep(capped) - steep(low)) / (steep(LOADS[above]) - steep(low))).clamp(0.0, 1.0);
        let (low, high) = (&self.points[above], &self.points[above + 1]);
        let queued_ms = if load > HIGHEST_LOAD {
            HORIZON_S * 1e3 * (1.0 - HIGHEST_LOAD / load)
        } else {
            0.0
        };
        Latencies {
            ttft: low
                .ttft
                .blend(&high.ttft, weight)
                .map(|ms, level| ms + queued_ms * level),
            itl: low.itl.blend(&high.itl, weight),
        }
    }
}

/// Effort at a load, relative to others.
fn share(load: f64) -> f64 {
    1.0 + 3.0 * load * load
}

/// A set of at most [`MOST_SIMULATED`] servers in about the same proportions.
fn scaled_down(kinds: &[Kind]) -> Vec<Kind> {
    let total: u32 = kinds.iter().map(|kind| kind.1).sum();
    if total <= MOST_SIMULATED {
        return kinds.to_vec();
    }
    let scaled = |count: u32| {
        let scaled = u64::from(count) * u64::from(MOST_SIMULATED) + u64::from(total) / 2;
        u32::try_from(scaled / u64::from(total))
            .unwrap_or(MOST_SIMULATED)
            .max(1)
    };
    kinds.iter().map(|&(times, count)| (times, scaled(count))).collect()
}

/// Work of each class in a full batch, in ms, on average over the servers.
fn work(kinds: &[Kind], mix: &LengthMix) -> Vec<f64> {
    let per = |class: &(u32, u32)| {
        let on = |&(times, count): &Kind| {
            let slots = trial::slots(&times, mix) as f64;
            let per_output = times.beta_ns as f64 + times.alpha_ns as f64 / slots;
            f64::from(count) * (times.delta_ns as f64 * f64::from(class.0) + per_output * f64::from(class.1)) / 1e6
        };
        kinds.iter().map(on).sum::<f64>()
    };
    mix.classes.iter().map(per).collect()
}

/// Latencies of a server that has nothing else to do.
fn idle(times: &StepTimes, mix: &LengthMix) -> Latencies {
    let chunks = |prompt: u32| u64::from(prompt.max(1).div_ceil(times.prefill_chunk.max(1)));
    let prefill = |prompt: u32| chunks(prompt) * times.alpha_ns + u64::from(prompt.max(1)) * times.delta_ns;
    let mut ttft: Vec<u64> = mix.classes.iter().map(|class| prefill(class.0)).collect();
    Latencies {
        ttft: Quantiles::of(&mut ttft),
        itl: Quantiles::of(&mut [times.alpha_ns + times.beta_ns]),
    }
}

impl Curve {
    fn new(measured: Measured, objectives: Vec<Objective>, estimate: bool) -> Self {
        let mut curve = Self {
            measured,
            objectives,
            sustainable: 0.0,
            estimate,
        };
        curve.sustainable = curve.highest_rate();
        curve
    }

    /// The rate that overwhelms the servers: under `LeastWork` when all are permanently full, and the sum over
    /// them; under `Weighted` when the first one is.
    pub fn saturation(&self) -> Rate {
        Rate::per_second(self.measured.saturation)
    }

    /// The largest rate at which every objective holds; zero if there is none, [`Self::saturation`] without objectives.
    pub fn sustainable(&self) -> Rate {
        Rate::per_second(self.sustainable)
    }

    /// The objectives that [`Self::attainment`] and [`Self::sustainable`] are about.
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// It was interpolated between curves of other sets, not measured for this one.
    pub fn is_estimate(&self) -> bool {
        self.estimate
    }

    /// Share of requests within each objective's threshold, in the order of the objectives.
    pub fn attainment(&self, rate: Rate) -> Vec<Fraction> {
        let latencies = self.measured.at(self.load(rate));
        let within = |objective: &Objective| {
            let ms = super::milliseconds(objective);
            Fraction::new(latencies.of(objective.metric).within(ms))
        };
        self.objectives.iter().map(within).collect()
    }

    /// Latencies at `rate`.
    pub fn prediction(&self, rate: Rate) -> Prediction {
        let load = self.load(rate);
        let latencies = self.measured.at(load);
        Prediction {
            ttft_ms: Percentiles::measured(latencies.ttft),
            itl_ms: Percentiles::measured(latencies.itl),
            utilization: Fraction::new(load),
        }
    }

    /// The latency in ms that this share of requests stays within at `rate`.
    pub fn latency_ms(&self, rate: Rate, metric: Metric, share: Fraction) -> f64 {
        self.measured.at(self.load(rate)).of(metric).at(share.get())
    }

    /// How much longer every step must take than the model says, for `measured_ms` to be the latency at `rate`: 1 if the model is
    /// right, 2 if the servers are half as fast as it says. Between 1/16 and 16.
    ///
    /// Not the ratio of latencies: near saturation, servers that are a tenth slower have waits that are several times as long.
    pub fn slowness(&self, rate: Rate, metric: Metric, share: Fraction, measured_ms: f64) -> f64 {
        // If every step takes s times as long, then so does everything at 1/s of the rate.
        let slowed = |s: f64| s * self.latency_ms(Rate::per_second(rate.as_per_second() * s), metric, share);
        let (mut low, mut high) = (1.0 / 16.0, 16.0);
        for _ in 0..BISECTIONS {
            let middle = libm::sqrt(low * high);
            if slowed(middle) < measured_ms {
                low = middle;
            } else {
                high = middle;
            }
        }
        libm::sqrt(low * high)
    }

    fn load(&self, rate: Rate) -> f64 {
        if self.measured.saturation > 0.0 {
            rate.as_per_second() / self.measured.saturation
        } else {
            f64::INFINITY
        }
    }

    fn highest_rate(&self) -> f64 {
        let holds = |load: f64| {
            let latencies = self.measured.at(load);
            self.objectives.iter().all(|objective| {
                latencies.of(objective.metric).within(super::milliseconds(objective)) >= objective.percentile.get()
            })
        };
        if holds(1.0) {
            return self.measured.saturation;
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(low, high);
            if holds(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low * self.measured.saturation
    }
}

/// Bisection steps: exact to some millionths.
const BISECTIONS: u32 = 20;

impl Latencies {
    fn of(&self, metric: Metric) -> &Quantiles {
        match metric {
            Metric::TimeToFirstToken => &self.ttft,
            Metric::InterTokenLatency => &self.itl,
        }
    }
}

impl Measured {
    /// No server at all: nothing is finished.
    fn none() -> Self {
        let never = Latencies {
            ttft: Quantiles::ZERO.map(|_, _| NEVER_MS),
            itl: Quantiles::ZERO.map(|_, _| NEVER_MS),
        };
        Self {
            saturation: 0.0,
            points: vec![never; LOADS.len() + 1],
        }
    }

    /// Servers that requests meet at random, from curves of one server of each kind: each is one for itself.
    fn unpooled(kinds: &[(&Self, u32)]) -> Self {
        let count: f64 = kinds.iter().map(|(_, count)| f64::from(*count)).sum();
        let slowest = kinds
            .iter()
            .map(|(each, _)| each.saturation)
            .fold(f64::INFINITY, f64::min);
        let mixture = |load: f64| {
            let each: Vec<(Latencies, f64)> = kinds
                .iter()
                .map(|(each, count)| (each.at(load * slowest / each.saturation), f64::from(*count)))
                .collect();
            let of = |metric| {
                let parts: Vec<(&Quantiles, f64)> = each
                    .iter()
                    .map(|(latencies, count)| (latencies.of(metric), *count))
                    .collect();
                Quantiles::mixture(&parts)
            };
            Latencies {
                ttft: of(Metric::TimeToFirstToken),
                itl: of(Metric::InterTokenLatency),
            }
        };
        let mut measured = Self {
            saturation: slowest * count,
            points: std::iter::once(0.0).chain(LOADS).map(mixture).collect(),
        };
        measured.smooth();
        measured
    }

    /// Between two sets, for one of `saturation`: `self` at a `weight` of zero.
    fn between(&self, other: &Self, weight: f64, saturation: f64) -> Self {
        let blend = |(low, high): (&Latencies, &Latencies)| Latencies {
            ttft: low.ttft.blend(&high.ttft, weight),
            itl: low.itl.blend(&high.itl, weight),
        };
        Self {
            saturation,
            points: self.points.iter().zip(&other.points).map(blend).collect(),
        }
    }
}

/// A latency beyond every objective, in ms.
const NEVER_MS: f64 = 1e12;

/// Kinds in canonical order, each once, none empty: those with the highest saturation first, because at equal work the router
/// takes the first server.
fn canonical(kinds: impl IntoIterator<Item = Kind>, saturation: impl Fn(&StepTimes) -> f64) -> Vec<(Kind, f64)> {
    let mut each: Vec<(Kind, f64)> = Vec::new();
    for (times, count) in kinds.into_iter().filter(|kind| kind.1 > 0) {
        match each.iter_mut().find(|(kind, _)| kind.0 == times) {
            Some(((_, known), _)) => *known = known.saturating_add(count),
            None => each.push(((times, count), saturation(&times))),
        }
    }
    each.retain(|(_, saturation)| *saturation > 0.0);
    each.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| Reverse(a.0).cmp(&Reverse(b.0))));
    each
}

#[cfg(test)]
mod tests;
