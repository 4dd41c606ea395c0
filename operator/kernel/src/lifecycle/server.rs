//! The life of a server.

use serde::{Deserialize, Serialize};

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServerState {
    /// Asked for; the provider has not confirmed.
    Requested,
    /// The provider is preparing it. Paid from here if leased.
    Provisioning,
    /// It starts; its Node is not Ready yet.
    Booting,
    /// Its Node is Ready.
    Ready,
    /// No new work; what runs is being drained; it will be released.
    Draining,
    /// Given back; the provider has not confirmed.
    Releasing,
    /// The provider is cleaning it: unavailable, not failed.
    Recycling,
    /// It does not exist any more.
    Gone,
    /// It stopped answering: out of capacity, investigated before release.
    Suspect,
    /// It did not come up within its time-box, or the provider gave up on it.
    Failed,
}
