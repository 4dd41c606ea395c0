//! The track record: every forecast is kept until its time has come, and scored then.
//!
//! Per horizon band it holds what is still to be scored, each model's recent loss, what the regression has learned, and the errors of
//! the forecasts that were given out. It moves forward by whole buckets of 5 minutes and depends on nothing but the
//! history, so that a restart, or catching up with an hour at once, gives the same record.

mod stored;

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Event;
use super::decomposition::Decomposition;
use super::history::History;
use super::models::{AsOf, MODELS, Model, SINGLE};
use super::packing::single;
use super::regression::Regression;
use super::spread::{Coverage, Offsets, Residuals, prior_deviation};
use super::view::{PER_HOUR, Stretch, View};
use crate::time::Timestamp;

/// A distance into the future at which forecasts are scored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Horizon {
    /// From what is known to what is forecast, in fine buckets.
    pub(crate) ahead: i64,
    /// Length of what is forecast.
    pub(crate) length: i64,
    /// A forecast is scored every so many buckets.
    every: i64,
    /// In how many forecasts the weight of an old one halves: for losses, and for the regression.
    half_lives: [f64; 2],
}

impl Horizon {
    pub(crate) fn hours(&self) -> f64 {
        self.ahead as f64 / PER_HOUR as f64
    }

    /// How many scored forecasts share some of their time.
    fn overlap(&self) -> f64 {
        (self.ahead + self.length) as f64 / self.every as f64
    }

    fn target(&self, at: i64) -> Stretch {
        Stretch {
            start: at + self.ahead,
            end: at + self.ahead + self.length,
        }
    }
}

const fn horizon(ahead: i64, length: i64, every: i64) -> Horizon {
    let half_lives = if every == PER_HOUR {
        [48.0, 168.0]
    } else {
        [96.0, 384.0]
    };
    Horizon {
        ahead,
        length,
        every,
        half_lives,
    }
}

/// How many there are.
pub(crate) const BANDS: usize = 7;

/// 15 minutes, 1, 3, 6, 12, 24 and 33 hours ahead.
pub(crate) const HORIZONS: [Horizon; BANDS] = [
    horizon(3, 1, 3),
    horizon(12, 3, 3),
    horizon(36, 6, 3),
    horizon(72, 12, 12),
    horizon(144, 12, 12),
    horizon(288, 12, 12),
    horizon(396, 12, 12),
];

/// Levels at which models are scored.
const SCORED: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];
/// The same as standard normal quantiles.
const SCORED_NORMAL: [f64; 5] = [-1.645, -0.674, 0.0, 0.674, 1.645];

/// A model is chosen once so many of its forecasts at the horizon are scored.
const ENOUGH: f64 = 12.0;

/// A model alone is preferred to the combination if its loss is below this share of the combination's.
const CLEARLY: f64 = 0.95;

/// Catches up with at most so many buckets: what the fine history holds.
const LONGEST_CATCH_UP: i64 = 576;

/// Mean pinball loss of one model at one horizon, with the quantiles of its own errors.
///
/// The quantiles follow the errors by stochastic gradient descent on the pinball loss (Koenker and Bassett 1978 for the
/// loss), so that no error needs to be kept.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Skill {
    weight: f32,
    loss: f32,
    scale: f32,
    offsets: [f32; 5],
}

impl Skill {
    fn new(hours: f64) -> Self {
        let scale = single(prior_deviation(hours));
        Self {
            weight: 0.0,
            loss: 0.0,
            scale,
            offsets: SCORED_NORMAL.map(|normal| single(normal * f64::from(scale))),
        }
    }

    fn score(&mut self, expected: f64, actual: f64, forgetting: f64) {
        let miss = (actual - expected).clamp(-5.0, 5.0);
        let seen = libm::expm1(actual);
        let mut loss = 0.0;
        let scale = f64::from(self.scale);
        for (level, stored) in SCORED.iter().zip(&mut self.offsets) {
            let offset = f64::from(*stored);
            loss += pinball(*level, libm::expm1(expected + offset).max(0.0), seen);
            let side = if miss < offset { level - 1.0 } else { *level };
            *stored = single(offset + 0.15 * scale * side);
        }
        self.scale = single((forgetting * scale + (1.0 - forgetting) * miss.abs()).max(0.005));
        self.weight = single(forgetting * f64::from(self.weight) + 1.0);
        self.loss = single(forgetting * f64::from(self.loss) + loss / SCORED.len() as f64);
    }

    fn numbers(&self) -> [f64; 8] {
        let mut numbers = [0.0; 8];
        numbers[..3].copy_from_slice(&[self.weight, self.loss, self.scale]);
        numbers[3..].copy_from_slice(&self.offsets);
        numbers.map(f64::from)
    }

    fn of_numbers(numbers: [f64; 8]) -> Self {
        let [weight, loss, scale, offsets @ ..] = numbers.map(single);
        Self {
            weight,
            loss,
            scale,
            offsets,
        }
    }

    fn mean_loss(&self) -> Option<f64> {
        let weight = f64::from(self.weight);
        (weight >= ENOUGH).then(|| f64::from(self.loss) / weight)
    }
}

/// The loss of saying `quantile` for `level` when `actual` comes.
pub(crate) fn pinball(level: f64, quantile: f64, actual: f64) -> f64 {
    if actual >= quantile {
        level * (actual - quantile)
    } else {
        (1.0 - level) * (quantile - actual)
    }
}

/// A forecast whose time has not come. A thousand pools have a hundred thousand of them.
///
/// Bounds are in thousandths of `ln(1 + y)`, as what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    at: i64,
    models: [Option<Expected>; MODELS],
    given: Expected,
    low: i32,
    ninety: i32,
    high: i32,
}

/// What is expected, in thousandths of `ln(1 + y)`: one more than it is, so that there is room for `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected(NonZeroU16);

impl Expected {
    /// `None` if no forecast can be so low or so high.
    fn new(thousandths: i64) -> Option<Self> {
        let stored = u16::try_from(thousandths.checked_add(1)?).ok()?;
        NonZeroU16::new(stored).map(Self)
    }

    fn of(number: f64) -> Self {
        Self::new(i64::from(thousandths(number.clamp(0.0, MOST_LOG)))).unwrap_or(Self(NonZeroU16::MIN))
    }

    fn thousandths(self) -> i32 {
        i32::from(self.0.get()) - 1
    }

    fn get(self) -> f64 {
        of_thousandths(self.thousandths())
    }
}

/// More than any horizon keeps.
const LONGEST_PENDING: usize = 1_000;

#[expect(clippy::cast_possible_truncation, reason = "logarithms of demand are below 100")]
fn thousandths(number: f64) -> i32 {
    (number * 1_000.0).round() as i32
}

fn of_thousandths(thousandths: i32) -> f64 {
    f64::from(thousandths) / 1_000.0
}

#[derive(Clone, Debug, PartialEq)]
struct Band {
    pending: VecDeque<Pending>,
    skills: [Skill; MODELS],
    regression: Regression,
    residuals: Residuals,
    coverage: Coverage,
}

/// How forecasts of one pool have done, and what was learned from it.
///
/// # Guarantees
/// Bounded; depends on the history alone; never looks at what had not happened when a forecast was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "stored::Packed", into = "stored::Packed")]
pub struct Backtest {
    boundary: Option<i64>,
    /// Shared with copies until a bucket is complete.
    bands: Arc<Vec<Band>>,
    fitted: Option<Arc<Decomposition>>,
}

impl Default for Backtest {
    fn default() -> Self {
        Self::new()
    }
}

/// How the forecasts at one horizon have done lately.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// How far ahead.
    pub horizon: crate::time::Span,
    /// The model in use there.
    pub model: Model,
    /// How many forecasts were scored, the later ones weighing more.
    pub samples: f64,
    /// Mean pinball loss of the model in use over that of the last value.
    pub against_last_value: Option<f64>,
    /// Mean pinball loss of the model in use over that of the day before.
    pub against_seasonal_day: Option<f64>,
    /// Share of what came that was between the 5 % and the 95 % quantile.
    pub inside: Option<f64>,
    /// Share of what came that was not above the 90 % quantile.
    pub below_ninety: Option<f64>,
}

impl Backtest {
    /// No forecast made yet.
    pub fn new() -> Self {
        let band = |horizon: &Horizon| Band {
            pending: VecDeque::new(),
            skills: [Skill::new(horizon.hours()); MODELS],
            regression: Regression::prior(horizon.hours()),
            residuals: Residuals::default(),
            coverage: Coverage::default(),
        };
        Self {
            boundary: None,
            bands: Arc::new(HORIZONS.iter().map(band).collect()),
            fitted: None,
        }
    }

    /// Scores every forecast whose time is over, learns from it, and makes the next ones. To be called after each recording;
    /// does nothing until a bucket is complete.
    pub fn advance(&mut self, history: &History, events: &[Event]) {
        let Some(until) = history.recorded_until() else {
            return;
        };
        let end = history.fine.number(until);
        let known = history.fine.first.saturating_add(1);
        let next = match self.boundary {
            Some(boundary) if boundary <= end => (boundary + 1).max(known),
            Some(_) => {
                // The clock was set back: what was said about times that have not come is void.
                for band in Arc::make_mut(&mut self.bands) {
                    band.pending.retain(|pending| pending.at <= end);
                }
                self.boundary = Some(end);
                return;
            }
            None => known,
        };
        if next > end {
            return;
        }
        let view = View::new(history, events);
        for at in next.max(end - LONGEST_CATCH_UP)..=end {
            self.step(&view, at);
        }
        self.boundary = Some(end);
    }

    fn step(&mut self, view: &View, at: i64) {
        let mut made = AsOfCache::default();
        for (band, horizon) in Arc::make_mut(&mut self.bands).iter_mut().zip(&HORIZONS) {
            while band
                .pending
                .front()
                .is_some_and(|pending| horizon.target(pending.at).end <= at)
            {
                if let Some(pending) = band.pending.pop_front() {
                    band.score(horizon, &pending, view, at, &mut made);
                }
            }
        }
        if at.rem_euclid(PER_HOUR) == 0 {
            self.fitted = Decomposition::fit(view, at).map(Arc::new);
        }
        if HORIZONS.iter().all(|horizon| at.rem_euclid(horizon.every) != 0) {
            return;
        }
        let as_of = AsOf::new(view, at);
        let all_offsets = self.offsets();
        for index in 0..BANDS {
            let horizon = &HORIZONS[index];
            if at.rem_euclid(horizon.every) != 0 {
                continue;
            }
            let target = horizon.target(at);
            let models = self.expectations(index, &as_of, target);
            let Some(given) = self.pick(index, &models) else {
                continue;
            };
            let offsets = &all_offsets[index];
            let pending = &mut Arc::make_mut(&mut self.bands)[index].pending;
            // Soon there is one that goes for each that comes.
            pending.reserve_exact(1);
            pending.push_back(Pending {
                at,
                models: models.map(|expected| expected.map(Expected::of)),
                given: Expected::of(given),
                // Outwards: what comes exactly as forecast is inside.
                low: thousandths(given + offsets.low()) - 1,
                ninety: thousandths(given + offsets.ninety()) + 1,
                high: thousandths(given + offsets.high()) + 1,
            });
        }
    }

    /// What each model expects in `stretch`, by what is known of horizon `band`.
    pub(crate) fn expectations(&self, band: usize, as_of: &AsOf, stretch: Stretch) -> [Option<f64>; MODELS] {
        let mut all = [None; MODELS];
        for (expectation, model) in all.iter_mut().zip(Model::ALL) {
            *expectation = match model {
                Model::Regression => self.bands[band].regression.expects(as_of, stretch),
                model => as_of.expects(model, stretch, self.fitted.as_deref()),
            }
            .map(|value| value.clamp(0.0, MOST_LOG));
        }
        all[SINGLE] = self.combined(band, &all);
        all
    }

    /// Mean of the models, each weighted by the inverse square of its loss.
    fn combined(&self, band: usize, all: &[Option<f64>; MODELS]) -> Option<f64> {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (expectation, skill) in all.iter().zip(&self.bands[band].skills).take(SINGLE) {
            if let (Some(expectation), Some(loss)) = (expectation, skill.mean_loss()) {
                let weight = 1.0 / (loss * loss).max(1e-18);
                sum += weight * expectation;
                weights += weight;
            }
        }
        (weights > 0.0).then(|| sum / weights)
    }

    /// The combination, unless one model alone has done clearly better lately: at this horizon, or at the next shorter one at
    /// which any loss is known.
    pub(crate) fn chosen(&self, band: usize) -> Model {
        self.bands[..=band]
            .iter()
            .rev()
            .find_map(|band| {
                let handicap = |model| if model == Model::Combination { CLEARLY } else { 1.0 };
                let known =
                    |(model, skill): (Model, &Skill)| skill.mean_loss().map(|loss| (model, handicap(model) * loss));
                let best = Model::ALL.into_iter().zip(&band.skills).filter_map(known);
                best.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(model, _)| model)
            })
            .unwrap_or(Model::Regression)
    }

    /// What is given out: the chosen model's, or what can be said without it.
    pub(crate) fn pick(&self, band: usize, all: &[Option<f64>; MODELS]) -> Option<f64> {
        let fallbacks = [self.chosen(band), Model::Regression, Model::Level, Model::LastValue];
        fallbacks.into_iter().find_map(|model| all[model as usize])
    }

    /// The bands around what is given out.
    ///
    /// As long as a horizon has little experience, the next shorter one's band stands in for it, grown as the prior grows, but at
    /// least half as wide as the prior.
    pub(crate) fn offsets(&self) -> [Offsets; BANDS] {
        let mut ratio = 1.0;
        std::array::from_fn(|index| {
            let (band, horizon) = (&self.bands[index], &HORIZONS[index]);
            let prior = prior_deviation(horizon.hours());
            let offsets = band.residuals.offsets(prior * ratio, horizon.overlap());
            ratio = (offsets.deviation() / prior).clamp(0.5, 1.0);
            offsets.widened(&band.coverage)
        })
    }

    /// How forecasts have done, per horizon.
    pub fn accuracy(&self) -> Vec<Accuracy> {
        let one = |(index, band): (usize, &Band)| {
            let model = self.chosen(index);
            let loss = |model: Model| band.skills[model as usize].mean_loss();
            let ratio = |other: Model| Some(loss(model)? / loss(other).filter(|loss| *loss > 0.0)?);
            Accuracy {
                horizon: super::history::FINE * HORIZONS[index].ahead.unsigned_abs(),
                model,
                samples: band.coverage.samples(),
                against_last_value: ratio(Model::LastValue),
                against_seasonal_day: ratio(Model::SeasonalDay),
                inside: band.coverage.inside(),
                below_ninety: band.coverage.below_ninety(),
            }
        };
        self.bands.iter().enumerate().map(one).collect()
    }

    /// Up to when forecasts are scored.
    pub fn boundary(&self) -> Option<Timestamp> {
        self.boundary.map(|at| History::new().fine.start_of(at))
    }
}

/// No forecast is above this: 10^15 requests per 5 minutes.
pub(crate) const MOST_LOG: f64 = 34.6;

/// The last view of the past that was asked for: several horizons may look back to the same moment.
#[derive(Default)]
struct AsOfCache<'a>(Option<AsOf<'a>>);

impl<'a> AsOfCache<'a> {
    fn get(&mut self, view: &'a View, at: i64) -> &AsOf<'a> {
        if self.0.as_ref().is_none_or(|as_of| as_of.at != at) {
            self.0 = None;
        }
        self.0.get_or_insert_with(|| AsOf::new(view, at))
    }
}

impl Band {
    fn score<'a>(&mut self, horizon: &Horizon, pending: &Pending, view: &'a View, at: i64, made: &mut AsOfCache<'a>) {
        let target = horizon.target(pending.at);
        // A gap is not scored.
        let Some(actual) = view.log_mean(target, at) else {
            return;
        };
        let [of_losses, of_regression] = horizon.half_lives.map(|samples| libm::exp2(-1.0 / samples));
        for (expected, skill) in pending.models.iter().zip(&mut self.skills) {
            if let Some(expected) = expected {
                skill.score(expected.get(), actual, of_losses);
            }
        }
        let as_of = made.get(view, pending.at);
        self.regression
            .learn(as_of, target, actual, horizon.hours(), of_regression);
        self.residuals.push(actual - pending.given.get());
        let [low, ninety, high] = [pending.low, pending.ninety, pending.high].map(of_thousandths);
        self.coverage.push(actual, low, ninety, high);
    }
}
