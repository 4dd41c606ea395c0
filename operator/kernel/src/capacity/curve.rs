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

mod measured;
mod memo;
mod stream;
mod trial;

use super::{Percentiles, Prediction};
use crate::engine::StepTimes;
use crate::snapshot::{Metric, Objective};
use crate::units::{Fraction, Rate};

pub use memo::{Curves, Traffic};

use super::quantiles::Quantiles;
use measured::Measured;
use trial::Latencies;

/// The highest load that is measured.
pub const HIGHEST_LOAD: f64 = 0.97;

/// For so long, in seconds, requests beyond [`HIGHEST_LOAD`] are taken to queue up.
pub const HORIZON_S: f64 = 900.0;

/// How much work a curve is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort {
    /// Requests that are simulated, all loads together; about a microsecond each. Sets of fewer than four servers take up to
    /// four times as many.
    pub requests: u32,
}

impl Effort {
    /// About 15 ms.
    pub const QUICK: Self = Self { requests: 15_000 };
    /// About 40 ms.
    pub const USUAL: Self = Self { requests: 40_000 };
    /// For reports and for what is kept long.
    pub const THOROUGH: Self = Self { requests: 150_000 };
}

impl Default for Effort {
    fn default() -> Self {
        Self::USUAL
    }
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
        let load = self.load(rate);
        let within = |objective: &Objective| {
            let ms = super::milliseconds(objective);
            Fraction::new(self.measured.within(load, objective.metric, ms))
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

    /// The mean latency in ms at `rate`.
    pub fn mean_ms(&self, rate: Rate, metric: Metric) -> f64 {
        self.measured.at(self.load(rate)).of(metric).mean()
    }

    /// How much longer every step must take than the model says, for `measured_ms` to be the latency that this share of requests stays within, when they
    /// came at these `rates`, each with the share of them that came at it: 1 if the model is right, 2 if the servers are half as fast as it says. Between
    /// 1/16 and 16.
    ///
    /// Not the ratio of latencies: near saturation, servers that are a tenth slower have waits that are several times as long.
    pub fn slowness(&self, rates: &[(Rate, f64)], metric: Metric, share: Fraction, measured_ms: f64) -> f64 {
        // If every step takes s times as long, then so does everything at 1/s of the rate.
        let slowed = |s: f64| -> f64 {
            let within =
                |(rate, part): &(Rate, f64)| part * self.measured.within(self.load(*rate) * s, metric, measured_ms / s);
            rates.iter().map(within).sum()
        };
        let (mut low, mut high) = (1.0 / 16.0, 16.0);
        for _ in 0..BISECTIONS {
            let middle = libm::sqrt(low * high);
            if slowed(middle) > share.get() {
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
            self.objectives.iter().all(|objective| {
                let ms = super::milliseconds(objective);
                self.measured.within(load, objective.metric, ms) >= objective.percentile.get()
            })
        };
        if holds(1.0) {
            return self.measured.saturation;
        }
        super::highest(1.0, BISECTIONS, holds) * self.measured.saturation
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

#[cfg(test)]
mod tests;
