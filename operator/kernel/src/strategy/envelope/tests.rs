#![allow(clippy::unwrap_used)]

use super::*;
use crate::capacity::{Servers, curve};
use crate::engine::StepTimes;
use crate::forecast::Counts;
use crate::snapshot::Metric;
use crate::units::Fraction;

const HOUR: Span = Span::from_hours(1);

fn machine(slowness: u64) -> Performance {
    Performance {
        times: StepTimes {
            alpha_ns: 10_000_000 * slowness,
            beta_ns: 2_500_000 * slowness,
            delta_ns: 1_000_000 * slowness,
            kv_tokens: 200_000,
            max_batch: 16,
            prefill_chunk: 256,
        },
        load_time: Span::from_secs(30),
        source: String::new(),
    }
}

fn objectives() -> Vec<Objective> {
    vec![Objective {
        metric: Metric::TimeToFirstToken,
        percentile: Fraction::new(0.95),
        threshold: Span::from_secs(8),
        window: Span::from_hours(24),
    }]
}

fn day(number: u64) -> Timestamp {
    Timestamp::from_millis(20_454 * 86_400_000) + Span::from_hours(24 * number)
}

/// Quiet but for the hours from 12 to 20, when two owned servers are too few.
fn rate(at: Timestamp) -> u64 {
    let hour = at.since(day(0)).as_millis() / HOUR.as_millis() % 24;
    if (12..20).contains(&hour) { 4 } else { 1 }
}

/// So many days of it, in pieces of five minutes.
fn past(until: Timestamp) -> Past {
    let mut past = Past::default();
    let mut at = day(0);
    while at < until {
        let next = at + Span::from_minutes(5);
        let requests = rate(at) * 300 / 2;
        let counts = Counts {
            requests,
            prompt_tokens: requests * 1_000,
            output_tokens: requests * 200,
        };
        past.arrived(at, next, counts, &[]);
        at = next;
    }
    past
}

fn supply(tier: u32, held: Vec<Held>, free: usize, now: Timestamp) -> Supply {
    Supply {
        tier,
        site: tier as usize,
        hourly: if tier == 0 { 0.0 } else { 2.0 },
        energy_hourly: 0.002,
        busy_watts: 0.0,
        minimum_lease: if tier == 0 { Span::ZERO } else { Span::from_hours(24) },
        provision: if tier == 0 {
            Span::from_minutes(1)
        } else {
            Span::from_minutes(15)
        },
        load: Span::from_secs(30),
        recycle: if tier == 0 { Span::ZERO } else { Span::from_minutes(110) },
        switch_cost: 0.02,
        held,
        free: vec![now; free],
    }
}

fn planned(now: Timestamp, hosted: Vec<Held>, past: &Past) -> Envelope {
    planned_with(now, hosted, past, 0.0)
}

/// With so many requests that wait already.
fn planned_with(now: Timestamp, hosted: Vec<Held>, past: &Past, waiting: f64) -> Envelope {
    let (fast, slow) = (machine(1), machine(2));
    let mix = LengthMix {
        classes: vec![(500, 100), (800, 200), (1_200, 200), (1_500, 300)],
    };
    let objectives = objectives();
    let owned = Held {
        serves_at: now,
        paid_until: now,
        fixed: true,
    };
    let free = 8 - hosted.len();
    let situation = Situation {
        now,
        supplies: vec![supply(0, vec![owned; 2], 0, now), supply(2, hosted, free, now)],
        pools: vec![Consumer {
            performance: vec![Some(&fast), Some(&slow)],
            mix: &mix,
            discipline: Discipline::LeastWork,
            objectives: &objectives,
            survive: Survive::None,
            rank: 0,
            most: u32::MAX,
            waiting,
            allowances: Vec::new(),
            miss_penalty: 0.0,
            method: Method::default(),
            recent: None,
            past,
            events: &[],
        }],
        power: Vec::new(),
        considered: Considered::default(),
    };
    plan(&situation, &mut Memo::new(curve::Effort::QUICK, 32), Effort::REPLAN)
}

#[test]
fn leases_come_ahead_of_a_daily_peak_by_their_lead_time_and_not_hours_before() {
    let early = day(4) + Span::from_hours(6);
    assert_eq!(planned(early, Vec::new(), &past(early)).supplies[1].buyers.len(), 0);
    let ahead = day(4) + Span::from_millis(HOUR.as_millis() * 12 - 15 * 60_000);
    let plan = planned(ahead, Vec::new(), &past(ahead));
    assert!(!plan.supplies[1].buyers.is_empty(), "{:?}", plan.pools[0].windows);
    assert!(plan.bound <= plan.cost + 1e-9);
}

#[test]
fn what_waits_already_is_worked_off_with_more_than_what_arrives_needs() {
    let now = day(4) + Span::from_hours(15);
    let held = Held {
        serves_at: now,
        paid_until: now + Span::from_hours(20),
        fixed: false,
    };
    let bought = |waiting: f64| {
        let plan = planned_with(now, vec![held; 4], &past(now), waiting);
        plan.supplies[1].buyers.len()
    };
    assert_eq!((bought(0.0), bought(5.0)), (0, 0), "a few wait at any time");
    assert!(bought(4_000.0) > bought(0.0), "{} and {}", bought(4_000.0), bought(0.0));
}

#[test]
fn a_lease_that_has_served_its_peak_is_wanted_to_the_end_of_its_term() {
    let now = day(4) + Span::from_hours(21);
    let paid_until = day(5) + Span::from_hours(11);
    let held = Held {
        serves_at: now,
        paid_until,
        fixed: false,
    };
    let plan = planned(now, vec![held; 3], &past(now));
    for until in &plan.supplies[1].until {
        assert!(until.is_none_or(|until| until >= paid_until), "{until:?}");
    }
    assert_eq!(plan.supplies[1].buyers.len(), 0);
}

#[test]
fn nothing_known_of_the_demand_buys_nothing() {
    let plan = planned(day(1), Vec::new(), &Past::default());
    assert_eq!(plan.supplies[1].buyers.len(), 0);
    assert!(plan.pools[0].forecast.is_none());
}

#[test]
fn the_same_situation_gives_the_same_plan() {
    let now = day(3) + Span::from_hours(11);
    let past = past(now);
    let once = planned(now, Vec::new(), &past);
    assert_eq!(once, planned(now, Vec::new(), &past));
    let text = serde_json::to_string(&past).unwrap();
    let again: Past = serde_json::from_str(&text).unwrap();
    assert_eq!(once, planned(now, Vec::new(), &again), "and so it does after a restart");
}

#[test]
fn means_do_not_see_what_misses_before_servers_are_overwhelmed() {
    let machine = machine(1);
    let servers = [Servers {
        performance: &machine,
        count: 4,
    }];
    let burn = |judge: Judge| {
        let mut curves = curve::Curves::new(curve::Effort::QUICK, 64);
        let (mix, objectives) = (LengthMix::assumed(), objectives());
        let steady = steady_burn(&servers, mix, Discipline::LeastWork, &objectives, judge, &mut curves);
        let (each, steady) = steady.unwrap();
        let (capacity, table) = (4.0 * each[0], steady.without_bursts().unwrap());
        [0.88, 1.0].map(|load| table.at(load * capacity, capacity))
    };
    let ([means, full], [whole, _]) = (burn(Judge::Means), burn(Judge::Distributions));
    assert!(
        means <= 1e-9 && whole > 0.05,
        "{means} by means, {whole} by distributions"
    );
    assert!((full - 20.0).abs() < 1e-6, "all miss: {full}");
}
