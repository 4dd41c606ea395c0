//! The best course of one server: when to lease it, and when to give it back.
//!
//! Exact dynamic programming over the boundaries of the slots, from the last one back. At a boundary a server is either *off* and can be
//! leased, or *free*: paid for, its minimum lease over, so that it can be given back at any time. Of a lease whose minimum
//! would end beyond the horizon, a part of what lies beyond is charged.
//!
//! One pass over a class serves all its units: they differ only in where they begin.

use serde::{Deserialize, Serialize};

use super::Unit;
use super::grid::{Grid, Stretch, Term, Timetable};

/// One stretch of time for which a server is paid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// Leased from then on, in s from now; 0 if it is.
    pub from_s: f64,
    /// Serves from then on.
    pub serves_s: f64,
    /// Given back then; the end of the horizon if it is kept beyond.
    pub to_s: f64,
}

/// A server's course and what it costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Course {
    pub(super) terms: Vec<Term>,
    /// Leases that are not sunk, energy and switching.
    pub(super) cost: f64,
}

/// What the slots of one class cost in a pass: the real prices, or what a search adds to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tariff<'a> {
    /// Of a lease up to the end of its minimum, by the boundary at which it begins; infinite where none may begin.
    pub(super) lease: &'a [f64],
    /// Of keeping a server through a slot.
    pub(super) keep: &'a [f64],
}

impl<'a> Tariff<'a> {
    pub(super) fn of(timetable: &'a Timetable) -> Self {
        Self {
            lease: &timetable.lease_cost,
            keep: &timetable.keep_cost,
        }
    }
}

/// Works on the same buffers for every class.
#[derive(Clone, Debug)]
pub(super) struct Planner {
    /// Worth of serving from the start to each boundary.
    worth: Vec<f64>,
    values: Vec<f64>,
    /// What is to be paid from a boundary on, less what serving is worth, when off and when free.
    off: Vec<f64>,
    free: Vec<f64>,
    /// Whether to lease, and whether to keep.
    leases: Vec<bool>,
    keeps: Vec<bool>,
}

impl Planner {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            worth: vec![0.0; slots + 1],
            values: vec![0.0; slots],
            off: vec![0.0; slots + 1],
            free: vec![0.0; slots + 1],
            leases: vec![false; slots],
            keeps: vec![false; slots],
        }
    }

    /// Finds out what to do at every boundary when serving through slot t is worth `values[t]`.
    pub(super) fn sweep(&mut self, timetable: &Timetable, tariff: Tariff, values: &[f64]) {
        let slots = values.len();
        self.values.clear();
        self.values.extend_from_slice(values);
        let mut worth = 0.0;
        for (slot, value) in values.iter().enumerate() {
            worth += value;
            self.worth[slot + 1] = worth;
        }
        self.off[slots] = 0.0;
        self.free[slots] = 0.0;
        for at in (0..slots).rev() {
            let lease = timetable.leases[at];
            let leased = tariff.lease[at] - self.worth_of(lease) + self.free[lease.to];
            let waits = self.off[at + 1];
            // What makes no difference is not done.
            self.leases[at] = leased < waits - 1e-12;
            self.off[at] = if self.leases[at] { leased } else { waits };
            let kept = tariff.keep[at] - values[at] + self.free[at + 1];
            let released = self.off[timetable.again[at]];
            self.keeps[at] = kept < released - 1e-12;
            self.free[at] = if self.keeps[at] { kept } else { released };
        }
    }

    fn worth_of(&self, serves: Stretch) -> f64 {
        if serves.first >= serves.to {
            return 0.0;
        }
        self.values[serves.first] * serves.share + self.worth[serves.to] - self.worth[serves.first + 1]
    }

    /// What a unit costs on its best course, less what serving is worth.
    pub(super) fn net(&self, grid: &Grid, class: usize, unit: Unit) -> f64 {
        match grid.given(unit) {
            Some(term) => {
                let rest = if matches!(unit, Unit::Fixed { .. }) {
                    0.0
                } else {
                    self.free[term.to()]
                };
                grid.cost(class, unit, &term) - self.worth_of(term.serves) + rest
            }
            None => match unit {
                Unit::Off { from_s } => self.off[grid.boundary(from_s.max(0.0))],
                Unit::On { .. } | Unit::Fixed { .. } => 0.0,
            },
        }
    }

    /// A unit's best course.
    pub(super) fn terms(&self, grid: &Grid, class: usize, unit: Unit) -> Vec<Term> {
        let slots = grid.slots;
        let timetable = &grid.timetables[class];
        let mut terms = Vec::new();
        let mut term = grid.given(unit);
        let mut at = match (unit, &term) {
            (Unit::Off { from_s }, _) => grid.boundary(from_s.max(0.0)),
            (_, Some(term)) => term.to(),
            (_, None) => slots,
        };
        loop {
            if let Some(paid) = term.take() {
                while at < slots && self.keeps[at] {
                    at += 1;
                }
                terms.push(paid.until(at));
                if at < slots {
                    at = timetable.again[at];
                }
            }
            while at < slots && !self.leases[at] {
                at += 1;
            }
            if at >= slots {
                return terms;
            }
            let leased = grid.leased(class, at);
            at = leased.to();
            term = Some(leased);
        }
    }

    /// A unit's best course, and its cost.
    pub(super) fn course(&self, grid: &Grid, class: usize, unit: Unit) -> Course {
        let terms = self.terms(grid, class, unit);
        let cost = grid.total(class, unit, &terms);
        Course { terms, cost }
    }
}
