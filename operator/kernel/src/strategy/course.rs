//! The best course of one server: when to lease it, and when to give it back.
//!
//! Exact dynamic programming over the boundaries of the slots. At a boundary a server is either *off* and can be leased, or *free*:
//! paid for, its minimum lease over, so that it can be given back at any time. A lease that would end beyond the horizon is charged as
//! far as the horizon reaches.

use serde::{Deserialize, Serialize};

use super::{Class, Unit};

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

impl Leg {
    /// Which share of a slot it serves in.
    pub fn share(&self, start_s: f64, end_s: f64) -> f64 {
        let served = self.to_s.min(end_s) - self.serves_s.max(start_s);
        (served / (end_s - start_s)).clamp(0.0, 1.0)
    }
}

/// A server's course and what it costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Course {
    pub(super) legs: Vec<Leg>,
    /// Leases that are not sunk, energy and switching.
    pub(super) cost: f64,
    /// Less what serving is worth at the values it was planned with.
    pub(super) net: f64,
}

impl Course {
    /// The course of these legs, its worth left out.
    pub(super) fn of(class: &Class, unit: Unit, legs: Vec<Leg>) -> Self {
        let cost = legs_cost(class, unit, &legs);
        Self { legs, cost, net: cost }
    }
}

#[derive(Clone, Copy, Debug)]
enum Came {
    Nowhere,
    /// It is so from the start.
    Start,
    /// From the boundary before.
    Before,
    /// Leased at this boundary.
    Leased(usize),
    /// Given back at this boundary.
    Released(usize),
}

#[derive(Clone, Copy, Debug)]
struct State {
    net: f64,
    came: Came,
}

const NOWHERE: State = State {
    net: f64::INFINITY,
    came: Came::Nowhere,
};

/// Works on the same buffers for every server.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    boundaries_s: &'a [f64],
    /// Worth of serving from the start to each boundary.
    worth: Vec<f64>,
    off: Vec<State>,
    free: Vec<State>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(boundaries_s: &'a [f64]) -> Self {
        Self {
            boundaries_s,
            worth: vec![0.0; boundaries_s.len()],
            off: vec![NOWHERE; boundaries_s.len()],
            free: vec![NOWHERE; boundaries_s.len()],
        }
    }

    fn end(&self) -> usize {
        self.boundaries_s.len() - 1
    }

    fn end_s(&self) -> f64 {
        self.boundaries_s[self.end()]
    }

    /// The first boundary at or after a time; the end if there is none.
    fn boundary(&self, at_s: f64) -> usize {
        self.boundaries_s.partition_point(|start| *start < at_s).min(self.end())
    }

    /// What serving from the start until `at_s` is worth.
    fn worth_until(&self, at_s: f64) -> f64 {
        let at_s = at_s.clamp(0.0, self.end_s());
        let after = self
            .boundaries_s
            .partition_point(|start| *start <= at_s)
            .clamp(1, self.end());
        let (start, end) = (self.boundaries_s[after - 1], self.boundaries_s[after]);
        let share = (at_s - start) / (end - start);
        self.worth[after - 1] * (1.0 - share) + self.worth[after] * share
    }

    fn worth_of(&self, leg: &Leg) -> f64 {
        if leg.to_s <= leg.serves_s {
            return 0.0;
        }
        self.worth_until(leg.to_s) - self.worth_until(leg.serves_s)
    }

    /// The best course of `unit` when serving through slot t is worth `values[t]`.
    pub(super) fn best(&mut self, class: &Class, unit: Unit, values: &[f64]) -> Course {
        for (slot, value) in values.iter().enumerate() {
            self.worth[slot + 1] = self.worth[slot] + value;
        }
        let end_s = self.end_s();
        match unit {
            Unit::Fixed { serves_s } => {
                let leg = Leg {
                    from_s: 0.0,
                    serves_s: serves_s.max(0.0),
                    to_s: end_s,
                };
                self.course(class, unit, vec![leg])
            }
            Unit::On { serves_s, paid_until_s } if serves_s.max(paid_until_s) >= end_s => {
                let leg = Leg {
                    from_s: 0.0,
                    serves_s: serves_s.max(0.0),
                    to_s: end_s,
                };
                self.course(class, unit, vec![leg])
            }
            Unit::Off { .. } | Unit::On { .. } => {
                self.sweep(class, unit);
                let legs = self.trace(class, unit);
                self.course(class, unit, legs)
            }
        }
    }

    fn sweep(&mut self, class: &Class, unit: Unit) {
        let end = self.end();
        self.off.fill(NOWHERE);
        self.free.fill(NOWHERE);
        match unit {
            Unit::Off { from_s } => {
                let first = self.boundary(from_s.max(0.0));
                self.off[first] = State {
                    net: 0.0,
                    came: Came::Start,
                };
            }
            Unit::On { .. } | Unit::Fixed { .. } => {
                let leg = self.given(unit);
                let boundary = self.boundary(leg.to_s);
                self.free[boundary] = State {
                    net: cost(class, unit, &leg) - self.worth_of(&leg),
                    came: Came::Start,
                };
            }
        }
        for at in 0..=end {
            let now_s = self.boundaries_s[at];
            // Given back: the same machine can be leased again once it is recycled.
            if self.free[at].net.is_finite() && at < end {
                let again = self
                    .boundary(now_s + class.recycle_s)
                    .max(at + usize::from(class.recycle_s > 0.0));
                relax(&mut self.off[again], self.free[at].net, Came::Released(at));
                let kept = Leg {
                    from_s: now_s,
                    serves_s: now_s,
                    to_s: self.boundaries_s[at + 1],
                };
                let net = self.free[at].net + running(class, &kept) - (self.worth[at + 1] - self.worth[at]);
                relax(&mut self.free[at + 1], net, Came::Before);
            }
            if self.off[at].net.is_finite() && at < end {
                let net = self.off[at].net;
                relax(&mut self.off[at + 1], net, Came::Before);
                let leg = self.leased(class, at);
                let boundary = self.boundary(leg.to_s);
                let net = net + class.switch_cost + running(class, &leg) - self.worth_of(&leg);
                relax(&mut self.free[boundary], net, Came::Leased(at));
            }
        }
    }

    /// What is paid for already.
    fn given(&self, unit: Unit) -> Leg {
        let (serves_s, until_s) = match unit {
            Unit::On { serves_s, paid_until_s } => (serves_s.max(0.0), serves_s.max(paid_until_s).max(0.0)),
            Unit::Fixed { serves_s } => (serves_s.max(0.0), self.end_s()),
            Unit::Off { .. } => (0.0, 0.0),
        };
        Leg {
            from_s: 0.0,
            serves_s,
            to_s: self.boundaries_s[self.boundary(until_s)],
        }
    }

    /// A lease that begins at a boundary, to the end of its minimum and then to the next boundary.
    fn leased(&self, class: &Class, at: usize) -> Leg {
        let from_s = self.boundaries_s[at];
        let serves_s = from_s + class.lead_s;
        // To give it back before it ever served makes no sense.
        let until_s = (from_s + class.minimum_lease_s).max(serves_s);
        let boundary = self.boundary(until_s).max(at + 1);
        Leg {
            from_s,
            serves_s,
            to_s: self.boundaries_s[boundary],
        }
    }

    fn trace(&self, class: &Class, unit: Unit) -> Vec<Leg> {
        let end = self.end();
        let mut legs: Vec<Leg> = Vec::new();
        let mut serving = self.free[end].net < self.off[end].net;
        let mut at = end;
        // The end of the leg that is being traced back.
        let mut to_s = self.boundaries_s[end];
        for _ in 0..=4 * end {
            let state = if serving { self.free[at] } else { self.off[at] };
            match (state.came, serving) {
                (Came::Before, _) => at -= 1,
                (Came::Released(boundary), _) => {
                    serving = true;
                    at = boundary;
                    to_s = self.boundaries_s[at];
                }
                (Came::Leased(boundary), _) => {
                    let leg = self.leased(class, boundary);
                    legs.push(Leg { to_s, ..leg });
                    serving = false;
                    at = boundary;
                }
                (Came::Start, true) => {
                    legs.push(Leg {
                        to_s,
                        ..self.given(unit)
                    });
                    break;
                }
                (Came::Start | Came::Nowhere, _) => break,
            }
        }
        legs.reverse();
        legs
    }

    fn course(&self, class: &Class, unit: Unit, legs: Vec<Leg>) -> Course {
        let cost = legs_cost(class, unit, &legs);
        let worth: f64 = legs.iter().map(|leg| self.worth_of(leg)).sum();
        Course {
            legs,
            cost,
            net: cost - worth,
        }
    }
}

fn relax(state: &mut State, net: f64, came: Came) {
    if net < state.net {
        *state = State { net, came };
    }
}

/// What `legs` of a unit cost, sunk leases left out.
fn legs_cost(class: &Class, unit: Unit, legs: &[Leg]) -> f64 {
    let mut total = 0.0;
    for (index, leg) in legs.iter().enumerate() {
        let given = index == 0 && !matches!(unit, Unit::Off { .. });
        total += if given {
            cost(class, unit, leg)
        } else {
            class.switch_cost + running(class, leg)
        };
    }
    total
}

/// A new lease: price and energy.
fn running(class: &Class, leg: &Leg) -> f64 {
    let served_s = (leg.to_s - leg.serves_s).max(0.0);
    class.hourly * (leg.to_s - leg.from_s) / 3_600.0 + class.energy_hourly * served_s / 3_600.0
}

/// What is paid for already costs energy, and its price once the minimum is over.
fn cost(class: &Class, unit: Unit, leg: &Leg) -> f64 {
    let served_s = (leg.to_s - leg.serves_s).max(0.0);
    let billed_s = match unit {
        Unit::On { paid_until_s, .. } => (leg.to_s - paid_until_s.max(0.0)).max(0.0),
        Unit::Fixed { .. } | Unit::Off { .. } => 0.0,
    };
    class.hourly * billed_s / 3_600.0 + class.energy_hourly * served_s / 3_600.0
}
