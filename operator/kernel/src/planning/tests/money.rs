//! What costs money from now on, and who says so.

use super::*;
use crate::fixture::{START, group};
use crate::plan::{Truth, Verdict};
use crate::snapshot::{Arrivals, Demand, Group, Lease, Load, Mode, Ownership, Server, Site};
use crate::units::{Money, Rate};

/// `chat` at 2 requests/s beside an idle paid lease and a managed group to buy from, both M2 Ultras.
fn with_a_paid_lease() -> Stage {
    let mut paid = Group::owned("lease", "paid", 1);
    paid.pricing.hourly = Money::from_micros(3_000_000);
    for server in paid.servers_mut().values_mut() {
        *server = Server {
            lease: Some(Lease {
                start: START,
                minimum_until: START + Span::from_hours(24),
            }),
            ..server.clone()
        };
    }
    paid.provider.always_on = false;
    let managed = Group {
        machine: paid.machine.clone(),
        ..Group::hosted("partner", 4)
    };
    hybrid(1, 0)
        .site("partner", Site::fixture(Ownership::Managed))
        .group("managed", managed)
        .group("paid", paid)
        .pool("chat", Pool::fixture())
}

#[test]
fn an_idle_paid_lease_is_used_before_another_server_is_bought() {
    let mut stage = with_a_paid_lease();
    stage.demand("chat", 0.6);
    let decisions = stage.run(Span::from_minutes(10));
    assert!(asks(&decisions).is_empty(), "{:#?}", asks(&decisions));
    assert_eq!((stage.count("chat", "ultra"), stage.count("chat", "paid")), (1, 1));
}

#[test]
fn what_costs_most_from_now_on_goes_first() {
    let mut stage = with_a_paid_lease();
    // A managed server that is billed by the hour, and a hosted one that is paid for the day.
    let server = Server::fixture(START - Span::from_hours(30));
    let managed = stage.snapshot.groups.get_mut("managed").unwrap();
    managed.servers_mut().insert("managed-0".into(), server);
    let mut stage = stage
        .serving("chat", "managed", "managed-0")
        .serving("chat", "paid", "paid-0")
        .serving("chat", "ultra", "ultra-0");
    stage.demand("chat", 0.6);
    stage.run(Span::from_minutes(30));
    assert_eq!(stage.count("chat", "managed"), 0, "{:?}", stage.by_group("chat"));
    assert_eq!((stage.count("chat", "ultra"), stage.count("chat", "paid")), (1, 1));
}

#[test]
fn work_returns_only_if_all_that_takes_over_costs_less() {
    let returned = |hourly: i64| {
        // One fast leased server against slow managed ones, of which it takes several.
        let mut leased = Group::owned("lease", "leased", 1);
        leased.pricing.hourly = Money::from_micros(3_000_000);
        leased.provider.always_on = false;
        let mut managed = Group::hosted("partner", 8);
        managed.pricing.hourly = Money::from_micros(hourly);
        let mut stage = hybrid(0, 0)
            .site("partner", Site::fixture(Ownership::Managed))
            .group("leased", leased)
            .group("managed", managed)
            .pool("chat", Pool::fixture())
            .serving("chat", "leased", "leased-0");
        stage.demand("chat", 0.3);
        let decisions = stage.run(Span::from_hours(1));
        !asks(&decisions).is_empty()
    };
    assert!(returned(100_000));
    assert!(
        !returned(1_600_000),
        "each is cheaper than the leased one, all together are not"
    );
}

#[test]
fn what_would_be_bought_is_proposed_with_its_reasons_and_not_done() {
    for (pool_mode, group_mode) in [
        (Mode::Approve, Mode::Auto),
        (Mode::Advise, Mode::Auto),
        (Mode::Auto, Mode::Approve),
        (Mode::Auto, Mode::Advise),
    ] {
        let mut stage = chat(4.5);
        stage.seen_mut("chat").mode = pool_mode;
        stage.snapshot.groups.get_mut("m4").unwrap().mode = group_mode;
        let plan = until_asked(&mut stage);
        let proposed = asks(&plan.decisions);
        assert!(proposed.len() > 1);
        for ask in proposed {
            assert_eq!((ask.verdict, ask.reason), (Verdict::Propose, Reason::ServersNeeded));
            assert!(ask.message.contains("requests/s arrive"), "{}", ask.message);
        }
        stage.run(Span::from_minutes(10));
        assert!(stage.snapshot.groups["m4"].inventory.servers().is_empty());
        let plan = stage.plan();
        assert_eq!(
            reason(&plan, ConditionKind::CapacityAvailable),
            Some(Reason::AwaitingApproval)
        );
        assert_eq!(
            plan.pools[&crate::fixture::pool_id("chat")].target,
            6,
            "proposals are not wanted replicas yet"
        );
    }
}

#[test]
fn what_people_have_approved_is_asked_for_by_its_name_and_nothing_besides() {
    for (pool_mode, group_mode, acts) in [
        (Mode::Auto, Mode::Approve, true),
        (Mode::Approve, Mode::Auto, true),
        (Mode::Auto, Mode::Advise, false),
        (Mode::Advise, Mode::Auto, false),
    ] {
        let mut stage = chat(4.5);
        stage.seen_mut("chat").mode = pool_mode;
        let group = stage.snapshot.groups.get_mut("m4").unwrap();
        group.mode = group_mode;
        group.approved.requests = ["m4-1".into(), "m4-7".into()].into();
        let plan = until_asked(&mut stage);
        let acted = |plan: &Plan| -> Vec<String> {
            let acted = asks(&plan.decisions)
                .into_iter()
                .filter(|ask| ask.verdict == Verdict::Act);
            acted.map(|ask| format!("{:?}", ask.action)).collect()
        };
        let names = acted(&plan).join(" ");
        assert_eq!(
            names.contains("\"m4-1\"") && names.contains("\"m4-7\""),
            acts,
            "{names}"
        );
        assert_eq!(acted(&plan).len(), if acts { 2 } else { 0 }, "{names}");
        stage.run(Span::from_minutes(10));
        let bought: Vec<_> = stage.snapshot.groups["m4"].inventory.servers().keys().collect();
        assert_eq!(bought.len(), if acts { 2 } else { 0 }, "once each: {bought:?}");
    }
}

#[test]
fn what_is_approved_for_a_pool_is_asked_for_by_its_name_where_its_group_leaves_it_to_the_pool() {
    for (pool_mode, group_mode, acts) in [
        (Mode::Approve, Mode::Auto, true),
        (Mode::Approve, Mode::Approve, false),
        (Mode::Advise, Mode::Auto, false),
    ] {
        let mut stage = chat(4.5);
        stage.seen_mut("chat").mode = pool_mode;
        stage.seen_mut("chat").approved = ["m4-0".into(), "m4-3".into(), "m4-dear-1".into()].into();
        stage.snapshot.groups.get_mut("m4").unwrap().mode = group_mode;
        stage.run(Span::from_minutes(40));
        let bought = stage.snapshot.groups["m4"].inventory.servers();
        let own = |name: &str| bought.contains_key(name);
        assert_eq!(
            (own("m4-0"), own("m4-3")),
            (acts, acts),
            "{pool_mode:?} {group_mode:?}: {bought:?}"
        );
        let used = stage.count("chat", "m4");
        assert_eq!(used, if acts { 2 } else { 0 }, "{pool_mode:?} {group_mode:?}");
    }
}

#[test]
fn a_group_that_may_act_is_used_while_another_waits_for_approval() {
    let mut dear = Group::hosted("lease", 10);
    dear.pricing.hourly = Money::from_micros(2_500_000);
    let mut stage = hybrid(1, 10).group("m4-dear", dear).pool("chat", Pool::fixture());
    stage.snapshot.groups.get_mut("m4").unwrap().mode = Mode::Approve;
    stage.demand("chat", 0.8);
    let plan = until_asked(&mut stage);
    for ask in asks(&plan.decisions) {
        assert!(matches!(&ask.action, Action::RequestServer { group, .. } if group.as_str() == "m4-dear"));
        assert_eq!(ask.verdict, Verdict::Act);
        let waiting = ask
            .rejected
            .iter()
            .find(|rejected| rejected.alternative == "m4")
            .unwrap();
        assert_eq!(waiting.reason, Reason::AwaitingApproval);
        assert!(waiting.hourly.is_some(), "people see what it would cost");
    }
}

#[test]
fn a_groups_minimum_is_proposed_where_people_want_to_be_asked() {
    let mut stage = chat(0.0);
    let found = stage.snapshot.groups.get_mut("m4").unwrap();
    (found.size.min, found.mode) = (2, Mode::Approve);
    let plan = stage.plan();
    let proposed = asks(&plan.decisions);
    assert_eq!(proposed.len(), 2);
    assert!(proposed.iter().all(|ask| ask.verdict == Verdict::Propose));
    assert_eq!(plan.groups[&group("m4")].memory.last_requested_at, None);
    assert_eq!(plan.groups[&group("m4")].target, 0);
}

/// Arrivals of the last minute and of the last five.
fn arrivals(stage: &mut Stage, minute: f64, five: f64) {
    stage.demand("chat", minute);
    set(stage, minute, five);
}

fn set(stage: &mut Stage, minute: f64, five: f64) {
    if let Demand::Known(Arrivals { rate_1m, rate_5m, .. }) = &mut stage.seen_mut("chat").demand {
        (*rate_1m, *rate_5m) = (Rate::per_second(minute), Rate::per_second(five));
    }
}

#[test]
fn one_noisy_minute_buys_no_lease() {
    let mut stage = chat(2.0);
    stage.run(Span::from_minutes(20));
    // A minute of ten times as much: it leaves the short window after a minute, and the long one after five.
    for step in 0..20_u32 {
        let minute = if step < 4 { 20.0 } else { 2.0 };
        arrivals(&mut stage, minute, 5.6);
        let plan = stage.plan();
        assert!(asks(&plan.decisions).is_empty(), "after {step} passes");
        let told = reason(&plan, ConditionKind::CapacityAvailable);
        assert_eq!(told, Some(Reason::DemandUnconfirmed));
        stage.apply(&plan);
        stage.pass_time(Span::from_secs(15));
    }
    assert_eq!(stage.count("chat", "ultra"), 6, "what is there anyway is used at once");
}

#[test]
fn a_clear_overload_is_acted_on_fast() {
    let mut stage = chat(2.0);
    stage.run(Span::from_minutes(20));
    let began = stage.now;
    stage.demand("chat", 5.0);
    until_asked(&mut stage);
    assert!(stage.now.since(began) <= Span::from_minutes(2));
    // A missed objective says the same: no need to wait.
    let mut stage = chat(2.6);
    stage.run(Span::from_minutes(20));
    stage.demand("chat", 5.0);
    let now = stage.now;
    stage.seen_mut("chat").measured[0] = crate::fixture::measured(14_000.0, 0.8, now);
    assert!(!asks(&stage.plan().decisions).is_empty());
}

#[test]
fn a_budget_that_would_not_last_is_at_risk() {
    let mut stage = chat(4.0);
    stage.run(Span::from_hours(1));
    for (amount, truth, told) in [
        (1_000_000_000_000, Truth::True, Reason::UnderBudget),
        (400_000_000, Truth::Unknown, Reason::BudgetAtRisk),
        (1_000_000, Truth::False, Reason::BudgetSpent),
    ] {
        stage.seen_mut("chat").budget = Some(crate::snapshot::Budget {
            amount: Money::from_micros(amount),
            period: crate::snapshot::Period::Month,
        });
        let plan = stage.plan();
        let budget = condition(&plan, ConditionKind::WithinBudget).unwrap();
        assert_eq!((budget.status, budget.reason), (truth, told));
    }
}

#[test]
fn of_two_servers_that_cost_nothing_now_the_one_whose_paid_term_will_end_is_left_first() {
    let mut stage = with_a_paid_lease();
    let home = stage.snapshot.groups[&group("ultra")].site.clone();
    let paid = stage.snapshot.groups.get_mut("paid").unwrap();
    paid.site = home;
    for server in paid.servers_mut().values_mut() {
        server.lease = server.lease.map(|lease| Lease {
            minimum_until: START + Span::from_minutes(30),
            ..lease
        });
    }
    let mut stage = stage
        .serving("chat", "ultra", "ultra-0")
        .serving("chat", "paid", "paid-0");
    stage.demand("chat", 0.05);
    // All requests happen to be at the leased one.
    let idle = |stage: &mut Stage| {
        let at = stage.now;
        for replica in stage.seen_mut("chat").running.values_mut() {
            if replica.group == group("ultra") {
                let (running, queued) = (0, 0);
                replica.load = Load::Known { running, queued, at };
            }
        }
    };
    for _ in 0..4 * 60 {
        idle(&mut stage);
        stage.step();
        assert_eq!(stage.count("chat", "ultra"), 1);
    }
    assert_eq!(stage.count("chat", "paid"), 0);
}
