#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::names::{Jurisdiction, Revision};
use crate::snapshot::{
    Approved, Arrivals, Contact, Discipline, Disruption, DrainPolicy, Energy, GroupMemory, Inventory, LeadTime,
    MachineKey, Maintenance, Mode, Model, Objective, OnDeadline, Ownership, Placement, PlacementOrder, PoolMemory,
    Power, Pricing, ProviderTraits, ReplicaRange, SizeRange, Survive, Trust,
};
use crate::time::{Span, Timestamp};
use crate::units::{Fraction, Money, Rate};

fn judge(pool: &Pool) -> Feasibility<'_> {
    Feasibility::of(pool, Catalogue::builtin(), Timestamp::default())
}

fn check(pool: &Pool, group: &Group, site: &Site) -> Result<Performance, Problem> {
    judge(pool).check(&GroupName::from("group"), group, site)
}

/// No requests, but these lengths.
fn seen(lengths: Option<LengthMix>) -> Demand {
    Demand::Known(Arrivals {
        rate_1m: Rate::ZERO,
        rate_5m: Rate::ZERO,
        lengths,
        at: Timestamp::default(),
    })
}

fn jurisdictions<const N: usize>(names: [&str; N]) -> BTreeSet<Jurisdiction> {
    names.into_iter().map(Jurisdiction::from).collect()
}

fn site() -> Site {
    Site {
        ownership: Ownership::Owned,
        residency: jurisdictions(["US"]),
        trust: Trust::Attested,
        permitted_use: Use::Production,
        energy: Energy {
            price_per_kwh: Money::ZERO,
            pue: 1.0,
            power_limit_watts: None,
        },
        maintenance: Maintenance::Active,
        contact: Contact::Reachable,
        problem: None,
        paused: false,
    }
}

fn group(chip: &str, gpu_cores: u32, memory_gib: u32) -> Group {
    Group {
        site: SiteName::from("home"),
        machine: MachineKey {
            chip: chip.to_owned(),
            gpu_cores,
            memory_gib,
        },
        labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
        size: SizeRange { min: 0, max: 4 },
        deliveries: Vec::new(),
        provider: ProviderTraits {
            grows: true,
            releases_chosen: true,
            always_on: false,
        },
        power: Power {
            idle_watts: 10.0,
            busy_watts: 200.0,
        },
        pricing: Pricing {
            hourly: Money::ZERO,
            minimum_lease: Span::ZERO,
        },
        lead_time: LeadTime {
            provision: Span::ZERO,
            recycle: Span::ZERO,
        },
        disruption: Disruption {
            max_unavailable: 1,
            window_open: true,
        },
        mode: Mode::Auto,
        approved: Approved::default(),
        inventory: Inventory::Known(BTreeMap::new()),
        out_of_stock_since: None,
        memory: GroupMemory::default(),
        problem: None,
        overlap: None,
        paused: false,
        deleting: false,
    }
}

fn pool() -> Pool {
    Pool {
        usage: Use::Production,
        model: Model {
            name: "llama-3.1-8b-instruct".to_owned(),
            quantization: "Q4_K_M".to_owned(),
            parameters_billions: 8.0,
            active_parameters_billions: 8.0,
            weights_gib: 4.9,
            context_tokens: 16_384,
            kv_bytes_per_token: 131_072,
        },
        objectives: vec![objective(Metric::TimeToFirstToken, 10_000)],
        miss_penalty: Money::ZERO,
        budget: None,
        degrade_order: 0,
        priority: 0,
        placement: Placement {
            order: PlacementOrder::OwnedFirst,
            residency: jurisdictions(["US"]),
            minimum_trust: Trust::Attested,
            group_labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
            survive_loss_of: Survive::None,
        },
        replicas: ReplicaRange { min: 1, max: 4 },
        drain: DrainPolicy {
            timeout: Span::from_minutes(15),
            on_deadline: OnDeadline::Keep,
        },
        mode: Mode::Auto,
        approved: BTreeSet::new(),
        discipline: Discipline::LeastWork,
        performance: Vec::new(),
        revision: Revision::from("r1"),
        namespace_at: BTreeSet::from([SiteName::from("home")]),
        routable_at: None,
        demand: seen(Some(LengthMix::assumed().clone())),
        measured: Vec::new(),
        engines: BTreeMap::new(),
        running: BTreeMap::new(),
        events: Vec::new(),
        past: Arc::default(),
        memory: PoolMemory::default(),
        paused: false,
        deleting: false,
    }
}

fn objective(metric: Metric, threshold_ms: u64) -> Objective {
    Objective {
        metric,
        percentile: Fraction::new(0.95),
        threshold: Span::from_millis(threshold_ms),
        window: Span::from_hours(24),
    }
}

fn m2_ultra() -> Group {
    group("M2 Ultra", 76, 192)
}

/// Breaks one more thing of a pool, a group and a site.
type Break = fn(&mut Pool, &mut Group, &mut Site);

#[test]
fn checks_come_in_order_and_each_fails_closed() {
    // From the last check to the first: each row breaks one thing more, and hides all those above it.
    let steps: [(Reason, &str, Break); 8] = [
        (
            Reason::ObjectiveUnreachable,
            "TTFT p95 100ms is unreachable",
            |pool, _, _| {
                pool.objectives = vec![objective(Metric::TimeToFirstToken, 100)];
            },
        ),
        (Reason::DoesNotFit, "500.0 GiB for weights", |pool, _, _| {
            pool.model.weights_gib = 500.0;
        }),
        (Reason::UseForbidden, "licensed for development only", |_, _, site| {
            site.permitted_use = Use::DevelopmentOnly;
        }),
        (
            Reason::ResidencyForbidden,
            "must stay in US, and site home is for CN, DE",
            |_, _, site| {
                site.residency = jurisdictions(["DE", "CN"]);
            },
        ),
        (
            Reason::TrustTooLow,
            "wants trust Attested, and site home proves Verified",
            |_, _, site| {
                site.trust = Trust::Verified;
            },
        ),
        (
            Reason::RouteUnsupported,
            "cannot send requests to site home",
            |pool, _, _| {
                pool.routable_at = Some(BTreeSet::from([SiteName::from("hub")]));
            },
        ),
        (Reason::NamespaceMissing, "the cluster of site home", |pool, _, _| {
            pool.namespace_at.clear();
        }),
        (Reason::NoGroup, "tier=gold", |_, group, _| group.labels.clear()),
    ];
    let (mut pool, mut group, mut site) = (pool(), m2_ultra(), site());
    assert!(check(&pool, &group, &site).is_ok());
    for (reason, message, break_one_more) in steps {
        break_one_more(&mut pool, &mut group, &mut site);
        let problem = check(&pool, &group, &site).unwrap_err();
        assert_eq!(problem.reason, reason);
        assert!(problem.message.contains(message), "{}", problem.message);
    }
}

#[test]
fn a_site_without_jurisdictions_serves_only_pools_without_wishes() {
    let (mut pool, mut site) = (pool(), site());
    site.residency.clear();
    assert_eq!(
        check(&pool, &m2_ultra(), &site).unwrap_err().reason,
        Reason::ResidencyForbidden
    );
    pool.placement.residency.clear();
    assert!(check(&pool, &m2_ultra(), &site).is_ok());
}

#[test]
fn development_may_run_on_machines_licensed_for_it() {
    let (mut pool, mut site) = (pool(), site());
    pool.usage = Use::DevelopmentOnly;
    assert!(check(&pool, &m2_ultra(), &site).is_ok());
    site.permitted_use = Use::DevelopmentOnly;
    assert!(check(&pool, &m2_ultra(), &site).is_ok());
}

#[test]
fn an_unreachable_objective_names_the_threshold_and_the_prompts_that_would_do() {
    let m4_pro = group("M4 Pro", 20, 64);
    let mut pool = pool();
    let problem = check(&pool, &m4_pro, &site()).unwrap_err();
    assert_eq!(
        problem.message,
        "TTFT p95 10s is unreachable: best is 11.4s on an idle M4 Pro; a threshold of at least 12s, or prompts of at most \
         3643 tokens, would do"
    );
    pool.objectives = vec![objective(Metric::TimeToFirstToken, 12_000)];
    assert!(check(&pool, &m4_pro, &site()).is_ok());

    pool.objectives = vec![objective(Metric::InterTokenLatency, 5)];
    let problem = check(&pool, &m4_pro, &site()).unwrap_err();
    assert!(
        problem.message.starts_with("ITL p95 5ms is unreachable: best is 2"),
        "{}",
        problem.message
    );
}

#[test]
fn lengths_refuse_only_while_they_are_measured() {
    use LengthSource::{Assumed, Measured, Remembered};
    let m4_pro = group("M4 Pro", 20, 64);
    let short = LengthMix {
        classes: vec![(200, 100), (900, 100)],
    };
    let long = LengthMix {
        classes: vec![(200, 100), (9_000, 100)],
    };
    let unknown = Demand::Unknown {
        since: Timestamp::default(),
        problem: Problem::new(Reason::MetricsUnavailable, "no source"),
        at_least: None,
    };
    for (demand, memory, source, permitted, doubted) in [
        (seen(Some(short.clone())), None, Measured, true, false),
        (seen(Some(long.clone())), None, Measured, false, true),
        (seen(Some(short.clone())), Some(long.clone()), Measured, true, false),
        (seen(None), Some(short), Remembered, true, false),
        (seen(None), Some(long), Remembered, true, true),
        (unknown.clone(), None, Assumed, true, true),
        (seen(None), Some(LengthMix { classes: Vec::new() }), Assumed, true, true),
    ] {
        let mut pool = pool();
        pool.demand = demand;
        pool.memory.lengths = memory;
        let judge = judge(&pool);
        let context = format!("{:?} {:?}", pool.demand, pool.memory.lengths);
        assert_eq!(judge.source(), source, "{context}");
        assert_eq!(
            judge.check(&GroupName::from("m4-pro"), &m4_pro, &site()).is_ok(),
            permitted,
            "{context}"
        );
        let performance = judge.performance(&m4_pro).unwrap();
        assert_eq!(judge.doubt(&m4_pro, &performance).is_some(), doubted, "{context}");
    }
    let mut pool = pool();
    pool.demand = unknown;
    assert_eq!(judge(&pool).lengths(), LengthMix::assumed());
}

#[test]
fn lengths_that_were_measured_long_ago_refuse_nothing() {
    let pool = pool();
    let m4_pro = group("M4 Pro", 20, 64);
    for (minutes, permitted) in [(9, false), (11, true)] {
        let now = Timestamp::default() + Span::from_minutes(minutes);
        let judge = Feasibility::of(&pool, Catalogue::builtin(), now);
        assert_eq!(
            judge.check(&GroupName::from("m4-pro"), &m4_pro, &site()).is_ok(),
            permitted,
            "after {minutes} minutes"
        );
    }
}

#[test]
fn a_site_that_the_route_does_not_reach_is_no_place_to_run() {
    let mut pool = pool();
    pool.routable_at = Some(BTreeSet::from([SiteName::from("home")]));
    assert!(check(&pool, &m2_ultra(), &site()).is_ok());
    pool.routable_at = Some(BTreeSet::new());
    let problem = check(&pool, &m2_ultra(), &site()).unwrap_err();
    assert_eq!(problem.reason, Reason::RouteUnsupported);
}

#[test]
fn the_problem_told_is_that_of_the_group_that_needs_the_smallest_change() {
    let sites = BTreeMap::from([(SiteName::from("home"), site())]);
    let named = |groups: Vec<(&str, Group)>| -> BTreeMap<GroupName, Group> {
        groups
            .into_iter()
            .map(|(name, group)| (GroupName::from(name), group))
            .collect()
    };
    let pool = pool();
    let unlabelled = Group {
        labels: BTreeMap::new(),
        ..m2_ultra()
    };
    for (groups, expected) in [
        (vec![], "there is no server group"),
        (vec![("a", unlabelled.clone())], "tier=gold"),
        (
            vec![("a", unlabelled.clone()), ("b", group("M4", 10, 16))],
            "on an idle M4;",
        ),
        (
            vec![("a", group("M4", 10, 16)), ("b", group("M4 Pro", 20, 64))],
            "on an idle M4 Pro;",
        ),
        (
            vec![("a", group("M5 Ultra", 80, 256)), ("b", unlabelled.clone())],
            "spec.performance must give",
        ),
    ] {
        let problem = judge(&pool).groups(&named(groups), &sites).unwrap_err();
        assert!(problem.message.contains(expected), "{}", problem.message);
    }

    let groups = named(vec![("a", unlabelled), ("b", m2_ultra())]);
    let found = judge(&pool).groups(&groups, &sites).unwrap();
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"]);
    // A group whose site is not known is no place to run.
    assert_eq!(
        judge(&pool).groups(&groups, &BTreeMap::new()).unwrap_err().reason,
        Reason::NoGroup
    );
}
