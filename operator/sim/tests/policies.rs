//! What holds for every baseline, whatever the trace, the groups and the faults.

#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;

use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::fixture::machine;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::snapshot::{Discipline, Metric, Objective, Ownership, Pool, Site, Snapshot};
use pomarium_kernel::strategy::Effort;
use pomarium_kernel::time::Span;
use pomarium_kernel::units::{Fraction, Money};
use pomarium_sim::machines::GroupModel;
use pomarium_sim::policy::optimum::{Foreseen, Optimum};
use pomarium_sim::policy::pomarium::{Ablation, Pomarium};
use pomarium_sim::policy::{self, BASELINES};
use pomarium_sim::schedule::{self, Line, Schedule, ScheduleEvent};
use pomarium_sim::sweep::{Bench, Goal, cheapest, pareto};
use pomarium_sim::timeline::Timeline;
use pomarium_sim::trace::{Arrival, Stream, Trace, TraceError};
use pomarium_sim::world::{Accounting, Faults, Outcome, Over, Policy, Scenario, StockOut, World};
use proptest::prelude::*;

use support::declare;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn group(name: &str, slowness: u64, max: u32) -> GroupModel {
    GroupModel {
        name: name.to_owned(),
        times: StepTimes {
            alpha_ns: 10_000_000 * slowness,
            beta_ns: 2_000_000 * slowness,
            delta_ns: 1_000_000 * slowness,
            kv_tokens: 100_000,
            max_batch: 8,
            prefill_chunk: 256,
        },
        load_ms: 30_000,
        lead_ms: 60_000,
        recycle_ms: 0,
        minimum_lease_ms: 0,
        hourly: 0.0,
        idle_watts: 10.0,
        busy_watts: 200.0,
        price_per_kwh: 0.2,
        max,
        always_on: false,
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

/// Two owned machines, two managed, four hosted that are slower and leased for three hours at least.
fn scenario() -> Scenario {
    let groups = vec![
        group("owned", 1, 2),
        GroupModel {
            hourly: 1.0,
            minimum_lease_ms: HOUR,
            lead_ms: 5 * MINUTE,
            ..group("managed", 1, 2)
        },
        GroupModel {
            hourly: 2.0,
            minimum_lease_ms: 3 * HOUR,
            lead_ms: 15 * MINUTE,
            recycle_ms: 110 * MINUTE,
            ..group("hosted", 2, 4)
        },
    ];
    let objectives = vec![
        objective(Metric::TimeToFirstToken, 5_000),
        objective(Metric::InterTokenLatency, 200),
    ];
    Scenario {
        start_ms: -600_000,
        ..Scenario::new(groups, objectives, 100.0)
    }
}

/// The objects that the scenario is about.
fn declared(scenario: &Scenario) -> (Snapshot, PoolId) {
    let mut pool = Pool::fixture();
    pool.objectives.clone_from(&scenario.objectives);
    pool.performance.clear();
    let mut snapshot = Snapshot::default();
    for (model, ownership) in scenario
        .groups
        .iter()
        .zip([Ownership::Owned, Ownership::Managed, Ownership::Hosted])
    {
        let machine = machine("M2 Ultra", 76, 192 + 64 * u32::from(ownership == Ownership::Hosted));
        let (group, figures) = declare(model, machine, 1.0);
        pool.performance.push(figures);
        let mut site = Site::fixture(ownership);
        site.energy.price_per_kwh = Money::from_f64(model.price_per_kwh);
        pool.namespace_at.insert(model.name.as_str().into());
        snapshot.sites.insert(model.name.as_str().into(), site);
        snapshot.groups.insert(model.name.as_str().into(), group);
    }
    let id = PoolId::new("assistants", "chat");
    snapshot.pools.insert(id.clone(), pool);
    (snapshot, id)
}

/// Requests at a steady rate per second, from one time to another.
fn steady(rate: f64, from_ms: u64, until_ms: u64) -> Vec<Arrival> {
    let every_ms = 1_000.0 / rate;
    let count = (until_ms - from_ms) as f64 / every_ms;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0..count as u64)
        .map(|index| Arrival {
            arrival_ms: from_ms + (index as f64 * every_ms) as u64,
            prompt_tokens: 600,
            output_tokens: 100,
        })
        .collect()
}

fn run(scenario: &Scenario, trace: &[Arrival], name: &str, lease_aware: bool, knob: f64) -> (Outcome, Vec<Line>) {
    play(
        scenario,
        trace,
        policy::build(name, lease_aware, knob, scenario).unwrap(),
    )
}

fn play(scenario: &Scenario, trace: &[Arrival], mut policy: Box<dyn Policy>) -> (Outcome, Vec<Line>) {
    let mut schedule = Schedule::kept();
    let arrivals = trace.iter().copied().map(Ok::<_, Infallible>);
    let Ok(outcome) = World::new(scenario, Some(&mut schedule)).run(arrivals, policy.as_mut());
    (outcome, schedule.lines().to_vec())
}

/// What leases cost by the schedule alone, to `end_ms`: each is paid at least to its minimum once it is given back.
fn leases_by_the_schedule(lines: &[Line], groups: &[GroupModel], end_ms: i64) -> f64 {
    let within = lines.iter().filter(|line| line.t <= end_ms);
    let mut open: Vec<(&str, i64)> = Vec::new();
    let mut cost = 0.0;
    let hours = |ms: i64| ms as f64 / HOUR as f64;
    for line in within {
        let model = groups.iter().find(|group| group.name == line.group).unwrap();
        match line.event {
            ScheduleEvent::Lease => open.push((&line.node, line.t)),
            ScheduleEvent::Release => {
                let index = open.iter().position(|(node, _)| *node == line.node).unwrap();
                let (_, from_ms) = open.swap_remove(index);
                let minimum_ms = i64::try_from(model.minimum_lease_ms).unwrap();
                cost += hours((line.t - from_ms).max(minimum_ms)) * model.hourly;
            }
            ScheduleEvent::Serve | ScheduleEvent::Drain => {}
        }
    }
    for (node, from_ms) in open {
        let model = groups.iter().find(|group| group.ordinal(node).is_some()).unwrap();
        cost += hours(end_ms - from_ms) * model.hourly;
    }
    cost
}

fn faults() -> impl Strategy<Value = Faults> {
    let stock_out = (0_usize..3, 0_i64..4, 1_i64..4).prop_map(|(group, from, length)| StockOut {
        group,
        from_ms: from * 3_600_000,
        until_ms: (from + length) * 3_600_000,
    });
    (
        prop::option::of(1.0_f64..10.0),
        prop::collection::vec(stock_out, 0..2),
        0.0_f64..1.0,
    )
        .prop_map(|(mean_hours_to_death, stock_outs, late_share)| Faults {
            mean_hours_to_death,
            repair_ms: 20 * MINUTE,
            stock_outs,
            late_share,
            late_factor: 3.0,
        })
}

/// Hours with a rate each, so that there are peaks and idle times.
fn trace() -> impl Strategy<Value = Vec<Arrival>> {
    let rate = prop_oneof![Just(0.01), 0.05_f64..0.5, 0.5_f64..2.0];
    prop::collection::vec((rate, 1_u32..2_000, 1_u32..300), 1..6).prop_map(|hours| {
        let of_hour = |(hour, (rate, prompt_tokens, output_tokens)): (usize, (f64, u32, u32))| {
            let from_ms = hour as u64 * HOUR;
            steady(rate, from_ms, from_ms + HOUR)
                .into_iter()
                .map(move |arrival| Arrival {
                    prompt_tokens,
                    output_tokens,
                    ..arrival
                })
        };
        hours.into_iter().enumerate().flat_map(of_hour).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_request_is_lost_and_every_schedule_is_possible_and_paid_for(
        trace in trace(),
        which in 0..BASELINES.len(),
        lease_aware in any::<bool>(),
        position in 0.0_f64..1.0,
        weighted in any::<bool>(),
        faults in faults(),
        seed in any::<u64>(),
    ) {
        let mut scenario = Scenario { seed, faults, ..scenario() };
        if weighted {
            scenario.discipline = Discipline::Weighted;
        }
        let baseline = BASELINES[which];
        let knobs = baseline.knobs(&scenario);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let knob = knobs[(position * knobs.len() as f64) as usize];
        let (outcome, lines) = run(&scenario, &trace, baseline.name, lease_aware, knob);

        let requests = outcome.requests;
        prop_assert_eq!(requests.total, trace.len() as u64);
        prop_assert_eq!(requests.completed + requests.cut + requests.never_served, requests.total);
        prop_assert_eq!(outcome.refused, 0);
        prop_assert_eq!(schedule::check(&lines, &scenario.groups), []);
        if scenario.faults.mean_hours_to_death.is_none() {
            prop_assert_eq!(requests.cut, 0);
        }
        for (group, paid) in scenario.groups.iter().zip(&outcome.paid) {
            prop_assert!(paid.peak <= group.max);
        }
        if lease_aware {
            prop_assert_eq!(outcome.early_releases(), 0);
        }
        let end_ms = i64::try_from(trace.last().unwrap().arrival_ms).unwrap();
        let expected = leases_by_the_schedule(&lines, &scenario.groups, end_ms);
        prop_assert!((outcome.leases() - expected).abs() < 1e-6, "{} and {expected}", outcome.leases());

        prop_assert_eq!((outcome, lines), run(&scenario, &trace, baseline.name, lease_aware, knob));
    }

    #[test]
    fn a_time_line_counts_every_request_once_and_ends_at_the_whole_cost(trace in trace(), faults in faults()) {
        let scenario = Scenario { faults, ..scenario() };
        let mut timeline = Timeline::new();
        let mut policy = policy::build("hpa", true, 2.0, &scenario).unwrap();
        let arrivals = trace.iter().copied().map(Ok::<_, Infallible>);
        let world = World::new(&scenario, None).with_timeline(&mut timeline);
        let Ok(outcome) = world.run(arrivals, policy.as_mut());
        let sum = |of: &dyn Fn(&pomarium_sim::timeline::Bucket) -> u64| timeline.buckets.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(&|bucket| bucket.arrivals), outcome.requests.total);
        prop_assert_eq!(sum(&|bucket| bucket.served), outcome.requests.completed);
        let most = sum(&|bucket| bucket.misses[0]) as f64 / outcome.requests.total as f64;
        prop_assert!((1.0 - most - outcome.objectives[0].attainment).abs() < 1e-9);
        prop_assert!(timeline.buckets.is_sorted_by(|left, right| left.cost <= right.cost));
        let last = timeline.buckets.last().unwrap().cost;
        let whole = outcome.cost(Accounting::ToTheEnd);
        prop_assert!((last - whole).abs() < 1e-6, "{last} and {whole}");
        // The policy is the same with and without one who watches.
        prop_assert_eq!(outcome, run(&scenario, &trace, "hpa", true, 2.0).0);
    }
}

/// Pomarium's plan, or one that knows the future.
fn planned(scenario: &Scenario, trace: &[Arrival], knows_the_future: bool) -> Box<dyn Policy> {
    if knows_the_future {
        let requests = trace.iter().copied().map(Ok::<_, Infallible>);
        let Ok(foreseen) = Foreseen::of(requests, trace.len() as u64);
        Box::new(Optimum::new(scenario, &foreseen, 1.0, Effort::REPLAN))
    } else {
        let (declared, pool) = declared(scenario);
        Box::new(Pomarium::new(
            "pomarium",
            scenario,
            &declared,
            &pool,
            Ablation::default(),
        ))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn plans_lose_no_request_break_no_lease_and_are_the_same_each_time(
        trace in trace(),
        knows_the_future in any::<bool>(),
        faults in faults(),
        seed in any::<u64>(),
    ) {
        let scenario = Scenario { seed, faults, ..scenario() };
        let (outcome, lines) = play(&scenario, &trace, planned(&scenario, &trace, knows_the_future));
        let requests = outcome.requests;
        prop_assert_eq!(requests.completed + requests.cut + requests.never_served, trace.len() as u64);
        if scenario.faults.mean_hours_to_death.is_none() {
            prop_assert_eq!(requests.cut, 0);
        }
        prop_assert_eq!(schedule::check(&lines, &scenario.groups), []);
        // A machine that has died is given back before its term: it is of no use, and its place is.
        prop_assert!(u64::from(outcome.early_releases()) <= outcome.deaths);
        prop_assert_eq!(outcome.refused, 0);
        let again = play(&scenario, &trace, planned(&scenario, &trace, knows_the_future));
        prop_assert_eq!((outcome, lines), again);
    }
}

#[test]
fn a_plan_leases_for_a_peak_that_lasts_and_not_for_one_that_does_not() {
    let scenario = scenario();
    let with_peak = |minutes: u64| {
        let mut trace = steady(0.5, 0, 2 * HOUR);
        trace.extend(steady(4.6, 2 * HOUR, 2 * HOUR + minutes * MINUTE));
        trace.extend(steady(0.5, 2 * HOUR + minutes * MINUTE, 8 * HOUR));
        let policy = planned(&scenario, &trace, true);
        let (outcome, lines) = play(&scenario, &trace, policy);
        let hosted = |line: &&Line| line.event == ScheduleEvent::Lease && line.group == "hosted";
        (lines.iter().filter(hosted).count(), outcome)
    };
    let (leases, _) = with_peak(1);
    assert_eq!(leases, 0, "the error budget of the day covers a minute");
    let (leases, outcome) = with_peak(240);
    assert!(leases > 0);
    assert!(outcome.objectives[0].attainment > 0.9, "{:?}", outcome.objectives);
}

/// When machines were leased, in ms; the first of all left out, which every policy has from the start.
fn leased(lines: &[Line]) -> Vec<i64> {
    let leases = lines.iter().filter(|line| line.event == ScheduleEvent::Lease);
    leases.map(|line| line.t).skip(1).collect()
}

/// One request a minute, and from the first hour on 3 a second.
fn step() -> Vec<Arrival> {
    let mut trace = steady(1.0 / 60.0, 0, HOUR);
    trace.extend(steady(3.0, HOUR, HOUR + 40 * MINUTE));
    trace
}

#[test]
fn each_baseline_answers_a_step_in_its_own_time() {
    let scenario = scenario();
    let at = 3_600_000;
    // The first lease after the step comes within these times of it.
    let cases = [
        ("hpa", 4.0, 15_000..=60_000),
        ("keda-slo", 1.0, 30_000..=240_000),
        ("wva", 1.0, 240_000..=330_000),
        ("dynamo", 1.0, 15_000..=210_000),
        ("skyserve", 0.5, 300_000..=345_000),
    ];
    for (name, knob, expected) in cases {
        let (_, lines) = run(&scenario, &step(), name, false, knob);
        let first = leased(&lines).into_iter().find(|&t| t >= at);
        let after = first.unwrap_or_else(|| panic!("{name} never leases")) - at;
        assert!(expected.contains(&after), "{name} leases {after} ms after the step");
    }
}

#[test]
fn static_peak_leases_at_the_start_in_the_order_of_placement_and_never_again() {
    let (outcome, lines) = run(&scenario(), &step(), "static-peak", false, 5.0);
    let leases: Vec<_> = lines.iter().filter(|line| line.event == ScheduleEvent::Lease).collect();
    let nodes: Vec<&str> = leases.iter().map(|line| line.node.as_str()).collect();
    assert_eq!(nodes, ["owned-0", "owned-1", "managed-0", "managed-1", "hosted-0"]);
    assert!(leases.iter().all(|line| line.t == -600_000));
    assert_eq!((outcome.peak, outcome.moves), (5, 5));
}

#[test]
fn skyserve_gives_back_only_after_twenty_minutes_of_less() {
    let mut trace = steady(2.0, 0, HOUR);
    trace.extend(steady(0.05, HOUR, 2 * HOUR));
    let (_, lines) = run(&scenario(), &trace, "skyserve", false, 0.5);
    let first = lines.iter().find(|line| line.event == ScheduleEvent::Drain).unwrap();
    let after = first.t - 3_600_000;
    assert!((1_200_000..=1_300_000).contains(&after), "{after} ms after the step");
}

#[test]
fn leases_are_kept_to_their_end_and_then_only_if_needed() {
    // A peak of 20 minutes that takes everything, and then next to nothing.
    let mut trace = steady(4.0, 0, 20 * MINUTE);
    trace.extend(steady(0.05, 20 * MINUTE, 6 * HOUR));
    let (plain, _) = run(&scenario(), &trace, "hpa", false, 4.0);
    let (aware, lines) = run(&scenario(), &trace, "hpa", true, 4.0);
    assert!(plain.early_releases() >= 4, "{}", plain.early_releases());
    assert_eq!(aware.early_releases(), 0);
    assert!(
        aware.leases() <= plain.leases() * 1.01,
        "{} and {}",
        aware.leases(),
        plain.leases()
    );
    for release in lines
        .iter()
        .filter(|line| line.event == ScheduleEvent::Release && line.group == "hosted")
    {
        let leased = lines
            .iter()
            .find(|line| line.node == release.node && line.event == ScheduleEvent::Lease)
            .unwrap();
        let held = release.t - leased.t;
        let (least, most) = (3 * HOUR, 3 * HOUR + 2 * MINUTE);
        assert!(
            (least..=most).contains(&held.unsigned_abs()),
            "{} held {held} ms",
            release.node
        );
    }
}

#[test]
fn a_group_without_stock_is_passed_over_for_the_next() {
    let mut scenario = scenario();
    scenario.faults.stock_outs = vec![StockOut {
        group: 0,
        from_ms: -600_000,
        until_ms: 3_600_000,
    }];
    let (outcome, lines) = run(&scenario, &steady(0.2, 0, HOUR), "static-peak", false, 2.0);
    assert!(outcome.out_of_stock > 0);
    assert_eq!(outcome.refused, 0);
    let nodes: Vec<&str> = lines.iter().take(2).map(|line| line.node.as_str()).collect();
    assert_eq!(nodes, ["managed-0", "managed-1"]);
}

#[test]
fn the_search_finds_the_cheapest_that_attains_and_the_front_is_a_front() {
    let mut scenario = scenario();
    scenario.start_ms = -HOUR.cast_signed();
    let trace = steady(1.5, 0, 2 * HOUR);
    let bench = Bench {
        scenario: &scenario,
        trace: &trace,
        progress: &|_| {},
    };
    let goal = Goal::default();
    let baseline = policy::baseline("static-peak").unwrap();
    let search = bench.cheapest_attaining(baseline, Some(false), goal).unwrap();
    let best = &search.runs[search.best.unwrap()];
    assert!(best.outcome.attains(Over::Trace));
    // One server fewer is not enough: found by trying all of them.
    let all = bench.runs(baseline, false, &baseline.knobs(&scenario)).unwrap();
    let exhaustive = &all[cheapest(&all, goal).unwrap()];
    assert!(
        (exhaustive.knob - best.knob).abs() < 1e-9,
        "{} and {}",
        exhaustive.knob,
        best.knob
    );
    let front = pareto(&all, goal);
    assert!(front.len() > 1);
    for pair in front.windows(2) {
        assert!(pair[0].outcome.cost(goal.accounting) < pair[1].outcome.cost(goal.accounting));
        assert!(pair[0].outcome.margin(goal.over) < pair[1].outcome.margin(goal.over));
    }
}

/// Breaks off in the middle.
struct Damaged(Vec<Arrival>);

impl Trace for Damaged {
    fn requests(&self) -> Result<Stream<'_>, TraceError> {
        let error = || TraceError::Changed { path: "a.csv".into() };
        let half = self.0.iter().take(self.0.len() / 2);
        Ok(Box::new(
            half.copied().map(Ok).chain(std::iter::once_with(move || Err(error()))),
        ))
    }
}

#[test]
fn a_trace_that_breaks_off_is_an_error_of_the_search_and_not_a_short_trace() {
    let scenario = scenario();
    let trace = Damaged(steady(0.5, 0, HOUR));
    let bench = Bench {
        scenario: &scenario,
        trace: &trace,
        progress: &|_| panic!("no run ends"),
    };
    let baseline = policy::baseline("hpa").unwrap();
    let found = bench.cheapest_attaining(baseline, None, Goal::default());
    assert!(matches!(found, Err(TraceError::Changed { .. })), "{found:?}");
}
