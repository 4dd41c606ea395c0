//! The same problem as a mixed-integer linear program, for a general solver to judge.
//!
//! All servers of a class are one integer flow through two layers of nodes, *off* and *free*, one of each per boundary: a lease is an arc from
//! off to the end of its minimum in free, a release an arc from free to off after recycling. The burn of a slot is at least every stretch
//! of its convex function.

use std::time::Duration;

use microlp::{ComparisonOp, OptimizationDirection, SolveOptions, SolveOutcome, Stats, Variable};
use pomarium_kernel::snapshot::Survive;
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
    pub(crate) of: Terms,
}

/// Columns with their coefficients.
type Terms = Vec<(usize, f64)>;

/// Minimise cost of columns, none below zero, plus a constant.
#[derive(Default)]
pub(crate) struct Milp {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    pub(crate) constant: f64,
}

/// What is known of the optimum: both are the same once it is found, and infinite if nothing is feasible.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    /// No plan costs less.
    pub(crate) least: f64,
    /// A plan that costs so much is known.
    pub(crate) most: f64,
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

    /// What the best plan costs, by branch and bound over so many nodes.
    pub(crate) fn judge(&self, nodes: u64) -> Verdict {
        let mut program = microlp::Problem::new(OptimizationDirection::Minimize);
        let variable = |column: &Column| {
            if column.whole {
                #[expect(clippy::cast_possible_truncation, reason = "a number of servers")]
                let most = column.most as i32;
                program.add_integer_var(column.cost, (0, most))
            } else {
                program.add_var(column.cost, (0.0, column.most))
            }
        };
        let variables: Vec<Variable> = self.columns.iter().map(variable).collect();
        self.constrain(&mut program, &variables);
        let mut options = SolveOptions::default();
        options.node_limit = Some(nodes);
        let least = |stats: Stats| {
            stats
                .best_bound
                .map_or(f64::NEG_INFINITY, |bound| bound + self.constant)
        };
        match program.solve_with(options) {
            Ok(SolveOutcome::Solution(best)) => Verdict {
                least: least(best.stats()),
                most: best.objective() + self.constant,
            },
            Ok(SolveOutcome::Interrupted(unknown)) => Verdict {
                least: least(unknown.stats()),
                most: f64::INFINITY,
            },
            Err(microlp::Error::Infeasible) => Verdict {
                least: f64::INFINITY,
                most: f64::INFINITY,
            },
            Err(error) => panic!("judging a plan: {error}"),
        }
    }

    /// The same without columns that have to be whole.
    #[must_use]
    pub(crate) fn relaxed(mut self) -> Self {
        for column in &mut self.columns {
            column.whole = false;
        }
        self
    }

    /// Columns of the best solution if none has to be whole, by microlp; `None` if it is not known after `limit`.
    pub(crate) fn optimum(&self, limit: Duration) -> Option<Vec<f64>> {
        let mut program = microlp::Problem::new(OptimizationDirection::Minimize);
        program.set_time_limit(limit);
        let variable = |column: &Column| program.add_var(column.cost, (0.0, column.most));
        let variables: Vec<Variable> = self.columns.iter().map(variable).collect();
        self.constrain(&mut program, &variables);
        let outcome = program.solve().ok().filter(SolveOutcome::is_optimal)?;
        let solution = outcome.solution()?;
        Some(variables.iter().map(|&variable| solution.var_value(variable)).collect())
    }

    fn constrain(&self, program: &mut microlp::Problem, variables: &[Variable]) {
        for row in &self.rows {
            let terms: Vec<(Variable, f64)> = row.of.iter().map(|&(column, each)| (variables[column], each)).collect();
            for (kind, limit) in [(ComparisonOp::Ge, row.least), (ComparisonOp::Le, row.most)] {
                if limit.is_finite() {
                    program.add_constraint(&terms[..], kind, limit);
                }
            }
        }
    }

    pub(super) fn column(&mut self, cost: f64, most: f64, whole: bool) -> usize {
        self.columns.push(Column { cost, most, whole });
        self.columns.len() - 1
    }

    pub(super) fn row(&mut self, least: f64, most: f64, of: Terms) {
        self.rows.push(Row { least, most, of });
    }
}

/// Whether several pools may share a server within a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    /// They may not: the problem itself.
    Whole,
    /// They may: a relaxation.
    Divided,
}

/// `problem` as a linear program. Of what a plan respects it leaves out limits of power, money and replicas, the loss of a site, and that a lease
/// may not be needed after all.
pub(crate) fn milp(problem: &Problem, servers: Servers) -> Milp {
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
                given[0][slot] += fixed[slot].iter().sum::<f64>() * each;
                continue;
            }
            // Servers that begin to serve within the slot serve a pool for the rest of it.
            let mut shares: Vec<f64> = serving[slot]
                .iter()
                .map(|&(_, share)| share)
                .chain(fixed[slot].iter().copied())
                .collect();
            shares.sort_by(f64::total_cmp);
            shares.dedup();
            for share in shares {
                let alike = |of: f64| of.total_cmp(&share).is_eq();
                let columns = serving[slot].iter().filter(|&&(_, of)| alike(of));
                let mut row: Vec<(usize, f64)> = columns.map(|&(column, _)| (column, -1.0)).collect();
                for (pool, each) in class.capacity.iter().enumerate() {
                    if let Some(each) = each {
                        let column = milp.column(0.0, class.units.len() as f64, servers == Servers::Whole);
                        row.push((column, 1.0));
                        capacity[pool][slot].push((column, share * each));
                    }
                }
                let there = fixed[slot].iter().filter(|&&of| alike(of)).count();
                milp.row(f64::NEG_INFINITY, there as f64, row);
            }
        }
    }
    for (pool, given) in given.iter_mut().enumerate() {
        let lost = lost(problem, pool);
        for given in given {
            *given -= lost;
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
            // More than the last point changes nothing.
            let least = points.last().map_or(0.0, |last| last.1);
            milp.row(least, f64::INFINITY, vec![(column, 1.0)]);
        }
        for window in &demand.windows {
            let row = window.slots.clone().map(|slot| (burn[slot], 1.0)).collect();
            milp.row(f64::NEG_INFINITY, window.budget, row);
        }
    }
    milp
}

/// Requests/s that a pool has to do without so that it survives the loss of a server.
fn lost(problem: &Problem, pool: usize) -> f64 {
    match problem.pools[pool].survive {
        Survive::Server => {
            let each = problem.classes.iter().filter_map(|class| class.capacity[pool]);
            each.fold(0.0, f64::max)
        }
        Survive::None | Survive::Site => 0.0,
    }
}

/// One class as an integer flow: per slot, columns that serve in it with the share of it that they do, and the shares of those that serve in any case.
fn flow(milp: &mut Milp, problem: &Problem, class: &Class) -> (Vec<Terms>, Vec<Vec<f64>>) {
    let at = &problem.boundaries_s;
    let (slots, end) = (problem.slots(), at.len() - 1);
    let boundary = |time: f64| at.partition_point(|start| *start < time).min(end);
    let most = class.units.len() as f64;
    let mut serving = vec![Vec::new(); slots];
    let mut fixed = vec![Vec::new(); slots];
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
            let share = share(slot, serves, until);
            if share > 0.0 {
                fixed.push(share);
            }
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
