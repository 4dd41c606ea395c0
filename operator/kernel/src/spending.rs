//! What a pool spends of its budget. Pure.
//!
//! Spent is what its servers have cost, hour by hour, since the period began: leases and energy of the servers that it runs on, and leases of
//! those that nobody runs on and that it may use. Committed is what is still owed of the minimum of those leases, whatever happens. Both
//! together never exceed the budget by a purchase: see [`Spending::left`].
//!
//! # Caveats
//! A server that nobody runs on yet counts for every pool that may use it, which errs on the safe side. What ran before the first count is not
//! known.

use std::collections::BTreeSet;

use chrono::{Datelike, Days, NaiveDate, NaiveTime};

use crate::lifecycle::{ReplicaState, ServerState};
use crate::names::{GroupName, PoolId, ServerName, SiteName};
use crate::snapshot::{Budget, Group, Period, Pool, Server, Site, Snapshot, Spent};
use crate::time::{Span, Timestamp};
use crate::units::Money;

/// The count that is remembered is renewed so often: statuses must come to rest.
const RENEWED: Span = Span::from_minutes(15);

/// A server without a minimum lease is not bought for less than this.
pub(crate) const LEAST_TERM: Span = Span::from_hours(1);

/// Where a pool's budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spending {
    /// What was spent in the current period, up to now.
    pub spent: Spent,
    /// What is owed besides.
    pub committed: Money,
    /// The budget.
    pub budget: Budget,
}

impl Spending {
    /// Counts up to `now` what `pool` has spent since it was last counted. `None` without a budget. `usable` are groups that it may use.
    pub fn of(
        snapshot: &Snapshot,
        id: &PoolId,
        pool: &Pool,
        usable: impl Fn(&GroupName) -> bool,
        now: Timestamp,
    ) -> Option<Self> {
        let budget = pool.budget?;
        let period = start_of(budget.period, now);
        let before = pool
            .memory
            .spent
            .filter(|spent| spent.period == period && spent.until <= now);
        // What was counted in an earlier period is over; the time since then is not.
        let until = pool.memory.spent.map_or(now, |spent| spent.until.min(now)).max(period);
        let mut seen = BTreeSet::new();
        let (mut amount, mut committed) = (before.map_or(Money::ZERO, |spent| spent.amount), Money::ZERO);
        for replica in pool.running.values() {
            let place = (&replica.site, &replica.server);
            let found = snapshot
                .groups
                .get(&replica.group)
                .zip(snapshot.sites.get(&replica.site));
            let Some((group, site)) = found.filter(|_| replica.state != ReplicaState::Ended && seen.insert(place))
            else {
                continue;
            };
            let server = group.inventory.servers().get(&replica.server);
            let since = until.max(replica.created);
            amount = amount + hourly(group, site).for_span(now.since(since));
            committed = committed + server.map_or(Money::ZERO, |server| owed(group, server, now));
        }
        let occupied = occupied(snapshot, id);
        for (_, group) in snapshot.groups.iter().filter(|(name, _)| usable(name)) {
            for (name, server) in group.inventory.servers() {
                let place = (&group.site, name);
                if seen.contains(&place) || occupied.contains(&place) {
                    continue;
                }
                if let Some(lease) = server.lease {
                    let since = until.max(lease.start);
                    amount = amount + group.pricing.hourly.for_span(now.since(since));
                }
                committed = committed + owed(group, server, now);
            }
        }
        Some(Self {
            spent: Spent {
                period,
                amount,
                until: now,
            },
            committed,
            budget,
        })
    }

    /// What may still be spent in the period. Below zero if more was spent than allowed.
    pub fn left(&self) -> Money {
        self.budget.amount - self.spent.amount - self.committed
    }

    /// What is written down for the next pass, where `old` is: rarely a new count.
    pub fn remembered(&self, old: Option<Spent>) -> Spent {
        let recent = |old: &Spent| old.period == self.spent.period && self.spent.until.since(old.until) < RENEWED;
        let same = |old: &Spent| old.period == self.spent.period && old.amount == self.spent.amount;
        old.filter(|old| recent(old) || same(old)).unwrap_or(self.spent)
    }

    /// When the period is over.
    pub fn ends(&self) -> Timestamp {
        let start = self.spent.period;
        let longest = start + Span::from_hours(24 * 32);
        match self.budget.period {
            Period::Day => start + Span::from_hours(24),
            Period::Week => start + Span::from_hours(7 * 24),
            Period::Month => start_of(Period::Month, longest),
        }
    }
}

/// What a server costs per hour while the pool runs on it: lease and energy.
fn hourly(group: &Group, site: &Site) -> Money {
    group.pricing.hourly + site.energy.hourly(group.power.busy_watts)
}

/// What is still owed of a server's minimum lease.
fn owed(group: &Group, server: &Server, now: Timestamp) -> Money {
    match server.lease {
        Some(lease) => group
            .pricing
            .hourly
            .for_span(lease.minimum_until.since(now.max(lease.start))),
        // Asked for: its lease begins when the lessor says so.
        None if server.state.is_coming() || server.state == ServerState::Requested => {
            group.pricing.hourly.for_span(group.pricing.minimum_lease)
        }
        None => Money::ZERO,
    }
}

/// Servers that other pools run on.
fn occupied<'a>(snapshot: &'a Snapshot, id: &PoolId) -> BTreeSet<(&'a SiteName, &'a ServerName)> {
    let others = snapshot.pools.iter().filter(|(other, _)| *other != id);
    others
        .flat_map(|(_, pool)| pool.running.values())
        .map(|replica| (&replica.site, &replica.server))
        .collect()
}

/// When the period that contains `now` began, in UTC.
fn start_of(period: Period, now: Timestamp) -> Timestamp {
    let today = now.to_utc().date_naive();
    let first = match period {
        Period::Day => Some(today),
        Period::Week => today.checked_sub_days(Days::new(today.weekday().num_days_from_monday().into())),
        Period::Month => NaiveDate::from_ymd_opt(today.year(), today.month(), 1),
    };
    let midnight = first.unwrap_or(today).and_time(NaiveTime::MIN).and_utc();
    Timestamp::from_millis(midnight.timestamp_millis())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn periods_begin_at_midnight_on_mondays_and_on_the_first_in_utc() {
        for (period, now, start) in [
            (Period::Day, "2026-11-21T23:59:59Z", "2026-11-21T00:00:00Z"),
            (Period::Week, "2026-11-22T12:00:00Z", "2026-11-16T00:00:00Z"),
            (Period::Week, "2026-11-16T00:00:00Z", "2026-11-16T00:00:00Z"),
            (Period::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z"),
        ] {
            assert_eq!(start_of(period, at(now)), at(start), "{period:?} {now}");
        }
    }
}
