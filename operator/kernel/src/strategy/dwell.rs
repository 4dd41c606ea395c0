//! How long a purchase has to be wanted before it is made.
//!
//! A lease of a day cannot be taken back. Plans are made anew every few minutes from demand that bursts and budgets that are burnt by chance, and want
//! one server more now and one less then: to buy whenever a plan wants to is to hold the most that any of a day's plans wanted. So what is bought is
//! what *all* plans of the last while wanted to have by now. A purchase that was seen coming is not delayed by that, because the plans before it wanted
//! it for now; one that comes as a surprise waits until it has proved itself. This is the value of waiting of investments that cannot be undone (Dixit and
//! Pindyck, *Investment under Uncertainty*, 1994), in its simplest form.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Leg;
use crate::time::{Span, Timestamp};

/// A purchase is wanted for this part of its minimum lease before it is made: for a day's lease an hour.
const PART: u64 = 24;
/// A lease that asks for less patience than this asks for none.
const LEAST: Span = Span::from_minutes(5);
/// And none asks for more.
const MOST: Span = Span::from_hours(1);
/// What a plan wants is noted for every so many minutes ahead.
const STEP: Span = Span::from_minutes(5);
/// So many times.
const STEPS: u64 = MOST.as_millis() / STEP.as_millis();

/// What the last plans wanted of groups with long leases, oldest first. Bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered(VecDeque<Wanted>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    made_at: Timestamp,
    /// Servers paid for then, and after each further [`STEP`].
    servers: Vec<u32>,
}

/// Servers that are paid for now and after each further step, as planned.
pub(super) fn wanted(courses: &[&Vec<Leg>]) -> Vec<u32> {
    let at = |step: u64| {
        let at_s = (STEP * step).as_secs_f64();
        let paid = |legs: &&&Vec<Leg>| legs.iter().any(|leg| leg.from_s <= at_s && at_s < leg.to_s);
        u32::try_from(courses.iter().filter(paid).count()).unwrap_or(u32::MAX)
    };
    (0..=STEPS).map(at).collect()
}

/// How long a purchase with such a lease has to be wanted; `None` if it need not be.
pub(super) fn patience(minimum_lease: Span) -> Option<Span> {
    let patience = Span::from_millis(minimum_lease.as_millis() / PART).min(MOST);
    (patience >= LEAST).then_some(patience)
}

/// Whether a lease is not to be taken for a short while.
pub(crate) fn is_long(minimum_lease: Span) -> bool {
    patience(minimum_lease).is_some()
}

impl Considered {
    /// Adds what a plan made `now` wants; returns how many servers all plans of the time of `patience` wanted to have by now.
    pub(super) fn consider(&mut self, now: Timestamp, patience: Option<Span>, servers: Vec<u32>) -> u32 {
        let own = servers.first().copied().unwrap_or(0);
        let Some(patience) = patience else {
            self.0.clear();
            return own;
        };
        // A clock that was set back proves nothing.
        self.0
            .retain(|wanted| wanted.made_at < now && now.since(wanted.made_at) <= patience);
        let agreed = self.0.iter().filter_map(|wanted| wanted.by(now)).fold(own, u32::min);
        match self.0.back_mut() {
            // Plans that follow each other closely count as one, the most careful of them.
            Some(last) if now.since(last.made_at) < STEP => {
                for (last, servers) in last.servers.iter_mut().zip(servers) {
                    *last = servers.min(*last);
                }
            }
            _ => self.0.push_back(Wanted { made_at: now, servers }),
        }
        agreed
    }
}

impl Wanted {
    /// What it wanted to have by `at`.
    fn by(&self, at: Timestamp) -> Option<u32> {
        let steps = at.since(self.made_at).as_millis() / STEP.as_millis();
        self.servers.get(usize::try_from(steps).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Span = Span::from_hours(24);

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(0) + Span::from_minutes(minutes)
    }

    /// Plans of every five minutes, each wanting so many for all of the next hour; what is agreed after each.
    fn agreed(plans: &[u32], lease: Span) -> Vec<u32> {
        let mut considered = Considered::default();
        (0..)
            .zip(plans)
            .map(|(index, &servers)| considered.consider(at(5 * index), patience(lease), vec![servers; 13]))
            .collect()
    }

    #[test]
    fn a_lease_of_a_day_that_comes_as_a_surprise_is_wanted_for_an_hour_first() {
        let mut plans = vec![2; 4];
        plans.extend([5; 16]);
        let agreed = agreed(&plans, DAY);
        assert_eq!(agreed[4..16], [2; 12], "not yet");
        assert_eq!(agreed.last(), Some(&5));
    }

    #[test]
    fn what_only_some_plans_want_is_not_bought() {
        let flickering: Vec<u32> = (0..40).map(|index| if index % 3 == 0 { 3 } else { 5 }).collect();
        assert!(
            agreed(&flickering, DAY)
                .iter()
                .all(|&servers| servers <= 3 || servers == 5)
        );
        assert_eq!(agreed(&flickering, DAY)[15..], vec![3; 25]);
    }

    #[test]
    fn what_was_seen_coming_is_not_delayed() {
        let mut considered = Considered::default();
        // All plans want three servers from the 60th minute on.
        let plan = |made: u64| (0..=12).map(|step| if made + 5 * step >= 60 { 3 } else { 0 }).collect();
        let agreed: Vec<u32> = (0..=12)
            .map(|index| considered.consider(at(5 * index), patience(DAY), plan(5 * index)))
            .collect();
        assert_eq!(agreed[..12], [0; 12]);
        assert_eq!(agreed[12], 3);
    }

    #[test]
    fn a_lease_of_an_hour_asks_for_no_patience_and_the_first_plan_of_all_for_none_either() {
        assert_eq!(agreed(&[0, 4], Span::from_hours(1)), [0, 4]);
        assert_eq!(agreed(&[4], DAY), [4]);
    }

    #[test]
    fn what_is_noted_stays_bounded() {
        let mut considered = Considered::default();
        for second in 0..100_000 {
            let now = Timestamp::from_millis(0) + Span::from_secs(second);
            considered.consider(now, patience(DAY), vec![1; 13]);
        }
        assert!(considered.0.len() <= 13, "{}", considered.0.len());
    }
}
