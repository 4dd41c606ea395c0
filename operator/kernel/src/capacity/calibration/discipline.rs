//! Whether requests meet servers as declared.

use serde::{Deserialize, Serialize};

use super::window::Window;
use super::{LEAST_REQUESTS, Observed};
use crate::capacity::curve::Curve;
use crate::snapshot::Discipline;
use crate::time::Timestamp;

/// Disciplines whose predictions differ by less than this factor cannot be told apart.
const APART: f64 = 1.25;

/// The better one's misfit must be this much smaller.
const CLEARLY: f64 = 0.7;

/// How much a machine that is slower than declared counts as a misfit, against figures that contradict each other.
const SPEED: f64 = 0.25;

/// Added to every misfit: what histograms and finite samples are off by anyway.
const NOISE: f64 = 0.05;

/// Which discipline explains a pool's latencies better.
///
/// Requests that are said to meet the least busy server but meet a random one wait longer, and long before the others are busy.
/// A slow machine makes them wait longer, too. The difference: one speed then explains all percentiles of TTFT and ITL. So the
/// misfit of a discipline is how far apart the slownesses are that it needs to explain each figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DisciplineFit {
    pooled: Window,
    unpooled: Window,
}

impl DisciplineFit {
    /// Compares figures that were measured at the same time with the curves of the servers under [`Discipline::LeastWork`] and
    /// under [`Discipline::Weighted`]. Best are a median and a high percentile of TTFT. Figures that look the same under both
    /// say nothing and are left out.
    pub fn observe(&mut self, at: Timestamp, figures: &[Observed], pooled: &Curve, unpooled: &Curve) {
        let telling = |figure: &Observed| {
            let of = |curve: &Curve| curve.latency_ms(figure.rate(), figure.metric, figure.percentile);
            of(unpooled) > APART * of(pooled)
        };
        let known: Vec<&Observed> = figures
            .iter()
            .filter(|figure| figure.requests >= LEAST_REQUESTS && figure.value_ms.is_finite() && figure.value_ms > 0.0)
            .collect();
        if known.iter().any(|figure| telling(figure)) {
            self.pooled.push(at, NOISE + misfit(&known, pooled));
            self.unpooled.push(at, NOISE + misfit(&known, unpooled));
        }
    }

    /// The discipline that fits clearly better; `None` if neither does, or with too few samples.
    pub fn better(&self, now: Timestamp) -> Option<Discipline> {
        let (pooled, unpooled) = (self.pooled.median(now)?, self.unpooled.median(now)?);
        if pooled < CLEARLY * unpooled {
            Some(Discipline::LeastWork)
        } else if unpooled < CLEARLY * pooled {
            Some(Discipline::Weighted)
        } else {
            None
        }
    }

    /// Whether the discipline is clearly not the one that is declared.
    pub fn contradicts(&self, declared: Discipline, now: Timestamp) -> bool {
        self.better(now).is_some_and(|better| better != declared)
    }
}

/// How badly `curve` explains the figures.
fn misfit(figures: &[&Observed], curve: &Curve) -> f64 {
    let mut needed: Vec<f64> = figures
        .iter()
        .map(|figure| libm::log(curve.slowness(&figure.rates, figure.metric, figure.percentile, figure.value_ms)))
        .collect();
    needed.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (needed.first(), needed.last()) else {
        return 0.0;
    };
    most - least + SPEED * libm::fabs(needed[needed.len() / 2])
}
