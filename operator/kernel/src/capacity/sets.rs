//! What sets of servers sustain for one pool's traffic, as far as it was asked before.
//!
//! # Guarantees
//! What is remembered changes no answer: the same bisection is carried on from where it was left.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::queue::{Kind, Station};
use super::{Servers, kinds};
use crate::engine::StepTimes;
use crate::snapshot::{Discipline, LengthMix, Objective};
use crate::units::Rate;

/// Bisection steps: the rate is exact to some millionths of what the servers can finish at all.
const BISECTIONS: u32 = 18;

/// A pass compares a few sets of each pool; what is asked for once in a while is soon computed again.
const MOST_SETS: usize = 64;

/// One pool's traffic, and what is known of sets of servers under it.
#[derive(Clone, Debug)]
pub(crate) struct Sets {
    mix: LengthMix,
    objectives: Vec<Objective>,
    discipline: Discipline,
    kinds: BTreeMap<StepTimes, Arc<Kind>>,
    known: BTreeMap<Vec<(StepTimes, u32)>, Bracket>,
}

/// Between these rates lies the largest one at which every objective holds.
#[derive(Clone, Copy, Debug)]
struct Bracket {
    low: f64,
    high: f64,
    steps: u32,
}

impl Sets {
    pub(crate) fn new(mix: LengthMix, objectives: Vec<Objective>, discipline: Discipline) -> Self {
        Self {
            mix,
            objectives,
            discipline,
            kinds: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// See [`super::sustainable`].
    pub(crate) fn sustainable(&mut self, servers: &[Servers]) -> Rate {
        Rate::per_second(self.narrow(kinds(servers), |_| false).low)
    }

    /// Whether `utilization` of what is [`Self::sustainable`] is at least `needed`, in requests/s: mostly known long before the rate itself is.
    pub(crate) fn carries(&mut self, servers: &[Servers], needed: f64, utilization: f64) -> bool {
        let decided = |bracket: &Bracket| bracket.low * utilization >= needed || bracket.high * utilization < needed;
        self.narrow(kinds(servers), decided).low * utilization >= needed
    }

    /// Latencies at `rate`, see [`super::predict`].
    pub(crate) fn predict(&mut self, servers: &[Servers], rate: Rate) -> Option<super::Prediction> {
        let kinds = self.of(&kinds(servers));
        Station::new(kinds, &self.mix, self.discipline).predict(rate.as_per_second())
    }

    /// Bisects until `enough` is known, or all there is to know.
    fn narrow(&mut self, kinds: Vec<(StepTimes, u32)>, enough: impl Fn(&Bracket) -> bool) -> Bracket {
        let known = self.known.get(&kinds).copied();
        let is_final = |bracket: &Bracket| bracket.steps >= BISECTIONS || enough(bracket);
        if let Some(known) = known.filter(is_final) {
            return known;
        }
        let station = Station::new(self.of(&kinds), &self.mix, self.discipline);
        let mut bracket = known.unwrap_or_else(|| Bracket {
            low: 0.0,
            high: station.saturation(),
            steps: 0,
        });
        while !is_final(&bracket) {
            let middle = f64::midpoint(bracket.low, bracket.high);
            if station.holds(middle, &self.objectives) {
                bracket.low = middle;
            } else {
                bracket.high = middle;
            }
            bracket.steps += 1;
        }
        if self.known.len() >= MOST_SETS {
            self.known.clear();
        }
        self.known.insert(kinds, bracket);
        bracket
    }

    fn of(&mut self, kinds: &[(StepTimes, u32)]) -> Vec<(Arc<Kind>, f64)> {
        let mix = &self.mix;
        let known = &mut self.kinds;
        let kinds = kinds.iter().map(|&(times, count)| {
            let kind = known.entry(times).or_insert_with(|| Arc::new(Kind::new(&times, mix)));
            (Arc::clone(kind), f64::from(count))
        });
        kinds.collect()
    }
}
