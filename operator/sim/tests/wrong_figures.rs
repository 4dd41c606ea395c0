//! Figures of a machine that are ten times off: nothing is shed for them, and nothing is bought without end.

#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;

use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::fixture::machine;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::snapshot::{Metric, Objective, Ownership, Pool, Site, Snapshot};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Fraction;
use pomarium_sim::machines::GroupModel;
use pomarium_sim::policy::pomarium::{Ablation, Pomarium};
use pomarium_sim::schedule::{Line, Schedule, ScheduleEvent};
use pomarium_sim::trace::Arrival;
use pomarium_sim::world::{Outcome, Scenario, World};

use support::declare;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// What one server really does: about 0.56 requests/s of 1,000 and 100 tokens.
const TIMES: StepTimes = StepTimes {
    alpha_ns: 10_000_000,
    beta_ns: 2_000_000,
    delta_ns: 1_000_000,
    kv_tokens: 100_000,
    max_batch: 8,
    prefill_chunk: 256,
};

/// Servers to lease by the hour, within five minutes each.
fn scenario() -> Scenario {
    let group = GroupModel {
        name: "hosted".to_owned(),
        times: TIMES,
        load_ms: 30_000,
        lead_ms: 300_000,
        recycle_ms: 0,
        minimum_lease_ms: 3_600_000,
        hourly: 1.0,
        idle_watts: 10.0,
        busy_watts: 200.0,
        price_per_kwh: 0.2,
        max: 100,
        always_on: false,
    };
    let objective = |metric, threshold| Objective {
        metric,
        percentile: Fraction::new(0.95),
        threshold: Span::from_millis(threshold),
        window: Span::from_hours(24),
    };
    let objectives = vec![
        objective(Metric::TimeToFirstToken, 8_000),
        objective(Metric::InterTokenLatency, 250),
    ];
    Scenario {
        start_ms: -600_000,
        ..Scenario::new(vec![group], objectives, 100.0)
    }
}

/// The objects that say so, but with step times that are `wrong` times as long.
fn declared(scenario: &Scenario, wrong: f64) -> (Snapshot, PoolId) {
    let model = &scenario.groups[0];
    let (group, figures) = declare(model, machine("M2 Ultra", 76, 192), wrong);
    let mut pool = Pool::fixture();
    pool.objectives.clone_from(&scenario.objectives);
    pool.performance = vec![figures];
    pool.replicas.max = 100;
    pool.namespace_at.insert("hosted".into());
    let id = PoolId::new("assistants", "chat");
    let mut snapshot = Snapshot::default();
    snapshot.sites.insert("hosted".into(), Site::fixture(Ownership::Hosted));
    snapshot.groups.insert("hosted".into(), group);
    snapshot.pools.insert(id.clone(), pool);
    (snapshot, id)
}

/// Requests that arrive at random, `rate` a second, for so many hours.
fn trace(rate: f64, hours: i64) -> Vec<Arrival> {
    let mut state = 7_u64;
    let mut uniform = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let (mut at_ms, mut arrivals) = (0.0, Vec::new());
    while at_ms < (hours * HOUR) as f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within a day")]
        arrivals.push(Arrival {
            arrival_ms: at_ms as u64,
            prompt_tokens: 600 + (800.0 * uniform()) as u32,
            output_tokens: 60 + (80.0 * uniform()) as u32,
        });
        at_ms -= uniform().ln() / rate * 1_000.0;
    }
    arrivals
}

struct Played {
    outcome: Outcome,
    lines: Vec<Line>,
}

fn play(wrong: f64, rate: f64, hours: i64) -> Played {
    let scenario = scenario();
    let (snapshot, id) = declared(&scenario, wrong);
    let mut policy = Pomarium::new("pomarium", &scenario, &snapshot, &id, Ablation::default());
    let mut schedule = Schedule::kept();
    let arrivals = trace(rate, hours).into_iter().map(Ok::<_, Infallible>);
    let Ok(outcome) = World::new(&scenario, Some(&mut schedule)).run(arrivals, &mut policy);
    Played {
        outcome,
        lines: schedule.lines().to_vec(),
    }
}

impl Played {
    /// Servers that serve, or are leased, at a time.
    fn count(&self, at_ms: i64, event: ScheduleEvent) -> usize {
        let of = |event: ScheduleEvent| {
            self.lines
                .iter()
                .filter(|line| line.t <= at_ms && line.event == event)
                .count()
        };
        let gone = match event {
            ScheduleEvent::Serve => of(ScheduleEvent::Drain),
            _ => of(ScheduleEvent::Release),
        };
        of(event) - gone
    }

    fn last(&self, event: ScheduleEvent) -> i64 {
        let times = self.lines.iter().filter(|line| line.event == event).map(|line| line.t);
        times.max().unwrap_or(i64::MIN)
    }
}

/// What is needed, with figures that are right.
const NEEDED: usize = 6;

#[test]
fn with_right_figures_nothing_is_corrected() {
    let played = play(1.0, 4.0, 6);
    assert_eq!(played.count(6 * HOUR, ScheduleEvent::Serve), NEEDED);
}

#[test]
fn figures_ten_times_too_good_are_found_out_and_the_pool_gets_its_servers_in_bounded_time() {
    let played = play(0.1, 4.0, 6);
    assert_eq!(played.outcome.requests.completed, played.outcome.requests.total);
    let within = played.count(HOUR, ScheduleEvent::Serve);
    assert!(within >= NEEDED, "{within} serve after an hour");
    for hour in 1..6 {
        let serve = played.count(hour * HOUR, ScheduleEvent::Serve);
        assert!(
            (NEEDED..=2 * NEEDED).contains(&serve),
            "{serve} serve after {hour} hours"
        );
    }
    assert!(played.last(ScheduleEvent::Lease) < HOUR, "and then it ends");
}

#[test]
fn figures_ten_times_too_bad_neither_shed_traffic_nor_buy_without_end() {
    let played = play(10.0, 4.0, 6);
    assert_eq!(played.outcome.requests.completed, played.outcome.requests.total);
    let within = played.count(HOUR, ScheduleEvent::Serve);
    assert!(within >= NEEDED, "{within} serve after an hour");
    let most = (0..6 * 60)
        .map(|minute| played.count(minute * MINUTE, ScheduleEvent::Lease))
        .max()
        .unwrap();
    assert!(most <= 2 * NEEDED, "{most} were leased");
    assert!(played.last(ScheduleEvent::Lease) < HOUR, "and then it ends");
}
