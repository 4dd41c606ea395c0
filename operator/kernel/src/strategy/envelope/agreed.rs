//! Which purchases are made now: those that all plans of the last while agree on.

use super::known::Known;
use super::{Consumer, Situation, Supply, SupplyPlan};
use crate::strategy::Leg;
use crate::strategy::dwell::{self, Considered};

/// Whether more has arrived over the last half hour than all servers that are there or coming can finish: that more are needed is no matter of
/// chance then.
pub(super) fn drowns(situation: &Situation, pool: &Consumer, known: &Known) -> bool {
    let held = situation.supplies.iter().zip(&known.capacity);
    let capacity: f64 = held
        .map(|(supply, each)| each.unwrap_or(0.0) * supply.held.len() as f64)
        .sum();
    let lately = pool.past.history.lately(situation.now);
    lately.is_some_and(|work_per_s| work_per_s > capacity * pool.mix.work())
}

/// Leaves of the purchases from groups with long leases what all plans of the last while agree on. Groups stand in for each other: one that
/// has nothing to give does not make the next one wait anew.
pub(super) fn agree(
    situation: &Situation,
    drowning: bool,
    courses: &[Vec<Vec<Leg>>],
    supplies: &mut [SupplyPlan],
) -> Considered {
    let mut considered = situation.considered.clone();
    let patience = |supply: &Supply| dwell::patience(supply.minimum_lease);
    let longest = situation.supplies.iter().filter_map(patience).max();
    let patient = || situation.supplies.iter().map(|supply| patience(supply).is_some());
    let all: Vec<&Vec<Leg>> = courses
        .iter()
        .zip(patient())
        .filter(|(_, patient)| *patient)
        .flat_map(|(courses, _)| courses)
        .collect();
    let wanted = dwell::wanted(&all);
    let own = wanted.first().copied().unwrap_or(0);
    let agreed = considered.consider(situation.now, longest, wanted);
    let agreed = if drowning { own } else { agreed };
    let kept = situation
        .supplies
        .iter()
        .zip(courses)
        .zip(patient())
        .filter(|(_, patient)| *patient);
    let kept = kept.flat_map(|((supply, courses), _)| courses.iter().take(supply.held.len()));
    let kept = kept
        .filter(|legs| legs.first().is_some_and(|leg| leg.to_s > 0.0))
        .count();
    let mut left = usize::try_from(agreed).unwrap_or(usize::MAX).saturating_sub(kept);
    for (supply, _) in supplies.iter_mut().zip(patient()).filter(|(_, patient)| *patient) {
        supply.buyers.truncate(left);
        left -= supply.buyers.len();
    }
    considered
}
