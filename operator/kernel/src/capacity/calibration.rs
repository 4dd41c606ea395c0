//! Whether the model may be believed, and by how much it is off: measured against predicted, per pool and kind of machine.
//!
//! What is compared is *slowness*: how much longer every step takes than the model says, see [`Curve::slowness`]. It is the same
//! at every load, while the ratio of two latencies explodes near saturation. The median over a window counts; it is believed
//! between [`CLAMP`]'s ends. Outside, something is wrong with the declaration and not with the speed; a wrong model then neither
//! refuses nor buys, and one that promises too much takes nothing away. Samples that contradict each other correct nothing.
//!
//! What was found out stays until measurements say something else: a night without requests, or a restart, proves nothing. It is moved
//! in steps, because every other figure is another set of capacity curves.
//!
//! Pure and serialisable: it is part of what a decision depends on. Bounded: [`MOST_SAMPLES`] per signal, [`MOST_MACHINES`] per pool.

mod discipline;
mod window;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::curve::Curve;
use crate::engine::StepTimes;
use crate::snapshot::{MachineKey, Metric};
use crate::time::{Span, Timestamp};
use crate::units::{Fraction, Rate};

pub use discipline::DisciplineFit;

use window::Window;

/// The slownesses that are believed.
pub const CLAMP: (f64, f64) = (0.5, 2.0);

/// Samples older than this say nothing.
pub const WINDOW: Span = Span::from_hours(1);

/// Samples come no closer than this, so that a window is full of different moments.
pub const SPACING: Span = Span::from_minutes(2);

/// Samples kept per signal: [`WINDOW`] over [`SPACING`].
pub const MOST_SAMPLES: usize = 30;

/// With fewer samples the model has not been seen to be right.
pub const LEAST_SAMPLES: usize = 3;

/// Percentiles of fewer requests are not compared.
pub const LEAST_REQUESTS: u64 = 50;

/// So long after an engine was full, waits say nothing.
pub const BACKLOG: Span = Span::from_minutes(15);

/// Kinds of machines that are kept per pool.
pub const MOST_MACHINES: usize = 16;

/// Quartiles of the samples that are further apart than this contradict each other.
const SCATTERED: f64 = 2.5;

/// Figures are corrected in steps of this share of what is declared …
const STEP: f64 = 0.05;

/// … and only when what is measured has left the step by half a step more.
const HYSTERESIS: f64 = 0.05;

/// Within this factor, histograms, bursts and the model itself explain what is measured, and nothing is corrected.
const TOLERANCE: f64 = 1.35;

/// What slowness is told from. Prefill and decoding can be off by different factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signal {
    /// TTFT at an objective's percentile.
    FirstToken,
    /// ITL at an objective's percentile.
    InterToken,
}

impl From<Metric> for Signal {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::TimeToFirstToken => Self::FirstToken,
            Metric::InterTokenLatency => Self::InterToken,
        }
    }
}

/// One latency of the servers of one kind, measured over some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// When it ended.
    pub at: Timestamp,
    /// At which rates requests arrived within that time, at all servers that the curve is of, each with the share of requests that came at it.
    pub rates: Vec<(Rate, f64)>,
    /// Of which latency.
    pub metric: Metric,
    /// Share of requests that stayed within `value_ms`.
    pub percentile: Fraction,
    /// The latency.
    pub value_ms: f64,
    /// Requests that it was measured over.
    pub requests: u64,
}

impl Observed {
    /// The rate at which the mean request came.
    fn rate(&self) -> Rate {
        let part = |(rate, share): &(Rate, f64)| rate.as_per_second() * share;
        Rate::per_second(self.rates.iter().map(part).sum())
    }
}

/// Whether the model may be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Trust {
    /// Nobody knows.
    #[default]
    TooFewSamples,
    /// Every step takes this many times as long as the model says; within [`CLAMP`].
    Trusted(f64),
    /// The median of the signal that is furthest off.
    OutOfRange(f64),
    /// Samples contradict each other.
    Scattered,
}

impl Trust {
    /// What to multiply step times with.
    pub fn factor(self) -> f64 {
        match self {
            Self::Trusted(factor) => factor,
            Self::TooFewSamples | Self::Scattered => 1.0,
            Self::OutOfRange(ratio) => ratio.clamp(CLAMP.0, CLAMP.1),
        }
    }

    /// Whether the model may be used to refuse servers. One that nobody has checked may: otherwise what is impossible would be tried.
    pub fn may_refuse(self) -> bool {
        matches!(self, Self::Trusted(_) | Self::TooFewSamples)
    }

    /// Whether servers are so much slower than the model says that it may not be used to take capacity away.
    pub fn promises_too_much(self) -> bool {
        matches!(self, Self::OutOfRange(ratio) if ratio > 1.0)
    }

    /// Whether servers are so much faster than the model says that it may not be used to buy.
    pub fn promises_too_little(self) -> bool {
        matches!(self, Self::OutOfRange(ratio) if ratio < 1.0)
    }

    /// In steps, so that what is planned with does not move with every sample.
    fn in_steps(self) -> Self {
        match self {
            Self::Trusted(factor) if (1.0 / TOLERANCE..=TOLERANCE).contains(&factor) => Self::Trusted(1.0),
            Self::Trusted(factor) => Self::Trusted((factor / STEP).round() * STEP),
            // To two significant digits.
            Self::OutOfRange(ratio) if ratio >= 10.0 => Self::OutOfRange(ratio.round()),
            Self::OutOfRange(ratio) if ratio >= 1.0 => Self::OutOfRange((ratio * 10.0).round() / 10.0),
            Self::OutOfRange(ratio) => Self::OutOfRange((ratio * 100.0).round() / 100.0),
            Self::TooFewSamples | Self::Scattered => self,
        }
    }
}

/// Measured against predicted, for one pool on one kind of machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The figures that were compared.
    declared: StepTimes,
    slowness: BTreeMap<Signal, Window>,
    /// When an engine was last seen with more requests than it takes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    full_at: Option<Timestamp>,
    /// What is planned with.
    settled: Trust,
}

impl Calibration {
    /// Nothing is known of servers with these figures.
    pub fn of(declared: StepTimes) -> Self {
        Self {
            declared,
            slowness: BTreeMap::new(),
            full_at: None,
            settled: Trust::default(),
        }
    }

    /// An engine is full. A curve is of a steady state; waits in a backlog grow with time and not with load, and are felt for as long
    /// as it takes to work it off.
    pub fn full(&mut self, at: Timestamp) {
        self.full_at = Some(at);
    }

    /// Compares a measured latency with the curve of the servers that it was measured on. What is measured on too few requests,
    /// cannot be a latency, or is a wait in a backlog, is left out.
    pub fn observe(&mut self, observed: &Observed, curve: &Curve) {
        let plausible = observed.value_ms.is_finite() && observed.value_ms > 0.0 && observed.requests >= LEAST_REQUESTS;
        let waits = observed.metric == Metric::TimeToFirstToken && self.backlog(observed.at);
        if plausible && !waits && curve.saturation() > Rate::ZERO {
            let slowness = curve.slowness(&observed.rates, observed.metric, observed.percentile, observed.value_ms);
            let window = self.slowness.entry(observed.metric.into()).or_default();
            window.push(observed.at, slowness);
        }
    }

    fn backlog(&self, now: Timestamp) -> bool {
        self.full_at.is_some_and(|full| now.since(full) <= BACKLOG)
    }

    /// Whether the model may be believed by what was measured lately. Of several signals the slowest counts; one that is out of range
    /// spoils all, and so does one that contradicts itself, unless another one does not.
    pub fn trust(&self, now: Timestamp) -> Trust {
        let known = self.slowness.values().filter_map(|window| window.quartiles(now));
        let (steady, scattered): (Vec<_>, Vec<_>) = known.partition(|[low, _, high]| high / low <= SCATTERED);
        let medians = || steady.iter().map(|[_, median, _]| *median);
        let off = |ratio: &f64| libm::fabs(libm::log(*ratio));
        let beyond = medians().filter(|median| !(CLAMP.0..=CLAMP.1).contains(median));
        match (
            beyond.max_by(|left, right| off(left).total_cmp(&off(right))),
            medians().reduce(f64::max),
        ) {
            (Some(ratio), _) => Trust::OutOfRange(ratio),
            (None, Some(slowest)) => Trust::Trusted(slowest),
            (None, None) if scattered.is_empty() => Trust::TooFewSamples,
            (None, None) => Trust::Scattered,
        }
    }

    /// Draws the conclusion from what was measured. Without enough of it, what was concluded before stays.
    pub fn settle(&mut self, now: Timestamp) {
        let found = self.trust(now);
        let moved = match (self.settled, found) {
            (_, Trust::TooFewSamples) => false,
            (Trust::Trusted(before), Trust::Trusted(now)) => {
                let as_declared = (before - 1.0).abs() < f64::EPSILON;
                let tolerance = if as_declared { TOLERANCE - 1.0 } else { STEP / 2.0 };
                (now - before).abs() > tolerance + HYSTERESIS
            }
            _ => true,
        };
        if moved {
            self.settled = found.in_steps();
        }
    }

    /// The conclusion.
    pub fn settled(&self) -> Trust {
        self.settled
    }

    fn newest(&self) -> Option<Timestamp> {
        self.slowness.values().filter_map(Window::newest).max()
    }
}

/// Step times as they are planned with.
pub fn calibrated(times: &StepTimes, trust: Trust) -> StepTimes {
    let factor = trust.factor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates; not negative"
    )]
    let scaled = |ns: u64| (ns as f64 * factor).round() as u64;
    StepTimes {
        alpha_ns: scaled(times.alpha_ns),
        beta_ns: scaled(times.beta_ns),
        delta_ns: scaled(times.delta_ns),
        ..*times
    }
}

/// The calibrations of one pool, by kind of machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Pair>", into = "Vec<Pair>")]
pub struct Calibrations(BTreeMap<MachineKey, Calibration>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pair {
    machine: MachineKey,
    #[serde(flatten)]
    calibration: Calibration,
}

impl Calibrations {
    /// What was found out about machines of this kind. What was found out about other figures is of no use for these.
    pub fn trust(&self, machine: &MachineKey, declared: &StepTimes) -> Trust {
        let known = self.0.get(machine).filter(|known| known.declared == *declared);
        known.map_or(Trust::TooFewSamples, Calibration::settled)
    }

    /// Whether an engine has lately had more requests than it takes at once.
    pub fn backlog(&self, now: Timestamp) -> bool {
        self.0.values().any(|known| known.backlog(now))
    }

    /// That of a kind, to add to. Begun anew if other figures were compared; if there are too many kinds, the one that was not measured
    /// for longest goes.
    pub fn of(&mut self, machine: &MachineKey, declared: &StepTimes) -> &mut Calibration {
        if self.0.len() >= MOST_MACHINES && !self.0.contains_key(machine) {
            let oldest = self.0.iter().min_by_key(|(_, calibration)| calibration.newest());
            if let Some(oldest) = oldest.map(|(machine, _)| machine.clone()) {
                self.0.remove(&oldest);
            }
        }
        let entry = self
            .0
            .entry(machine.clone())
            .or_insert_with(|| Calibration::of(*declared));
        if entry.declared != *declared {
            *entry = Calibration::of(*declared);
        }
        entry
    }
}

impl From<Vec<Pair>> for Calibrations {
    fn from(pairs: Vec<Pair>) -> Self {
        let entry = |pair: Pair| (pair.machine, pair.calibration);
        Self(pairs.into_iter().take(MOST_MACHINES).map(entry).collect())
    }
}

impl From<Calibrations> for Vec<Pair> {
    fn from(all: Calibrations) -> Self {
        let pair = |(machine, calibration)| Pair { machine, calibration };
        all.0.into_iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests;
