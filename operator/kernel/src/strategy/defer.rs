//! What can be bought later is not bought now: of two plans that cost the same and burn the same, the one that leaves more open is better.

use super::course::{Course, Leg};
use super::solve::cost;
use super::sweep::{Solver, Standing};
use super::{Problem, Unit};

/// A part of a budget that is not worth a word.
const NOTICED: f64 = 0.002;

/// How many slots later a purchase is tried, the latest first.
const LATER: [usize; 9] = [48, 32, 24, 16, 12, 8, 4, 2, 1];

/// Moves purchases that would be made now to later, as far as that costs nothing and burns no more.
pub(super) fn defer(solver: &Solver, standing: &mut Standing) {
    let problem = solver.problem;
    for class in 0..problem.classes.len() {
        if problem.classes[class].minimum_lease_s <= 0.0 {
            continue;
        }
        for unit in 0..problem.classes[class].units.len() {
            let course = &standing.courses[class][unit];
            let now = course.legs.first().is_some_and(|leg| leg.from_s <= 0.0);
            if !now || !matches!(problem.classes[class].units[unit], Unit::Off { .. }) {
                continue;
            }
            let (before, burnt) = (cost(solver, standing), solver.burnt(standing));
            let kept = solver.take(standing, class, unit);
            let mut candidates = LATER
                .iter()
                .filter_map(|&slots| later(problem, class, unit, &kept, slots));
            let found = candidates.find(|candidate| {
                solver.replace(standing, class, unit, candidate.clone());
                let worse = !as_good(problem, &burnt, &solver.burnt(standing));
                let dearer = cost(solver, standing) > before + 1e-6;
                solver.take(standing, class, unit);
                !worse && !dearer
            });
            solver.replace(standing, class, unit, found.unwrap_or(kept));
        }
    }
}

/// Whether no window burns noticeably more.
fn as_good(problem: &Problem, before: &[Vec<f64>], after: &[Vec<f64>]) -> bool {
    let windows = problem.pools.iter().flat_map(|pool| &pool.windows);
    let burnt = before.iter().flatten().zip(after.iter().flatten());
    windows
        .zip(burnt)
        .all(|(window, (before, after))| after - before <= NOTICED * window.budget.abs())
}

/// The course with its first leg so many slots later, and as long as it is.
fn later(problem: &Problem, class: usize, unit: usize, course: &Course, slots: usize) -> Option<Course> {
    let kind = &problem.classes[class];
    let (first, rest) = course.legs.split_first()?;
    let (from_s, end_s) = (*problem.boundaries_s.get(slots)?, *problem.boundaries_s.last()?);
    let to_s = (first.to_s + from_s - first.from_s).min(end_s);
    let leg = Leg {
        from_s,
        serves_s: from_s + kind.lead_s,
        to_s,
    };
    let apart = rest.first().is_none_or(|next| to_s + kind.recycle_s <= next.from_s);
    let legs = std::iter::once(leg).chain(rest.iter().copied()).collect();
    (leg.serves_s < to_s && apart).then(|| Course::of(kind, kind.units[unit], legs))
}
