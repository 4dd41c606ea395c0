//! kubectl and Helm against one cluster, with nothing of the user's own configuration.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncWriteExt;

use crate::cluster::{ControlPlane, Error, binary};

/// Who our own `kubectl apply --server-side` says it is.
const FIELD_MANAGER: &str = "pomarium-e2e";

/// What a tool said.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, without the path of the binary.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with status 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Its standard output, or an error with all that it said.
    pub fn checked(self) -> Result<String, Error> {
        if self.success() {
            Ok(self.stdout)
        } else {
            Err(Error::Tool(Box::new(self)))
        }
    }
}

impl ControlPlane {
    /// Runs kubectl as administrator. A refusal is an `Ok` with its status: see [`Output::checked`].
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output, Error> {
        self.kubectl_with_input(args, "").await
    }

    /// Runs kubectl with `input` on its standard input.
    pub async fn kubectl_with_input(&self, args: &[&str], input: &str) -> Result<Output, Error> {
        tool("kubectl", args, input, Some(self.kubeconfig()), self.folder()).await
    }

    /// Runs Helm as administrator.
    pub async fn helm(&self, args: &[&str]) -> Result<Output, Error> {
        tool("helm", args, "", Some(self.kubeconfig()), self.folder()).await
    }

    /// Applies manifests on the server's side, strictly validated; gives what kubectl said, or its refusal.
    pub async fn apply_yaml(&self, manifests: &str) -> Result<String, Error> {
        self.kubectl_with_input(&apply_from("-"), manifests).await?.checked()
    }

    /// As [`Self::apply_yaml`], for a file or for all files of a folder.
    pub async fn apply_path(&self, path: &Path) -> Result<String, Error> {
        self.kubectl(&apply_from(&path.display().to_string())).await?.checked()
    }
}

/// Runs Helm without a cluster, as for `lint` and `template`.
pub async fn helm(args: &[&str]) -> Result<Output, Error> {
    let home = tempfile::tempdir().map_err(|source| Error::File {
        what: "a temporary folder".to_owned(),
        source,
    })?;
    tool("helm", args, "", None, home.path()).await
}

fn apply_from(file: &str) -> [&str; 7] {
    [
        "apply",
        "--server-side",
        "--validate=strict",
        "--field-manager",
        FIELD_MANAGER,
        "--filename",
        file,
    ]
}

async fn tool(
    program: &str,
    args: &[&str],
    input: &str,
    kubeconfig: Option<&Path>,
    home: &Path,
) -> Result<Output, Error> {
    let command_line = format!("{program} {}", args.join(" "));
    let error = |source| Error::File {
        what: command_line.clone(),
        source,
    };
    let mut command = tokio::process::Command::from(binary().await?.command(program));
    command
        .args(args)
        // Caches and settings of the user change neither what we see nor what they see.
        .env("HOME", home)
        .env("KUBECACHEDIR", home.join("kubectl-cache"))
        .env("HELM_CACHE_HOME", home.join("helm/cache"))
        .env("HELM_CONFIG_HOME", home.join("helm/config"))
        .env("HELM_DATA_HOME", home.join("helm/data"))
        .env_remove("HELM_NAMESPACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    match kubeconfig {
        Some(path) => command.env("KUBECONFIG", path),
        None => command.env("KUBECONFIG", "/dev/null"),
    };
    let mut child = command.spawn().map_err(error)?;
    let pipe = child.stdin.take();
    let feed = async {
        if let Some(mut pipe) = pipe {
            // A tool that does not read to the end has its reasons, and says them.
            let _ = pipe.write_all(input.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(error)?;
    Ok(Output {
        command: command_line,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
