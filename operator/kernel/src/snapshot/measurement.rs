//! What is measured of a pool: arrivals, lengths, objectives and engines. Each says so where it is not known.

use serde::{Deserialize, Serialize};

use crate::reason::Problem;
use crate::time::Timestamp;
use crate::units::{Fraction, Rate};

/// Arrivals of a pool, as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Demand {
    /// Measured.
    Known(Arrivals),
    /// Not measured: no source, no answer, too few samples, or too old. Not the same as no demand.
    Unknown {
        /// Since when; the start of observation if never known.
        since: Timestamp,
        /// What is missing.
        problem: Problem,
        /// So much arrives at least, by the part of the sources that answers. Enough to add for, never to take away by.
        #[serde(default)]
        at_least: Option<Rate>,
    },
}

/// Measured arrivals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Over the last minute.
    pub rate_1m: Rate,
    /// Over the last five minutes, or as much of them as has been seen.
    pub rate_5m: Rate,
    /// Lengths of the requests seen lately; `None` if too few were seen.
    pub lengths: Option<LengthMix>,
    /// When the newest sample was taken.
    pub at: Timestamp,
}

impl Arrivals {
    /// What arrives right now, to plan ahead with. The short window is noisy (a hundred requests a minute are ten more or less by chance,
    /// and servers are paid for a day), the long one late: a third of one and two thirds of the other.
    pub fn recent(&self) -> Rate {
        let (short, long) = (self.rate_1m.as_per_second(), self.rate_5m.as_per_second());
        Rate::per_second(0.4 * short + 0.6 * long)
    }
}

/// The distribution of prompt and output lengths, as equally likely classes.
///
/// Quantile bins: each pair is the mean prompt and output length of one of the bins, in tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthMix {
    /// Equally likely (prompt tokens, output tokens), sorted by prompt; never empty.
    pub classes: Vec<(u32, u32)>,
}

/// One objective, as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Measured {
    /// Measured over the last five minutes.
    Known {
        /// The value at the objective's percentile, in ms. Interpolated within a histogram's bucket.
        value_ms: f64,
        /// Share of requests within the threshold.
        attained: Fraction,
        /// Requests in the sample.
        samples: u64,
        /// When the newest sample was taken.
        at: Timestamp,
    },
    /// The engine exports no such metric (llama.cpp): only the model can say.
    ModelOnly,
    /// Not measured.
    Unknown {
        /// What is missing.
        problem: Problem,
    },
}

/// What a pool's engines in one group say of the last five minutes, all of those that serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnginesMeasured {
    /// How many they are.
    pub engines: u32,
    /// Requests that they answered, per second.
    pub rate: Rate,
    /// Latency at the percentile of each objective, in ms, in the order of the objectives; `None` where the engine exports no such metric.
    pub values_ms: Vec<Option<f64>>,
    /// Requests in the sample.
    pub samples: u64,
    /// When the newest sample was taken.
    pub at: Timestamp,
}
