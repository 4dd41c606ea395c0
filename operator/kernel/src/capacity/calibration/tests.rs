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
        rate,
        metric,
        percentile,
        value_ms: of.latency_ms(rate, metric, percentile),
        requests: 500,
    }
}

/// Half an hour of what `real` does at a rate, against what is believed.
fn calibrated(believed: &Curve, real: &Curve, load: f64) -> Calibration {
    let rate = Rate::per_second(load * real.saturation().as_per_second());
    let mut calibration = Calibration::default();
    for minutes in 0..30 {
        for metric in [Metric::TimeToFirstToken, Metric::InterTokenLatency] {
            calibration.observe(&figure(minute(minutes), rate, metric, 0.95, real), believed);
        }
    }
    calibration
}

#[test]
fn a_machine_somewhat_slower_or_faster_than_declared_is_found_out_at_any_load() {
    let declared = m2_ultra();
    let believed = curve(&declared, 4, Discipline::LeastWork);
    for (percent, load) in [(130, 0.2), (130, 0.8), (75, 0.5), (180, 0.6), (100, 0.9)] {
        let real = slowed(&declared, percent);
        let calibration = calibrated(&believed, &curve(&real, 4, Discipline::LeastWork), load);
        let Trust::Trusted(factor) = calibration.trust(minute(30)) else {
            panic!("{percent} % at {load}: {calibration:?}")
        };
        assert!(
            (factor * 100.0 / percent as f64 - 1.0).abs() < 0.02,
            "{percent} % at {load}: {factor}"
        );
        let times = calibration.calibrated(&declared.times, minute(30));
        assert!((times.delta_ns as f64 / real.times.delta_ns as f64 - 1.0).abs() < 0.02);
        assert_eq!(times.kv_tokens, declared.times.kv_tokens);
        assert_eq!(calibration.most_servers(minute(30), 4, Rate::per_second(9.0)), None);
    }
}

#[test]
fn without_enough_recent_samples_the_model_neither_refuses_nor_removes() {
    let believed = curve(&m2_ultra(), 4, Discipline::LeastWork);
    let rate = Rate::per_second(0.5);
    let mut calibration = Calibration::default();
    assert_eq!(calibration.trust(minute(0)), Trust::TooFewSamples);
    for minutes in 0..8 {
        calibration.observe(
            &figure(minute(minutes), rate, Metric::TimeToFirstToken, 0.95, &believed),
            &believed,
        );
    }
    // Eight minutes, but only four samples far enough apart.
    assert!(!calibration.trust(minute(8)).may_refuse_or_remove());
    calibration.observe(
        &figure(minute(8), rate, Metric::TimeToFirstToken, 0.95, &believed),
        &believed,
    );
    assert!(calibration.trust(minute(8)).may_refuse_or_remove());
    // An hour of silence later nobody knows any more.
    assert_eq!(calibration.trust(minute(70)), Trust::TooFewSamples);
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
    let mut calibration = Calibration::default();
    for minutes in 0..60 {
        let at = minute(minutes);
        for bad in [
            Observed {
                at,
                requests: 49,
                ..good
            },
            Observed {
                at,
                value_ms: f64::NAN,
                ..good
            },
            Observed {
                at,
                value_ms: f64::INFINITY,
                ..good
            },
            Observed {
                at,
                value_ms: 0.0,
                ..good
            },
        ] {
            calibration.observe(&bad, &believed);
        }
        calibration.observe_busy(at, Rate::ZERO, Rate::per_second(1.0));
    }
    assert_eq!(calibration, Calibration::default());
}

#[test]
fn a_few_wild_samples_do_not_move_the_median() {
    let believed = curve(&m2_ultra(), 4, Discipline::LeastWork);
    let mut calibration = Calibration::default();
    for minutes in 0..30 {
        let mut seen = figure(
            minute(2 * minutes),
            Rate::per_second(0.5),
            Metric::TimeToFirstToken,
            0.95,
            &believed,
        );
        if minutes % 3 == 0 {
            seen.value_ms *= 40.0;
        }
        calibration.observe(&seen, &believed);
    }
    let Trust::Trusted(factor) = calibration.trust(minute(60)) else {
        panic!("{calibration:?}")
    };
    assert!((factor - 1.0).abs() < 0.01, "{factor}");
}

/// Passes of a planner that knows nothing but a model and its calibration, until it has settled: how many servers it ends with,
/// the most it ever had, and the fewest once it had enough.
fn settle(declared: &Performance, real: &Performance, demand: f64) -> (u32, u32, u32) {
    let mut curves = Curves::new(Effort { requests: 3_000 }, 100);
    let traffic = Traffic::new(LengthMix::assumed(), Discipline::LeastWork, &objectives(12_000, 250));
    let mut curve = |performance, count, _| curves.curve(&[Servers { performance, count }], &traffic);
    let (mut serving, mut peak, mut least) = (1_u32, 1, u32::MAX);
    let mut calibration = Calibration::default();
    let each = curve(declared, 1, Discipline::LeastWork).saturation();
    for pass in 0..60 {
        let now = minute(2 * pass);
        let actual = curve(real, serving, Discipline::LeastWork);
        let rate = Rate::per_second(demand);
        for metric in [Metric::TimeToFirstToken, Metric::InterTokenLatency] {
            calibration.observe(
                &figure(now, rate, metric, 0.95, &actual),
                &curve(declared, serving, Discipline::LeastWork),
            );
        }
        let met = actual.attainment(rate).iter().all(|share| share.get() >= 0.95);
        if rate > actual.saturation() {
            calibration.observe_busy(
                now,
                Rate::per_second(actual.saturation().as_per_second() / f64::from(serving)),
                each,
            );
        }
        let trust = calibration.trust(now);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let wanted = (demand / (0.75 * each.as_per_second() / trust.factor())).ceil() as u32;
        if !met {
            // By the model, but at least one more: the objectives are missed.
            let wanted = wanted.max(serving + 1);
            serving = calibration
                .most_servers(now, serving, rate)
                .map_or(wanted, |most| wanted.min(most))
                .max(serving);
        } else if wanted > serving {
            serving = calibration
                .most_servers(now, serving, rate)
                .map_or(wanted, |most| wanted.min(most));
        } else if trust.may_refuse_or_remove() {
            serving = wanted.max(1);
        }
        peak = peak.max(serving);
        if met {
            least = least.min(serving);
        }
    }
    (serving, peak, least)
}

/// Six machines are needed. A catalogue that is ten-fold wrong either way must neither buy without end nor give up what is needed.
#[test]
fn a_ten_fold_wrong_figure_neither_sheds_traffic_nor_buys_without_end() {
    let real = m2_ultra();
    let demand = 0.7 * 8.0 * 0.55;
    let (right, peak, _) = settle(&real, &real, demand);
    assert!((6..=8).contains(&right) && peak <= 16, "{right} after {peak}");
    for (percent, what) in [(10, "ten times as fast"), (1_000, "ten times as slow")] {
        let declared = slowed(&real, percent);
        let (servers, peak, least) = settle(&declared, &real, demand);
        let context = format!("declared {what}: {servers} servers, at most {peak}, at least {least} when enough");
        assert!((6..=20).contains(&servers), "{context}");
        assert!(peak <= 20, "{context}");
        assert!(least >= 6, "{context}");
        let calibration = calibrated(
            &curve(&declared, 8, Discipline::LeastWork),
            &curve(&real, 8, Discipline::LeastWork),
            0.6,
        );
        let Trust::OutOfRange(ratio) = calibration.trust(minute(30)) else {
            panic!("{context}")
        };
        assert!(
            (ratio * percent as f64 / 100.0 - 1.0).abs() < 0.25 || !(0.2..5.0).contains(&ratio),
            "{ratio}"
        );
        assert!(!calibration.trust(minute(30)).may_refuse_or_remove());
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
    let believed = curve(&m2_ultra(), 4, Discipline::LeastWork);
    let machine = |cores| MachineKey {
        chip: "M2 Ultra".to_owned(),
        gpu_cores: cores,
        memory_gib: 192,
    };
    let pool = PoolId::new("assistants", "chat");
    let mut all = Calibrations::default();
    for minutes in 0..1_000 {
        let seen = figure(
            minute(minutes),
            Rate::per_second(0.7),
            Metric::TimeToFirstToken,
            0.95,
            &believed,
        );
        all.of(&pool, &machine(76)).observe(&seen, &believed);
        all.of(&pool, &machine(76))
            .observe_busy(minute(minutes), Rate::per_second(0.333_333), Rate::per_second(0.5));
    }
    let written = serde_json::to_string(&all).unwrap();
    assert!(written.len() < 4_000, "{}", written.len());
    assert_eq!(serde_json::from_str::<Calibrations>(&written).unwrap(), all);
    assert!(all.get(&pool, &machine(60)).trust(minute(0)) == Trust::TooFewSamples);

    for cores in 0..5_000 {
        all.of(&pool, &machine(cores))
            .observe_busy(minute(2_000), Rate::per_second(1.0), Rate::per_second(1.0));
    }
    assert_eq!(all.0.len(), MOST_PAIRS);
    all.forget(minute(2_059));
    assert_eq!(all.0.len(), MOST_PAIRS);
    all.forget(minute(2_061));
    assert_eq!(all.0.len(), 0);
}
