//! When a pool would do with less, and what goes first.
//!
//! Contraction is the reverse of growth: hosted, managed, owned. One step at a time, only on measurements that are there,
//! and only if the rest carries the demand through the loss that the pool wants to survive.

use std::collections::BTreeMap;

use super::crew::{Crew, Member, Standing, count, victim_order, voluntary};
use super::demand::{Need, strain};
use super::figures;
use super::model::{Counts, Lack, Model, total, with, without};
use super::options::Options;
use super::policy::{
    COMFORT, DRAIN_ESTIMATE, HOLD_DOWN, HOLD_DOWN_HOSTED, REMOVAL_STEP, RETURN_LEAD, SHRINK_UTILIZATION,
};
use super::slots::{Slot, Source};
use super::world::World;
use crate::names::{GroupName, ReplicaId};
use crate::plan::Rejected;
use crate::reason::{Problem, Reason};
use crate::snapshot::Ownership;
use crate::time::{Span, Timestamp};
use crate::units::Rate;

/// What becomes of a pool's surplus.
#[derive(Debug)]
pub(crate) enum Verdict {
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
    pub(crate) verdict: Verdict,
}

impl Shrinkage {
    const NEEDED: Self = Self {
        surplus: false,
        verdict: Verdict::Needed,
    };

    fn hold(surplus: bool, reason: Reason, message: impl Into<String>, until: Option<Timestamp>) -> Self {
        Self {
            surplus,
            verdict: Verdict::Hold(Problem::new(reason, message), until),
        }
    }
}

/// Everything that a contraction looks at.
pub(crate) struct Case<'c, 'a> {
    pub(crate) world: &'c World<'a>,
    pub(crate) crew: &'c Crew<'a>,
    pub(crate) model: &'c Model<'c>,
    pub(crate) options: &'c Options<'a>,
    pub(crate) need: &'c Need<'c>,
    /// Slots that are left, in the order of placement.
    pub(crate) offers: &'c [Slot],
    /// Replicas that drain by choice, by group.
    pub(crate) draining: &'c BTreeMap<GroupName, u32>,
}

/// What becomes of the pool's surplus.
pub(crate) fn shrink(case: &Case) -> Shrinkage {
    let (crew, now) = (case.crew, case.world.now);
    let keepers = count(crew.keepers());
    let above = total(&keepers) > crew.pool.replicas.max;
    let (rate, lengths) = match case.need {
        Need::Unknown(problem) => {
            let message = format!("nothing is removed while demand is unknown: {}", problem.message);
            return Shrinkage::hold(false, Reason::MetricsUnavailable, message, None);
        }
        Need::Known { rate, lengths } => (*rate, lengths),
    };
    if crew.out_of_sight() {
        let message = "nothing is removed while a site with replicas of the pool does not answer";
        return Shrinkage::hold(false, Reason::SiteUnreachable, message, None);
    }
    if case.model.unfathomed(&crew.serving()) {
        let message = "nothing is removed while replicas serve in a group whose figures are unknown";
        return Shrinkage::hold(false, Reason::MachineUnknown, message, None);
    }
    if above {
        return above_maximum(case, total(&keepers));
    }
    if total(&keepers) <= crew.pool.replicas.min {
        return Shrinkage::NEEDED;
    }
    if lengths.is_none() && rate > Rate::ZERO {
        let message = "nothing is removed while the lengths of requests are unknown";
        return Shrinkage::hold(false, Reason::MetricsUnavailable, message, None);
    }
    if strain(crew.pool, now).is_some_and(|strain| strain > COMFORT) {
        return Shrinkage::NEEDED;
    }
    if case.model.optimistic(&crew.serving(), rate, now) {
        let message = "nothing is removed while latencies are twice what the model predicts";
        return Shrinkage::hold(false, Reason::ObjectiveMissed, message, None);
    }
    match plain(case, &keepers, rate) {
        Shrinkage {
            verdict: Verdict::Needed,
            ..
        } => returning(case, &keepers, rate),
        decided => decided,
    }
}

/// A replica that nothing needs.
fn plain(case: &Case, keepers: &Counts, rate: Rate) -> Shrinkage {
    let (crew, world) = (case.crew, case.world);
    let serving = count(crew.keepers().filter(|member| member.serving));
    let Some((group, members)) = dearest_first(case).next() else {
        return Shrinkage::NEEDED;
    };
    match case.model.lack(&without(keepers, &group), rate, SHRINK_UTILIZATION) {
        Some(Lack::Capacity) => return Shrinkage::NEEDED,
        Some(Lack::Server) => return needed_for_loss(&group, "one more server were gone"),
        Some(Lack::Site(site)) => return needed_for_loss(&group, &format!("site {site} were gone")),
        None => {}
    }
    let paid = |member: &&Member| member.server.and_then(|server| world.paid_until(server));
    let Some(victim) = members.iter().find(|member| paid(member).is_none()) else {
        let until = members.iter().filter_map(paid).min();
        let message = match until {
            Some(until) => format!("a server of {group} is not needed, but paid until {until}, and may as well serve"),
            None => format!("servers of {group} are paid and may as well serve"),
        };
        return Shrinkage::hold(
            true,
            Reason::LeasePaid,
            message,
            until.map(|until| until - DRAIN_ESTIMATE),
        );
    };
    let rest = if victim.serving {
        without(&serving, &group)
    } else {
        serving
    };
    if case.model.lack(&rest, rate, SHRINK_UTILIZATION).is_some() {
        return Shrinkage::hold(true, Reason::ReplicasLoading, "others have to be ready first", None);
    }
    if let Some(hold) = not_yet(case, &group) {
        return hold;
    }
    let ownership = ownership(case, &group);
    let owned_left = rest
        .keys()
        .any(|group| self::ownership(case, group) == Ownership::Owned);
    let reason = if ownership != Ownership::Owned && owned_left {
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
    let rejected = members
        .iter()
        .filter_map(|member| {
            let until = paid(member)?;
            Some(Rejected {
                alternative: member.replica.server.to_string(),
                reason: Reason::LeasePaid,
                message: format!("paid until {until}"),
                hourly: Some(crate::units::Money::ZERO),
            })
        })
        .collect();
    Shrinkage {
        surplus: true,
        verdict: Verdict::Remove(victim.name.clone(), reason, message, rejected),
    }
}

/// Own servers that can do the work of one whose paid term is over.
fn returning(case: &Case, keepers: &Counts, rate: Rate) -> Shrinkage {
    let (crew, world) = (case.crew, case.world);
    let Some((group, members)) = dearest_first(case).next() else {
        return Shrinkage::NEEDED;
    };
    let Some(dear) = case.options.choices.get(&group) else {
        return Shrinkage::NEEDED;
    };
    let soon = |member: &Member| {
        member
            .server
            .and_then(|server| server.lease)
            .is_none_or(|lease| lease.minimum_until <= world.now + RETURN_LEAD)
    };
    if dear.ownership == Ownership::Owned || !members.iter().any(|member| soon(member)) {
        return Shrinkage::NEEDED;
    }
    let cheaper = case.offers.iter().filter(|slot| {
        let Some(choice) = case.options.choices.get(&slot.group) else {
            return false;
        };
        choice.ownership < dear.ownership
            && choice.hourly < dear.hourly
            && matches!(slot.source, Source::Free(_) | Source::Reclaim(_) | Source::Purchase)
    });
    let mut after = without(keepers, &group);
    let mut taken = Vec::new();
    for slot in cheaper {
        if total(keepers) + u32::try_from(taken.len()).unwrap_or(u32::MAX) >= crew.pool.replicas.max {
            return Shrinkage::NEEDED;
        }
        after = with(&after, &slot.group);
        taken.push(slot.clone());
        if case.model.lack(&after, rate, SHRINK_UTILIZATION).is_none() {
            if crew.keepers().any(|member| !member.serving) {
                return Shrinkage::hold(true, Reason::ReplicasLoading, "others have to be ready first", None);
            }
            if let Some(hold) = not_yet(case, &group) {
                return hold;
            }
            let message = format!("{} can do the work of a server of {group}", figures::replicas(&after));
            return Shrinkage {
                surplus: true,
                verdict: Verdict::Move(taken, message),
            };
        }
    }
    Shrinkage::NEEDED
}

fn above_maximum(case: &Case, keepers: u32) -> Shrinkage {
    let Some((group, members)) = dearest_first(case).next() else {
        return Shrinkage::NEEDED;
    };
    if let Some(hold) = budget(case, &group) {
        return hold;
    }
    let message = format!("{keepers} replicas, replicas.max is {}", case.crew.pool.replicas.max);
    match members.first() {
        Some(victim) => Shrinkage {
            surplus: false,
            verdict: Verdict::Remove(victim.name.clone(), Reason::AboveMaximum, message, Vec::new()),
        },
        None => Shrinkage::NEEDED,
    }
}

/// Replicas that may be taken out by choice, by group, the last filled group first; within one, victims first.
fn dearest_first<'c, 'a>(case: &Case<'c, 'a>) -> impl Iterator<Item = (GroupName, Vec<&'c Member<'a>>)> + use<'c, 'a> {
    let mut by_group: BTreeMap<&GroupName, Vec<&Member>> = BTreeMap::new();
    for member in case.crew.of(Standing::Keeper) {
        if !member.hands_off && !member.held() {
            by_group.entry(&member.replica.group).or_default().push(member);
        }
    }
    let mut groups: Vec<_> = by_group.into_iter().collect();
    groups.sort_by_key(|(group, _)| std::cmp::Reverse((case.options.place(group, true), *group)));
    let pool = case.crew.pool;
    groups.into_iter().map(move |(group, mut members)| {
        members.sort_by_cached_key(|member| victim_order(member, pool));
        (group.clone(), members)
    })
}

fn ownership(case: &Case, group: &GroupName) -> Ownership {
    case.world
        .group(group)
        .map_or(Ownership::Hosted, |(_, site)| site.ownership)
}

fn needed_for_loss(group: &GroupName, loss: &str) -> Shrinkage {
    let message = format!("without another server of {group} the rest would not carry the demand if {loss}");
    Shrinkage::hold(false, Reason::NeededForLoss, message, None)
}

/// Why a removal from `group` has to wait, although it is right.
fn not_yet(case: &Case, group: &GroupName) -> Option<Shrinkage> {
    let (memory, now) = (&case.crew.pool.memory, case.world.now);
    let hold_down = match ownership(case, group) {
        Ownership::Owned | Ownership::Managed => HOLD_DOWN,
        Ownership::Hosted => HOLD_DOWN_HOSTED,
    };
    let after = |at: Option<Timestamp>, span: Span| at.map_or(now, |at| at + span);
    let until = (memory.surplus_since.unwrap_or(now) + hold_down)
        .max(after(memory.last_added, hold_down))
        .max(after(memory.last_removed, REMOVAL_STEP));
    if now < until {
        let message = format!("fewer would do; nothing is removed before {until}");
        return Some(Shrinkage::hold(true, Reason::HoldDown, message, Some(until)));
    }
    budget(case, group)
}

/// Why a removal from `group` has to wait for others.
fn budget(case: &Case, group: &GroupName) -> Option<Shrinkage> {
    let under_way = case
        .crew
        .of(Standing::Draining)
        .any(|member| member.replica.drain.is_some_and(|drain| voluntary(drain.reason)));
    if under_way {
        return Some(Shrinkage::hold(
            true,
            Reason::ReplicasDraining,
            "one replica at a time: another one is being drained",
            None,
        ));
    }
    let (found, _) = case.world.group(group)?;
    disruption(group, &found.disruption, case.draining)
        .map(|problem| Shrinkage::hold(true, problem.reason, problem.message, None))
}

/// Why no more may be taken out of a group by choice.
pub(crate) fn disruption(
    group: &GroupName,
    allowed: &crate::snapshot::Disruption,
    draining: &BTreeMap<GroupName, u32>,
) -> Option<Problem> {
    let out = draining.get(group).copied().unwrap_or(0);
    if !allowed.window_open {
        Some(Problem::new(
            Reason::DisruptionBudget,
            format!("no disruption window of group {group} is open"),
        ))
    } else if out >= allowed.max_unavailable {
        Some(Problem::new(
            Reason::DisruptionBudget,
            format!(
                "{out} of at most {} replicas drain in group {group}",
                allowed.max_unavailable
            ),
        ))
    } else {
        None
    }
}
