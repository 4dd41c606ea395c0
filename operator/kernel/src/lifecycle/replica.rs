//! The life of a replica, derived from its Pod.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The life of a replica as its Pod shows it. A drain is recorded beside it, in [`super::Drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplicaState {
    /// Created; not on its server yet.
    Pending,
    /// On its server; the model is loading.
    Loading,
    /// The engine answers its readiness probe.
    Ready,
    /// It was ready and is not any more, or its server does not answer: out of capacity, and investigated.
    Suspect,
    /// Deleted, but its process may still answer requests.
    Terminating,
    /// Its process has ended by itself; the Pod is only a record.
    Ended,
}

/// What is seen of a replica's Pod and its Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as the Pod's status has them"
)]
pub struct ReplicaFacts {
    /// When the Pod was created.
    pub created: Timestamp,
    /// The Pod's phase is Succeeded or Failed.
    pub ended: bool,
    /// The Pod is being deleted: its process is killed at this time at the latest.
    pub deleted: Option<Timestamp>,
    /// The scheduler has bound it to its server.
    pub bound: bool,
    /// Its Ready condition is True.
    pub ready: bool,
    /// When its Ready condition last changed.
    pub ready_since: Option<Timestamp>,
    /// It has been ready before. A Ready condition that turned False after the container's start says so, and so does
    /// the serving label, which only a ready replica gets.
    pub was_ready: bool,
    /// Since when its Node's Ready condition is False or Unknown.
    pub node_down: Option<Timestamp>,
}

/// Where a replica is in its life, and since when. For one that is being deleted: until when.
pub fn replica_state(facts: &ReplicaFacts) -> (ReplicaState, Timestamp) {
    let ReplicaFacts {
        created,
        ended,
        deleted,
        bound,
        ready,
        ready_since,
        was_ready,
        node_down,
    } = *facts;
    let changed = ready_since.unwrap_or(created);
    if ended {
        (ReplicaState::Ended, changed)
    } else if let Some(until) = deleted {
        (ReplicaState::Terminating, until)
    } else if !bound {
        (ReplicaState::Pending, created)
    } else if let Some(since) = node_down {
        // The kubelet of a dead machine cannot say that its Pods are not ready.
        (ReplicaState::Suspect, since)
    } else if ready {
        (ReplicaState::Ready, changed)
    } else if was_ready {
        (ReplicaState::Suspect, changed)
    } else {
        (ReplicaState::Loading, created)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_millis(minutes * 60_000)
    }

    #[test]
    fn the_state_follows_from_the_pod_and_its_node() {
        use ReplicaState as S;
        let none = ReplicaFacts {
            created: at(0),
            ended: false,
            deleted: None,
            bound: false,
            ready: false,
            ready_since: Some(at(3)),
            was_ready: false,
            node_down: None,
        };
        let bound = ReplicaFacts { bound: true, ..none };
        let ready = ReplicaFacts { ready: true, ..bound };
        let stumbled = ReplicaFacts {
            was_ready: true,
            ..bound
        };
        let silent = ReplicaFacts {
            node_down: Some(at(7)),
            ..ready
        };
        let leaving = ReplicaFacts {
            deleted: Some(at(20)),
            ..ready
        };
        let ended = ReplicaFacts { ended: true, ..leaving };
        for (facts, expected) in [
            (none, (S::Pending, at(0))),
            (bound, (S::Loading, at(0))),
            (ready, (S::Ready, at(3))),
            (stumbled, (S::Suspect, at(3))),
            (silent, (S::Suspect, at(7))),
            (leaving, (S::Terminating, at(20))),
            (ended, (S::Ended, at(3))),
        ] {
            assert_eq!(replica_state(&facts), expected, "{facts:?}");
        }
    }
}
