#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{Stage, hybrid, pool_id};
use crate::snapshot::Lease;
use crate::strategy::ahead::{Ahead, PoolAhead};

const DAY: Span = Span::from_hours(24);

fn midnight() -> Timestamp {
    Timestamp::parse("2026-03-04T00:00:00Z").unwrap()
}

/// A pool with a budget of 200 a day; servers of group m4 cost 2 an hour, at least a day.
fn stage(leases: &[(Timestamp, &str)]) -> Stage {
    let mut stage = hybrid(1, 4).pool("chat", Pool::fixture());
    let group = stage.snapshot.groups.get_mut("m4").unwrap();
    group.pricing.hourly = Money::from_micros(2_000_000);
    group.pricing.minimum_lease = DAY;
    group.power.idle_watts = 0.0;
    for &(start, name) in leases {
        let lease = Lease {
            start,
            minimum_until: start + DAY,
        };
        let server = Server {
            lease: Some(lease),
            ..Server::fixture(start)
        };
        group.servers_mut().insert(name.into(), server);
    }
    for group in stage.snapshot.groups.values_mut() {
        group.power.idle_watts = 0.0;
    }
    stage.seen_mut("chat").budget = Some(Budget {
        amount: Money::from_micros(200_000_000),
        period: Period::Day,
    });
    stage
}

fn look(stage: &mut Stage, now: Timestamp) -> f64 {
    let id = pool_id("chat");
    let spent = Accounts::of(&stage.snapshot).spent(&id, &stage.snapshot.pools[&id], now);
    stage.seen_mut("chat").memory.spent = spent;
    spent.unwrap().amount.as_f64()
}

#[test]
fn a_minimum_is_spent_when_the_lease_begins_and_hours_after_it_as_they_pass() {
    let mut stage = stage(&[
        (midnight() + Span::from_hours(3), "m4-0"),
        (midnight() - Span::from_hours(20), "m4-1"),
    ]);
    assert!(look(&mut stage, midnight() + Span::from_hours(2)).abs() < 1e-6);
    let after = look(&mut stage, midnight() + Span::from_hours(6) + SEEN_AFTER);
    assert!(
        (after - (48.0 + 4.0)).abs() < 1e-6,
        "a day, and two hours of the older one: {after}"
    );
}

#[test]
fn nothing_is_counted_twice_or_missed_however_often_anybody_looks() {
    let leases = [
        (midnight() + Span::from_hours(1), "m4-0"),
        (midnight() - Span::from_hours(23), "m4-1"),
    ];
    let end = midnight() + Span::from_hours(20);
    let once = look(&mut stage(&leases), end);
    for step in [1, 7, 60, 333] {
        let mut often = stage(&leases);
        let mut now = midnight();
        while now < end {
            look(&mut often, now);
            now = now + Span::from_minutes(step);
        }
        // As after a crash: what was written is all that is left.
        let last = look(&mut often, end + WRITE_EVERY);
        let within = 2.0 * WRITE_EVERY.as_hours_f64() + 1e-3;
        assert!(
            (last - once).abs() <= within,
            "every {step} min: {last}, at once: {once}"
        );
    }
}

#[test]
fn what_is_written_comes_to_rest_until_a_lease_begins() {
    let mut stage = stage(&[(midnight() + Span::from_hours(2), "m4-0")]);
    let now = midnight() + Span::from_hours(1);
    look(&mut stage, now);
    let id = pool_id("chat");
    let written = stage.snapshot.pools[&id].memory.spent;
    look(&mut stage, now + Span::from_minutes(4));
    assert_eq!(stage.snapshot.pools[&id].memory.spent, written);
    look(&mut stage, now + Span::from_minutes(63));
    assert_ne!(stage.snapshot.pools[&id].memory.spent, written);
}

#[test]
fn a_new_period_begins_with_nothing_but_what_runs_on() {
    let mut stage = stage(&[(midnight() + Span::from_hours(1), "m4-0")]);
    assert!((look(&mut stage, midnight() + Span::from_hours(12)) - 48.0).abs() < 1e-6);
    let next = look(&mut stage, midnight() + DAY + Span::from_hours(3) + SEEN_AFTER);
    assert!((next - 4.0).abs() < 1e-6, "{next}");
    let thursday = midnight() + Span::from_hours(30);
    for (period, start) in [
        (Period::Day, "2026-03-05T00:00:00Z"),
        (Period::Week, "2026-03-02T00:00:00Z"),
        (Period::Month, "2026-03-01T00:00:00Z"),
    ] {
        assert_eq!(period_start(period, thursday), Timestamp::parse(start).unwrap());
    }
}

#[test]
fn a_purchase_that_the_budget_does_not_cover_is_refused_and_leases_just_begun_count() {
    let now = midnight() + Span::from_hours(5);
    let stage = stage(&[(now - Span::from_secs(30), "m4-0"), (now - Span::from_hours(2), "m4-1")]);
    let id = pool_id("chat");
    let mut purse = Accounts::of(&stage.snapshot)
        .purse(&id, &stage.snapshot.pools[&id], now)
        .unwrap();
    let group = &stage.snapshot.groups["m4"];
    assert!(purse.buy(group).is_ok() && purse.buy(group).is_ok(), "4 x 48 of 200");
    assert_eq!(purse.buy(group).unwrap_err().reason, Reason::BudgetSpent);
    assert!(
        purse.buy(&stage.snapshot.groups["ultra"]).is_ok(),
        "what is free may be had"
    );
}

#[test]
fn a_server_that_serves_nobody_yet_is_paid_for_by_those_it_was_bought_for() {
    let now = midnight() + Span::from_hours(2);
    let spent_of = |stage: &Stage, name: &str| {
        let id = pool_id(name);
        let spent = Accounts::of(&stage.snapshot)
            .spent(&id, &stage.snapshot.pools[&id], now)
            .unwrap();
        spent.amount.as_f64().round()
    };
    let both = |stage: &Stage| (spent_of(stage, "chat"), spent_of(stage, "code"));
    let mut stage = stage(&[(midnight() + Span::from_hours(1), "m4-0")]);
    let budget = stage.seen("chat").budget;
    stage = stage.pool("code", Pool::fixture());
    stage.seen_mut("code").budget = budget;
    assert_eq!(both(&stage), (24.0, 24.0), "nobody has planned for it");
    let planned = |chat: u32, code: u32| {
        let pools = [("chat", chat), ("code", code)].map(|(name, count)| {
            let planned = PoolAhead {
                replicas: [("m4".into(), count)].into(),
                ..PoolAhead::default()
            };
            (pool_id(name), planned)
        });
        let ahead = Ahead {
            pools: pools.into(),
            ..Ahead::default()
        };
        Some(ahead.into())
    };
    stage.snapshot.ahead = planned(0, 2);
    assert_eq!(both(&stage), (0.0, 48.0));
    stage.snapshot.ahead = planned(3, 1);
    assert_eq!(both(&stage), (36.0, 12.0));
    // Whoever uses it pays for it, whatever was planned.
    let stage = stage.serving("chat", "m4", "m4-0");
    assert_eq!(both(&stage), (48.0, 0.0));
}
