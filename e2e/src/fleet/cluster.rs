//! One member cluster: what of the fleet is up in it, and how it is talked to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff;
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::faults::Ailments;
use super::group::Group;
use super::process::Process;

/// Longest that one call may take. Real time: the API server is real.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl CallError {
    /// The object is not there, or another one has taken its name.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict())
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_already_exists())
    }
}

/// Calls the API server with a bound.
pub(crate) async fn call<T>(future: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, future).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::TimedOut),
    }
}

/// Pauses between attempts: 0.2 s at first, doubled up to 5 s. Real time.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    /// How long to wait before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = Duration::from_millis(200 << self.0.min(5)).min(Duration::from_secs(5));
        self.0 = self.0.saturating_add(1);
        pause
    }

    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

// For watches.
impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.pause())
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

/// A member cluster.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// The servers that are up, by the name of their Node.
    up: Mutex<BTreeMap<String, Arc<Server>>>,
    /// A server has come up: Pods may be waiting for it.
    pub(crate) came_up: Notify,
}

impl Cluster {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            up: Mutex::default(),
            came_up: Notify::new(),
        }
    }

    pub(crate) fn up(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Server>>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine that is up.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) group: Arc<Group>,
    pub(crate) address: Ipv4Addr,
    /// When it booted. Real time.
    pub(crate) booted: jiff::Timestamp,
    pub(crate) ailments: watch::Sender<Ailments>,
    /// It was given back: everything on it ends.
    pub(crate) released: CancellationToken,
    /// By the uid of their Pod.
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
}

impl Server {
    pub(crate) fn new(name: &str, group: Arc<Group>, address: Ipv4Addr, ailments: Ailments) -> Self {
        Self {
            name: name.to_owned(),
            group,
            address,
            booted: jiff::Timestamp::now(),
            ailments: watch::Sender::new(ailments),
            released: CancellationToken::new(),
            processes: Mutex::default(),
        }
    }

    pub(crate) fn processes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what it suffers from. The processes of a machine that dies are lost at once.
    pub(crate) fn suffer(&self, ailments: Ailments) {
        let changed = self.ailments.send_if_modified(|now| {
            let changed = *now != ailments;
            *now = ailments;
            changed
        });
        if changed && ailments.dead {
            for process in self.processes().values() {
                process.machine_died();
            }
        }
    }

    /// Ends everything on it.
    pub(crate) async fn kill_all(&self) {
        self.released.cancel();
        let processes: Vec<_> = std::mem::take(&mut *self.processes()).into_values().collect();
        for process in processes {
            process.kill().await;
        }
    }
}
