#![allow(clippy::unwrap_used)]

use super::*;
use crate::capacity::curve;
use crate::fixture::{START, Stage, group, hybrid, pool_id};
use crate::forecast::Counts;
use crate::lifecycle::{NodeHealth, ServerState};
use crate::snapshot::Pool;
use crate::snapshot::{Group, Lease, Ownership, PlacementOrder, Server, Site, Trust};
use crate::strategy::due::due;
use crate::strategy::past::Past;

/// An evening's plan for ten days of the same: own servers are too few from 12 to 20 hours UTC.
fn peak(at: Timestamp) -> f64 {
    let hour = at.as_millis().div_euclid(3_600_000).rem_euclid(24);
    if (12..20).contains(&hour) { 2.2 } else { 0.8 }
}

/// `stage` with a pool that has lived through five days of `rate`, and measures it now.
fn living(mut stage: Stage, name: &str, rate: fn(Timestamp) -> f64) -> Stage {
    let now = stage.now;
    let mut past = Past::default();
    let mut at = now - Span::from_hours(120);
    while at < now {
        let next = at + Span::from_minutes(5);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let requests = (rate(at) * 300.0) as u64;
        let counts = Counts {
            requests,
            prompt_tokens: requests * 1_100,
            output_tokens: requests * 210,
        };
        past.arrived(at, next, counts, &[]);
        at = next;
    }
    stage.seen_mut(name).past = past.into();
    stage.demand(name, rate(now));
    stage
}

/// Three own servers that serve, twelve to lease, and a daily peak; at `hour` of the day.
fn at_hour(hour: u64) -> Stage {
    let mut stage = hybrid(3, 12).pool("chat", Pool::fixture());
    stage.now = START - Span::from_hours(9) + Span::from_hours(hour);
    for server in ["ultra-0", "ultra-1", "ultra-2"] {
        stage = stage.serving("chat", "ultra", server);
    }
    living(stage, "chat", peak)
}

fn ahead(stage: &Stage) -> Ahead {
    let mut memo = Memo::new(curve::Effort::QUICK, 64);
    look_ahead(&stage.snapshot, stage.now, &mut memo, Effort::REPLAN)
}

fn lease(stage: &mut Stage, server: &str, ends_in: Span) {
    let (now, servers) = (stage.now, stage.snapshot.groups.get_mut("m4").unwrap().servers_mut());
    let lease = Lease {
        start: now + ends_in - Span::from_hours(24),
        minimum_until: now + ends_in,
    };
    let leased = Server {
        lease: Some(lease),
        ..Server::fixture(lease.start)
    };
    servers.insert(server.into(), leased);
}

#[test]
fn servers_are_leased_ahead_of_a_peak_and_named_by_group_and_pool() {
    let early = ahead(&at_hour(4));
    let m4 = &early.groups["m4"];
    assert_eq!((m4.servers, m4.buyers.len()), (0, 0), "{:?}", early.groups);
    let (first, _) = m4.later[0];
    assert!(first < START + Span::from_hours(3) && first > START, "{first}");
    let late = ahead(&{
        let mut stage = at_hour(11);
        stage.now = stage.now + Span::from_minutes(58);
        stage.demand("chat", 0.8);
        stage
    });
    let (m4, pool) = (&late.groups["m4"], &late.pools[&pool_id("chat")]);
    assert!(m4.servers > 0, "{:?}", late.groups);
    assert_eq!(m4.buyers[&pool_id("chat")], m4.servers);
    assert_eq!(pool.replicas[&group("m4")], m4.servers);
    assert_eq!(pool.replicas[&group("ultra")], 3);
    assert!(pool.capacity[&group("ultra")] > pool.capacity[&group("m4")]);
    assert!(late.bound <= late.cost + 1e-9 && pool.cost > 0.0);
    assert!(late.holds(late.made_at + Span::from_minutes(19)) && !late.holds(late.made_at + STALE));
}

#[test]
fn a_pool_whose_demand_is_not_known_is_left_out_with_its_servers() {
    let two = || {
        let stage = hybrid(6, 12)
            .pool("chat", Pool::fixture())
            .pool("other", Pool::fixture());
        let stage = stage
            .serving("other", "ultra", "ultra-0")
            .serving("other", "ultra", "ultra-1");
        living(stage, "chat", |_| 1.0)
    };
    let stage = two();
    let plan = ahead(&stage);
    assert!(!plan.pools.contains_key(&pool_id("other")));
    assert_eq!(plan.groups["ultra"].servers, 4, "{:?}", plan.groups);
    for (paused, deleting) in [(true, false), (false, true)] {
        let mut stage = two();
        let pool = stage.seen_mut("chat");
        (pool.paused, pool.deleting) = (paused, deleting);
        assert!(ahead(&stage).pools.is_empty());
    }
}

#[test]
fn nothing_is_bought_where_nothing_may_be_touched_and_what_is_there_counts_no_longer_than_it_is_counted_on() {
    type Break = fn(&mut Stage);
    let cases: [(&str, Break, bool); 7] = [
        ("lost", |stage| stage.lose("lease"), true),
        (
            "paused",
            |stage| stage.snapshot.groups.get_mut("m4").unwrap().paused = true,
            true,
        ),
        (
            "deleting",
            |stage| stage.snapshot.groups.get_mut("m4").unwrap().deleting = true,
            false,
        ),
        (
            "cordoned",
            |stage| stage.snapshot.sites.get_mut("lease").unwrap().maintenance = crate::snapshot::Maintenance::Cordoned,
            false,
        ),
        (
            "draining",
            |stage| stage.snapshot.sites.get_mut("lease").unwrap().maintenance = crate::snapshot::Maintenance::Draining,
            false,
        ),
        (
            "unlisted",
            |stage| {
                let group = stage.snapshot.groups.get_mut("m4").unwrap();
                group.inventory = crate::snapshot::Inventory::Unknown {
                    last: group.inventory.servers().clone(),
                    since: stage.now,
                };
            },
            true,
        ),
        (
            "node cordoned",
            |stage| {
                let servers = stage.snapshot.groups.get_mut("m4").unwrap().servers_mut();
                servers.get_mut("m4-0").unwrap().cordoned = true;
            },
            false,
        ),
    ];
    for (name, harm, counts) in cases {
        let mut stage = at_hour(11);
        lease(&mut stage, "m4-0", Span::from_hours(10));
        let now = stage.now;
        let server = stage.snapshot.groups.get_mut("m4").unwrap().servers_mut();
        server.get_mut("m4-0").unwrap().since = now;
        harm(&mut stage);
        let plan = ahead(&stage);
        let m4 = &plan.groups["m4"];
        assert_eq!(
            m4.servers - m4.buyers.values().sum::<u32>(),
            u32::from(counts),
            "{name}: {:?}",
            plan.groups
        );
        if name != "node cordoned" {
            assert!(m4.buyers.is_empty() && m4.later.is_empty(), "{name}");
        }
    }
}

#[test]
fn a_leasedis_wanted_until_its_last_useful_moment_to_the_second() {
    let mut stage = living(at_hour(21), "chat", |_| 0.5);
    let ends_in = Span::from_minutes(127);
    lease(&mut stage, "m4-0", ends_in);
    lease(&mut stage, "m4-1", Span::from_hours(18));
    let plan = ahead(&stage);
    let m4 = &plan.groups["m4"];
    assert_eq!(m4.until.get("m4-0"), Some(&(stage.now + ends_in)), "{m4:#?}");
    assert_eq!(m4.servers, 2, "what is paid serves");
    assert_eq!(plan.pools[&pool_id("chat")].replicas[&group("m4")], 2);
    // One that is billed by the second, in the night: at once.
    lease(&mut stage, "m4-0", Span::ZERO);
    let m4 = &ahead(&stage).groups["m4"];
    assert_eq!((m4.until.get("m4-0"), m4.servers), (Some(&stage.now), 1));
    // Held by people: it stays.
    let servers = stage.snapshot.groups.get_mut("m4").unwrap().servers_mut();
    servers.get_mut("m4-0").unwrap().held = true;
    let stage = stage.serving("chat", "m4", "m4-0");
    assert_eq!(ahead(&stage).groups["m4"].until.get("m4-0"), None);
}

#[test]
fn a_group_that_refused_is_asked_again_later_and_others_stand_in() {
    let mut other = Group::hosted("lease", 12);
    other.pricing.hourly = Money::from_micros(2_500_000);
    let mut stage = at_hour(11).group("m4-dear", other);
    stage.now = stage.now + Span::from_minutes(43);
    stage.demand("chat", 0.8);
    assert!(ahead(&stage).groups["m4-dear"].buyers.is_empty());
    for harm in [
        (|stage: &mut Stage| {
            let now = stage.now;
            stage.snapshot.groups.get_mut("m4").unwrap().out_of_stock_since = Some(now);
        }) as fn(&mut Stage),
        |stage| {
            let late = Server {
                state: ServerState::Failed,
                node: NodeHealth::Absent,
                ..Server::fixture(stage.now)
            };
            let servers = stage.snapshot.groups.get_mut("m4").unwrap().servers_mut();
            servers.insert("m4-0".into(), late);
        },
    ] {
        let mut stage = stage.clone();
        harm(&mut stage);
        let plan = ahead(&stage);
        assert!(plan.groups["m4"].buyers.is_empty(), "{:?}", plan.groups);
        let dear = &plan.groups["m4-dear"];
        let soon = |(at, _): &(Timestamp, u32)| at.since(stage.now) <= Span::from_minutes(10);
        assert!(
            !dear.buyers.is_empty() || dear.later.iter().any(soon),
            "{:?}",
            plan.groups
        );
    }
}

#[test]
fn owned_servers_come_first_where_a_pool_asks_for_it_and_the_cheapest_otherwise() {
    let cheap = Group {
        machine: crate::fixture::machine("M2 Ultra", 76, 192),
        pricing: crate::snapshot::Pricing {
            hourly: Money::from_micros(100_000),
            minimum_lease: Span::from_hours(1),
        },
        ..Group::hosted("lease", 8)
    };
    let mut dear = cheap.clone();
    dear.site = "partner".into();
    dear.pricing.hourly = Money::from_micros(101_000);
    let asked = |order| {
        let mut pool = Pool::fixture();
        pool.placement.order = order;
        let stage = hybrid(1, 0)
            .site("partner", Site::fixture(Ownership::Managed))
            .group("cheap", cheap.clone())
            .group("dear", dear.clone())
            .pool("chat", pool);
        let plan = ahead(&living(stage, "chat", |_| 0.9));
        (
            !plan.groups["dear"].buyers.is_empty(),
            !plan.groups["cheap"].buyers.is_empty(),
        )
    };
    assert_eq!(asked(PlacementOrder::Cheapest), (false, true));
    assert_eq!(asked(PlacementOrder::OwnedFirst), (true, false));
}

#[test]
fn a_leasedwithout_evidence_counts_for_none_but_those_who_ask_for_none() {
    let mut strict = Pool::fixture();
    strict.placement.minimum_trust = Trust::Attested;
    let stage = hybrid(2, 0).pool("strict", strict).pool("lax", Pool::fixture());
    let mut stage = living(living(stage, "strict", |_| 0.3), "lax", |_| 0.3);
    let servers = stage.snapshot.groups.get_mut("ultra").unwrap().servers_mut();
    servers.get_mut("ultra-0").unwrap().proven = Trust::None;
    let plan = ahead(&stage);
    assert_eq!(plan.groups["ultra"].servers, 2);
    assert_eq!(
        plan.pools[&pool_id("strict")].replicas[&group("ultra")],
        1,
        "{:?}",
        plan.groups
    );
    assert_eq!(plan.pools[&pool_id("lax")].replicas[&group("ultra")], 1);
}

#[test]
fn the_same_snapshot_gives_the_same_plan_whatever_is_remembered_and_a_useless_group_changes_nothing() {
    let mut stage = at_hour(11);
    let mut memo = Memo::new(curve::Effort::QUICK, 64);
    let cold = look_ahead(&stage.snapshot, stage.now, &mut memo, Effort::REPLAN);
    let mut other = stage.clone();
    other.seen_mut("chat").objectives[0].threshold = Span::from_secs(20);
    look_ahead(&other.snapshot, stage.now, &mut memo, Effort::REPLAN);
    let simulated = memo.curves.simulations();
    assert!(look_ahead(&stage.snapshot, stage.now, &mut memo, Effort::REPLAN) == cold);
    assert_eq!(memo.curves.simulations(), simulated, "nothing is measured twice");
    // Lengths that hardly move are the same lengths.
    stage.seen_mut("chat").memory.lengths = Some(crate::snapshot::LengthMix::assumed().clone());
    if let crate::snapshot::Demand::Known(arrivals) = &mut stage.seen_mut("chat").demand {
        for class in &mut arrivals.lengths.as_mut().unwrap().classes {
            class.1 += class.1 / 20;
        }
    }
    assert!(look_ahead(&stage.snapshot, stage.now, &mut memo, Effort::REPLAN) == cold);
    let mut useless = Group::hosted("lease", 12);
    useless.machine = crate::fixture::machine("M1", 8, 8);
    let stage = stage.group("a-useless", useless);
    assert!(ahead(&stage) == cold);
}

#[test]
fn a_plan_is_due_after_some_minutes_or_when_the_world_is_not_what_it_was_made_for() {
    let mut stage = at_hour(4);
    lease(&mut stage, "m4-0", Span::from_hours(18));
    assert!(due(&stage.snapshot, stage.now, None, false).is_some());
    stage.snapshot.ahead = Some(std::sync::Arc::new(ahead(&stage)));
    let made = stage.now;
    let due_after = |stage: &Stage, minutes| {
        let mut stage = stage.clone();
        stage.pass_time(Span::from_minutes(minutes));
        due(&stage.snapshot, stage.now, None, false).is_some()
    };
    assert_eq!(
        [1, 4, 5].map(|minutes| due_after(&stage, minutes)),
        [false, false, true]
    );
    let mut surge = stage.clone();
    surge.demand("chat", 4.0);
    assert!(
        due(&surge.snapshot, made, Some(made), false).is_none(),
        "not twice within a minute"
    );
    assert!(due_after(&surge, 1));
    let mut dead = stage.clone();
    let server = dead.snapshot.groups.get_mut("m4").unwrap().servers_mut();
    let server = server.get_mut("m4-0").unwrap();
    (server.state, server.since) = (ServerState::Suspect, made + Span::from_secs(30));
    assert!(due_after(&dead, 1));
}

#[test]
fn a_plan_that_knows_only_means_pays_less() {
    let by = |means: bool| {
        let stage = at_hour(4);
        let mut memo = Memo::new(curve::Effort::QUICK, 64);
        let method = Method {
            means,
            ..Method::default()
        };
        let ahead = look_ahead_by(method, &stage.snapshot, stage.now, &mut memo, Effort::REPLAN);
        ahead.cost
    };
    let (means, whole) = (by(true), by(false));
    assert!(
        means < whole,
        "{means} by means, {whole} by how latencies are distributed"
    );
    assert!(means > 0.0, "what arrives has to be finished all the same");
}
