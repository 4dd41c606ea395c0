#![allow(clippy::unwrap_used, clippy::float_cmp)]

use pomarium_kernel::units::Fraction;

use super::super::histogram::Bound;
use super::super::scrape::Series;
use super::*;

const STALE: Span = Span::from_secs(45);

fn series(text: &str) -> Series {
    text.to_owned()
}

fn pool() -> PoolId {
    PoolId::new("assistants", "chat")
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(secs * 1_000)
}

fn requests(count: f64) -> Scrape {
    let mut scrape = Scrape::default();
    scrape.counters.insert((Counter::Requests, series("a")), count);
    scrape
}

fn ttft(fast: f64, all: f64) -> Scrape {
    let buckets = [(1.0, fast), (10.0, all), (f64::INFINITY, all)];
    let cumulative = Cumulative {
        buckets: buckets.iter().map(|(b, c)| (Bound::new(*b).unwrap(), *c)).collect(),
        sum: all,
    };
    let mut scrape = Scrape::default();
    scrape
        .distributions
        .insert((Distribution::TimeToFirstToken, series("a")), cumulative);
    scrape
}

fn ledger(rounds: &[(i64, Scrape)]) -> Ledger {
    let mut ledger = Ledger::open(at(0));
    for (secs, scrape) in rounds {
        ledger.absorb(String::new(), scrape.clone());
        ledger.complete(at(*secs));
    }
    ledger
}

fn rates(ledger: &Ledger, now: i64) -> Option<(f64, f64)> {
    match ledger.demand(&pool(), at(now), STALE) {
        Demand::Known(seen) => Some((seen.rate_1m.as_per_second(), seen.rate_5m.as_per_second())),
        Demand::Unknown { .. } => None,
    }
}

#[test]
fn rates_are_what_was_added_over_each_window() {
    let rounds: Vec<_> = (0..=20).map(|n| (n * 15, requests(n as f64 * 30.0))).collect();
    assert_eq!(rates(&ledger(&rounds), 300), Some((2.0, 2.0)));
    let mut faster = rounds.clone();
    faster.extend((21..=24).map(|n| (n * 15, requests(600.0 + (n - 20) as f64 * 60.0))));
    let (minute, five) = rates(&ledger(&faster), 360).unwrap();
    assert_eq!(minute, 4.0);
    assert!((five - (240.0 * 2.0 + 240.0) / 300.0).abs() < 1e-9, "{five}");
}

#[test]
fn a_source_that_restarts_is_not_negative_and_loses_nothing() {
    let rounds = [
        (0, requests(1_000.0)),
        (15, requests(1_030.0)),
        (30, requests(10.0)),
        (45, requests(40.0)),
    ];
    assert_eq!(rates(&ledger(&rounds), 45), Some((70.0 / 45.0, 70.0 / 45.0)));
}

#[test]
fn what_a_new_source_counted_before_is_not_recent() {
    let mut ledger = ledger(&[(0, requests(100.0)), (15, requests(130.0))]);
    ledger.absorb("other".into(), requests(1e9));
    ledger.absorb(String::new(), requests(160.0));
    ledger.complete(at(30));
    assert_eq!(rates(&ledger, 30), Some((2.0, 2.0)));
}

#[test]
fn a_series_that_a_known_source_shows_for_the_first_time_began_at_zero() {
    let ledger = ledger(&[(0, Scrape::default()), (15, requests(30.0))]);
    assert_eq!(rates(&ledger, 15), Some((2.0, 2.0)));
}

#[test]
fn missing_stale_and_single_samples_are_unknown() {
    assert_eq!(rates(&ledger(&[]), 0), None);
    assert_eq!(rates(&ledger(&[(0, requests(5.0))]), 0), None, "one sample");
    let two = ledger(&[(0, requests(5.0)), (15, requests(5.0))]);
    assert_eq!(
        rates(&two, 15),
        Some((0.0, 0.0)),
        "measured and nothing arrived is known"
    );
    assert_eq!(rates(&two, 60), Some((0.0, 0.0)), "three intervals old");
    assert_eq!(rates(&two, 61), None, "older than that");
    assert_eq!(
        rates(&ledger(&[(0, Scrape::default()), (15, Scrape::default())]), 15),
        None,
        "no such metric"
    );
}

#[test]
fn an_incomplete_round_says_why_and_leaves_the_last_sample_to_age() {
    let mut ledger = ledger(&[(0, requests(5.0)), (15, requests(5.0))]);
    ledger.incomplete(Problem::new(Reason::MetricsUnavailable, "no answer"));
    assert!(rates(&ledger, 30).is_some());
    let Demand::Unknown { since, problem, .. } = ledger.demand(&pool(), at(100), STALE) else {
        panic!("stale demand must be unknown")
    };
    assert_eq!((since, problem.message.as_str()), (at(15), "no answer"));
}

#[test]
fn objectives_are_measured_over_what_was_added() {
    let objective = Objective {
        metric: Metric::TimeToFirstToken,
        percentile: Fraction::new(0.95),
        threshold: Span::from_secs(1),
        window: Span::from_hours(24),
    };
    let measured = |ledger: &Ledger, names: &Names| ledger.measured(&objective, names, &pool(), at(15), STALE);
    let names = &super::super::gateway::NAMES;
    let seen = ledger(&[(0, ttft(1_000.0, 5_000.0)), (15, ttft(1_090.0, 5_100.0))]);
    let Measured::Known {
        value_ms,
        attained,
        samples,
        ..
    } = measured(&seen, names)
    else {
        panic!("must be known")
    };
    assert_eq!((attained.get(), samples), (0.9, 100));
    assert!((value_ms - 5_500.0).abs() < 1e-6, "{value_ms}");

    let idle = ledger(&[(0, ttft(1.0, 1.0)), (15, ttft(1.0, 1.0))]);
    assert!(matches!(measured(&idle, names), Measured::Unknown { .. }));
    assert_eq!(
        measured(&seen, super::super::engine::llama_cpp::NAMES),
        Measured::ModelOnly
    );
}

#[test]
fn what_was_counted_only_ever_grows_and_says_what_missed() {
    let objective = Objective {
        metric: Metric::TimeToFirstToken,
        percentile: Fraction::new(0.95),
        threshold: Span::from_secs(1),
        window: Span::from_hours(24),
    };
    let mut seen = ledger(&[(0, ttft(1_000.0, 5_000.0)), (15, ttft(1_090.0, 5_100.0))]);
    let first = seen.counted(&[objective]).unwrap();
    assert_eq!((first.at, first.arrived.requests), (at(15), 100));
    let answered = first.answered.unwrap();
    assert_eq!((answered.requests, answered.missed[0].round()), (100.0, 10.0));
    assert_eq!(answered.measured, [100.0]);
    // The source restarts: what it has counted since is added.
    seen.absorb(String::new(), ttft(50.0, 60.0));
    seen.incomplete(Problem::new(Reason::MetricsUnavailable, "another source is missing"));
    assert_eq!(
        seen.counted(&[objective]).unwrap().arrived.requests,
        100,
        "a part is not the whole"
    );
    seen.complete(at(30));
    let second = seen.counted(&[objective]).unwrap();
    let missed = second.answered.unwrap().missed[0];
    assert_eq!((second.arrived.requests, missed.round()), (160, 20.0));
    assert_eq!(
        ledger(&[(0, Scrape::default())]).counted(&[objective]),
        None,
        "no such metric"
    );
}

#[test]
fn memory_is_bounded() {
    let rounds: Vec<_> = (0..1_000).map(|n| (n, requests(n as f64))).collect();
    assert!(ledger(&rounds).samples.len() <= MAX_SAMPLES);
    let slow: Vec<_> = (0..1_000).map(|n| (n * 15, requests(n as f64))).collect();
    assert!(ledger(&slow).samples.len() <= 22);
}

#[test]
fn an_engine_that_counts_tokens_only_still_tells_its_load() {
    let tokens = |prompt, output| {
        let mut scrape = Scrape::default();
        scrape.counters.insert((Counter::PromptTokens, series("")), prompt);
        scrape.counters.insert((Counter::OutputTokens, series("")), output);
        scrape
    };
    let seen = ledger(&[(0, tokens(0.0, 0.0)), (60, tokens(512.0 * 60.0, 100.0 * 60.0))]);
    let Demand::Known(arrivals) = seen.demand(&pool(), at(60), STALE) else {
        panic!("must be known")
    };
    assert_eq!(arrivals.rate_1m.as_per_second(), 1.0);
    assert_eq!(arrivals.lengths.unwrap().classes, [(512, 100)]);
}

#[test]
fn a_part_of_the_sources_says_how_much_arrives_at_least() {
    let mut ledger = Ledger::open(at(0));
    let both = |ledger: &mut Ledger, secs: i64| {
        ledger.absorb("a".to_owned(), requests(secs as f64));
        ledger.absorb("b".to_owned(), requests(secs as f64));
        ledger.complete(at(secs));
    };
    both(&mut ledger, 0);
    both(&mut ledger, 15);
    for secs in [30, 45, 60, 75, 90] {
        ledger.absorb("a".to_owned(), requests(secs as f64));
        ledger.incomplete_at(at(secs), Problem::new(Reason::MetricsUnavailable, "b does not answer"));
    }
    let least = |ledger: &Ledger, now| match ledger.demand(&pool(), at(now), STALE) {
        Demand::Unknown { at_least, .. } => at_least.map(Rate::as_per_second),
        Demand::Known(_) => panic!("a part is not the whole"),
    };
    assert_eq!(least(&ledger, 91), Some(1.0), "a alone gets one a second");
    assert_eq!(least(&ledger, 200), None, "that was long ago");
    both(&mut ledger, 105);
    both(&mut ledger, 120);
    assert!(rates(&ledger, 121).is_some(), "whole again");
}
