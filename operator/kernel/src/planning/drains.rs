//! Runs the drains that are under way, and clears away what has ended.

use std::collections::BTreeSet;

use super::crew::{Crew, Standing};
use super::draft::Draft;
use super::world::World;
use crate::lifecycle::{Drain, DrainFacts, DrainStep, ReplicaState, Transition};
use crate::names::ReplicaId;
use crate::plan::Action;
use crate::reason::Reason;

/// What the drains of one pool wait for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Replicas whose deadline has passed and that are kept.
    pub(crate) kept: u32,
}

/// One step for every drain of the pool but those in `recalled`.
pub(crate) fn run(world: &World, crew: &Crew, recalled: &BTreeSet<ReplicaId>, draft: &mut Draft) -> Waiting {
    let mut waiting = Waiting::default();
    let policy = &crew.pool.drain;
    for member in crew.of(Standing::Over).filter(|member| !member.hands_off) {
        let replica = member.replica;
        if replica.state == ReplicaState::Ended {
            draft.decide(
                Action::RemoveReplica {
                    pool: crew.id.clone(),
                    replica: member.name.clone(),
                    uid: replica.uid.clone(),
                    cut: 0,
                },
                Reason::ReplicaLost,
                format!("its process on server {} has ended", replica.server),
            );
        }
    }
    // A Pod that is being deleted is over for the plan, but its process answers on: it is drained to the end as well.
    let leaving = crew.of(Standing::Draining).chain(crew.of(Standing::Over));
    for member in leaving {
        let replica = member.replica;
        if member.hands_off || recalled.contains(member.name) || replica.state == ReplicaState::Ended {
            continue;
        }
        let Some(drain) = &replica.drain else {
            // Somebody else deleted it. Its process waits for the whole time-out unless it is drained.
            let drain = Drain::begin(Reason::PodDeleted, policy, world.now);
            draft.decide(
                Action::DrainReplica {
                    pool: crew.id.clone(),
                    replica: member.name.clone(),
                    step: drain.step,
                    deadline: drain.deadline,
                },
                drain.reason,
                format!("somebody else deleted the Pod on server {}", replica.server),
            );
            continue;
        };
        let facts = DrainFacts {
            state: replica.state,
            serving: replica.serving,
            load: replica.load,
            server_gone: world.server_gone(replica),
        };
        match drain.next(&facts, policy, world.now) {
            Transition::Stay { reason, until } => {
                if reason == Reason::DeadlineKept {
                    waiting.kept += 1;
                }
                if let Some(until) = until {
                    draft.wake(until);
                }
            }
            // The reason stays that of the drain: it is what is recorded on the Pod.
            Transition::Advance(step) => draft.decide(
                Action::DrainReplica {
                    pool: crew.id.clone(),
                    replica: member.name.clone(),
                    step,
                    deadline: drain.deadline(policy),
                },
                drain.reason,
                match step {
                    DrainStep::Fence => "it carries the serving label again: fenced once more",
                    DrainStep::Quiesce => "the fence is seen: waiting until the engine reports no request",
                    DrainStep::Remove => "the engine is quiet",
                },
            ),
            Transition::Remove { reason, cut } => draft.decide(
                Action::RemoveReplica {
                    pool: crew.id.clone(),
                    replica: member.name.clone(),
                    uid: replica.uid.clone(),
                    cut,
                },
                reason,
                match reason {
                    Reason::DeadlineCut => format!("the deadline has passed and onDeadline is Cut: {cut} requests"),
                    Reason::ReplicaLost => format!("nothing can answer on server {} any more", replica.server),
                    _ => format!("no request is running or queued; drained for {}", drain.reason),
                },
            ),
        }
    }
    waiting
}
