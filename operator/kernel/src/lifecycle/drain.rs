//! The steps of a replica's drain. Recorded on the Pod, so that a drain resumes after a crash at any point.
//!
//! | step | waits for | deadline |
//! |---|---|---|
//! | Fence | the serving label is seen gone, and [`FENCE_GRACE`] | the drain's |
//! | Quiesce | a reading taken in this step: nothing running, nothing queued | the drain's |
//! | Remove | nothing | none |
//!
//! At the drain's deadline the pool's `onDeadline` decides: `Keep` waits on and says so, `Cut` removes and counts.

use serde::{Deserialize, Serialize};

use super::ReplicaState;
use crate::reason::Reason;
use crate::snapshot::{DrainPolicy, Load, OnDeadline};
use crate::time::{Span, Timestamp};

/// How long a fenced replica still expects requests.
///
/// Removing the label is seen by the `EndpointSlice` controller, then by every proxy and router, each through a watch: a
/// second or two where all is well. Requests that were routed just before must have arrived before an idle engine
/// proves anything.
pub const FENCE_GRACE: Span = Span::from_secs(5);

/// A drain under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// What is being waited for.
    pub step: DrainStep,
    /// When this step began.
    pub step_since: Timestamp,
    /// Why it drains.
    pub reason: Reason,
    /// When the pool's `onDeadline` applies. May only come nearer.
    pub deadline: Timestamp,
}

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DrainStep {
    /// The serving label is gone; routers are given time to notice.
    Fence,
    /// No new requests arrive; those in flight are finishing.
    Quiesce,
    /// The engine reported zero running and zero queued requests, or the deadline decided: the Pod may be deleted.
    Remove,
}

/// What a drain needs to know of its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainFacts {
    /// Where the replica is in its life.
    pub state: ReplicaState,
    /// It is seen with the label `pomarium.dev/serving`.
    pub serving: bool,
    /// What its engine says.
    pub load: Load,
    /// Its server does not exist any more, or its provider gave it up: nothing can run there.
    pub server_gone: bool,
}

/// What happens to a drain now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It waits.
    Stay {
        /// For what.
        reason: Reason,
        /// Until then at the latest, if time alone can end the wait.
        until: Option<Timestamp>,
    },
    /// The next step begins.
    Advance(DrainStep),
    /// The Pod may be deleted.
    Remove {
        /// Why.
        reason: Reason,
        /// Requests that are cut by this.
        cut: u32,
    },
}

impl Drain {
    /// A drain that begins now.
    pub fn begin(reason: Reason, policy: &DrainPolicy, now: Timestamp) -> Self {
        Self {
            step: DrainStep::Fence,
            step_since: now,
            reason,
            deadline: now + policy.timeout,
        }
    }

    /// When `onDeadline` applies. A timeout that was shortened since only tightens it.
    pub fn deadline(&self, policy: &DrainPolicy) -> Timestamp {
        self.deadline.min(self.step_since + policy.timeout)
    }

    /// What happens now.
    ///
    /// # Guarantees
    /// A replica that may still answer a request is removed only by `Cut` at the deadline. An engine that cannot be
    /// read counts as busy, unless its process cannot exist any more.
    pub fn next(&self, facts: &DrainFacts, policy: &DrainPolicy, now: Timestamp) -> Transition {
        // Whoever deleted the Pod gave it a grace period: nothing needs to be cut, and nothing deleted for being gone.
        let ends_by_itself = facts.state == ReplicaState::Terminating;
        if facts.state == ReplicaState::Ended || (facts.server_gone && !ends_by_itself) {
            return Transition::Remove {
                reason: Reason::ReplicaLost,
                cut: 0,
            };
        }
        // A Pod that never got ready has never been sent a request.
        if matches!(facts.state, ReplicaState::Pending | ReplicaState::Loading) && !facts.serving {
            return Transition::Remove {
                reason: Reason::Quiet,
                cut: 0,
            };
        }
        let deadline = self.deadline(policy);
        let late = now >= deadline && !ends_by_itself;
        if late && policy.on_deadline == OnDeadline::Cut {
            return Transition::Remove {
                reason: Reason::DeadlineCut,
                cut: in_flight(&facts.load).unwrap_or(0),
            };
        }
        match self.step {
            DrainStep::Fence => {
                let fenced = self.step_since + FENCE_GRACE;
                if now < fenced {
                    Transition::Stay {
                        reason: Reason::Fencing,
                        until: Some(fenced),
                    }
                } else if facts.serving {
                    // Long enough for our own write to be seen: somebody has put the label back.
                    Transition::Advance(DrainStep::Fence)
                } else {
                    Transition::Advance(DrainStep::Quiesce)
                }
            }
            DrainStep::Quiesce => self.quiesce(facts, deadline, late),
            DrainStep::Remove => Transition::Remove {
                reason: Reason::Quiet,
                cut: 0,
            },
        }
    }

    fn quiesce(&self, facts: &DrainFacts, deadline: Timestamp, late: bool) -> Transition {
        match facts.load {
            // Somebody has put the label back, or the patch was lost: what is read now proves nothing.
            _ if facts.serving => Transition::Advance(DrainStep::Fence),
            Load::Known {
                running: 0,
                queued: 0,
                at,
            } if at >= self.step_since => Transition::Remove {
                reason: Reason::Quiet,
                cut: 0,
            },
            // Its Node or its readiness is gone, and its engine has been silent for a whole drain: two witnesses.
            Load::Unknown if late && facts.state == ReplicaState::Suspect => Transition::Remove {
                reason: Reason::ReplicaLost,
                cut: 0,
            },
            _ => Transition::Stay {
                reason: if late { Reason::DeadlineKept } else { Reason::Quiescing },
                until: (!late).then_some(deadline),
            },
        }
    }
}

/// Requests in an engine, if it said.
pub(crate) fn in_flight(load: &Load) -> Option<u32> {
    match *load {
        Load::Known { running, queued, .. } => Some(running.saturating_add(queued)),
        Load::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: DrainPolicy = DrainPolicy {
        timeout: Span::from_minutes(15),
        on_deadline: OnDeadline::Keep,
    };
    const CUT: DrainPolicy = DrainPolicy {
        on_deadline: OnDeadline::Cut,
        ..KEEP
    };
    const QUIET: Transition = Transition::Remove {
        reason: Reason::Quiet,
        cut: 0,
    };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    fn drain(step: DrainStep, since: i64) -> Drain {
        Drain {
            step,
            step_since: at(since),
            reason: Reason::DemandFell,
            deadline: at(900),
        }
    }

    fn load(running: u32, read_at: i64) -> Load {
        Load::Known {
            running,
            queued: 0,
            at: at(read_at),
        }
    }

    fn facts(serving: bool, load: Load) -> DrainFacts {
        DrainFacts {
            state: ReplicaState::Ready,
            serving,
            load,
            server_gone: false,
        }
    }

    #[test]
    fn a_fence_needs_the_label_gone_and_the_grace_over() {
        let fence = drain(DrainStep::Fence, 0);
        let stay = Transition::Stay {
            reason: Reason::Fencing,
            until: Some(at(5)),
        };
        assert_eq!(fence.next(&facts(false, load(0, 1)), &KEEP, at(4)), stay);
        assert_eq!(
            fence.next(&facts(true, load(0, 1)), &KEEP, at(6)),
            Transition::Advance(DrainStep::Fence),
            "the label has to go first"
        );
        assert_eq!(
            fence.next(&facts(false, Load::Unknown), &KEEP, at(5)),
            Transition::Advance(DrainStep::Quiesce)
        );
    }

    #[test]
    fn only_a_reading_taken_in_the_step_proves_that_it_is_quiet() {
        let quiesce = drain(DrainStep::Quiesce, 5);
        let busy = Transition::Stay {
            reason: Reason::Quiescing,
            until: Some(at(900)),
        };
        let queued = Load::Known {
            running: 0,
            queued: 1,
            at: at(20),
        };
        for not_quiet in [load(0, 4), load(3, 20), queued, Load::Unknown] {
            assert_eq!(
                quiesce.next(&facts(false, not_quiet), &KEEP, at(21)),
                busy,
                "{not_quiet:?}"
            );
        }
        assert_eq!(quiesce.next(&facts(false, load(0, 5)), &KEEP, at(21)), QUIET);
    }

    #[test]
    fn a_label_that_is_back_fences_again() {
        assert_eq!(
            drain(DrainStep::Quiesce, 5).next(&facts(true, load(0, 6)), &KEEP, at(7)),
            Transition::Advance(DrainStep::Fence)
        );
    }

    #[test]
    fn at_the_deadline_the_choice_is_the_pools() {
        let quiesce = drain(DrainStep::Quiesce, 5);
        let busy = facts(false, load(3, 890));
        assert_eq!(
            quiesce.next(&busy, &KEEP, at(900)),
            Transition::Stay {
                reason: Reason::DeadlineKept,
                until: None
            }
        );
        assert_eq!(
            quiesce.next(&busy, &CUT, at(900)),
            Transition::Remove {
                reason: Reason::DeadlineCut,
                cut: 3
            }
        );
        assert_eq!(
            quiesce.next(&facts(false, Load::Unknown), &KEEP, at(5_000)),
            Transition::Stay {
                reason: Reason::DeadlineKept,
                until: None
            },
            "an engine that cannot be read is not idle"
        );
    }

    #[test]
    fn the_deadline_only_tightens() {
        let quiesce = drain(DrainStep::Quiesce, 5);
        let shorter = DrainPolicy {
            timeout: Span::from_secs(60),
            ..KEEP
        };
        let longer = DrainPolicy {
            timeout: Span::from_hours(9),
            ..KEEP
        };
        assert_eq!(quiesce.deadline(&shorter), at(65));
        assert_eq!(quiesce.deadline(&longer), at(900));
    }

    #[test]
    fn what_cannot_answer_needs_no_quiescing() {
        let quiesce = drain(DrainStep::Quiesce, 5);
        let lost = Transition::Remove {
            reason: Reason::ReplicaLost,
            cut: 0,
        };
        let mut gone = facts(false, Load::Unknown);
        gone.server_gone = true;
        assert_eq!(quiesce.next(&gone, &KEEP, at(6)), lost);
        let mut ended = facts(true, load(2, 6));
        ended.state = ReplicaState::Ended;
        assert_eq!(quiesce.next(&ended, &KEEP, at(6)), lost);
        let mut loading = facts(false, Load::Unknown);
        loading.state = ReplicaState::Loading;
        assert_eq!(quiesce.next(&loading, &KEEP, at(6)), QUIET);
        let mut silent = facts(false, Load::Unknown);
        silent.state = ReplicaState::Suspect;
        assert!(matches!(quiesce.next(&silent, &KEEP, at(899)), Transition::Stay { .. }));
        assert_eq!(quiesce.next(&silent, &KEEP, at(900)), lost);
    }

    #[test]
    fn a_pod_that_somebody_else_deleted_is_removed_when_it_is_quiet_and_never_cut() {
        let leaving = |load| DrainFacts {
            state: ReplicaState::Terminating,
            ..facts(false, load)
        };
        let quiesce = drain(DrainStep::Quiesce, 5);
        assert_eq!(quiesce.next(&leaving(load(0, 6)), &CUT, at(7)), QUIET);
        for not_quiet in [load(2, 2_000), load(0, 4), Load::Unknown] {
            let next = quiesce.next(&leaving(not_quiet), &CUT, at(2_000));
            assert!(matches!(next, Transition::Stay { .. }), "{not_quiet:?}: {next:?}");
        }
        let fence = drain(DrainStep::Fence, 0).next(&leaving(load(0, 1)), &CUT, at(4));
        assert!(
            matches!(fence, Transition::Stay { .. }),
            "routers have to notice first: {fence:?}"
        );
        let gone = DrainFacts {
            server_gone: true,
            ..leaving(Load::Unknown)
        };
        assert!(
            matches!(quiesce.next(&gone, &CUT, at(7)), Transition::Stay { .. }),
            "it is deleted already"
        );
    }
}
