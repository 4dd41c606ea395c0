//! Machines that die, come late or are not to be had; routing by weight.

use super::*;

fn with_faults(faults: Faults) -> Scenario {
    Scenario { faults, ..scenario() }
}

fn lines(
    scenario: &Scenario,
    script: Vec<(usize, Vec<Command>)>,
    trace: Vec<Result<Arrival, Infallible>>,
) -> (Outcome, Vec<Line>) {
    let mut schedule = Schedule::kept();
    let Ok(outcome) = World::new(scenario, Some(&mut schedule)).run(trace, &mut Script(script, 0));
    (outcome, schedule.lines().to_vec())
}

#[test]
fn a_death_cuts_what_runs_and_the_machine_comes_back_without_a_replica() {
    let scenario = with_faults(Faults {
        mean_hours_to_death: Some(0.1),
        repair_ms: 60_000,
        ..Faults::default()
    });
    let mut script = both();
    // A replica is started again whenever a machine can be told to; the rest is refused.
    script.extend((6..400).map(|tick| (tick, (0..2).map(|machine| Command::Serve { machine }).collect())));
    let (outcome, events) = lines(&scenario, script.clone(), arrivals(5_000, 700));
    assert!(outcome.deaths >= 3, "{}", outcome.deaths);
    let requests = outcome.requests;
    assert!(requests.cut > 0);
    assert_eq!(requests.completed + requests.cut + requests.never_served, 5_000);
    assert!(schedule::check(&events, &scenario.groups).is_empty());
    let drained = events
        .iter()
        .position(|line| line.event == ScheduleEvent::Drain)
        .unwrap();
    let back = events[drained..]
        .iter()
        .find(|line| line.event == ScheduleEvent::Serve && line.node == events[drained].node)
        .unwrap();
    // Repaired after a minute, and the model loads for 30 s.
    assert!(back.t - events[drained].t >= 90_000);
    let other = Scenario { seed: 1, ..scenario };
    assert_ne!(
        lines(&other, script, arrivals(5_000, 700)).1,
        events,
        "another seed, other deaths"
    );
}

#[test]
fn a_machine_that_is_late_serves_late_and_one_out_of_stock_never() {
    let late = with_faults(Faults {
        late_share: 1.0,
        late_factor: 3.0,
        ..Faults::default()
    });
    let (outcome, events) = lines(&late, both(), arrivals(10, 1_000));
    // Told to serve 75 s after the lease, but Ready only after 180 s: refused, and nobody asks again.
    assert_eq!((outcome.refused, events.len()), (2, 2));
    let none = with_faults(Faults {
        stock_outs: vec![StockOut {
            group: 0,
            from_ms: i64::MIN,
            until_ms: i64::MAX,
        }],
        ..Faults::default()
    });
    let (outcome, events) = lines(&none, vec![(0, vec![Command::Lease { group: 0 }])], arrivals(10, 1_000));
    assert_eq!((outcome.out_of_stock, outcome.refused, events.len()), (1, 0, 0));
}

#[test]
fn routing_by_weight_waits_longer_than_routing_by_work_and_repeats_with_its_seed() {
    let weighted = |seed| Scenario {
        discipline: Discipline::Weighted,
        seed,
        ..scenario()
    };
    let run = |scenario: &Scenario| lines(scenario, both(), arrivals(2_000, 520)).0;
    let p95 = |outcome: &Outcome| outcome.objectives[0].value_seconds.unwrap();
    let (by_work, by_weight) = (run(&scenario()), run(&weighted(0)));
    assert_eq!(by_weight.requests.completed, 2_000);
    assert!(
        p95(&by_weight) > 1.2 * p95(&by_work),
        "{} and {}",
        p95(&by_weight),
        p95(&by_work)
    );
    assert_eq!(by_weight, run(&weighted(0)));
    assert_ne!(by_weight, run(&weighted(1)));
}
