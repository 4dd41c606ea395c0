//! How far forecasts are off, and how long they take, beside the methods of peers in the same run.
//!
//! `cargo bench -p pomarium-kernel --bench forecast`. Two weeks with a daily and a weekly rhythm, noise, and a step up in the middle of the second;
//! forecasts of every third hour of its last five days, 15 minutes, 1 hour and 6 hours ahead: what servers of different lead times are bought by.
//!
//! | peer | method |
//! |---|---|
//! | `last_value` | what is measured now will be: HPA, KEDA, WVA, SkyServe |
//! | `dynamo_arima` | Dynamo's default: ARIMA (1, 1, 0) over the last 50 intervals, here of 5 minutes; it predicts one step, which then holds |
//! | `yesterday` | what was measured a day before |

#![allow(missing_docs)]
// It is not the kernel that prints and draws a rhythm here.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)]

use divan::{Bencher, black_box};
use pomarium_kernel::forecast::{Backtest, Counts, FINE, History, LEVELS, Slot, forecast};
use pomarium_kernel::random::SplitMix;
use pomarium_kernel::time::{Span, Timestamp};

const DAY: usize = 288;
const DAYS: usize = 14;
/// From when on forecasts are judged.
const JUDGED: usize = 9 * DAY;
/// Between two that are judged.
const EVERY: usize = 36;
/// Buckets ahead.
const LEADS: [(usize, &str); 3] = [(3, "15 min"), (12, "1 h"), (72, "6 h")];
/// What is forecast is the mean of so many buckets.
const OVER: usize = 3;
const KEPT: usize = 50;

fn main() {
    judge();
    divan::main();
}

/// Requests in each bucket of 5 minutes. The first day is a Thursday.
fn arrivals() -> Vec<f64> {
    let mut random = SplitMix::new(1);
    let mut noise = || random.unit() * 2.0 - 1.0;
    let bucket = |bucket: usize| {
        let (day, of_day) = (bucket / DAY, (bucket % DAY) as f64 / DAY as f64);
        let daily = 1.0 - 0.7 * (of_day * std::f64::consts::TAU).cos();
        let weekly = if matches!(day % 7, 2 | 3) { 0.5 } else { 1.0 };
        let level = if day < 11 { 1.0 } else { 1.3 };
        (400.0 * daily * weekly * level * (1.0 + 0.15 * noise())).round()
    };
    (0..DAYS * DAY).map(bucket).collect()
}

fn end(buckets: usize) -> Timestamp {
    Timestamp::from_millis(0) + Span::from_millis(FINE.as_millis() * buckets as u64)
}

/// What is known of the first `buckets` buckets.
#[derive(Clone)]
struct Known {
    history: History,
    record: Backtest,
}

impl Known {
    fn of(arrivals: &[f64]) -> Self {
        let mut known = Self {
            history: History::new(),
            record: Backtest::new(),
        };
        for bucket in 0..arrivals.len() {
            known.add(arrivals, bucket);
        }
        known
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and positive"
    )]
    fn add(&mut self, arrivals: &[f64], bucket: usize) {
        let requests = arrivals[bucket] as u64;
        let counts = Counts {
            requests,
            prompt_tokens: requests * 1_000,
            output_tokens: requests * 200,
        };
        let recorded = self.history.record(end(bucket), end(bucket + 1), counts);
        assert!(recorded.is_ok());
        self.record.advance(&self.history, &[]);
    }

    /// Requests per bucket, of 1,000 prompt and 200 output tokens each.
    fn forecast(&self, now: usize, lead: usize) -> f64 {
        let slot = Slot {
            start: end(now + lead),
            length: Span::from_millis(FINE.as_millis() * OVER as u64),
        };
        let made = forecast(&self.history, &self.record, end(now), &[slot], &[], 1.6);
        made.map_or(f64::NAN, |made| {
            made.slots[0].requests.median().as_per_second() * FINE.as_secs_f64()
        })
    }
}

fn last_value(past: &[f64]) -> f64 {
    past.last().copied().unwrap_or(0.0)
}

/// The next value after the last ones: differences follow the one before.
fn dynamo_arima(past: &[f64]) -> f64 {
    let kept = &past[past.len().saturating_sub(KEPT)..];
    let steps: Vec<f64> = kept.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (mut both, mut square) = (0.0, 0.0);
    for pair in steps.windows(2) {
        both += pair[0] * pair[1];
        square += pair[0] * pair[0];
    }
    let factor = if square > 0.0 {
        (both / square).clamp(-1.0, 1.0)
    } else {
        0.0
    };
    (last_value(past) + factor * steps.last().copied().unwrap_or(0.0)).max(0.0)
}

fn yesterday(past: &[f64], lead: usize) -> f64 {
    let from = past.len() + lead - DAY;
    past[from..from + OVER].iter().sum::<f64>() / OVER as f64
}

/// Prints mean absolute errors, ours over that of each peer.
fn judge() {
    let arrivals = arrivals();
    let mut known = Known::of(&arrivals[..JUDGED]);
    let mut errors = [[0.0; 4]; LEADS.len()];
    let mut mean = 0.0;
    let mut judged = 0.0;
    for now in JUDGED..arrivals.len() - 72 - OVER {
        if (now - JUDGED).is_multiple_of(EVERY) {
            let past = &arrivals[..now];
            judged += 1.0;
            for ((lead, _), errors) in LEADS.iter().zip(&mut errors) {
                let actual = arrivals[now + lead..now + lead + OVER].iter().sum::<f64>() / OVER as f64;
                mean += actual / LEADS.len() as f64;
                let told = [
                    known.forecast(now, *lead),
                    last_value(past),
                    dynamo_arima(past),
                    yesterday(past, *lead),
                ];
                for (error, told) in errors.iter_mut().zip(told) {
                    *error += (told - actual).abs();
                }
            }
        }
        known.add(&arrivals, now);
    }
    println!(
        "mean absolute error over {judged} forecasts: of the mean rate, and over that of the last value, of Dynamo's ARIMA, of the day before"
    );
    for ((_, lead), [ours, last, arima, day]) in LEADS.iter().zip(errors) {
        println!(
            "{lead} ahead: {:.1} % of the mean rate; {:.2}, {:.2}, {:.2}",
            ours / mean * 100.0,
            ours / last,
            ours / arima,
            ours / day
        );
    }
}

/// All slots of a strategic plan, quantiles included.
#[divan::bench]
fn ahead_36_hours(bencher: Bencher) {
    let arrivals = arrivals();
    let known = Known::of(&arrivals);
    let now = arrivals.len();
    let slots: Vec<Slot> = (0..90)
        .map(|slot| Slot {
            start: end(now + slot * 4),
            length: Span::from_minutes(20),
        })
        .collect();
    bencher.bench(|| {
        let made = forecast(&known.history, &known.record, end(now), black_box(&slots), &[], 1.6);
        made.map(|made| made.slots.len() * LEVELS.len())
    });
}

/// A new bucket: recorded, and every model scored by it.
#[divan::bench]
fn learn_5_minutes(bencher: Bencher) {
    let arrivals = arrivals();
    let last = arrivals.len() - 1;
    let known = Known::of(&arrivals[..last]);
    bencher.with_inputs(|| known.clone()).bench_values(|mut known| {
        known.add(&arrivals, last);
        known
    });
}

#[divan::bench(name = "peer_dynamo_arima")]
fn arima(bencher: Bencher) {
    let arrivals = arrivals();
    bencher.bench(|| dynamo_arima(black_box(&arrivals)));
}

#[divan::bench(name = "peer_yesterday")]
fn naive(bencher: Bencher) {
    let arrivals = arrivals();
    bencher.bench(|| {
        (0..90)
            .map(|slot| yesterday(black_box(&arrivals), slot % 250))
            .sum::<f64>()
    });
}
