//! The steps of a replica's drain. Recorded on the Pod, so that a drain resumes after a crash at any point.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::time::Timestamp;

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
