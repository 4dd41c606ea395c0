//! Where a pool may run, in the order in which its placement fills it, and why not elsewhere.

use std::collections::BTreeMap;

use super::world::World;
use crate::feasibility::check;
use crate::names::{GroupName, SiteName};
use crate::performance::{Performance, performance};
use crate::plan::{Decision, Rejected};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, Ownership, PlacementOrder, Pool, Site};
use crate::units::Money;

/// A group that a pool may run in.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) performance: Performance,
    pub(crate) group: &'a Group,
    pub(crate) site: &'a SiteName,
    pub(crate) ownership: Ownership,
    /// Price of one more server's hour, energy included.
    pub(crate) hourly: Money,
    /// Price of another hour of a server that is there anyway.
    pub(crate) marginal: Money,
    /// New replicas may be placed here, now or as soon as the group can be looked at again.
    pub(crate) open: bool,
    /// Why nothing can be placed here now.
    pub(crate) closed: Option<Problem>,
}

/// All groups, as one pool sees them.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// Groups whose figures for the pool are known: those that satisfy it, and those in `refused` where it may run still.
    pub(crate) choices: BTreeMap<&'a GroupName, Choice<'a>>,
    /// Groups that do not satisfy the pool.
    pub(crate) refused: BTreeMap<&'a GroupName, Problem>,
    order: PlacementOrder,
}

/// The place of a choice in the pool's order: smaller is filled first and emptied last.
pub(crate) type Place = (i64, Ownership, bool, i64);

impl<'a> Options<'a> {
    pub(crate) fn of(world: &World<'a>, pool: &Pool) -> Self {
        let mut choices = BTreeMap::new();
        let mut refused = BTreeMap::new();
        for (name, group) in &world.snapshot.groups {
            let Some(site) = world.snapshot.sites.get(&group.site) else {
                continue;
            };
            let (performance, satisfied) = match check(pool, group, site) {
                Ok(performance) => (Ok(performance), true),
                // Lengths, labels and specs change. What serves there already keeps its figures until it has moved.
                Err(problem) => {
                    refused.insert(name, problem);
                    (performance(&pool.model, &group.machine, &pool.performance), false)
                }
            };
            match performance {
                Ok(performance) => {
                    let energy = energy(site, group.power.busy_watts);
                    let sunk = if group.provider.always_on {
                        energy - self::energy(site, group.power.idle_watts)
                    } else {
                        energy
                    };
                    let closed = world.takes_no_work(name);
                    let choice = Choice {
                        performance,
                        group,
                        site: &group.site,
                        ownership: site.ownership,
                        hourly: group.pricing.hourly + energy,
                        marginal: sunk,
                        open: satisfied && (closed.is_none() || world.expects(name)),
                        closed,
                    };
                    choices.insert(name, choice);
                }
                Err(problem) => {
                    refused.entry(name).or_insert(problem);
                }
            }
        }
        Self {
            choices,
            refused,
            order: pool.placement.order,
        }
    }

    /// Whether the pool may run in a group.
    pub(crate) fn satisfies(&self, group: &GroupName) -> bool {
        self.choices.contains_key(group) && !self.refused.contains_key(group)
    }

    /// Where a group comes in the order; `purchase` if a server of it would have to be paid for.
    pub(crate) fn place(&self, group: &GroupName, purchase: bool) -> Place {
        let Some(choice) = self.choices.get(group) else {
            return (i64::MAX, Ownership::Hosted, true, i64::MAX);
        };
        let price = if purchase { choice.hourly } else { choice.marginal };
        match self.order {
            PlacementOrder::OwnedFirst => (0, choice.ownership, purchase, choice.hourly.as_micros()),
            PlacementOrder::Cheapest => (price.as_micros(), choice.ownership, purchase, 0),
        }
    }

    /// Why other groups than `chosen` were not: those that do not satisfy the pool, and those that come later.
    pub(crate) fn alternatives(&self, chosen: &GroupName, unavailable: &BTreeMap<GroupName, Problem>) -> Vec<Rejected> {
        let later = self
            .choices
            .iter()
            .filter(|(name, _)| **name != chosen && !self.refused.contains_key(**name))
            .map(|(name, choice)| {
                let known = unavailable.get(*name).or(choice.closed.as_ref());
                let problem = known.cloned().unwrap_or_else(|| {
                    Problem::new(
                        Reason::LaterInOrder,
                        format!("{name} comes after {chosen} in the placement order"),
                    )
                });
                (self.place(name, true), *name, problem, Some(choice.hourly))
            });
        let mut all: Vec<_> = later.collect();
        all.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        let refused = self.refused.iter().map(|(name, problem)| Rejected {
            alternative: name.to_string(),
            reason: problem.reason,
            message: problem.message.clone(),
            hourly: None,
        });
        all.into_iter()
            .map(|(_, name, problem, hourly)| Rejected {
                alternative: name.to_string(),
                reason: problem.reason,
                message: problem.message,
                hourly,
            })
            .chain(refused)
            .take(Decision::MAX_REJECTED)
            .collect()
    }
}

/// What `watts` at the machine cost per hour at a site.
pub(crate) fn energy(site: &Site, watts: f64) -> Money {
    Money::from_f64(site.energy.price_per_kwh.as_f64() * watts / 1_000.0 * site.energy.pue.max(1.0))
}
