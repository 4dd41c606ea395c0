//! From what is known to what to do: the strategic plan of a situation.
//!
//! Builds a [`Problem`] from forecasts, capacity curves, leases and error budgets, solves it, and says it in terms of servers: how
//! many to ask for now, and until when each is wanted.

mod agreed;
mod backlog;
mod known;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::agreed::{agree, drowns};
use self::backlog::Backlogs;
use self::known::Known;
pub use self::known::{Judge, steady_burn};
use super::burn::BurnTable;
use super::dwell::Considered;
use super::horizon::{Horizon, Windows};
pub use super::memo::Memo;
use super::parts::solve;
use super::past::{Past, window};
use super::solve::Effort;
use super::{Burnt, Class, Demand, Leg, Problem, Shortfall, Unit};
use crate::forecast::{Event, Forecast};
use crate::performance::Performance;
use crate::snapshot::{Discipline, LengthMix, Objective, Survive};
use crate::spending::Allowance;
use crate::time::{Span, Timestamp};
use crate::units::Rate;

/// The share of an error budget that is planned to be spent. The rest is for what no forecast sees.
pub const SPEND: f64 = 0.9;

/// The same of a window that outlasts the plan: what is overdrawn of shorter ones is made up for within days, and this one ends before anything can be.
const SPEND_OF_LONG: f64 = 0.75;

/// How a plan is made. Anything but the default is for replays: to see what an ingredient is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// The share of an error budget that is planned to be spent; see [`SPEND`].
    pub spend: f64,
    /// Instead of how demand and latencies are distributed, only their means are known: what arrives is what is expected, without bursts, and an
    /// objective is missed by all requests at loads at which their mean latency is beyond its threshold, and by none below.
    pub means: bool,
}

impl Default for Method {
    fn default() -> Self {
        Self {
            spend: SPEND,
            means: false,
        }
    }
}

/// See [`Problem::overhang`]: enough to decide between plans that are otherwise much the same.
const OVERHANG: f64 = 0.1;

/// See [`Problem::change_hourly`]: a sixth for the leases of a peak that is nine hours away. Of 0, 0.01, 0.02, 0.05 and 0.1 the one with which a week of office
/// hours (COMPOSITE, three seeds) cost least.
const CHANGE_HOURLY: f64 = 0.02;

/// Everything the strategic plan knows.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// Now.
    pub now: Timestamp,
    /// Groups in the order of placement.
    pub supplies: Vec<Supply>,
    /// Pools.
    pub pools: Vec<Consumer<'a>>,
    /// Per site: watts that servers of the groups may draw together; `None` without a limit.
    pub power: Vec<Option<f64>>,
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
    /// Watts of one server under full load.
    pub busy_watts: f64,
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

impl Supply {
    /// From the decision to the first request.
    pub fn lead(&self) -> Span {
        self.provision + self.load
    }
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
    /// Who is served first when servers run out: 0 before 1.
    pub rank: u32,
    /// Servers that it may have at a time.
    pub most: u32,
    /// What it may spend, by period; nothing if it has no budget.
    pub allowances: Vec<Allowance>,
    /// What a request over its objective costs.
    pub miss_penalty: f64,
    /// How much of what is known is planned with.
    pub method: Method,
    /// Requests that wait for an engine now, as far as engines say.
    pub waiting: f64,
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
    /// Leases that are planned, whether all plans of the last while agree on them or not.
    pub fresh: Vec<Fresh>,
}

/// A lease that is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fresh {
    /// Asked for then.
    pub from: Timestamp,
    /// Serves from then on.
    pub serves: Timestamp,
    /// Given back then; the end of the horizon if it is kept beyond.
    pub to: Timestamp,
    /// The pool that it serves first.
    pub pool: usize,
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
    /// What is planned to be spent of each allowance.
    pub spending: Vec<f64>,
    /// What servers would have cost that its budget does not allow.
    pub forgone: f64,
    /// Windows that will not hold.
    pub shortfalls: Vec<Shortfall>,
}

/// Plans ahead. Capacity curves that are not known yet are measured.
pub fn plan(situation: &Situation, memo: &mut Memo, effort: Effort) -> Envelope {
    // All pools share slots; the shortest windows cut them.
    let shortest = situation.pools.iter().map(|pool| window(pool.objectives)).min();
    let horizon = Horizon::new(situation.now, shortest.unwrap_or(Span::from_hours(24)));
    let windows: Vec<Windows> = situation
        .pools
        .iter()
        .map(|pool| horizon.windows(window(pool.objectives)))
        .collect();
    let known: Vec<Known> = situation
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
    let backlogs = Backlogs::new(situation, &known, &horizon);
    let demands = (0..known.len())
        .map(|index| Demand {
            backlog: backlogs.expected(index),
            ..known[index].demand(situation.now, &situation.pools[index], &horizon, &windows[index])
        })
        .collect();
    let problem = Problem {
        boundaries_s: horizon.seconds(),
        classes,
        pools: demands,
        power_limits: situation.power.clone(),
        overhang: OVERHANG,
        change_hourly: CHANGE_HOURLY,
    };
    let prices: Vec<Vec<f64>> = situation
        .pools
        .iter()
        .zip(&windows)
        .map(|(pool, windows)| {
            let newest = pool.past.prices.values().next_back().copied().unwrap_or(0.0);
            let of = |(start, _): &(Timestamp, _)| pool.past.prices.get(start).copied().unwrap_or(newest);
            windows.all.iter().map(of).collect()
        })
        .collect();
    let plan = solve(&problem, Some(&prices), effort);
    let mut supplies: Vec<SupplyPlan> = situation
        .supplies
        .iter()
        .zip(plan.courses.iter().zip(&plan.serves))
        .map(|(supply, (courses, serves))| supply_plan(&horizon, supply, courses, serves))
        .collect();
    let drowning = (0..known.len())
        .any(|index| drowns(situation, &situation.pools[index], &known[index]) || backlogs.lasts(index));
    let considered = agree(situation, drowning, &plan.courses, &mut supplies);
    let pools = known
        .into_iter()
        .enumerate()
        .zip(plan.windows.iter().zip(&plan.prices))
        .map(|((pool, known), (burnt, prices))| {
            let starts = || windows[pool].all.iter().map(|(start, _)| *start);
            PoolPlan {
                windows: starts().zip(burnt.iter().copied()).collect(),
                prices: starts().zip(prices.iter().copied()).collect(),
                forecast: known.forecast,
                burn: known.expected,
                capacity: known.capacity,
                cost: plan.pool_costs[pool],
                spending: plan.spending[pool].clone(),
                forgone: plan.forgone[pool],
                shortfalls: plan
                    .shortfalls
                    .iter()
                    .filter(|short| short.pool == pool)
                    .copied()
                    .collect(),
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
    let buyers: Vec<usize> = bought.filter_map(|(_, pool)| *pool).collect();
    let mut ahead: Vec<Timestamp> = courses
        .iter()
        .flatten()
        .filter(|leg| leg.from_s > 0.0)
        .map(|leg| later(now, leg.from_s))
        .collect();
    ahead.sort_unstable();
    let fresh = courses.iter().zip(serves).enumerate().flat_map(|(unit, (legs, pool))| {
        let is_fresh = move |leg: &&Leg| unit >= held.len() || leg.from_s > 0.0;
        let fresh = move |leg: &Leg| {
            Some(Fresh {
                from: later(now, leg.from_s),
                serves: later(now, leg.serves_s),
                to: later(now, leg.to_s),
                pool: (*pool)?,
            })
        };
        legs.iter().filter(is_fresh).filter_map(fresh)
    });
    SupplyPlan {
        until: until.collect(),
        serves: serves.iter().take(held.len()).copied().collect(),
        fresh: fresh.collect(),
        buyers,
        later: ahead,
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
        lead_s: supply.lead().as_secs_f64(),
        recycle_s: supply.recycle.as_secs_f64(),
        switch_cost: supply.switch_cost,
        busy_watts: supply.busy_watts,
        capacity: pools.iter().map(|pool| pool.capacity[index]).collect(),
        units: held.chain(free).collect(),
    }
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
