//! From what is known to what to do: the strategic plan of a situation.
//!
//! Builds a [`Problem`] from forecasts, capacity curves, leases and error budgets, solves it, and says it in terms of servers: how
//! many to ask for now, and until when each is wanted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::burn::{BurnTable, LOADS, Missed, SteadyBurn};
use super::bursts::Sample;
use super::dwell::{self, Considered};
use super::horizon::Horizon;
pub use super::memo::Memo;
use super::past::{Past, per_miss, window};
use super::solve::{Effort, solve};
use super::{Burnt, Class, Demand, Leg, Problem, Unit, Window};
use crate::capacity::Servers;
use crate::capacity::curve::{Curves, Traffic};
use crate::forecast::{COARSE, Event, FINE, Forecast, History, LEVELS, Slot, SlotForecast, forecast};
use crate::performance::Performance;
use crate::snapshot::{Discipline, LengthMix, Metric, Objective, Survive};
use crate::time::{Span, Timestamp};
use crate::units::Rate;

/// Probabilities of [`LEVELS`] as points: each stands for what is nearer to it than to the others.
const WEIGHTS: [f64; LEVELS.len()] = [0.15, 0.225, 0.25, 0.2, 0.1, 0.045, 0.03];

/// The same for what can still be decided when more is known: its tails are left to that decision.
const LATER_WEIGHTS: [f64; LEVELS.len()] = [0.0, 0.3, 0.4, 0.3, 0.0, 0.0, 0.0];

/// The share of an error budget that is planned to be spent. The rest is for what no forecast sees.
pub const SPEND: f64 = 0.6;

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

/// See [`Problem::overhang`]: enough to decide between plans that are otherwise much the same.
const OVERHANG: f64 = 0.1;

/// Everything the strategic plan knows.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// Now.
    pub now: Timestamp,
    /// Groups in the order of placement.
    pub supplies: Vec<Supply>,
    /// Pools.
    pub pools: Vec<Consumer<'a>>,
    /// What the last plans wanted of groups with long leases.
    pub considered: Considered,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct Supply {
    /// Lower ones are filled first.
    pub tier: u32,
    /// Which site it is at.
    pub site: usize,
    /// Price of an hour of lease.
    pub hourly: f64,
    /// Price of an hour of idling. What work needs more, it needs wherever it is done.
    pub energy_hourly: f64,
    /// Paid in any case.
    pub minimum_lease: Span,
    /// From the decision to a Ready server.
    pub provision: Span,
    /// The model's load.
    pub load: Span,
    /// From the release until the machine can be leased again.
    pub recycle: Span,
    /// What starting a server costs besides its price.
    pub switch_cost: f64,
    /// Servers that are there or coming.
    pub held: Vec<Held>,
    /// When each further server can be asked for: now, or when it is recycled or delivered.
    pub free: Vec<Timestamp>,
}

/// A server that is there or coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// From when on it serves.
    pub serves_at: Timestamp,
    /// Until when it is paid in any case.
    pub paid_until: Timestamp,
    /// It cannot be given back.
    pub fixed: bool,
}

/// One pool.
#[derive(Clone, Debug)]
pub struct Consumer<'a> {
    /// What one server of each group does for it; `None` where it may not run.
    pub performance: Vec<Option<&'a Performance>>,
    /// Lengths of its requests.
    pub mix: &'a LengthMix,
    /// How requests meet servers.
    pub discipline: Discipline,
    /// Never empty.
    pub objectives: &'a [Objective],
    /// What may be lost.
    pub survive: Survive,
    /// What a request over its objective costs.
    pub miss_penalty: f64,
    /// The share of an error budget that is planned to be spent; see [`SPEND`].
    pub spend: f64,
    /// Arrivals per second over the last two minutes, if known.
    pub recent: Option<Rate>,
    /// What is known of its past.
    pub past: &'a Past,
    /// Events that are known to come.
    pub events: &'a [Event],
}

/// What to do with the servers of every group, until the next strategic plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// When it was made.
    pub made_at: Timestamp,
    /// In the order of the situation's groups.
    pub supplies: Vec<SupplyPlan>,
    /// In the order of the situation's pools.
    pub pools: Vec<PoolPlan>,
    /// Expected cost of the next 36 hours, sunk leases left out.
    pub cost: f64,
    /// No plan for the same problem costs less.
    pub bound: f64,
    /// What this plan and the last ones want of groups with long leases: the next one is to be told.
    pub considered: Considered,
}

/// One group's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SupplyPlan {
    /// Per server that is there or coming: until when it is wanted. `None` if beyond the horizon.
    pub until: Vec<Option<Timestamp>>,
    /// Per server that is there or coming: the pool that it serves first. `None` if it is not wanted any more.
    pub serves: Vec<Option<usize>>,
    /// Per server to be asked for now: the pool that it serves first.
    pub buyers: Vec<usize>,
    /// When further servers are to be asked for, ascending.
    pub later: Vec<Timestamp>,
}

/// One pool's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolPlan {
    /// Windows of the objectives, by start, with what is expected to be burnt of what is left.
    pub windows: Vec<(Timestamp, Burnt)>,
    /// Prices to begin the next plan with.
    pub prices: BTreeMap<Timestamp, f64>,
    /// What it was planned for; `None` if nothing is known of the demand.
    pub forecast: Option<Forecast>,
    /// What servers burn at which load.
    pub burn: Option<BurnTable>,
    /// Requests/s of one server of each group at saturation.
    pub capacity: Vec<Option<f64>>,
    /// What its servers are expected to cost within the horizon, sunk leases left out.
    pub cost: f64,
}

/// Plans ahead. Capacity curves that are not known yet are measured.
pub fn plan(situation: &Situation, memo: &mut Memo, effort: Effort) -> Envelope {
    // All pools share slots; windows of the first one cut them, and those of others are rounded to them.
    let shortest = situation.pools.iter().map(|pool| window(pool.objectives)).min();
    let horizon = Horizon::new(situation.now, shortest.unwrap_or(Span::from_hours(24)));
    let mut known: Vec<Known> = situation
        .pools
        .iter()
        .map(|pool| Known::of(situation, pool, &horizon, memo))
        .collect();
    let classes = situation
        .supplies
        .iter()
        .enumerate()
        .map(|(index, supply)| class(situation.now, index, supply, &known))
        .collect();
    let demands = situation
        .pools
        .iter()
        .zip(&known)
        .map(|(pool, known)| known.demand(situation.now, pool, &horizon))
        .collect();
    let problem = Problem {
        boundaries_s: horizon.seconds(),
        classes,
        pools: demands,
        power_limits: Vec::new(),
        overhang: OVERHANG,
    };
    let prices: Vec<Vec<f64>> = situation
        .pools
        .iter()
        .map(|pool| {
            let newest = pool.past.prices.values().next_back().copied().unwrap_or(0.0);
            let of = |(start, _): &(Timestamp, _)| pool.past.prices.get(start).copied().unwrap_or(newest);
            horizon.windows.iter().map(of).collect()
        })
        .collect();
    let plan = solve(&problem, Some(&prices), effort);
    let mut supplies: Vec<SupplyPlan> = situation
        .supplies
        .iter()
        .zip(plan.courses.iter().zip(&plan.serves))
        .map(|(supply, (courses, serves))| supply_plan(&horizon, supply, courses, serves))
        .collect();
    let drowning = situation
        .pools
        .iter()
        .zip(&known)
        .any(|(pool, known)| drowns(situation, pool, known));
    let considered = agree(situation, drowning, &plan.courses, &mut supplies);
    let pools = known
        .drain(..)
        .zip(plan.windows.iter().zip(&plan.prices).zip(&plan.pool_costs))
        .map(|(known, ((burnt, prices), cost))| {
            let starts = || horizon.windows.iter().map(|(start, _)| *start);
            PoolPlan {
                windows: starts().zip(burnt.iter().copied()).collect(),
                prices: starts().zip(prices.iter().copied()).collect(),
                forecast: known.forecast,
                burn: known.expected,
                capacity: known.capacity,
                cost: *cost,
            }
        })
        .collect();
    Envelope {
        made_at: situation.now,
        supplies,
        pools,
        cost: plan.cost,
        bound: plan.bound,
        considered,
    }
}

/// Whether more has arrived over the last half hour than all servers that are there or coming can finish: that more are needed is no matter of
/// chance then.
fn drowns(situation: &Situation, pool: &Consumer, known: &Known) -> bool {
    let held = situation.supplies.iter().zip(&known.capacity);
    let capacity: f64 = held
        .map(|(supply, each)| each.unwrap_or(0.0) * supply.held.len() as f64)
        .sum();
    let lately = pool.past.history.lately(situation.now);
    lately.is_some_and(|rate| rate.as_per_second() > capacity)
}

/// Leaves of the purchases from groups with long leases what all plans of the last while agree on. Groups stand in for each other: one that
/// has nothing to give does not make the next one wait anew.
fn agree(situation: &Situation, drowning: bool, courses: &[Vec<Vec<Leg>>], supplies: &mut [SupplyPlan]) -> Considered {
    let mut considered = situation.considered.clone();
    let patience = |supply: &Supply| dwell::patience(supply.minimum_lease);
    let longest = situation.supplies.iter().filter_map(patience).max();
    let patient = || situation.supplies.iter().map(|supply| patience(supply).is_some());
    let all: Vec<&Vec<Leg>> = courses
        .iter()
        .zip(patient())
        .filter(|(_, patient)| *patient)
        .flat_map(|(courses, _)| courses)
        .collect();
    let wanted = dwell::wanted(&all);
    let own = wanted.first().copied().unwrap_or(0);
    let agreed = considered.consider(situation.now, longest, wanted);
    let agreed = if drowning { own } else { agreed };
    let kept = situation
        .supplies
        .iter()
        .zip(courses)
        .zip(patient())
        .filter(|(_, patient)| *patient);
    let kept = kept.flat_map(|((supply, courses), _)| courses.iter().take(supply.held.len()));
    let kept = kept
        .filter(|legs| legs.first().is_some_and(|leg| leg.to_s > 0.0))
        .count();
    let mut left = usize::try_from(agreed).unwrap_or(usize::MAX).saturating_sub(kept);
    for (supply, _) in supplies.iter_mut().zip(patient()).filter(|(_, patient)| *patient) {
        supply.buyers.truncate(left);
        left -= supply.buyers.len();
    }
    considered
}

/// What the courses of one group come to: those of servers that are there or coming, then those of others.
fn supply_plan(horizon: &Horizon, supply: &Supply, courses: &[Vec<Leg>], serves: &[Option<usize>]) -> SupplyPlan {
    let held = &supply.held;
    let (now, end) = (horizon.boundaries[0], horizon.boundaries[horizon.slots()]);
    let until = courses.iter().zip(held).map(|(legs, held)| {
        let until = legs.first().map_or(now, |leg| later(now, leg.to_s));
        let slot = horizon
            .boundaries
            .partition_point(|start| *start < until)
            .saturating_sub(1);
        // Slots are coarse. One that is not wanted beyond its paid term is not wanted to the end of the slot.
        let given = held.paid_until.max(held.serves_at) > horizon.boundaries[slot];
        let until = if given {
            until.min(held.paid_until).max(now)
        } else {
            until
        };
        (until < end).then_some(until)
    });
    let begins_now = |legs: &[Leg]| legs.first().is_some_and(|leg| leg.from_s <= 0.0);
    let bought = courses
        .iter()
        .zip(serves)
        .skip(held.len())
        .filter(|(legs, _)| begins_now(legs));
    let buyers: Vec<usize> = bought.map(|(_, pool)| pool.unwrap_or(0)).collect();
    let mut ahead: Vec<Timestamp> = courses
        .iter()
        .flatten()
        .filter(|leg| leg.from_s > 0.0)
        .map(|leg| later(now, leg.from_s))
        .collect();
    ahead.sort_unstable();
    SupplyPlan {
        until: until.collect(),
        serves: serves.iter().take(held.len()).copied().collect(),
        buyers,
        later: ahead,
    }
}

/// What is known of one pool.
struct Known {
    capacity: Vec<Option<f64>>,
    /// Burn as the model sees it, and as it is after what was measured.
    expected: Option<BurnTable>,
    table: Option<BurnTable>,
    forecast: Option<Forecast>,
    arrivals: Vec<Vec<(f64, f64)>>,
}

impl Known {
    fn of(situation: &Situation, pool: &Consumer, horizon: &Horizon, memo: &mut Memo) -> Self {
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
        let measured = steady_burn(&all, pool.mix, pool.discipline, pool.objectives, &mut memo.curves);
        let mut capacity = vec![None; situation.supplies.len()];
        if let Some((each, _)) = &measured {
            for (&group, each) in usable.iter().zip(each) {
                capacity[group] = Some(*each);
            }
        }
        let sample = memo.sample(&pool.past.bursts);
        // Without bursts as long as too little is known of them.
        let expected = measured.and_then(|(_, steady)| match &sample {
            Some(sample) => memo.burn(&steady, sample),
            None => steady.without_bursts(),
        });
        let correction = pool.past.ledger.correction();
        let table = expected.as_ref().map(|table| table.clone().scaled(correction));
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
        );
        let arrivals = if let Some(forecast) = &forecast {
            arrivals(forecast, pool.recent, most_seen(&pool.past.history), sample.as_deref())
        } else {
            // Nothing was ever measured: what is seen right now is all there is to go by.
            let rate = pool.recent.unwrap_or(Rate::ZERO).as_per_second();
            vec![vec![(1.0, rate)]; horizon.slots()]
        };
        Self {
            capacity,
            expected,
            table,
            forecast,
            arrivals,
        }
    }

    fn demand(&self, now: Timestamp, pool: &Consumer, horizon: &Horizon) -> Demand {
        let windows = horizon
            .windows
            .iter()
            .enumerate()
            .map(|(index, (start, slots))| {
                let requests: f64 = slots
                    .clone()
                    .map(|slot| {
                        let length = horizon.boundaries[slot + 1]
                            .since(horizon.boundaries[slot])
                            .as_secs_f64();
                        let rate: f64 = self.arrivals[slot].iter().map(|(weight, rate)| weight * rate).sum();
                        rate * length
                    })
                    .sum();
                let carried = if *start <= now {
                    pool.past.ledger.carried(now, pool.objectives)
                } else {
                    0.0
                };
                Window {
                    slots: slots.clone(),
                    budget: horizon.budget(index, requests, carried, pool.spend),
                }
            })
            .collect();
        // A pool without any group that it may run in wants nothing of the others.
        Demand {
            arrivals: self.arrivals.clone(),
            burn: self.table.clone().unwrap_or_else(BurnTable::nothing),
            windows,
            miss_value: pool.miss_penalty / pool.objectives.iter().map(per_miss).fold(1.0, f64::max),
            survive: pool.survive,
            rank: 0,
            budgets: Vec::new(),
        }
    }
}

fn class(now: Timestamp, index: usize, supply: &Supply, pools: &[Known]) -> Class {
    let ahead = |at: Timestamp| at.since(now).as_secs_f64();
    let held = supply.held.iter().map(|held| {
        if held.fixed {
            Unit::Fixed {
                serves_s: ahead(held.serves_at),
            }
        } else {
            Unit::On {
                serves_s: ahead(held.serves_at),
                paid_until_s: ahead(held.paid_until),
            }
        }
    });
    let free = supply.free.iter().map(|&from| Unit::Off { from_s: ahead(from) });
    Class {
        tier: supply.tier,
        site: supply.site,
        hourly: supply.hourly,
        energy_hourly: supply.energy_hourly,
        minimum_lease_s: supply.minimum_lease.as_secs_f64(),
        lead_s: (supply.provision + supply.load).as_secs_f64(),
        recycle_s: supply.recycle.as_secs_f64(),
        switch_cost: supply.switch_cost,
        busy_watts: 0.0,
        capacity: pools.iter().map(|pool| pool.capacity[index]).collect(),
        units: held.chain(free).collect(),
    }
}

/// What sets of servers burn at steady demand, filled in the order of `all`, and what one of each kind finishes at saturation. `None` without
/// servers.
pub fn steady_burn(
    all: &[Servers],
    mix: &LengthMix,
    discipline: Discipline,
    objectives: &[Objective],
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
        let attained = LOADS.map(|load| curve.attainment(Rate::per_second(load * curve.saturation().as_per_second())));
        let burn = objectives.iter().enumerate().map(|(index, objective)| {
            std::array::from_fn(|load| {
                let attained = attained[load].get(index).map_or(0.0, |attained| attained.get());
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
    bursts: Option<&Sample>,
) -> Vec<Vec<(f64, f64)>> {
    let most = most_seen.max(recent.unwrap_or(Rate::ZERO).as_per_second()) * MOST_GROWTH;
    let start = forecast.slots.first().map(|first| first.slot.start);
    let ahead = |slot: &SlotForecast| start.map_or(Span::ZERO, |start| slot.slot.start.since(start));
    let decided = forecast.slots.iter().find(|slot| ahead(slot) >= RECOURSE);
    // What is left open without bursts.
    let open = |slot: &SlotForecast| {
        let median = slot.requests.median().as_per_second();
        let excess = bursts.map_or(0.0, |bursts| bursts.excess(median));
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

/// The highest rates of five minutes and of an hour that were ever seen.
fn most_seen(history: &History) -> (f64, f64) {
    let highest = |rates: &mut dyn Iterator<Item = Rate>| rates.map(Rate::as_per_second).fold(0.0, f64::max);
    let mut fine = history.fine().filter_map(|(_, bucket)| bucket.rate(FINE));
    let mut hourly = history.hourly().filter_map(|(_, bucket)| bucket.rate(COARSE));
    let hour = highest(&mut hourly);
    (highest(&mut fine).max(hour), hour)
}

fn later(now: Timestamp, seconds: f64) -> Timestamp {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 36 hours"
    )]
    let ms = (seconds.max(0.0) * 1_000.0).round() as u64;
    now + Span::from_millis(ms)
}

#[cfg(test)]
mod tests;
