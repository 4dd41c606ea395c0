//! MSTL with exponential smoothing of the seasonally adjusted series.
//!
//! MSTL takes the series apart into seasons of a day, and of a week from two weeks on, a trend and a remainder (Bandara, Hyndman and Bergmeir
//! 2021, arXiv:2107.13462; the crate `stlrs`). The seasons go on as they were last; what remains is smoothed exponentially
//! with the constant that forecasts one step best (`stlf` of Hyndman and Athanasopoulos, *Forecasting*, 3rd ed., 12.1).

use super::packing::{DecodeError, Reader, Writer, short, single};
use super::view::{DAY, PER_HOUR, Stretch, View, WEEK};

/// The hours it looks back.
const LONGEST: i64 = 28 * DAY;
/// Smoothing constants to choose from.
const ALPHAS: [f64; 6] = [0.05, 0.1, 0.2, 0.4, 0.6, 0.9];

/// A fit, good until the next one an hour later.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decomposition {
    /// The first hour after the fitted ones.
    hour: i64,
    /// The level after the last hour.
    level: f64,
    /// The seasons' sum for the hours before `hour`: one day, or one week.
    season: Box<[f32]>,
}

impl Decomposition {
    /// Fits to the hours that are over at boundary `at`. `None` with less than two days.
    pub(crate) fn fit(view: &View, at: i64) -> Option<Self> {
        let hour = at.div_euclid(PER_HOUR);
        let first = view.first_hour().max(hour - LONGEST);
        let series = without_gaps((first..hour).map(|hour| view.hour(hour, at)))?;
        let length = i64::try_from(series.len()).ok()?;
        let periods: &[usize] = match length {
            length if length >= 2 * WEEK => &[24, 168],
            length if length >= 2 * DAY => &[24],
            _ => return None,
        };
        let fit = stlrs::Mstl::fit(&series, periods).ok()?;
        let sum: Vec<f64> = (0..series.len())
            .map(|index| fit.seasonal().iter().map(|season| season[index]).sum())
            .collect();
        let adjusted: Vec<f64> = series.iter().zip(&sum).map(|(value, season)| value - season).collect();
        let longest = periods.last().copied().unwrap_or(24);
        Some(Self {
            hour,
            level: short(smoothed(&adjusted)),
            season: sum[sum.len() - longest..].iter().map(|value| single(*value)).collect(),
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.signed(self.hour);
        writer.float(self.level);
        writer.number(self.season.len() as u64);
        for value in &self.season {
            writer.float(f64::from(*value));
        }
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let hour = reader.signed()?;
        let level = reader.float()?;
        let count = reader.number()?;
        if count > WEEK.unsigned_abs() || hour.unsigned_abs() > 1 << 50 {
            return Err(DecodeError::Range("a decomposition"));
        }
        let season = (0..count).map(|_| reader.float().map(single));
        let season = season.collect::<Result<_, _>>()?;
        Ok(Self { hour, level, season })
    }

    pub(crate) fn expects(&self, stretch: Stretch) -> Option<f64> {
        let (hour, within) = stretch.hour();
        let period = i64::try_from(self.season.len()).ok().filter(|period| *period > 0)?;
        let at = |hour: i64| {
            let index = (hour - self.hour).rem_euclid(period);
            self.season.get(usize::try_from(index).ok()?).copied().map(f64::from)
        };
        let here = at(hour)?;
        let (other, share) = if within < 0.5 {
            (at(hour - 1)?, 0.5 - within)
        } else {
            (at(hour + 1)?, within - 0.5)
        };
        Some(self.level + here + share * (other - here))
    }
}

/// Gaps are bridged with the value of a day before, or else with the last value. `None` if more than a quarter is missing.
fn without_gaps(values: impl Iterator<Item = Option<f64>>) -> Option<Vec<f64>> {
    let mut series: Vec<f64> = Vec::new();
    let mut missing = 0;
    for value in values {
        let day_before = series.len().checked_sub(24).and_then(|index| series.get(index));
        // Nothing to bridge a gap with means that nothing has been measured yet.
        if let Some(bridged) = value.or_else(|| day_before.or(series.last()).copied()) {
            missing += usize::from(value.is_none());
            series.push(bridged);
        }
    }
    (4 * missing <= series.len()).then_some(series)
}

/// Simple exponential smoothing, with the constant that has forecast one step best.
fn smoothed(series: &[f64]) -> f64 {
    let run = |alpha: f64| {
        let mut values = series.iter();
        let mut level = values.next().copied().unwrap_or(0.0);
        let mut error = 0.0;
        for value in values {
            let miss = value - level;
            error += miss * miss;
            level += alpha * miss;
        }
        (error, level)
    };
    ALPHAS
        .map(run)
        .into_iter()
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(0.0, |(_, level)| level)
}
