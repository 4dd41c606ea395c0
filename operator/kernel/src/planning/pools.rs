//! One pool's step: who has to go, what is missing, what is too much, and the drains under way.

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::pool::{Findings, outlook};
use super::crew::{Crew, Standing, count, voluntary};
use super::demand::need;
use super::draft::Draft;
use super::drains;
use super::grow::{Growth, grow, missing_since};
use super::leave::{leave, preempt, roll};
use super::model::{Counts, Model, total, with, without};
use super::options::Options;
use super::policy::REACT_AFTER;
use super::servers::Claims;
use super::shrink::{Case, Shrinkage, Verdict, shrink};
use super::slots::{Slot, Source, slots, take};
use super::stock::{Ask, Stock};
use super::world::{World, is_usable};
use crate::lifecycle::{Drain, DrainStep, ReplicaState};
use crate::names::{GroupName, PoolId, ReplicaName};
use crate::plan::Action;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Pool, PoolMemory};

/// What the pools of one pass share.
pub(crate) struct Shared<'a> {
    pub(crate) stock: Stock,
    pub(crate) claims: Claims,
    /// Replicas that drain by choice, by group.
    pub(crate) draining: BTreeMap<GroupName, u32>,
    /// Servers that pools of higher priority take from those that are still to come.
    pub(crate) preempted: BTreeMap<&'a PoolId, Counts>,
    pub(crate) draft: Draft,
}

/// Who yields to whom: a smaller rank takes from a larger one.
pub(crate) fn rank(pool: &Pool) -> (std::cmp::Reverse<i32>, u32) {
    (std::cmp::Reverse(pool.priority), pool.degrade_order)
}

/// Decides about one pool. `below` are the pools of larger rank.
pub(crate) fn decide<'a>(world: &World<'a>, mut crew: Crew<'a>, below: &[Crew<'a>], shared: &mut Shared<'a>) {
    let (id, pool) = (crew.id, crew.pool);
    let options = Options::of(world, pool);
    let model = Model::new(pool, &options);
    let need = need(pool, world.now);
    if pool.paused {
        claim(&crew, &BTreeSet::new(), shared);
        let findings = Findings {
            crew: &crew,
            options: &options,
            model: &model,
            need: &need,
            target: count(crew.keepers()),
            growth: Growth::default(),
            shrinkage: None,
            kept: 0,
            memory: pool.memory.clone(),
        };
        let outlook = outlook(world, findings);
        shared.draft.plan.pools.insert(id.clone(), outlook);
        return;
    }
    if let Some(taken) = shared.preempted.get(id) {
        preempt(&mut crew, taken);
    }
    roll(&mut crew, &options);

    let mut growth = Growth::default();
    let mut unavailable = BTreeMap::new();
    if !pool.deleting {
        let (offers, none) = slots(&crew, &options, &shared.stock, pool.replicas.max);
        unavailable = none;
        growth = grow(&crew, &model, &need, offers.clone(), &mut unavailable, world.now);
        if growth.short.is_some() {
            preempting(
                &crew,
                &options,
                &model,
                &need,
                offers,
                below,
                &mut growth,
                &mut unavailable,
                world,
                shared,
            );
        }
    }
    let mut target = count(crew.keepers());
    let mut recalled = BTreeSet::new();
    for (slot, reason, message) in &growth.slots {
        target = with(&target, &slot.group);
        carry_out(
            &crew,
            &options,
            slot,
            *reason,
            message,
            &unavailable,
            &mut recalled,
            shared,
        );
    }

    let enough = growth.slots.is_empty() && (growth.short.is_none() || total(&target) > pool.replicas.max);
    let shrinkage = (!pool.deleting && enough).then(|| {
        let (offers, _) = slots(&crew, &options, &shared.stock, pool.replicas.max);
        shrink(&Case {
            world,
            crew: &crew,
            model: &model,
            options: &options,
            need: &need,
            offers: &offers,
            draining: &shared.draining,
        })
    });
    let mut memory = remember(&crew, &growth, &target, shrinkage.as_ref(), world);
    let mut going: BTreeSet<ReplicaName> = BTreeSet::new();
    match shrinkage.as_ref().map(|shrinkage| &shrinkage.verdict) {
        Some(Verdict::Remove(name, reason, message, rejected)) => {
            if let Some(victim) = pool.running.get(name) {
                target = without(&target, &victim.group);
                *shared.draining.entry(victim.group.clone()).or_default() += 1;
            }
            memory.last_removed = Some(world.now);
            begin_drain(world, &crew, name, *reason, message.clone(), rejected.clone(), shared);
            going.insert(name.clone());
        }
        Some(Verdict::Move(slots, message)) => {
            for slot in slots {
                target = with(&target, &slot.group);
                let reason = Reason::ReturnToOwned;
                carry_out(
                    &crew,
                    &options,
                    slot,
                    reason,
                    message,
                    &unavailable,
                    &mut recalled,
                    shared,
                );
            }
        }
        Some(Verdict::Hold(_, Some(until))) => shared.draft.wake(*until),
        _ => {}
    }
    memory.target = Some(total(&target));
    if let Some(since) = memory.missing_objective_since {
        shared.draft.wake(since + REACT_AFTER);
    }

    let wanted = total(&target);
    let replaceable = growth.short.is_none();
    let leaving = leave(world, &crew, &model, &need, wanted, replaceable, &mut shared.draining);
    for (name, reason, message) in leaving {
        begin_drain(world, &crew, &name, reason, message, Vec::new(), shared);
        going.insert(name);
    }
    open(&crew, &going, shared);
    let waiting = drains::run(world, &crew, &recalled, &mut shared.draft);
    let staying = going.iter().cloned().collect();
    claim(&crew, &staying, shared);
    for name in &recalled {
        if let Some(replica) = pool.running.get(name) {
            let kept = (replica.group.clone(), replica.server.clone());
            shared.claims.kept.insert(kept);
        }
    }
    let findings = Findings {
        crew: &crew,
        options: &options,
        model: &model,
        need: &need,
        target,
        growth,
        shrinkage,
        kept: waiting.kept,
        memory,
    };
    let outlook = outlook(world, findings);
    shared.draft.plan.pools.insert(id.clone(), outlook);
}

/// Tries again with servers of pools that yield to this one.
#[expect(clippy::too_many_arguments, reason = "private, and called once")]
fn preempting<'a>(
    crew: &Crew<'a>,
    options: &Options<'a>,
    model: &Model,
    need: &super::demand::Need,
    mut offers: Vec<Slot>,
    below: &[Crew<'a>],
    growth: &mut Growth,
    unavailable: &mut BTreeMap<GroupName, Problem>,
    world: &World<'a>,
    shared: &mut Shared<'a>,
) {
    let mut owners = BTreeMap::new();
    for other in below
        .iter()
        .filter(|other| rank(other.pool) > rank(crew.pool) && !other.pool.paused)
    {
        for member in other.of(Standing::Keeper).filter(|member| !member.hands_off) {
            let replica = member.replica;
            let open = options.choices.get(&replica.group).is_some_and(|choice| choice.open);
            let usable = member
                .server
                .is_some_and(|server| is_usable(server) && server.proven >= crew.pool.placement.minimum_trust);
            let used = shared
                .claims
                .kept
                .contains(&(replica.group.clone(), replica.server.clone()));
            if open && usable && !used {
                owners.insert(
                    Slot {
                        group: replica.group.clone(),
                        source: Source::Vacating(replica.server.clone()),
                    },
                    other.id,
                );
            }
        }
    }
    if owners.is_empty() {
        return;
    }
    offers.extend(owners.keys().cloned());
    let again = grow(crew, model, need, offers, unavailable, world.now);
    if again.slots.len() <= growth.slots.len() {
        return;
    }
    for (slot, _, _) in &again.slots {
        if let (Some(owner), Source::Vacating(server)) = (owners.get(slot), &slot.source) {
            let taken = shared.preempted.entry(owner).or_default();
            *taken.entry(slot.group.clone()).or_default() += 1;
            // No third pool takes it as well.
            shared.claims.kept.insert((slot.group.clone(), server.clone()));
        }
    }
    *growth = again;
}

/// Turns one slot into decisions, and takes it off the shelves.
#[expect(clippy::too_many_arguments, reason = "private: the parts of one decision")]
fn carry_out(
    crew: &Crew,
    options: &Options,
    slot: &Slot,
    reason: Reason,
    message: &str,
    unavailable: &BTreeMap<GroupName, Problem>,
    recalled: &mut BTreeSet<ReplicaName>,
    shared: &mut Shared,
) {
    let server_state = match &slot.source {
        Source::Recall(name, _) => crew
            .members
            .iter()
            .find(|member| member.name == name)
            .and_then(|member| member.server)
            .map(|server| server.state),
        _ => None,
    };
    take(slot, &mut shared.stock, server_state);
    match &slot.source {
        Source::Free(server) => shared.draft.decide_against(
            Action::StartReplica {
                pool: crew.id.clone(),
                group: slot.group.clone(),
                server: server.clone(),
                revision: crew.pool.revision.clone(),
            },
            reason,
            message,
            options.alternatives(&slot.group, unavailable),
        ),
        Source::Recall(name, _) => {
            recalled.insert(name.clone());
            shared.draft.decide(
                Action::OpenReplica {
                    pool: crew.id.clone(),
                    replica: name.clone(),
                },
                Reason::DrainCancelled,
                message,
            );
        }
        Source::Purchase => shared.stock.shelf(&slot.group).asked.push(Ask {
            reason: Reason::ServersNeeded,
            message: format!("for pool {}: {message}", crew.id),
            rejected: options.alternatives(&slot.group, unavailable),
        }),
        // On its way already.
        Source::Reclaim(_) | Source::Vacating(_) | Source::Coming => {}
    }
}

fn begin_drain(
    world: &World,
    crew: &Crew,
    name: &ReplicaName,
    reason: Reason,
    message: String,
    rejected: Vec<crate::plan::Rejected>,
    shared: &mut Shared,
) {
    let Some(replica) = crew.pool.running.get(name) else {
        return;
    };
    if voluntary(reason) && reason != Reason::RevisionReplaced {
        let vacated = (replica.group.clone(), replica.server.clone());
        shared.claims.vacated.insert(vacated);
    }
    if world.server_gone(replica) {
        let action = Action::RemoveReplica {
            pool: crew.id.clone(),
            replica: name.clone(),
            uid: replica.uid.clone(),
            cut: 0,
        };
        shared.draft.decide_against(action, reason, message, rejected);
        return;
    }
    let drain = Drain::begin(reason, &crew.pool.drain, world.now);
    let action = Action::DrainReplica {
        pool: crew.id.clone(),
        replica: name.clone(),
        step: DrainStep::Fence,
        deadline: drain.deadline,
    };
    shared.draft.decide_against(action, reason, message, rejected);
}

/// Lets routers send requests to replicas that are ready and stay.
fn open(crew: &Crew, going: &BTreeSet<ReplicaName>, shared: &mut Shared) {
    for member in crew.of(Standing::Keeper) {
        let replica = member.replica;
        let ready = replica.state == ReplicaState::Ready && !replica.serving;
        if ready && !member.hands_off && !going.contains(member.name) {
            shared.draft.decide(
                Action::OpenReplica {
                    pool: crew.id.clone(),
                    replica: member.name.clone(),
                },
                Reason::ReplicaReady,
                format!("its engine on server {} is ready", replica.server),
            );
        }
    }
}

/// Servers that the pool keeps.
fn claim(crew: &Crew, going: &BTreeSet<ReplicaName>, shared: &mut Shared) {
    for member in &crew.members {
        let stays = match member.standing {
            Standing::Keeper | Standing::Leaving(_) => !going.contains(member.name),
            Standing::Lost | Standing::OutOfSight => true,
            Standing::Draining | Standing::Over => crew.pool.paused,
        };
        if stays {
            let kept = (member.replica.group.clone(), member.replica.server.clone());
            shared.claims.kept.insert(kept);
        }
    }
}

fn remember(crew: &Crew, growth: &Growth, target: &Counts, shrinkage: Option<&Shrinkage>, world: &World) -> PoolMemory {
    let old = &crew.pool.memory;
    let grown = total(target) > old.target.unwrap_or(0) && !growth.slots.is_empty();
    let first = old.target.is_none() && total(target) > 0;
    let surplus = shrinkage.is_some_and(|shrinkage| shrinkage.surplus);
    let missing = missing_since(crew, world.now);
    PoolMemory {
        last_added: if grown || first {
            Some(world.now)
        } else {
            old.last_added
        },
        last_removed: old.last_removed,
        surplus_since: surplus.then(|| old.surplus_since.unwrap_or(world.now)),
        missing_objective_since: missing,
        target: Some(total(target)),
    }
}
