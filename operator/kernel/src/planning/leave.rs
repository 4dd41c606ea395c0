//! Replicas that have to go: replacement first, unless the reason outranks capacity.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::crew::{Crew, Member, Standing, outranks, victim_order, voluntary};
use super::demand::Need;
use super::figures;
use super::hold::disruption;
use super::model::{Counts, Model, total, without};
use super::options::Options;
use super::policy::TARGET_UTILIZATION;
use super::world::World;
use crate::names::{GroupName, ReplicaId};
use crate::reason::{Problem, Reason};

/// Marks the one replica of an old revision that is replaced next. Surge one, drain one: never two at a time.
pub(crate) fn roll(crew: &mut Crew, options: &Options) {
    let pool = crew.pool;
    let rolling = crew.of(Standing::Draining).any(|member| {
        member
            .replica
            .drain
            .is_some_and(|drain| drain.reason == Reason::RevisionReplaced)
    });
    if rolling {
        return;
    }
    let next = crew
        .members
        .iter_mut()
        .filter(|member| {
            member.standing == Standing::Keeper
                && member.replica.revision != pool.revision
                && !member.hands_off
                && !member.held()
        })
        .min_by_key(|member| {
            (
                Reverse(options.place(member.group, member.server)),
                victim_order(member, pool),
            )
        });
    if let Some(member) = next {
        member.standing = Standing::Leaving(Reason::RevisionReplaced);
        crew.moved();
    }
}

/// Marks replicas on servers that a pool of higher priority takes.
pub(crate) fn preempt(crew: &mut Crew, taken: &Counts) {
    let pool = crew.pool;
    for (group, &count) in taken {
        let mut victims: Vec<&mut Member> = crew
            .members
            .iter_mut()
            .filter(|member| {
                member.standing == Standing::Keeper
                    && member.replica.group == *group
                    && !member.hands_off
                    && !member.held()
            })
            .collect();
        victims.sort_by_cached_key(|member| victim_order(member, pool));
        for member in victims.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            member.standing = Standing::Leaving(Reason::Preempted);
        }
    }
    crew.moved();
}

/// What becomes of replicas that have to go.
#[derive(Debug)]
pub(crate) struct Leave {
    /// Whose drain begins now, with reason and sentence.
    pub(crate) going: Vec<(ReplicaId, Reason, String)>,
    /// Why the first of the others stays for now.
    pub(crate) held: Option<Problem>,
}

/// How many replicas a pool wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) replicas: u32,
    /// The strategic plan says so: so many are enough, whatever their load.
    pub(crate) by_plan: bool,
    /// There are servers for those that are missing.
    pub(crate) replaceable: bool,
}

/// What becomes of replicas that have to go.
pub(crate) fn leave(
    world: &World,
    crew: &Crew,
    model: &Model,
    need: &Need,
    wanted: Wanted,
    draining: &mut BTreeMap<GroupName, u32>,
) -> Leave {
    let (mut going, mut held) = (Vec::new(), None);
    let mut leaving: Vec<_> = crew.leaving().filter(|(member, _)| !member.hands_off).collect();
    if leaving.is_empty() {
        return Leave { going, held };
    }
    let mut serving = crew.serving().clone();
    leaving.sort_by_cached_key(|(member, _)| victim_order(member, crew.pool));
    for (member, reason) in leaving {
        let group = member.group;
        // An engine that nobody can read may serve all the same: it goes when the others are enough without it.
        let counts = member.serving || reason == Reason::EngineSilent;
        let rest = if member.serving {
            without(&serving, group)
        } else {
            serving.clone()
        };
        if !outranks(reason) {
            let too_few = counts && !holds(crew, model, need, &rest, wanted);
            let by_choice = world
                .group(group)
                .filter(|_| voluntary(reason))
                .and_then(|(found, _)| disruption(group, &found.disruption, draining));
            if let Some(problem) = stays(member, too_few, by_choice, wanted.replaceable) {
                held.get_or_insert(problem);
                continue;
            }
        }
        if voluntary(reason) {
            *draining.entry(group.clone()).or_default() += 1;
        }
        going.push((member.name.clone(), reason, sentence(member, reason, &rest)));
        serving = rest;
    }
    Leave { going, held }
}

/// Why a replica that has to go stays for now.
fn stays(member: &Member, too_few: bool, by_choice: Option<Problem>, replaceable: bool) -> Option<Problem> {
    let server = &member.replica.server;
    if member.held() {
        return Some(Problem::new(
            Reason::Held,
            format!("server {server} is held by annotation"),
        ));
    }
    match (by_choice, too_few, replaceable) {
        (Some(problem), ..) => Some(problem),
        (None, false, _) => None,
        (None, true, true) => {
            let message = format!("the replica on server {server} serves until others can take its place");
            Some(Problem::new(Reason::ReplicasLoading, message))
        }
        (None, true, false) => {
            let message = format!("nothing can take the place of the replica on server {server}");
            Some(Problem::new(Reason::CapacityExhausted, message))
        }
    }
}

/// Whether `rest` is enough until the others come back.
fn holds(crew: &Crew, model: &Model, need: &Need, rest: &Counts, wanted: Wanted) -> bool {
    let left = total(rest);
    if wanted.by_plan && left >= wanted.replicas.max(crew.pool.replicas.min) {
        return true;
    }
    if model.unfathomed(rest) {
        // Nobody can say what the rest carries.
        return left >= wanted.replicas;
    }
    match need {
        Need::Unknown { .. } | Need::Known { lengths: None, .. }
            if need.rate().is_none_or(|rate| rate.as_per_second() > 0.0) =>
        {
            left >= wanted.replicas
        }
        Need::Known { rate, .. } => {
            left >= crew.pool.replicas.min
                && (model.lack(rest, *rate, TARGET_UTILIZATION).is_none()
                    // Nothing can take its place: the spare that is there for losses is there for this.
                    || (!wanted.replaceable && model.carries(rest, *rate, TARGET_UTILIZATION)))
        }
        Need::Unknown { .. } => false,
    }
}

fn sentence(member: &Member, reason: Reason, rest: &Counts) -> String {
    let server = &member.replica.server;
    let left = figures::replicas(rest);
    match reason {
        Reason::PoolDeleted => "the pool is being deleted".to_owned(),
        Reason::NoLongerPermitted => {
            format!("trust, residency or licence do not permit the pool on server {server} any more")
        }
        Reason::NoLongerSelected => {
            format!(
                "the pool does not select group {} any more; {left} serve on",
                member.replica.group
            )
        }
        Reason::GroupDeleted => format!("group {} is being deleted; {left} serve on", member.replica.group),
        Reason::ReplicaLate => format!("it was not ready on server {server} in time; {left} serve on"),
        Reason::EngineSilent => format!("its engine on server {server} answers nobody; {left} serve on"),
        Reason::ServerFailed => format!("the provider gave server {server} up; {left} serve on"),
        Reason::ReplicaLost => format!("server {server} or the replica on it does not answer; {left} serve on"),
        Reason::ServerCordoned => format!("server {server} is cordoned; {left} serve on"),
        Reason::SiteDraining => format!("site {} is being drained; {left} serve on", member.replica.site),
        Reason::RevisionReplaced => format!("it runs revision {}; {left} serve on", member.replica.revision),
        Reason::Preempted => format!("server {server} is needed by a pool of higher priority; {left} serve on"),
        _ => format!("{left} serve on"),
    }
}
