//! Plans of small problems against the optimum, which a general solver finds by branch and bound.

#![allow(clippy::unwrap_used)]

#[path = "../benches/problems/mod.rs"]
mod problems;

use pomarium_kernel::snapshot::Survive;
use pomarium_kernel::strategy::burn::{BurnTable, LOADS};
use pomarium_kernel::strategy::{Class, Demand, Effort, Problem, Unit, Window, solve};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_oneof, proptest};

use problems::milp::{Servers, milp};

const HOUR: f64 = 3_600.0;
const SLOTS: usize = 6;

fn unit() -> impl Strategy<Value = Unit> {
    prop_oneof![
        4 => Just(Unit::Off { from_s: 0.0 }),
        1 => Just(Unit::Off { from_s: 2.0 * HOUR }),
        1 => Just(Unit::On { serves_s: 0.0, paid_until_s: 2.5 * HOUR }),
        1 => Just(Unit::On { serves_s: 0.3 * HOUR, paid_until_s: 0.0 }),
        1 => Just(Unit::Fixed { serves_s: 0.0 }),
    ]
}

fn class(pools: usize) -> impl Strategy<Value = Class> {
    let kind = prop_oneof![
        Just((0.0, 0.0, 0.02, 0.0)),
        Just((1.5, 1.0, 0.1, 0.0)),
        Just((2.0, 4.0, 0.26, 1.8)),
        Just((2.0, 24.0, 0.26, 1.8)),
    ];
    let capacity = (
        prop_oneof![Just(0.5), Just(0.8), Just(1.0)],
        prop::collection::vec(any::<u8>(), pools),
    );
    (kind, capacity, prop::collection::vec(unit(), 1..4)).prop_map(
        |((hourly, minimum_h, lead_h, recycle_h), (each, may_use), units)| Class {
            tier: u32::from(hourly > 0.0),
            site: 0,
            hourly,
            energy_hourly: 0.02,
            minimum_lease_s: minimum_h * HOUR,
            lead_s: lead_h * HOUR,
            recycle_s: recycle_h * HOUR,
            switch_cost: 0.02,
            busy_watts: 0.0,
            capacity: may_use
                .into_iter()
                .map(|chance| (chance > 80).then_some(each))
                .collect(),
            units,
        },
    )
}

/// Nothing misses up to four fifths of saturation but for one in a thousand.
fn burn() -> BurnTable {
    let burn = LOADS.map(|load| if load <= 0.8 { 0.02 } else { 0.02 + (load - 0.8) * 100.0 });
    BurnTable::new(vec![(1.0, burn)]).unwrap()
}

fn pool() -> impl Strategy<Value = Demand> {
    let survive = prop_oneof![4 => Just(Survive::None), 1 => Just(Survive::Server)];
    let rates = prop::collection::vec(prop_oneof![Just(0.1), Just(0.4), Just(0.9)], SLOTS);
    (
        rates,
        prop_oneof![Just(0.3), Just(2.0)],
        any::<bool>(),
        survive,
        prop_oneof![Just(0.0), Just(0.000_1)],
    )
        .prop_map(|(rates, allow, halves, survive, miss_value)| {
            let window = |slots: std::ops::Range<usize>| Window {
                budget: rates[slots.clone()].iter().sum::<f64>() * HOUR * allow,
                slots,
            };
            Demand {
                windows: if halves {
                    vec![window(1..3), window(3..SLOTS)]
                } else {
                    vec![window(1..SLOTS)]
                },
                arrivals: rates.iter().map(|&rate| vec![(0.5, rate), (0.5, 1.3 * rate)]).collect(),
                burn: burn(),
                miss_value,
                survive,
                rank: 0,
                most: u32::MAX,
                budgets: Vec::new(),
                backlog: None,
            }
        })
}

fn worlds() -> impl Strategy<Value = Problem> {
    (1_usize..4).prop_flat_map(|pools| {
        let classes = prop::collection::vec(class(pools), 2..5);
        (classes, prop::collection::vec(pool(), pools)).prop_map(|(classes, pools)| Problem {
            boundaries_s: (0_u32..).take(SLOTS + 1).map(|slot| f64::from(slot) * HOUR).collect(),
            classes,
            pools,
            power_limits: Vec::new(),
            overhang: 0.1,
            change_hourly: 0.0,
        })
    })
}

/// Nodes of branch and bound: enough for one pool; of several, little more than a bound is known then.
const NODES: u64 = 300;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_plan_is_cheaper_than_the_optimum_and_no_bound_is_above_it(problem in worlds()) {
        let plan = solve(&problem, None, Effort::COLD);
        let optimum = milp(&problem, Servers::Whole).judge(NODES);
        let rounding = 1e-5 * (1.0 + plan.cost);
        prop_assert!(plan.bound <= optimum.most + rounding, "{} is above {optimum:?}", plan.bound);
        prop_assert!(!plan.holds() || plan.cost >= optimum.least - rounding, "{} is below {optimum:?}", plan.cost);
    }
}
