//! What follows from slots and classes alone, worked out once per problem: where a lease that begins at a boundary leads to, what it
//! costs, and in which slots it serves.

use super::{Class, Leg, Problem, Unit};

/// The slots in which a server serves: the first in part, then all up to a boundary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stretch {
    /// The slot in which it begins to serve.
    pub(super) first: usize,
    /// The share of that slot.
    pub(super) share: f64,
    /// The boundary at which it ends.
    pub(super) to: usize,
}

impl Stretch {
    /// (slot, share of it).
    pub(super) fn slots(self) -> impl Iterator<Item = (usize, f64)> {
        (self.first..self.to).map(move |slot| (slot, if slot == self.first { self.share } else { 1.0 }))
    }
}

/// One paid stretch of a server's course, between boundaries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Term {
    /// The boundary at which it begins.
    pub(super) from: usize,
    /// It was paid for already when the problem began.
    pub(super) given: bool,
    pub(super) serves: Stretch,
}

impl Term {
    pub(super) fn to(&self) -> usize {
        self.serves.to
    }

    pub(super) fn until(self, to: usize) -> Self {
        Self {
            serves: Stretch { to, ..self.serves },
            ..self
        }
    }
}

/// Leases of one class, by the boundary at which they begin.
#[derive(Clone, Debug)]
pub(super) struct Timetable {
    /// Where the minimum of a lease ends, and where it serves until then.
    pub(super) leases: Vec<Stretch>,
    /// What a lease costs up to the end of its minimum.
    pub(super) lease_cost: Vec<f64>,
    /// What a slot costs that a server is kept on through.
    pub(super) keep_cost: Vec<f64>,
    /// The same from the start to each boundary.
    kept: Vec<f64>,
    /// Given back at a boundary, a machine can be leased again from this one on.
    pub(super) again: Vec<usize>,
}

/// A problem's time.
#[derive(Debug)]
pub(super) struct Grid<'a> {
    pub(super) problem: &'a Problem,
    pub(super) slots: usize,
    pub(super) timetables: Vec<Timetable>,
}

impl<'a> Grid<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        let mut grid = Self {
            problem,
            slots: problem.slots(),
            timetables: Vec::new(),
        };
        grid.timetables = problem.classes.iter().map(|class| grid.timetable(class)).collect();
        grid
    }

    fn timetable(&self, class: &Class) -> Timetable {
        let at = &self.problem.boundaries_s;
        let mut leases = Vec::with_capacity(self.slots);
        let mut lease_cost = Vec::with_capacity(self.slots);
        let mut keep_cost = Vec::with_capacity(self.slots);
        let mut kept = vec![0.0];
        let mut again = Vec::with_capacity(self.slots);
        for start in 0..self.slots {
            let from_s = at[start];
            let serves_s = from_s + class.lead_s;
            // To give it back before it ever served makes no sense.
            let until_s = (from_s + class.minimum_lease_s).max(serves_s);
            let to = self.boundary(until_s).max(start + 1);
            leases.push(self.stretch(serves_s, to));
            let (end_s, on_s) = (at[self.slots], (at[to] - serves_s).max(0.0));
            let paid_s = at[to] - from_s + self.problem.overhang * (until_s - end_s).max(0.0);
            let needed = self.problem.still_needed(from_s, class.minimum_lease_s);
            let paid = class.hourly * paid_s * needed + class.energy_hourly * on_s;
            lease_cost.push(class.switch_cost + paid / 3_600.0);
            let keep = (class.hourly + class.energy_hourly) * (at[start + 1] - from_s) / 3_600.0;
            keep_cost.push(keep);
            kept.push(kept[start] + keep);
            again.push(
                self.boundary(from_s + class.recycle_s)
                    .max(start + usize::from(class.recycle_s > 0.0)),
            );
        }
        Timetable {
            leases,
            lease_cost,
            keep_cost,
            kept,
            again,
        }
    }

    /// The first boundary at or after a time; the end if there is none.
    pub(super) fn boundary(&self, at_s: f64) -> usize {
        self.problem
            .boundaries_s
            .partition_point(|start| *start < at_s)
            .min(self.slots)
    }

    fn stretch(&self, serves_s: f64, to: usize) -> Stretch {
        let at = &self.problem.boundaries_s;
        let serves_s = serves_s.max(0.0);
        let first = at.partition_point(|start| *start <= serves_s) - 1;
        let share = if first < self.slots {
            (at[first + 1] - serves_s) / (at[first + 1] - at[first])
        } else {
            0.0
        };
        Stretch { first, share, to }
    }

    /// What is paid for already, up to the end of its minimum; `None` if nothing is.
    pub(super) fn given(&self, unit: Unit) -> Option<Term> {
        let (serves_s, to) = match unit {
            Unit::Off { .. } => return None,
            Unit::On { serves_s, paid_until_s } => (serves_s, self.boundary(serves_s.max(paid_until_s).max(0.0))),
            Unit::Fixed { serves_s } => (serves_s, self.slots),
        };
        Some(Term {
            from: 0,
            given: true,
            serves: self.stretch(serves_s, to),
        })
    }

    /// A lease that begins at a boundary, up to the end of its minimum.
    pub(super) fn leased(&self, class: usize, from: usize) -> Term {
        Term {
            from,
            given: false,
            serves: self.timetables[class].leases[from],
        }
    }

    /// What a term costs, sunk leases left out.
    pub(super) fn cost(&self, class: usize, unit: Unit, term: &Term) -> f64 {
        let timetable = &self.timetables[class];
        if !term.given {
            let minimum = timetable.leases[term.from].to;
            return timetable.lease_cost[term.from] + timetable.kept[term.to()] - timetable.kept[minimum];
        }
        let spec = &self.problem.classes[class];
        let until_s = self.problem.boundaries_s[term.to()];
        let (serves_s, billed_s) = match unit {
            Unit::On { serves_s, paid_until_s } => (serves_s, (until_s - paid_until_s.max(0.0)).max(0.0)),
            Unit::Fixed { serves_s } => (serves_s, 0.0),
            Unit::Off { .. } => (0.0, 0.0),
        };
        let on_s = (until_s - serves_s.max(0.0)).max(0.0);
        (spec.hourly * billed_s + spec.energy_hourly * on_s) / 3_600.0
    }

    /// What all terms of a course cost.
    pub(super) fn total(&self, class: usize, unit: Unit, terms: &[Term]) -> f64 {
        terms.iter().map(|term| self.cost(class, unit, term)).sum()
    }

    /// A term in seconds.
    pub(super) fn leg(&self, class: usize, unit: Unit, term: &Term) -> Leg {
        let at = &self.problem.boundaries_s;
        let from_s = at[term.from];
        let serves_s = match (term.given, unit) {
            (true, Unit::On { serves_s, .. } | Unit::Fixed { serves_s }) => serves_s.max(0.0),
            _ => from_s + self.problem.classes[class].lead_s,
        };
        Leg {
            from_s,
            serves_s,
            to_s: at[term.to()],
        }
    }
}
