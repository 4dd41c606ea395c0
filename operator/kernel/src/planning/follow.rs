//! What a pool adds by the strategic plan.
//!
//! What is there serves: a server that is paid for, or costs nothing, gets a replica of the pool it is planned for, and of any other if that
//! one does not need it. What has to be paid for is asked for as far as the plan says, at once: it was decided on forecasts, and waiting
//! for demand to show itself is what planning ahead is there to avoid. Beyond the plan servers are paid for only for `replicas.min`.
//! Spares for `surviveLossOf` are part of the plan.

use std::collections::BTreeMap;

use super::crew::{Crew, recallable};
use super::figures;
use super::grow::{Growth, shortage};
use super::guide::Guide;
use super::model::{Counts, Model, total, with};
use super::slots::{Slot, Source};
use super::stock::{Shelf, Stock};
use super::world::World;
use crate::names::GroupName;
use crate::reason::{Problem, Reason};
use crate::snapshot::Discipline;

/// What a pool adds now, out of `offers` in their order.
pub(crate) fn follow<'f>(
    plan: &'f Following<'f, '_>,
    offers: Vec<Slot>,
    unavailable: &BTreeMap<GroupName, Problem>,
) -> Growth {
    let mut follow = Follow {
        plan,
        offers,
        have: plan.crew.kept().clone(),
        growth: Growth::default(),
    };
    follow.there(Follow::is_planned, |follow, group| {
        let planned = plan.guide.replicas(group);
        let has = follow.has(group);
        format!("{planned} servers of {group} are planned for the pool, {has} serve it")
    });
    follow.there(Follow::is_spare, |_, group| {
        format!("a server of {group} is there, and costs the same if it serves")
    });
    follow.purchase(unavailable);
    follow.minimum(unavailable);
    follow.propose()
}

/// What a pool adds by the plan if that is nothing, whatever is offered; `None` if it may be something.
pub(crate) fn content(plan: &Following) -> Option<Growth> {
    let (crew, guide, options) = (plan.crew, plan.guide, plan.model.options);
    let have = crew.kept();
    let count = |counts: &Counts, group: &GroupName| counts.get(group).copied().unwrap_or(0);
    let wants = |(group, shelf): (&GroupName, &Shelf)| {
        let there = !(shelf.free.is_empty() && shelf.reversible.is_empty() && shelf.vacating.is_empty());
        let spare = shelf.free.len() > usize::try_from(count(&plan.promised, group)).unwrap_or(usize::MAX);
        let planned = || count(have, group) < guide.replicas(group);
        (there || shelf.coming > 0) && (spare || planned()) && options.satisfies(group)
    };
    let recalls = || crew.members.iter().any(|member| recallable(member, crew.pool));
    let has_room = total(have) < crew.pool.replicas.max;
    let takes = has_room && (recalls() || plan.stock.shelves.iter().any(wants));
    let asks = |name: &GroupName| {
        let group = plan.world.group(name);
        group.is_some_and(|(group, _)| guide.purchases(name, group, plan.stock.shelves.get(name)) > 0)
    };
    let lacks = total(have) < crew.pool.replicas.min;
    (!takes && !lacks && !guide.planned.replicas.keys().any(asks)).then(Growth::default)
}

/// Everything that a pool which follows the plan looks at.
pub(crate) struct Following<'f, 'a> {
    pub(crate) world: &'f World<'a>,
    pub(crate) crew: &'f Crew<'a>,
    pub(crate) model: &'f Model<'f, 'a>,
    pub(crate) guide: &'f Guide<'a>,
    pub(crate) stock: &'f Stock<'a>,
    /// Servers of each group that are planned for other pools and that those do not have yet.
    pub(crate) promised: Counts,
}

struct Follow<'f, 'a> {
    plan: &'f Following<'f, 'a>,
    /// What is left.
    offers: Vec<Slot>,
    have: Counts,
    growth: Growth,
}

impl Follow<'_, '_> {
    fn has(&self, group: &GroupName) -> u32 {
        self.have.get(group).copied().unwrap_or(0)
    }

    fn has_room(&self) -> bool {
        total(&self.have) < self.plan.crew.pool.replicas.max
    }

    fn take(&mut self, index: usize, reason: Reason, message: String) {
        let slot = self.offers.remove(index);
        self.have = with(&self.have, &slot.group);
        self.growth.slots.push((slot, reason, message));
    }

    /// Takes servers that are there or coming, as far as `wants` them.
    fn there(&mut self, wants: fn(&Self, &Slot) -> bool, message: impl Fn(&Self, &GroupName) -> String) {
        let mut index = 0;
        while let Some(slot) = self.offers.get(index) {
            if !slot.is_purchase() && !self.is_due(slot) && self.has_room() && wants(self, slot) {
                let message = message(self, &slot.group);
                self.take(index, Reason::PlannedAhead, message);
            } else {
                index += 1;
            }
        }
    }

    fn is_due(&self, slot: &Slot) -> bool {
        let guide = self.plan.guide;
        match &slot.source {
            Source::Free(server) | Source::Reclaim(server) | Source::Vacating(server) | Source::Recall(_, server) => {
                guide.is_due(&slot.group, server)
            }
            Source::Coming | Source::Purchase => false,
        }
    }

    fn is_planned(&self, slot: &Slot) -> bool {
        self.has(&slot.group) < self.plan.guide.replicas(&slot.group)
    }

    /// It is paid for in any case, and nobody is short of it.
    fn is_spare(&self, slot: &Slot) -> bool {
        let Slot { group, source, .. } = slot;
        let same = self.offers.iter().filter(|other| other.group == *group);
        let free = same.filter(|other| matches!(other.source, Source::Free(_))).count();
        let promised = self.plan.promised.get(group).copied().unwrap_or(0);
        let unclaimed = match source {
            Source::Free(_) => free > usize::try_from(promised).unwrap_or(usize::MAX),
            Source::Recall(..) => promised == 0,
            Source::Reclaim(_) | Source::Vacating(_) | Source::Coming | Source::Purchase => false,
        };
        // Where requests are sent to all servers alike, the slowest one sets the pace.
        let weighted = self.plan.crew.pool.discipline == Discipline::Weighted;
        unclaimed && !(weighted && self.plan.model.harms(&self.have, group))
    }

    /// Asks for servers by the plan.
    fn purchase(&mut self, unavailable: &BTreeMap<GroupName, Problem>) {
        let plan = self.plan;
        for name in plan.guide.planned.replicas.keys() {
            let Some((group, _)) = plan.world.group(name) else {
                continue;
            };
            let wanted = plan.guide.purchases(name, group, plan.stock.shelves.get(name));
            if wanted == 0 {
                continue;
            }
            let message = self.forecast(name, wanted);
            for _ in 0..wanted {
                let offered = |slot: &Slot| slot.is_purchase() && slot.group == *name;
                let offer = self.offers.iter().position(offered).filter(|_| self.has_room());
                if let Some(index) = offer {
                    self.take(index, Reason::PlannedAhead, message.clone());
                } else {
                    self.growth.short = unavailable.get(name).map(|problem| {
                        let message = format!("{message}; {}", problem.message);
                        Problem::new(problem.reason, message)
                    });
                    break;
                }
            }
        }
    }

    /// Why servers of a group are asked for.
    fn forecast(&self, name: &GroupName, wanted: u32) -> String {
        let guide = self.plan.guide;
        let slots = guide.planned.forecast.iter().flat_map(|forecast| &forecast.slots);
        let peak = slots
            .map(|slot| (slot.requests.median().as_per_second(), slot.slot.start))
            .max_by(|(left, left_at), (right, right_at)| left.total_cmp(right).then(right_at.cmp(left_at)));
        let expected = peak.map_or(String::new(), |(peak, at)| {
            format!("{} requests/s are expected at {at}, ", figures::two(peak))
        });
        format!(
            "{wanted} more of {name} are planned: {expected}{} are sustainable on {}",
            figures::two(guide.sustainable(&self.have).as_per_second()),
            figures::replicas(&self.have),
        )
    }

    /// What the spec asks for, whatever was planned: what is there before what has to be paid for.
    fn minimum(&mut self, unavailable: &BTreeMap<GroupName, Problem>) {
        let crew = self.plan.crew;
        let minimum = crew.pool.replicas.min;
        let message = format!("{} of at least {minimum}", figures::replicas(crew.kept()));
        while total(&self.have) < minimum {
            let there = self.offers.iter().position(|slot| !slot.is_purchase());
            let Some(index) = there.or(if self.offers.is_empty() { None } else { Some(0) }) else {
                self.growth.short = Some(shortage(&message, self.plan.model, unavailable));
                return;
            };
            self.take(index, Reason::BelowMinimum, message.clone());
        }
    }

    fn propose(mut self) -> Growth {
        // What may only be proposed comes last.
        self.growth.slots.sort_by_key(|(slot, _, _)| slot.verdict);
        let proposed = self.growth.slots.len() - self.growth.taken().count();
        if proposed > 0 {
            let message = self.growth.slots.last().map_or("", |(_, _, message)| message);
            self.growth.short = Some(Problem::new(
                Reason::AwaitingApproval,
                format!("{message}; {proposed} servers are proposed and not asked for"),
            ));
        }
        self.growth
    }
}
