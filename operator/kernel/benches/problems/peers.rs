//! What the peers have in common: what they are told, what servers by slot cost however they were found, and how many windows hold with them.
//!
//! The rules that plan in operators' and textbooks' way know a rate and a load up to which servers are filled. They are told the median of what
//! arrives, times a headroom, and that servers are there at once; a planner's lead times, and that a server keeps to one pool for a while, are spared them.

use pomarium_kernel::strategy::{Demand, Outcomes, Problem};

/// Load up to which rules of thumb fill servers, as a share of saturation.
const FULL: f64 = 0.85;

/// Servers by slot, however they were found.
#[derive(Default)]
pub(crate) struct Schedule {
    /// Per slot, per class.
    pub(crate) servers: Vec<Vec<usize>>,
    /// Per slot, per pool: requests/s at saturation of those that it has.
    pub(crate) capacity: Vec<Vec<f64>>,
}

/// Requests/s at saturation that a pool is given in a slot: for so many times the median of what arrives.
pub(crate) fn needed(demand: &Demand, slot: usize, headroom: f64) -> f64 {
    demand.arrivals[slot][1].1 * headroom / FULL
}

/// First-fit, the method of most autoscalers: slot by slot, without a look at leases, servers in the order of the groups until everybody has what is needed.
pub(crate) fn first_fit(problem: &Problem, headroom: f64) -> Schedule {
    let mut schedule = Schedule::default();
    for slot in 0..problem.slots() {
        let mut used = vec![0_usize; problem.classes.len()];
        let capacity = problem.pools.iter().enumerate().map(|(pool, demand)| {
            let wanted = needed(demand, slot, headroom);
            let mut given = 0.0;
            for (class, used) in problem.classes.iter().zip(&mut used) {
                let Some(each) = class.capacity[pool] else { continue };
                while given < wanted && *used < class.units.len() {
                    given += each;
                    *used += 1;
                }
            }
            given
        });
        schedule.capacity.push(capacity.collect());
        schedule.servers.push(used);
    }
    schedule
}

impl Schedule {
    /// What it costs when every lease is paid to the end of its minimum, and what is paid is used first.
    pub(crate) fn cost(&self, problem: &Problem) -> f64 {
        let mut cost = 0.0;
        let end_s = problem.boundaries_s.last().copied().unwrap_or(0.0);
        for (index, class) in problem.classes.iter().enumerate() {
            // When the minimum of each server that is on ends.
            let mut on: Vec<f64> = Vec::new();
            for (slot, used) in self.servers.iter().enumerate() {
                let (from_s, length_s) = (problem.boundaries_s[slot], problem.length_s(slot));
                on.sort_by(f64::total_cmp);
                while on.len() > used[index] && on.first().is_some_and(|end| *end <= from_s) {
                    on.remove(0);
                }
                while on.len() < used[index] {
                    let until_s = from_s + class.minimum_lease_s;
                    on.push(until_s);
                    // As plans are charged.
                    let beyond_s = (until_s - end_s).max(0.0) * problem.overhang;
                    cost += class.switch_cost + class.hourly * beyond_s / 3_600.0;
                }
                cost += (class.hourly + class.energy_hourly) * on.len() as f64 * length_s / 3_600.0;
            }
        }
        cost
    }

    /// How many windows of the pools burn more than they may.
    pub(crate) fn missed(&self, problem: &Problem) -> usize {
        let missed = problem.pools.iter().enumerate().map(|(pool, demand)| {
            let burn = |slot: usize| {
                let length_s = problem.length_s(slot);
                Outcomes::new(&demand.burn, &demand.arrivals[slot], length_s, None).at(self.capacity[slot][pool])
            };
            let over = |window: &&pomarium_kernel::strategy::Window| {
                window.slots.clone().map(burn).sum::<f64>() > window.budget
            };
            demand.windows.iter().filter(over).count()
        });
        missed.sum()
    }
}
