//! The strategic plan: which servers to lease, wake, keep and give back over the next 36 hours.
//!
//! A unit-commitment problem, as power systems solve it, over slots that are short at first and longer later:
//!
//! minimise lease prices over whole minimum leases + energy + switching costs + what missed requests cost,
//! such that in every window of every objective the expected misses stay within what the objective allows.
//!
//! # How it is solved
//!
//! | step | module |
//! |---|---|
//! | what a slot's misses are, for every capacity: a convex function | [`burn`], [`bursts`] |
//! | the best course of one server, when serving in slot t is worth v(t): dynamic programming, exact | `course` |
//! | servers take turns, each answering best to all others, under a price per miss | `sweep` |
//! | prices per miss are moved until every window's budget holds | `solve` |
//! | what nobody needs is trimmed, hours stand in for days and days for hours | `local` |
//! | what budgets of money do not allow is done without | `money` |
//! | which pool each server serves first, and what is spent on each | `assignment` |
//! | how long a purchase has to be wanted before it is made | [`dwell`] |
//! | how hours are cut into slots, and budgets into windows | [`horizon`] |
//! | a lower bound by Lagrangian relaxation, and prices to begin with: one pool's, from servers that may be divided | `bound` |
//! | the same for pools that share servers, from whole servers that have a price by the slot | `market` |
//! | classes that are alike are planned as one, parts that share nothing each for itself | `alike`, `parts` |
//! | what follows from slots and classes alone | `grid` |
//!
//! [`envelope`] makes such a problem of what is known about servers, forecasts and error budgets ([`past`], which grows by [`learning`]). [`due`] says when it is time to plan again.
//!
//! Work is limited by counts, never by time, so that a plan replays to the byte.
//!
//! # Units
//! Times are seconds from now, money is in the hub's currency, capacity is in requests/s *at saturation* (what engines
//! that are never idle finish), which adds up over servers exactly; how many of the requests then miss an objective at
//! which share of saturation is [`burn::BurnTable`]'s to say.

pub mod ahead;
mod alike;
mod assignment;
mod bound;
pub mod burn;
pub mod bursts;
mod course;
mod cuts;
mod divided;
pub mod due;
pub mod dwell;
pub mod envelope;
mod grid;
pub mod horizon;
pub mod learning;
mod local;
mod market;
mod memo;
mod money;
mod parts;
pub mod past;
mod ranking;
mod shared;
mod solve;
mod sweep;

#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::snapshot::Survive;

pub use burn::{BurnTable, Outcomes};
pub use course::Leg;
pub use parts::solve;
pub use solve::Effort;

/// One problem: a horizon, servers and demand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problem {
    /// Where slots begin and end: ascending, the first is 0. One more than there are slots.
    pub boundaries_s: Vec<f64>,
    /// Sets of identical servers, in the order of placement.
    pub classes: Vec<Class>,
    /// Who needs servers.
    pub pools: Vec<Demand>,
    /// Per site: watts that all its servers that are on may draw together when busy. Sites beyond the list have no limit.
    pub power_limits: Vec<Option<f64>>,
    /// The share of a minimum's price beyond the horizon that is charged. If none were, a lease tomorrow would seem to cost a few hours, and
    /// today's would be taken hours too early for its sake.
    pub overhang: f64,
    /// The chance per hour that the plan changes so that a long lease which is planned for later is not needed after all: one that need not be
    /// taken yet counts less, and of two that serve equally well the one that begins later is taken. Short leases and further hours commit to nothing.
    pub change_hourly: f64,
}

/// A lease of at least so long is a commitment: worth waiting for, and worth trying one more and one less of.
const LONG_LEASE_S: f64 = 7_200.0;

impl Problem {
    /// The chance that a lease of so long which is planned for a time is still wanted then.
    pub(crate) fn still_needed(&self, at_s: f64, minimum_lease_s: f64) -> f64 {
        if minimum_lease_s >= LONG_LEASE_S {
            libm::exp(-self.change_hourly * at_s / 3_600.0)
        } else {
            1.0
        }
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.boundaries_s.len().saturating_sub(1)
    }

    /// How long a slot is, in s.
    pub fn length_s(&self, slot: usize) -> f64 {
        self.boundaries_s[slot + 1] - self.boundaries_s[slot]
    }
}

/// Identical servers of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Servers of a lower tier are used up before those of a higher one are considered: `OwnedFirst`.
    pub tier: u32,
    /// Which site they are at.
    pub site: usize,
    /// Price of an hour of lease.
    pub hourly: f64,
    /// Price of an hour of electricity while on: of idling. What work needs more, it needs wherever it is done.
    pub energy_hourly: f64,
    /// Paid in any case.
    pub minimum_lease_s: f64,
    /// From the decision to the first request: provisioning, boot and model load.
    pub lead_s: f64,
    /// From the release until the same machine can be leased again.
    pub recycle_s: f64,
    /// What starting a server costs besides: work lost, and a threshold below which no plan is worth a change.
    pub switch_cost: f64,
    /// Watts of one server under full load, which count towards its site's limit as long as it is on.
    pub busy_watts: f64,
    /// Requests/s of one server at saturation, per pool; `None` where the pool may not run there.
    pub capacity: Vec<Option<f64>>,
    /// All servers that exist or could exist within the horizon.
    pub units: Vec<Unit>,
}

/// One server, as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// Not paid for; can be leased from then on.
    Off {
        /// From when on.
        from_s: f64,
    },
    /// Paid for.
    On {
        /// From when on it serves; 0 if it does.
        serves_s: f64,
        /// Until when it is paid in any case; 0 if its minimum is over.
        paid_until_s: f64,
    },
    /// On, and not ours to switch off.
    Fixed {
        /// From when on it serves; 0 if it does.
        serves_s: f64,
    },
}

/// What one pool needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Per slot: what may arrive, as (probability, requests/s). Probabilities of a slot add up to 1.
    pub arrivals: Vec<Vec<(f64, f64)>>,
    /// Which share of the requests misses, by load.
    pub burn: BurnTable,
    /// Error budgets: consecutive ranges of slots. Slots outside any window are free of charge.
    pub windows: Vec<Window>,
    /// What one burnt request costs beyond the budget's own price, in money.
    pub miss_value: f64,
    /// What may be lost without breaking an objective.
    pub survive: Survive,
    /// Who is served first when servers run out: 0 before 1. Pools of equal rank share.
    pub rank: u32,
    /// Servers that may serve it at a time.
    pub most: u32,
    /// What may be spent on its servers; never exceeded.
    pub budgets: Vec<MoneyBudget>,
    /// What waits to be worked off, if it is more than may wait.
    pub backlog: Option<Backlog>,
}

/// The mean of what may arrive, given as (probability, requests/s), in requests/s.
fn mean(arrivals: &[(f64, f64)]) -> f64 {
    arrivals.iter().map(|(probability, rate)| probability * rate).sum()
}

/// Requests that will be waiting when more servers can first be there. Until they are worked off, all that arrive wait behind them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backlog {
    /// The slot from which on more servers can work on it.
    pub slot: usize,
    /// Requests, less those that wait within their objective.
    pub requests: f64,
    /// Requests/s that arrive meanwhile.
    pub rate: f64,
    /// What each of them burns.
    pub burn: f64,
}

/// No backlog is taken to last longer than this: by then demand or servers are others.
const LONGEST_BACKLOG_S: f64 = 14_400.0;

impl Backlog {
    /// What is burnt until it is worked off by servers that can finish `capacity` requests/s.
    fn burnt(&self, capacity: f64) -> f64 {
        let spare = capacity - self.rate;
        let lasts_s = if spare > 0.0 {
            self.requests / spare
        } else {
            f64::INFINITY
        };
        self.burn * self.rate * lasts_s.min(LONGEST_BACKLOG_S)
    }
}

/// One period of a budget of money, as far as it lies within the horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoneyBudget {
    /// From when on.
    pub from_s: f64,
    /// Until when.
    pub to_s: f64,
    /// What is left of it: less what was spent, and what servers still cost in it whatever is planned, [`Unit::Fixed`] ones among them.
    pub left: f64,
}

/// A window that does not hold: capacity, power or money have run out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shortfall {
    /// Whose.
    pub pool: usize,
    /// Which of its windows.
    pub window: usize,
    /// Burn beyond what is allowed.
    pub burn: f64,
    /// What that costs by the pool's own price of a miss.
    pub cost: f64,
}

/// One window of the objectives, as far as it lies within the horizon.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Its slots.
    pub slots: Range<usize>,
    /// Burn that is left: the window's expected requests, less what has been burnt already. A request that misses an objective
    /// of percentile q burns 1 ÷ (1 − q).
    pub budget: f64,
}

/// What to do with every server.
#[derive(Clone, Debug, PartialEq)]
pub struct StrategicPlan {
    /// Per class, per unit, in the order of the problem: when it is paid for, and when it serves.
    pub courses: Vec<Vec<Vec<Leg>>>,
    /// Per class, per unit: the pool that it serves first; `None` if it serves none.
    pub serves: Vec<Vec<Option<usize>>>,
    /// Per pool, per window: what it is expected to burn, of what it may.
    pub windows: Vec<Vec<Burnt>>,
    /// Per pool, per window: the price of a burnt request that led here. The next plan begins with it.
    pub prices: Vec<Vec<f64>>,
    /// Expected cost within the horizon: leases that are not sunk, energy, switching, misses. A long lease that is planned for later counts with the
    /// chance that it will still be wanted.
    pub cost: f64,
    /// Per pool, per budget of money: what is planned to be spent of it.
    pub spending: Vec<Vec<f64>>,
    /// Per pool: what servers would have cost that its budgets do not allow.
    pub forgone: Vec<f64>,
    /// What cannot be held, the pool that is served first first.
    pub shortfalls: Vec<Shortfall>,
    /// The part of it that is spent on each pool's servers.
    pub pool_costs: Vec<f64>,
    /// No plan for this problem costs less.
    pub bound: f64,
}

/// Expected burn against its budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Burnt {
    /// Expected.
    pub expected: f64,
    /// Allowed.
    pub budget: f64,
}

impl Burnt {
    /// Whether it is within its budget, but for rounding.
    pub fn holds(&self) -> bool {
        self.expected <= self.budget + 1e-9 * (1.0 + self.budget.abs())
    }
}

/// What a better plan than one of this `cost` could save at most, as a share of it, when none costs less than `bound`.
fn gap(cost: f64, bound: f64) -> f64 {
    if cost <= 0.0 {
        0.0
    } else {
        ((cost - bound) / cost).clamp(0.0, 1.0)
    }
}

impl StrategicPlan {
    /// What a better plan could save at most, as a share of the cost.
    pub fn gap(&self) -> f64 {
        gap(self.cost, self.bound)
    }

    /// Servers of a class that are paid for at a time.
    pub fn paid(&self, class: usize, at_s: f64) -> usize {
        let paid = |legs: &&Vec<Leg>| legs.iter().any(|leg| leg.from_s <= at_s && at_s < leg.to_s);
        self.courses[class].iter().filter(paid).count()
    }

    /// Whether every window's budget holds.
    pub fn holds(&self) -> bool {
        self.windows.iter().flatten().all(Burnt::holds)
    }
}
