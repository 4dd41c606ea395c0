//! How far what comes is from what was forecast: empirical quantiles of the errors, per horizon.
//!
//! Errors are differences of `ln(1 + y)`, so a band is a factor around the forecast. As long as few errors are known, a
//! wide prior counts for some of them. The result is corrected by its own coverage: a band that is missed too often is
//! widened (adaptive conformal inference, Gibbs and Candès 2021, on the width instead of the level).

use std::collections::VecDeque;

use super::LEVELS;
use super::packing::{DecodeError, Reader, Writer, short};

/// Errors that are kept per horizon.
const KEPT: usize = 168;
/// In how many errors the weight of an old one halves.
const HALF_LIFE: f64 = 72.0;
/// At so many independent errors the prior counts for half; its share fades with their cube.
const PRIOR_FADES: f64 = 2.0;
/// Up to so many independent errors, each counts on both sides alike.
const MIRRORED: f64 = 8.0;
/// The prior as equally likely standard normal errors, the middles of elevenths.
const PRIOR: [f64; 11] = [
    -1.691, -1.097, -0.748, -0.473, -0.230, 0.0, 0.230, 0.473, 0.748, 1.097, 1.691,
];
/// One unit of a stored error: 1/1000.
const UNIT: f64 = 1_000.0;

/// Standard deviation of an error before any is known: a factor of 1.4 at 15 minutes, of 2.3 at a day.
pub(crate) fn prior_deviation(hours: f64) -> f64 {
    (0.3 + 0.12 * libm::log1p(4.0 * hours)).min(1.2)
}

/// The last errors of one horizon, in thousandths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Residuals(VecDeque<i16>);

impl Residuals {
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of i16")]
    pub(crate) fn push(&mut self, error: f64) {
        while self.0.len() >= KEPT {
            self.0.pop_front();
        }
        // A thousand pools have seven of these each.
        self.0.reserve_exact(1);
        self.0.push_back((error.clamp(-30.0, 30.0) * UNIT).round() as i16);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.number(self.0.len() as u64);
        for error in &self.0 {
            writer.signed(i64::from(*error));
        }
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let damaged = DecodeError::Range("errors of forecasts");
        let count = usize::try_from(reader.number()?).ok().filter(|count| *count <= KEPT);
        let count = count.ok_or(damaged.clone())?;
        let mut errors = VecDeque::with_capacity(count);
        for _ in 0..count {
            errors.push_back(i16::try_from(reader.signed()?).map_err(|_| damaged.clone())?);
        }
        Ok(Self(errors))
    }

    /// Quantiles of the errors at [`LEVELS`] around forecasts of which `overlap` at a time share most of their error.
    ///
    /// Overlapping forecasts err together: a day on which everything came thrice as high is one error, not 24. So as long as few
    /// errors are independent, each counts on both sides, which keeps the width but not the bias.
    pub(crate) fn offsets(&self, prior_deviation: f64, overlap: f64) -> Offsets {
        let independent = self.0.len() as f64 / overlap.max(1.0);
        let forgetting = libm::exp2(-1.0 / HALF_LIFE);
        let mirrored = (MIRRORED / independent.max(1e-9)).min(1.0);
        let mut errors: Vec<(f64, f64)> = Vec::with_capacity(2 * self.0.len() + PRIOR.len());
        let (mut weight, mut total) = (1.0, 0.0);
        for error in self.0.iter().rev() {
            let error = f64::from(*error) / UNIT;
            errors.push((error, weight));
            errors.push((-error, weight * mirrored));
            total += weight * (1.0 + mirrored);
            weight *= forgetting;
        }
        // The share of the prior: 1 / (1 + (independent / fades)³).
        let ratio = independent / PRIOR_FADES;
        let prior = if ratio > 0.0 {
            total / (ratio * ratio * ratio)
        } else {
            1.0
        };
        errors.extend(PRIOR.map(|normal| (normal * prior_deviation, prior / PRIOR.len() as f64)));
        errors.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Offsets(LEVELS.map(|level| quantile(&errors, level)))
    }
}

/// The weighted quantile of sorted (value, weight), linear between the middles of weights.
fn quantile(sorted: &[(f64, f64)], level: f64) -> f64 {
    let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    let wanted = level * total;
    let (mut below, mut last) = (0.0, None::<(f64, f64)>);
    for (value, weight) in sorted {
        let middle = below + weight / 2.0;
        if middle >= wanted {
            return match last {
                Some((at, before)) if middle > at => before + (value - before) * (wanted - at) / (middle - at),
                _ => *value,
            };
        }
        below += weight;
        last = Some((middle, *value));
    }
    last.map_or(0.0, |(_, value)| value)
}

/// Distances from the forecast to its quantiles at [`LEVELS`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Offsets(pub(crate) [f64; LEVELS.len()]);

impl Offsets {
    pub(crate) fn low(&self) -> f64 {
        self.0[0]
    }

    pub(crate) fn ninety(&self) -> f64 {
        self.0[4]
    }

    pub(crate) fn high(&self) -> f64 {
        self.0[5]
    }

    fn median(&self) -> f64 {
        self.0[2]
    }

    /// The standard deviation of a normal distribution with this band: 3.29 of them lie between its 5 % and its 95 % quantile.
    pub(crate) fn deviation(&self) -> f64 {
        (self.high() - self.low()) / 3.29
    }

    /// The band for a mean over another length than was scored, whose variance differs by `variance`: distances from the
    /// median in proportion. At least 0.3 of the variance is taken to be common to all lengths.
    pub(crate) fn with_noise(self, variance: f64) -> Self {
        let median = self.median();
        let scored = self.deviation() * self.deviation();
        if scored <= 0.0 {
            return self;
        }
        let factor = ((scored + variance).max(0.3 * scored) / scored).sqrt().min(4.0);
        Self(self.0.map(|offset| median + (offset - median) * factor))
    }

    /// Between two horizons.
    pub(crate) fn towards(self, other: &Self, share: f64) -> Self {
        let mut offsets = self.0;
        for (offset, other) in offsets.iter_mut().zip(&other.0) {
            *offset += share * (other - *offset);
        }
        Self(offsets)
    }

    /// Both sides by what the coverage asks for.
    pub(crate) fn widened(self, coverage: &Coverage) -> Self {
        let median = self.median();
        let factors = [libm::exp(coverage.wider_below), libm::exp(coverage.wider_above)];
        Self(self.0.map(|offset| {
            let distance = offset - median;
            median + distance * if distance < 0.0 { factors[0] } else { factors[1] }
        }))
    }
}

/// How often what came was where it should have been.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Coverage {
    weight: f64,
    inside: f64,
    below_ninety: f64,
    /// Logarithm of the factor on the band's lower side.
    wider_below: f64,
    /// The same for its upper side.
    wider_above: f64,
}

/// How much one miss widens the band.
const LEARNING: f64 = 0.04;
/// Bounds of the logarithm of a side's factor; exact in 24 bits, so that a stored one reads back the same.
const NARROWEST: f64 = -0.1875;
const WIDEST: f64 = 0.875;
/// In how many forecasts the weight of an old one halves.
const COVERAGE_HALF_LIFE: f64 = 168.0;

impl Coverage {
    pub(crate) fn push(&mut self, actual: f64, low: f64, ninety: f64, high: f64) {
        let forgetting = libm::exp2(-1.0 / COVERAGE_HALF_LIFE);
        let share = |yes: bool| f64::from(u8::from(yes));
        self.weight = short(forgetting * self.weight + 1.0);
        self.inside = short(forgetting * self.inside + share((low..=high).contains(&actual)));
        self.below_ninety = short(forgetting * self.below_ninety + share(actual <= ninety));
        let step = |missed: bool, wanted: f64| LEARNING * (share(missed) - wanted);
        self.wider_below = short((self.wider_below + step(actual < low, 0.05)).clamp(NARROWEST, WIDEST));
        self.wider_above = short((self.wider_above + step(actual > ninety, 0.10)).clamp(NARROWEST, WIDEST));
    }

    pub(crate) fn numbers(&self) -> [f64; 5] {
        [
            self.weight,
            self.inside,
            self.below_ninety,
            self.wider_below,
            self.wider_above,
        ]
    }

    pub(crate) fn of_numbers([weight, inside, below_ninety, wider_below, wider_above]: [f64; 5]) -> Self {
        Self {
            weight,
            inside,
            below_ninety,
            wider_below: wider_below.clamp(NARROWEST, WIDEST),
            wider_above: wider_above.clamp(NARROWEST, WIDEST),
        }
    }

    pub(crate) fn samples(&self) -> f64 {
        self.weight
    }

    pub(crate) fn inside(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.inside / self.weight)
    }

    pub(crate) fn below_ninety(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.below_ninety / self.weight)
    }
}
