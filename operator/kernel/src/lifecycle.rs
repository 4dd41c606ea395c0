//! The life of a server, of a replica, and the steps of a drain.

pub mod drain;
pub mod server;

use serde::{Deserialize, Serialize};

pub use drain::{Drain, DrainStep};
pub use server::ServerState;

/// The life of a replica as its Pod shows it. A drain is recorded beside it, in [`Drain`].
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
