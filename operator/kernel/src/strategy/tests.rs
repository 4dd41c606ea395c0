#![allow(clippy::unwrap_used)]

mod limits;
mod many;

use std::ops::Range;

use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::burn::LOADS;
use super::*;

const HOUR: f64 = 3_600.0;

/// Slots of `minutes`, over `hours`.
fn boundaries(minutes: u32, hours: u32) -> Vec<f64> {
    (0..=hours * 60 / minutes)
        .map(|slot| f64::from(slot * minutes) * 60.0)
        .collect()
}

/// Nothing misses up to nine tenths of saturation, everything at saturation.
fn sharp() -> BurnTable {
    BurnTable::new(vec![(
        1.0,
        LOADS.map(|load| if load <= 0.9 { 0.0 } else { (load - 0.9) * 200.0 }),
    )])
    .unwrap()
}

fn owned(count: usize) -> Class {
    Class {
        tier: 0,
        site: 0,
        hourly: 0.0,
        energy_hourly: 0.05,
        minimum_lease_s: 0.0,
        lead_s: 60.0,
        recycle_s: 0.0,
        switch_cost: 0.001,
        busy_watts: 0.0,
        capacity: vec![Some(1.0)],
        units: vec![Unit::Off { from_s: 0.0 }; count],
    }
}

fn hosted(count: usize) -> Class {
    Class {
        tier: 2,
        site: 1,
        hourly: 2.0,
        minimum_lease_s: 24.0 * HOUR,
        lead_s: 960.0,
        recycle_s: 110.0 * 60.0,
        switch_cost: 0.1,
        units: vec![Unit::Off { from_s: 0.0 }; count],
        ..owned(0)
    }
}

fn demand(problem: &[f64], rate: impl Fn(f64) -> f64, windows: Vec<(Range<usize>, f64)>) -> Demand {
    Demand {
        arrivals: problem.windows(2).map(|slot| vec![(1.0, rate(slot[0]))]).collect(),
        burn: sharp(),
        windows: windows
            .into_iter()
            .map(|(slots, budget)| Window { slots, budget })
            .collect(),
        miss_value: 0.0,
        survive: Survive::None,
        rank: 0,
        most: u32::MAX,
        budgets: Vec::new(),
        backlog: None,
    }
}

/// One window over everything, which allows exactly what its requests may burn.
fn one_window(boundaries: &[f64], rate: impl Fn(f64) -> f64 + Copy, allow: f64) -> Demand {
    let requests: f64 = boundaries
        .windows(2)
        .map(|slot| rate(slot[0]) * (slot[1] - slot[0]))
        .sum();
    demand(boundaries, rate, vec![(0..boundaries.len() - 1, requests * allow)])
}

fn problem(boundaries_s: Vec<f64>, classes: Vec<Class>, pool: Demand) -> Problem {
    Problem {
        boundaries_s,
        classes,
        pools: vec![pool],
        power_limits: Vec::new(),
        overhang: 0.1,
        change_hourly: 0.0,
    }
}

fn legs(plan: &StrategicPlan, class: usize) -> Vec<Leg> {
    plan.courses[class].iter().flatten().copied().collect()
}

#[test]
fn a_lease_is_taken_ahead_of_the_demand_by_its_lead_time() {
    let boundaries = boundaries(15, 36);
    let rate = |at: f64| {
        if (6.0 * HOUR..20.0 * HOUR).contains(&at) {
            2.5
        } else {
            0.8
        }
    };
    let pool = one_window(&boundaries, rate, 0.0001);
    let plan = solve(
        &problem(boundaries, vec![owned(1), hosted(4)], pool),
        None,
        Effort::COLD,
    );
    assert!(plan.holds(), "{:?}", plan.windows);
    let found = legs(&plan, 1);
    assert!(!found.is_empty());
    for lease in &found {
        assert!(lease.serves_s <= 6.0 * HOUR && lease.from_s >= 5.0 * HOUR, "{lease:?}");
    }
    assert_eq!(
        found.len(),
        2,
        "2.5 requests/s at nine tenths of three servers: {found:?}"
    );
}

#[test]
fn what_may_turn_out_not_to_be_needed_is_leased_as_late_as_it_serves_as_well() {
    let boundaries = boundaries(15, 36);
    // A lease of a day that begins at any time up to the sixth hour has the peak within its term.
    let rate = |at: f64| {
        if (6.0 * HOUR..12.0 * HOUR).contains(&at) {
            1.5
        } else {
            0.6
        }
    };
    let pool = one_window(&boundaries, rate, 0.0001);
    let mut problem = problem(boundaries, vec![owned(1), hosted(4)], pool);
    problem.change_hourly = 0.02;
    let plan = solve(&problem, None, Effort::COLD);
    assert!(plan.holds(), "{:?}", plan.windows);
    let found = legs(&plan, 1);
    let [lease] = &found[..] else { panic!("{found:?}") };
    assert!(lease.from_s >= 5.5 * HOUR, "{lease:?}");
}

#[test]
fn a_peak_that_the_error_budget_covers_is_not_worth_a_lease() {
    let boundaries = boundaries(15, 36);
    // Half an hour of 0.97 of saturation burns 14 per request; the day has a hundred times as many requests.
    let rate = |at: f64| {
        if (12.0 * HOUR..12.5 * HOUR).contains(&at) {
            0.97
        } else {
            0.85
        }
    };
    let pool = one_window(&boundaries, rate, 1.0);
    let plan = solve(
        &problem(boundaries.clone(), vec![owned(1), hosted(4)], pool),
        None,
        Effort::COLD,
    );
    assert!(plan.holds());
    assert!(legs(&plan, 1).is_empty(), "{:?}", legs(&plan, 1));
    let strict = one_window(&boundaries, rate, 0.01);
    let plan = solve(
        &problem(boundaries, vec![owned(1), hosted(4)], strict),
        None,
        Effort::COLD,
    );
    assert_eq!(legs(&plan, 1).len(), 1, "without that budget it is");
}

#[test]
fn owned_servers_are_woken_before_any_is_leased() {
    let boundaries = boundaries(15, 36);
    let pool = one_window(&boundaries, |_| 2.5, 0.01);
    let plan = solve(
        &problem(boundaries, vec![owned(3), hosted(4)], pool),
        None,
        Effort::COLD,
    );
    assert!(plan.holds());
    assert_eq!(plan.paid(0, HOUR), 3);
    assert_eq!(plan.paid(1, HOUR), 0);
}

#[test]
fn of_servers_that_cost_nothing_but_electricity_those_that_need_less_are_on_and_no_more_than_needed() {
    let boundaries = boundaries(30, 36);
    let pool = one_window(&boundaries, |_| 0.8, 0.01);
    let with = |energy: [f64; 2]| {
        let class = |energy_hourly: f64| Class {
            energy_hourly,
            ..owned(3)
        };
        let classes = energy.map(class).to_vec();
        let plan = solve(&problem(boundaries.clone(), classes, pool.clone()), None, Effort::COLD);
        assert!(plan.holds());
        [plan.paid(0, 12.0 * HOUR), plan.paid(1, 12.0 * HOUR)]
    };
    assert_eq!(with([0.05, 0.30]), [1, 0]);
    assert_eq!(with([0.30, 0.05]), [0, 1]);
}

#[test]
fn a_server_is_not_switched_for_less_than_switching_costs() {
    let boundaries = boundaries(30, 36);
    let rate = |at: f64| {
        if (10.0 * HOUR..12.0 * HOUR).contains(&at) {
            0.8
        } else {
            1.7
        }
    };
    let pool = one_window(&boundaries, rate, 0.01);
    let off = |switch_cost: f64| {
        let class = Class {
            switch_cost,
            ..owned(2)
        };
        let plan = solve(
            &problem(boundaries.clone(), vec![class], pool.clone()),
            None,
            Effort::COLD,
        );
        assert!(plan.holds());
        2 - plan.paid(0, 11.0 * HOUR)
    };
    // Two hours off save 0.10 of electricity.
    assert_eq!(off(0.001), 1);
    assert_eq!(off(1.0), 0);
}

#[test]
fn a_paid_lease_is_kept_and_given_back_when_its_term_ends() {
    let boundaries = boundaries(15, 36);
    let pool = one_window(&boundaries, |_| 0.5, 0.5);
    let mut leased = hosted(1);
    leased.units = vec![Unit::On {
        serves_s: 0.0,
        paid_until_s: 5.0 * HOUR,
    }];
    let plan = solve(&problem(boundaries, vec![owned(1), leased], pool), None, Effort::COLD);
    let lease = legs(&plan, 1)[0];
    assert!((lease.to_s - 5.0 * HOUR).abs() < 1.0, "{lease:?}");
}

#[test]
fn two_afternoons_are_served_by_one_lease_that_is_prolonged_rather_than_two_leases() {
    let boundaries = boundaries(15, 36);
    let rate = |at: f64| {
        if at < 4.0 * HOUR || (24.0 * HOUR..32.0 * HOUR).contains(&at) {
            1.6
        } else {
            0.5
        }
    };
    let pool = one_window(&boundaries, rate, 0.0);
    let mut leased = hosted(3);
    leased.units = vec![
        Unit::On {
            serves_s: 0.0,
            paid_until_s: 24.0 * HOUR,
        },
        Unit::Off { from_s: 0.0 },
    ];
    let plan = solve(&problem(boundaries, vec![owned(1), leased], pool), None, Effort::COLD);
    assert!(plan.holds(), "{:?}", plan.windows);
    let found = legs(&plan, 1);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!((found[0].to_s - 32.0 * HOUR).abs() < 1.0, "{found:?}");
}

#[test]
fn what_cannot_be_met_is_met_as_well_as_can_be() {
    let boundaries = boundaries(15, 36);
    let pool = one_window(&boundaries, |_| 9.0, 0.1);
    let plan = solve(
        &problem(boundaries, vec![owned(2), hosted(3)], pool),
        None,
        Effort::COLD,
    );
    assert!(!plan.holds());
    assert_eq!(
        plan.paid(0, 2.0 * HOUR) + plan.paid(1, 2.0 * HOUR),
        5,
        "everything there is"
    );
}

#[test]
fn the_loss_of_a_server_is_planned_for() {
    let boundaries = boundaries(15, 36);
    let mut pool = one_window(&boundaries, |_| 1.6, 0.01);
    pool.survive = Survive::Server;
    let plan = solve(&problem(boundaries, vec![owned(5)], pool), None, Effort::COLD);
    assert_eq!(plan.paid(0, HOUR), 3);
}

fn worlds() -> impl Strategy<Value = Problem> {
    let class = (0_u32..3, 0_usize..6, 0.2_f64..3.0, 0_u32..3, 0.2_f64..1.5);
    (
        prop::collection::vec(class, 1..4),
        prop::collection::vec(0.0_f64..5.0, 36),
        prop_oneof![Just(0.001), Just(0.3), Just(1.0)],
    )
        .prop_map(|(classes, rates, allow)| {
            let boundaries = boundaries(60, 36);
            let classes = classes
                .into_iter()
                .enumerate()
                .map(|(site, (tier, count, hourly, lease, capacity))| Class {
                    tier,
                    site,
                    hourly: if tier == 0 { 0.0 } else { hourly },
                    minimum_lease_s: [0.0, HOUR, 24.0 * HOUR][lease as usize],
                    capacity: vec![Some(capacity)],
                    ..hosted(count)
                })
                .collect();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an hour of a day and a half"
            )]
            let rate = |at: f64| rates.get((at / HOUR) as usize).copied().unwrap_or(0.0);
            let requests: f64 = rates.iter().map(|rate| rate * HOUR).sum();
            let pool = demand(&boundaries, rate, vec![(0..36, requests * allow)]);
            problem(boundaries, classes, pool)
        })
}
proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_bound_is_never_above_the_cost_and_every_lease_is_possible(problem in worlds()) {
        let plan = solve(&problem, None, Effort::REPLAN);
        if plan.holds() {
            prop_assert!(plan.bound <= plan.cost + 1e-9);
        }
        for (class, units) in problem.classes.iter().zip(&plan.courses) {
            for legs in units {
                for leg in legs {
                    let to_end = leg.to_s >= 36.0 * HOUR;
                    prop_assert!(to_end || leg.to_s - leg.from_s >= class.minimum_lease_s - 1e-6, "{leg:?}");
                    prop_assert!(leg.serves_s >= leg.from_s + class.lead_s - 1e-6, "{leg:?}");
                }
                for pair in legs.windows(2) {
                    prop_assert!(pair[1].from_s >= pair[0].to_s + class.recycle_s - 1e-6, "{pair:?}");
                }
            }
        }
    }

    #[test]
    fn a_class_that_may_not_be_used_changes_nothing(problem in worlds()) {
        let plan = solve(&problem, None, Effort::REPLAN);
        let mut more = problem.clone();
        more.classes.push(Class { capacity: vec![None], ..hosted(3) });
        let with = solve(&more, None, Effort::REPLAN);
        prop_assert_eq!(&plan.courses[..], &with.courses[..problem.classes.len()]);
        prop_assert!(legs(&with, problem.classes.len()).is_empty());
    }
}

#[test]
fn on_a_plain_day_the_gap_is_small() {
    let boundaries = boundaries(30, 36);
    let rate = |at: f64| {
        let hour = at / HOUR;
        0.8 + 3.0 * (1.0 - ((hour - 18.0) / 9.0).abs()).max(0.0)
    };
    let requests: f64 = boundaries
        .windows(2)
        .map(|slot| rate(slot[0]) * (slot[1] - slot[0]))
        .sum();
    let pool = demand(&boundaries, rate, vec![(0..boundaries.len() - 1, requests * 0.5)]);
    let problem = problem(boundaries, vec![owned(1), hosted(12)], pool);
    let plan = solve(&problem, None, Effort::COLD);
    assert!(plan.holds());
    let warm = solve(&problem, Some(&plan.prices), Effort::REPLAN);
    assert!(
        warm.holds() && warm.cost <= plan.cost * 1.02,
        "{} after {}",
        warm.cost,
        plan.cost
    );
    // Half a server's worth: leases are whole.
    assert!(plan.gap() < 0.3, "{} against {}", plan.cost, plan.bound);
}
