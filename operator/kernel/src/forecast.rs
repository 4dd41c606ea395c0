//! What will arrive at a pool: quantiles of requests per second for every slot of the plan.
//!
//! What is forecast is [work](crate::work), told in requests of one size: lengths change within a day, and with them what a request is.
//!
//! Three calls, each a pure function: [`History::record`] writes down what was measured, [`Backtest::advance`] scores the
//! forecasts whose time is over, [`forecast`] looks ahead. Several simple models compete; at each horizon the one with the
//! least pinball loss lately is used, and its errors there make the band. History and track record are bounded,
//! serialise, and survive a restart.
//!
//! | part | what |
//! |---|---|
//! | `history`, `packing` | counts in buckets, gaps as gaps, and their stored form |
//! | `view` | the history as the models see it |
//! | `models`, `decomposition`, `regression` | the models |
//! | `backtest` | who was right at which horizon |
//! | `spread` | the band around the forecast |
//!
//! # Guarantees
//! Every quantile is finite and not negative, and no lower than the one below it. The same input gives the same bits. Nothing that was
//! recorded for a time after `now` has any influence.

mod backtest;
pub(crate) mod bits;
mod buckets;
mod decomposition;
mod history;
mod models;
pub(crate) mod packing;
mod regression;
mod spread;
#[cfg(test)]
mod tests;
mod view;

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp};
use crate::units::{Fraction, Rate};

pub use backtest::{Accuracy, Backtest};
pub use history::{Bucket, COARSE, Counts, FINE, History, NotRecorded};
pub use models::Model;
pub use packing::DecodeError;

use backtest::{BANDS, HORIZONS, MOST_LOG};
use models::AsOf;
use spread::Offsets;
use view::{PER_HOUR, Stretch, View};

/// The levels at which quantiles are given.
pub const LEVELS: [f64; 7] = [0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99];

/// A known event that changes the demand while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it begins.
    pub start: Timestamp,
    /// When it is over.
    pub end: Timestamp,
    /// The demand during the event over the demand without it.
    pub demand_factor: f64,
}

impl Event {
    /// The factor within bounds; 1 if it is no number.
    fn demand_factor(&self) -> f64 {
        if self.demand_factor.is_nan() {
            1.0
        } else {
            self.demand_factor.clamp(0.01, 100.0)
        }
    }
}

/// A stretch of time to forecast the mean rate of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// When it begins.
    pub start: Timestamp,
    /// How long it is.
    pub length: Span,
}

impl Slot {
    /// When it is over.
    pub fn end(&self) -> Timestamp {
        self.start + self.length
    }
}

/// Quantiles of a rate at [`LEVELS`], ascending.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles(pub [Rate; LEVELS.len()]);

impl Quantiles {
    /// The same rate at every level.
    pub fn certain(rate: Rate) -> Self {
        Self([rate; LEVELS.len()])
    }

    /// The rate that is not exceeded with probability `level`: linear between [`LEVELS`], and the outermost beyond them.
    pub fn at(&self, level: Fraction) -> Rate {
        let level = level.get();
        let above = LEVELS.partition_point(|known| *known < level);
        match (above.checked_sub(1), self.0.get(above)) {
            (Some(below), Some(upper)) => {
                let share = (level - LEVELS[below]) / (LEVELS[above] - LEVELS[below]);
                let lower = self.0[below].as_per_second();
                Rate::per_second(lower + share * (upper.as_per_second() - lower))
            }
            (None, Some(lowest)) => *lowest,
            (_, None) => self.0[LEVELS.len() - 1],
        }
    }

    /// The rate that is exceeded as often as not.
    pub fn median(&self) -> Rate {
        self.0[2]
    }

    fn plus(mut self, other: &Self, weight: f64) -> Self {
        for (rate, other) in self.0.iter_mut().zip(&other.0) {
            *rate = Rate::per_second(rate.as_per_second() + weight * other.as_per_second());
        }
        self
    }
}

/// What is known about the seasons of a pool's demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Season {
    /// Less than a day is known: tomorrow is expected to be as now, within a wide band.
    Unknown,
    /// Days can be compared, weeks cannot.
    Daily,
    /// Weeks can be compared.
    Weekly,
}

/// The forecast of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotForecast {
    /// Which.
    pub slot: Slot,
    /// Mean requests per second over it.
    pub requests: Quantiles,
}

/// Mean tokens per request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Of the prompt.
    pub prompt: f64,
    /// Of the output.
    pub output: f64,
}

/// What will arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Everything measured before was used.
    pub as_of: Timestamp,
    /// What is known about seasons.
    pub season: Season,
    /// In the order in which they were asked for.
    pub slots: Vec<SlotForecast>,
    /// Tokens per request lately; multiplied with requests they give tokens per second. `None` if nothing is known.
    pub lengths: Option<Lengths>,
    /// How forecasts have done lately, per horizon.
    pub accuracy: Vec<Accuracy>,
}

impl Forecast {
    /// The mean rate over `[from, until)`, such as a lease, as far as slots cover it. `None` if they do not.
    ///
    /// Quantiles of the mean are taken as means of quantiles: exact if errors of slots move together, else too wide.
    pub fn over(&self, from: Timestamp, until: Timestamp) -> Option<Quantiles> {
        let inside = |slot: &Slot| slot.end().min(until).since(slot.start.max(from)).as_millis() as f64;
        let weight: f64 = self.slots.iter().map(|slot| inside(&slot.slot)).sum();
        (weight > 0.0).then(|| {
            self.slots.iter().fold(Quantiles::certain(Rate::ZERO), |sum, slot| {
                sum.plus(&slot.requests, inside(&slot.slot) / weight)
            })
        })
    }
}

/// Looks ahead, in requests of which each is so much `work`. `None` if nothing was recorded before `now`: unknown is not zero.
///
/// Horizons count from the last measurement, so that a forecast from stale measurements has a wider band.
pub fn forecast(
    history: &History,
    record: &Backtest,
    now: Timestamp,
    slots: &[Slot],
    events: &[Event],
    work: f64,
) -> Option<Forecast> {
    let until = history.recorded_until()?.min(now);
    let at = history.fine.number(until);
    let view = View::new(history, events);
    let as_of = AsOf::new(&view, at);
    as_of.level()?;
    let ahead = Ahead {
        history,
        record,
        offsets: record.offsets(),
        noise: view.noise(at, PER_HOUR * 24),
        work,
        as_of,
        events,
    };
    Some(Forecast {
        as_of: history.fine.start_of(at),
        season: match (ahead.as_of.knows_weeks(), ahead.as_of.knows_days()) {
            (true, _) => Season::Weekly,
            (false, true) => Season::Daily,
            (false, false) => Season::Unknown,
        },
        slots: slots
            .iter()
            .map(|slot| SlotForecast {
                slot: *slot,
                requests: ahead.slot(*slot),
            })
            .collect(),
        lengths: history
            .mean_lengths()
            .map(|(prompt, output)| Lengths { prompt, output }),
        accuracy: record.accuracy(),
    })
}

/// What all slots of one forecast share.
struct Ahead<'a> {
    history: &'a History,
    record: &'a Backtest,
    as_of: AsOf<'a>,
    offsets: [Offsets; BANDS],
    noise: f64,
    /// How much there is to do for a request.
    work: f64,
    events: &'a [Event],
}

/// A longer slot is the mean of pieces of at most an hour, but of no more than so many.
const MOST_PIECES: u64 = 48;

impl Ahead<'_> {
    fn slot(&self, slot: Slot) -> Quantiles {
        let length = slot.length.as_millis().max(1);
        let pieces = length.div_ceil(COARSE.as_millis()).clamp(1, MOST_PIECES);
        let edge =
            |index: u64| slot.start + Span::from_millis(length / pieces * index + length % pieces * index / pieces);
        (0..pieces).fold(Quantiles::certain(Rate::ZERO), |sum, index| {
            sum.plus(&self.piece(edge(index), edge(index + 1)), 1.0 / pieces as f64)
        })
    }

    fn piece(&self, start: Timestamp, end: Timestamp) -> Quantiles {
        let fine = &self.history.fine;
        let first = fine.number(start);
        let stretch = Stretch {
            start: first,
            end: fine.number(end - Span::from_millis(1)).max(first).saturating_add(1),
        };
        let (lower, upper, share) = bands(first.saturating_sub(self.as_of.at));
        let expect = |band: usize| {
            let all = self.record.expectations(band, &self.as_of, stretch);
            self.record.pick(band, &all).unwrap_or(0.0)
        };
        let mut expected = expect(lower);
        let mut offsets = self.offsets[lower];
        let mut scored = HORIZONS[lower].length as f64;
        if upper != lower {
            expected += share * (expect(upper) - expected);
            offsets = offsets.towards(&self.offsets[upper], share);
            scored += share * (HORIZONS[upper].length as f64 - scored);
        }
        let length = (stretch.end - stretch.start).clamp(1, PER_HOUR) as f64;
        let offsets = offsets.with_noise(self.noise * self.noise * (1.0 / length - 1.0 / scored));
        let factor = view::factor(self.events, start, end);
        let mut floor = 0.0_f64;
        Quantiles(offsets.0.map(|offset| {
            let work = libm::expm1((expected + offset).clamp(0.0, MOST_LOG)) * factor;
            floor = floor.max(work / FINE.as_secs_f64() / self.work);
            Rate::per_second(floor)
        }))
    }
}

/// The bands of horizons that a distance of `ahead` fine buckets lies between, and how far from the first to the second.
fn bands(ahead: i64) -> (usize, usize, f64) {
    let above = HORIZONS.partition_point(|horizon| horizon.ahead <= ahead);
    match above.checked_sub(1) {
        None => (0, 0, 0.0),
        Some(below) if above == BANDS => (below, below, 0.0),
        Some(below) => {
            let (from, to) = (HORIZONS[below].ahead, HORIZONS[above].ahead);
            (below, above, (ahead - from) as f64 / (to - from) as f64)
        }
    }
}
