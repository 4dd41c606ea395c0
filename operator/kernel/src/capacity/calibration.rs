//! Whether the model may be believed, and by how much it is off: measured against predicted, per pool and kind of machine.
//!
//! What is compared is *slowness*: how much longer every step takes than the model says, see [`Curve::slowness`]. It is the same
//! at every load, while the ratio of two latencies explodes near saturation. The median over a window counts; it is believed
//! between [`CLAMP`]'s ends. Outside, something is wrong with the declaration and not with the speed; a wrong model then neither
//! refuses nor removes capacity, and does not buy more than has been seen to be of use.
//!
//! Pure and serialisable: it is part of what a decision depends on. Bounded: [`MOST_SAMPLES`] per signal, [`MOST_PAIRS`] in all.

mod discipline;
mod window;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::curve::Curve;
use crate::engine::StepTimes;
use crate::names::PoolId;
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
pub const LEAST_SAMPLES: usize = 5;

/// Percentiles of fewer requests are not compared.
pub const LEAST_REQUESTS: u64 = 50;

/// Pairs of pool and kind of machine that are kept.
pub const MOST_PAIRS: usize = 4_096;

/// While the model is not believed, at most so many times as many servers as measured throughput asks for.
const HEADROOM: f64 = 2.0;

/// What slowness is told from. Prefill, decoding and routing can be off by different factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signal {
    /// TTFT at an objective's percentile.
    FirstToken,
    /// ITL at an objective's percentile.
    InterToken,
    /// Requests finished by servers that had requests waiting all the time.
    Throughput,
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// When it ended.
    pub at: Timestamp,
    /// What arrived, at all servers that the curve is of.
    pub rate: Rate,
    /// Of which latency.
    pub metric: Metric,
    /// Share of requests that stayed within `value_ms`.
    pub percentile: Fraction,
    /// The latency.
    pub value_ms: f64,
    /// Requests that it was measured over.
    pub requests: u64,
}

/// Whether the model may be believed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trust {
    /// Every step takes this many times as long as the model says; within [`CLAMP`].
    Trusted(f64),
    /// Nobody knows yet, or not any more.
    TooFewSamples,
    /// The median of the signal that is furthest off.
    OutOfRange(f64),
}

impl Trust {
    /// Whether the model may be used to refuse requests, or to take capacity away.
    pub fn may_refuse_or_remove(self) -> bool {
        matches!(self, Self::Trusted(_))
    }

    /// What to multiply step times with.
    pub fn factor(self) -> f64 {
        match self {
            Self::Trusted(factor) => factor,
            Self::TooFewSamples => 1.0,
            Self::OutOfRange(ratio) => ratio.clamp(CLAMP.0, CLAMP.1),
        }
    }
}

/// Measured against predicted, for one pool on one kind of machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    slowness: BTreeMap<Signal, Window>,
    /// Requests per second that one busy server finished.
    finished: Window,
}

impl Calibration {
    /// Compares a measured latency with the curve of the servers that it was measured on. What is measured on too few requests,
    /// or cannot be a latency, is left out.
    pub fn observe(&mut self, observed: &Observed, curve: &Curve) {
        let plausible = observed.value_ms.is_finite() && observed.value_ms > 0.0 && observed.requests >= LEAST_REQUESTS;
        if plausible && curve.saturation() > Rate::ZERO {
            let slowness = curve.slowness(observed.rate, observed.metric, observed.percentile, observed.value_ms);
            self.note(observed.metric.into(), observed.at, slowness);
        }
    }

    /// Compares what a server finishes that has requests waiting all the time with what the model says that it can.
    pub fn observe_busy(&mut self, at: Timestamp, finished: Rate, predicted: Rate) {
        if finished > Rate::ZERO && predicted > Rate::ZERO {
            self.note(
                Signal::Throughput,
                at,
                predicted.as_per_second() / finished.as_per_second(),
            );
            self.finished.push(at, finished.as_per_second());
        }
    }

    fn note(&mut self, signal: Signal, at: Timestamp, slowness: f64) {
        self.slowness.entry(signal).or_default().push(at, slowness);
    }

    /// Whether the model may be believed at `now`. Of several signals the slowest counts; one that is out of range spoils all.
    pub fn trust(&self, now: Timestamp) -> Trust {
        let medians = self.slowness.values().filter_map(|window| window.median(now));
        let mut slowest: Option<f64> = None;
        let mut worst: Option<f64> = None;
        for median in medians {
            if !(CLAMP.0..=CLAMP.1).contains(&median) {
                let further = |other: f64| libm::fabs(libm::log(median)) > libm::fabs(libm::log(other));
                worst = Some(worst.filter(|other| !further(*other)).unwrap_or(median));
            }
            slowest = Some(slowest.map_or(median, |other| other.max(median)));
        }
        match (worst, slowest) {
            (Some(ratio), _) => Trust::OutOfRange(ratio),
            (None, Some(factor)) => Trust::Trusted(factor),
            (None, None) => Trust::TooFewSamples,
        }
    }

    /// The median slowness by one signal; `None` with too few samples. Not clamped.
    pub fn slowness(&self, signal: Signal, now: Timestamp) -> Option<f64> {
        self.slowness.get(&signal)?.median(now)
    }

    /// Step times as calibrated, for another curve. As declared while nothing is known; clamped where the model is not believed.
    pub fn calibrated(&self, times: &StepTimes, now: Timestamp) -> StepTimes {
        let factor = self.trust(now).factor();
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

    /// The most servers that are worth having for `demand` while the model is not believed, `serving` of them being there already;
    /// `None` if it is believed.
    ///
    /// Twice as many as what busy servers have been seen to finish asks for, or, if they have not been seen busy, twice as many
    /// as there are: doubling reaches any true need in a few passes, and every doubling waits for new measurements. If nothing
    /// is busy and latencies are far below what the model says, what is there is enough.
    pub fn most_servers(&self, now: Timestamp, serving: u32, demand: Rate) -> Option<u32> {
        let most = match (self.trust(now), self.finished.median(now)) {
            (Trust::Trusted(_), _) => return None,
            (_, Some(finished)) => HEADROOM * demand.as_per_second() / finished,
            (Trust::OutOfRange(ratio), None) if ratio < 1.0 => f64::from(serving),
            (_, None) => HEADROOM * f64::from(serving),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates; not negative"
        )]
        Some((most.ceil() as u32).max(serving).max(1))
    }

    fn newest(&self) -> Option<Timestamp> {
        self.slowness.values().filter_map(Window::newest).max()
    }
}

/// The calibrations of all pools and kinds of machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Pair>", into = "Vec<Pair>")]
pub struct Calibrations(BTreeMap<(PoolId, MachineKey), Calibration>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pair {
    pool: PoolId,
    machine: MachineKey,
    calibration: Calibration,
}

impl Calibrations {
    /// That of a pair; without samples if there is none.
    pub fn get(&self, pool: &PoolId, machine: &MachineKey) -> Calibration {
        self.0
            .get(&(pool.clone(), machine.clone()))
            .cloned()
            .unwrap_or_default()
    }

    /// That of a pair, to add to. If there are too many, the one that was not measured for longest goes.
    pub fn of(&mut self, pool: &PoolId, machine: &MachineKey) -> &mut Calibration {
        let key = (pool.clone(), machine.clone());
        if self.0.len() >= MOST_PAIRS && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, calibration)| calibration.newest());
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.0.remove(&oldest);
            }
        }
        self.0.entry(key).or_default()
    }

    /// Drops what has no sample within [`WINDOW`] before `now`.
    pub fn forget(&mut self, now: Timestamp) {
        self.0
            .retain(|_, calibration| calibration.newest().is_some_and(|newest| now.since(newest) <= WINDOW));
    }
}

impl From<Vec<Pair>> for Calibrations {
    fn from(pairs: Vec<Pair>) -> Self {
        let entry = |pair: Pair| ((pair.pool, pair.machine), pair.calibration);
        Self(pairs.into_iter().take(MOST_PAIRS).map(entry).collect())
    }
}

impl From<Calibrations> for Vec<Pair> {
    fn from(all: Calibrations) -> Self {
        let pair = |((pool, machine), calibration)| Pair {
            pool,
            machine,
            calibration,
        };
        all.0.into_iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests;
