#![allow(clippy::unwrap_used, clippy::float_cmp)]

mod accounts;
mod faults;
mod waiting;

use std::convert::Infallible;

use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::snapshot::{Discipline, Metric, Objective};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Fraction;

use super::*;
use crate::machines::GroupModel;
use crate::schedule::{self, Line};

/// Does what a table says, by the index of the tick.
struct Script(Vec<(usize, Vec<Command>)>, usize);

impl Policy for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn decide(&mut self, _: &View<'_>) -> Vec<Command> {
        let tick = self.1;
        self.1 += 1;
        let due = self.0.iter().filter(|(at, _)| *at == tick);
        due.flat_map(|(_, commands)| commands.clone()).collect()
    }
}

fn scenario() -> Scenario {
    let objective = |metric, threshold_ms| Objective {
        metric,
        percentile: Fraction::new(0.95),
        threshold: Span::from_millis(threshold_ms),
        window: Span::from_hours(24),
    };
    Scenario {
        groups: vec![GroupModel {
            name: "hosted".to_owned(),
            times: StepTimes {
                alpha_ns: 10_000_000,
                beta_ns: 2_000_000,
                delta_ns: 1_000_000,
                kv_tokens: 100_000,
                max_batch: 4,
                prefill_chunk: 256,
            },
            load_ms: 30_000,
            lead_ms: 60_000,
            recycle_ms: 600_000,
            minimum_lease_ms: 3_600_000,
            hourly: 2.0,
            idle_watts: 10.0,
            busy_watts: 110.0,
            price_per_kwh: 0.5,
            max: 2,
            always_on: false,
        }],
        objectives: vec![
            objective(Metric::TimeToFirstToken, 10_000),
            objective(Metric::InterTokenLatency, 250),
        ],
        context_tokens: 4_096,
        start_ms: -120_000,
        grace_ms: 600_000,
        ..Scenario::new(Vec::new(), Vec::new(), 100.0)
    }
}

fn arrivals(count: u64, every_ms: u64) -> Vec<Result<Arrival, Infallible>> {
    let arrival = |index| Arrival {
        arrival_ms: index * every_ms,
        prompt_tokens: 400,
        output_tokens: 100,
    };
    (0..count).map(|index| Ok(arrival(index))).collect()
}

/// Leases both machines at the start and serves with them as soon as they are Ready.
fn both() -> Vec<(usize, Vec<Command>)> {
    let lease = Command::Lease { group: 0 };
    let serve = |machine| Command::Serve { machine };
    vec![(0, vec![lease.clone(), lease]), (5, vec![serve(0), serve(1)])]
}

fn run(script: Vec<(usize, Vec<Command>)>, trace: Vec<Result<Arrival, Infallible>>) -> (Outcome, String) {
    let scenario = scenario();
    let file = tempfile();
    let mut schedule = Schedule::new(Box::new(std::fs::File::create(&file).unwrap()));
    let outcome = World::new(&scenario, Some(&mut schedule))
        .run(trace, &mut Script(script, 0))
        .unwrap();
    schedule.finish().unwrap();
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    (outcome, written)
}

fn tempfile() -> std::path::PathBuf {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::env::temp_dir().join(format!("pomarium-schedule-{}-{count}.jsonl", std::process::id()))
}

#[test]
fn every_request_is_answered_once_and_the_same_input_gives_the_same_bytes() {
    let (outcome, schedule) = run(both(), arrivals(500, 700));
    assert_eq!(
        (outcome.requests.total, outcome.requests.completed, outcome.refused),
        (500, 500, 0)
    );
    assert_eq!(outcome.requests.cut + outcome.requests.never_served, 0);
    assert_eq!((outcome, schedule), run(both(), arrivals(500, 700)));
}

#[test]
fn a_machine_serves_no_earlier_than_lead_time_and_model_load() {
    let (_, schedule) = run(both(), arrivals(10, 1_000));
    let lines: Vec<&str> = schedule.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"t":-120000,"node":"hosted-0","group":"hosted","event":"lease"}"#
    );
    // Ready at -60 s, told to serve at the tick of -45 s, loaded 30 s later.
    assert_eq!(
        lines[2],
        r#"{"t":-15000,"node":"hosted-0","group":"hosted","event":"serve"}"#
    );
}

#[test]
fn a_drain_cuts_nothing_and_what_waits_goes_to_another_machine() {
    let mut script = both();
    script.push((20, vec![Command::Drain { machine: 0 }]));
    // Three requests a second are more than two machines carry: both have a queue when the drain begins.
    let (outcome, schedule) = run(script, arrivals(600, 333));
    assert!(schedule.contains("drain"));
    assert_eq!(
        (
            outcome.requests.completed,
            outcome.requests.cut,
            outcome.requests.never_served
        ),
        (600, 0, 0)
    );
}

#[test]
fn a_lease_given_back_early_is_paid_to_its_minimum() {
    let mut script = both();
    script.push((20, vec![Command::Drain { machine: 1 }]));
    script.push((30, vec![Command::Release { machine: 1 }]));
    let (outcome, _) = run(script, arrivals(400, 1_500));
    let paid = outcome.paid[0];
    assert_eq!(paid.early_releases, 1);
    // Machine 1: its whole hour. Machine 0: two minutes of warm start and the 598.5 s of the trace, the rest is owed.
    let on = (120.0 + 598.5) / 3_600.0;
    assert!((paid.leases - 2.0 * (1.0 + on)).abs() < 1e-9, "{paid:?}");
    assert!((paid.obligations - 2.0 * (1.0 - on)).abs() < 1e-9, "{paid:?}");
}

#[test]
fn impossible_commands_are_refused_and_counted() {
    let script = vec![
        (0, vec![Command::Lease { group: 0 }; 3]),
        (
            1,
            vec![
                Command::Serve { machine: 0 },
                Command::Release { machine: 1 },
                Command::Resume { machine: 0 },
            ],
        ),
    ];
    let (outcome, schedule) = run(script, arrivals(1, 1));
    assert_eq!(outcome.refused, 4);
    assert_eq!(schedule.lines().count(), 2);
}

#[test]
fn requests_wait_while_nothing_serves_and_the_rest_is_never_served() {
    let (outcome, _) = run(Vec::new(), arrivals(60, 1_000));
    assert_eq!((outcome.requests.never_served, outcome.requests.completed), (60, 0));
    assert_eq!(outcome.objectives[0].attainment, 0.0);
    assert_eq!(outcome.objectives[0].value_seconds, None);
}

#[test]
fn what_is_longer_than_the_context_is_rejected_and_not_scored() {
    let mut trace = arrivals(100, 1_000);
    trace.push(Ok(Arrival {
        arrival_ms: 100_000,
        prompt_tokens: 4_000,
        output_tokens: 100,
    }));
    let (outcome, _) = run(both(), trace);
    assert_eq!((outcome.requests.total, outcome.requests.rejected), (100, 1));
    assert_eq!(outcome.objectives[0].attainment, 1.0);
}
