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

use crate::names::{GroupName, PoolId, ServerName};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Budget, Group, Period, Pool, Server, Snapshot, Spent};
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

/// What a pool may still spend in each period of its budget that begins before `end`: less what it has spent and asked for, and what servers will
/// cost to the end of the period that stay whatever is decided. None without a budget.
pub fn allowances(
    snapshot: &Snapshot,
    id: &PoolId,
    pool: &Pool,
    now: Timestamp,
    end: Timestamp,
    stays: &dyn Fn(&GroupName, &ServerName) -> bool,
) -> Vec<Allowance> {
    let (Some(budget), Some(mut gone)) = (pool.budget, committed(snapshot, id, pool, now)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut from = now;
    while from < end {
        let to = period_end(budget.period, period_start(budget.period, from));
        let certain: Money = servers(snapshot)
            .filter(|(group, _, server, _)| stays(group, server))
            .map(|(name, group, server_name, server)| {
                let amount = of_server(snapshot, group, server, from, to);
                part(snapshot, id, name, server_name, amount)
            })
            .sum();
        let left = budget.amount - gone - certain;
        found.push(Allowance { from, to, left });
        gone = Money::ZERO;
        from = to;
    }
    found
}

/// What to write down of a pool's spending; `None` without a budget. What is written already, unless that is old or a lease has begun.
pub fn spent(snapshot: &Snapshot, id: &PoolId, pool: &Pool, now: Timestamp) -> Option<Spent> {
    let before = so_far(pool, now)?;
    let to = Timestamp::from_millis(now.as_millis() - i64::try_from(SEEN_AFTER.as_millis()).unwrap_or(0));
    if to <= before.until {
        return Some(before);
    }
    let bought = servers(snapshot).any(|(_, _, _, server)| {
        server
            .lease
            .is_some_and(|lease| lease.start > before.until && lease.start <= to)
    });
    let known = pool.memory.spent.is_some_and(|old| old.period == before.period);
    if known && !bought && to.since(before.until) < WRITE_EVERY {
        return Some(before);
    }
    Some(Spent {
        amount: before.amount + accrued(snapshot, id, before.until, to),
        until: to,
        ..before
    })
}

/// What a pool has spent and cannot avoid any more: with leases that have just begun, and servers that were asked for. `None` without a budget.
pub fn committed(snapshot: &Snapshot, id: &PoolId, pool: &Pool, now: Timestamp) -> Option<Money> {
    let before = so_far(pool, now)?;
    let asked = servers(snapshot).filter(|(_, _, _, server)| server.lease.is_none() && is_asked_for(server));
    let asked = asked.map(|(name, group, server_name, _)| {
        part(
            snapshot,
            id,
            name,
            server_name,
            Money::from_micros(price(group).as_micros()),
        )
    });
    Some(before.amount + accrued(snapshot, id, before.until, now) + asked.sum())
}

/// What a pool may still spend in one pass.
#[derive(Clone, Copy, Debug)]
pub struct Purse {
    budget: Budget,
    gone: Money,
}

impl Purse {
    /// The purse of a pool; `None` without a budget.
    pub fn of(snapshot: &Snapshot, id: &PoolId, pool: &Pool, now: Timestamp) -> Option<Self> {
        let gone = committed(snapshot, id, pool, now)?;
        let budget = pool.budget?;
        Some(Self { budget, gone })
    }

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

fn servers(snapshot: &Snapshot) -> impl Iterator<Item = (&GroupName, &Group, &ServerName, &Server)> {
    snapshot.groups.iter().flat_map(|(name, group)| {
        let servers = group.inventory.servers().iter();
        servers.map(move |(server, of)| (name, group, server, of))
    })
}

/// What a pool spends in `(from, to]`.
fn accrued(snapshot: &Snapshot, id: &PoolId, from: Timestamp, to: Timestamp) -> Money {
    servers(snapshot)
        .map(|(name, group, server_name, server)| {
            let amount = of_server(snapshot, group, server, from, to);
            part(snapshot, id, name, server_name, amount)
        })
        .sum()
}

/// What a server costs in `(from, to]`.
fn of_server(snapshot: &Snapshot, group: &Group, server: &Server, from: Timestamp, to: Timestamp) -> Money {
    let mut amount = Money::ZERO;
    if let Some(lease) = server.lease {
        if lease.start > from && lease.start <= to {
            amount = amount + group.pricing.hourly.for_span(lease.minimum_until.since(lease.start));
        }
        amount = amount + group.pricing.hourly.for_span(to.since(lease.minimum_until.max(from)));
    }
    if group.provider.always_on || is_asked_for(server) {
        return amount;
    }
    let began = server.lease.map_or(server.since, |lease| lease.start);
    let on = to.since(from.max(began)).as_hours_f64();
    let energy = snapshot.sites.get(&group.site).map_or(0.0, |site| {
        group.power.idle_watts / 1_000.0 * site.energy.price_per_kwh.as_f64() * site.energy.pue * on
    });
    amount + Money::from_f64(energy)
}

/// The part of what a server costs that a pool pays.
fn part(snapshot: &Snapshot, id: &PoolId, group: &GroupName, server: &ServerName, amount: Money) -> Money {
    let payers = payers(snapshot, group, server);
    let all: i64 = payers.iter().map(|(_, share)| i64::from(*share)).sum();
    let own = payers.iter().find(|(payer, _)| *payer == id);
    own.map_or(Money::ZERO, |(_, share)| {
        let micros = i128::from(amount.as_micros()) * i128::from(*share) / i128::from(all.max(1));
        Money::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    })
}

/// Who pays for a server, and how many shares each has.
fn payers<'a>(snapshot: &'a Snapshot, group: &GroupName, server: &ServerName) -> Vec<(&'a PoolId, u32)> {
    let there = |pool: &Pool| pool.running.values().filter(|replica| replica.group == *group).count();
    let on = |pool: &Pool| {
        let mut running = pool.running.values();
        running.any(|replica| replica.group == *group && replica.server == *server)
    };
    let waits_for = |id: &PoolId, pool: &Pool| {
        let planned = snapshot.ahead.as_ref()?.pools.get(id)?.replicas.get(group)?;
        Some(planned.saturating_sub(u32::try_from(there(pool)).unwrap_or(u32::MAX)))
    };
    let selects = |pool: &Pool| {
        let labels = &pool.placement.group_labels;
        snapshot.groups.get(group).is_some_and(|spec| {
            pool.namespace_at.contains(&spec.site)
                && labels.iter().all(|(key, value)| spec.labels.get(key) == Some(value))
        })
    };
    let by = |share: &dyn Fn(&PoolId, &Pool) -> u32| -> Vec<(&'a PoolId, u32)> {
        let shares = snapshot.pools.iter().map(|(id, pool)| (id, share(id, pool)));
        shares.filter(|(_, share)| *share > 0).collect()
    };
    let users = by(&|_, pool| u32::from(on(pool)));
    if !users.is_empty() {
        return users;
    }
    let waiting = by(&|id, pool| waits_for(id, pool).unwrap_or(0));
    if !waiting.is_empty() {
        return waiting;
    }
    by(&|_, pool| u32::from(selects(pool)))
}

#[cfg(test)]
mod tests;
