//! What servers sustain for a pool's traffic while every objective holds.
//!
//! The engine of [`crate::engine`] serves requests that arrive at random. [`predict`] gives the latencies at a rate, and
//! [`sustainable`] the largest rate at which every objective holds. Neither is a sum over servers: under
//! [`Discipline::LeastWork`] a request meets the server that is least busy, so many servers wait less than few at the same load;
//! under [`Discipline::Weighted`] it meets a random one, busy or not, and pooling gains nothing.
//!
//! # Assumptions
//! Poisson arrivals; lengths independent of each other and drawn from the mix; a router that knows prompts. `queue` has the
//! approximations, and the tests compare them with the engine itself. Over one to 24 servers of one or two kinds, both disciplines,
//! and the lengths of conversations, chat and coding, the sustainable rate is within 15 % of the simulated one, under
//! [`Discipline::LeastWork`] mostly within 5 %. It is too high at most where an ITL objective binds on a single busy
//! server (15 %), or a TTFT objective is within a few percent of what an idle server does (up to a third). It is too low by up to
//! a quarter where an ITL objective is shorter than one chunk's prefill and answers are short.
//!
//! # Formulas or curves
//! [`curve`] answers the same questions, with the same [`Prediction`], from a simulation of the engine: exact but for sampling, at
//! the price of some tens of milliseconds per set of servers, once. Take the formulas for a first answer and where a set is only
//! looked at, a [`Curve`] where money depends on it. They differ most where a distribution is not smooth: formulas know the
//! mean of what prompts of others do to ITL, not that most requests meet none and some meet many, so ITL at a percentile may be
//! off by a factor when answers are short; and the median TTFT of one or two busy servers by a quarter.
//! `operator/docs/capacity.md` has both beside the simulator. [`calibration`] holds either against what is measured.
//!
//! # Guarantees
//! Pure arithmetic with a fixed number of iterations: the same input gives the same bits.

pub mod calibration;
pub mod curve;
mod mix;
mod percentiles;
pub mod published;
mod quantiles;
mod queue;
mod sets;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::engine::StepTimes;
use crate::performance::Performance;
use crate::snapshot::{Discipline, LengthMix, Metric, Objective};
use crate::units::{Fraction, Rate};

pub use calibration::{Calibration, Calibrations, Trust};
pub use curve::{Curve, Curves, Effort, Traffic};
pub use percentiles::Percentiles;
pub(crate) use sets::Sets;

use percentiles::{Component, Extra, Share};

/// Servers of one kind that serve one pool.
#[derive(Clone, Copy, Debug)]
pub struct Servers<'a> {
    /// What one of them does.
    pub performance: &'a Performance,
    /// How many there are.
    pub count: u32,
}

/// Latencies at one rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// TTFT in ms.
    pub ttft_ms: Percentiles,
    /// ITL in ms: the mean of one request, over requests.
    pub itl_ms: Percentiles,
    /// The rate over the highest rate that the servers can finish at all.
    pub utilization: Fraction,
}

impl Prediction {
    /// The distribution that `metric` is about.
    pub fn of(&self, metric: Metric) -> &Percentiles {
        match metric {
            Metric::TimeToFirstToken => &self.ttft_ms,
            Metric::InterTokenLatency => &self.itl_ms,
        }
    }

    /// Whether `objective` holds.
    pub fn meets(&self, objective: &Objective) -> bool {
        self.of(objective.metric).within(milliseconds(objective)) >= objective.percentile
    }
}

/// An objective that no server of this kind meets, not even idle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unreachable {
    /// Which.
    pub objective: Objective,
    /// The value at its percentile on an idle server, in ms.
    pub value_ms: f64,
}

/// Latencies at `rate`. `None` if the servers cannot finish that many requests, or there are none.
pub fn predict(servers: &[Servers], mix: &LengthMix, discipline: Discipline, rate: Rate) -> Option<Prediction> {
    let kinds = kinds(servers).into_iter();
    let kinds = kinds.map(|(times, count)| (Arc::new(queue::Kind::new(&times, mix)), f64::from(count)));
    queue::Station::new(kinds.collect(), mix, discipline).predict(rate.as_per_second())
}

/// The largest rate at which every objective holds; zero if there is none.
///
/// More servers of one kind never sustain less. Slow servers beside fast ones may, because a router sends requests to all: under
/// [`Discipline::Weighted`] four fast and four slow servers sustain less than the four fast ones alone.
pub fn sustainable(servers: &[Servers], mix: &LengthMix, objectives: &[Objective], discipline: Discipline) -> Rate {
    Sets::new(mix.clone(), objectives.to_vec(), discipline).sustainable(kinds(servers))
}

/// So many servers of each kind.
pub(crate) type Kinds = Vec<(StepTimes, u32)>;

fn kinds(servers: &[Servers]) -> Kinds {
    let mut kinds = Kinds::new();
    for servers in servers {
        add(&mut kinds, servers.performance, servers.count);
    }
    kinds
}

/// Kinds of servers are in the order in which they come first, each once: machines of several groups are one kind if they do the same.
pub(crate) fn add(kinds: &mut Kinds, performance: &Performance, count: u32) {
    if count == 0 {
        return;
    }
    match kinds.iter_mut().find(|(known, _)| *known == performance.times) {
        Some((_, known)) => *known = known.saturating_add(count),
        None => kinds.push((performance.times, count)),
    }
}

/// The highest value up to `most` that `holds`, which holds up to some value and not beyond; by so many bisections, so it is the lower end of
/// what they leave.
fn highest(most: f64, bisections: u32, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, most);
    for _ in 0..bisections {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Whether every objective holds at least on an idle server.
pub fn unloaded(performance: &Performance, mix: &LengthMix, objectives: &[Objective]) -> Result<(), Unreachable> {
    let times = &performance.times;
    let alone = |metric| {
        mix.classes.iter().map(move |&(prompt, _)| Component {
            weight: 1.0,
            base_ms: match metric {
                Metric::TimeToFirstToken => prefill_alone_ms(performance, prompt),
                Metric::InterTokenLatency => (times.alpha_ns + times.beta_ns) as f64 / 1e6,
            },
            extra: [Extra::NONE; 2],
        })
    };
    for objective in objectives {
        let mut share = Share::default();
        alone(objective.metric).for_each(|component| share.add(&component, milliseconds(objective)));
        if share.within() < objective.percentile {
            let latencies = Percentiles::new(alone(objective.metric).collect());
            return Err(Unreachable {
                objective: *objective,
                value_ms: latencies.at(objective.percentile),
            });
        }
    }
    Ok(())
}

/// TTFT of a prompt on an idle server, in ms: one fixed part per chunk, and each token.
pub fn prefill_alone_ms(performance: &Performance, prompt: u32) -> f64 {
    let times = &performance.times;
    let chunks = f64::from(prompt.max(1).div_ceil(times.prefill_chunk.max(1)));
    (chunks * times.alpha_ns as f64 + f64::from(prompt.max(1)) * times.delta_ns as f64) / 1e6
}

fn milliseconds(objective: &Objective) -> f64 {
    objective.threshold.as_millis() as f64
}

/// A duration for people: three figures are enough.
pub(crate) fn duration(ms: f64) -> String {
    if ms < 1_000.0 {
        format!("{ms:.0}ms")
    } else {
        format!("{:.1}s", ms / 1_000.0)
    }
}
