//! What machines cost, and when it counts.

use super::*;

fn outcome(
    scenario: &Scenario,
    script: Vec<(usize, Vec<Command>)>,
    trace: Vec<Result<Arrival, Infallible>>,
) -> Outcome {
    let Ok(outcome) = World::new(scenario, None).run(trace, &mut Script(script, 0));
    outcome
}

#[test]
fn energy_is_idle_watts_while_on_and_busy_watts_while_iterating() {
    let scenario = scenario();
    let lease = vec![(0, vec![Command::Lease { group: 0 }])];
    // Never told to serve: on for the warm start of 120 s and the hour until the last request, at 10 W and 0.5 per kWh.
    let idle = outcome(&scenario, lease, arrivals(2, 3_600_000));
    assert!(
        (idle.energy() - 3_720.0 / 3_600.0 * 0.01 * 0.5).abs() < 1e-9,
        "{}",
        idle.energy()
    );
    // One request of 400 prompt and 100 output tokens: 10 + 256, 10 + 144, and 99 steps of 12 ms each, at 110 W.
    let busy = outcome(&scenario, both(), arrivals(101, 5_000));
    let hours_on = 2.0 * (120.0 + 500.0) / 3_600.0;
    let busy_hours = 100.0 * (266.0 + 154.0 + 99.0 * 12.0) / 3_600_000.0;
    let kwh = (hours_on * 10.0 + busy_hours * 100.0) / 1_000.0;
    assert!(
        (busy.energy() - kwh * 0.5).abs() < 1e-9,
        "{} and {}",
        busy.energy(),
        kwh * 0.5
    );
}

#[test]
fn machines_that_are_always_on_are_there_from_the_start_and_cannot_be_given_back() {
    let mut scenario = scenario();
    scenario.groups[0].always_on = true;
    let script = vec![(
        0,
        vec![
            Command::Serve { machine: 0 },
            Command::Release { machine: 1 },
            Command::Lease { group: 0 },
        ],
    )];
    let outcome = outcome(&scenario, script, arrivals(101, 5_000));
    assert_eq!((outcome.refused, outcome.requests.completed, outcome.peak), (2, 101, 1));
    assert!((outcome.paid[0].machine_hours - 2.0 * 620.0 / 3_600.0).abs() < 1e-9);
}

#[test]
fn the_history_is_neither_scored_nor_paid() {
    let whole = scenario();
    let scored = Scenario {
        score_from_ms: 300_000,
        ..scenario()
    };
    let mut script = both();
    script.push((40, vec![Command::Drain { machine: 1 }]));
    script.push((60, vec![Command::Release { machine: 1 }]));
    let (all, part) = (
        outcome(&whole, script.clone(), arrivals(1_001, 1_000)),
        outcome(&scored, script, arrivals(1_001, 1_000)),
    );
    assert_eq!((all.requests.total, part.requests.total), (1_001, 701));
    assert_eq!(part.requests.completed, 701);
    // Both machines were on until then.
    let history_hours = 2.0 * 420.0 / 3_600.0;
    assert!((all.paid[0].machine_hours - part.paid[0].machine_hours - history_hours).abs() < 1e-9);
    assert!((all.leases() - part.leases() - history_hours * 2.0).abs() < 1e-9);
    assert!(part.energy() < all.energy());
    assert_eq!(
        (part.early_releases(), part.moves),
        (1, 1),
        "the two starts are history"
    );
    assert_eq!((part.peak, part.paid[0].peak), (2, 2));
    assert!((part.days - 700.0 / 86_400.0).abs() < 1e-9);
}

#[test]
fn what_happens_after_the_last_arrival_costs_nothing() {
    let mut script = both();
    // Ten minutes after the last request.
    script.push((80, vec![Command::Lease { group: 0 }, Command::Drain { machine: 0 }]));
    let overload = || arrivals(2_000, 100);
    let (with, without) = (
        outcome(&scenario(), script, overload()),
        outcome(&scenario(), both(), overload()),
    );
    assert_eq!(with.paid, without.paid);
    assert_eq!(with.moves, without.moves);
}
