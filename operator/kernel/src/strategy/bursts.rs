//! Bursts: how demand fluctuates within minutes, and what that burns.
//!
//! A forecast knows the rate of minutes and hours. Requests come in bursts of several times that rate, whose backlog is felt for as long as it
//! takes to work it off: how many of them miss their objective depends on how much faster servers are than the rate between bursts. Bursts
//! are not forecast; those of the last two days, kept as counts of 15 s, are taken as a sample of those to come. What comes in a burst is
//! [work](crate::work), and what may miss are requests: a few long ones make others wait, many short ones may not.
//!
//! # What a load burns
//! The sample is played against a fluid queue: work arrives as the bursts do, around a mean of ρ, and is finished at rate 1. A request whose
//! backlog is longer than its threshold misses its time to first token. Played against their own day's bursts,
//! days of composite-o365A-azureconv (COMPOSITE) with 8 to 24 servers miss as often as in the simulated engine within a fifth, and those of
//! servegen-m-large (SAMPLED), whose lengths change within a day, within a factor of two; without bursts the same days would be off by a factor of three and more.
//! What misses without any backlog, and the latency between tokens, are read from the measured curves at the load of the minute.
//!
//! # How bursts scale
//! Twice the rate does not have twice the bursts: deviations grow as a power of the rate, between 0 (they come on top) and 1 (they are
//! proportional), fitted to the sample; independent arrivals have ½.
//!
//! One power says little of how a quiet night differs from a busy noon: the burn at a rate is a mean over the sample in which counts from
//! around similar rates weigh most.

mod counts;

use serde::{Deserialize, Serialize};

use self::counts::{Count, Counts};
use super::burn::{BurnTable, LOADS, SteadyBurn, interpolate};
use crate::forecast;
use crate::forecast::packing::{DecodeError, Reader, Writer};
use crate::time::{Span, Timestamp};

/// Length of a count.
const BIN: Span = Span::from_secs(15);
/// Two days.
const KEPT: usize = 2 * 5_760;
/// The rate around a count is taken over so many counts on either side: half an hour in all.
const AROUND: usize = 60;
/// Less than an hour of counts says nothing about bursts.
const LEAST: usize = 240;
/// Counts with fewer requests around them than this say nothing about bursts either.
const LEAST_AROUND: f64 = 0.5;
/// The sample is renewed so often: bursts do not change their nature within an hour, and what follows from them is dear to compute.
const RENEWED: Span = Span::from_hours(1);
/// So many counts are five minutes.
const FIVE_MINUTES: usize = 20;
/// Up to this load a queue is in its steady state within minutes; beyond, backlogs say more than the curve.
const STEADY_UP_TO: f64 = 0.85;
/// At this distance between the logarithms of two rates, what was seen around one counts a quarter for the other.
const SIMILAR: f64 = 0.9;

/// Requests and work per 15 s of the last two days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Bursts {
    requests: Counts,
    /// In whole units; for the same time.
    work: Counts,
}

/// The sample, relative to the rate around each count.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What it is made of. Every count's deviation is eight times as long, and soon computed again.
    bursts: Bursts,
    /// Deviations grow as this power of the rate.
    exponent: f64,
    /// One time in ten the mean of five minutes deviates by more than this, as a share of rate^exponent.
    high: f64,
}

impl Bursts {
    /// Adds what `arrived` in `[from, until)`, spread evenly over it. What comes late is left out.
    pub fn record(&mut self, from: Timestamp, until: Timestamp, arrived: forecast::Counts) {
        let bin = BIN.as_millis().cast_signed();
        let (first, last) = (
            from.as_millis().div_euclid(bin),
            (until.as_millis() - 1).div_euclid(bin),
        );
        // A longer measurement says nothing about bursts.
        if until <= from || last - first > 8 {
            return;
        }
        let room = i64::try_from(KEPT).unwrap_or(i64::MAX);
        let known = &self.requests;
        if known.is_empty() || first < known.first() || first - known.end() >= room {
            self.requests = Counts::new(first, []);
            self.work = Counts::new(first, []);
        }
        let length = until.since(from).as_millis() as f64;
        for (counts, arrived) in [
            (&mut self.requests, arrived.requests as f64),
            (&mut self.work, arrived.work()),
        ] {
            let mut spread = 0;
            for number in first..=last {
                let ends = ((number + 1) * bin).min(until.as_millis());
                let share = (ends - from.as_millis()) as f64 / length;
                let so_far = whole(arrived * share);
                counts.add(number, u32::try_from(so_far - spread).unwrap_or(u32::MAX));
                spread = so_far;
            }
            // By whole hours, so that the sample stays the same for one.
            while counts.len() > KEPT {
                counts.forget_hour();
            }
        }
    }

    /// Requests and work of each known count since `from`.
    pub(super) fn since(&self, from: Timestamp) -> impl Iterator<Item = (f64, f64)> {
        let number = from.as_millis().div_euclid(BIN.as_millis().cast_signed());
        let known = |(requests, work): (Count, Count)| Some((requests.get()?.into(), work.get()?.into()));
        self.requests
            .since(number)
            .zip(self.work.since(number))
            .filter_map(known)
    }

    /// Whether these counts give the same sample as others.
    pub(super) fn alike(&self, other: &Self) -> bool {
        self.requests.closed_alike(&other.requests) && self.work.closed_alike(&other.work)
    }

    /// The same without what no sample is made of.
    pub(super) fn closed(&self) -> Self {
        Self {
            requests: self.requests.without_open(),
            work: self.work.without_open(),
        }
    }

    /// The sample of bursts; `None` while too little is known.
    pub(super) fn sample(&self) -> Option<Sample> {
        let points = points(&self.work);
        if points.iter().flatten().count() < LEAST {
            return None;
        }
        let exponent = exponent(&points);
        Some(Sample {
            bursts: self.closed(),
            high: high(&deviations(points, exponent)),
            exponent,
        })
    }
}

/// The counts of whole hours, each relative to the mean around it, with the rate of that; `None` is a gap.
fn points(counts: &Counts) -> Vec<Option<(f64, f64)>> {
    let counts: Vec<Option<f64>> = counts.closed().map(|count| count.get().map(f64::from)).collect();
    let mut sums = vec![(0.0, 0.0)];
    for count in &counts {
        let (sum, known) = sums.last().copied().unwrap_or((0.0, 0.0));
        sums.push((sum + count.unwrap_or(0.0), known + f64::from(u8::from(count.is_some()))));
    }
    let points = counts.iter().enumerate().map(|(index, count)| {
        let (low, high) = (index.saturating_sub(AROUND), (index + AROUND + 1).min(counts.len()));
        let mean = (sums[high].0 - sums[low].0) / (sums[high].1 - sums[low].1).max(1.0);
        let around = mean.max(LEAST_AROUND);
        count.map(|count| (1.0 + (count - mean) / around, around / BIN.as_secs_f64()))
    });
    points.collect()
}

/// How a count differs from the mean around it.
#[derive(Clone, Copy, Debug)]
struct Deviation {
    /// As a share of rate^exponent.
    share: f64,
    /// Logarithm of the rate around it, in requests/s.
    log_rate: f64,
}

impl Deviation {
    /// What it counts for at another rate.
    fn weight(&self, log_rate: f64) -> f64 {
        let distance = (self.log_rate - log_rate) / SIMILAR;
        let near = 1.0 + distance * distance;
        1.0 / (near * near)
    }
}

/// By how much each count deviates from the mean around it; `None` is a gap.
fn deviations(points: Vec<Option<(f64, f64)>>, exponent: f64) -> Vec<Option<Deviation>> {
    let deviation = |(relative, rate): (f64, f64)| Deviation {
        share: (relative - 1.0) * libm::pow(rate, 1.0 - exponent),
        log_rate: libm::log(rate),
    };
    points.into_iter().map(|point| point.map(deviation)).collect()
}

/// The mean of five minutes that is exceeded one time in ten.
fn high(deviations: &[Option<Deviation>]) -> f64 {
    let mut means: Vec<f64> = deviations
        .chunks_exact(FIVE_MINUTES)
        .filter_map(|chunk| {
            chunk
                .iter()
                .map(|deviation| deviation.map(|by| by.share))
                .sum::<Option<f64>>()
        })
        .map(|sum| sum / FIVE_MINUTES as f64)
        .collect();
    if means.is_empty() {
        return 0.0;
    }
    let rank = (means.len() * 9 / 10).min(means.len() - 1);
    let (_, high, _) = means.select_nth_unstable_by(rank, f64::total_cmp);
    *high
}

/// How deviations grow with the rate: from the halves of the counts with lower and higher rates around them.
fn exponent(points: &[Option<(f64, f64)>]) -> f64 {
    let mut rates: Vec<(f64, f64)> = points
        .iter()
        .flatten()
        .map(|&(relative, rate)| (rate, (relative - 1.0).abs() * rate))
        .collect();
    rates.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mean = |half: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| -> f64 {
        half.iter().map(of).sum::<f64>() / half.len().max(1) as f64
    };
    let (low, high) = rates.split_at(rates.len() / 2);
    let growth = mean(high, |point| point.0) / mean(low, |point| point.0).max(f64::MIN_POSITIVE);
    let deviations = mean(high, |point| point.1) / mean(low, |point| point.1).max(f64::MIN_POSITIVE);
    // Too little difference between the halves to tell.
    if !(growth.is_finite() && deviations.is_finite() && growth > 1.3 && deviations > 0.0) {
        return 1.0;
    }
    (libm::log(deviations) / libm::log(growth)).clamp(0.0, 1.0)
}

impl Sample {
    /// By how much the mean of five minutes exceeds the rate around it, as a share of it, one time in ten, when that rate is `rate`.
    ///
    /// So much of what a forecast of five minutes leaves open is bursts, which burn tables contain already.
    pub(super) fn excess(&self, rate: f64) -> f64 {
        (self.high * libm::pow(rate.max(f64::MIN_POSITIVE), self.exponent - 1.0)).max(0.0)
    }

    /// What `steady` burns when demand comes in these bursts.
    pub(super) fn burn(&self, steady: &SteadyBurn) -> Option<BurnTable> {
        let requests = points(&self.bursts.requests).into_iter();
        let requests = requests.map(|point| point.map_or(0.0, |(relative, _)| relative));
        let deviations = deviations(points(&self.bursts.work), self.exponent);
        let bursts: Vec<_> = deviations.into_iter().zip(requests).collect();
        let anchors = steady.anchors.iter().map(|(capacity, objectives)| {
            let burn = LOADS.map(|load| {
                if load > 0.0 {
                    self.at(&bursts, load, *capacity, steady, objectives)
                } else {
                    0.0
                }
            });
            (*capacity, burn)
        });
        BurnTable::new(anchors.collect())
    }

    /// Burn per request at a mean `load` of servers that finish `capacity` requests/s.
    fn at(
        &self,
        bursts: &[(Option<Deviation>, f64)],
        load: f64,
        capacity: f64,
        steady: &SteadyBurn,
        objectives: &[[f64; LOADS.len()]],
    ) -> f64 {
        let rate = load * capacity * steady.work;
        let log_rate = libm::log(rate);
        let bin = BIN.as_secs_f64();
        let (mut backlog, mut requests) = (0.0_f64, 0.0);
        let mut burnt = vec![0.0; steady.missed.len()];
        // Relative to the rate, deviations grow as rate^(exponent − 1).
        let scale = libm::pow(rate, self.exponent - 1.0);
        for (deviation, arrived) in bursts {
            let Some(deviation) = deviation else {
                backlog = 0.0;
                continue;
            };
            let work = (1.0 + deviation.share * scale).max(0.0);
            let before = backlog;
            backlog = (backlog + (work * load - 1.0) * bin).max(0.0);
            let busy = if backlog > 0.0 { 1.0 } else { (work * load).min(1.0) };
            let weight = arrived * deviation.weight(log_rate);
            requests += weight;
            for ((sum, table), missed) in burnt.iter_mut().zip(objectives).zip(&steady.missed) {
                let each = match missed.patience_s {
                    Some(patience_s) => {
                        let late = beyond(before, backlog, patience_s) * missed.burn;
                        late.max(interpolate(table, (work * load).min(STEADY_UP_TO)))
                    }
                    None => interpolate(table, busy),
                };
                *sum += each * weight;
            }
        }
        let most = burnt.iter().fold(0.0_f64, |most, burn| most.max(*burn));
        if requests > 0.0 { most / requests } else { 0.0 }
    }
}

/// Which share of the requests that arrive while a backlog goes from `before` to `after` finds one beyond `patience`, all in seconds.
fn beyond(before: f64, after: f64, patience: f64) -> f64 {
    let (low, high) = (before.min(after), before.max(after));
    if low >= patience {
        1.0
    } else if high <= patience {
        0.0
    } else {
        (high - patience) / (high - low)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 on; `as` saturates"
)]
fn whole(amount: f64) -> u64 {
    amount.round() as u64
}

/// What is written: differences of the counts, each one higher than it is so that 0 is a gap.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Packed {
    first: i64,
    length: u64,
    /// Requests.
    counts: String,
    /// Work; empty in records of before it was counted.
    #[serde(default)]
    work: String,
}

impl From<Bursts> for Packed {
    fn from(bursts: Bursts) -> Self {
        let written = |counts: &Counts| {
            let mut writer = Writer::default();
            let mut last = 0;
            for count in counts.iter() {
                writer.signed(i64::from(count.0) - last);
                last = i64::from(count.0);
            }
            writer.finish()
        };
        Self {
            first: bursts.requests.first(),
            length: bursts.requests.len() as u64,
            counts: written(&bursts.requests),
            work: written(&bursts.work),
        }
    }
}

impl TryFrom<Packed> for Bursts {
    type Error = DecodeError;

    fn try_from(packed: Packed) -> Result<Self, DecodeError> {
        let length = usize::try_from(packed.length).ok().filter(|length| *length <= KEPT);
        let length = length.ok_or(DecodeError::Range(WHAT))?;
        if packed.first.unsigned_abs() > 1 << 48 {
            return Err(DecodeError::Range(WHAT));
        }
        let requests = read(&packed.counts, length)?;
        let work = if packed.work.is_empty() {
            requests.iter().copied().map(assumed_work).collect()
        } else {
            read(&packed.work, length)?
        };
        Ok(Self {
            requests: Counts::new(packed.first, requests),
            work: Counts::new(packed.first, work),
        })
    }
}

const WHAT: &str = "counts of 15 s";

fn read(text: &str, length: usize) -> Result<Vec<Count>, DecodeError> {
    let mut reader = Reader::new(text, WHAT)?;
    let mut counts = Vec::with_capacity(length);
    let mut last = 0_i64;
    for _ in 0..length {
        last = last.checked_add(reader.signed()?).ok_or(DecodeError::Range(WHAT))?;
        counts.push(Count(u32::try_from(last).map_err(|_| DecodeError::Range(WHAT))?));
    }
    reader.finish()?;
    Ok(counts)
}

/// The work of so many requests whose tokens nobody has counted.
fn assumed_work(requests: Count) -> Count {
    let work = |requests: u32| {
        let counts = forecast::Counts {
            requests: u64::from(requests),
            ..forecast::Counts::default()
        };
        u32::try_from(whole(counts.work())).unwrap_or(u32::MAX)
    };
    requests.get().map_or(requests, |requests| Count::of(work(requests)))
}

#[cfg(test)]
mod tests;
