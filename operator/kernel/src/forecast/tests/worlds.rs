//! Histories to forecast from, and the scoring of forecasts from outside.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers"
)]

use super::super::backtest::pinball;
use super::super::*;

/// The work of each request of [`counts`].
pub(super) const EACH: f64 = 1.6;

/// A history, its record, and the moment after the last bucket.
pub(super) struct World {
    pub(super) history: History,
    pub(super) record: Backtest,
    pub(super) now: Timestamp,
}

impl World {
    /// Requests in each bucket of 5 minutes; `None` is a gap.
    pub(super) fn recorded(arrivals: impl Iterator<Item = Option<u64>>) -> Self {
        Self::recorded_with(arrivals, &[])
    }

    pub(super) fn recorded_with(arrivals: impl Iterator<Item = Option<u64>>, events: &[Event]) -> Self {
        let mut world = Self {
            history: History::new(),
            record: Backtest::new(),
            now: hours(0),
        };
        for (bucket, count) in (0..).zip(arrivals) {
            world.add(bucket, count, events);
        }
        world
    }

    pub(super) fn add(&mut self, bucket: i64, count: Option<u64>, events: &[Event]) {
        if let Some(count) = count {
            self.history
                .record(Self::end(bucket), Self::end(bucket + 1), counts(count))
                .unwrap();
        }
        self.record.advance(&self.history, events);
        self.now = Self::end(bucket + 1);
    }

    /// The end of the first `buckets` buckets.
    pub(super) fn end(buckets: i64) -> Timestamp {
        Timestamp::from_millis(buckets * 300_000)
    }

    pub(super) fn forecast(&self) -> Forecast {
        forecast(&self.history, &self.record, self.now, &slots(self.now), &[], EACH).unwrap()
    }
}

pub(super) fn counts(requests: u64) -> Counts {
    Counts {
        requests,
        prompt_tokens: requests.saturating_mul(1_000),
        output_tokens: requests.saturating_mul(200),
    }
}

pub(super) fn hours(hours: i64) -> Timestamp {
    Timestamp::from_millis(hours * 3_600_000)
}

/// Two hours of 5 minutes, four of 15 minutes, thirty of an hour.
pub(super) fn slots(now: Timestamp) -> Vec<Slot> {
    let mut slots = Vec::new();
    let mut start = now;
    for (count, minutes) in [(24, 5), (16, 15), (30, 60)] {
        for _ in 0..count {
            let slot = Slot {
                start,
                length: Span::from_minutes(minutes),
            };
            start = slot.end();
            slots.push(slot);
        }
    }
    slots
}

/// A smooth day, quieter weekends, noise of 20 %, and half as much again from the middle of the sixth day on.
pub(super) fn synthetic(bucket: i64) -> u64 {
    let day = bucket.div_euclid(288);
    let phase = bucket.rem_euclid(288) as f64 / 288.0 * std::f64::consts::TAU;
    let weekend = if day % 7 >= 5 { 0.5 } else { 1.0 };
    let level = if bucket >= 5 * 288 + 144 { 1.5 } else { 1.0 };
    // A fixed hash as noise: uniform with standard deviation 0.2.
    let mixed = bucket.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let noise = 1.0 + 0.35 * ((mixed >> 40) as f64 / f64::from(1_u32 << 23) - 1.0);
    let rate = 400.0 * level * weekend * (1.0 - 0.7 * libm::cos(phase)) * noise;
    rate.round() as u64
}

/// Pinball losses over those of the naive forecasts, and a share.
#[derive(Debug)]
pub(super) struct Score {
    pub(super) against_last_value: f64,
    pub(super) against_seasonal_day: f64,
    pub(super) below_ninety: f64,
}

/// Forecasts the mean of `length` buckets `ahead` buckets from every hour, and scores from bucket `from` on. The naive forecasts get the empirical
/// quantiles of all their errors so far.
pub(super) fn backtest(arrivals: &[u64], ahead: usize, length: usize, from: usize) -> Score {
    let mean = |start: usize| arrivals[start..start + length].iter().sum::<u64>() as f64 / length as f64;
    let mut world = World::recorded(std::iter::empty());
    let mut naive: [Vec<(usize, f64, f64)>; 2] = [Vec::new(), Vec::new()];
    let (mut losses, mut below, mut scored) = ([0.0; 3], 0.0, 0.0);
    for at in 1..arrivals.len() - ahead - length {
        world.add(i64::try_from(at - 1).unwrap(), Some(arrivals[at - 1]), &[]);
        if at % 12 != 0 || at < 288 {
            continue;
        }
        let actual = mean(at + ahead);
        let says = [arrivals[at - 1] as f64, mean(at + ahead - 288)];
        if at >= from {
            let slot = Slot {
                start: world.now + FINE * ahead as u64,
                length: FINE * length as u64,
            };
            let quantiles = forecast(&world.history, &world.record, world.now, &[slot], &[], EACH)
                .unwrap()
                .slots[0]
                .requests;
            let quantiles = quantiles.0.map(|rate| rate.as_per_second() * FINE.as_secs_f64());
            for (level, quantile) in LEVELS.iter().zip(quantiles) {
                losses[0] += pinball(*level, quantile, actual);
                for (index, said) in says.iter().enumerate() {
                    let known = naive[index].iter().filter(|(due, ..)| *due <= at);
                    let mut errors: Vec<f64> = known.map(|(_, said, came)| came / said).collect();
                    errors.sort_by(f64::total_cmp);
                    let error = errors[((errors.len() - 1) as f64 * level) as usize];
                    losses[1 + index] += pinball(*level, said * error, actual);
                }
            }
            below += f64::from(u8::from(actual <= quantiles[4]));
            scored += 1.0;
        }
        for (said, errors) in says.into_iter().zip(&mut naive) {
            errors.push((at + ahead + length, said, actual));
        }
    }
    Score {
        against_last_value: losses[0] / losses[1],
        against_seasonal_day: losses[0] / losses[2],
        below_ninety: below / scored,
    }
}
