//! The `pomarium` binary as users run it: built once, started, killed, restarted and measured.
//!
//! # Guarantees
//! The process ends with its [`Operator`], and with the process that started it. [`Operator::kill9`] is a SIGKILL to the process
//! itself, without a chance to clean up.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::chart;
use crate::cluster::{self, ControlPlane, Process, show_progress};
use crate::host;
use crate::wait::{TimedOut, eventually};
use crate::watchdog;

/// Longest wait for an answer of the operator's own endpoints.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait for a decision: it is made first.
const DECISION_LIMIT: Duration = Duration::from_secs(130);

/// Why the operator cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Cargo refused.
    #[error("building the operator:\n{0}")]
    Build(String),
    /// A file or process operation failed.
    #[error("preparing {what}: {source}")]
    File {
        /// What was worked on.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Its cluster refused.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// One of its endpoints did not answer.
    #[error("asking the operator at {url}: {why}")]
    Endpoint {
        /// What was asked.
        url: String,
        /// Why there is no answer.
        why: String,
    },
    /// It did not become ready.
    #[error("{timed_out}; the end of its log:\n{log}")]
    NotReady {
        /// What was waited for.
        timed_out: TimedOut,
        /// The end of its log.
        log: String,
    },
}

/// How the operator is started.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// Text of the kubeconfig that it acts with.
    pub kubeconfig: String,
    /// Its own namespace: leader Lease, kubeconfig Secrets.
    pub namespace: String,
    /// More arguments of `pomarium controller`, such as `--fleet-url`.
    pub extra_args: Vec<String>,
    /// More environment, such as `RUST_LOG`.
    pub env: Vec<(String, String)>,
}

impl OperatorConfig {
    /// With a kubeconfig, in the chart's namespace.
    pub fn new(kubeconfig: impl Into<String>) -> Self {
        Self {
            kubeconfig: kubeconfig.into(),
            namespace: chart::NAMESPACE.to_owned(),
            extra_args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// With more arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.extra_args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// A started operator. Dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    config: OperatorConfig,
    binary: PathBuf,
    // Before the folder that it writes to: fields are dropped in their order.
    process: Process,
    folder: tempfile::TempDir,
    metrics: SocketAddr,
    health: SocketAddr,
}

impl Operator {
    /// Builds the operator if need be and starts it. It may still be waiting for its kinds or its leader Lease:
    /// see [`Self::wait_until_ready`].
    pub async fn start(config: OperatorConfig) -> Result<Self, OperatorError> {
        let binary = built().await?.clone();
        let folder = tempfile::Builder::new()
            .prefix("pomarium-operator-")
            .tempdir()
            .map_err(file_error("a temporary folder"))?;
        // It holds a token: it goes even when nobody is left to drop it. To remove it once more is harmless.
        watchdog::remove_at_end(folder.path());
        std::fs::write(folder.path().join("kubeconfig"), &config.kubeconfig)
            .map_err(file_error("the operator's kubeconfig"))?;
        let [metrics, health] = host::free_addresses().map_err(file_error("ports for the operator"))?;
        let process = spawn(&binary, &config, folder.path(), metrics, health)?;
        Ok(Self {
            config,
            binary,
            process,
            folder,
            metrics,
            health,
        })
    }

    /// Installs the chart into `hub` and starts the operator with the chart's ServiceAccount and namespace.
    pub async fn start_as_chart(hub: &ControlPlane, extra_args: &[&str]) -> Result<Self, OperatorError> {
        let config = OperatorConfig::new(chart::install(hub, &[]).await?);
        Self::start(config.args(extra_args.iter().copied())).await
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything that it has logged, over restarts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.tail()
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.exited().is_none()
    }

    /// Ends it at once (SIGKILL), as a lost node or an out-of-memory kill does.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Asks it to end (SIGTERM) and waits; gives whether it ended by itself with status 0.
    pub async fn terminate(&mut self, limit: Duration) -> bool {
        self.process
            .terminate(limit)
            .await
            .is_some_and(|status| status.success())
    }

    /// Starts it again with the same configuration and addresses; kills it first if it still runs.
    pub fn restart(&mut self) -> Result<(), OperatorError> {
        self.process.kill();
        self.process = spawn(
            &self.binary,
            &self.config,
            self.folder.path(),
            self.metrics,
            self.health,
        )?;
        Ok(())
    }

    /// Where its metrics are.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Where its probes are.
    pub fn health_address(&self) -> SocketAddr {
        self.health
    }

    /// Its metrics in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, OperatorError> {
        let (status, text) = get(self.metrics, "/metrics").await?;
        if status == 200 {
            return Ok(text);
        }
        Err(OperatorError::Endpoint {
            url: format!("http://{}/metrics", self.metrics),
            why: format!("status {status}: {text}"),
        })
    }

    /// Its next decision with everything that it is made from, as `pomarium replay --snapshot` reads it.
    pub async fn decision(&self) -> Result<String, OperatorError> {
        let (status, text) = get_within(self.metrics, "/debug/snapshot", DECISION_LIMIT).await?;
        if status == 200 {
            return Ok(text);
        }
        Err(OperatorError::Endpoint {
            url: format!("http://{}/debug/snapshot", self.metrics),
            why: format!("status {status}: {text}"),
        })
    }

    /// Runs another command of the same binary, and gives what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, OperatorError> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(file_error("the binary"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        Err(OperatorError::Endpoint {
            url: arguments.join(" "),
            why: format!("{said}{}", String::from_utf8_lossy(&output.stderr)),
        })
    }

    /// HTTP status and text of `/readyz`: the named gates.
    pub async fn readyz(&self) -> Result<(u16, String), OperatorError> {
        get(self.health, "/readyz").await
    }

    /// HTTP status and text of `/healthz`.
    pub async fn healthz(&self) -> Result<(u16, String), OperatorError> {
        get(self.health, "/healthz").await
    }

    /// Waits until `/readyz` says so.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<(), OperatorError> {
        let _progress = show_progress("waiting for the operator to be ready", None);
        eventually(limit, "the operator to be ready", async || match self.readyz().await {
            Ok((200, _)) => Ok(()),
            Ok((status, text)) => Err(format!("status {status}: {text}")),
            Err(error) => Err(error.to_string()),
        })
        .await
        .map_err(|timed_out| OperatorError::NotReady {
            timed_out,
            log: self.log_tail(),
        })
    }

    /// Resident memory in bytes; `None` if the process has ended.
    pub fn resident_bytes(&self) -> Option<u64> {
        host::resident_bytes(self.id())
    }
}

/// Path of the operator's binary: `POMARIUM_BIN`, or built by Cargo in the profile of this process. Once per process.
pub async fn built() -> Result<&'static PathBuf, OperatorError> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT
        .get_or_try_init(
            async || match std::env::var_os("POMARIUM_BIN").filter(|value| !value.is_empty()) {
                Some(path) => Ok(PathBuf::from(path)),
                None => tokio::task::spawn_blocking(build)
                    .await
                    .map_err(|error| OperatorError::Build(error.to_string()))?,
            },
        )
        .await
}

/// Runs Cargo in the folder that this very process was built in, so that what is compiled already is used.
fn build() -> Result<PathBuf, OperatorError> {
    let exe = std::env::current_exe().map_err(file_error("the path of this program"))?;
    // target/debug/demo, or target/debug/deps/harness-0123456789abcdef for a test.
    let profile_folder = exe
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .ok_or_else(|| OperatorError::Build(format!("{} is in no target folder", exe.display())))?;
    let profile = match profile_folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let target = profile_folder.parent().unwrap_or(profile_folder);
    let progress = show_progress(
        "building the operator with Cargo",
        Some("the first time about 3 minutes on 2 cores"),
    );
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args([
            "build",
            "--quiet",
            "--locked",
            "--bin",
            "pomarium",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target);
    // Cargo picks the features of shared dependencies by all that it is asked for. Asked for the same as before, it finds
    // them compiled: the whole workspace with its tests under `cargo test`, this crate beside the operator under `cargo demo`.
    if exe.parent() == Some(profile_folder) {
        command.args(["--package", "pomarium", "--package", "pomarium-e2e"]);
    } else {
        command.args(["--workspace", "--test", "harness"]);
    }
    // What Cargo told this process about its own package would look like a change to build scripts that ask for it.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
            "CARGO_TARGET_TMPDIR",
            "OUT_DIR",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(&*name);
        }
    }
    let output = command
        .current_dir(cluster::repository())
        .stdin(Stdio::null())
        .output()
        .map_err(file_error("cargo"))?;
    if !output.status.success() {
        return Err(OperatorError::Build(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    drop(progress);
    Ok(profile_folder.join("pomarium"))
}

fn spawn(
    binary: &Path,
    config: &OperatorConfig,
    folder: &Path,
    metrics: SocketAddr,
    health: SocketAddr,
) -> Result<Process, OperatorError> {
    let mut command = Command::new(binary);
    command
        .arg("controller")
        .arg("--kubeconfig")
        .arg(folder.join("kubeconfig"))
        .args(["--namespace", &config.namespace])
        .args([
            "--metrics-bind",
            &metrics.to_string(),
            "--health-bind",
            &health.to_string(),
        ])
        .args(&config.extra_args)
        // A cluster of the user's must not be reached by mistake.
        .env_remove("KUBECONFIG")
        .envs(config.env.iter().map(|(name, value)| (name, value)));
    Process::spawn("pomarium", command, folder.join("operator.log")).map_err(file_error(&binary.display().to_string()))
}

async fn get(address: SocketAddr, path: &str) -> Result<(u16, String), OperatorError> {
    get_within(address, path, ANSWER_LIMIT).await
}

async fn get_within(address: SocketAddr, path: &str, limit: Duration) -> Result<(u16, String), OperatorError> {
    let url = format!("http://{address}{path}");
    let failed = |error: reqwest::Error| OperatorError::Endpoint {
        url: url.clone(),
        why: error.to_string(),
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(limit)
        .build()
        .map_err(failed)?;
    let answer = client.get(&url).send().await.map_err(failed)?;
    Ok((answer.status().as_u16(), answer.text().await.map_err(failed)?))
}

fn file_error(what: &str) -> impl FnOnce(io::Error) -> OperatorError {
    let what = what.to_owned();
    move |source| OperatorError::File { what, source }
}
