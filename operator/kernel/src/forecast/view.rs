//! A history as the models see it: work per 5 minutes with declared events divided out, as of some moment.
//!
//! Models work on `ln(1 + y)`, where `y` is the mean work of 5 minutes: demand moves by factors rather than by
//! amounts, zero is a value like any other, and no forecast can come out negative (Box and Cox 1964, with shift 1).
//! Every function takes the boundary up to which it may look. Nothing behind the boundary changes its answer.

use super::Event;
use super::history::{Bucket, History, Series};
use crate::time::Timestamp;

/// Fine buckets per hour.
pub(crate) const PER_HOUR: i64 = 12;
/// Hours per day.
pub(crate) const DAY: i64 = 24;
/// Hours per week.
pub(crate) const WEEK: i64 = 7 * DAY;

/// No traffic that is real: keeps every sum finite.
const MOST: f64 = 1e15;

/// The stretch of fine buckets `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

impl Stretch {
    /// The number of the hour that its middle lies in, and how far: 0.5 is in the middle of the hour.
    pub(crate) fn hour(self) -> (i64, f64) {
        let doubled = self.start.saturating_add(self.end);
        let hour = doubled.div_euclid(2 * PER_HOUR);
        let within = doubled.rem_euclid(2 * PER_HOUR) as f64 / (2 * PER_HOUR) as f64;
        (hour, within)
    }

    pub(crate) fn shifted(self, buckets: i64) -> Self {
        Self {
            start: self.start.saturating_add(buckets),
            end: self.end.saturating_add(buckets),
        }
    }
}

/// One series with gaps as NaN.
struct Column {
    first: i64,
    values: Vec<f64>,
}

impl Column {
    fn new(series: &Series, events: &[Event]) -> Self {
        let one = |(number, bucket): (i64, Bucket)| {
            let factor = factor(events, series.start_of(number), series.start_of(number + 1));
            bucket.work_per_s(series.span).map_or(f64::NAN, |work| {
                (work * super::history::FINE.as_secs_f64() / factor).min(MOST)
            })
        };
        Self {
            first: series.first,
            values: (series.first..).zip(series.buckets.iter()).map(one).collect(),
        }
    }

    fn get(&self, number: i64) -> Option<f64> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.values.get(index).copied().filter(|value| !value.is_nan())
    }

    /// Mean of the known values in `[start, end)`, if at least half of them are known.
    fn mean(&self, start: i64, end: i64) -> Option<f64> {
        let (mut sum, mut known) = (0.0, 0_i64);
        for number in start.max(self.first)..end {
            if let Some(value) = self.get(number) {
                sum += value;
                known += 1;
            }
        }
        (known > 0 && 2 * known >= end - start).then(|| sum / known as f64)
    }
}

/// What the models may look at.
pub(crate) struct View {
    fine: Column,
    /// Mean work of 5 minutes in each hour.
    hourly: Column,
    /// `ln(1 + y)` of `hourly`.
    logs: Column,
}

impl View {
    pub(crate) fn new(history: &History, events: &[Event]) -> Self {
        let hourly = Column::new(&history.coarse, events);
        let logs = Column {
            first: hourly.first,
            values: hourly.values.iter().map(|value| libm::log1p(*value)).collect(),
        };
        Self {
            fine: Column::new(&history.fine, events),
            hourly,
            logs,
        }
    }

    /// Mean work of 5 minutes over `stretch`, all before boundary `until`: from fine buckets, else from hours.
    pub(crate) fn mean(&self, stretch: Stretch, until: i64) -> Option<f64> {
        if stretch.end > until {
            return None;
        }
        self.fine.mean(stretch.start, stretch.end).or_else(|| {
            let start = stretch.start.div_euclid(PER_HOUR);
            let end = (stretch.end + PER_HOUR - 1).div_euclid(PER_HOUR);
            (end <= until.div_euclid(PER_HOUR))
                .then(|| self.hourly.mean(start, end))
                .flatten()
        })
    }

    /// The same as `ln(1 + y)`.
    pub(crate) fn log_mean(&self, stretch: Stretch, until: i64) -> Option<f64> {
        self.mean(stretch, until).map(libm::log1p)
    }

    /// `ln(1 + y)` of hour `hour`, if it is over at boundary `until`.
    pub(crate) fn hour(&self, hour: i64, until: i64) -> Option<f64> {
        (hour < until.div_euclid(PER_HOUR))
            .then(|| self.logs.get(hour))
            .flatten()
    }

    /// The first hour of which anything is kept.
    pub(crate) fn first_hour(&self) -> i64 {
        self.logs.first
    }

    /// `ln(1 + y)` of the last fine bucket that was measured, or else of the last hour.
    pub(crate) fn last(&self, until: i64) -> Option<f64> {
        let from = |column: &Column, end: i64| {
            let known = usize::try_from(end.saturating_sub(column.first)).unwrap_or(0);
            let known = &column.values[..known.min(column.values.len())];
            known.iter().rev().copied().find(|value| !value.is_nan())
        };
        from(&self.fine, until)
            .or_else(|| from(&self.hourly, until.div_euclid(PER_HOUR)))
            .map(libm::log1p)
    }

    /// Standard deviation of one fine bucket around a slowly moving mean, in logs: from the mean absolute difference of
    /// neighbours in the last `buckets` (for normal noise E|a − b| = 2σ/√π).
    pub(crate) fn noise(&self, until: i64, buckets: i64) -> f64 {
        let (mut sum, mut pairs) = (0.0, 0_u32);
        let mut last: Option<f64> = None;
        for number in until.saturating_sub(buckets).max(self.fine.first)..until {
            let value = self.fine.get(number).map(libm::log1p);
            if let (Some(before), Some(value)) = (last, value) {
                sum += (value - before).abs();
                pairs += 1;
            }
            last = value;
        }
        if pairs == 0 {
            0.0
        } else {
            sum / f64::from(pairs) * (std::f64::consts::PI.sqrt() / 2.0)
        }
    }
}

/// By how much the events raise the mean demand of `[start, end)`.
pub(crate) fn factor(events: &[Event], start: Timestamp, end: Timestamp) -> f64 {
    let whole = end.since(start).as_millis();
    events.iter().fold(1.0, |product, event| {
        let inside = event.end.min(end).since(event.start.max(start)).as_millis();
        if whole == 0 || inside == 0 {
            product
        } else {
            let share = inside as f64 / whole as f64;
            product * (1.0 + share * (event.demand_factor() - 1.0))
        }
    })
}
