//! A direct linear forecast per horizon: how much of each deviation from the profile has lasted that long, lately.
//!
//! `z(t) − profile(t) = w · x`, where `x` holds the deviations of the last 15 minutes, hour, 6 hours and 24 hours from the daily profile,
//! the difference of the weekly from the daily profile, how far the profile moves between now and `t`, and 1. Recursive least
//! squares in information form with exponential forgetting, where what is forgotten goes back to the prior (regularised
//! as in Young 2011, *Recursive Estimation*, ch. 5): `A ← λA + (1 − λ)A₀ + xxᵀ`, `b ← λb + (1 − λ)b₀ + xy`, `w = A⁻¹b`. The prior says what
//! `Profile` says, so that a pool without experience is forecast by it.

use super::models::AsOf;
use super::packing::{DecodeError, Reader, Writer, short};
use super::view::Stretch;

/// How many features there are.
pub(crate) const FEATURES: usize = 7;
type Vector = [f64; FEATURES];

/// Weight of the prior, in samples per squared unit of a feature.
const RIDGE: f64 = 8.0;

/// What holds at one horizon.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regression {
    moments: [[f64; FEATURES]; FEATURES],
    products: Vector,
    weights: Vector,
}

impl Regression {
    /// The prior at a horizon of `hours`.
    pub(crate) fn prior(hours: f64) -> Self {
        let weights = Self::prior_weights(hours);
        let mut moments = [[0.0; FEATURES]; FEATURES];
        for (index, row) in moments.iter_mut().enumerate() {
            row[index] = RIDGE;
        }
        let products = weights.map(|weight| short(weight * RIDGE));
        Self {
            moments,
            products,
            weights: solve(&moments, &products).unwrap_or(weights),
        }
    }

    fn prior_weights(hours: f64) -> Vector {
        let last = libm::exp(-hours / 12.0);
        let quick = libm::exp(-hours / 2.0);
        // Of the last 15 minutes, hour, 6 hours and 24 hours; of the week; of the movement; and 1.
        [
            0.3 * quick * last,
            (0.6 - 0.3 * quick) * last,
            0.4 * last,
            super::models::DAY_LASTS * (1.0 - last),
            0.5,
            0.0,
            0.0,
        ]
    }

    /// What it expects: the profile, or the level as long as no profile is known, and what it makes of the features.
    pub(crate) fn expects(&self, as_of: &AsOf, stretch: Stretch) -> Option<f64> {
        let (base, features) = features(as_of, stretch)?;
        Some(base + dot(&self.weights, &features))
    }

    /// Learns that `actual` came where the features were as they were as of then. `forgetting` is λ.
    pub(crate) fn learn(&mut self, as_of: &AsOf, stretch: Stretch, actual: f64, hours: f64, forgetting: f64) {
        let Some((base, features)) = features(as_of, stretch) else {
            return;
        };
        let prior = Self::prior(hours);
        let miss = (actual - base).clamp(-5.0, 5.0);
        for (row, (row_moments, prior_row)) in self.moments.iter_mut().zip(&prior.moments).enumerate() {
            for (column, moment) in row_moments.iter_mut().enumerate() {
                let kept = forgetting * *moment + (1.0 - forgetting) * prior_row[column];
                *moment = short(kept + features[row] * features[column]);
            }
            let kept = forgetting * self.products[row] + (1.0 - forgetting) * prior.products[row];
            self.products[row] = short(kept + features[row] * miss);
        }
        self.weights = solve(&self.moments, &self.products).unwrap_or(prior.weights);
    }

    /// The lower triangle and the products; the weights follow from them.
    pub(crate) fn write(&self, writer: &mut Writer) {
        for (row, (moments, product)) in self.moments.iter().zip(self.products).enumerate() {
            for moment in &moments[..=row] {
                writer.float(*moment);
            }
            writer.float(product);
        }
    }

    pub(crate) fn read(reader: &mut Reader, hours: f64) -> Result<Self, DecodeError> {
        let mut read = Self::prior(hours);
        for row in 0..FEATURES {
            for column in 0..=row {
                let moment = reader.float()?;
                read.moments[row][column] = moment;
                read.moments[column][row] = moment;
            }
            read.products[row] = reader.float()?;
        }
        read.weights = solve(&read.moments, &read.products).unwrap_or(read.weights);
        Ok(read)
    }
}

fn features(as_of: &AsOf, stretch: Stretch) -> Option<(f64, Vector)> {
    let Some(usual) = as_of.daily(stretch) else {
        return Some((as_of.level()?, [0.0; FEATURES]));
    };
    let [quarter, hour, six, day] = as_of.deviations;
    let week = as_of.weekly(stretch).map_or(0.0, |week| week - usual);
    let moved = as_of.profile_now.map_or(0.0, |now| usual - now);
    Some((
        usual,
        [
            quarter,
            hour,
            six,
            day,
            week.clamp(-5.0, 5.0),
            moved.clamp(-5.0, 5.0),
            1.0,
        ],
    ))
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves `A w = b` for a symmetric positive definite `A` by Cholesky's method.
fn solve(matrix: &[Vector; FEATURES], right: &Vector) -> Option<Vector> {
    let mut lower = [[0.0; FEATURES]; FEATURES];
    for row in 0..FEATURES {
        for column in 0..=row {
            let known: f64 = (0..column).map(|k| lower[row][k] * lower[column][k]).sum();
            let rest = matrix[row][column] - known;
            lower[row][column] = if row == column {
                if rest <= 1e-12 || !rest.is_finite() {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / lower[column][column]
            };
        }
    }
    let mut half = [0.0; FEATURES];
    for row in 0..FEATURES {
        let known: f64 = (0..row).map(|k| lower[row][k] * half[k]).sum();
        half[row] = (right[row] - known) / lower[row][row];
    }
    let mut weights = [0.0; FEATURES];
    for row in (0..FEATURES).rev() {
        let known: f64 = (row + 1..FEATURES).map(|k| lower[k][row] * weights[k]).sum();
        weights[row] = (half[row] - known) / lower[row][row];
    }
    weights.iter().all(|weight| weight.is_finite()).then_some(weights)
}
