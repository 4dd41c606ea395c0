//! A direct linear forecast per horizon: how much of each deviation from the profile has lasted that long, lately.
//!
//! `z(t) − profile(t) = w · x`, where `x` holds the deviations of the last 15 minutes, hour, 6 hours and 24 hours from the daily profile,
//! the difference of the weekly from the daily profile, how far the profile moves between now and `t`, and 1. Recursive least
//! squares in information form with exponential forgetting, where what is forgotten goes back to the prior (regularised
//! as in Young 2011, *Recursive Estimation*, ch. 5): `A ← λA + (1 − λ)A₀ + xxᵀ`, `b ← λb + (1 − λ)b₀ + xy`, `w = A⁻¹b`. The prior says what
//! `Profile` says, so that a pool without experience is forecast by it.

use super::models::AsOf;
use super::packing::{DecodeError, Reader, Writer, single};
use super::view::Stretch;

/// How many features there are.
pub(crate) const FEATURES: usize = 7;
type Vector = [f64; FEATURES];

/// Weight of the prior, in samples per squared unit of a feature.
const RIDGE: f64 = 8.0;

/// A symmetric matrix: row by row up to the diagonal.
type Triangle = [f32; FEATURES * (FEATURES + 1) / 2];

/// Rows and columns of a [`Triangle`].
fn triangle() -> impl Iterator<Item = (usize, usize)> {
    (0..FEATURES).flat_map(|row| (0..=row).map(move |column| (row, column)))
}

/// What holds at one horizon.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regression {
    moments: Triangle,
    products: [f32; FEATURES],
    weights: Vector,
}

impl Regression {
    /// The prior at a horizon of `hours`.
    pub(crate) fn prior(hours: f64) -> Self {
        let weights = Self::prior_weights(hours);
        let mut moments = [0.0; FEATURES * (FEATURES + 1) / 2];
        for (moment, (row, column)) in moments.iter_mut().zip(triangle()) {
            *moment = single(prior_moment(row, column));
        }
        let products = weights.map(|weight| single(weight * RIDGE));
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
        let kept = |learned: f32, prior: f64| forgetting * f64::from(learned) + (1.0 - forgetting) * prior;
        for (moment, (row, column)) in self.moments.iter_mut().zip(triangle()) {
            *moment = single(kept(*moment, prior_moment(row, column)) + features[row] * features[column]);
        }
        for ((product, prior), feature) in self.products.iter_mut().zip(prior.products).zip(features) {
            *product = single(kept(*product, f64::from(prior)) + feature * miss);
        }
        self.weights = solve(&self.moments, &self.products).unwrap_or(prior.weights);
    }

    /// The lower triangle and the products; the weights follow from them.
    pub(crate) fn write(&self, writer: &mut Writer) {
        for (moment, (row, column)) in self.moments.iter().zip(triangle()) {
            writer.float(f64::from(*moment));
            if row == column {
                writer.float(f64::from(self.products[row]));
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader, hours: f64) -> Result<Self, DecodeError> {
        let mut read = Self::prior(hours);
        for (moment, (row, column)) in read.moments.iter_mut().zip(triangle()) {
            *moment = single(reader.float()?);
            if row == column {
                read.products[row] = single(reader.float()?);
            }
        }
        read.weights = solve(&read.moments, &read.products).unwrap_or(read.weights);
        Ok(read)
    }
}

/// The moment of a pool without experience.
fn prior_moment(row: usize, column: usize) -> f64 {
    if row == column { RIDGE } else { 0.0 }
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
fn solve(triangle: &Triangle, right: &[f32; FEATURES]) -> Option<Vector> {
    let mut matrix = [[0.0; FEATURES]; FEATURES];
    for (moment, (row, column)) in triangle.iter().zip(self::triangle()) {
        matrix[row][column] = f64::from(*moment);
    }
    let right = right.map(f64::from);
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
