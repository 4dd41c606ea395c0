//! The hub and the member clusters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use pomarium_kernel::names::SiteName;

/// The cluster in which Pomarium's own objects live.
#[derive(Clone)]
pub struct Hub {
    /// For reading: watches and gets.
    pub read: Client,
    /// For writing: no hidden retries, every call bounded, refused while this process does not lead.
    pub write: Client,
    /// The operator's own namespace.
    pub namespace: String,
    /// Uid of the hub's `kube-system` namespace: marks what is ours in member clusters.
    pub uid: String,
}

/// A connection to a member cluster.
#[derive(Clone)]
pub struct Member {
    /// Whose.
    pub site: SiteName,
    /// For reading: watches and gets.
    pub read: Client,
    /// For writing: no hidden retries, every call bounded, refused while this process does not lead.
    pub write: Client,
    /// It is the hub itself.
    pub local: bool,
}

/// The member clusters that answer. Clones share their content.
#[derive(Clone, Default)]
pub struct Members {
    connected: Arc<Mutex<BTreeMap<SiteName, Arc<Member>>>>,
}

impl Members {
    /// The connection to `site`; `None` while contact is lost, so that nobody waits for a dead cluster.
    pub fn get(&self, site: &SiteName) -> Option<Arc<Member>> {
        self.lock().get(site).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SiteName, Arc<Member>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
