//! What a pool has spent in the period of its budget, and what it may still buy.
//!
//! Counted from what is there: when leases began and which servers serve whom. Nothing is counted twice, because every span of time is counted
//! once, up to `Spent::until`, which is written with the amount; and nothing is missed while nobody looks, because a lease says when it
//! began.
//!
//! | what | when it is spent |
//! |---|---|
//! | the minimum of a lease | all of it when the lease begins |
//! | a lease after its minimum | as time passes |
//! | electricity | as time passes, for idling: what work needs more is not measured |
//!
//! A server is paid for by the pool whose replica is on it, by several in equal parts. One that serves nobody yet is paid for by those that the
//! strategic plan has more servers of its group for than they use, each by how many; without such, by all that select its group.

mod accounts;

pub use self::accounts::Accounts;
use crate::names::{GroupName, PoolId, ServerName};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Budget, Group, Period, Pool, Server, Spent};
use crate::time::{Span, Timestamp};
use crate::units::Money;

/// An amount is written so often, and when a lease has begun: a status must come to rest.
const WRITE_EVERY: Span = Span::from_minutes(5);

/// A lease is seen so long after it began, at the latest. What is younger is not written down yet, so that none slips through.
const SEEN_AFTER: Span = Span::from_minutes(2);

/// When the period of a budget that contains `now` began, in UTC.
pub fn period_start(period: Period, now: Timestamp) -> Timestamp {
    use chrono::{Datelike, NaiveTime};
    let date = now.to_utc().date_naive();
    let first = match period {
        Period::Day => Some(date),
        Period::Week => date.checked_sub_days(chrono::Days::new(u64::from(date.weekday().num_days_from_monday()))),
        Period::Month => date.with_day(1),
    };
    let start = first.unwrap_or(date).and_time(NaiveTime::MIN).and_utc();
    Timestamp::from_millis(start.timestamp_millis())
}

/// When the period of a budget that began at `start` ends: the next one begins.
fn period_end(period: Period, start: Timestamp) -> Timestamp {
    match period {
        Period::Day => start + Span::from_hours(24),
        Period::Week => start + Span::from_hours(7 * 24),
        // No month is longer than 31 days, and none is shorter than 28.
        Period::Month => period_start(period, start + Span::from_hours(31 * 24 + 12)),
    }
}

/// What a pool may still spend in one period of its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// How much; less than nothing if it is overspent.
    pub left: Money,
}

impl Accounts<'_> {
    /// What a pool may still spend in each period of its budget that begins before `end`: less what it has spent and asked for, and what servers
    /// will cost to the end of the period that stay whatever is decided. None without a budget.
    pub fn allowances(
        &self,
        id: &PoolId,
        pool: &Pool,
        now: Timestamp,
        end: Timestamp,
        stays: &dyn Fn(&GroupName, &ServerName) -> bool,
    ) -> Vec<Allowance> {
        let (Some(budget), Some(mut gone)) = (pool.budget, self.committed(id, pool, now)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut from = now;
        while from < end {
            let to = period_end(budget.period, period_start(budget.period, from));
            let certain = self
                .shares(id)
                .filter(|share| stays(share.group_name, share.server_name));
            let certain: Money = certain.map(|share| share.of(self.cost(&share, from, to))).sum();
            let left = budget.amount - gone - certain;
            found.push(Allowance { from, to, left });
            gone = Money::ZERO;
            from = to;
        }
        found
    }

    /// What to write down of a pool's spending; `None` without a budget. What is written already, unless that is old or a lease has begun.
    pub fn spent(&self, id: &PoolId, pool: &Pool, now: Timestamp) -> Option<Spent> {
        let before = so_far(pool, now)?;
        let to = Timestamp::from_millis(now.as_millis() - i64::try_from(SEEN_AFTER.as_millis()).unwrap_or(0));
        if to <= before.until {
            return Some(before);
        }
        let bought = self.began(before.until, to);
        let known = pool.memory.spent.is_some_and(|old| old.period == before.period);
        if known && !bought && to.since(before.until) < WRITE_EVERY {
            return Some(before);
        }
        Some(Spent {
            amount: before.amount + self.accrued(id, before.until, to),
            until: to,
            ..before
        })
    }

    /// What a pool has spent and cannot avoid any more: with leases that have just begun, and servers that were asked for. `None` without a
    /// budget.
    pub fn committed(&self, id: &PoolId, pool: &Pool, now: Timestamp) -> Option<Money> {
        let before = so_far(pool, now)?;
        Some(before.amount + self.accrued(id, before.until, now) + self.asked(id))
    }

    /// The purse of a pool; `None` without a budget.
    pub fn purse(&self, id: &PoolId, pool: &Pool, now: Timestamp) -> Option<Purse> {
        let gone = self.committed(id, pool, now)?;
        let budget = pool.budget?;
        Some(Purse { budget, gone })
    }
}

/// What a pool may still spend in one pass.
#[derive(Clone, Copy, Debug)]
pub struct Purse {
    budget: Budget,
    gone: Money,
}

impl Purse {
    /// Takes out what a server of `group` costs at least, or says why there is not enough. What costs nothing may always be had.
    pub fn buy(&mut self, group: &Group) -> Result<(), Problem> {
        let price = price(group);
        if price <= Money::ZERO || self.gone + price <= self.budget.amount {
            self.gone = self.gone + price;
            return Ok(());
        }
        let period = match self.budget.period {
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
        };
        let message = format!(
            "a server costs at least {price}; {} of {} for this {period} are spent",
            self.gone, self.budget.amount
        );
        Err(Problem::new(Reason::BudgetSpent, message))
    }
}

/// What a server costs at least.
fn price(group: &Group) -> Money {
    group.pricing.hourly.for_span(group.pricing.minimum_lease)
}

fn so_far(pool: &Pool, now: Timestamp) -> Option<Spent> {
    let period = period_start(pool.budget?.period, now);
    let fresh = Spent {
        period,
        amount: Money::ZERO,
        until: period,
    };
    Some(
        pool.memory
            .spent
            .filter(|spent| spent.period == period)
            .unwrap_or(fresh),
    )
}

fn is_asked_for(server: &Server) -> bool {
    use crate::lifecycle::ServerState;
    matches!(
        server.state,
        ServerState::Requested | ServerState::Provisioning | ServerState::Booting
    )
}

#[cfg(test)]
mod tests;
