//! Curves that were measured before.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::measured::Measured;
use super::{Curve, Effort, Kind, trial};
use crate::capacity::{Servers, kinds};
use crate::engine::StepTimes;
use crate::snapshot::{Discipline, LengthMix, Objective};

/// Sets of objectives that are kept per measurement: a pool has one, and another while it is edited.
const OBJECTIVES_KEPT: usize = 4;

/// A set is estimated from one whose shares of saturation differ by no more than this.
const SIMILAR: f64 = 0.15;

/// A set with only a smaller, or only a larger one known is estimated from it up to this ratio of their saturations.
const NEAR: f64 = 1.35;

type Classes = Arc<[(u32, u32)]>;

/// What a pool asks of servers, ready for look-ups.
#[derive(Clone, Debug)]
pub struct Traffic {
    classes: Classes,
    discipline: Discipline,
    objectives: Vec<Objective>,
}

impl Traffic {
    /// Of one pool. The mix is rounded, see [`LengthMix::rounded`]: mixes that round to the same share their curves.
    pub fn new(mix: &LengthMix, discipline: Discipline, objectives: &[Objective]) -> Self {
        Self {
            classes: mix.rounded().classes.into(),
            discipline,
            objectives: objectives.to_vec(),
        }
    }

    fn mix(&self) -> LengthMix {
        LengthMix {
            classes: self.classes.to_vec(),
        }
    }
}

/// What a measurement depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    discipline: Discipline,
    kinds: Vec<Kind>,
    classes: Classes,
}

#[derive(Clone, Debug)]
struct Entry {
    curves: Vec<Arc<Curve>>,
    /// Number of the look-up that used it last.
    used: u64,
}

/// Measures each set once, and keeps a bounded number of curves.
///
/// # Guarantees
/// [`Curves::curve`] gives the same bits whether it has to measure or not, whatever was asked before, in whatever order the
/// servers are listed. When it is full, what was not asked for the longest time goes.
#[derive(Clone, Debug)]
pub struct Curves {
    effort: Effort,
    most: usize,
    entries: BTreeMap<Key, Entry>,
    saturations: BTreeMap<(StepTimes, Classes), f64>,
    lookups: u64,
    simulations: u64,
}

impl Curves {
    /// Keeps at most `most` curves, at least one; about 5 kB each.
    pub fn new(effort: Effort, most: usize) -> Self {
        Self {
            effort,
            most: most.max(1),
            entries: BTreeMap::new(),
            saturations: BTreeMap::new(),
            lookups: 0,
            simulations: 0,
        }
    }

    /// How often a set was simulated so far.
    pub fn simulations(&self) -> u64 {
        self.simulations
    }

    /// The curve of these servers; measures it if it is not known.
    pub fn curve(&mut self, servers: &[Servers], traffic: &Traffic) -> Arc<Curve> {
        let kinds = self.canonical(servers, traffic);
        if let Some(known) = self.find(&kinds, traffic) {
            return known;
        }
        let measured = self.measure(&kinds, traffic);
        let curve = Arc::new(Curve::new(measured, traffic.objectives.clone(), false));
        self.keep(&kinds, traffic, &curve);
        curve
    }

    /// The curve of these servers, if it was measured before.
    pub fn known(&mut self, servers: &[Servers], traffic: &Traffic) -> Option<Arc<Curve>> {
        let kinds = self.canonical(servers, traffic);
        self.find(&kinds, traffic)
    }

    /// An estimate for these servers from what is known of similar sets: the same kinds in similar proportions, one smaller and
    /// one larger, or one nearly as large. `None` if there are none. What it says depends on what was asked before; use it to
    /// compare many sets, and [`Self::curve`] for the one that is chosen.
    pub fn estimate(&mut self, servers: &[Servers], traffic: &Traffic) -> Option<Curve> {
        let kinds = self.canonical(servers, traffic);
        let shares = shares(&kinds);
        let saturation: f64 = kinds.iter().map(|(kind, each)| f64::from(kind.1) * each).sum();
        let (mut below, mut above): (Option<&Measured>, Option<&Measured>) = (None, None);
        for (key, entry) in &self.entries {
            let same = key.discipline == traffic.discipline
                && key.classes == traffic.classes
                && key.kinds.len() == kinds.len()
                && key.kinds.iter().zip(&kinds).all(|(known, (kind, _))| known.0 == kind.0);
            let Some(known) = entry.curves.first().filter(|_| same) else {
                continue;
            };
            let those = key.kinds.iter().zip(&kinds).map(|(known, (_, each))| (*known, *each));
            let those = self::shares(&those.collect::<Vec<_>>());
            if shares
                .iter()
                .zip(&those)
                .any(|(share, known)| (share - known).abs() > SIMILAR)
            {
                continue;
            }
            let known = &known.measured;
            if known.saturation <= saturation && below.is_none_or(|best| best.saturation < known.saturation) {
                below = Some(known);
            }
            if known.saturation >= saturation && above.is_none_or(|best| best.saturation > known.saturation) {
                above = Some(known);
            }
        }
        let measured = match (below, above) {
            (Some(low), Some(high)) => {
                let far = libm::log(high.saturation / low.saturation);
                let weight = if far > 0.0 {
                    libm::log(saturation / low.saturation) / far
                } else {
                    0.0
                };
                low.between(high, weight, saturation)
            }
            (Some(one), None) | (None, Some(one)) => {
                let ratio = (one.saturation / saturation).max(saturation / one.saturation);
                (ratio <= NEAR).then(|| one.between(one, 0.0, saturation))?
            }
            (None, None) => return None,
        };
        Some(Curve::new(measured, traffic.objectives.clone(), true))
    }

    /// Kinds in canonical order, each once, none empty: those with the highest saturation first, because at equal work the router
    /// takes the first server.
    fn canonical(&mut self, servers: &[Servers], traffic: &Traffic) -> Vec<(Kind, f64)> {
        let kinds = kinds(servers).into_iter();
        let mut each: Vec<(Kind, f64)> = kinds.map(|kind| (kind, self.saturation(kind.0, traffic))).collect();
        each.retain(|(_, saturation)| *saturation > 0.0);
        each.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| Reverse(a.0).cmp(&Reverse(b.0))));
        each
    }

    fn saturation(&mut self, times: StepTimes, traffic: &Traffic) -> f64 {
        let key = (times, traffic.classes.clone());
        if let Some(known) = self.saturations.get(&key) {
            return *known;
        }
        if self.saturations.len() >= self.most {
            self.saturations.clear();
        }
        let saturation = trial::saturation(&times, &traffic.mix());
        self.saturations.insert(key, saturation);
        saturation
    }

    fn measure(&mut self, kinds: &[(Kind, f64)], traffic: &Traffic) -> Measured {
        let single = kinds.len() == 1 && kinds[0].0.1 == 1;
        if kinds.is_empty() {
            Measured::none()
        } else if traffic.discipline == Discipline::LeastWork || single {
            self.simulations += 1;
            let (kinds, saturations): (Vec<Kind>, Vec<f64>) = kinds.iter().copied().unzip();
            Measured::simulate(&kinds, &saturations, &traffic.mix(), self.effort)
        } else {
            let each: Vec<(Arc<Curve>, u32)> = kinds
                .iter()
                .map(|&((times, count), saturation)| (self.single(((times, 1), saturation), traffic), count))
                .collect();
            let each: Vec<(&Measured, u32)> = each.iter().map(|(curve, count)| (&curve.measured, *count)).collect();
            Measured::unpooled(&each)
        }
    }

    /// The curve of one server.
    fn single(&mut self, kind: (Kind, f64), traffic: &Traffic) -> Arc<Curve> {
        if let Some(known) = self.find(&[kind], traffic) {
            return known;
        }
        let measured = self.measure(&[kind], traffic);
        let curve = Arc::new(Curve::new(measured, traffic.objectives.clone(), false));
        self.keep(&[kind], traffic, &curve);
        curve
    }

    fn key(kinds: &[(Kind, f64)], traffic: &Traffic) -> Key {
        // One server is the same under any discipline.
        let single = kinds.len() == 1 && kinds[0].0.1 == 1;
        Key {
            discipline: if single {
                Discipline::LeastWork
            } else {
                traffic.discipline
            },
            kinds: kinds.iter().map(|(kind, _)| *kind).collect(),
            classes: traffic.classes.clone(),
        }
    }

    fn find(&mut self, kinds: &[(Kind, f64)], traffic: &Traffic) -> Option<Arc<Curve>> {
        self.lookups += 1;
        let entry = self.entries.get_mut(&Self::key(kinds, traffic))?;
        entry.used = self.lookups;
        let known = entry.curves.iter().find(|curve| curve.objectives == traffic.objectives);
        if let Some(known) = known {
            return Some(known.clone());
        }
        // Measured, with other objectives.
        let measured = entry.curves.first()?.measured.clone();
        let curve = Arc::new(Curve::new(measured, traffic.objectives.clone(), false));
        entry.curves.truncate(OBJECTIVES_KEPT - 1);
        entry.curves.push(curve.clone());
        Some(curve)
    }

    fn keep(&mut self, kinds: &[(Kind, f64)], traffic: &Traffic, curve: &Arc<Curve>) {
        while self.entries.len() >= self.most {
            let oldest = self
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.entries.remove(&oldest);
        }
        let entry = Entry {
            curves: vec![curve.clone()],
            used: self.lookups,
        };
        self.entries.insert(Self::key(kinds, traffic), entry);
    }
}

/// Each kind's share of the saturation of all.
fn shares(kinds: &[(Kind, f64)]) -> Vec<f64> {
    let all: f64 = kinds.iter().map(|(kind, each)| f64::from(kind.1) * each).sum();
    kinds
        .iter()
        .map(|(kind, each)| f64::from(kind.1) * each / all.max(f64::MIN_POSITIVE))
        .collect()
}
