//! What a plan never exceeds, and what it does when that is not enough.

use super::*;

/// Per site and slot: watts of servers that are on.
fn watts(problem: &Problem, plan: &StrategicPlan, site: usize, slot: usize) -> f64 {
    let (start_s, end_s) = (problem.boundaries_s[slot], problem.boundaries_s[slot + 1]);
    let classes = problem.classes.iter().zip(&plan.courses);
    classes
        .filter(|(class, _)| class.site == site)
        .map(|(class, units)| {
            let on = |legs: &&Vec<Leg>| legs.iter().any(|leg| leg.from_s < end_s && leg.to_s > start_s);
            class.busy_watts * units.iter().filter(on).count() as f64
        })
        .sum()
}

fn burnt(plan: &StrategicPlan, pool: usize) -> f64 {
    plan.windows[pool].iter().map(|window| window.expected).sum()
}

fn budget(problem: &mut Problem, pool: usize, left: f64) {
    problem.pools[pool].budgets = vec![MoneyBudget {
        from_s: 0.0,
        to_s: 36.0 * HOUR,
        left,
    }];
}

#[test]
fn a_budget_of_money_is_never_exceeded_and_the_shortfall_is_said() {
    let boundaries = boundaries(30, 36);
    let mut pool = one_window(&boundaries, |_| 3.5, 0.1);
    pool.miss_value = 0.00001;
    let mut problem = problem(boundaries, vec![owned(1), hosted(6)], pool);
    let free = solve(&problem, None, Effort::COLD);
    assert!(free.holds() && free.shortfalls.is_empty());
    budget(&mut problem, 0, 120.0);
    let plan = solve(&problem, None, Effort::COLD);
    assert!(plan.spending[0][0] <= 120.0, "{:?}", plan.spending);
    assert!(
        plan.spending[0][0] > 40.0,
        "what there is is spent: {:?}",
        plan.spending
    );
    assert!(plan.forgone[0] >= 48.0, "{:?}", plan.forgone);
    assert!(free.forgone[0] <= 0.0);
    let short = plan.shortfalls[0];
    assert_eq!((short.pool, short.window), (0, 0));
    assert!(short.burn > 0.0 && (short.cost - short.burn * 0.00001).abs() < 1e-9);
}

#[test]
fn a_leases_minimum_is_spent_in_the_period_in_which_it_is_bought() {
    let boundaries = boundaries(30, 36);
    let rate = |at: f64| if at < 20.0 * HOUR { 0.5 } else { 1.8 };
    let pool = one_window(&boundaries, rate, 0.001);
    let mut problem = problem(boundaries, vec![owned(1), hosted(3)], pool);
    let day = |from: f64, to: f64| MoneyBudget {
        from_s: from * HOUR,
        to_s: to * HOUR,
        left: 10_000.0,
    };
    problem.pools[0].budgets = vec![day(0.0, 10.0), day(10.0, 36.0)];
    let plan = solve(&problem, None, Effort::COLD);
    let bought = legs(&plan, 1).len() as f64;
    assert!(bought >= 1.0 && plan.spending[0][0] < 1.0, "{:?}", plan.spending);
    assert!(
        plan.spending[0][1] >= bought * 48.0,
        "all of it, also beyond the horizon: {:?}",
        plan.spending
    );
}

#[test]
fn a_pool_has_no_more_servers_at_a_time_than_its_most() {
    let boundaries = boundaries(30, 36);
    let planned = |most: u32| {
        let mut pool = one_window(&boundaries, |_| 3.5, 0.1);
        pool.most = most;
        let problem = problem(boundaries.clone(), vec![owned(1), hosted(6)], pool);
        let plan = solve(&problem, None, Effort::COLD);
        (plan.paid(1, 6.0 * HOUR), plan.shortfalls.is_empty())
    };
    assert_eq!(planned(2), (1, false));
    assert_eq!(planned(3), (2, false));
    let (leases, holds) = planned(u32::MAX);
    assert!(leases > 2 && holds, "{leases}");
}

#[test]
fn a_cheap_miss_is_left_and_a_dear_one_is_served() {
    let boundaries = boundaries(30, 36);
    let leases = |miss_value: f64| {
        let mut pool = demand(&boundaries, |_| 1.5, Vec::new());
        pool.miss_value = miss_value;
        let plan = solve(
            &problem(boundaries.clone(), vec![owned(1), hosted(3)], pool),
            None,
            Effort::COLD,
        );
        assert!(plan.bound <= plan.cost + 1e-9);
        legs(&plan, 1).len()
    };
    assert_eq!(leases(0.000_001), 0);
    assert!(leases(0.01) > 0);
}

#[test]
fn servers_that_are_delivered_serve_from_then_on_and_others_stand_in_until_then() {
    let boundaries = boundaries(30, 36);
    let pool = one_window(&boundaries, |_| 1.6, 0.001);
    let mut delivered = owned(2);
    delivered.units[1] = Unit::Off { from_s: 12.0 * HOUR };
    let mut hours = hosted(3);
    hours.minimum_lease_s = HOUR;
    let plan = solve(&problem(boundaries, vec![delivered, hours], pool), None, Effort::COLD);
    assert!(plan.holds());
    let first = plan.courses[0][1].first().unwrap();
    assert!(first.from_s >= 12.0 * HOUR && first.from_s < 13.0 * HOUR, "{first:?}");
    assert!(plan.paid(1, 6.0 * HOUR) > 0 && plan.paid(1, 20.0 * HOUR) == 0);
}

#[test]
fn when_servers_run_out_the_pool_that_is_served_first_keeps_its_objectives() {
    let boundaries = boundaries(30, 36);
    for first in [0, 1] {
        let pool = || one_window(&boundaries, |_| 1.6, 0.05);
        let mut class = owned(3);
        class.capacity = vec![Some(1.0), Some(1.0)];
        let mut problem = problem(boundaries.clone(), vec![class], pool());
        problem.pools.push(pool());
        problem.pools[1 - first].rank = 1;
        let plan = solve(&problem, None, Effort::COLD);
        assert!(
            plan.windows[first].iter().all(Burnt::holds),
            "{first}: {:?}",
            plan.windows
        );
        assert_eq!(plan.shortfalls.len(), 1);
        assert_eq!(plan.shortfalls[0].pool, 1 - first);
    }
}

#[test]
fn the_loss_of_a_site_is_planned_for_by_spreading_over_sites() {
    let boundaries = boundaries(30, 36);
    let mut pool = one_window(&boundaries, |_| 1.6, 0.01);
    pool.survive = Survive::Site;
    let mut other = owned(6);
    other.site = 1;
    let plan = solve(&problem(boundaries, vec![owned(6), other], pool), None, Effort::COLD);
    for hour in 1..35 {
        let at = f64::from(hour) * HOUR;
        let left = plan.paid(0, at).min(plan.paid(1, at));
        assert!(left >= 2, "hour {hour}: {left} without the larger site");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn more_money_never_serves_worse_and_none_is_ever_exceeded(problem in worlds(), lefts in (0.0_f64..150.0, 0.0_f64..150.0)) {
        let mut problem = problem;
        let mut at = |left: f64| {
            budget(&mut problem, 0, left);
            let plan = solve(&problem, None, Effort::REPLAN);
            (plan.spending[0][0], burnt(&plan, 0))
        };
        let (less, more) = (lefts.0.min(lefts.1), lefts.0.max(lefts.1));
        let ((spent_less, burnt_less), (spent_more, burnt_more)) = (at(less), at(more));
        prop_assert!(spent_less <= less + 1e-6 && spent_more <= more + 1e-6);
        prop_assert!(burnt_more <= burnt_less + 1e-6, "{burnt_more} with {more}, {burnt_less} with {less}");
    }

    #[test]
    fn no_site_draws_more_than_its_limit(problem in worlds(), limit in 100.0_f64..900.0, change_hourly in 0.0_f64..0.2) {
        let mut problem = problem;
        problem.change_hourly = change_hourly;
        for class in &mut problem.classes {
            class.site = 0;
            class.busy_watts = 140.0;
        }
        problem.power_limits = vec![Some(limit)];
        let plan = solve(&problem, None, Effort::REPLAN);
        for slot in 0..problem.slots() {
            let drawn = watts(&problem, &plan, 0, slot);
            prop_assert!(drawn <= limit + 1e-6, "{drawn} of {limit}");
        }
    }

    #[test]
    fn the_same_problem_gives_the_same_plan(problem in worlds()) {
        prop_assert_eq!(solve(&problem, None, Effort::REPLAN), solve(&problem, None, Effort::REPLAN));
    }
}
