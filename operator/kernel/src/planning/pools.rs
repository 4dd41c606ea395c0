//! One pool's step: who has to go, what is missing, what is too much, and the drains under way.

use std::collections::{BTreeMap, BTreeSet};

use super::afford::affordable;
use super::conditions::pool::{Findings, outlook};
use super::crew::{Crew, Standing, voluntary};
use super::demand::{Need, need, remembered_lengths};
use super::draft::Draft;
use super::drains;
use super::follow::{self, Following, follow};
use super::grow::{Growth, content, grow};
use super::guide::{Guide, Lead};
use super::leave::{Leave, Wanted, leave, preempt, roll};
use super::memo::Memo;
use super::model::{Counts, Model, total, with, without};
use super::options::Options;
use super::part::part;
use super::policy::{HELD_LIMIT, PURCHASE_DWELL, REACT_AFTER};
use super::preempt::yielding;
use super::promised::Promised;
use super::react::episode;
use super::servers::Claims;
use super::shrink::{Case, Shrinkage, Surplus, shrink};
use super::slots::{Slot, Source, approved, slots, take};
use super::stock::{Ask, Stock};
use super::world::World;
use crate::lifecycle::{Drain, ReplicaState};
use crate::names::{GroupName, PoolId, ReplicaId, ServerName};
use crate::plan::{Action, Rejected, Verdict};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Pool, PoolMemory};

/// What the pools of one pass share.
pub(crate) struct Shared<'a> {
    pub(crate) stock: Stock<'a>,
    pub(crate) claims: Claims,
    /// Replicas that drain by choice, by group.
    pub(crate) draining: BTreeMap<GroupName, u32>,
    /// Servers that pools of higher priority take from those that are still to come.
    pub(crate) preempted: BTreeMap<&'a PoolId, Counts>,
    /// Servers of each group that the strategic plan has for pools which do not have them yet.
    pub(crate) promised: Promised<'a>,
    /// Groups whose servers come and go by the strategic plan.
    pub(crate) guided: BTreeSet<&'a GroupName>,
    pub(crate) draft: Draft,
}

impl<'a> Shared<'a> {
    /// Takes the server of `slot` from `owner`.
    fn preempt(&mut self, slot: &Slot, owner: &'a PoolId) {
        let Source::Vacating(server) = &slot.source else {
            return;
        };
        let taken = self.preempted.entry(owner).or_default();
        *taken.entry(slot.group.clone()).or_default() += 1;
        *self.draining.entry(slot.group.clone()).or_default() += 1;
        // No third pool takes it as well.
        self.claims.keep(&slot.group, server);
    }
}

/// Who yields to whom: a smaller rank takes from a larger one.
pub(crate) fn rank(pool: &Pool) -> (std::cmp::Reverse<i32>, u32) {
    (std::cmp::Reverse(pool.priority), pool.degrade_order)
}

/// Decides about one pool. `below` are the pools that come after it.
pub(crate) fn decide<'a>(
    world: &World<'a>,
    mut crew: Crew<'a>,
    below: &[Crew<'a>],
    shared: &mut Shared<'a>,
    memo: &mut Memo,
) {
    let pool = crew.pool;
    let options = Options::of(world, pool);
    options.expect(crew.members.iter().filter_map(|member| member.place));
    let lent = memo.lend(pool, options.feasibility.lengths());
    let model = Model::new(pool, &options, &lent.sets);
    let need = need(pool, world.now);
    let lead = Lead::of(world.snapshot, &crew, &options, &need, world.now);
    if !pool.paused {
        if let Some(taken) = shared.preempted.get(crew.id) {
            preempt(&mut crew, taken);
        }
        roll(&mut crew, &options);
    }
    if let Some(guide) = lead.guide() {
        let groups = guide.ahead.groups.keys();
        let mut known = shared.guided.iter().peekable();
        let others = groups.filter(|group| {
            // Both are in the order of names.
            while known.next_if(|known| **known < *group).is_some() {}
            known.peek() != Some(&group)
        });
        let others: Vec<_> = others.collect();
        shared
            .guided
            .extend(others.into_iter().filter(|group| options.satisfies(group)));
    }
    let mut step = Step {
        world,
        target: crew.kept().clone(),
        crew: &crew,
        options: &options,
        model: &model,
        need: &need,
        lead: &lead,
        unavailable: None,
        recalled: BTreeSet::new(),
        going: BTreeSet::new(),
        shared,
    };
    let mut findings = Findings {
        crew: &crew,
        options: &options,
        model: &model,
        need: &need,
        lead: &lead,
        target: Counts::new(),
        growth: Growth::default(),
        shrinkage: None,
        held: None,
        kept: 0,
        memory: PoolMemory::default(),
    };
    if pool.paused {
        findings.memory.clone_from(&pool.memory);
    } else {
        findings.growth = step.add(below);
        findings.shrinkage = step.reduce(&findings.growth);
        findings.held = step.send_off(findings.growth.short.is_none());
        findings.held = findings
            .held
            .or_else(|| step.above_maximum(findings.shrinkage.as_ref()));
        step.open();
        findings.kept = drains::run(world, &crew, &step.recalled, &mut step.shared.draft).kept;
        findings.memory = step.remember(&findings.growth, findings.shrinkage.as_ref(), findings.held.as_ref());
    }
    findings.target = std::mem::take(&mut step.target);
    step.claim();
    let outlook = outlook(world, findings);
    shared.draft.describe(crew.id, outlook);
    memo.give_back(lent);
}

/// One pool's step, half done.
struct Step<'s, 'a> {
    world: &'s World<'a>,
    crew: &'s Crew<'a>,
    options: &'s Options<'a>,
    model: &'s Model<'s, 'a>,
    need: &'s Need<'s>,
    lead: &'s Lead<'a>,
    /// Replicas wanted.
    target: Counts,
    /// Why groups that the pool may use have nothing to give, if anybody has looked.
    unavailable: Option<BTreeMap<GroupName, Problem>>,
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
        let unconfirmed = |problem: &Problem| problem.reason == Reason::DemandUnconfirmed;
        let missing = |growth: &Growth| growth.short.as_ref().is_some_and(|problem| !unconfirmed(problem));
        if let Some(growth) = self.content().filter(|growth| !missing(growth)) {
            return growth;
        }
        let offers = self.look_around();
        let mut growth = self.grow(offers.clone());
        if missing(&growth) {
            growth = self.preempting(offers, below, growth);
        }
        for (slot, reason, message) in &growth.slots {
            self.take_slot(slot, *reason, message);
        }
        growth
    }

    /// What it adds wherever there is room, if that is nothing.
    fn content(&self) -> Option<Growth> {
        match self.lead.guide() {
            Some(guide) => follow::content(&self.following(guide)),
            None => content(self.crew, self.model, self.need, self.world.now),
        }
    }

    fn following<'f>(&'f self, guide: &'f Guide<'a>) -> Following<'f, 'a> {
        Following {
            world: self.world,
            crew: self.crew,
            model: self.model,
            guide,
            stock: &self.shared.stock,
            promised: self.shared.promised.to_others(self.crew.id),
        }
    }

    /// Why groups have no place for another replica, as far as that was looked at.
    fn unavailable(&self) -> &BTreeMap<GroupName, Problem> {
        self.unavailable.as_ref().unwrap_or(const { &BTreeMap::new() })
    }

    /// Where another replica could go, and why not elsewhere.
    fn look_around(&mut self) -> Vec<Slot> {
        let stock = &self.shared.stock;
        let (offers, none) = slots(self.crew, self.options, stock, self.crew.pool.replicas.max);
        let (offers, refused) = affordable(self.world, self.crew, self.lead.guide(), stock, offers);
        self.unavailable = Some(none.into_iter().chain(refused).collect());
        offers
    }

    /// Tries again with servers of pools that yield to this one, before anything is merely proposed.
    fn preempting(&mut self, mut offers: Vec<Slot>, below: &[Crew<'a>], growth: Growth) -> Growth {
        let owners = yielding(self.world, self.crew, self.options, below, self.shared);
        if owners.is_empty() {
            return growth;
        }
        let proposed = offers.iter().position(|slot| slot.verdict == Verdict::Propose);
        let at = proposed.unwrap_or(offers.len());
        offers.splice(at..at, owners.keys().cloned());
        let again = self.grow(offers);
        if again.taken().count() <= growth.taken().count() {
            return growth;
        }
        for (slot, _, _) in again.taken() {
            if let Some(owner) = owners.get(slot) {
                self.shared.preempt(slot, owner);
            }
        }
        again
    }

    fn grow(&mut self, offers: Vec<Slot>) -> Growth {
        if let Some(guide) = self.lead.guide() {
            return follow(&self.following(guide), offers, self.unavailable());
        }
        let unavailable = self.unavailable.get_or_insert_default();
        grow(self.crew, self.model, self.need, offers, unavailable, self.world.now)
    }

    /// Takes one out, or moves work, if less would do.
    fn reduce(&mut self, growth: &Growth) -> Option<Shrinkage> {
        let pool = self.crew.pool;
        let above = total(&self.target) > pool.replicas.max;
        // A spare for which the spec has no room is no reason to keep anything else.
        let roomless = |problem: &Problem| problem.reason == Reason::SpareForLoss;
        let enough = growth.taken().next().is_none() && (growth.short.as_ref().is_none_or(roomless) || above);
        // What is planned to come does not keep what is planned to go: both are one plan.
        if pool.deleting || (!enough && self.lead.guide().is_none()) {
            return None;
        }
        let stock = &self.shared.stock;
        let offers = || slots(self.crew, self.options, stock, pool.replicas.max).0;
        let case = Case {
            world: self.world,
            crew: self.crew,
            model: self.model,
            options: self.options,
            need: self.need,
            offers: &offers,
            draining: &self.shared.draining,
        };
        let shrinkage = match self.lead.guide() {
            Some(guide) => part(&case, guide, &self.shared.promised.to_others(self.crew.id)),
            None => shrink(&case),
        };
        match &shrinkage.verdict {
            Surplus::Remove(name, reason, message, rejected) => {
                if let Some(victim) = pool.running.get(name) {
                    self.target = without(&self.target, &victim.group);
                    *self.shared.draining.entry(victim.group.clone()).or_default() += 1;
                }
                self.begin_drain(name, *reason, message, rejected);
            }
            Surplus::Move(slots, message) => {
                if self.unavailable.is_none() {
                    self.look_around();
                }
                for slot in slots {
                    self.take_slot(slot, Reason::ReturnToOwned, message);
                }
            }
            Surplus::Hold(_, Some(until)) => self.shared.draft.wake(*until),
            Surplus::Hold(_, None) | Surplus::Needed => {}
        }
        Some(shrinkage)
    }

    /// Why there are still more than the spec allows, if so.
    fn above_maximum(&self, shrinkage: Option<&Shrinkage>) -> Option<Problem> {
        let above = total(&self.target) > self.crew.pool.replicas.max;
        shrinkage.and_then(Shrinkage::held).filter(|_| above).cloned()
    }

    /// Begins the drain of those that have to go and can. Why others stay, if any do.
    fn send_off(&mut self, replaceable: bool) -> Option<Problem> {
        let Leave { going, held } = leave(
            self.world,
            self.crew,
            self.model,
            self.need,
            Wanted {
                replicas: total(&self.target),
                by_plan: self.lead.guide().is_some(),
                replaceable,
            },
            &mut self.shared.draining,
        );
        for (name, reason, message) in going {
            self.begin_drain(&name, reason, &message, &[]);
        }
        held
    }

    /// Turns one slot into decisions, and takes it off the shelves.
    fn take_slot(&mut self, slot: &Slot, reason: Reason, message: &str) {
        if slot.verdict == Verdict::Act {
            self.target = with(&self.target, &slot.group);
        }
        let pool = self.crew.id.clone();
        let alternatives = || self.options.alternatives(&slot.group, self.unavailable());
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
                let guide = self.lead.guide().filter(|_| reason == Reason::PlannedAhead);
                let planned = guide.and_then(|guide| guide.rejected(&slot.group));
                let ask = Ask {
                    name: self.approved_name(slot),
                    reason: if reason == Reason::PlannedAhead {
                        reason
                    } else {
                        Reason::ServersNeeded
                    },
                    message: format!("for pool {pool}: {message}"),
                    verdict: slot.verdict,
                    rejected: match planned {
                        Some(planned) => planned.iter().cloned().chain(self.options.unsatisfying()).collect(),
                        None => alternatives(),
                    },
                };
                self.shared.stock.shelf(&slot.group).asked.push(ask);
            }
            // On its way already.
            Source::Reclaim(_) | Source::Vacating(_) | Source::Coming => {}
        }
        take(slot, &mut self.shared.stock, server_state);
    }

    /// By which name people have approved a purchase that would only be proposed without them.
    fn approved_name(&self, slot: &Slot) -> Option<ServerName> {
        let (name, choice) = (&slot.group, self.options.choice(&slot.group)?);
        let stock = &self.shared.stock;
        let needs_approval = choice.verdict == Verdict::Propose && slot.verdict == Verdict::Act;
        let approved = approved(name, choice.group, stock.shelves.get(name)?, self.crew.pool);
        approved.into_iter().next().filter(|_| needs_approval).cloned()
    }

    fn begin_drain(&mut self, name: &ReplicaId, reason: Reason, message: &str, rejected: &[Rejected]) {
        let Some(replica) = self.crew.pool.running.get(name) else {
            return;
        };
        self.going.insert(name.clone());
        if voluntary(reason) && reason != Reason::RevisionReplaced {
            self.shared.claims.vacate(&replica.group, &replica.server);
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
                self.shared.claims.keep(member.group, &member.replica.server);
            }
        }
    }

    fn remember(&mut self, growth: &Growth, shrinkage: Option<&Shrinkage>, held: Option<&Problem>) -> PoolMemory {
        let (old, now) = (&self.crew.pool.memory, self.world.now);
        let target = total(&self.target);
        let grown = target > old.target.unwrap_or(0) && (growth.taken().next().is_some() || old.target.is_none());
        let removed = shrinkage.is_some_and(|shrinkage| matches!(shrinkage.verdict, Surplus::Remove(..)));
        let surplus = shrinkage.is_some_and(|shrinkage| shrinkage.surplus);
        let missing = episode(self.crew, total(self.crew.kept()), now);
        let held_since = held.map(|_| old.held_since.unwrap_or(now));
        let wakes = [
            missing.map(|episode| episode.since + REACT_AFTER),
            growth.short_since.map(|since| since + PURCHASE_DWELL),
            held_since.map(|since| since + HELD_LIMIT),
        ];
        for at in wakes.into_iter().flatten() {
            self.shared.draft.wake(at);
        }
        PoolMemory {
            last_added: if grown { Some(now) } else { old.last_added },
            last_removed: if removed { Some(now) } else { old.last_removed },
            surplus_since: surplus.then(|| old.surplus_since.unwrap_or(now)),
            missing_objective_since: missing.map(|episode| episode.since),
            missing_objective_from: missing.map(|episode| episode.from),
            short_since: growth.short_since,
            held_since,
            target: Some(target),
            spent: self.world.accounts.spent(self.crew.id, self.crew.pool, now),
            lengths: remembered_lengths(self.crew.pool, now),
        }
    }
}
