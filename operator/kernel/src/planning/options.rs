//! Where a pool may run, in the order in which its placement fills it, what that costs, and why not elsewhere.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::world::{Ground, World, place};
use crate::capacity::Trust;
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
    pub(crate) performance: Arc<Performance>,
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
    /// What was found out about its figures.
    pub(crate) trust: Trust,
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

/// Whether the paid term of a server runs on at `at`.
pub(crate) fn is_paid(server: &Server, at: Timestamp) -> bool {
    server.lease.is_some_and(|lease| lease.minimum_until > at)
}

/// All groups, as one pool sees them: each is looked at when it is asked for.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// What it is judged by.
    pub(crate) feasibility: Feasibility<'a>,
    pool: &'a Pool,
    grounds: Rc<[Ground<'a>]>,
    /// The first groups that were looked at, by where they are among `grounds`: most pools ask for a few, again and again.
    few: [OnceCell<(usize, Box<Seen<'a>>)>; FEW],
    /// One for each of `grounds`, of which those are used that are not among the few. Made when the few are not enough.
    many: OnceCell<Vec<OnceCell<Box<Seen<'a>>>>>,
    now: Timestamp,
}

/// See [`Options::few`].
const FEW: usize = 12;

/// A group, as the pool sees it.
#[derive(Debug)]
struct Seen<'a> {
    /// Its figures for the pool, if they are known: the pool may run there, or may run there still.
    choice: Option<Choice<'a>>,
    /// Why it does not satisfy the pool.
    refused: Option<Problem>,
}

/// A place in the pool's order: smaller is filled first and emptied last.
pub(crate) type Place = (i64, bool, Ownership, bool, i64, Money);

impl Seen<'_> {
    fn satisfies(&self) -> bool {
        self.choice.is_some() && self.refused.is_none()
    }
}

impl<'a> Options<'a> {
    pub(crate) fn of(world: &World<'a>, pool: &'a Pool) -> Self {
        let grounds = Rc::clone(world.grounds());
        Self {
            feasibility: Feasibility::of(pool, world.catalogue, world.now),
            pool,
            grounds,
            few: [const { OnceCell::new() }; FEW],
            many: OnceCell::new(),
            now: world.now,
        }
    }

    fn find(&self, group: &GroupName) -> Option<&Seen<'a>> {
        let few = self.few.iter().map_while(OnceCell::get);
        let is = |index: usize| self.grounds.get(index).is_some_and(|ground| ground.name.is(group));
        match few.filter(|(index, _)| is(*index)).map(|(_, seen)| &**seen).next() {
            Some(seen) => Some(seen),
            None => self.seen(place(&self.grounds, group)?),
        }
    }

    /// Looks at groups that will be asked for, by where they are among all.
    pub(crate) fn expect(&self, places: impl Iterator<Item = usize>) {
        places.for_each(|place| _ = self.seen(place));
    }

    /// What a group is for the pool; `None` if its figures are not known.
    pub(crate) fn choice(&self, group: &GroupName) -> Option<&Choice<'a>> {
        self.find(group)?.choice.as_ref()
    }

    /// All groups whose figures for the pool are known, by name: those that satisfy it, and those where it may run still.
    pub(crate) fn choices(&self) -> impl Iterator<Item = (&'a GroupName, &Choice<'a>)> {
        let all = self.grounds.iter().enumerate();
        all.filter_map(|(index, ground)| Some((ground.name, self.seen(index)?.choice.as_ref()?)))
    }

    /// Whether the pool may run in a group.
    pub(crate) fn satisfies(&self, group: &GroupName) -> bool {
        self.find(group).is_some_and(Seen::satisfies)
    }

    /// Whether the pool may run anywhere; `likely` is looked at first.
    pub(crate) fn any_satisfies<'n>(&self, likely: impl IntoIterator<Item = &'n GroupName>) -> bool {
        let mut all = (0..self.grounds.len()).filter_map(|index| self.seen(index));
        likely.into_iter().any(|group| self.satisfies(group)) || all.any(Seen::satisfies)
    }

    /// Why an objective may be out of reach in some group, by lengths that nobody has measured lately.
    pub(crate) fn doubt(&self) -> Option<&Problem> {
        let all = self.grounds.iter().enumerate();
        let mut doubtful = all.filter(|(_, ground)| self.feasibility.is_out_of_reach(ground.group));
        doubtful.find_map(|(index, _)| self.seen(index)?.choice.as_ref()?.doubt.as_ref())
    }

    /// When places are judged for.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    fn seen(&self, index: usize) -> Option<&Seen<'a>> {
        let ground = self.grounds.get(index)?;
        for cell in &self.few {
            let (known, seen) = cell.get_or_init(|| (index, Box::new(self.look(ground))));
            if *known == index {
                return Some(seen);
            }
        }
        let many = || self.grounds.iter().map(|_| OnceCell::new()).collect();
        let cell = self.many.get_or_init(many).get(index)?;
        Some(cell.get_or_init(|| Box::new(self.look(ground))))
    }

    fn look(&self, ground: &Ground<'a>) -> Seen<'a> {
        let (pool, group) = (self.pool, ground.group);
        let Some(site) = ground.site else {
            return Seen {
                choice: None,
                refused: None,
            };
        };
        let (performance, refused) = match self.feasibility.find(ground.name, group, site) {
            Ok(performance) => (Ok(performance), None),
            // Lengths, labels and specs change. What serves there already keeps its figures until it has moved.
            Err(problem) => (self.feasibility.figures(group), Some(problem)),
        };
        match performance {
            Ok(performance) => {
                let automatic = pool.mode == Mode::Auto && group.mode == Mode::Auto;
                let choice = Choice {
                    doubt: self.feasibility.doubt(group, &performance),
                    trust: self.feasibility.trust(group),
                    performance,
                    group,
                    site: &group.site,
                    ownership: site.ownership,
                    busy: energy(site, group.power.busy_watts),
                    idle: energy(site, group.power.idle_watts),
                    routable: is_routable(pool, &group.site),
                    open: refused.is_none() && (ground.closed.is_none() || ground.expects),
                    closed: ground.closed.clone(),
                    verdict: if automatic { Verdict::Act } else { Verdict::Propose },
                };
                Seen {
                    choice: Some(choice),
                    refused,
                }
            }
            Err(problem) => Seen {
                choice: None,
                refused: refused.or(Some(problem)),
            },
        }
    }

    /// Where a server of `group` comes in the order; one that has to be asked for, if there is none yet.
    ///
    /// What nobody has to pay for any more comes before what costs money from now on: a lease that is paid is used before
    /// another server is bought, and a server that is billed by the hour is left before one that is not.
    pub(crate) fn place(&self, group: &GroupName, server: Option<&Server>) -> Place {
        match self.choice(group) {
            Some(choice) => self.place_of(choice, server),
            None => (i64::MAX, true, Ownership::Hosted, true, i64::MAX, Money::ZERO),
        }
    }

    /// The same, of a choice.
    pub(crate) fn place_of(&self, choice: &Choice, server: Option<&Server>) -> Place {
        let cost = choice.marginal(server, self.now).as_micros();
        let pays = choice.price(server, self.now) > Money::ZERO;
        let purchase = server.is_none();
        // Of two that cost nothing now, the one whose paid term will end is left first.
        let later = choice.group.pricing.hourly;
        match self.pool.placement.order {
            PlacementOrder::OwnedFirst => (0, pays, choice.ownership, purchase, cost, later),
            PlacementOrder::Cheapest => (cost, pays, choice.ownership, purchase, 0, later),
        }
    }

    /// Groups that do not satisfy the pool, and why.
    pub(crate) fn unsatisfying(&self) -> impl Iterator<Item = Rejected> {
        self.grounds.iter().enumerate().filter_map(|(index, ground)| {
            let problem = self.seen(index)?.refused.as_ref()?;
            Some(Rejected {
                alternative: ground.name.to_string(),
                reason: problem.reason,
                message: problem.message.clone(),
                hourly: None,
                cost: None,
            })
        })
    }

    /// Why other groups than `chosen` were not: those that do not satisfy the pool, and those that come later.
    pub(crate) fn alternatives(&self, chosen: &GroupName, unavailable: &BTreeMap<GroupName, Problem>) -> Vec<Rejected> {
        let others = self.grounds.iter().enumerate().filter_map(|(index, ground)| {
            let seen = self.seen(index).filter(|seen| seen.satisfies())?;
            let choice = seen.choice.as_ref().filter(|_| ground.name != chosen)?;
            Some((self.place_of(choice, None), ground.name, choice))
        });
        let mut others: Vec<_> = others.collect();
        others.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        let later = others.into_iter().map(|(_, name, choice)| {
            let known = unavailable.get(name).or(choice.closed.as_ref());
            let problem = known.cloned().unwrap_or_else(|| {
                Problem::new(
                    Reason::LaterInOrder,
                    format!("{name} comes after {chosen} in the placement order"),
                )
            });
            Rejected {
                alternative: name.to_string(),
                reason: problem.reason,
                message: problem.message,
                hourly: Some(choice.hourly()),
                cost: None,
            }
        });
        later.chain(self.unsatisfying()).take(Decision::MAX_REJECTED).collect()
    }
}

/// What `watts` at the machine cost per hour at a site.
pub(crate) fn energy(site: &Site, watts: f64) -> Money {
    Money::from_f64(site.energy.price_per_kwh.as_f64() * watts / 1_000.0 * site.energy.pue.max(1.0))
}
