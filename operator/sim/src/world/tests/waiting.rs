//! What waits is kept apart from the engine, and nothing shows it.

use pomarium_kernel::engine::skipping::SkippingEngine;
use proptest::prelude::*;

use super::*;

/// The times to first token in ms of one engine that knows of every request from its arrival.
fn direct(times: StepTimes, trace: &[Arrival]) -> Vec<f64> {
    let mut engine = SkippingEngine::new(times);
    let mut finished = Vec::new();
    for (id, request) in (0..).zip(trace) {
        let at_ns = request.arrival_ms * 1_000_000;
        while let Some(change_ns) = engine.next_change_ns().filter(|change_ns| *change_ns <= at_ns) {
            engine.advance(change_ns, &mut finished);
        }
        engine.advance(at_ns, &mut finished);
        engine
            .submit(at_ns, id, request.prompt_tokens, request.output_tokens)
            .unwrap();
    }
    while let Some(change_ns) = engine.next_change_ns() {
        engine.advance(change_ns, &mut finished);
    }
    let arrival_ns = |id: u64| trace[usize::try_from(id).unwrap()].arrival_ms * 1_000_000;
    finished
        .iter()
        .map(|done| (done.first_token_ns - arrival_ns(done.request)) as f64 / 1e6)
        .collect()
}

/// The same machine in the world, asked for the share of requests within each of these times.
fn in_the_world(times: StepTimes, trace: &[Arrival], thresholds_ms: &[u64]) -> Outcome {
    let mut scenario = scenario();
    let group = &mut scenario.groups[0];
    (group.times, group.load_ms, group.max, group.always_on) = (times, 0, 1, true);
    let objective = scenario.objectives[0];
    let within = |threshold_ms: &u64| Objective {
        threshold: Span::from_millis(*threshold_ms),
        ..objective
    };
    scenario.objectives = thresholds_ms.iter().map(within).collect();
    (scenario.start_ms, scenario.grace_ms) = (-60_000, 10_000_000);
    let serve = Command::Serve { machine: 0 };
    World::new(&scenario, None)
        .run(
            trace.iter().copied().map(Ok::<_, Infallible>),
            &mut Script(vec![(0, vec![serve])], 0),
        )
        .unwrap()
}

proptest! {
    #[test]
    fn requests_are_answered_when_an_engine_that_knows_of_all_would(
        // Short answers, so that several of a batch end at once and as many are admitted.
        requests in prop::collection::vec((0_u64..60, 1_u32..600, 1_u32..4), 1..100),
        max_batch in 1_u32..5,
        kv_tokens in 700_u64..2_000,
    ) {
        let times = StepTimes { max_batch, kv_tokens, ..scenario().groups[0].times };
        let mut arrival_ms = 0;
        let trace: Vec<Arrival> = requests
            .into_iter()
            .map(|(pause, prompt_tokens, output_tokens)| {
                arrival_ms += pause;
                Arrival { arrival_ms, prompt_tokens, output_tokens }
            })
            .collect();
        let expected = direct(times, &trace);
        // On either side of each time: it is the same to the millisecond.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
        let thresholds_ms: Vec<u64> = expected.iter().flat_map(|ttft_ms| [*ttft_ms as u64, *ttft_ms as u64 + 1]).collect();
        let outcome = in_the_world(times, &trace, &thresholds_ms);
        prop_assert_eq!(outcome.requests.completed, trace.len() as u64);
        for (objective, threshold_ms) in outcome.objectives.iter().zip(&thresholds_ms) {
            let within = expected.iter().filter(|ttft_ms| **ttft_ms <= *threshold_ms as f64).count();
            prop_assert_eq!(objective.attainment, within as f64 / trace.len() as f64, "{} ms", threshold_ms);
        }
    }
}

#[test]
fn a_hopeless_backlog_is_packed_and_counted() {
    let scenario = Scenario {
        start_ms: -300_000,
        ..scenario()
    };
    let mut world = World::new(&scenario, None);
    let lease = Command::Lease { group: 0 };
    let serve = |machine| Command::Serve { machine };
    let mut policy = Script(vec![(0, vec![lease.clone(), lease]), (10, vec![serve(0), serve(1)])], 0);
    for tick in 0..20 {
        world.tick(-300_000 + tick * scenario.tick_ms, &mut policy);
    }
    assert_eq!(world.serving.len(), 2);
    for Ok(arrival) in arrivals(10_000, 1) {
        world.advance_to(signed(arrival.arrival_ms));
        world.arrive(arrival);
    }
    // Two batches of four, and as many that are next; some were answered.
    assert!(world.slab.len() <= 16, "{}", world.slab.len());
    assert!(world.in_flight() > 9_000);
    let sent: u32 = world.machines.iter().map(|machine| machine.requests).sum();
    assert_eq!(world.in_flight(), sent as usize);
    // Whoever drains gives back what waits, and the other takes it.
    let drain = Command::Drain { machine: 0 };
    world.decide(10_000, &mut Script(vec![(0, vec![drain])], 0));
    let sent = |machine: usize| world.machines[machine].requests as usize;
    assert!(
        sent(0) <= 4 && sent(0) + sent(1) == world.in_flight(),
        "{} and {}",
        sent(0),
        sent(1)
    );
    let before = world.in_flight() as u64;
    let answered = world.requests.completed;
    world.miss_the_rest();
    assert_eq!((world.in_flight(), world.requests.never_served), (0, before));
    assert_eq!(answered + before, 10_000);
}
