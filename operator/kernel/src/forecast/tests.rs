#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

mod worlds;

use worlds::{EACH, World, hours, slots};

#[test]
fn nothing_recorded_is_no_forecast() {
    let (history, record) = (History::new(), Backtest::new());
    assert_eq!(forecast(&history, &record, hours(0), &slots(hours(0)), &[], EACH), None);
}

#[test]
fn the_first_hour_gives_its_level_in_a_wide_band_and_says_that_no_season_is_known() {
    let world = World::recorded((0..12).map(|_| Some(300)));
    let forecast = world.forecast();
    assert_eq!(forecast.season, Season::Unknown);
    for slot in &forecast.slots {
        let at = |level| slot.requests.at(Fraction::new(level)).as_per_second();
        assert!((0.8..1.25).contains(&at(0.5)), "{slot:?}");
        assert!(at(0.95) > 1.3 && at(0.05) < 0.77, "{slot:?}");
    }
    let width = |slot: &SlotForecast| slot.requests.0[5].as_per_second() - slot.requests.0[0].as_per_second();
    assert!(width(&forecast.slots[forecast.slots.len() - 1]) > width(&forecast.slots[0]));
}

#[test]
fn constant_traffic_is_forecast_as_it_is() {
    let world = World::recorded((0..12 * 288).map(|_| Some(600)));
    for slot in &world.forecast().slots {
        let rate = slot.requests.at(Fraction::new(0.95)).as_per_second();
        assert!((1.99..2.2).contains(&rate), "{slot:?}");
        assert!(
            (1.99..2.01).contains(&slot.requests.median().as_per_second()),
            "{slot:?}"
        );
    }
}

#[test]
fn silence_is_forecast_as_silence() {
    let world = World::recorded((0..3 * 288).map(|_| Some(0)));
    for slot in &world.forecast().slots {
        assert!(slot.requests.at(Fraction::new(0.9)).as_per_second() < 0.01, "{slot:?}");
    }
}

#[test]
fn one_spike_does_not_make_a_plateau() {
    let world = World::recorded((0..3 * 288).map(|bucket| Some(if bucket == 500 { 60_000 } else { 300 })));
    for slot in &world.forecast().slots {
        assert!(slot.requests.median().as_per_second() < 1.2, "{slot:?}");
    }
}

#[test]
fn a_gap_is_neither_silence_nor_scored() {
    let with_gap = World::recorded((0..3 * 288).map(|bucket| (!(700..760).contains(&bucket)).then_some(300)));
    for slot in &with_gap.forecast().slots {
        assert!(
            (0.98..1.02).contains(&slot.requests.median().as_per_second()),
            "{slot:?}"
        );
    }
    let accuracy = with_gap.record.accuracy();
    assert!(
        accuracy.iter().all(|band| band.inside.is_none_or(|share| share > 0.9)),
        "{accuracy:?}"
    );
}

#[test]
fn a_declared_event_raises_its_window_and_is_not_learned_as_normal() {
    let during = |bucket: i64| (600..612).contains(&bucket);
    let event = |start: i64, factor| Event {
        start: hours(start),
        end: hours(start + 1),
        demand_factor: factor,
    };
    let past = [event(50, 3.0)];
    let arrivals = |bucket| Some(if during(bucket) { 900 } else { 300 });
    let declared = World::recorded_with((0..3 * 288).map(arrivals), &past);
    let plain = World::recorded((0..3 * 288).map(|_| Some(300)));
    let slots = slots(plain.now);
    let declared = forecast(&declared.history, &declared.record, plain.now, &slots, &past, EACH).unwrap();
    assert_eq!(declared.slots, plain.forecast().slots);

    let now = plain.now;
    let coming = Event {
        start: now + Span::from_hours(6),
        end: now + Span::from_hours(7),
        demand_factor: 1.6,
    };
    let slot = [Slot {
        start: coming.start,
        length: Span::from_hours(1),
    }];
    let with = forecast(&plain.history, &plain.record, now, &slot, &[coming], EACH).unwrap();
    let without = forecast(&plain.history, &plain.record, now, &slot, &[], EACH).unwrap();
    let ratio = with.slots[0].requests.median().as_per_second() / without.slots[0].requests.median().as_per_second();
    assert!((ratio - 1.6).abs() < 1e-9, "{ratio}");
}

#[test]
fn an_event_that_cannot_be_changes_nothing_or_is_bounded() {
    let world = World::recorded((0..288).map(|_| Some(300)));
    for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0] {
        let event = Event {
            start: hours(-100),
            end: hours(100),
            demand_factor: factor,
        };
        let seen = World::recorded_with((0..288).map(|_| Some(300)), &[event]);
        for slot in seen.forecast().slots.iter().chain(&world.forecast().slots) {
            assert!(slot.requests.0.iter().all(|rate| rate.as_per_second().is_finite()));
        }
    }
}

#[test]
fn a_lease_is_forecast_by_its_mean() {
    let world = World::recorded((0..3 * 288).map(|bucket| Some(if bucket / 144 % 2 == 0 { 300 } else { 900 })));
    let forecast = world.forecast();
    let day = forecast.over(world.now, world.now + Span::from_hours(24)).unwrap();
    assert!((1.7..2.3).contains(&day.median().as_per_second()), "{day:?}");
    assert_eq!(
        forecast.over(world.now + Span::from_hours(99), world.now + Span::from_hours(100)),
        None
    );
}

#[test]
fn tokens_follow_the_recent_mix() {
    let lengths = World::recorded((0..12).map(|_| Some(300))).forecast().lengths.unwrap();
    assert_eq!((lengths.prompt, lengths.output), (1_000.0, 200.0));
}

/// A week and more: days, weekends, noise, and a lasting rise by a factor of 1.5.
#[test]
fn over_a_week_it_beats_the_last_value_and_the_day_before_and_its_band_holds() {
    let buckets = 10 * 288;
    let arrivals: Vec<u64> = (0..buckets).map(worlds::synthetic).collect();
    for (ahead, length) in [(12, 3), (72, 12)] {
        let score = worlds::backtest(&arrivals, ahead, length, 3 * 288);
        assert!(score.against_last_value < 0.9, "{ahead}: {score:?}");
        assert!(score.against_seasonal_day < 0.9, "{ahead}: {score:?}");
        assert!((0.82..=0.97).contains(&score.below_ninety), "{ahead}: {score:?}");
    }
}

#[test]
fn on_a_friday_evening_a_quiet_saturday_is_expected_once_weeks_are_known() {
    let at_noon = |days: i64| {
        let world = World::recorded((0..days * 288 + 216).map(|bucket| Some(worlds::synthetic(bucket))));
        let noon = world.now + Span::from_hours(18);
        let slot = [Slot {
            start: noon,
            length: COARSE,
        }];
        let forecast = forecast(&world.history, &world.record, world.now, &slot, &[], EACH).unwrap();
        (forecast.season, forecast.slots[0].requests.median().as_per_second())
    };
    // 400 per 5 minutes, 1.5 times since the first Saturday, halved on weekends, 1.7 times at noon.
    let quiet = 400.0 * 1.5 * 0.5 * 1.7 / 300.0;
    let (season, first) = at_noon(4);
    assert_eq!(season, Season::Daily);
    assert!(
        first > 1.15 * quiet,
        "a first weekend cannot be known: {first} against {quiet}"
    );
    let (season, fourth) = at_noon(25);
    assert_eq!(season, Season::Weekly);
    assert!(
        (0.75 * quiet..1.3 * quiet).contains(&fourth),
        "{fourth} against {quiet}"
    );
}

#[test]
fn what_is_forecast_depends_on_nothing_that_comes_later() {
    let past: Vec<_> = (0..500).map(|bucket| Some(worlds::synthetic(bucket))).collect();
    let (now, slots) = (World::end(500), slots(World::end(500)));
    let record = World::recorded(past.iter().copied()).record;
    let with = |later: u64| {
        let later = (0..24).map(|bucket| Some(later + bucket * 10));
        let world = World::recorded(past.iter().copied().chain(later));
        forecast(&world.history, &record, now, &slots, &[], EACH).unwrap().slots
    };
    assert_eq!(with(0), with(100_000));
}

#[test]
fn catching_up_at_once_gives_the_same_record_as_step_by_step() {
    let arrivals: Vec<_> = (0..300).map(|bucket| Some(worlds::synthetic(bucket))).collect();
    let stepwise = World::recorded(arrivals.iter().copied());
    let mut at_once = Backtest::new();
    at_once.advance(&stepwise.history, &[]);
    assert_eq!(at_once, stepwise.record);
}

#[test]
fn a_restart_changes_nothing() {
    let mut world = World::recorded((0..700).map(|bucket| Some(worlds::synthetic(bucket))));
    let text = serde_json::to_string(&(&world.history, &world.record)).unwrap();
    let (history, record): (History, Backtest) = serde_json::from_str(&text).unwrap();
    assert_eq!((&history, &record), (&world.history, &world.record));
    let mut restarted = World {
        history,
        record,
        ..world
    };
    for bucket in 700..730 {
        world.add(bucket, Some(worlds::synthetic(bucket)), &[]);
        restarted.add(bucket, Some(worlds::synthetic(bucket)), &[]);
    }
    assert_eq!(restarted.forecast(), world.forecast());
}

#[test]
fn four_weeks_of_a_pool_fit_in_a_small_object() {
    let world = World::recorded((0..28 * 288).map(|bucket| Some(worlds::synthetic(bucket))));
    let (history, record) = (
        serde_json::to_string(&world.history).unwrap().len(),
        serde_json::to_string(&world.record).unwrap().len(),
    );
    assert!(history <= 15_000, "{history} bytes");
    assert!(record <= 15_000, "{record} bytes");
}

#[test]
fn damaged_text_is_an_error_and_no_history() {
    let world = World::recorded((0..50).map(|bucket| Some(worlds::synthetic(bucket))));
    let whole = serde_json::to_value(&world.history).unwrap();
    for (field, value) in [
        ("version", serde_json::json!(9)),
        ("fine", serde_json::json!("%%%")),
        ("fine", serde_json::json!("")),
        ("fine", serde_json::json!("//////////////////8")),
        ("fine", serde_json::json!("/////w8")),
        ("fineFirst", serde_json::json!(i64::MAX)),
    ] {
        let mut damaged = whole.clone();
        damaged[field] = value;
        let error = serde_json::from_value::<History>(damaged).unwrap_err().to_string();
        assert!(error.starts_with("decoding"), "{field}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_forecast_of_anything_is_finite_and_ascending(
        arrivals in prop::collection::vec(prop::option::of(prop_oneof![0_u64..10, 0_u64..10_000, any::<u64>()]), 1..400),
        ahead in -50_i64..100,
        length in 0_u64..400,
    ) {
        let world = World::recorded(arrivals.into_iter());
        let slot = Slot { start: world.now + Span::from_hours(50), length: Span::from_hours(length) };
        let slot = Slot { start: Timestamp::from_millis(slot.start.as_millis() + (ahead - 50) * 3_600_000 + 77_777), ..slot };
        if let Some(forecast) = forecast(&world.history, &world.record, world.now, &[slot], &[], EACH) {
            let rates = forecast.slots[0].requests.0;
            prop_assert!(rates.is_sorted());
            prop_assert!(rates.iter().all(|rate| rate.as_per_second().is_finite() && rate.as_per_second() >= 0.0));
        }
    }
}
