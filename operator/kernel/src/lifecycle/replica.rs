//! The life of a replica, derived from its Pod.

use serde::{Deserialize, Serialize};

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
    /// The Pod's phase is Succeeded or Failed.
    pub ended: bool,
    /// The Pod has a deletion timestamp.
    pub deleted: bool,
    /// The scheduler has bound it to its server.
    pub bound: bool,
    /// Its Ready condition is True.
    pub ready: bool,
    /// It has been ready before. A Ready condition that turned False after the container's start says so, and so does
    /// the serving label, which only a ready replica gets.
    pub was_ready: bool,
    /// Its Node's Ready condition is False or Unknown, or the Node is gone.
    pub node_down: bool,
}

/// Where a replica is in its life.
pub fn replica_state(facts: &ReplicaFacts) -> ReplicaState {
    let ReplicaFacts {
        ended,
        deleted,
        bound,
        ready,
        was_ready,
        node_down,
    } = *facts;
    if ended {
        ReplicaState::Ended
    } else if deleted {
        ReplicaState::Terminating
    } else if !bound {
        ReplicaState::Pending
    } else if node_down {
        // The kubelet of a dead machine cannot say that its Pods are not ready.
        ReplicaState::Suspect
    } else if ready {
        ReplicaState::Ready
    } else if was_ready {
        ReplicaState::Suspect
    } else {
        ReplicaState::Loading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_pod_and_its_node() {
        let none = ReplicaFacts {
            ended: false,
            deleted: false,
            bound: false,
            ready: false,
            was_ready: false,
            node_down: false,
        };
        let bound = ReplicaFacts { bound: true, ..none };
        let ready = ReplicaFacts { ready: true, ..bound };
        let table = [
            (none, ReplicaState::Pending),
            (bound, ReplicaState::Loading),
            (ready, ReplicaState::Ready),
            (
                ReplicaFacts {
                    was_ready: true,
                    ..bound
                },
                ReplicaState::Suspect,
            ),
            (
                ReplicaFacts {
                    node_down: true,
                    ..ready
                },
                ReplicaState::Suspect,
            ),
            (ReplicaFacts { deleted: true, ..ready }, ReplicaState::Terminating),
            (
                ReplicaFacts {
                    ended: true,
                    deleted: true,
                    ..ready
                },
                ReplicaState::Ended,
            ),
        ];
        for (facts, expected) in table {
            assert_eq!(replica_state(&facts), expected, "{facts:?}");
        }
    }
}
