//! Real Kubernetes control planes as local processes, without containers.
//!
//! ```no_run
//! # async fn example() -> Result<(), pomarium_e2e::cluster::Error> {
//! let hub = pomarium_e2e::cluster::ControlPlane::start("hub").await?;
//! hub.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: assistants}}").await?;
//! assert!(hub.audit()?.iter().any(|event| event.verb == "patch" && event.name == "assistants"));
//! # Ok(()) }
//! ```
//!
//! # Guarantees
//! - Everything listens on 127.0.0.1, on ports that were free, and keeps its data in a temporary folder.
//! - All processes end with the [`ControlPlane`], and with the process that started it, however that one ends.
//! - TLS, RBAC and admission are on, as in a real cluster.
//!
//! # Caveats
//! There are no kubelets: Nodes and Pods only move when somebody plays them. With `POMARIUM_KUBECONFIG_<NAME>` set, the cluster of that
//! kubeconfig is used instead of a local one; it must be empty, and it has no audit log and no pause.

mod audit;
mod binary;
mod install;
mod launch;
mod process;
mod progress;
mod settings;
mod tools;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, fs, io};

use rustix::process::Signal;

pub use audit::AuditEvent;
pub use binary::{BinaryError, Programs, binary, supported};
pub use install::repository;
pub use tools::{Output, helm};

pub(crate) use process::Process;
pub(crate) use progress::show as show_progress;

use crate::wait::TimedOut;
use crate::watchdog;
use launch::Processes;

/// Why a local cluster cannot do what was asked. Its `Debug` is its text too: what a test's `unwrap` shows is for reading.
#[derive(thiserror::Error)]
pub enum Error {
    /// The programs cannot be had.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// A file or process operation failed.
    #[error("preparing {what}: {source}")]
    File {
        /// What was worked on.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A process of the control plane ended or never became ready.
    #[error("starting {process} of cluster {cluster}: {why}; the end of its log:\n{log}")]
    Start {
        /// Name of the cluster.
        cluster: String,
        /// Name of the process.
        process: String,
        /// What was waited for.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// kubectl or Helm refused.
    #[error("running {}: {}\n{}{}", .0.command, .0.status, .0.stderr, .0.stdout)]
    Tool(Box<Output>),
    /// The kubeconfig or the client made from it is unusable.
    #[error("connecting to cluster {cluster}: {why}")]
    Connection {
        /// Name of the cluster.
        cluster: String,
        /// Why.
        why: String,
    },
    /// The API server refused.
    #[error("asking the API server")]
    Api(#[from] kube::Error),
    /// The audit log cannot be read.
    #[error("reading the audit log")]
    Audit(#[from] serde_json::Error),
    /// A condition did not come true in time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// Asked of a cluster that was not started here.
    #[error("cluster {cluster} comes from an existing kubeconfig and has no {what} here")]
    NotOurs {
        /// Name of the cluster.
        cluster: String,
        /// What it lacks.
        what: &'static str,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        std::error::Error::source(self).map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

/// How a local cluster is to be; see [`ControlPlane::builder`].
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent switches, each behind a method with a name"
)]
pub struct Builder {
    name: String,
    scheduler: bool,
    controller_manager: bool,
    audit: bool,
    durable: bool,
}

impl Builder {
    /// Pods are not scheduled: a test pins them itself.
    #[must_use]
    pub fn without_scheduler(mut self) -> Self {
        self.scheduler = false;
        self
    }

    /// No garbage collection, no namespaces' end, no default `ServiceAccounts`: an API server alone, ready soonest.
    #[must_use]
    pub fn without_controller_manager(mut self) -> Self {
        self.controller_manager = false;
        self
    }

    /// Whether the API server writes an audit log. On by default.
    #[must_use]
    pub fn audit(mut self, on: bool) -> Self {
        self.audit = on;
        self
    }

    /// etcd waits for the disk: for tests about lost data.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Result<ControlPlane, Error> {
        ControlPlane::start_as(self).await
    }
}

/// A running cluster. Dropping it ends its processes and removes its data.
#[derive(Debug)]
pub struct ControlPlane {
    settings: Builder,
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    kubeconfig_yaml: String,
    /// `None` for a cluster that was not started here.
    processes: Option<Mutex<Processes>>,
}

impl ControlPlane {
    /// Starts a cluster with everything in it.
    pub async fn start(name: &str) -> Result<Self, Error> {
        Self::builder(name).start().await
    }

    /// A cluster with choices.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            scheduler: true,
            controller_manager: true,
            audit: true,
            durable: false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// A file with the administrator's kubeconfig: an `https` server, an inline CA and an inline token.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The text of [`Self::kubeconfig`].
    pub fn kubeconfig_yaml(&self) -> &str {
        &self.kubeconfig_yaml
    }

    /// The folder with its data and logs, for files that should go with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new client as administrator. Not shared: a client belongs to the runtime that made it, and each test has its own.
    ///
    /// It does not retry: a test sees every answer.
    pub async fn client(&self) -> Result<kube::Client, Error> {
        client(&self.kubeconfig_yaml, self.name()).await
    }

    /// All that the API server has recorded so far, oldest first.
    pub fn audit(&self) -> Result<Vec<AuditEvent>, Error> {
        if self.processes.is_none() || !self.settings.audit {
            return Err(Error::NotOurs {
                cluster: self.name().to_owned(),
                what: "audit log",
            });
        }
        let log = self.folder().join(launch::AUDIT_LOG);
        let text = fs::read_to_string(&log).map_err(|source| Error::File {
            what: log.display().to_string(),
            source,
        })?;
        Ok(audit::parse(&text)?)
    }

    /// Stops the API server's clock (SIGSTOP): connections stay open and nothing answers, as in a partition.
    pub fn pause_api_server(&self) -> Result<(), Error> {
        self.signal_api_server(Signal::STOP)
    }

    /// Lets a paused API server go on.
    pub fn resume_api_server(&self) -> Result<(), Error> {
        self.signal_api_server(Signal::CONT)
    }

    /// Kills the API server and starts it again on the same port with the same data.
    pub async fn restart_api_server(&self) -> Result<(), Error> {
        let settings = &self.settings;
        self.processes("restart")?.restart_api_server(settings, self.folder())?;
        launch::wait_until_ready(self).await
    }

    /// Process ids with their names, in the order of their start.
    pub fn process_ids(&self) -> Vec<(String, u32)> {
        self.processes("processes")
            .map_or_else(|_| Vec::new(), |processes| processes.ids())
    }

    /// Ends it in good order: API server first to say good-bye to its clients, etcd last. Dropping it is quicker.
    pub async fn stop(self) {
        let processes = self
            .processes
            .as_ref()
            .map(|processes| std::mem::take(&mut *processes.lock().unwrap_or_else(PoisonError::into_inner)));
        if let Some(mut processes) = processes {
            processes.terminate(Duration::from_secs(10)).await;
        }
    }

    fn signal_api_server(&self, signal: Signal) -> Result<(), Error> {
        self.processes("API server")?
            .signal_api_server(signal)
            .map_err(|source| Error::File {
                what: "a signal to the API server".to_owned(),
                source,
            })
    }

    fn processes(&self, what: &'static str) -> Result<MutexGuard<'_, Processes>, Error> {
        match &self.processes {
            Some(processes) => Ok(processes.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Err(Error::NotOurs {
                cluster: self.name().to_owned(),
                what,
            }),
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(processes) = &self.processes {
            processes.lock().unwrap_or_else(PoisonError::into_inner).kill();
        }
        watchdog::keep(self.folder());
    }
}

/// A client from a kubeconfig's text, without retries of its own.
pub async fn client(kubeconfig_yaml: &str, cluster: &str) -> Result<kube::Client, Error> {
    let unusable = |why: String| Error::Connection {
        cluster: cluster.to_owned(),
        why,
    };
    // One TLS provider for kube and reqwest alike. Somebody may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig =
        kube::config::Kubeconfig::from_yaml(kubeconfig_yaml).map_err(|error| unusable(error.to_string()))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
        .await
        .map_err(|error| unusable(error.to_string()))?;
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|error| unusable(error.to_string()))
}
