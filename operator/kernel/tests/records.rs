//! Pasts as earlier versions wrote them: no upgrade, and no way back from one, may lose what a pool has lived through.
//!
//! Files in `records/` are never changed. When what is written changes, one is added: the parts of a `pomarium-history-…` `ConfigMap`, or of a
//! [`Past`] made for it, as one object.
//!
//! `past-1.json` is thirty hours up to [`END`]: a scrape every 15 s of [`requests`], 900 prompt and 200 output tokens each, with ten minutes missing;
//! 2,000 answers an hour that missed their first objective too often; two prices; and an M2 Ultra that took half as long again for every step,
//! with an engine that was full lately.

#![allow(clippy::unwrap_used)]

use pomarium_kernel::capacity::Trust;
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::forecast::{COARSE, Counts, FINE, Slot, forecast};
use pomarium_kernel::snapshot::{MachineKey, Metric, Objective};
use pomarium_kernel::strategy::BurnTable;
use pomarium_kernel::strategy::burn::LOADS;
use pomarium_kernel::strategy::bursts::Bursts;
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Fraction;
use serde_json::{Value, json};

const FIRST: &str = include_str!("records/past-1.json");

const END: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SCRAPE: Span = Span::from_secs(15);

const GAP_FROM: Timestamp = Timestamp::from_millis(END.as_millis() - 180 * 60_000);
const GAP_UNTIL: Timestamp = Timestamp::from_millis(END.as_millis() - 170 * 60_000);

/// Requests of the scrapes that there were, with the ends of their time.
fn scrapes() -> impl Iterator<Item = (Timestamp, Timestamp, u64)> {
    let from = END - Span::from_hours(30);
    (0..7_200_u64)
        .map(move |number| (number, from + SCRAPE * number))
        .filter(|(_, at)| !(GAP_FROM..GAP_UNTIL).contains(at))
        .map(|(number, at)| (at, at + SCRAPE, requests(number, at)))
}

fn requests(number: u64, at: Timestamp) -> u64 {
    let day = (8..20).contains(&(at.as_millis() / 3_600_000 % 24));
    4 + 6 * u64::from(day) + number.wrapping_mul(2_654_435_761) % 5
}

fn objectives() -> [Objective; 2] {
    [(Metric::TimeToFirstToken, 12_000), (Metric::InterTokenLatency, 250)].map(|(metric, threshold)| Objective {
        metric,
        percentile: Fraction::new(0.95),
        threshold: Span::from_millis(threshold),
        window: Span::from_hours(24),
    })
}

fn read(record: &Value) -> Past {
    serde_json::from_value(record.clone()).unwrap()
}

fn first() -> Value {
    serde_json::from_str(FIRST).unwrap()
}

fn trust(past: &Past) -> Trust {
    let machine = MachineKey {
        chip: "M2 Ultra".to_owned(),
        gpu_cores: 76,
        memory_gib: 192,
    };
    let declared = StepTimes {
        alpha_ns: 10_200_000,
        beta_ns: 2_500_000,
        delta_ns: 1_000_000,
        kv_tokens: 400_000,
        max_batch: 16,
        prefill_chunk: 256,
    };
    past.calibrations.trust(&machine, &declared)
}

#[test]
fn an_upgrade_keeps_what_arrived() {
    let past = read(&first());
    assert_eq!(past.history.recorded_until(), Some(END));
    assert_eq!(past.history.mean_lengths(), Some((900.0, 200.0)));
    for (span, kept) in [
        (FINE, past.history.fine().collect::<Vec<_>>()),
        (COARSE, past.history.hourly().collect()),
    ] {
        let sum = kept.iter().map(|(_, bucket)| bucket.counts.requests).sum::<u64>();
        assert_eq!(sum, scrapes().map(|(.., requests)| requests).sum::<u64>());
        for (start, bucket) in kept {
            let within = |at: &Timestamp| start <= *at && *at < start + span;
            let (mut counted, mut measured_ms) = (0, 0);
            for (.., requests) in scrapes().filter(|(at, ..)| within(at)) {
                counted += requests;
                measured_ms += 15_000;
            }
            assert_eq!(
                (bucket.counts.requests, bucket.measured_ms),
                (counted, measured_ms),
                "{start:?}"
            );
        }
    }
    let mut bursts = Bursts::default();
    for (from, until, requests) in scrapes() {
        let uncounted = Counts {
            requests,
            ..Counts::default()
        };
        bursts.record(from, until, uncounted);
    }
    assert_eq!(past.bursts, bursts);
}

#[test]
fn an_upgrade_keeps_how_forecasts_have_done_and_goes_on_from_there() {
    let mut past = read(&first());
    let accuracy = past.backtest.accuracy();
    for (hours, samples, against_last_value) in [(0.25, 93.0, 0.80), (1.0, 91.1, 0.67), (3.0, 86.0, 0.40)] {
        let known = accuracy
            .iter()
            .find(|band| (band.horizon.as_hours_f64() - hours).abs() < 1e-9)
            .unwrap();
        assert!((known.samples - samples).abs() < 0.1, "{known:?}");
        assert!(
            (known.against_last_value.unwrap() - against_last_value).abs() < 0.01,
            "{known:?}"
        );
    }
    let slots = [Slot {
        start: END,
        length: Span::from_hours(1),
    }];
    assert!(forecast(&past.history, &past.backtest, END, &slots, &[], 1.5).is_some());
    let counts = Counts {
        requests: 1_000,
        prompt_tokens: 900_000,
        output_tokens: 200_000,
    };
    past.arrived(END, END + FINE * 3, counts, &[]);
    assert_eq!(past.history.recorded_until(), Some(END + FINE * 3));
    assert!(past.backtest.accuracy()[0].samples > accuracy[0].samples - 1.0);
    assert!(past.backtest.boundary() > read(&first()).backtest.boundary());
}

/// By a table that expects nothing: what the record itself says.
fn correction(past: &Past) -> f64 {
    let table = BurnTable::new(vec![(1.0, [0.0; LOADS.len()])]).unwrap();
    past.ledger.correction(&table, 1.5)
}

#[test]
fn an_upgrade_keeps_error_budgets_prices_and_what_was_found_out_about_machines() {
    let past = read(&first());
    // 15,400 owed and 400 misses of 20 each, of 16,000 requests less a reserve of a few hundredths.
    let carried = past.ledger.carried(END, &objectives());
    assert!((-9_000.0..=-7_400.0).contains(&carried), "{carried}");
    assert!(correction(&past) > 1.5, "{}", correction(&past));
    let prices = [(1_799_971_200_000, 0.001_25), (1_800_057_600_000, 0.002_5)];
    assert_eq!(
        past.prices,
        prices.map(|(at, price)| (Timestamp::from_millis(at), price)).into()
    );
    assert_eq!(trust(&past), Trust::Trusted(1.5));
    assert!(past.calibrations.backlog(END));
}

#[test]
fn what_is_read_is_written_so_that_it_reads_the_same() {
    let past = read(&first());
    assert_eq!(read(&serde_json::to_value(&past).unwrap()), past);
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let mut record = first();
    for part in [
        "",
        "/history",
        "/bursts",
        "/backtest",
        "/ledger",
        "/calibrations/0",
        "/calibrations/0/machine",
        "/calibrations/0/declared",
    ] {
        let added = record.pointer_mut(part).unwrap().as_object_mut().unwrap();
        added.insert("addedLater".to_owned(), json!({"of": [1, "two", null]}));
    }
    assert_eq!(read(&record), read(&first()));
}

#[test]
fn what_an_earlier_version_did_not_write_costs_nothing_else() {
    let complete = read(&first());
    let mut record = first();
    for (part, field) in [("", "bursts"), ("/ledger", "debts"), ("/calibrations/0", "full_at")] {
        let object = record.pointer_mut(part).unwrap().as_object_mut().unwrap();
        assert!(object.remove(field).is_some(), "{field}");
    }
    let past = read(&record);
    assert_eq!((&past.history, &past.backtest), (&complete.history, &complete.backtest));
    assert_eq!((&past.prices, trust(&past)), (&complete.prices, trust(&complete)));
    assert_eq!(past.bursts, Bursts::default());
    assert!(!past.calibrations.backlog(END));
    let [with, without] = [&complete, &past].map(|past| past.ledger.carried(END, &objectives()));
    assert!((without - with - 15_400.0).abs() < 1.0, "{with} {without}");
    assert!((correction(&past) - correction(&complete)).abs() < 1e-12);

    record.as_object_mut().unwrap().remove("calibrations");
    assert_eq!(trust(&read(&record)), Trust::TooFewSamples);
    // Of 900 prompt and 200 output tokens each.
    let lately = read(&record).history.lately(END).unwrap();
    assert!((lately - 0.4 * 1.5).abs() < 1e-9, "{lately}");
}
