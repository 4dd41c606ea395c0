#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::capacity::tests::{m2_ultra, objectives};
use crate::capacity::{Curves, Effort, Servers, Traffic};
use crate::performance::Performance;
use crate::snapshot::{Discipline, LengthMix};

const MINUTE: i64 = 60_000;

fn minute(minutes: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + minutes * MINUTE)
}

fn slowed(performance: &Performance, percent: u64) -> Performance {
    let mut slowed = performance.clone();
    for ns in [
        &mut slowed.times.alpha_ns,
        &mut slowed.times.beta_ns,
        &mut slowed.times.delta_ns,
    ] {
        *ns = *ns * percent / 100;
    }
    slowed
}

fn curve(performance: &Performance, count: u32, discipline: Discipline) -> Arc<Curve> {
    let traffic = Traffic::new(LengthMix::assumed(), discipline, &objectives(12_000, 250));
    Curves::new(Effort { requests: 5_000 }, 4).curve(&[Servers { performance, count }], &traffic)
}

fn figure(at: Timestamp, rate: Rate, metric: Metric, percentile: f64, of: &Curve) -> Observed {
    let percentile = Fraction::new(percentile);
    Observed {
        at,
        rates: vec![(rate, 1.0)],
        metric,
        percentile,
        value_ms: of.latency_ms(rate, metric, percentile),
        requests: 500,
    }
}

/// Half an hour of what `real` does at a rate, against what is believed.
fn compared(believed: &Curve, real: &Curve, load: f64) -> Calibration {
    let rate = Rate::per_second(load * real.saturation().as_per_second());
    let mut calibration = unknown();
    for minutes in 0..30 {
        for metric in [Metric::TimeToFirstToken, Metric::InterTokenLatency] {
            calibration.observe(&figure(minute(minutes), rate, metric, 0.95, real), believed);
        }
    }
    calibration
}

fn unknown() -> Calibration {
    Calibration::of(m2_ultra().times)
}

/// Samples of one signal, two minutes apart.
fn samples(slownesses: impl IntoIterator<Item = f64>) -> Calibration {
    let mut calibration = unknown();
    for (index, slowness) in (0..).zip(slownesses) {
        let window = calibration.slowness.entry(Signal::FirstToken).or_default();
        window.push(minute(2 * index), slowness);
    }
    calibration
}

#[test]
fn a_machine_somewhat_slower_or_faster_than_declared_is_found_out_at_any_load() {
    let declared = m2_ultra();
    let believed = curve(&declared, 4, Discipline::LeastWork);
    for (percent, load) in [(130, 0.2), (130, 0.8), (75, 0.5), (180, 0.6), (100, 0.9)] {
        let real = slowed(&declared, percent);
        let calibration = compared(&believed, &curve(&real, 4, Discipline::LeastWork), load);
        let Trust::Trusted(factor) = calibration.trust(minute(30)) else {
            panic!("{percent} % at {load}: {calibration:?}")
        };
        assert!(
            (factor * 100.0 / percent as f64 - 1.0).abs() < 0.02,
            "{percent} % at {load}: {factor}"
        );
        let times = calibrated(&declared.times, calibration.trust(minute(30)));
        assert!((times.delta_ns as f64 / real.times.delta_ns as f64 - 1.0).abs() < 0.02);
        assert_eq!(times.kv_tokens, declared.times.kv_tokens);
    }
}

#[test]
fn without_enough_recent_samples_nothing_new_is_concluded() {
    let believed = curve(&m2_ultra(), 4, Discipline::LeastWork);
    let rate = Rate::per_second(0.5);
    let mut calibration = unknown();
    assert_eq!(calibration.trust(minute(0)), Trust::TooFewSamples);
    for minutes in 0..4 {
        let seen = figure(minute(minutes), rate, Metric::TimeToFirstToken, 0.95, &believed);
        calibration.observe(&seen, &believed);
    }
    // Four minutes, but only two samples far enough apart.
    assert_eq!(calibration.trust(minute(4)), Trust::TooFewSamples);
    let seen = figure(minute(4), rate, Metric::TimeToFirstToken, 0.95, &believed);
    calibration.observe(&seen, &believed);
    assert!(matches!(calibration.trust(minute(4)), Trust::Trusted(_)));
    // An hour of silence later nobody knows any more.
    assert_eq!(calibration.trust(minute(70)), Trust::TooFewSamples);
}

#[test]
fn a_gap_changes_nothing() {
    for slowness in [1.6, 9.0, 0.1] {
        let mut calibration = samples([slowness; 10]);
        calibration.settle(minute(20));
        let before = calibration.settled();
        assert_ne!(before, Trust::TooFewSamples);
        for minutes in [60, 600, 60_000] {
            calibration.settle(minute(minutes));
            assert_eq!(calibration.settled(), before, "{slowness} after {minutes} minutes");
        }
    }
}

#[test]
fn what_is_planned_with_moves_in_steps_and_not_for_a_wobble() {
    let settled = |slownesses: &[f64]| {
        let mut calibration = unknown();
        for (index, slowness) in (0..).zip(slownesses.iter()) {
            for (nth, minutes) in (0..).map(|nth| (nth, index * 120 + nth * 2)).take(6) {
                let window = calibration.slowness.entry(Signal::InterToken).or_default();
                window.push(minute(minutes), *slowness);
                if nth == 5 {
                    calibration.settle(minute(minutes));
                }
            }
        }
        calibration.settled()
    };
    for (slownesses, expected) in [
        (&[1.04][..], 1.0),
        (&[1.3, 0.8], 1.0),
        (&[1.52], 1.5),
        (&[1.52, 1.56, 1.45], 1.5),
        (&[1.52, 1.61], 1.6),
        (&[0.61], 0.6),
        // Back within what is not worth correcting.
        (&[1.52, 1.1], 1.0),
        (&[1.0, 1.38], 1.0),
        (&[1.0, 1.42], 1.4),
    ] {
        let Trust::Trusted(factor) = settled(slownesses) else {
            panic!("{slownesses:?}")
        };
        assert!((factor - expected).abs() < 1e-9, "{slownesses:?}: {factor}");
    }
}

#[test]
fn samples_that_contradict_each_other_correct_nothing_and_refuse_nothing() {
    let mut calibration = samples((0..20).map(|n| if n % 2 == 0 { 0.3 } else { 12.0 }));
    calibration.settle(minute(40));
    assert_eq!(calibration.settled(), Trust::Scattered);
    assert!((calibration.settled().factor() - 1.0).abs() < 1e-9 && !calibration.settled().may_refuse());
    // A signal that does not contradict itself is believed all the same.
    for minutes in 0..20 {
        let window = calibration.slowness.entry(Signal::InterToken).or_default();
        window.push(minute(2 * minutes), 1.5);
    }
    calibration.settle(minute(40));
    assert_eq!(calibration.settled(), Trust::Trusted(1.5));
}

#[test]
fn few_requests_and_impossible_values_are_no_samples() {
    let believed = curve(&m2_ultra(), 4, Discipline::LeastWork);
    let good = figure(
        minute(0),
        Rate::per_second(0.5),
        Metric::TimeToFirstToken,
        0.95,
        &believed,
    );
    let mut calibration = unknown();
    for minutes in 0..60 {
        let at = minute(minutes);
        for bad in [
            Observed {
                at,
                requests: 49,
                ..good.clone()
            },
            Observed {
                at,
                value_ms: f64::NAN,
                ..good.clone()
            },
            Observed {
                at,
                value_ms: f64::INFINITY,
                ..good.clone()
            },
            Observed {
                at,
                value_ms: 0.0,
                ..good.clone()
            },
        ] {
            calibration.observe(&bad, &believed);
        }
    }
    assert_eq!(calibration, unknown());
}

#[test]
fn tokens_that_came_in_bursts_say_nothing_of_slow_servers_if_the_bursts_are_known() {
    let model = curve(&m2_ultra(), 4, Discipline::LeastWork);
    let at = |load: f64| Rate::per_second(load * model.saturation().as_per_second());
    // Nine of ten requests come within a ninth of the time, at 0.9 of what the servers finish; the others nearly alone.
    let bursts = vec![(at(0.9), 0.9), (at(0.0125), 0.1)];
    let within = |ms: f64| -> f64 {
        let of = |(rate, share): &(Rate, f64)| share * model.prediction(*rate).itl_ms.within(ms).get();
        bursts.iter().map(of).sum()
    };
    let mut value_ms = 1.0;
    while within(value_ms) < 0.95 {
        value_ms += 0.1;
    }
    let seen = |minutes, rates| Observed {
        at: minute(minutes),
        rates,
        metric: Metric::InterTokenLatency,
        percentile: Fraction::new(0.95),
        value_ms,
        requests: 500,
    };
    let trust = |rates: &[(Rate, f64)]| {
        let mut calibration = unknown();
        for minutes in 0..30 {
            calibration.observe(&seen(minutes, rates.to_vec()), &model);
        }
        calibration.trust(minute(30)).factor()
    };
    let (known, unknown) = (trust(&bursts), trust(&[(at(0.111), 1.0)]));
    assert!((known - 1.0).abs() < 0.03, "{known}");
    assert!(unknown > 1.3, "the same at the mean rate: {unknown}");
}

#[test]
fn a_few_wild_samples_do_not_move_the_median() {
    let believed = curve(&m2_ultra(), 4, Discipline::LeastWork);
    let mut calibration = unknown();
    for minutes in 0..30 {
        let mut seen = figure(
            minute(2 * minutes),
            Rate::per_second(0.5),
            Metric::TimeToFirstToken,
            0.95,
            &believed,
        );
        if minutes % 5 == 0 {
            seen.value_ms *= 40.0;
        }
        calibration.observe(&seen, &believed);
    }
    let Trust::Trusted(factor) = calibration.trust(minute(60)) else {
        panic!("{calibration:?}")
    };
    assert!((factor - 1.0).abs() < 0.01, "{factor}");
}

#[test]
fn a_ten_fold_wrong_figure_is_found_out_at_any_load_and_not_believed() {
    let real = m2_ultra();
    for (percent, servers) in [(10, 1), (10, 8), (1_000, 1), (1_000, 8)] {
        let declared = slowed(&real, percent);
        let (believed, actual) = (
            curve(&declared, servers, Discipline::LeastWork),
            curve(&real, servers, Discipline::LeastWork),
        );
        for load in [0.1, 0.6, 1.3] {
            let mut calibration = compared(&believed, &actual, load);
            calibration.settle(minute(30));
            let trust = calibration.settled();
            let context = format!("{servers} declared at {percent} % and loaded to {load}: {trust:?}");
            let Trust::OutOfRange(ratio) = trust else {
                panic!("{context}")
            };
            assert_eq!(trust.promises_too_much(), percent < 100, "{context}");
            assert_eq!(trust.promises_too_little(), percent > 100, "{context}");
            assert!(!trust.may_refuse() && !(0.2..5.0).contains(&ratio), "{context}");
            assert!((CLAMP.0..=CLAMP.1).contains(&trust.factor()), "{context}");
        }
    }
}

#[test]
fn random_routing_that_is_declared_as_least_work_is_found_out_and_a_slow_machine_is_not_taken_for_it() {
    let declared = m2_ultra();
    let (pooled, unpooled) = (
        curve(&declared, 8, Discipline::LeastWork),
        curve(&declared, 8, Discipline::Weighted),
    );
    for (percent, discipline) in [
        (100, Discipline::LeastWork),
        (100, Discipline::Weighted),
        (140, Discipline::LeastWork),
        (140, Discipline::Weighted),
        (80, Discipline::Weighted),
    ] {
        let real = curve(&slowed(&declared, percent), 8, discipline);
        for load in [0.5, 0.7, 0.8] {
            let rate = Rate::per_second(load * real.saturation().as_per_second());
            let mut fit = DisciplineFit::default();
            for minutes in 0..20 {
                let at = minute(minutes);
                let figures = [
                    (Metric::TimeToFirstToken, 0.5),
                    (Metric::TimeToFirstToken, 0.95),
                    (Metric::InterTokenLatency, 0.5),
                    (Metric::InterTokenLatency, 0.95),
                ]
                .map(|(metric, share)| figure(at, rate, metric, share, &real));
                fit.observe(at, &figures, &pooled, &unpooled);
            }
            let context = format!("{percent} %, {discipline:?} at {load}: {fit:?}");
            assert_eq!(fit.better(minute(20)), Some(discipline), "{context}");
            assert_eq!(
                fit.contradicts(Discipline::LeastWork, minute(20)),
                discipline == Discipline::Weighted
            );
        }
    }
    // One server is the same under both.
    let alone = curve(&declared, 1, Discipline::LeastWork);
    let mut fit = DisciplineFit::default();
    for minutes in 0..20 {
        let seen = figure(
            minute(minutes),
            Rate::per_second(0.3),
            Metric::TimeToFirstToken,
            0.95,
            &alone,
        );
        fit.observe(minute(minutes), &[seen], &alone, &alone);
    }
    assert_eq!(fit.better(minute(20)), None);
}

#[test]
fn calibrations_are_bounded_and_the_same_after_they_were_written_and_read() {
    let times = m2_ultra().times;
    let believed = curve(&m2_ultra(), 4, Discipline::LeastWork);
    let machine = |cores| MachineKey {
        chip: "M2 Ultra".to_owned(),
        gpu_cores: cores,
        memory_gib: 192,
    };
    let mut all = Calibrations::default();
    for minutes in 0..1_000 {
        for metric in [Metric::TimeToFirstToken, Metric::InterTokenLatency] {
            let seen = figure(minute(minutes), Rate::per_second(0.7), metric, 0.95, &believed);
            all.of(&machine(76), &times).observe(&seen, &believed);
        }
        all.of(&machine(76), &times).settle(minute(minutes));
    }
    let written = serde_json::to_string(&all).unwrap();
    assert!(written.len() < 3_000, "{}", written.len());
    assert_eq!(serde_json::from_str::<Calibrations>(&written).unwrap(), all);
    assert_eq!(all.trust(&machine(76), &times), Trust::Trusted(1.0));
    assert_eq!(all.trust(&machine(60), &times), Trust::TooFewSamples);

    for cores in 0..50 {
        let seen = figure(
            minute(2_000),
            Rate::per_second(0.7),
            Metric::InterTokenLatency,
            0.95,
            &believed,
        );
        all.of(&machine(cores), &times).observe(&seen, &believed);
    }
    assert_eq!(all.0.len(), MOST_MACHINES);
}

#[test]
fn what_was_found_out_about_other_figures_is_of_no_use_for_these() {
    let (wrong, right) = (slowed(&m2_ultra(), 10).times, m2_ultra().times);
    let key = MachineKey {
        chip: "M2 Ultra".to_owned(),
        gpu_cores: 76,
        memory_gib: 192,
    };
    let mut all = Calibrations::default();
    *all.of(&key, &wrong) = Calibration {
        declared: wrong,
        ..samples([10.0; 10])
    };
    all.of(&key, &wrong).settle(minute(20));
    assert!(all.trust(&key, &wrong).promises_too_much());
    assert_eq!(
        all.trust(&key, &right),
        Trust::TooFewSamples,
        "somebody has corrected them"
    );
    all.of(&key, &right).settle(minute(20));
    assert_eq!(all.trust(&key, &right), Trust::TooFewSamples);
}
