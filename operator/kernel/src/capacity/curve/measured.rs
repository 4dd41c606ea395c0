//! What a simulation of a set of servers said, as a function of load.

use super::stream::Stream;
use super::trial::{self, Latencies};
use super::{Effort, HIGHEST_LOAD, HORIZON_S, Kind};
use crate::capacity::quantiles::Quantiles;
use crate::engine::StepTimes;
use crate::snapshot::{LengthMix, Metric};

/// Loads that are measured: rates over saturation.
const LOADS: [f64; 12] = [
    0.15,
    0.3,
    0.45,
    0.58,
    0.68,
    0.76,
    0.82,
    0.87,
    0.905,
    0.93,
    0.95,
    HIGHEST_LOAD,
];

/// Latencies grow with the load `x` about as `1 / (POLE − x)`: between two measured loads
/// shares of requests are interpolated in that.
const POLE: f64 = 1.03;

/// No more servers than this are simulated: the gains of pooling are had by then. Larger sets are scaled down.
const MOST_SIMULATED: u32 = 32;

/// With fewer servers than this, more requests are simulated. One server gets this many times as many: it has the longest
/// memory, and every set whose servers are met at random is made of it.
const FEW: f64 = 4.0;

/// A latency beyond every objective, in ms.
const NEVER_MS: f64 = 1e12;

/// Latencies over loads, from zero to [`HIGHEST_LOAD`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    /// Requests per second.
    pub(super) saturation: f64,
    /// One more than [`LOADS`]: the first is of idle servers.
    points: Vec<Latencies>,
}

impl Measured {
    /// `kinds` in canonical order; none of them zero.
    pub(super) fn simulate(kinds: &[Kind], saturations: &[f64], mix: &LengthMix, effort: Effort) -> Self {
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
        // Waits near saturation vary most, and those at few servers: they get most of the effort.
        let few = (FEW / servers.len() as f64).max(1.0);
        let shares: f64 = LOADS.iter().map(|load| share(*load)).sum();
        for (index, load) in LOADS.into_iter().enumerate() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a u32")]
            let requests = (f64::from(effort.requests) * few * share(load) / shares) as usize;
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

    /// The measured loads beside a load, and how far it is from the first to the second.
    fn beside(&self, load: f64) -> (&Latencies, &Latencies, f64) {
        let capped = load.clamp(0.0, HIGHEST_LOAD);
        let above = LOADS.partition_point(|point| *point < capped).min(LOADS.len() - 1);
        let low = above.checked_sub(1).map_or(0.0, |below| LOADS[below]);
        let steep = |load: f64| 1.0 / (POLE - load);
        let weight = ((steep(capped) - steep(low)) / (steep(LOADS[above]) - steep(low))).clamp(0.0, 1.0);
        (&self.points[above], &self.points[above + 1], weight)
    }

    /// Share of requests within `ms` at a load: what [`Self::at`] says, without all that was not asked for.
    pub(super) fn within(&self, load: f64, metric: Metric, ms: f64) -> f64 {
        if load > HIGHEST_LOAD {
            return self.at(load).of(metric).within(ms);
        }
        let (low, high, weight) = self.beside(load);
        let (low, high) = (low.of(metric).within(ms), high.of(metric).within(ms));
        low + (high - low) * weight
    }

    /// Latencies at a load.
    pub(super) fn at(&self, load: f64) -> Latencies {
        let (low, high, weight) = self.beside(load);
        let queued_ms = if load > HIGHEST_LOAD {
            HORIZON_S * 1e3 * (1.0 - HIGHEST_LOAD / load)
        } else {
            0.0
        };
        let between = |low, high| Quantiles::mixture(&[(low, 1.0 - weight), (high, weight)]);
        Latencies {
            ttft: between(&low.ttft, &high.ttft).map(|ms, level| ms + queued_ms * level),
            itl: between(&low.itl, &high.itl),
        }
    }

    /// No server at all: nothing is finished.
    pub(super) fn none() -> Self {
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
    pub(super) fn unpooled(kinds: &[(&Self, u32)]) -> Self {
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
    pub(super) fn between(&self, other: &Self, weight: f64, saturation: f64) -> Self {
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

/// Effort at a load, relative to others.
fn share(load: f64) -> f64 {
    1.0 + 1.5 * load * load
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
