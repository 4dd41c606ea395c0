//! The same problem as a mixed-integer linear program, for a general solver to judge.
//!
//! All servers of a class are one integer flow through two layers of nodes, *off* and *free*, one of each per boundary: a lease is an arc from
//! off to the end of its minimum in free, a release an arc from free to off after recycling. The burn of a slot is at least every stretch
//! of its convex function.

use pomarium_kernel::strategy::{Class, Outcomes, Problem, Unit};

/// A column: cost per unit, most, and whether it is whole.
pub(crate) struct Column {
    pub(crate) cost: f64,
    pub(crate) most: f64,
    pub(crate) whole: bool,
}

/// A row: least, most, and coefficients by column.
pub(crate) struct Row {
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) of: Vec<(usize, f64)>,
}

/// Minimise cost of columns, none below zero, plus a constant.
#[derive(Default)]
pub(crate) struct Milp {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    pub(crate) constant: f64,
}

impl Milp {
    /// The program in the LP file format, which general solvers read.
    #[expect(
        clippy::format_push_string,
        reason = "one expression a line reads better, and nobody waits for it"
    )]
    pub(crate) fn lp_file(&self) -> String {
        let mut text = String::from("minimize\nobj:");
        for (index, column) in self.columns.iter().enumerate() {
            text += &format!(" {:+} x{index}\n", column.cost);
        }
        text += &format!(" {:+} constant\nsubject to\n", self.constant);
        for (index, row) in self.rows.iter().enumerate() {
            let terms: Vec<String> = row
                .of
                .iter()
                .map(|(column, each)| format!(" {each:+} x{column}\n"))
                .collect();
            let terms = terms.concat();
            for (kind, limit) in [(">=", row.least), ("<=", row.most)] {
                if limit.is_finite() && !terms.is_empty() {
                    text += &format!(
                        "r{index}{}:{terms} {kind} {limit}\n",
                        if kind == ">=" { "l" } else { "m" }
                    );
                }
            }
        }
        text += "bounds\nconstant = 1\n";
        for (index, column) in self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.most.is_finite())
        {
            text += &format!("x{index} <= {}\n", column.most);
        }
        text += "general\n";
        for (index, _) in self.columns.iter().enumerate().filter(|(_, column)| column.whole) {
            text += &format!("x{index}\n");
        }
        text + "end\n"
    }

    fn column(&mut self, cost: f64, most: f64, whole: bool) -> usize {
        self.columns.push(Column { cost, most, whole });
        self.columns.len() - 1
    }

    fn row(&mut self, least: f64, most: f64, of: Vec<(usize, f64)>) {
        self.rows.push(Row { least, most, of });
    }
}

/// `problem` as a linear program; exact with one pool that need not survive a loss, a relaxation with several, which may share a server
/// within a slot.
pub(crate) fn milp(problem: &Problem) -> Milp {
    let mut milp = Milp::default();
    let slots = problem.slots();
    // Per pool, per slot: terms of capacity, and what is there in any case.
    let mut capacity: Vec<Vec<Vec<(usize, f64)>>> = vec![vec![Vec::new(); slots]; problem.pools.len()];
    let mut given = vec![vec![0.0; slots]; problem.pools.len()];
    for class in &problem.classes {
        let (serving, fixed) = flow(&mut milp, problem, class);
        for slot in 0..slots {
            if let ([each], 1) = (&class.capacity[..], problem.pools.len()) {
                let each = each.unwrap_or(0.0);
                capacity[0][slot].extend(serving[slot].iter().map(|&(column, share)| (column, share * each)));
                given[0][slot] += fixed[slot] * each;
                continue;
            }
            let mut row: Vec<(usize, f64)> = serving[slot].iter().map(|&(column, share)| (column, -share)).collect();
            for (pool, each) in class.capacity.iter().enumerate() {
                if let Some(each) = each {
                    let column = milp.column(0.0, f64::INFINITY, false);
                    row.push((column, 1.0));
                    capacity[pool][slot].push((column, *each));
                }
            }
            milp.row(f64::NEG_INFINITY, fixed[slot], row);
        }
    }
    for (pool, demand) in problem.pools.iter().enumerate() {
        let mut burn = vec![0; slots];
        for slot in 0..slots {
            let column = milp.column(demand.miss_value, f64::INFINITY, false);
            burn[slot] = column;
            let outcomes = Outcomes::new(&demand.burn, &demand.arrivals[slot], problem.length_s(slot), None);
            let points: Vec<(f64, f64)> = outcomes.points().collect();
            for pair in points.windows(2) {
                let slope = (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0);
                // burn ≥ at + slope (capacity − from)
                let mut row: Vec<(usize, f64)> = capacity[pool][slot]
                    .iter()
                    .map(|&(column, each)| (column, -slope * each))
                    .collect();
                row.push((column, 1.0));
                milp.row(pair[0].1 + slope * (given[pool][slot] - pair[0].0), f64::INFINITY, row);
                if slope >= 0.0 {
                    break;
                }
            }
        }
        for window in &demand.windows {
            let row = window.slots.clone().map(|slot| (burn[slot], 1.0)).collect();
            milp.row(f64::NEG_INFINITY, window.budget, row);
        }
    }
    milp
}

/// One class as an integer flow: per slot, columns that serve in it with the share of it that they do, and what serves in any case.
fn flow(milp: &mut Milp, problem: &Problem, class: &Class) -> (Vec<Vec<(usize, f64)>>, Vec<f64>) {
    let at = &problem.boundaries_s;
    let (slots, end) = (problem.slots(), at.len() - 1);
    let boundary = |time: f64| at.partition_point(|start| *start < time).min(end);
    let most = class.units.len() as f64;
    let mut serving = vec![Vec::new(); slots];
    let mut fixed = vec![0.0; slots];
    let mut off: Vec<Vec<(usize, f64)>> = vec![Vec::new(); end + 1];
    let mut free: Vec<Vec<(usize, f64)>> = vec![Vec::new(); end + 1];
    let (mut off_supply, mut free_supply) = (vec![0.0; end + 1], vec![0.0; end + 1]);
    let share = |slot: usize, from: f64, to: f64| {
        ((to.min(at[slot + 1]) - from.max(at[slot])) / (at[slot + 1] - at[slot])).clamp(0.0, 1.0)
    };
    for unit in &class.units {
        let (serves, until, billed_from) = match *unit {
            Unit::Off { from_s } => {
                off_supply[boundary(from_s.max(0.0))] += 1.0;
                continue;
            }
            Unit::On { serves_s, paid_until_s } => (
                serves_s.max(0.0),
                at[boundary(serves_s.max(paid_until_s).max(0.0))],
                paid_until_s.max(0.0),
            ),
            Unit::Fixed { serves_s } => (serves_s.max(0.0), at[end], f64::INFINITY),
        };
        let on = (until - serves).max(0.0);
        milp.constant += class.energy_hourly * on / 3_600.0 + class.hourly * (until - billed_from).max(0.0) / 3_600.0;
        for (slot, fixed) in fixed.iter_mut().enumerate() {
            *fixed += share(slot, serves, until);
        }
        free_supply[boundary(until)] += 1.0;
    }
    for start in 0..end {
        // Kept through the slot.
        let hours = (at[start + 1] - at[start]) / 3_600.0;
        let kept = milp.column((class.hourly + class.energy_hourly) * hours, most, true);
        free[start].push((kept, -1.0));
        free[start + 1].push((kept, 1.0));
        serving[start].push((kept, 1.0));
        let idle = milp.column(0.0, most, true);
        off[start].push((idle, -1.0));
        off[start + 1].push((idle, 1.0));
        let released = milp.column(0.0, most, true);
        let again = boundary(at[start] + class.recycle_s).max(start + usize::from(class.recycle_s > 0.0));
        free[start].push((released, -1.0));
        off[again].push((released, 1.0));
        let serves = at[start] + class.lead_s;
        let until = boundary((at[start] + class.minimum_lease_s).max(serves)).max(start + 1);
        let beyond = ((at[start] + class.minimum_lease_s).max(serves) - at[end]).max(0.0);
        let cost = class.switch_cost
            + class.hourly * (at[until] - at[start] + problem.overhang * beyond) / 3_600.0
            + class.energy_hourly * (at[until] - serves).max(0.0) / 3_600.0;
        let leased = milp.column(cost, most, true);
        off[start].push((leased, -1.0));
        free[until].push((leased, 1.0));
        for (slot, serving) in serving.iter_mut().enumerate().take(until).skip(start) {
            let share = share(slot, serves, at[until]);
            if share > 0.0 {
                serving.push((leased, share));
            }
        }
    }
    for (terms, supply) in off
        .into_iter()
        .zip(off_supply)
        .chain(free.into_iter().zip(free_supply))
        .collect::<Vec<_>>()
    {
        // What comes in, less what goes out, is kept; at the end everything may stay where it is.
        milp.row(-supply, f64::INFINITY, terms);
    }
    (serving, fixed)
}
