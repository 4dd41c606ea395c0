//! When a pool would do with less, and what goes first.
//!
//! Contraction is the reverse of growth: what costs most from now on goes first. One step at a time, only on measurements that
//! are there, and only if the rest carries the demand through the loss that the pool wants to survive. What stays although less
//! would do says why.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::crew::{Crew, Member, Standing, count, victim_order};
use super::demand::{Need, strain};
use super::evidence::promise_too_much;
use super::figures;
use super::hold::{not_yet, others};
use super::model::{Counts, Lack, Model, total, without};
use super::options::Options;
use super::policy::{COMFORT, DRAIN_ESTIMATE, NO_COMFORT, SHRINK_UTILIZATION};
use super::returning::returning;
use super::slots::Slot;
use super::world::World;
use crate::names::{GroupName, ReplicaId};
use crate::plan::Rejected;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Ownership, Survive};
use crate::time::Timestamp;
use crate::units::{Money, Rate};

/// What becomes of a pool's surplus.
#[derive(Debug)]
pub(crate) enum Surplus {
    /// There is none.
    Needed,
    /// There is some, and it stays for now.
    Hold(Problem, Option<Timestamp>),
    /// This one goes.
    Remove(ReplicaId, Reason, String, Vec<Rejected>),
    /// These take over from dearer ones.
    Move(Vec<Slot>, String),
}

/// The verdict, and whether less would do at all.
#[derive(Debug)]
pub(crate) struct Shrinkage {
    pub(crate) surplus: bool,
    pub(crate) verdict: Surplus,
}

impl Shrinkage {
    pub(crate) const NEEDED: Self = Self {
        surplus: false,
        verdict: Surplus::Needed,
    };

    pub(crate) fn hold(surplus: bool, reason: Reason, message: impl Into<String>, until: Option<Timestamp>) -> Self {
        Self {
            surplus,
            verdict: Surplus::Hold(Problem::new(reason, message), until),
        }
    }

    /// Why what is too much stays, if so.
    pub(crate) fn held(&self) -> Option<&Problem> {
        match &self.verdict {
            Surplus::Hold(problem, _) => Some(problem),
            Surplus::Needed | Surplus::Remove(..) | Surplus::Move(..) => None,
        }
    }
}

/// Everything that a contraction looks at.
pub(crate) struct Case<'c, 'a> {
    pub(crate) world: &'c World<'a>,
    pub(crate) crew: &'c Crew<'a>,
    pub(crate) model: &'c Model<'c, 'a>,
    pub(crate) options: &'c Options<'a>,
    pub(crate) need: &'c Need<'c>,
    /// Slots that are left, in the order of placement.
    pub(crate) offers: &'c dyn Fn() -> Vec<Slot>,
    /// Replicas that drain by choice, by group.
    pub(crate) draining: &'c BTreeMap<GroupName, u32>,
}

impl<'c, 'a> Case<'c, 'a> {
    /// Replicas that may be taken out by choice.
    fn removable(&self) -> impl Iterator<Item = &'c Member<'a>> {
        let keepers = self.crew.of(Standing::Keeper);
        keepers.filter(|member| !member.hands_off && !member.held())
    }

    /// The same, the one that saves most from now on first.
    pub(crate) fn candidates(&self) -> Vec<&'c Member<'a>> {
        let mut members: Vec<_> = self.removable().collect();
        members.sort_by_cached_key(|member| self.order(member));
        members
    }

    /// The first of them.
    fn first(&self) -> Option<&'c Member<'a>> {
        self.removable().min_by_key(|member| self.order(member))
    }

    fn order(&self, member: &Member<'a>) -> impl Ord + use<'a> {
        let place = self.options.place(member.group, member.server);
        (Reverse(place), victim_order(member, self.crew.pool))
    }

    pub(crate) fn ownership(&self, group: &GroupName) -> Ownership {
        self.world
            .group(group)
            .map_or(Ownership::Hosted, |(_, site)| site.ownership)
    }
}

/// What becomes of the pool's surplus.
pub(crate) fn shrink(case: &Case) -> Shrinkage {
    let (crew, now) = (case.crew, case.world.now);
    let keepers = crew.kept();
    let (rate, lengths) = match case.need {
        Need::Unknown { problem, .. } => {
            let message = format!("nothing is removed while demand is unknown: {}", problem.message);
            return Shrinkage::hold(false, Reason::MetricsUnavailable, message, None);
        }
        Need::Known { rate, lengths, .. } => (*rate, lengths),
    };
    if crew.out_of_sight() {
        let message = "nothing is removed while a site with replicas of the pool does not answer";
        return Shrinkage::hold(false, Reason::SiteUnreachable, message, None);
    }
    if case.model.unfathomed(crew.serving()) {
        let message = "nothing is removed while replicas serve in a group whose figures are unknown";
        return Shrinkage::hold(false, Reason::MachineUnknown, message, None);
    }
    if total(keepers) > crew.pool.replicas.max {
        return above_maximum(case, total(keepers));
    }
    if lengths.is_none() && rate > Rate::ZERO {
        let message = "nothing is removed while the lengths of requests are unknown";
        return Shrinkage::hold(false, Reason::MetricsUnavailable, message, None);
    }
    if strain(crew.pool, now).is_some_and(|strain| strain > 1.0) {
        let message = "nothing is removed while an objective is missed";
        return Shrinkage::hold(false, Reason::ObjectiveMissed, message, None);
    }
    if promise_too_much(crew, case.options) {
        let message = "nothing is removed while servers are far slower than their figures say";
        return Shrinkage::hold(false, Reason::FiguresDoubted, message, None);
    }
    if case.model.optimistic(crew.serving(), rate, now) {
        let message = "nothing is removed while latencies are twice what the model predicts";
        return Shrinkage::hold(false, Reason::ObjectiveMissed, message, None);
    }
    match plain(case, keepers, rate) {
        Shrinkage {
            verdict: Surplus::Needed,
            ..
        } => returning(case, keepers, rate),
        decided => decided,
    }
}

/// A replica that nothing needs.
fn plain(case: &Case, keepers: &Counts, rate: Rate) -> Shrinkage {
    if total(keepers) <= case.crew.pool.replicas.min {
        return Shrinkage::NEEDED;
    }
    // Without one of them is without any of them.
    let alike = case.model.alike(keepers) && case.crew.pool.placement.survive_loss_of != Survive::Site;
    let lacks = |member: &Member| {
        case.model
            .lack(&without(keepers, member.group), rate, SHRINK_UTILIZATION)
    };
    if let Some(any) = case.removable().next().filter(|_| alike) {
        // Mostly everything is needed, and then the order of the candidates does not matter.
        return match (lacks(any), case.first()) {
            (Some(Lack::Capacity), _) | (_, None) => Shrinkage::NEEDED,
            (Some(lack), Some(first)) => still_needed(first.group, &lack),
            (None, Some(first)) => remove(case, first, rate),
        };
    }
    let mut needed = None;
    let mut seen = BTreeSet::new();
    for member in case.candidates() {
        let group = member.group;
        if !seen.insert(group) {
            continue;
        }
        match lacks(member) {
            None => return remove(case, member, rate),
            Some(lack) => drop(needed.get_or_insert_with(|| still_needed(group, &lack))),
        }
    }
    let free_but_for_people = |member: &&Member| {
        let rest = without(keepers, member.group);
        member.held() && case.model.lack(&rest, rate, SHRINK_UTILIZATION).is_none()
    };
    match (needed, case.crew.of(Standing::Keeper).find(free_but_for_people)) {
        (Some(needed), _) => needed,
        (None, Some(member)) => {
            let message = format!("server {} is not needed, but held by annotation", member.replica.server);
            Shrinkage::hold(true, Reason::Held, message, None)
        }
        (None, None) => Shrinkage::NEEDED,
    }
}

fn still_needed(group: &GroupName, lack: &Lack) -> Shrinkage {
    let loss = match lack {
        Lack::Capacity => return Shrinkage::NEEDED,
        Lack::Server => "one more server were gone".to_owned(),
        Lack::Site(site) => format!("site {site} were gone"),
    };
    let message = format!("without another server of {group} the rest would not carry the demand if {loss}");
    Shrinkage::hold(false, Reason::NeededForLoss, message, None)
}

/// Takes `victim` out, as soon as nothing speaks against it.
fn remove(case: &Case, victim: &Member, rate: Rate) -> Shrinkage {
    let (crew, world, group) = (case.crew, case.world, victim.group);
    let paid = |member: &Member| member.server.and_then(|server| world.paid_until(server));
    let same = |member: &&Member| member.replica.group == *group;
    if paid(victim).is_some() {
        let until = case.removable().filter(same).filter_map(paid).min();
        let message = match until {
            Some(until) => format!("a server of {group} is not needed, but paid until {until}, and may as well serve"),
            None => format!("servers of {group} are paid and may as well serve"),
        };
        let wake = until.map(|until| until - DRAIN_ESTIMATE);
        return Shrinkage::hold(true, Reason::LeasePaid, message, wake);
    }
    let serving = count(crew.keepers().filter(|member| member.serving));
    let rest = if victim.serving {
        without(&serving, group)
    } else {
        serving.clone()
    };
    if case.model.lack(&rest, rate, SHRINK_UTILIZATION).is_some() {
        return Shrinkage::hold(true, Reason::ReplicasLoading, "others have to be ready first", None);
    }
    if let Some(hold) = too_near(case, &rest, &serving, rate).or_else(|| not_yet(case, group)) {
        return hold;
    }
    let owned_left = rest.keys().any(|group| case.ownership(group) == Ownership::Owned);
    let reason = if case.ownership(group) != Ownership::Owned && owned_left {
        Reason::ReturnToOwned
    } else {
        Reason::DemandFell
    };
    let message = format!(
        "{} requests/s arrive, {} are sustainable on the other {}",
        figures::two(rate.as_per_second()),
        figures::two(case.model.sustainable(&rest).as_per_second()),
        figures::replicas(&rest),
    );
    let others = case.candidates().into_iter().filter(same);
    let rejected = others.filter_map(|member| {
        let until = paid(member)?;
        Some(Rejected {
            cost: None,
            alternative: member.replica.server.to_string(),
            reason: Reason::LeasePaid,
            message: format!("paid until {until}"),
            hourly: Some(Money::ZERO),
        })
    });
    Shrinkage {
        surplus: true,
        verdict: Surplus::Remove(victim.name.clone(), reason, message, rejected.collect()),
    }
}

/// Why nothing is taken out while a measured percentile is close to its objective.
fn too_near(case: &Case, rest: &Counts, serving: &Counts, rate: Rate) -> Option<Shrinkage> {
    let now = case.world.now;
    let measured = strain(case.crew.pool, now).filter(|strain| *strain > COMFORT)?;
    let then = case.model.strain_with(rest, serving, rate, now);
    if then.is_some_and(|then| then <= NO_COMFORT) {
        return None;
    }
    let then = then.map_or("more than that".to_owned(), figures::two);
    let message = format!(
        "fewer would do by the model, but the worst objective is at {} of its threshold and would be at {then}",
        figures::two(measured)
    );
    Some(Shrinkage::hold(true, Reason::ObjectiveNear, message, None))
}

pub(crate) fn above_maximum(case: &Case, keepers: u32) -> Shrinkage {
    let message = format!("{keepers} replicas, replicas.max is {}", case.crew.pool.replicas.max);
    let candidates = case.candidates();
    let Some(victim) = candidates.first() else {
        let message = format!("{message}; all their servers are held by annotation or left alone");
        return Shrinkage::hold(false, Reason::Held, message, None);
    };
    if let Some(hold) = others(case, victim.group) {
        return hold;
    }
    Shrinkage {
        surplus: false,
        verdict: Surplus::Remove(victim.name.clone(), Reason::AboveMaximum, message, Vec::new()),
    }
}
