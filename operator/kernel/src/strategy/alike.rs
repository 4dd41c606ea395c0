//! Classes whose servers are the same in all that a plan looks at are planned as one: it makes no difference which of them serves, and to
//! weigh them one against the other takes time.

use super::{Class, Problem, StrategicPlan};
use crate::snapshot::Survive;

/// A problem without classes that are alike.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) problem: Problem,
    /// Per class of the original: which class it is now, and where its units begin there.
    places: Vec<(usize, usize)>,
}

impl Merged {
    pub(super) fn of(problem: Problem) -> Self {
        let apart = problem.pools.iter().any(|pool| pool.survive == Survive::Site);
        let limited = |class: &Class| problem.power_limits.get(class.site).is_some_and(Option::is_some);
        let site = |class: &Class| (apart || limited(class)).then_some(class.site);
        let mut classes: Vec<Class> = Vec::new();
        let mut places = Vec::with_capacity(problem.classes.len());
        for class in &problem.classes {
            let alike = |known: &Class| site(known) == site(class) && are_alike(known, class);
            let index = classes.iter().position(alike).unwrap_or_else(|| {
                classes.push(Class {
                    units: Vec::new(),
                    capacity: class.capacity.clone(),
                    ..*class
                });
                classes.len() - 1
            });
            places.push((index, classes[index].units.len()));
            classes[index].units.extend_from_slice(&class.units);
        }
        Self {
            problem: Problem { classes, ..problem },
            places,
        }
    }

    /// The same plan for the original, whose classes have so many units each.
    pub(super) fn split(&self, plan: StrategicPlan, units: impl Iterator<Item = usize>) -> StrategicPlan {
        let mut courses = Vec::with_capacity(self.places.len());
        let mut serves = Vec::with_capacity(self.places.len());
        for (&(class, first), count) in self.places.iter().zip(units) {
            courses.push(plan.courses[class][first..first + count].to_vec());
            serves.push(plan.serves[class][first..first + count].to_vec());
        }
        StrategicPlan {
            courses,
            serves,
            ..plan
        }
    }
}

fn are_alike(left: &Class, right: &Class) -> bool {
    let figures = |class: &Class| {
        [
            class.hourly,
            class.energy_hourly,
            class.minimum_lease_s,
            class.lead_s,
            class.recycle_s,
            class.switch_cost,
            class.busy_watts,
        ]
        .map(f64::to_bits)
    };
    left.tier == right.tier && figures(left) == figures(right) && left.capacity == right.capacity
}
