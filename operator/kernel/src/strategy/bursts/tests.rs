#![allow(clippy::unwrap_used)]

use super::*;
use crate::strategy::burn::Missed;

fn at(bins: u64) -> Timestamp {
    Timestamp::from_millis(0) + BIN * bins
}

/// Requests of which each is one unit of work.
fn unit(requests: u64) -> forecast::Counts {
    forecast::Counts {
        requests,
        prompt_tokens: requests * 1_000,
        output_tokens: 0,
    }
}

/// Counts of 15 s from midnight on.
fn recorded(counts: impl IntoIterator<Item = u64>) -> Bursts {
    let mut bursts = Bursts::default();
    for (index, count) in (0..).zip(counts) {
        bursts.record(at(index), at(index + 1), unit(count));
    }
    bursts
}

/// Four hours at ten requests a count, with a burst of so many times as much for a minute in every hour.
fn bursting(times: u64) -> Bursts {
    recorded((0..960).map(|index| if index % 240 < 4 { 10 * times } else { 10 }))
}

/// Servers that finish a request/s, and miss nothing as long as nobody waits for longer than 12 s.
fn patient() -> SteadyBurn {
    SteadyBurn {
        anchors: vec![(1.0, vec![[0.0; LOADS.len()]])],
        missed: vec![Missed {
            burn: 20.0,
            patience_s: Some(12.0),
        }],
        work: 1.0,
    }
}

fn burn(bursts: &Bursts, load: f64) -> f64 {
    bursts.sample().unwrap().burn(&patient()).unwrap().at(load, 1.0)
}

#[test]
fn steady_demand_burns_nothing_that_the_curves_do_not_know_of() {
    assert!(burn(&bursting(1), 0.9) < 1e-9);
}

#[test]
fn bursts_burn_the_more_the_higher_the_load_and_for_as_long_as_their_backlog_lasts() {
    let bursts = bursting(5);
    let burnt: Vec<f64> = [0.3, 0.5, 0.7, 0.85].map(|load| burn(&bursts, load)).to_vec();
    assert!(burnt.windows(2).all(|pair| pair[1] > pair[0]), "{burnt:?}");
    // The burst itself is 8 % of an hour's requests; at 0.85 its backlog takes twenty minutes to work off.
    assert!(burnt[3] > 20.0 * 0.15, "{burnt:?}");
    assert!(burnt[0] < 20.0 * 0.1, "{burnt:?}");
}

#[test]
fn a_backlog_that_everybody_waits_out_burns_nothing() {
    // Twice the rate for a minute leaves 12 s of work at 0.6.
    assert!(burn(&bursting(2), 0.6) < 1e-9);
}

#[test]
fn whether_bursts_grow_with_the_rate_is_learnt() {
    let bursts = |index: u64| index.is_multiple_of(30);
    let rate = |index: u64| if index < 2_880 { 10 } else { 60 };
    let on_top = recorded((0..5_760).map(|index| rate(index) + if bursts(index) { 40 } else { 0 }));
    let proportional = recorded((0..5_760).map(|index| rate(index) * if bursts(index) { 5 } else { 1 }));
    assert!(on_top.sample().unwrap().exponent < 0.2);
    assert!(proportional.sample().unwrap().exponent > 0.8);
}

#[test]
fn what_a_rate_burns_is_told_by_bursts_around_similar_rates() {
    // Nights at 0.2 requests/s with bursts, days at 4 requests/s without.
    let counts = |index: u64| match index {
        0..2_880 if index % 240 < 4 => 30,
        0..2_880 => 3,
        _ => 60,
    };
    let bursts = recorded((0..5_760).map(counts));
    let steady = |capacity: f64| SteadyBurn {
        anchors: vec![(capacity, vec![[0.0; LOADS.len()]])],
        ..patient()
    };
    let sample = bursts.sample().unwrap();
    let [night, day] = [0.3, 6.0].map(|capacity| sample.burn(&steady(capacity)).unwrap().at(0.7 * capacity, capacity));
    assert!(night > 1.0 && day < 0.1, "{night} by night, {day} by day");
}

#[test]
fn too_little_is_no_sample_and_a_gap_is_no_lull() {
    assert!(recorded(vec![10; 200]).sample().is_none());
    let mut gap = bursting(1);
    // Two hours without measurements, then on as before.
    for index in 1_440..1_920 {
        gap.record(at(index), at(index + 1), unit(10));
    }
    assert!(burn(&gap, 0.9) < 1e-9, "demand did not stop and start again");
}

#[test]
fn counts_are_spread_without_losing_a_request_and_two_days_are_kept() {
    let mut bursts = Bursts::default();
    let odd = Span::from_millis(14_700);
    let mut from = at(0);
    for _ in 0..13_000_u64 {
        bursts.record(from, from + odd, unit(7));
        from = from + odd;
    }
    assert!(bursts.requests.len() <= KEPT + 240, "{}", bursts.requests.len());
    let total: u64 = bursts.requests.iter().filter_map(Count::get).map(u64::from).sum();
    let whole = (bursts.requests.len() as f64 * 15.0 / 14.7 * 7.0).round();
    assert!((total as f64 - whole).abs() <= 14.0, "{total} of {whole}");
}

#[test]
fn what_is_stored_reads_back_and_damage_is_an_error() {
    let mut bursts = bursting(7);
    bursts.record(at(1_200), at(1_201), unit(u64::MAX / 1_000));
    let text = serde_json::to_string(&bursts).unwrap();
    assert_eq!(serde_json::from_str::<Bursts>(&text).unwrap(), bursts);
    assert!(text.len() < 8_000, "{}", text.len());
    for damaged in [
        text.replace("\"length\":1201", "\"length\":99999999"),
        text.replace("\"counts\":\"", "\"counts\":\"!"),
    ] {
        assert_ne!(damaged, text);
        assert!(serde_json::from_str::<Bursts>(&damaged).is_err());
    }
}

#[test]
fn the_sample_stays_the_same_until_an_hour_is_full() {
    let mut bursts = bursting(3);
    let before = bursts.clone();
    bursts.record(at(960), at(961), unit(90));
    assert!(bursts.alike(&before));
    for index in 961..1_200 {
        bursts.record(at(index), at(index + 1), unit(90));
    }
    assert!(!bursts.alike(&before));
}

/// Four hours at ten requests a count; in every hour, a minute in which each is so much work.
fn with_a_minute_of(requests: u64, tokens: u64) -> Bursts {
    let mut bursts = Bursts::default();
    for index in 0..960 {
        let arrived = if index % 240 < 4 {
            forecast::Counts {
                requests,
                prompt_tokens: requests * tokens,
                output_tokens: 0,
            }
        } else {
            unit(10)
        };
        bursts.record(at(index), at(index + 1), arrived);
    }
    bursts
}

#[test]
fn many_short_requests_are_no_burst_and_as_many_long_ones_are() {
    assert!(burn(&with_a_minute_of(70, 100), 0.7) < 1e-9);
    assert!(burn(&with_a_minute_of(10, 7_000), 0.7) > 0.5);
}

#[test]
fn those_that_come_in_a_burst_count_by_their_number() {
    // As much work in one request or in a hundred: as many others wait for it, and a hundred more miss.
    let [few, many] = [with_a_minute_of(1, 100_000), with_a_minute_of(100, 1_000)].map(|bursts| burn(&bursts, 0.4));
    assert!(few > 0.0 && many > 1.2 * few, "{few} and {many}");
}
