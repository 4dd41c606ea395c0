//! What no plan exceeds, and who is served when that is not enough: both passes joined.

use super::foresight::{at, is_ask, peak, times};
use super::*;
use crate::fixture::{START, pool_id};
use crate::plan::Truth;
use crate::snapshot::{Budget, Period, Survive};
use crate::strategy::ahead::PoolAhead;
use crate::units::Money;

/// A day of an M4 Pro.
const LEASE: f64 = 47.28;

/// The evening's peak from 12 to 20 hours, with so much to spend a day.
fn with_a_day_of(amount: f64) -> Stage {
    let mut stage = at(9, peak);
    let pool = stage.seen_mut("chat");
    pool.miss_penalty = Money::from_micros(2_000);
    pool.budget = Some(Budget {
        amount: Money::from_f64(amount),
        period: Period::Day,
    });
    stage
}

fn planned(stage: &Stage, pool: &str) -> PoolAhead {
    stage.snapshot.ahead.as_ref().unwrap().pools[&pool_id(pool)].clone()
}

#[test]
fn a_budget_that_forbids_a_lease_buys_none_and_the_shortfall_is_said_with_its_cost() {
    let mut stage = with_a_day_of(40.0);
    let decisions = stage.live(Span::from_hours(4), "chat", peak);
    assert_eq!(times(&decisions, is_ask), []);
    let plan = stage.plan();
    let capacity = condition(&plan, ConditionKind::CapacityAvailable).unwrap();
    assert_eq!((capacity.status, capacity.reason), (Truth::False, Reason::BudgetSpent));
    for said in [
        "will miss an objective, which costs",
        "because the budget does not allow them",
    ] {
        assert!(capacity.message.contains(said), "{}", capacity.message);
    }
    let planned = planned(&stage, "chat");
    let missing = planned.missing[0];
    assert!((missing.cost - missing.requests * 0.002).abs() < 1e-9, "{missing:?}");
    assert!(
        missing.requests > 100.0 && planned.forgone >= LEASE,
        "{missing:?} {}",
        planned.forgone
    );
    assert!(planned.spending.iter().all(|period| period.planned <= period.left));
}

#[test]
fn as_many_leases_are_bought_as_the_budget_of_the_day_covers() {
    let mut stage = with_a_day_of(2.4 * LEASE);
    let decisions = stage.live(Span::from_hours(8), "chat", peak);
    assert_eq!(times(&decisions, is_ask).len(), 2);
    let plan = stage.plan();
    let budget = condition(&plan, ConditionKind::WithinBudget).unwrap();
    assert_ne!(budget.status, Truth::False, "{}", budget.message);
    assert!(budget.message.starts_with("94.5"), "{}", budget.message);
    let committed = crate::spending::Accounts::of(&stage.snapshot).committed(
        &pool_id("chat"),
        &stage.snapshot.pools[&pool_id("chat")],
        stage.now,
    );
    assert!((committed.unwrap().as_f64() - 2.0 * LEASE).abs() < 0.1);
}

#[test]
fn what_a_cheaper_group_offers_does_not_use_up_the_money_for_the_group_that_is_planned() {
    let mut stage = with_a_day_of(2.4 * LEASE);
    let mut hourly = crate::snapshot::Group::hosted("lease", 4).minimum_lease(Span::from_hours(1));
    hourly.pricing.hourly = Money::from_micros(2_500_000);
    stage = stage.group("m4-hourly", hourly);
    let decisions = stage.live(Span::from_hours(8), "chat", peak);
    let asked = times(&decisions, is_ask).len();
    assert!(
        asked > 2,
        "hours of the dearer one reach further than days of the cheaper one: {asked}"
    );
    assert!(stage.snapshot.groups["m4-hourly"].inventory.servers().len() >= 2);
}

#[test]
fn what_is_bought_says_what_the_same_would_have_cost_elsewhere_and_why_it_is_not_there() {
    use crate::snapshot::{Group, MachineKey, Ownership, Site};
    let dear = |hourly| {
        let mut dear = Group::hosted("lease", 4);
        dear.pricing.hourly = Money::from_micros(hourly);
        dear
    };
    let mut far = Group::hosted("far", 4);
    far.lead_time.provision = Span::from_hours(20);
    let mut stopped = dear(2_400_000);
    stopped.out_of_stock_since = Some(START + Span::from_hours(3));
    let mut small = Group::hosted("lease", 4);
    small.machine = MachineKey {
        chip: "M1".to_owned(),
        gpu_cores: 8,
        memory_gib: 8,
    };
    let mut stage = at(9, peak)
        .site("far", Site::fixture(Ownership::Hosted))
        .group("m4-dear", dear(2_500_000))
        .group("m4-far", far)
        .group("m4-stopped", stopped)
        .group("small", small);
    let decisions = stage.live(Span::from_hours(4), "chat", peak);
    let (_, ask) = decisions.iter().find(|(_, decision)| is_ask(decision)).unwrap();
    let said: Vec<_> = ask
        .rejected
        .iter()
        .map(|each| (each.alternative.as_str(), each.reason, each.cost.map(Money::as_f64)))
        .collect();
    assert_eq!(
        said.iter()
            .map(|(name, reason, _)| (*name, *reason))
            .collect::<Vec<_>>(),
        [
            ("ultra", Reason::CapacityExhausted),
            ("m4-far", Reason::ComesTooLate),
            ("m4-stopped", Reason::OutOfStock),
            ("m4-dear", Reason::CostsMore),
            ("small", Reason::DoesNotFit),
        ],
        "{:#?}",
        ask.rejected
    );
    let cost = |index: usize| said[index].2.unwrap();
    // The same hours at other prices.
    assert!((cost(3) / 2.5 - cost(2) / 2.4).abs() < 0.05, "{said:?}");
    assert!(cost(3) > 24.0 * 2.5 && cost(3) < 36.0 * 2.5, "{said:?}");
    assert!(ask.rejected[3].message.contains("instead of"), "{:?}", ask.rejected[3]);
}

#[test]
fn no_more_servers_are_leased_than_the_site_has_power_for() {
    for (watts, leases) in [(130.0, 2), (129.0, 1), (64.0, 0)] {
        let mut stage = at(9, peak);
        stage.snapshot.sites.get_mut("lease").unwrap().energy.power_limit_watts = Some(watts);
        let decisions = stage.live(Span::from_hours(5), "chat", peak);
        assert_eq!(times(&decisions, is_ask).len(), leases, "{watts} W");
        // Nor where nobody plans ahead.
        let mut alone = chat(6.0);
        alone.snapshot.sites.get_mut("lease").unwrap().energy.power_limit_watts = Some(watts);
        alone.run(Span::from_minutes(40));
        assert_eq!(alone.snapshot.groups["m4"].inventory.servers().len(), leases);
        let told = reason(&alone.plan(), ConditionKind::CapacityAvailable);
        assert_eq!(told, Some(Reason::PowerLimited));
    }
}

#[test]
fn a_pool_never_gets_more_servers_than_its_most() {
    let mut stage = at(9, peak);
    stage.seen_mut("chat").replicas.max = 4;
    let mut decisions = stage.live(Span::from_minutes(1), "chat", peak);
    let early = &stage.snapshot.ahead.as_ref().unwrap().groups["m4"];
    let today = early.later.iter().filter(|(at, _)| at.since(stage.now) < LONG * 6);
    let planned = early.servers + today.map(|(_, count)| count).sum::<u32>();
    assert_eq!(planned, 1, "no more are planned: {early:?}");
    decisions.extend(stage.live(Span::from_hours(5), "chat", peak));
    assert_eq!(times(&decisions, is_ask).len(), 1);
    assert_eq!(stage.count("chat", "ultra") + stage.count("chat", "m4"), 4);
}

/// Two pools that want three of four servers each; the second one with another rank.
fn rivals(change: fn(&mut Pool)) -> Stage {
    let mut second = Pool::fixture();
    change(&mut second);
    let mut stage = hybrid(4, 0)
        .pool("chat", Pool::fixture().surviving(Survive::None))
        .pool("code", second)
        .living("chat", |_| 1.4)
        .living("code", |_| 1.4)
        .planning_ahead();
    stage.run(Span::from_minutes(30));
    stage
}

#[test]
fn where_servers_run_out_priorities_decide_and_then_the_degrade_order() {
    let counts = |stage: &Stage| (stage.count("chat", "ultra"), stage.count("code", "ultra"));
    let (chat, code) = counts(&rivals(|_| ()));
    assert_eq!((chat, code), (2, 2), "equals share");
    for (name, change, first) in [
        (
            "priority",
            (|pool: &mut Pool| pool.priority = 10) as fn(&mut Pool),
            "code",
        ),
        ("less of it", |pool| pool.priority = -10, "chat"),
        ("degrade order", |pool| pool.degrade_order = 10, "chat"),
    ] {
        let stage = rivals(change);
        let second = if first == "chat" { "code" } else { "chat" };
        assert_eq!(stage.count(first, "ultra"), 3, "{name}: {:?}", counts(&stage));
        assert_eq!(stage.count(second, "ultra"), 1, "{name}");
        assert!(planned(&stage, first).missing.is_empty(), "{name}");
        assert!(
            !planned(&stage, second).missing.is_empty(),
            "{name}: the shortfall is said"
        );
    }
}

#[test]
fn what_servers_cost_that_stay_in_any_case_is_not_there_to_be_spent() {
    let left = |minimum: u32| {
        let mut stage = with_a_day_of(200.0);
        stage.snapshot.groups.get_mut("m4").unwrap().size.min = minimum;
        stage.live(Span::from_minutes(1), "chat", |_| 0.8);
        planned(&stage, "chat").spending
    };
    // A lease that is a day old in the evening goes on to be paid until midnight, and all of tomorrow.
    let with_one = |minimum| {
        let mut stage = with_a_day_of(200.0);
        let midnight = START - Span::from_hours(9);
        let lease = crate::snapshot::Lease {
            start: midnight - Span::from_hours(4),
            minimum_until: midnight + Span::from_hours(20),
        };
        let server = crate::snapshot::Server {
            lease: Some(lease),
            ..crate::snapshot::Server::fixture(lease.start)
        };
        let found = stage.snapshot.groups.get_mut("m4").unwrap();
        found.size.min = minimum;
        found.servers_mut().insert("m4-0".into(), server);
        stage = stage.serving("chat", "m4", "m4-0");
        stage.live(Span::from_minutes(1), "chat", |_| 0.8);
        planned(&stage, "chat").spending
    };
    let all = left(0);
    assert_eq!(all.len(), 2, "today and tomorrow: {all:?}");
    assert!(
        (all[0].left - 200.0).abs() < 0.1 && (all[1].left - 200.0).abs() < 0.1,
        "{all:?}"
    );
    let (free, kept) = (with_one(0), with_one(1));
    assert!(
        (free[0].left - kept[0].left - 4.0 * 1.97).abs() < 0.1,
        "{free:?} {kept:?}"
    );
    assert!(
        (free[1].left - kept[1].left - 24.0 * 1.97).abs() < 0.1,
        "{free:?} {kept:?}"
    );
}
