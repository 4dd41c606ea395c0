//! One pool's step: who has to go, what is missing, what is too much, and the drains under way.

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::pool::{Findings, outlook};
use super::crew::{Crew, Standing, count, voluntary};
use super::demand::{Need, need};
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
use crate::lifecycle::{Drain, ReplicaState};
use crate::names::{GroupName, PoolId, ReplicaId};
use crate::plan::{Action, Rejected};
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

/// Decides about one pool. `below` are the pools that come after it.
pub(crate) fn decide<'a>(world: &World<'a>, mut crew: Crew<'a>, below: &[Crew<'a>], shared: &mut Shared<'a>) {
    let pool = crew.pool;
    let options = Options::of(world, pool);
    let model = Model::new(pool, &options);
    let need = need(pool, world.now);
    if !pool.paused {
        if let Some(taken) = shared.preempted.get(crew.id) {
            preempt(&mut crew, taken);
        }
        roll(&mut crew, &options);
    }
    let mut step = Step {
        world,
        target: count(crew.keepers()),
        crew: &crew,
        options: &options,
        model: &model,
        need: &need,
        unavailable: BTreeMap::new(),
        recalled: BTreeSet::new(),
        going: BTreeSet::new(),
        shared,
    };
    let mut findings = Findings {
        crew: &crew,
        options: &options,
        model: &model,
        need: &need,
        target: step.target.clone(),
        growth: Growth::default(),
        shrinkage: None,
        kept: 0,
        memory: pool.memory.clone(),
    };
    if !pool.paused {
        findings.growth = step.add(below);
        findings.shrinkage = step.reduce(&findings.growth);
        step.send_off(findings.growth.short.is_none());
        step.open();
        findings.kept = drains::run(world, &crew, &step.recalled, &mut step.shared.draft).kept;
        findings.memory = step.remember(&findings.growth, findings.shrinkage.as_ref());
        findings.target = step.target.clone();
    }
    step.claim();
    let outlook = outlook(world, findings);
    shared.draft.plan.pools.insert(crew.id.clone(), outlook);
}

/// One pool's step, half done.
struct Step<'s, 'a> {
    world: &'s World<'a>,
    crew: &'s Crew<'a>,
    options: &'s Options<'a>,
    model: &'s Model<'s>,
    need: &'s Need<'s>,
    /// Replicas wanted.
    target: Counts,
    /// Why groups that the pool may use have nothing to give.
    unavailable: BTreeMap<GroupName, Problem>,
    /// Replicas whose drain is called off in this pass.
    recalled: BTreeSet<ReplicaId>,
    /// Replicas whose drain begins in this pass.
    going: BTreeSet<ReplicaId>,
    shared: &'s mut Shared<'a>,
}

impl<'a> Step<'_, 'a> {
    /// Adds what is missing.
    fn add(&mut self, below: &[Crew<'a>]) -> Growth {
        if self.crew.pool.deleting {
            return Growth::default();
        }
        let most = self.crew.pool.replicas.max;
        let (offers, none) = slots(self.crew, self.options, &self.shared.stock, most);
        self.unavailable = none;
        let mut growth = self.grow(offers.clone());
        if growth.short.is_some() {
            growth = self.preempting(offers, below, growth);
        }
        for (slot, reason, message) in &growth.slots {
            self.take_slot(slot, *reason, message);
        }
        growth
    }

    fn grow(&mut self, offers: Vec<Slot>) -> Growth {
        let now = self.world.now;
        grow(self.crew, self.model, self.need, offers, &mut self.unavailable, now)
    }

    /// Tries again with servers of pools that yield to this one.
    fn preempting(&mut self, mut offers: Vec<Slot>, below: &[Crew<'a>], growth: Growth) -> Growth {
        let owners = self.yielding(below);
        if owners.is_empty() {
            return growth;
        }
        offers.extend(owners.keys().cloned());
        let again = self.grow(offers);
        if again.slots.len() <= growth.slots.len() {
            return growth;
        }
        for (slot, _, _) in &again.slots {
            if let (Some(owner), Source::Vacating(server)) = (owners.get(slot), &slot.source) {
                let taken = self.shared.preempted.entry(owner).or_default();
                *taken.entry(slot.group.clone()).or_default() += 1;
                // No third pool takes it as well.
                self.shared.claims.kept.insert((slot.group.clone(), server.clone()));
            }
        }
        again
    }

    /// Servers that this pool could use and that run replicas of pools that yield to it, with those pools.
    fn yielding(&self, below: &[Crew<'a>]) -> BTreeMap<Slot, &'a PoolId> {
        let mut owners = BTreeMap::new();
        let yields = |other: &&Crew| rank(other.pool) > rank(self.crew.pool) && !other.pool.paused;
        for other in below.iter().filter(yields) {
            for member in other.of(Standing::Keeper).filter(|member| !member.hands_off) {
                let replica = member.replica;
                let open = self.options.satisfies(&replica.group) && self.world.takes_no_work(&replica.group).is_none();
                let usable = member
                    .server
                    .is_some_and(|server| is_usable(server) && server.proven >= self.crew.pool.placement.minimum_trust);
                let target = (replica.group.clone(), replica.server.clone());
                if open && usable && !self.shared.claims.kept.contains(&target) {
                    let (group, server) = target;
                    let source = Source::Vacating(server);
                    owners.insert(Slot { group, source }, other.id);
                }
            }
        }
        owners
    }

    /// Takes one out, or moves work, if less would do.
    fn reduce(&mut self, growth: &Growth) -> Option<Shrinkage> {
        let pool = self.crew.pool;
        let above = total(&self.target) > pool.replicas.max;
        let enough = growth.slots.is_empty() && (growth.short.is_none() || above);
        if pool.deleting || !enough {
            return None;
        }
        let (offers, _) = slots(self.crew, self.options, &self.shared.stock, pool.replicas.max);
        let shrinkage = shrink(&Case {
            world: self.world,
            crew: self.crew,
            model: self.model,
            options: self.options,
            need: self.need,
            offers: &offers,
            draining: &self.shared.draining,
        });
        match &shrinkage.verdict {
            Verdict::Remove(name, reason, message, rejected) => {
                if let Some(victim) = pool.running.get(name) {
                    self.target = without(&self.target, &victim.group);
                    *self.shared.draining.entry(victim.group.clone()).or_default() += 1;
                }
                self.begin_drain(name, *reason, message, rejected);
            }
            Verdict::Move(slots, message) => {
                for slot in slots {
                    self.take_slot(slot, Reason::ReturnToOwned, message);
                }
            }
            Verdict::Hold(_, Some(until)) => self.shared.draft.wake(*until),
            Verdict::Hold(_, None) | Verdict::Needed => {}
        }
        Some(shrinkage)
    }

    /// Begins the drain of those that have to go and can.
    fn send_off(&mut self, replaceable: bool) {
        let leaving = leave(
            self.world,
            self.crew,
            self.model,
            self.need,
            total(&self.target),
            replaceable,
            &mut self.shared.draining,
        );
        for (name, reason, message) in leaving {
            self.begin_drain(&name, reason, &message, &[]);
        }
    }

    /// Turns one slot into decisions, and takes it off the shelves.
    fn take_slot(&mut self, slot: &Slot, reason: Reason, message: &str) {
        self.target = with(&self.target, &slot.group);
        let pool = self.crew.id.clone();
        let alternatives = || self.options.alternatives(&slot.group, &self.unavailable);
        let mut server_state = None;
        match &slot.source {
            Source::Free(server) => {
                let action = Action::StartReplica {
                    pool,
                    group: slot.group.clone(),
                    server: server.clone(),
                    revision: self.crew.pool.revision.clone(),
                };
                self.shared
                    .draft
                    .decide_against(action, reason, message, alternatives());
            }
            Source::Recall(name, _) => {
                let member = self.crew.members.iter().find(|member| member.name == name);
                server_state = member.and_then(|member| member.server).map(|server| server.state);
                self.recalled.insert(name.clone());
                let replica = name.clone();
                let action = Action::OpenReplica { pool, replica };
                self.shared.draft.decide(action, Reason::DrainCancelled, message);
            }
            Source::Purchase => {
                let ask = Ask {
                    reason: Reason::ServersNeeded,
                    message: format!("for pool {pool}: {message}"),
                    rejected: alternatives(),
                };
                self.shared.stock.shelf(&slot.group).asked.push(ask);
            }
            // On its way already.
            Source::Reclaim(_) | Source::Vacating(_) | Source::Coming => {}
        }
        take(slot, &mut self.shared.stock, server_state);
    }

    fn begin_drain(&mut self, name: &ReplicaId, reason: Reason, message: &str, rejected: &[Rejected]) {
        let Some(replica) = self.crew.pool.running.get(name) else {
            return;
        };
        self.going.insert(name.clone());
        if voluntary(reason) && reason != Reason::RevisionReplaced {
            let vacated = (replica.group.clone(), replica.server.clone());
            self.shared.claims.vacated.insert(vacated);
        }
        let pool = self.crew.id.clone();
        let action = if self.world.server_gone(replica) {
            Action::RemoveReplica {
                pool,
                replica: name.clone(),
                uid: replica.uid.clone(),
                cut: 0,
            }
        } else {
            let drain = Drain::begin(reason, &self.crew.pool.drain, self.world.now);
            Action::DrainReplica {
                pool,
                replica: name.clone(),
                step: drain.step,
                deadline: drain.deadline,
            }
        };
        self.shared
            .draft
            .decide_against(action, reason, message, rejected.to_vec());
    }

    /// Lets routers send requests to replicas that are ready and stay.
    fn open(&mut self) {
        for member in self.crew.of(Standing::Keeper) {
            let replica = member.replica;
            let ready = replica.state == ReplicaState::Ready && !replica.serving;
            if ready && !member.hands_off && !self.going.contains(member.name) {
                let action = Action::OpenReplica {
                    pool: self.crew.id.clone(),
                    replica: member.name.clone(),
                };
                let message = format!("its engine on server {} is ready", replica.server);
                self.shared.draft.decide(action, Reason::ReplicaReady, message);
            }
        }
    }

    /// Says which servers the pool keeps.
    fn claim(&mut self) {
        for member in &self.crew.members {
            let stays = match member.standing {
                Standing::Keeper | Standing::Leaving(_) => !self.going.contains(member.name),
                Standing::Lost | Standing::OutOfSight => true,
                Standing::Draining => self.crew.pool.paused || self.recalled.contains(member.name),
                Standing::Over => self.crew.pool.paused,
            };
            if stays {
                let kept = (member.replica.group.clone(), member.replica.server.clone());
                self.shared.claims.kept.insert(kept);
            }
        }
    }

    fn remember(&mut self, growth: &Growth, shrinkage: Option<&Shrinkage>) -> PoolMemory {
        let (old, now) = (&self.crew.pool.memory, self.world.now);
        let target = total(&self.target);
        let grown = target > old.target.unwrap_or(0) && (!growth.slots.is_empty() || old.target.is_none());
        let removed = matches!(
            shrinkage,
            Some(Shrinkage {
                verdict: Verdict::Remove(..),
                ..
            })
        );
        let surplus = shrinkage.is_some_and(|shrinkage| shrinkage.surplus);
        let missing = missing_since(self.crew, now);
        if let Some(since) = missing {
            self.shared.draft.wake(since + REACT_AFTER);
        }
        PoolMemory {
            last_added: if grown { Some(now) } else { old.last_added },
            last_removed: if removed { Some(now) } else { old.last_removed },
            surplus_since: surplus.then(|| old.surplus_since.unwrap_or(now)),
            missing_objective_since: missing,
            target: Some(target),
        }
    }
}
