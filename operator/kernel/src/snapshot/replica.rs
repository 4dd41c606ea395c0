//! The Pods of pools, and what their engines say they are doing.

use serde::{Deserialize, Serialize};

use crate::lifecycle::{Drain, ReplicaState};
use crate::names::{GroupName, Revision, ServerName, SiteName};
use crate::time::Timestamp;

/// One Pod of a pool on one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// Its uid: every destructive call carries it.
    pub uid: String,
    /// Where it runs.
    pub site: SiteName,
    /// On which group's server.
    pub group: GroupName,
    /// On which server.
    pub server: ServerName,
    /// What it runs.
    pub revision: Revision,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// When it got there; for one that is being deleted, when it is killed at the latest.
    pub since: Timestamp,
    /// It carries the label `pomarium.dev/serving`: routers may send it requests.
    pub serving: bool,
    /// The drain under way, if any.
    pub drain: Option<Drain>,
    /// What its engine says it is doing.
    pub load: Load,
    /// Since when its engine does not answer, although it is asked. `None` if it answers, or nobody asks it.
    pub silent_since: Option<Timestamp>,
    /// When the Pod was created.
    pub created: Timestamp,
}

/// What an engine says it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Load {
    /// It answered.
    Known {
        /// Requests in the batch.
        running: u32,
        /// Requests waiting in the engine.
        queued: u32,
        /// When it was asked.
        at: Timestamp,
    },
    /// It did not. Not the same as idle.
    Unknown,
}
