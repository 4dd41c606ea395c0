//! How much of its error budget a pool burns, by load.
//!
//! A request that misses an objective of percentile q burns 1 ÷ (1 − q): burning one per request on average is exactly what the
//! objective allows. With several objectives, the one that burns most counts in every slot, which errs on the safe side.

use serde::{Deserialize, Serialize};

use super::Backlog;

/// Share of saturation at which a table has its entries.
pub const LOADS: [f64; 16] = [
    0.0, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.94, 0.97, 1.0,
];

/// One over the distance of neighbours in [`LOADS`].
const LOAD_WIDTHS: [f64; LOADS.len() - 1] = {
    let mut widths = [0.0; LOADS.len() - 1];
    let mut entry = 0;
    while entry < widths.len() {
        widths[entry] = 1.0 / (LOADS[entry + 1] - LOADS[entry]);
        entry += 1;
    }
    widths
};

/// Beyond saturation a backlog grows that outlives the slot: burn rises by so much per saturation.
///
/// A tenth too much for an hour leaves six minutes' work, which takes another hour to work off at nine tenths of saturation: the
/// misses of both hours, 2 × 20 at the 95th percentile, for one hour of 0.1 beyond.
const OVERLOAD_SLOPE: f64 = 200.0;

/// Points at which a slot's expected burn is tabulated.
const POINTS: usize = 96;

/// What steady demand burns, per objective: what is measured, before bursts make more of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SteadyBurn {
    /// By capacity at saturation, ascending: per objective, burn per request at each of [`LOADS`].
    pub(super) anchors: Vec<(f64, Vec<[f64; LOADS.len()]>)>,
    /// Per objective.
    pub(super) missed: Vec<Missed>,
    /// How much there is to do for a request, see [`crate::work`].
    pub(super) work: f64,
}

/// What it is to miss one objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Missed {
    /// Burn of one request.
    pub(super) burn: f64,
    /// How long a request may wait for its turn, in s; `None` if waiting is nothing to this objective.
    pub(super) patience_s: Option<f64>,
}

impl SteadyBurn {
    /// The table for demand without bursts. `None` without servers.
    pub fn without_bursts(&self) -> Option<BurnTable> {
        let anchors = self.anchors.iter().map(|(capacity, objectives)| {
            let worst = |load: usize| objectives.iter().map(|table| table[load]).fold(0.0, f64::max);
            (*capacity, std::array::from_fn(worst))
        });
        BurnTable::new(anchors.collect())
    }
}

/// Burn per request by share of saturation, for sets of servers of several sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BurnTable {
    /// By capacity at saturation, ascending; never empty.
    anchors: Vec<(f64, [f64; LOADS.len()])>,
}

impl BurnTable {
    /// A table from (capacity, burn at each of [`LOADS`]). `None` without entries.
    ///
    /// Burn never falls with load: entries that say so are raised to the one before.
    pub fn new(mut anchors: Vec<(f64, [f64; LOADS.len()])>) -> Option<Self> {
        anchors.retain(|(capacity, _)| capacity.is_finite() && *capacity > 0.0);
        anchors.sort_by(|left, right| left.0.total_cmp(&right.0));
        for (_, burn) in &mut anchors {
            let mut least = 0.0_f64;
            for entry in burn.iter_mut() {
                least = least.max(if entry.is_finite() { *entry } else { 0.0 });
                *entry = least;
            }
        }
        (!anchors.is_empty()).then_some(Self { anchors })
    }

    /// Nothing ever misses.
    pub(super) fn nothing() -> Self {
        Self {
            anchors: vec![(1.0, [0.0; LOADS.len()])],
        }
    }

    /// The same, burning so many times as much.
    #[must_use]
    pub(super) fn scaled(mut self, factor: f64) -> Self {
        for burn in self.anchors.iter_mut().flat_map(|(_, table)| table) {
            *burn *= factor;
        }
        self
    }

    /// Adds `weight` times the burn per request at `rate` to `sum`, for capacities of 0, `step`, 2 `step` …: what [`BurnTable::at`]
    /// says of each, in one sweep.
    fn add(&self, sum: &mut [f64], step: f64, rate: f64, weight: f64) {
        let (mut after, mut entry) = (0, LOADS.len() - 1);
        for (point, sum) in sum.iter_mut().enumerate() {
            let capacity = step * point as f64;
            while self.anchors.get(after).is_some_and(|(anchor, _)| *anchor < capacity) {
                after += 1;
            }
            let load = if capacity > 0.0 { rate / capacity } else { f64::INFINITY };
            while entry > 1 && LOADS[entry - 1] > load {
                entry -= 1;
            }
            let burn = |table: &[f64; LOADS.len()]| {
                if load >= 1.0 {
                    table[LOADS.len() - 1] + OVERLOAD_SLOPE * (rate - capacity) / rate
                } else {
                    let share = (load - LOADS[entry - 1]) * LOAD_WIDTHS[entry - 1];
                    table[entry - 1] + (table[entry] - table[entry - 1]) * share
                }
            };
            let burnt = match (after.checked_sub(1), self.anchors.get(after)) {
                (Some(below), Some((high, above))) => {
                    let (low, below) = &self.anchors[below];
                    let low_burn = burn(below);
                    low_burn + (burn(above) - low_burn) * (capacity - low) / (high - low)
                }
                (None, Some((_, only))) => burn(only),
                (Some(below), None) => burn(&self.anchors[below].1),
                (None, None) => 0.0,
            };
            *sum += weight * burnt;
        }
    }

    /// Burn per request when `rate` requests/s arrive at servers that can finish `capacity`.
    pub fn at(&self, rate: f64, capacity: f64) -> f64 {
        if rate <= 0.0 {
            return 0.0;
        }
        let load = if capacity > 0.0 { rate / capacity } else { f64::INFINITY };
        let after = self.anchors.partition_point(|(anchor, _)| *anchor < capacity);
        match (
            after.checked_sub(1).and_then(|index| self.anchors.get(index)),
            self.anchors.get(after),
        ) {
            (Some((low, below)), Some((high, above))) => {
                let share = (capacity - low) / (high - low);
                burn(below, load, rate, capacity) * (1.0 - share) + burn(above, load, rate, capacity) * share
            }
            (Some((_, only)), None) | (None, Some((_, only))) => burn(only, load, rate, capacity),
            (None, None) => 0.0,
        }
    }
}

fn burn(table: &[f64; LOADS.len()], load: f64, rate: f64, capacity: f64) -> f64 {
    if load >= 1.0 {
        // Linear in capacity, so that it is convex and finite down to none at all.
        return table[LOADS.len() - 1] + OVERLOAD_SLOPE * (rate - capacity) / rate;
    }
    interpolate(table, load)
}

/// The entry for a load between 0 and 1.
pub(super) fn interpolate(table: &[f64; LOADS.len()], load: f64) -> f64 {
    let after = LOADS.partition_point(|entry| *entry <= load).clamp(1, LOADS.len() - 1);
    let (low, high) = (LOADS[after - 1], LOADS[after]);
    let share = (load - low) / (high - low);
    table[after - 1] * (1.0 - share) + table[after] * share
}

/// Expected burn of one pool in one slot, by capacity: convex, falling, piecewise linear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcomes {
    /// Distance of the points, in requests/s.
    step: f64,
    per_step: f64,
    /// Burn at 0, `step`, 2 `step` … In place: plans look it up millions of times.
    burn: [f64; POINTS + 1],
}

impl Outcomes {
    /// Of `arrivals` (probability, requests/s) in a slot of `length_s`, and of the `backlog` that is worked off from then on.
    pub fn new(table: &BurnTable, arrivals: &[(f64, f64)], length_s: f64, backlog: Option<&Backlog>) -> Self {
        let most = arrivals.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        // From twice the highest load on, more capacity is taken to change nothing.
        let step = (2.5 * most / POINTS as f64).max(f64::MIN_POSITIVE);
        let mut burn = [0.0; POINTS + 1];
        for &(probability, rate) in arrivals {
            if rate > 0.0 && probability > 0.0 {
                table.add(&mut burn, step, rate, probability * rate * length_s);
            }
        }
        if let Some(backlog) = backlog {
            for (point, burn) in burn.iter_mut().enumerate() {
                *burn += backlog.burnt(step * point as f64);
            }
        }
        // Where misses saturate (all requests miss anyway) another server seems to be worth nothing; two would be. Raised from the
        // right to the tangent, so that each server is worth at least what the next one is.
        for point in (0..POINTS).rev() {
            burn[point] = burn[point].max(burn[point + 1]);
            if point + 2 <= POINTS {
                burn[point] = burn[point].max(2.0 * burn[point + 1] - burn[point + 2]);
            }
        }
        Self {
            step,
            per_step: 1.0 / step,
            burn,
        }
    }

    /// Expected burn with servers that can finish `capacity` requests/s.
    pub fn at(&self, capacity: f64) -> f64 {
        // Less than nothing, when a loss is to be survived, goes on as the first stretch does.
        let position = (capacity * self.per_step).min(POINTS as f64);
        let below = whole(position).min(POINTS - 1);
        let share = position - below as f64;
        self.burn[below] + (self.burn[below + 1] - self.burn[below]) * share
    }

    /// What burn falls by per request/s more, and how fast that falls in turn: of a smooth function through the slopes in the middle of
    /// each stretch.
    pub(super) fn slope(&self, capacity: f64) -> (f64, f64) {
        let middle = capacity * self.per_step - 0.5;
        let below = whole(middle).min(POINTS - 2);
        let fall = |stretch: usize| (self.burn[stretch] - self.burn[stretch + 1]) * self.per_step;
        let (left, right) = (fall(below), fall(below + 1));
        let share = (middle - below as f64).clamp(0.0, 1.0);
        (left + (right - left) * share, (left - right) * self.per_step)
    }

    /// Where it bends: (capacity, burn), ascending.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.burn
            .iter()
            .enumerate()
            .map(|(point, burn)| (self.step * point as f64, *burn))
    }

    /// More requests/s than this burn no less.
    pub(super) fn enough(&self) -> f64 {
        let least = self.burn[POINTS] + 1e-9 * self.burn[0].abs();
        let point = self.burn.iter().position(|burn| *burn <= least);
        self.step * point.unwrap_or(POINTS) as f64
    }

    /// The least of `price · burn + worth · capacity` over capacities from `lowest`, which is zero or less, on: the slot's part of the
    /// Lagrangian bound.
    pub(super) fn least(&self, price: f64, worth: f64, lowest: f64) -> f64 {
        // As long as another stretch saves more than it costs, it is taken; stretches save less and less.
        let pays = |point: usize| price * (self.burn[point] - self.burn[point + 1]) > worth * self.step;
        let (mut low, mut high) = (0, POINTS);
        while low < high {
            let middle = usize::midpoint(low, high);
            if pays(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let at = if low == 0 { lowest } else { self.step * low as f64 };
        price * self.at(at) + worth * at
    }
}

/// Rounded down; 0 below that.
fn whole(position: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates at 0, and no position is beyond a table"
    )]
    let whole = position as usize;
    whole
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn knee(at: f64) -> [f64; LOADS.len()] {
        LOADS.map(|load| {
            if load < at {
                0.2
            } else {
                0.2 + (load - at) / (1.0 - at) * 19.8
            }
        })
    }

    proptest! {
        #[test]
        fn each_server_is_worth_at_least_what_the_next_one_is(
            rates in prop::collection::vec(0.0_f64..20.0, 1..6), at in 0.3_f64..0.95, unit in 0.1_f64..2.0, waiting in 0.0_f64..2_000.0,
        ) {
            let table = BurnTable::new(vec![(1.0, knee(at * 0.9)), (8.0, knee(at))]).unwrap();
            let share = 1.0 / rates.len() as f64;
            let arrivals: Vec<_> = rates.iter().map(|&rate| (share, rate)).collect();
            let backlog = Backlog { slot: 0, requests: waiting, rate: rates[0], burn: 20.0 };
            let outcomes = Outcomes::new(&table, &arrivals, 300.0, Some(&backlog));
            let mut last = f64::INFINITY;
            for servers in 0..60 {
                let capacity = unit * f64::from(servers);
                let worth = outcomes.at(capacity) - outcomes.at(capacity + unit);
                prop_assert!(worth >= -1e-9, "another server never burns more");
                prop_assert!(worth <= last + 1e-6, "{worth} after {last}");
                last = worth;
            }
        }
    }

    #[test]
    fn no_servers_for_any_demand_is_finite_and_worse_than_all_requests_missing() {
        let table = BurnTable::new(vec![(1.0, knee(0.8))]).unwrap();
        let burn = table.at(3.0, 0.0);
        assert!(burn.is_finite() && burn > 20.0, "{burn}");
        assert!(table.at(0.0, 0.0) <= 0.0, "nothing arrives, nothing burns");
    }
}
