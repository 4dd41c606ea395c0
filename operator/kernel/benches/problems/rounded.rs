//! LP-round, the method of textbooks: a linear program says how many servers of each kind are on in each slot and whom they serve, and fractions are
//! rounded up.

use pomarium_kernel::strategy::{Class, Problem};

use super::milp::Milp;
use super::peers::{Schedule, needed};

/// Money that a request/s costs for an hour if nobody carries it: more than any server.
const UNCARRIED: f64 = 1_000.0;

/// Below this a fraction is the solver's rounding.
const NOTHING: f64 = 1e-6;

/// The same problem with classes of the same machines at the same price as one: fewer columns, and less to round.
pub(crate) fn kinds(problem: &Problem) -> Problem {
    let mut kinds: Vec<Class> = Vec::new();
    for class in &problem.classes {
        let alike = |kind: &&mut Class| {
            let (units, site) = (kind.units.clone(), kind.site);
            **kind
                == Class {
                    units,
                    site,
                    ..class.clone()
                }
        };
        match kinds.iter_mut().find(alike) {
            Some(kind) => kind.units.extend(&class.units),
            None => kinds.push(class.clone()),
        }
    }
    Problem {
        classes: kinds,
        ..problem.clone()
    }
}

/// Solves the program and rounds up, pool by pool: servers that a pool does not need once others are whole are left out, and who finds none left of
/// its kind takes what there is. `None` if `solver` finds no optimum.
pub(crate) fn rounded(
    problem: &Problem,
    headroom: f64,
    solver: impl Fn(&Milp) -> Option<Vec<f64>>,
) -> Option<Schedule> {
    let (program, columns) = covering(problem, headroom);
    let values = solver(&program.relaxed())?;
    let mut schedule = Schedule::default();
    for (slot, columns) in columns.iter().enumerate() {
        let mut left: Vec<usize> = problem.classes.iter().map(|class| class.units.len()).collect();
        let mut given = vec![0.0; problem.pools.len()];
        let mut give = |pool: usize, class: usize, most: usize| {
            let each = problem.classes[class].capacity[pool].unwrap_or(0.0);
            for _ in 0..most {
                if left[class] > 0 && each > 0.0 && given[pool] < needed(&problem.pools[pool], slot, headroom) {
                    left[class] -= 1;
                    given[pool] += each;
                }
            }
        };
        for &(pool, class, column) in columns {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of servers"
            )]
            let whole = (values[column] - NOTHING).ceil().max(0.0) as usize;
            give(pool, class, whole);
        }
        for pool in 0..problem.pools.len() {
            for (index, class) in problem.classes.iter().enumerate() {
                give(pool, index, class.units.len());
            }
        }
        let used = problem
            .classes
            .iter()
            .zip(left)
            .map(|(class, left)| class.units.len() - left);
        schedule.servers.push(used.collect());
        schedule.capacity.push(given);
    }
    Some(schedule)
}

/// Per slot: pools and classes, with the column of the servers that the pool has of the class.
type Columns = Vec<Vec<(usize, usize, usize)>>;

/// Least cost of leases and energy such that every pool has what is needed in every slot.
fn covering(problem: &Problem, headroom: f64) -> (Milp, Columns) {
    let mut milp = Milp::default();
    let mut columns: Columns = vec![Vec::new(); problem.slots()];
    let mut on: Vec<Vec<usize>> = vec![Vec::new(); problem.classes.len()];
    for (slot, columns) in columns.iter_mut().enumerate() {
        let hours = problem.length_s(slot) / 3_600.0;
        let mut carried = vec![Vec::new(); problem.pools.len()];
        for (index, class) in problem.classes.iter().enumerate() {
            let most = class.units.len() as f64;
            let paid = milp.column((class.hourly + class.energy_hourly) * hours, most, true);
            on[index].push(paid);
            let mut row = vec![(paid, -1.0)];
            for (pool, each) in class.capacity.iter().enumerate() {
                if let Some(each) = each {
                    let column = milp.column(0.0, most, true);
                    carried[pool].push((column, *each));
                    row.push((column, 1.0));
                    columns.push((pool, index, column));
                }
            }
            milp.row(f64::NEG_INFINITY, 0.0, row);
        }
        for (demand, mut carried) in problem.pools.iter().zip(carried) {
            carried.push((milp.column(UNCARRIED * hours, f64::INFINITY, false), 1.0));
            milp.row(needed(demand, slot, headroom), f64::INFINITY, carried);
        }
    }
    for (class, on) in problem.classes.iter().zip(&on) {
        pay_minimum_leases(&mut milp, problem, class, on);
    }
    (milp, columns)
}

/// What is `on` in a slot was on before or is leased now, and what was leased is on until its minimum ends.
fn pay_minimum_leases(milp: &mut Milp, problem: &Problem, class: &Class, on: &[usize]) {
    let at = &problem.boundaries_s;
    let end_s = at.last().copied().unwrap_or(0.0);
    let mut leased: Vec<usize> = Vec::new();
    for slot in 0..problem.slots() {
        let beyond_s = (at[slot] + class.minimum_lease_s - end_s).max(0.0) * problem.overhang;
        let cost = class.switch_cost + class.hourly * beyond_s / 3_600.0;
        leased.push(milp.column(cost, class.units.len() as f64, true));
        let mut row = vec![(on[slot], 1.0), (leased[slot], -1.0)];
        row.extend(slot.checked_sub(1).map(|before| (on[before], -1.0)));
        milp.row(f64::NEG_INFINITY, 0.0, row);
        let under_way = (0..=slot).filter(|&start| start == slot || at[start] + class.minimum_lease_s > at[slot]);
        let mut row: Vec<(usize, f64)> = under_way.map(|start| (leased[start], 1.0)).collect();
        row.push((on[slot], -1.0));
        milp.row(f64::NEG_INFINITY, 0.0, row);
    }
}
