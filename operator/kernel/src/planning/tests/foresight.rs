//! Decisions that follow the strategic plan: both passes joined, on a small world.

use std::sync::Arc;

use super::*;
use crate::fixture::{START, group, measured, pool_id};
use crate::lifecycle::ServerState;
use crate::plan::{Truth, Verdict};
use crate::snapshot::{Group, Lease, Ownership, Server, Site, Survive};
use crate::time::Timestamp;

const DAY: Span = Span::from_hours(24);

fn hour(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(3_600_000).rem_euclid(24)
}

/// Own servers are too few from 12 to 20 hours UTC.
pub(super) fn peak(at: Timestamp) -> f64 {
    if (12..20).contains(&hour(at)) { 2.2 } else { 0.8 }
}

/// Own servers are too few for five minutes of the day.
fn spike(at: Timestamp) -> f64 {
    let minute = at.as_millis().div_euclid(60_000).rem_euclid(24 * 60);
    if (12 * 60..12 * 60 + 5).contains(&minute) {
        1.8
    } else {
        0.8
    }
}

fn quiet(_: Timestamp) -> f64 {
    0.8
}

/// Three own servers that serve, up to twelve to lease, and a pool with a past, at `hour` of the day.
pub(super) fn at(hour: u64, rate: crate::fixture::Daily) -> Stage {
    let mut stage = hybrid(3, 12).pool("chat", Pool::fixture());
    stage.now = START - Span::from_hours(9) + Span::from_hours(hour);
    for server in ["ultra-0", "ultra-1", "ultra-2"] {
        stage = stage.serving("chat", "ultra", server);
    }
    stage.living("chat", rate).planning_ahead()
}

/// A leased server that serves.
fn leased(mut stage: Stage, name: &str, ends_in: Span) -> Stage {
    let start = stage.now + ends_in - DAY;
    let lease = Lease {
        start,
        minimum_until: start + DAY,
    };
    let server = Server {
        lease: Some(lease),
        ..Server::fixture(start)
    };
    let servers = stage.snapshot.groups.get_mut("m4").unwrap().servers_mut();
    servers.insert(name.into(), server);
    stage.serving("chat", "m4", name)
}

pub(super) fn times(decisions: &[(Timestamp, Decision)], wanted: impl Fn(&Decision) -> bool) -> Vec<Timestamp> {
    let found = decisions.iter().filter(|(_, decision)| wanted(decision));
    found.map(|(at, _)| *at).collect()
}

pub(super) fn is_ask(decision: &Decision) -> bool {
    matches!(decision.action, Action::RequestServer { .. }) && decision.verdict == Verdict::Act
}

#[test]
fn servers_are_leased_before_the_forecast_needs_them_and_the_decision_says_so() {
    let mut stage = at(9, peak);
    let decisions = stage.live(Span::from_hours(4), "chat", peak);
    let asked = times(&decisions, is_ask);
    let noon = START + Span::from_hours(3);
    // The first ones, and a last one when all plans agree on it.
    assert!(noon.since(asked[0]) >= Span::from_minutes(10), "{asked:?}");
    for asked_at in &asked {
        assert!(
            *asked_at <= noon && noon.since(*asked_at) < Span::from_minutes(40),
            "{asked_at}"
        );
    }
    let (_, ask) = decisions.iter().find(|(_, decision)| is_ask(decision)).unwrap();
    assert_eq!(ask.reason, Reason::PlannedAhead);
    assert!(ask.message.contains("2.2 requests/s are expected"), "{}", ask.message);
    // They serve when demand comes, and nothing is bought by reaction.
    assert_eq!(stage.count("chat", "m4"), u32::try_from(asked.len()).unwrap());
    let plan = stage.plan();
    let capacity = condition(&plan, ConditionKind::CapacityAvailable).unwrap();
    assert_eq!(capacity.status, Truth::True, "{}", capacity.message);
    assert!(capacity.message.contains("of the error budget"), "{}", capacity.message);
}

#[test]
fn nothing_is_leased_for_a_peak_that_is_shorter_than_its_break_even() {
    let mut stage = at(9, spike);
    let decisions = stage.live(Span::from_hours(5), "chat", spike);
    assert_eq!(times(&decisions, is_ask), []);
    let plan = stage.plan();
    assert_eq!(reason(&plan, ConditionKind::CapacityAvailable), Some(Reason::OnTarget));
}

#[test]
fn a_missed_percentile_alone_buys_nothing_that_was_not_planned() {
    let mut stage = at(9, spike);
    stage.live(Span::from_hours(3), "chat", spike);
    for _ in 0..10 {
        let now = stage.now;
        stage.seen_mut("chat").measured[0] = measured(20_000.0, 0.4, now);
        let decisions = stage.live(Span::from_minutes(1), "chat", spike);
        assert_eq!(times(&decisions, is_ask), []);
    }
}

#[test]
fn a_plan_that_does_not_explain_what_is_missed_is_not_followed_and_the_pool_says_so() {
    let mut stage = at(2, quiet);
    stage.live(Span::from_minutes(5), "chat", quiet);
    let mut bought = Vec::new();
    for _ in 0..60 {
        let now = stage.now;
        stage.seen_mut("chat").measured[0] = measured(20_000.0, 0.4, now);
        bought.extend(stage.live(Span::from_minutes(1), "chat", quiet));
    }
    let plan = stage.plan();
    let capacity = condition(&plan, ConditionKind::CapacityAvailable).unwrap();
    assert!(
        capacity.message.contains("by measurements alone"),
        "{}",
        capacity.message
    );
    let asked = times(&bought, is_ask);
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|at| at.since(START - Span::from_hours(7)) >= Span::from_minutes(34)),
        "{asked:?}"
    );
    assert!(
        asked.len() <= 6,
        "bounded, however wrong the figures are: {}",
        asked.len()
    );
}

#[test]
fn a_plan_that_is_too_old_or_does_not_know_the_pool_is_not_followed() {
    let stage = {
        let mut stage = at(2, quiet);
        stage.live(Span::from_minutes(2), "chat", quiet);
        stage.curves = None;
        stage
    };
    let followed = |stage: &Stage| reason(&stage.plan(), ConditionKind::CapacityAvailable) == Some(Reason::OnTarget);
    assert!(followed(&stage));
    let mut old = stage.clone();
    old.run(Span::from_minutes(25));
    assert!(!followed(&old));
    let mut unknown = stage;
    Arc::make_mut(unknown.snapshot.ahead.as_mut().unwrap()).pools.clear();
    assert_eq!(
        reason(&unknown.plan(), ConditionKind::CapacityAvailable),
        Some(Reason::PlanNotFollowed)
    );
}

#[test]
fn a_paid_lease_serves_until_its_last_useful_moment_whatever_arrives() {
    let ends_in = Span::from_minutes(100);
    let mut stage = leased(at(2, quiet), "m4-0", ends_in);
    let end = stage.now + ends_in;
    let early = stage.live(ends_in - Span::from_minutes(3), "chat", quiet);
    assert_eq!(stage.count("chat", "m4"), 1, "{early:?}");
    assert!(early.is_empty(), "{early:?}");
    let late = stage.live(Span::from_minutes(30), "chat", quiet);
    assert_eq!(stage.count("chat", "m4"), 0);
    let released = times(&late, |decision| {
        matches!(decision.action, Action::ReleaseServer { .. })
    });
    assert_eq!(released.len(), 1, "{late:#?}");
    assert!(
        released[0] >= end && released[0] < end + Span::from_minutes(10),
        "{}",
        released[0]
    );
}

#[test]
fn own_servers_that_are_off_are_woken_before_any_is_leased() {
    let asleep = || {
        let mut woken = Group::owned("cupertino", "spare", 0);
        woken.size.max = 4;
        woken.provider = crate::snapshot::ProviderTraits {
            grows: true,
            releases_chosen: true,
            always_on: false,
        };
        woken.lead_time.provision = Span::from_minutes(1);
        woken
    };
    let mut stage = at(11, peak).group("spare", asleep());
    let decisions = stage.live(Span::from_hours(3), "chat", peak);
    let first = decisions.iter().find(|(_, decision)| is_ask(decision)).unwrap();
    assert!(stage.count("chat", "spare") >= 2, "{:?}", stage.by_group("chat"));
    let leases = |decision: &Decision| {
        is_ask(decision) && matches!(&decision.action, Action::RequestServer { group, .. } if group.as_str() == "m4")
    };
    assert_eq!(times(&decisions, leases), [], "{first:?}");
}

#[test]
fn a_lease_that_does_not_arrive_is_time_boxed_and_the_next_group_is_asked_by_plan() {
    let mut dear = Group::hosted("lease", 12);
    dear.pricing.hourly = crate::units::Money::from_micros(2_500_000);
    let mut stage = at(11, peak).group("m4-dear", dear);
    stage.stillborn.push(group("m4"));
    let decisions = stage.live(Span::from_minutes(150), "chat", peak);
    let of = |name: &str| {
        let asked = |decision: &Decision| {
            is_ask(decision)
                && matches!(&decision.action, Action::RequestServer { group, .. } if group.as_str() == name)
        };
        times(&decisions, asked)
    };
    let (first, next) = (of("m4"), of("m4-dear"));
    assert!(!first.is_empty() && !next.is_empty(), "{first:?} {next:?}");
    // Three lead times and ten minutes.
    let boxed = first[0] + Span::from_minutes(55);
    assert!(
        next[0] >= boxed && next[0] <= boxed + Span::from_minutes(10),
        "{first:?} {next:?}"
    );
    assert!(
        first
            .iter()
            .all(|at| *at < boxed || *at >= boxed + Span::from_minutes(15)),
        "not asked again while it is looked at: {first:?}"
    );
    assert!(stage.count("chat", "m4-dear") > 0);
}

#[test]
fn work_returns_from_hosted_to_owned_once_and_only_when_the_plan_says_so() {
    // Billed by the second from now on, and not needed before the next peak.
    let mut stage = leased(leased(at(21, peak), "m4-0", Span::ZERO), "m4-1", Span::ZERO);
    let decisions = stage.live(Span::from_hours(4), "chat", peak);
    let fences = times(&decisions, |decision| {
        matches!(
            decision.action,
            Action::DrainReplica {
                step: crate::lifecycle::DrainStep::Fence,
                ..
            }
        )
    });
    assert_eq!(fences.len(), 2, "{decisions:#?}");
    assert_eq!(stage.count("chat", "m4"), 0);
    assert_eq!(times(&decisions, is_ask), []);
}

#[test]
fn nothing_is_given_up_that_a_loss_would_need() {
    let gone = |survive| {
        let mut stage = hybrid(2, 12).pool("chat", Pool::fixture().surviving(survive));
        stage.now = START;
        for server in ["ultra-0", "ultra-1"] {
            stage = stage.serving("chat", "ultra", server);
        }
        let mut stage = leased(stage.living("chat", |_| 0.55), "m4-0", DAY).planning_ahead();
        stage.live(Span::from_minutes(3), "chat", |_| 0.55);
        // Whatever the plan may say.
        let now = stage.now;
        stage.curves = None;
        let ahead = Arc::make_mut(stage.snapshot.ahead.as_mut().unwrap());
        ahead.groups.get_mut("m4").unwrap().until.insert("m4-0".into(), now);
        let plan = stage.plan();
        (
            fences(&plan.decisions).len(),
            plan.pools[&pool_id("chat")].held.clone().map(|held| held.reason),
        )
    };
    assert_eq!(gone(Survive::None).0, 1);
    assert_eq!(gone(Survive::Server), (0, Some(Reason::NeededForLoss)));
}

#[test]
fn nothing_is_given_up_while_the_rest_would_be_overloaded_or_nothing_is_measured() {
    let stage = {
        let mut stage = leased(at(2, quiet), "m4-1", DAY);
        stage.live(Span::from_minutes(2), "chat", quiet);
        stage
    };
    let with = |change: fn(&mut Stage)| {
        let mut stage = stage.clone();
        change(&mut stage);
        let now = stage.now;
        let ahead = Arc::make_mut(stage.snapshot.ahead.as_mut().unwrap());
        ahead.groups.get_mut("m4").unwrap().until.insert("m4-1".into(), now);
        let plan = stage.plan();
        fences(&plan.decisions).into_iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(with(|_| ()).len(), 1);
    assert_eq!(with(|stage| stage.demand("chat", 2.0)), []);
    assert_eq!(with(|stage| stage.metrics_gone("chat")), []);
    assert_eq!(with(|stage| stage.lose("cupertino")), []);
}

#[test]
fn a_gap_in_the_metrics_buys_nothing_and_gives_nothing_back() {
    let mut stage = leased(at(9, peak), "m4-0", Span::from_minutes(20));
    stage.live(Span::from_minutes(5), "chat", peak);
    stage.metrics_gone("chat");
    let decisions = stage.run(Span::from_hours(4));
    assert!(
        asks(&decisions).is_empty() && fences(&decisions).is_empty(),
        "{decisions:#?}"
    );
    assert!(stage.snapshot.groups["m4"].inventory.servers()["m4-0"].state == ServerState::Ready);
}

#[test]
fn what_is_there_serves_even_if_the_plan_does_without_it() {
    let mut managed = Group::owned("partner", "spare", 2);
    managed.provider.always_on = true;
    let mut stage = at(2, quiet)
        .site("partner", Site::fixture(Ownership::Managed))
        .group("spare", managed);
    stage.live(Span::from_minutes(5), "chat", quiet);
    assert_eq!(stage.count("chat", "spare"), 2);
    assert_eq!(stage.live(Span::from_hours(2), "chat", quiet).len(), 0, "and stays");
}

#[test]
fn servers_go_to_the_pool_that_they_are_planned_for_and_do_not_wander() {
    let mut stage = hybrid(6, 0)
        .pool("chat", Pool::fixture())
        .pool("code", Pool::fixture())
        .living("chat", |_| 1.2)
        .living("code", |_| 0.6)
        .planning_ahead();
    stage.run(Span::from_minutes(20));
    let counts = |stage: &Stage| (stage.count("chat", "ultra"), stage.count("code", "ultra"));
    let (chat, code) = counts(&stage);
    assert!(chat + code == 6 && chat > code && code >= 1, "{chat} {code}");
    let decisions = stage.run(Span::from_hours(1));
    assert!(decisions.len() <= 4, "{decisions:#?}");
    // Demand moves: so do servers, replacement first.
    stage.demand("chat", 0.5);
    stage.demand("code", 1.3);
    stage.run(Span::from_hours(1));
    let (chat, code) = counts(&stage);
    assert!(chat + code == 6 && code > chat, "{chat} {code}");
}
