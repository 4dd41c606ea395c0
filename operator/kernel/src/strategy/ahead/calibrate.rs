//! Figures of machines, held against what engines measure.
//!
//! Each group's engines are compared with the curve of as many servers with the figures that are *declared*, whatever was concluded
//! before. Sets of nearly the same size share a curve: per server, what eight do differs little from what nine do.
use std::collections::BTreeMap;

use crate::capacity::Servers;
use crate::capacity::calibration::{Calibrations, LEAST_REQUESTS, Observed};
use crate::capacity::curve::{Curves, Traffic};
use crate::catalogue::Catalogue;
use crate::engine::StepTimes;
use crate::feasibility::Feasibility;
use crate::names::{GroupName, PoolId};
use crate::planning::{MEASURE_MAX_AGE, MEASURED_OVER, is_full, planned_lengths};
use crate::snapshot::{Demand, EnginesMeasured, Metric, Pool, Snapshot};
use crate::strategy::bursts::Bursts;
use crate::time::Timestamp;
use crate::units::Rate;

/// Sizes of sets that are compared with.
const SIZES: [u32; 8] = [1, 2, 3, 4, 6, 8, 12, 24];

/// The rate of the last minute is within this factor of that of the last five, and the work of a request within this factor of the mix's.
const CALM: f64 = 1.3;

/// What is known after what engines have measured lately, of pools of which anything was.
pub(super) fn calibrate(snapshot: &Snapshot, now: Timestamp, curves: &mut Curves) -> BTreeMap<PoolId, Calibrations> {
    let of = |(id, pool)| Some((PoolId::clone(id), pool_calibrations(snapshot, pool, now, curves)?));
    snapshot.pools.iter().filter_map(of).collect()
}

fn pool_calibrations(snapshot: &Snapshot, pool: &Pool, now: Timestamp, curves: &mut Curves) -> Option<Calibrations> {
    if !is_calm(pool) {
        return None;
    }
    let recent = |measured: &EnginesMeasured| now.since(measured.at) <= MEASURE_MAX_AGE;
    let enough = |measured: &EnginesMeasured| measured.engines > 0 && measured.samples >= LEAST_REQUESTS;
    let usable: Vec<_> = pool
        .engines
        .iter()
        .filter(|(_, measured)| recent(measured) && enough(measured))
        .collect();
    if usable.is_empty() {
        return None;
    }
    let feasibility = Feasibility::of(pool, Catalogue::builtin(), now);
    let mix = planned_lengths(pool, now);
    let traffic = Traffic::new(&mix, pool.discipline, &pool.objectives);
    let lately = Lately::of(&pool.past.bursts, mix.work(), now);
    let mut calibrations = pool.past.calibrations.clone();
    for (name, measured) in usable {
        let group = snapshot.groups.get(name);
        let Some((group, declared)) = group.and_then(|group| Some((group, feasibility.declared(group).ok()?))) else {
            continue;
        };
        let calibration = calibrations.of(&group.machine, &declared.times);
        let count = nearest(measured.engines);
        let set = [Servers {
            performance: &declared,
            count,
        }];
        let curve = curves.curve(&set, &traffic);
        let rate = measured.rate.as_per_second() * f64::from(count) / f64::from(measured.engines);
        let crowd = Crowd::of(pool, name, &declared.times, now);
        if crowd != Crowd::None {
            calibration.full(now);
        }
        if crowd == Crowd::Uneven {
            continue;
        }
        for (objective, value_ms) in pool.objectives.iter().zip(&measured.values_ms) {
            let Some(rates) = lately.rates(objective.metric, rate) else {
                continue;
            };
            let Some(value_ms) = *value_ms else { continue };
            let observed = Observed {
                at: measured.at,
                rates,
                metric: objective.metric,
                percentile: objective.percentile,
                value_ms,
                requests: measured.samples,
            };
            calibration.observe(&observed, &curve);
        }
        calibration.settle(now);
    }
    Some(calibrations)
}

/// Whether requests come as steadily as curves assume: what bursts do to latencies says nothing about the speed of a machine.
fn is_calm(pool: &Pool) -> bool {
    let Demand::Known(arrivals) = &pool.demand else {
        return false;
    };
    let ratio = arrivals.rate_1m.as_per_second() / arrivals.rate_5m.as_per_second();
    (1.0 / CALM..=CALM).contains(&ratio)
}

/// How the requests came that latencies are measured of.
struct Lately {
    /// Per 15 s: work relative to the mean of these minutes in requests of the mix that curves are of, and the share of requests that came then. Empty if
    /// nobody knows.
    counts: Vec<(f64, f64)>,
    /// Whether the requests were about as much work as those of the mix.
    alike: bool,
}

impl Lately {
    fn of(bursts: &Bursts, work: f64, now: Timestamp) -> Self {
        let counts: Vec<(f64, f64)> = bursts.since(now - MEASURED_OVER).collect();
        let requests: f64 = counts.iter().map(|(requests, _)| requests).sum();
        let each = counts.iter().map(|(_, work)| work).sum::<f64>() / requests / work;
        if !each.is_finite() {
            return Self {
                counts: Vec::new(),
                alike: true,
            };
        }
        let length = counts.len() as f64;
        let relative = |(came, done): (f64, f64)| (done / work * length / requests, came / requests);
        Self {
            counts: counts.into_iter().map(relative).collect(),
            alike: (1.0 / CALM..=CALM).contains(&each),
        }
    }

    /// The rates that a latency is compared at, of servers at which `rate` requests/s arrived; `None` if it cannot be compared.
    ///
    /// The latency between tokens goes by who else is served within these seconds. A first token waits for what came before as well, and takes longer for
    /// a longer prompt: that is compared at the mean rate, and with requests of the usual lengths.
    fn rates(&self, metric: Metric, rate: f64) -> Option<Vec<(Rate, f64)>> {
        match metric {
            Metric::InterTokenLatency if !self.counts.is_empty() => {
                let felt = |&(relative, share): &(f64, f64)| (Rate::per_second(rate * relative), share);
                Some(self.counts.iter().map(felt).collect())
            }
            Metric::TimeToFirstToken if !self.alike => None,
            Metric::InterTokenLatency | Metric::TimeToFirstToken => Some(vec![(Rate::per_second(rate), 1.0)]),
        }
    }
}

/// How many engines of a group have more requests than they take at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    None,
    /// Some, or some have only just begun to serve: what is measured is not what all of them do.
    Uneven,
    All,
}

impl Crowd {
    fn of(pool: &Pool, group: &GroupName, times: &StepTimes, now: Timestamp) -> Self {
        let serving = || {
            pool.running
                .values()
                .filter(|replica| replica.serving && replica.group == *group)
        };
        let full = serving()
            .filter(|replica| is_full(&replica.load, times, now) == Some(true))
            .count();
        let new = serving().any(|replica| now.since(replica.since) < MEASURED_OVER);
        match full {
            0 if !new => Self::None,
            full if !new && full == serving().count() => Self::All,
            _ => Self::Uneven,
        }
    }
}

fn nearest(engines: u32) -> u32 {
    let far = |size: &u32| size.abs_diff(engines);
    SIZES.into_iter().min_by_key(far).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::forecast::Counts;
    use crate::snapshot::LengthMix;
    use crate::time::Span;
    use crate::work;

    /// Five minutes with so many requests of so many prompt and output tokens each in every 15 s, and when they ended.
    fn five_minutes(each: (u64, u64), requests: impl Fn(u64) -> u64) -> (Bursts, Timestamp) {
        let (mut bursts, mut now) = (Bursts::default(), Timestamp::from_millis(1_772_442_000_000));
        for count in 0..20 {
            let arrived = Counts {
                requests: requests(count),
                prompt_tokens: requests(count) * each.0,
                output_tokens: requests(count) * each.1,
            };
            bursts.record(now, now + Span::from_secs(15), arrived);
            now = now + Span::from_secs(15);
        }
        (bursts, now)
    }

    fn mean(rates: &[(Rate, f64)]) -> f64 {
        rates.iter().map(|(rate, share)| rate.as_per_second() * share).sum()
    }

    #[test]
    fn tokens_are_compared_at_the_rates_of_the_moments_in_which_they_came_and_first_tokens_at_the_mean_rate() {
        let usual = work::of_tokens(1_000.0, 200.0);
        // Nine of ten requests come in a tenth of the time.
        let (bursts, now) = five_minutes((1_000, 200), |count| if count % 10 == 0 { 81 } else { 1 });
        let lately = Lately::of(&bursts, usual, now);
        let first = lately.rates(Metric::TimeToFirstToken, 6.0).unwrap();
        assert_eq!(first, [(Rate::per_second(6.0), 1.0)]);
        let tokens = lately.rates(Metric::InterTokenLatency, 6.0).unwrap();
        let share: f64 = tokens.iter().map(|(_, share)| share).sum();
        assert!((share - 1.0).abs() < 1e-9, "{share}");
        // 0.9 at nine times the rate, 0.1 at a ninth.
        assert!((mean(&tokens) - 6.0 * 8.111).abs() < 0.5, "{}", mean(&tokens));
        let quiet = Lately::of(&bursts, usual, now + Span::from_minutes(10));
        assert_eq!(
            quiet.rates(Metric::InterTokenLatency, 6.0).unwrap(),
            [(Rate::per_second(6.0), 1.0)]
        );
    }

    #[test]
    fn requests_that_are_longer_than_those_of_the_curve_are_a_higher_rate_of_tokens_and_their_first_tokens_say_nothing()
    {
        let usual = work::of_tokens(1_000.0, 200.0);
        let (bursts, now) = five_minutes((2_000, 400), |_| 100);
        let lately = Lately::of(&bursts, usual, now);
        assert_eq!(lately.rates(Metric::TimeToFirstToken, 6.0), None);
        let tokens = lately.rates(Metric::InterTokenLatency, 6.0).unwrap();
        assert!((mean(&tokens) - 12.0).abs() < 0.1, "{}", mean(&tokens));
    }

    #[test]
    fn where_nobody_counts_what_arrives_latencies_are_compared_at_the_rate_that_engines_report() {
        let lately = Lately::of(
            &Bursts::default(),
            LengthMix::assumed().work(),
            Timestamp::from_millis(0),
        );
        for metric in [Metric::TimeToFirstToken, Metric::InterTokenLatency] {
            assert_eq!(lately.rates(metric, 6.0).unwrap(), [(Rate::per_second(6.0), 1.0)]);
        }
    }
}
