//! What sets of servers sustain for one pool's traffic, as far as it was asked before.
//!
//! # Guarantees
//! What is remembered changes no answer: the same bisection is carried on from where it was left.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Kinds;
use super::queue::{Kind, Station};
use crate::engine::StepTimes;
use crate::snapshot::{Discipline, LengthMix, Metric, Objective};
use crate::time::Span;
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
    known: BTreeMap<Kinds, Bracket>,
}

/// What an objective says of a request: metric, bits of the percentile, threshold.
fn promise(objective: &Objective) -> (Metric, u64, Span) {
    (
        objective.metric,
        objective.percentile.get().to_bits(),
        objective.threshold,
    )
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

    /// A number that is the same for the same traffic, and hardly ever for another.
    pub(crate) fn fingerprint(mix: &LengthMix, objectives: &[Objective], discipline: Discipline) -> u64 {
        let lengths = mix.classes.iter();
        let lengths = lengths.map(|(prompt, output)| u64::from(*prompt) << 32 | u64::from(*output));
        let promised = objectives.iter().flat_map(|objective| {
            let (metric, percentile, threshold) = promise(objective);
            [metric as u64, percentile, threshold.as_millis()]
        });
        // As in FNV-1a, by words in place of bytes; the shift brings high bits down.
        lengths.chain(promised).fold(discipline as u64, |hash, word| {
            let hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
            hash ^ hash >> 29
        })
    }

    /// Whether it is of this traffic.
    pub(crate) fn is_of(&self, mix: &LengthMix, objectives: &[Objective], discipline: Discipline) -> bool {
        self.discipline == discipline
            && self.mix == *mix
            && self.objectives.iter().map(promise).eq(objectives.iter().map(promise))
    }

    /// See [`super::sustainable`].
    pub(crate) fn sustainable(&mut self, kinds: Kinds) -> Rate {
        Rate::per_second(self.narrow(kinds, |_| false).low)
    }

    /// Whether `utilization` of what is [`Self::sustainable`] is at least `needed`, in requests/s: mostly known long before the rate itself is.
    pub(crate) fn carries(&mut self, kinds: Kinds, needed: f64, utilization: f64) -> bool {
        let decided = |bracket: &Bracket| bracket.low * utilization >= needed || bracket.high * utilization < needed;
        self.narrow(kinds, decided).low * utilization >= needed
    }

    /// Latencies at `rate`, see [`super::predict`].
    pub(crate) fn predict(&mut self, kinds: &Kinds, rate: Rate) -> Option<super::Prediction> {
        let kinds = self.of(kinds);
        Station::new(kinds, &self.mix, self.discipline).predict(rate.as_per_second())
    }

    /// Bisects until `enough` is known, or all there is to know.
    fn narrow(&mut self, kinds: Kinds, enough: impl Fn(&Bracket) -> bool) -> Bracket {
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
