//! Many pools.

use super::super::solve::{Candidate, violation, whole};
use super::super::sweep::Solver;
use super::*;

/// So many pools with peaks of their own on classes that all may use, but for what `may_use` forbids.
fn shared(pools: usize, classes: usize, may_use: impl Fn(usize, usize) -> bool) -> Problem {
    let boundaries = boundaries(60, 36);
    let demands = (0..pools)
        .map(|pool| {
            let peak = move |at: f64| {
                let hour = (at / HOUR + 5.0 * pool as f64) % 24.0;
                if hour < 8.0 { 1.3 } else { 0.4 }
            };
            one_window(&boundaries, peak, 0.3)
        })
        .collect();
    let class = |index: usize| Class {
        site: index,
        capacity: (0..pools)
            .map(|pool| may_use(pool, index).then_some([1.0, 0.7][index % 2]))
            .collect(),
        ..if index.is_multiple_of(2) {
            owned(pools)
        } else {
            hosted(pools)
        }
    };
    Problem {
        boundaries_s: boundaries.clone(),
        classes: (0..classes).map(class).collect(),
        pools: demands,
        power_limits: Vec::new(),
        overhang: 0.1,
        change_hourly: 0.0,
    }
}

#[test]
fn pools_that_share_nothing_are_planned_as_if_each_were_alone() {
    let both = shared(4, 4, |pool, class| pool % 2 == class / 2);
    let plan = solve(&both, None, Effort::REPLAN);
    for half in 0..2 {
        let mut alone = both.clone();
        alone.pools = (0..4)
            .filter(|pool| pool % 2 == half)
            .map(|pool| both.pools[pool].clone())
            .collect();
        alone.classes = both.classes[2 * half..2 * half + 2].to_vec();
        for class in &mut alone.classes {
            let mut pool = 0;
            class.capacity.retain(|_| {
                pool += 1;
                (pool - 1) % 2 == half
            });
        }
        let alone = whole(&alone, None, Effort::REPLAN);
        assert_eq!(alone.courses[..], plan.courses[2 * half..2 * half + 2]);
        for (pool, windows) in alone.windows.iter().enumerate() {
            assert_eq!(windows, &plan.windows[2 * pool + half]);
        }
    }
    assert!(plan.bound <= plan.cost);
}

#[test]
fn a_limit_on_power_joins_those_who_share_the_site() {
    let mut problem = shared(2, 4, |pool, class| pool == class / 2);
    for class in &mut problem.classes {
        class.site = 0;
        class.busy_watts = 100.0;
    }
    problem.power_limits = vec![Some(300.0)];
    let plan = solve(&problem, None, Effort::REPLAN);
    for hour in 0..36 {
        let at = f64::from(hour) * HOUR + 1.0;
        let on: usize = (0..4).map(|class| plan.paid(class, at)).sum();
        assert!(on <= 3, "{on} servers in hour {hour}");
    }
}

#[test]
fn to_keep_pools_in_order_answers_what_asking_all_of_them_answers() {
    let mut problem = shared(70, 3, |pool, class| (pool + class) % 7 != 0);
    problem.pools[3].most = 1;
    let mut solver = Solver::new(&problem);
    let mut standing = solver.sunk();
    solver.price(&vec![vec![0.002]; 70]);
    for _ in 0..2 {
        for class in 0..3 {
            solver.rank(&standing, class);
            for unit in 0..problem.classes[class].units.len() {
                solver.take(&mut standing, class, unit);
                let ranked = solver.respond_ranked(&standing, class, unit);
                let (values, pools) = solver.found();
                let (values, pools) = (values.to_vec(), pools.to_vec());
                assert_eq!(ranked, solver.respond(&standing, class, unit));
                assert_eq!((&values[..], &pools[..]), solver.found());
                solver.place(&mut standing, class, unit, ranked);
            }
        }
    }
    assert!(standing.cost > 0.0);
}

#[test]
fn pools_that_want_a_part_of_a_server_each_are_known_to_need_a_whole_one_each() {
    let boundaries = boundaries(60, 36);
    let class = Class {
        hourly: 1.0,
        minimum_lease_s: HOUR,
        capacity: vec![Some(1.0); 4],
        ..hosted(6)
    };
    let mut problem = problem(boundaries.clone(), vec![class], one_window(&boundaries, |_| 0.3, 0.01));
    problem.pools = vec![problem.pools[0].clone(); 4];
    let plan = solve(&problem, None, Effort::COLD);
    assert!(plan.holds(), "{:?}", plan.windows);
    assert_eq!(plan.paid(0, 6.0 * HOUR), 4);
    assert!(plan.gap() < 0.1, "{} against {}", plan.cost, plan.bound);
}

#[test]
fn classes_that_are_alike_are_planned_as_if_they_were_one() {
    let one = shared(3, 2, |_, _| true);
    let mut two = one.clone();
    let moved = two.classes[1].units.split_off(1);
    let mut other = two.classes[1].clone();
    (other.units, other.site) = (moved, 7);
    two.classes.push(other);
    let (one, two) = (solve(&one, None, Effort::COLD), solve(&two, None, Effort::COLD));
    assert!((one.cost - two.cost).abs() < 1e-9, "{} and {}", one.cost, two.cost);
    let apart: Vec<Vec<Leg>> = two.courses[1].iter().chain(&two.courses[2]).cloned().collect();
    assert_eq!(one.courses[1], apart);
}

#[test]
fn of_two_plans_that_do_not_hold_a_much_dearer_one_does_not_win_by_next_to_nothing() {
    let problem = shared(2, 1, |_, _| true);
    let mut solver = Solver::new(&problem);
    let standing = solver.sunk();
    let candidate = |burn: f64, cost: f64| {
        let mut standing = standing.clone();
        standing.burnt[0][0] += burn;
        standing.cost += cost;
        Candidate {
            violation: violation(&problem, &standing.burnt),
            standing,
            prices: Vec::new(),
        }
    };
    let (plain, dearer) = (candidate(0.0, 0.0), candidate(-1e-3, 1.0));
    assert!(dearer.violation < plain.violation - 1e-9 && dearer.violation > 1e-9);
    assert!(plain.beats(&dearer, &solver) && !dearer.beats(&plain, &solver));
    let far_better = candidate(-1e6, 1.0);
    assert!(far_better.violation > 1e-9 && far_better.beats(&plain, &solver));
}
