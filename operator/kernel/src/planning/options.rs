//! Where a pool may run, in the order in which its placement fills it, what that costs, and why not elsewhere.

use std::collections::BTreeMap;

use super::world::World;
use crate::feasibility::{Feasibility, is_routable};
use crate::names::{GroupName, SiteName};
use crate::performance::Performance;
use crate::plan::{Decision, Rejected, Verdict};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, Mode, Ownership, PlacementOrder, Pool, Server, Site};
use crate::time::Timestamp;
use crate::units::Money;

/// A group that a pool may run in.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) performance: Performance,
    pub(crate) group: &'a Group,
    pub(crate) site: &'a SiteName,
    pub(crate) ownership: Ownership,
    /// Energy of an hour of work.
    busy: Money,
    /// Energy of an hour without.
    idle: Money,
    /// Requests get there.
    pub(crate) routable: bool,
    /// New replicas may be placed here, now or as soon as the group can be looked at again.
    pub(crate) open: bool,
    /// Why nothing can be placed here now.
    pub(crate) closed: Option<Problem>,
    /// Why its objectives may be out of reach, by lengths of requests that nobody has measured lately.
    pub(crate) doubt: Option<Problem>,
    /// Whether servers may be asked for, or only proposed.
    pub(crate) verdict: Verdict,
}

impl Choice<'_> {
    /// Price of one more server's hour, energy included.
    pub(crate) fn hourly(&self) -> Money {
        self.group.pricing.hourly + self.busy
    }

    /// What serving on `server` for an hour costs from `at` on, beyond what is paid or burnt in any case; of a server that
    /// has to be asked for, if there is none yet. The same figure is what leaving it saves.
    pub(crate) fn marginal(&self, server: Option<&Server>, at: Timestamp) -> Money {
        let price = self.price(server, at);
        match server {
            // It stays on whether it serves or not.
            Some(server) if self.group.provider.always_on || is_paid(server, at) => price + (self.busy - self.idle),
            Some(_) | None => price + self.busy,
        }
    }

    /// The part of it that goes to a lessor.
    fn price(&self, server: Option<&Server>, at: Timestamp) -> Money {
        let sunk = server.is_some_and(|server| self.group.provider.always_on || is_paid(server, at));
        if sunk { Money::ZERO } else { self.group.pricing.hourly }
    }
}

fn is_paid(server: &Server, at: Timestamp) -> bool {
    server.lease.is_some_and(|lease| lease.minimum_until > at)
}

/// All groups, as one pool sees them.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// Groups whose figures for the pool are known: those that satisfy it, and those in `refused` where it may run still.
    pub(crate) choices: BTreeMap<&'a GroupName, Choice<'a>>,
    /// Groups that do not satisfy the pool.
    pub(crate) refused: BTreeMap<&'a GroupName, Problem>,
    /// What it was judged by.
    pub(crate) feasibility: Feasibility<'a>,
    order: PlacementOrder,
    now: Timestamp,
}

/// A place in the pool's order: smaller is filled first and emptied last.
pub(crate) type Place = (i64, bool, Ownership, bool, i64, Money);

impl<'a> Options<'a> {
    pub(crate) fn of(world: &World<'a>, pool: &'a Pool) -> Self {
        let feasibility = Feasibility::of(pool, world.catalogue, world.now);
        let mut choices = BTreeMap::new();
        let mut refused = BTreeMap::new();
        for (name, group) in &world.snapshot.groups {
            let Some(site) = world.snapshot.sites.get(&group.site) else {
                continue;
            };
            let (performance, satisfied) = match feasibility.check(name, group, site) {
                Ok(performance) => (Ok(performance), true),
                // Lengths, labels and specs change. What serves there already keeps its figures until it has moved.
                Err(problem) => {
                    refused.insert(name, problem);
                    (feasibility.performance(group), false)
                }
            };
            match performance {
                Ok(performance) => {
                    let automatic = pool.mode == Mode::Auto && group.mode == Mode::Auto;
                    let closed = world.takes_no_work(name);
                    let choice = Choice {
                        doubt: feasibility.doubt(group, &performance),
                        performance,
                        group,
                        site: &group.site,
                        ownership: site.ownership,
                        busy: energy(site, group.power.busy_watts),
                        idle: energy(site, group.power.idle_watts),
                        routable: is_routable(pool, &group.site),
                        open: satisfied && (closed.is_none() || world.expects(name)),
                        closed,
                        verdict: if automatic { Verdict::Act } else { Verdict::Propose },
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
            feasibility,
            order: pool.placement.order,
            now: world.now,
        }
    }

    /// Whether the pool may run in a group.
    pub(crate) fn satisfies(&self, group: &GroupName) -> bool {
        self.choices.contains_key(group) && !self.refused.contains_key(group)
    }

    /// Where a server of `group` comes in the order; one that has to be asked for, if there is none yet.
    ///
    /// What nobody has to pay for any more comes before what costs money from now on: a lease that is paid is used before
    /// another server is bought, and a server that is billed by the hour is left before one that is not.
    pub(crate) fn place(&self, group: &GroupName, server: Option<&Server>) -> Place {
        let Some(choice) = self.choices.get(group) else {
            return (i64::MAX, true, Ownership::Hosted, true, i64::MAX, Money::ZERO);
        };
        let cost = choice.marginal(server, self.now).as_micros();
        let pays = choice.price(server, self.now) > Money::ZERO;
        let purchase = server.is_none();
        // Of two that cost nothing now, the one whose paid term will end is left first.
        let later = choice.group.pricing.hourly;
        match self.order {
            PlacementOrder::OwnedFirst => (0, pays, choice.ownership, purchase, cost, later),
            PlacementOrder::Cheapest => (cost, pays, choice.ownership, purchase, 0, later),
        }
    }

    /// Groups that do not satisfy the pool, and why.
    pub(crate) fn unsatisfying(&self) -> impl Iterator<Item = Rejected> {
        self.refused.iter().map(|(name, problem)| Rejected {
            alternative: name.to_string(),
            reason: problem.reason,
            message: problem.message.clone(),
            hourly: None,
            cost: None,
        })
    }

    /// Why other groups than `chosen` were not: those that do not satisfy the pool, and those that come later.
    pub(crate) fn alternatives(&self, chosen: &GroupName, unavailable: &BTreeMap<GroupName, Problem>) -> Vec<Rejected> {
        let later = self
            .choices
            .iter()
            .filter(|(name, _)| **name != chosen && self.satisfies(name))
            .map(|(name, choice)| {
                let known = unavailable.get(*name).or(choice.closed.as_ref());
                let problem = known.cloned().unwrap_or_else(|| {
                    Problem::new(
                        Reason::LaterInOrder,
                        format!("{name} comes after {chosen} in the placement order"),
                    )
                });
                (self.place(name, None), *name, problem, Some(choice.hourly()))
            });
        let mut all: Vec<_> = later.collect();
        all.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        all.into_iter()
            .map(|(_, name, problem, hourly)| Rejected {
                alternative: name.to_string(),
                reason: problem.reason,
                message: problem.message,
                hourly,
                cost: None,
            })
            .chain(self.unsatisfying())
            .take(Decision::MAX_REJECTED)
            .collect()
    }
}

/// What `watts` at the machine cost per hour at a site.
pub(crate) fn energy(site: &Site, watts: f64) -> Money {
    Money::from_f64(site.energy.price_per_kwh.as_f64() * watts / 1_000.0 * site.energy.pue.max(1.0))
}
