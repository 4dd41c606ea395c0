//! What is known of one pool: what its servers burn, and what may arrive.

use super::{Consumer, SPEND_OF_LONG, Situation};
use crate::capacity::Servers;
use crate::capacity::curve::{Curve, Curves, Traffic};
use crate::forecast::{COARSE, FINE, Forecast, History, LEVELS, Slot, SlotForecast, forecast};
use crate::snapshot::{Discipline, LengthMix, Metric, Objective};
use crate::spending::Allowance;
use crate::strategy::burn::{BurnTable, LOADS, Missed, SteadyBurn};
use crate::strategy::bursts::Sample;
use crate::strategy::horizon::{Horizon, LENGTH, Windows};
use crate::strategy::memo::Memo;
use crate::strategy::past::per_miss;
use crate::strategy::{Demand, MoneyBudget, Window, mean};
use crate::time::{Span, Timestamp};
use crate::units::Rate;

/// Probabilities of [`LEVELS`] as points: each stands for what is nearer to it than to the others.
const WEIGHTS: [f64; LEVELS.len()] = [0.15, 0.225, 0.25, 0.2, 0.1, 0.045, 0.03];

/// The same for what can still be decided when more is known: its tails are left to that decision.
const LATER_WEIGHTS: [f64; LEVELS.len()] = [0.0, 0.3, 0.4, 0.3, 0.0, 0.0, 0.0];

/// Sets of servers whose curves are measured: so many servers, filled in order.
const ANCHORS: [u32; 11] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 56];

/// No plan is made for more than so many times the highest rate ever seen: the tail of a forecast says less than that.
const MOST_GROWTH: f64 = 1.5;

/// The same for the expectation of what is further ahead than [`RECOURSE`].
const MOST_GROWTH_LATER: f64 = 1.05;

/// What is further ahead than this can still be decided when more is known: it is planned for as it is expected, with the uncertainty that
/// will be left then. To plan for all that may happen tomorrow is to buy today what may never be needed.
const RECOURSE: Span = Span::from_minutes(45);

/// Of the variance of a forecast at least so much is not bursts.
const LEAST_OPEN: f64 = 0.05;

/// What is known of one pool.
pub(super) struct Known {
    pub(super) capacity: Vec<Option<f64>>,
    /// Burn as the model sees it, and as it is after what was measured.
    pub(super) expected: Option<BurnTable>,
    table: Option<BurnTable>,
    pub(super) forecast: Option<Forecast>,
    arrivals: Vec<Vec<(f64, f64)>>,
}

impl Known {
    pub(super) fn of(situation: &Situation, pool: &Consumer, horizon: &Horizon, memo: &mut Memo) -> Self {
        let usable: Vec<usize> = (0..situation.supplies.len())
            .filter(|&group| pool.performance.get(group).is_some_and(Option::is_some))
            .collect();
        let all: Vec<Servers> = usable
            .iter()
            .filter_map(|&group| {
                let supply = &situation.supplies[group];
                let count = u32::try_from(supply.held.len() + supply.free.len()).unwrap_or(u32::MAX);
                pool.performance[group].map(|performance| Servers { performance, count })
            })
            .collect();
        let judge = if pool.method.means {
            Judge::Means
        } else {
            Judge::Distributions
        };
        let measured = steady_burn(
            &all,
            pool.mix,
            pool.discipline,
            pool.objectives,
            judge,
            &mut memo.curves,
        );
        let mut capacity = vec![None; situation.supplies.len()];
        if let Some((each, _)) = &measured {
            for (&group, each) in usable.iter().zip(each) {
                capacity[group] = Some(*each);
            }
        }
        let work = pool.mix.work();
        let sample = memo.sample(&pool.past.bursts).filter(|_| !pool.method.means);
        // Without bursts as long as too little is known of them.
        let expected = measured.and_then(|(_, steady)| match &sample {
            Some(sample) => memo.burn(&steady, sample),
            None => steady.without_bursts(),
        });
        let corrected = |table: &BurnTable| table.clone().scaled(pool.past.ledger.correction(table, work));
        let table = expected.as_ref().map(corrected);
        let slots: Vec<Slot> = horizon
            .boundaries
            .windows(2)
            .map(|pair| Slot {
                start: pair[0],
                length: pair[1].since(pair[0]),
            })
            .collect();
        let forecast = forecast(
            &pool.past.history,
            &pool.past.backtest,
            situation.now,
            &slots,
            pool.events,
            work,
        );
        let arrivals = if let Some(forecast) = &forecast {
            arrivals(
                forecast,
                pool.recent,
                most_seen(&pool.past.history, work),
                work,
                sample.as_deref(),
            )
        } else {
            // Nothing was ever measured: what is seen right now is all there is to go by.
            let rate = pool.recent.unwrap_or(Rate::ZERO).as_per_second();
            vec![vec![(1.0, rate)]; horizon.slots()]
        };
        let arrivals = if pool.method.means {
            arrivals.iter().map(|slot| vec![(1.0, mean(slot))]).collect()
        } else {
            arrivals
        };
        Self {
            capacity,
            expected,
            table,
            forecast,
            arrivals,
        }
    }

    /// The mean of what is expected to arrive within `ahead` from now on, in requests/s.
    pub(super) fn rate(&self, horizon: &Horizon, ahead: Span) -> f64 {
        let end = horizon.boundaries[0] + ahead;
        let slots = horizon.boundaries.windows(2).take_while(|slot| slot[0] < end);
        let (mut requests, mut seconds) = (0.0, 0.0);
        for (slot, arrivals) in slots.zip(&self.arrivals) {
            let length_s = slot[1].since(slot[0]).as_secs_f64();
            requests += length_s * mean(arrivals);
            seconds += length_s;
        }
        if seconds > 0.0 { requests / seconds } else { 0.0 }
    }

    pub(super) fn demand(&self, now: Timestamp, pool: &Consumer, horizon: &Horizon, windows: &Windows) -> Demand {
        let share = if windows.length > LENGTH {
            pool.method.spend.min(SPEND_OF_LONG)
        } else {
            pool.method.spend
        };
        let of = windows
            .all
            .iter()
            .enumerate()
            .map(|(index, (start, slots))| {
                let requests: f64 = slots
                    .clone()
                    .map(|slot| {
                        let length = horizon.boundaries[slot + 1]
                            .since(horizon.boundaries[slot])
                            .as_secs_f64();
                        mean(&self.arrivals[slot]) * length
                    })
                    .sum();
                let carried = if *start <= now {
                    pool.past.ledger.carried(now, pool.objectives)
                } else {
                    0.0
                };
                Window {
                    slots: slots.clone(),
                    budget: horizon.budget(windows, index, requests, carried, share),
                }
            })
            .collect();
        // A pool without any group that it may run in wants nothing of the others.
        Demand {
            arrivals: self.arrivals.clone(),
            burn: self.table.clone().unwrap_or_else(BurnTable::nothing),
            windows: of,
            miss_value: pool.miss_penalty / pool.objectives.iter().map(per_miss).fold(1.0, f64::max),
            survive: pool.survive,
            rank: pool.rank,
            most: pool.most,
            budgets: pool.allowances.iter().map(|allowance| budget(now, allowance)).collect(),
            backlog: None,
        }
    }
}

fn budget(now: Timestamp, allowance: &Allowance) -> MoneyBudget {
    MoneyBudget {
        from_s: allowance.from.since(now).as_secs_f64(),
        to_s: allowance.to.since(now).as_secs_f64(),
        left: allowance.left.as_f64(),
    }
}

/// By what it is told how many requests miss an objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// By how latencies are distributed.
    Distributions,
    /// By their mean: all or none.
    Means,
}

impl Judge {
    /// The share of requests that meets each of the curve's objectives.
    fn attained(self, curve: &Curve, rate: Rate) -> Vec<f64> {
        match self {
            Self::Distributions => curve.attainment(rate).iter().map(|share| share.get()).collect(),
            Self::Means => {
                let meets = |objective: &Objective| {
                    let threshold_ms = objective.threshold.as_secs_f64() * 1_000.0;
                    f64::from(u8::from(curve.mean_ms(rate, objective.metric) <= threshold_ms))
                };
                curve.objectives().iter().map(meets).collect()
            }
        }
    }
}

/// What sets of servers burn at steady demand, filled in the order of `all`, and what one of each kind finishes at saturation. `None` without
/// servers.
pub fn steady_burn(
    all: &[Servers],
    mix: &LengthMix,
    discipline: Discipline,
    objectives: &[Objective],
    judge: Judge,
    curves: &mut Curves,
) -> Option<(Vec<f64>, SteadyBurn)> {
    let traffic = Traffic::new(mix, discipline, objectives);
    let capacity: Vec<f64> = all
        .iter()
        .map(|servers| {
            let alone = Servers { count: 1, ..*servers };
            curves.curve(&[alone], &traffic).saturation().as_per_second()
        })
        .collect();
    let total = all
        .iter()
        .fold(0_u32, |total, servers| total.saturating_add(servers.count));
    let mut counts: Vec<u32> = ANCHORS.into_iter().filter(|count| *count < total).collect();
    counts.push(total.min(ANCHORS[ANCHORS.len() - 1]));
    let entries = counts.into_iter().filter(|count| *count > 0).map(|count| {
        let mut left = count;
        let mut saturation = 0.0;
        let mut set = Vec::new();
        for (servers, each) in all.iter().zip(&capacity) {
            let count = left.min(servers.count);
            left -= count;
            if count > 0 {
                saturation += each * f64::from(count);
                set.push(Servers { count, ..*servers });
            }
        }
        let curve = curves.curve(&set, &traffic);
        let attained =
            LOADS.map(|load| judge.attained(&curve, Rate::per_second(load * curve.saturation().as_per_second())));
        let burn = objectives.iter().enumerate().map(|(index, objective)| {
            std::array::from_fn(|load| {
                let attained = attained[load].get(index).copied().unwrap_or(0.0);
                (1.0 - attained) * per_miss(objective)
            })
        });
        (saturation, burn.collect())
    });
    let missed = objectives.iter().map(|objective| Missed {
        burn: per_miss(objective),
        patience_s: match objective.metric {
            Metric::TimeToFirstToken => Some(objective.threshold.as_secs_f64()),
            Metric::InterTokenLatency => None,
        },
    });
    let steady = SteadyBurn {
        work: mix.work(),
        anchors: entries.collect(),
        missed: missed.collect(),
    };
    (!steady.anchors.is_empty()).then_some((capacity, steady))
}

/// What may arrive in every slot, bursts left out: burn tables contain them.
fn arrivals(
    forecast: &Forecast,
    recent: Option<Rate>,
    (most_seen, most_hourly): (f64, f64),
    work: f64,
    bursts: Option<&Sample>,
) -> Vec<Vec<(f64, f64)>> {
    let most = most_seen.max(recent.unwrap_or(Rate::ZERO).as_per_second()) * MOST_GROWTH;
    let start = forecast.slots.first().map(|first| first.slot.start);
    let ahead = |slot: &SlotForecast| start.map_or(Span::ZERO, |start| slot.slot.start.since(start));
    let decided = forecast.slots.iter().find(|slot| ahead(slot) >= RECOURSE);
    // What is left open without bursts.
    let open = |slot: &SlotForecast| {
        let median = slot.requests.median().as_per_second();
        let excess = bursts.map_or(0.0, |bursts| bursts.excess(median * work));
        let high = slot.requests.0[4].as_per_second() / median.max(f64::MIN_POSITIVE) - 1.0;
        let share = if slot.slot.length <= Span::from_minutes(15) && high > 0.0 {
            (1.0 - (excess / high) * (excess / high)).max(LEAST_OPEN).sqrt()
        } else {
            1.0
        };
        slot.requests
            .0
            .map(|rate| median + (rate.as_per_second() - median) * share)
    };
    let band = decided.map(|slot| {
        let median = slot.requests.median().as_per_second();
        open(slot).map(|rate| if median > 0.0 { rate / median } else { 1.0 })
    });
    forecast
        .slots
        .iter()
        .map(|slot| {
            let median = slot.requests.median().as_per_second();
            let near = open(slot);
            let rate = |level: usize| match band {
                Some(band) if ahead(slot) > RECOURSE => median.min(most_hourly * MOST_GROWTH_LATER) * band[level],
                _ => near[level],
            };
            let weights = if ahead(slot) > RECOURSE {
                &LATER_WEIGHTS
            } else {
                &WEIGHTS
            };
            let points = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
            points.map(|(level, weight)| (*weight, rate(level).min(most))).collect()
        })
        .collect()
}

/// The highest rates of five minutes and of an hour that were ever seen, in requests of so much `work`.
fn most_seen(history: &History, work: f64) -> (f64, f64) {
    let highest = |rates: &mut dyn Iterator<Item = f64>| rates.fold(0.0, f64::max) / work;
    let mut fine = history.fine().filter_map(|(_, bucket)| bucket.work_per_s(FINE));
    let mut hourly = history.hourly().filter_map(|(_, bucket)| bucket.work_per_s(COARSE));
    let hour = highest(&mut hourly);
    let five_minutes = highest(&mut fine);
    // Before the first hour is known, the highest of what is.
    (five_minutes.max(hour), if hour > 0.0 { hour } else { five_minutes })
}
