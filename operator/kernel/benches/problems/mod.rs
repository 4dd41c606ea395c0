//! Made-up strategic problems that benches and the judge share: one pool on three kinds of servers, as in
//! `examples/scenarios/hybrid-week`, and many pools over many groups. Deterministic by seed.

// Every bench and test that includes this uses a part of it.
#![allow(dead_code)]

pub(crate) mod highs;
pub(crate) mod many;
pub(crate) mod milp;
pub(crate) mod peers;
pub(crate) mod rounded;

use pomarium_kernel::random::SplitMix;
use pomarium_kernel::snapshot::Survive;
use pomarium_kernel::strategy::burn::{BurnTable, LOADS};
use pomarium_kernel::strategy::horizon::Horizon;
use pomarium_kernel::strategy::{Class, Demand, Problem, Unit, Window};
use pomarium_kernel::time::{Span, Timestamp};

const HOUR_S: f64 = 3_600.0;

/// Requests/s at saturation of an M2 Ultra, an M4 Max and an M4 Pro on azure-conv's lengths.
const CAPACITY: [f64; 3] = [0.55, 0.436, 0.258];

/// What sets of so many requests/s burn at [`LOADS`], as measured by the capacity model on the same lengths.
const STEADY: [(f64, [f64; LOADS.len()]); 3] = [
    (
        1.1,
        [
            0.0, 0.0, 0.0, 0.004, 0.009, 0.011, 0.018, 0.033, 0.068, 0.144, 0.162, 0.478, 1.578, 5.371, 10.256, 14.082,
        ],
    ),
    (
        3.3,
        [
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.014, 0.050, 0.073, 0.366, 1.485, 12.683,
        ],
    ),
    (
        10.2,
        [
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.010, 0.040, 0.063, 0.067, 0.071, 0.080, 0.143, 0.260, 0.385, 12.556,
        ],
    ),
];

/// One pool over 36 hours: 6 free servers that sleep, 4 by the hour, 20 by the day. Some are held already; the error budget is partly spent.
#[expect(clippy::too_many_lines, reason = "one problem, told from its beginning to its end")]
pub(crate) fn hybrid(seed: u64) -> Problem {
    let mut random = SplitMix::of(seed, &[1]);
    let now = Timestamp::from_millis(i64::try_from(random.below(7 * 24 * 60)).unwrap_or(0) * 60_000);
    let horizon = Horizon::new(now, Span::from_hours(24));
    let boundaries_s = horizon.seconds();
    let peaks: Vec<f64> = (0..9).map(|_| 3.0 + 4.5 * random.unit()).collect();
    let night = 0.8 + 1.5 * random.unit();
    let width = 7.0 + 4.0 * random.unit();
    let first_hour = now.as_millis() as f64 / 3_600_000.0;
    let rate = |at_s: f64| {
        let hour = first_hour + at_s / HOUR_S;
        let day = (hour / 24.0).floor();
        let peak = peaks.iter().cycle().nth(usize_of(day) % 9).copied().unwrap_or(3.0);
        night + (peak - night) * (1.0 - ((hour - day * 24.0 - 14.0) / width).abs()).max(0.0)
    };
    let arrivals: Vec<Vec<(f64, f64)>> = boundaries_s
        .windows(2)
        .map(|slot| {
            let rate = rate(slot[0]) * (0.95 + 0.1 * random.unit());
            if slot[0] < 2_700.0 {
                [
                    (0.15, 0.82),
                    (0.225, 0.93),
                    (0.25, 1.0),
                    (0.2, 1.07),
                    (0.1, 1.16),
                    (0.045, 1.25),
                    (0.03, 1.4),
                ]
                .map(|(weight, factor)| (weight, rate * factor))
                .to_vec()
            } else {
                [(0.3, 0.92), (0.4, 1.0), (0.3, 1.09)]
                    .map(|(weight, factor)| (weight, rate * factor))
                    .to_vec()
            }
        })
        .collect();
    let days = horizon.windows(Span::from_hours(24));
    let windows = days
        .all
        .iter()
        .enumerate()
        .map(|(index, (start, slots))| {
            let requests: f64 = slots
                .clone()
                .map(|slot| expected(&arrivals[slot]) * (boundaries_s[slot + 1] - boundaries_s[slot]))
                .sum();
            let gone_h = if *start < now {
                now.since(*start).as_hours_f64()
            } else {
                0.0
            };
            let carried = gone_h * HOUR_S * 2.0 * (0.6 * random.unit() - 0.1);
            Window {
                slots: slots.clone(),
                budget: horizon.budget(&days, index, requests, carried, 0.6),
            }
        })
        .collect();
    let held = |random: &mut SplitMix, most: usize, lease_h: f64, lead_s: f64| -> Vec<Unit> {
        let count = random.below(most + 1);
        (0..count)
            .map(|_| Unit::On {
                serves_s: if random.unit() < 0.2 {
                    lead_s * random.unit()
                } else {
                    0.0
                },
                paid_until_s: (lease_h * HOUR_S * (1.2 * random.unit() - 0.2)).max(0.0),
            })
            .collect()
    };
    let mut class = |tier: u32,
                     count: usize,
                     most: usize,
                     hourly: f64,
                     idle_watts: f64,
                     lease_h: f64,
                     lead_s: f64,
                     recycle_s: f64| {
        let mut units = held(&mut random, most, lease_h, lead_s);
        units.resize(count, Unit::Off { from_s: 0.0 });
        Class {
            tier,
            site: tier as usize,
            hourly,
            energy_hourly: idle_watts / 1_000.0 * 0.15,
            minimum_lease_s: lease_h * HOUR_S,
            lead_s,
            recycle_s,
            switch_cost: 0.02,
            busy_watts: 0.0,
            capacity: vec![Some(CAPACITY[tier as usize])],
            units,
        }
    };
    Problem {
        boundaries_s,
        classes: vec![
            class(0, 6, 6, 0.0, 10.0, 0.0, 90.0, 0.0),
            class(1, 4, 4, 1.55, 6.0, 1.0, 335.0, 0.0),
            class(2, 20, 10, 1.97, 5.0, 24.0, 945.0, 6_600.0),
        ],
        pools: vec![Demand {
            arrivals,
            burn: table(),
            windows,
            miss_value: 0.0,
            survive: Survive::None,
            rank: 0,
            most: u32::MAX,
            budgets: Vec::new(),
            backlog: None,
        }],
        power_limits: Vec::new(),
        overhang: 0.1,
        change_hourly: 0.0,
    }
}

/// The same a few minutes later: forecasts have moved by some percent.
pub(crate) fn nudged(problem: &Problem, seed: u64) -> Problem {
    let mut random = SplitMix::of(seed, &[2]);
    let mut problem = problem.clone();
    for pool in &mut problem.pools {
        for arrivals in &mut pool.arrivals {
            let factor = 0.98 + 0.04 * random.unit();
            for (_, rate) in arrivals {
                *rate *= factor;
            }
        }
    }
    problem
}

fn table() -> BurnTable {
    BurnTable::new(STEADY.to_vec()).unwrap_or_else(|| unreachable!("three entries"))
}

fn expected(arrivals: &[(f64, f64)]) -> f64 {
    arrivals.iter().map(|(probability, rate)| probability * rate).sum()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "days of two weeks"
)]
fn usize_of(value: f64) -> usize {
    value as usize
}
