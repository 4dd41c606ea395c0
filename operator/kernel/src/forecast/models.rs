//! The models that compete, each a function of the past.
//!
//! | model | forecast of `ln(1 + y)` at `t`, with everything known before `b` |
//! |---|---|
//! | `LastValue` | the last known bucket |
//! | `SeasonalDay` | the same buckets of the last day that is over (Hyndman and Athanasopoulos, *Forecasting*, 3rd ed., 5.2) |
//! | `SeasonalWeek` | the same buckets a week earlier, from 8 days of history on |
//! | `Level` | the mean of the last hour |
//! | `Profile` | the daily profile, plus the deviation of the last 3 hours from it, which gives way to that of the last day with the horizon |
//! | `Decomposition` | MSTL and exponential smoothing: see `decomposition` |
//! | `Regression` | profile and deviations, weighted by what has held at this horizon: see `regression` |
//! | `Combination` | mean of the above, weighted by 1/loss² (Bates and Granger 1969) |

use serde::{Deserialize, Serialize};

use super::decomposition::Decomposition;
use super::view::{DAY, PER_HOUR, Stretch, View, WEEK};

/// A way to forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Model {
    /// Tomorrow is as it was a moment ago.
    LastValue,
    /// As yesterday at this time.
    SeasonalDay,
    /// As a week ago at this time.
    SeasonalWeek,
    /// As in the last hour.
    Level,
    /// The daily profile at the present level.
    Profile,
    /// Trend and seasons apart.
    Decomposition,
    /// Profile and deviations, weighted by experience.
    Regression,
    /// A weighted mean of the others.
    Combination,
}

impl Model {
    /// All, in the order in which they are stored. The combination is the last.
    pub const ALL: [Self; MODELS] = [
        Self::LastValue,
        Self::SeasonalDay,
        Self::SeasonalWeek,
        Self::Level,
        Self::Profile,
        Self::Decomposition,
        Self::Regression,
        Self::Combination,
    ];
}

/// How many models there are.
pub(crate) const MODELS: usize = 8;
/// How many of them look at the history; the last one looks at the others.
pub(crate) const SINGLE: usize = MODELS - 1;

/// From this many hours of history on, a week can be compared with the one before, and a day of it is left to score it by.
const WEEK_KNOWN: i64 = 8 * DAY;

/// Weight of the day before in the daily profile, relative to the day after: about three days count.
const DAY_MEMORY: f64 = 0.7;
/// Weight of the week before in the weekly profile, relative to the week after.
const WEEK_MEMORY: f64 = 0.7;

/// Hours in which a deviation from the profile gives way to that of the whole day, but for 1/e.
const DEVIATION_HOURS: f64 = 12.0;

/// Share of a whole day's deviation from the profile that lasts.
pub(crate) const DAY_LASTS: f64 = 0.75;

/// A view as of boundary `at`: everything before may be used.
pub(crate) struct AsOf<'a> {
    pub(crate) view: &'a View,
    pub(crate) at: i64,
    last: Option<f64>,
    level: Option<f64>,
    /// Deviation of the last 15 minutes, hour, 6 hours and 24 hours from the daily profile.
    pub(crate) deviations: [f64; 4],
    three_hours: f64,
    /// The profile now.
    pub(crate) profile_now: Option<f64>,
}

impl<'a> AsOf<'a> {
    pub(crate) fn new(view: &'a View, at: i64) -> Self {
        let mut as_of = Self {
            view,
            at,
            last: view.last(at),
            level: None,
            deviations: [0.0; 4],
            three_hours: 0.0,
            profile_now: None,
        };
        let back = |buckets: i64| Stretch {
            start: at - buckets,
            end: at,
        };
        as_of.level = view.log_mean(back(PER_HOUR), at).or(as_of.last);
        as_of.profile_now = as_of.daily(Stretch { start: at, end: at });
        as_of.deviations = [
            as_of.deviation(back(3)),
            as_of.deviation(back(PER_HOUR)),
            as_of.hourly_deviation(6, 0),
            // A whole day is compared with the profile that it is part of, as days to come are forecast by that one.
            as_of.hourly_deviation(DAY, DAY * PER_HOUR),
        ];
        as_of.three_hours = as_of.hourly_deviation(3, 0);
        as_of
    }

    /// The last known level, for want of anything better.
    pub(crate) fn level(&self) -> Option<f64> {
        self.level
    }

    fn deviation(&self, stretch: Stretch) -> f64 {
        let seen = self.view.log_mean(stretch, self.at);
        seen.zip(self.daily(stretch))
            .map_or(0.0, |(seen, usual)| bounded(seen - usual))
    }

    /// Mean deviation of the last `hours` from the daily profile, as it is `later` buckets later.
    fn hourly_deviation(&self, hours: i64, later: i64) -> f64 {
        let (mut sum, mut known) = (0.0, 0_u32);
        for hour in 1..=hours {
            let stretch = Stretch {
                start: self.at - hour * PER_HOUR,
                end: self.at - (hour - 1) * PER_HOUR,
            };
            let seen = self.view.log_mean(stretch, self.at);
            if let Some((seen, usual)) = seen.zip(self.daily(stretch.shifted(later))) {
                sum += bounded(seen - usual);
                known += 1;
            }
        }
        if known == 0 { 0.0 } else { sum / f64::from(known) }
    }

    /// Mean of one hour of the day over the days before, the later ones weighing more; hours in the future of `at` are left out,
    /// and so is the hour itself.
    fn profile(&self, hour: i64, period: i64, memory: f64) -> Option<f64> {
        let over = self.at.div_euclid(PER_HOUR);
        // The last full period before the hour that is over.
        let skipped = (hour - over).max(0) / period + 1;
        let mut back = hour - skipped * period;
        let (mut sum, mut weights, mut weight) = (0.0, 0.0, 1.0);
        while back >= self.view.first_hour() {
            if let Some(value) = self.view.hour(back, self.at) {
                sum += weight * value;
                weights += weight;
            }
            weight *= memory;
            back -= period;
        }
        (weights > 0.0).then(|| sum / weights)
    }

    /// A profile at the middle of `stretch`, between the middles of hours.
    fn between(&self, stretch: Stretch, period: i64, memory: f64) -> Option<f64> {
        let (hour, within) = stretch.hour();
        let here = self.profile(hour, period, memory)?;
        let (other, share) = if within < 0.5 {
            (hour - 1, 0.5 - within)
        } else {
            (hour + 1, within - 0.5)
        };
        Some(match self.profile(other, period, memory) {
            Some(other) if share > 0.0 => here + share * (other - here),
            _ => here,
        })
    }

    /// The daily profile.
    pub(crate) fn daily(&self, stretch: Stretch) -> Option<f64> {
        self.between(stretch, DAY, DAY_MEMORY)
    }

    /// The weekly profile, once a week is known.
    pub(crate) fn weekly(&self, stretch: Stretch) -> Option<f64> {
        self.knows_weeks()
            .then(|| self.between(stretch, WEEK, WEEK_MEMORY))
            .flatten()
    }

    /// Whether there is a day to compare with.
    pub(crate) fn knows_days(&self) -> bool {
        self.at.div_euclid(PER_HOUR) - self.view.first_hour() >= DAY
    }

    /// Whether there is a week to compare with.
    pub(crate) fn knows_weeks(&self) -> bool {
        self.at.div_euclid(PER_HOUR) - self.view.first_hour() >= WEEK_KNOWN
    }

    /// The same time of the last period that is over.
    fn naive(&self, stretch: Stretch, hours: i64) -> Option<f64> {
        let period = hours * PER_HOUR;
        let back = (stretch.end - self.at).max(1).div_euclid(period)
            + i64::from((stretch.end - self.at).max(1).rem_euclid(period) > 0);
        self.view.log_mean(stretch.shifted(-back * period), self.at)
    }

    /// What `model` expects in `stretch`. `None` if the history is too short for it, or it looks at the others.
    pub(crate) fn expects(&self, model: Model, stretch: Stretch, fitted: Option<&Decomposition>) -> Option<f64> {
        match model {
            Model::LastValue => self.last,
            Model::Level => self.level,
            Model::SeasonalDay => self.naive(stretch, DAY),
            Model::SeasonalWeek => self.knows_weeks().then(|| self.naive(stretch, WEEK)).flatten(),
            Model::Profile => {
                let usual = self.daily(stretch)?;
                let hours = (stretch.start - self.at).max(0) as f64 / PER_HOUR as f64;
                let lasts = libm::exp(-hours / DEVIATION_HOURS);
                Some(usual + lasts * self.three_hours + (1.0 - lasts) * DAY_LASTS * self.deviations[3])
            }
            Model::Decomposition => fitted?.expects(stretch),
            Model::Regression | Model::Combination => None,
        }
    }
}

/// A deviation by more than a factor of 150 is no better known than one of 150.
fn bounded(deviation: f64) -> f64 {
    deviation.clamp(-5.0, 5.0)
}
