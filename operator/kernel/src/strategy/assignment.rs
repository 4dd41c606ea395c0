//! Which pool every server serves first, and what is spent on each pool's servers.

use super::sweep::{Solver, Standing};

/// What a standing says of pools.
#[derive(Debug)]
pub(super) struct Assignment {
    /// Per class, per unit: the pool that it serves first; `None` if it serves none.
    pub(super) serves: Vec<Vec<Option<usize>>>,
    /// Per pool: what its servers cost, sunk leases left out. A server that serves several is split by time.
    pub(super) costs: Vec<f64>,
}

impl Assignment {
    pub(super) fn of(solver: &Solver, standing: &Standing) -> Self {
        let problem = solver.problem;
        let mut costs = vec![0.0; problem.pools.len()];
        let mut shares = vec![0.0; problem.pools.len()];
        let mut serves = Vec::with_capacity(problem.classes.len());
        for (class, courses) in standing.courses.iter().enumerate() {
            let capacity = &problem.classes[class].capacity;
            let mut first_of = Vec::with_capacity(courses.len());
            for (unit, course) in courses.iter().enumerate() {
                shares.fill(0.0);
                let mut first = None;
                for (slot, share) in course.terms.iter().flat_map(|term| term.serves.slots()) {
                    let pool = standing.pool(class, unit, slot);
                    if share > 0.0 && capacity.get(pool).is_some_and(Option::is_some) {
                        first = first.or(Some(pool));
                        shares[pool] += share * problem.length_s(slot);
                    }
                }
                let busy_s: f64 = shares.iter().sum();
                for (cost, share) in costs.iter_mut().zip(&shares) {
                    *cost += if busy_s > 0.0 {
                        course.cost * share / busy_s
                    } else {
                        0.0
                    };
                }
                first_of.push(first);
            }
            serves.push(first_of);
        }
        Self { serves, costs }
    }
}
