//! Finds the programs of a control plane, or builds them once.
//!
//! In this order: `POMARIUM_CONTROLPLANE` (a ready multi-call binary), `KUBEBUILDER_ASSETS` (a folder with etcd, kube-apiserver and so on;
//! kubectl and helm from there or from `PATH`), the multi-call binary in the user's cache, and else a build of it with Go. The cached
//! file is named after its sources, so that a change of them is a new file and never a stale one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::OnceCell;

use crate::cluster::progress;
use crate::watchdog;

/// The version that the binary reports, and that go.mod names. Without it Helm sees Kubernetes v0.0.0.
const LDFLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.4 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

/// Where the programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programs {
    /// One binary whose first argument says which program to be.
    MultiCall(PathBuf),
    /// A folder with one binary a program, as `setup-envtest` makes it.
    Folder(PathBuf),
}

impl Programs {
    /// A command that starts `program`, such as `etcd` or `kubectl`.
    pub fn command(&self, program: &str) -> Command {
        match self {
            Self::MultiCall(binary) => {
                let mut command = Command::new(binary);
                command.arg(program);
                command
            }
            Self::Folder(folder) => {
                let inside = folder.join(program);
                Command::new(if inside.exists() {
                    inside
                } else {
                    PathBuf::from(program)
                })
            }
        }
    }
}

/// Why the programs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// An environment variable names something that is not there.
    #[error("using {variable}: {} does not exist", path.display())]
    Missing {
        /// The variable.
        variable: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// Not on Linux.
    #[error(
        "starting local clusters needs Linux, where every emulated server can have an address in 127.0.0.0/8 of its own; this is {0}. \
         The operator itself builds here: cargo build --package pomarium"
    )]
    NotLinux(&'static str),
    /// No Go tool chain.
    #[error(
        "building the local control plane needs Go 1.26 or newer, and `go` cannot be run ({0}): install it from https://go.dev/dl, \
         or set POMARIUM_CONTROLPLANE to a ready binary, or KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, \
         kube-controller-manager, kube-scheduler, kubectl and helm"
    )]
    NoGo(io::Error),
    /// The Go build failed.
    #[error("building the local control plane in {}:\n{output}", folder.display())]
    Build {
        /// Where it was built.
        folder: PathBuf,
        /// The end of what Go said.
        output: String,
    },
    /// A file operation failed.
    #[error("preparing {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The build was abandoned.
    #[error("building the local control plane was abandoned")]
    Abandoned,
}

/// The programs, found or built. The first call of a process does the work, all others wait for it.
pub async fn binary() -> Result<&'static Programs, BinaryError> {
    static FOUND: OnceCell<Programs> = OnceCell::const_new();
    FOUND
        .get_or_try_init(async || {
            tokio::task::spawn_blocking(find_or_build)
                .await
                .map_err(|_| BinaryError::Abandoned)?
        })
        .await
}

/// Whether local clusters can run on this system at all; asked before anything is built for them.
pub fn supported() -> Result<(), BinaryError> {
    supported_on(std::env::consts::OS)
}

fn supported_on(system: &'static str) -> Result<(), BinaryError> {
    match system {
        "linux" => Ok(()),
        other => Err(BinaryError::NotLinux(other)),
    }
}

fn find_or_build() -> Result<Programs, BinaryError> {
    supported()?;
    let programs = if let Some(path) = from_env("POMARIUM_CONTROLPLANE")? {
        Programs::MultiCall(path)
    } else if let Some(path) = from_env("KUBEBUILDER_ASSETS")? {
        Programs::Folder(path)
    } else {
        Programs::MultiCall(cached_or_built(&source_folder(), &cache_folder())?)
    };
    if let Programs::MultiCall(binary) = &programs {
        watchdog::start(binary);
    }
    Ok(programs)
}

fn from_env(variable: &'static str) -> Result<Option<PathBuf>, BinaryError> {
    match std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
    {
        Some(path) if !path.exists() => Err(BinaryError::Missing { variable, path }),
        found => Ok(found),
    }
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane")
}

fn cache_folder() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("pomarium")
}

fn cached_or_built(source: &Path, cache: &Path) -> Result<PathBuf, BinaryError> {
    let binary = cache.join(format!("controlplane-{:016x}", hash_of_sources(source)?));
    if binary.exists() {
        return Ok(binary);
    }
    fs::create_dir_all(cache).map_err(|source| BinaryError::File {
        path: cache.to_owned(),
        source,
    })?;
    let lock_path = cache.join("build.lock");
    let lock_error = |source| BinaryError::File {
        path: lock_path.clone(),
        source,
    };
    let lock = File::create(&lock_path).map_err(lock_error)?;
    if lock.try_lock().is_err() {
        let _waiting = progress::show(
            "waiting for another process that is building the local control plane",
            None,
        );
        lock.lock().map_err(lock_error)?;
    }
    // Another process may have built it while we waited. The lock goes when the file is closed.
    if !binary.exists() {
        build(source, &binary)?;
    }
    Ok(binary)
}

fn build(source: &Path, binary: &Path) -> Result<(), BinaryError> {
    Command::new("go").arg("version").output().map_err(BinaryError::NoGo)?;
    let unfinished = binary.with_extension("unfinished");
    let progress = progress::show(
        "building the local control plane (etcd, Kubernetes 1.36, kubectl, Helm) with Go, once on this machine",
        Some("about 5 minutes on 2 cores"),
    );
    let output = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", LDFLAGS, "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .output()
        .map_err(BinaryError::NoGo)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        return Err(BinaryError::Build {
            folder: source.to_owned(),
            output: end,
        });
    }
    // Renamed only when it is whole, so that a build that was interrupted is never taken for a binary.
    fs::rename(&unfinished, binary).map_err(|source| BinaryError::File {
        path: binary.to_owned(),
        source,
    })?;
    progress.done();
    Ok(())
}

/// FNV-1a over the names and contents of everything that goes into the binary.
fn hash_of_sources(folder: &Path) -> Result<u64, BinaryError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| BinaryError::File { path, source }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(error(folder))? {
        let path = entry.map_err(error(folder))?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let is_source = path.extension().is_some_and(|extension| extension == "go") && !name.ends_with("_test.go");
        if is_source || name == "go.mod" || name == "go.sum" {
            files.push((name, path));
        }
    }
    files.sort();
    let mut hash = Fnv::new();
    hash.add(LDFLAGS.as_bytes());
    for (name, path) in files {
        hash.add(name.as_bytes());
        hash.add(&fs::read(&path).map_err(error(&path))?);
    }
    Ok(hash.0)
}

struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_changed_source_is_another_binary_and_a_changed_test_is_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("go.mod"), "module a").unwrap();
        fs::write(folder.path().join("main.go"), "package main").unwrap();
        let before = hash_of_sources(folder.path()).unwrap();
        fs::write(folder.path().join("main_test.go"), "package main").unwrap();
        assert_eq!(hash_of_sources(folder.path()).unwrap(), before);
        fs::write(folder.path().join("main.go"), "package main // changed").unwrap();
        assert_ne!(hash_of_sources(folder.path()).unwrap(), before);
    }

    #[test]
    fn another_system_than_linux_is_told_so_before_anything_is_built() {
        assert!(supported_on("linux").is_ok());
        let refused = supported_on("macos").unwrap_err().to_string();
        assert!(
            refused.contains("needs Linux") && refused.contains("this is macos"),
            "{refused}"
        );
    }

    #[test]
    fn a_failed_build_says_what_go_said_and_leaves_no_binary() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("go.mod"), "module a\n\ngo 1.26\n").unwrap();
        fs::write(
            folder.path().join("main.go"),
            "package main\n\nfunc main() { nonsense() }\n",
        )
        .unwrap();
        let cache = tempfile::tempdir().unwrap();
        let error = cached_or_built(folder.path(), cache.path()).unwrap_err();
        assert!(error.to_string().contains("undefined: nonsense"), "{error}");
        let left: Vec<_> = fs::read_dir(cache.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["build.lock"]);
    }
}
