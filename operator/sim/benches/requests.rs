//! How many requests a second the simulator gets through, without a planner and with ours: a synthetic week with a daily and a weekly
//! rhythm, of the size and the lengths of the recorded ones, on 30 servers of three kinds.
//!
//! The bars are a week with 1 million requests in 6 s on one core, 170,000 requests/s, and in 30 s with our planner in the loop. The peer is what
//! simulators of engines usually do, to step through every iteration: its ratio is that of one server's engine alone. A plain program, because one
//! run takes seconds: `cargo bench -p pomarium-sim`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::time::Instant;

use pomarium_kernel::engine::skipping::SkippingEngine;
use pomarium_kernel::engine::{Engine, StepTimes};
use pomarium_kernel::fixture::machine;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::random::SplitMix;
use pomarium_kernel::snapshot::{Metric, Objective, Ownership, Pool, Site, Snapshot};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Fraction;
use pomarium_sim::machines::GroupModel;
use pomarium_sim::policy;
use pomarium_sim::policy::pomarium::{Ablation, Pomarium};
use pomarium_sim::trace::Arrival;
use pomarium_sim::world::{Scenario, World};

const REQUESTS: u64 = 1_000_000;
const WEEK_MS: u64 = 7 * 24 * 3_600_000;
const RUNS: usize = 5;
const BAR: f64 = REQUESTS as f64 / 6.0;
const PLANNED_BAR: f64 = 30.0;

fn main() {
    let trace = week();
    let scenario = scenario();
    for (name, knob) in [("static-peak", 30.0), ("hpa", 4.0)] {
        let mut rates: Vec<f64> = (0..RUNS).map(|_| measure(&scenario, &trace, name, knob)).collect();
        rates.sort_by(f64::total_cmp);
        let (median, best) = (rates[RUNS / 2], rates[RUNS - 1]);
        println!(
            "{name}: median {median:.0} requests/s, {:.1} times the bar; best of {RUNS} {best:.0}",
            median / BAR
        );
    }
    let seconds = planned(&scenario, &trace);
    println!(
        "pomarium: {seconds:.1} s, {:.1} times faster than the bar",
        PLANNED_BAR / seconds
    );
    compare_with_stepping(scenario.groups[0].times, &trace);
}

/// How long the week takes with our planner in the loop.
fn planned(scenario: &Scenario, trace: &[Arrival]) -> f64 {
    let (declared, id) = declared(scenario);
    let mut policy = Pomarium::new("pomarium", scenario, &declared, &id, Ablation::default());
    let start = Instant::now();
    let Ok(outcome) = World::new(scenario, None).run(trace.iter().copied().map(Ok::<_, Infallible>), &mut policy);
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(outcome.requests.total, trace.len() as u64);
    seconds
}

/// The objects that the scenario is about.
fn declared(scenario: &Scenario) -> (Snapshot, PoolId) {
    let mut pool = Pool::fixture().replicas(1, 30);
    pool.objectives.clone_from(&scenario.objectives);
    pool.performance.clear();
    let mut snapshot = Snapshot::default();
    let kinds = [
        (Ownership::Owned, machine("M2 Ultra", 76, 192)),
        (Ownership::Managed, machine("M4 Max", 40, 128)),
        (Ownership::Hosted, machine("M4 Pro", 20, 64)),
    ];
    for (model, (ownership, machine)) in scenario.groups.iter().zip(kinds) {
        let (group, figures) = support::declare(model, machine, 1.0);
        pool.performance.push(figures);
        pool.namespace_at.insert(model.name.as_str().into());
        snapshot
            .sites
            .insert(model.name.as_str().into(), Site::fixture(ownership));
        snapshot.groups.insert(model.name.as_str().into(), group);
    }
    let id = PoolId::new("assistants", "chat");
    snapshot.pools.insert(id.clone(), pool);
    (snapshot, id)
}

/// Of the week, one request in this many meets one server.
const THINNED: usize = 12;

/// One server's engine, from change to change and step by step.
fn compare_with_stepping(times: StepTimes, trace: &[Arrival]) {
    let requests: Vec<Arrival> = trace.iter().step_by(THINNED).copied().collect();
    let start = Instant::now();
    let skipped = skip(times, &requests);
    let skipping = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let stepped = step(times, &requests);
    let stepping = start.elapsed().as_secs_f64();
    assert_eq!(skipped, stepped);
    println!(
        "one engine: {:.0} requests/s, {:.0} times as many as stepping through every iteration",
        requests.len() as f64 / skipping,
        stepping / skipping
    );
}

/// When the last token came.
fn skip(times: StepTimes, requests: &[Arrival]) -> u64 {
    let mut engine = SkippingEngine::new(times);
    let mut finished = Vec::new();
    let mut last_ns = 0;
    for (id, request) in (0..).zip(requests) {
        let at_ns = request.arrival_ms * 1_000_000;
        engine.advance(at_ns, &mut finished);
        let fits = engine.submit(at_ns, id, request.prompt_tokens, request.output_tokens);
        assert!(fits.is_ok());
    }
    while let Some(at_ns) = engine.next_change_ns() {
        engine.advance(at_ns, &mut finished);
        last_ns = at_ns;
    }
    last_ns
}

fn step(times: StepTimes, requests: &[Arrival]) -> u64 {
    let mut engine = Engine::new(times);
    let mut arrivals = (0..).zip(requests).peekable();
    let (mut now_ns, mut last_ns) = (0, 0);
    loop {
        while let Some((id, request)) = arrivals.next_if(|(_, request)| request.arrival_ms * 1_000_000 <= now_ns) {
            let fits = engine.submit(id, request.prompt_tokens, request.output_tokens);
            assert!(fits.is_ok());
        }
        if let Some(step) = engine.step() {
            now_ns += step.duration_ns;
            last_ns = now_ns;
        } else if let Some((_, next)) = arrivals.peek() {
            now_ns = next.arrival_ms * 1_000_000;
        } else {
            return last_ns;
        }
    }
}

fn measure(scenario: &Scenario, trace: &[Arrival], name: &str, knob: f64) -> f64 {
    let Some(mut policy) = policy::build(name, true, knob, scenario) else {
        return 0.0;
    };
    let start = Instant::now();
    let Ok(outcome) = World::new(scenario, None).run(trace.iter().copied().map(Ok::<_, Infallible>), policy.as_mut());
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(outcome.requests.total, trace.len() as u64);
    trace.len() as f64 / seconds
}

/// Nights have a quarter of the rate of days, weekends half of that of weekdays; lengths as in recorded conversations.
fn week() -> Vec<Arrival> {
    let mut random = SplitMix::new(1);
    let mut trace = Vec::new();
    while (trace.len() as u64) < REQUESTS {
        let at = random.unit();
        let days = at * 7.0;
        let daily = 0.625 - 0.375 * (days.fract() * std::f64::consts::TAU).cos();
        let weekly = if days < 5.0 { 1.0 } else { 0.5 };
        if random.unit() > daily * weekly {
            continue;
        }
        // Exponential, with the means of azure-conv.
        let mut length = |mean: f64, most: f64| (-(1.0 - random.unit()).ln() * mean).clamp(1.0, most);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        trace.push(Arrival {
            arrival_ms: (at * WEEK_MS as f64) as u64,
            prompt_tokens: length(1_155.0, 8_000.0) as u32,
            output_tokens: length(211.0, 1_000.0) as u32,
        });
    }
    trace.sort();
    trace
}

fn scenario() -> Scenario {
    let group =
        |name: &str, [alpha, beta, delta]: [u64; 3], max: u32, hourly: f64, minimum_hours: u64, lead_secs: u64| {
            GroupModel {
                name: name.to_owned(),
                times: StepTimes {
                    alpha_ns: alpha,
                    beta_ns: beta,
                    delta_ns: delta,
                    kv_tokens: 400_000,
                    max_batch: 16,
                    prefill_chunk: 256,
                },
                load_ms: 30_000,
                lead_ms: lead_secs * 1_000,
                recycle_ms: 0,
                minimum_lease_ms: minimum_hours * 3_600_000,
                hourly,
                idle_watts: 10.0,
                busy_watts: 295.0,
                price_per_kwh: 0.15,
                max,
                always_on: false,
            }
        };
    let objective = |metric, threshold_ms| Objective {
        metric,
        percentile: Fraction::new(0.95),
        threshold: Span::from_millis(threshold_ms),
        window: Span::from_hours(24),
    };
    let groups = vec![
        group("owned", [10_200_000, 2_500_000, 1_000_000], 6, 0.0, 0, 60),
        group("managed", [12_000_000, 3_000_000, 1_300_000], 4, 1.55, 1, 300),
        group("hosted", [18_400_000, 4_600_000, 2_300_000], 20, 1.97, 24, 900),
    ];
    let objectives = vec![
        objective(Metric::TimeToFirstToken, 12_000),
        objective(Metric::InterTokenLatency, 250),
    ];
    Scenario {
        start_ms: -1_800_000,
        ..Scenario::new(groups, objectives, 211.0)
    }
}
