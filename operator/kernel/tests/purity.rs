//! The kernel is told everything: it cannot reach a clock, the environment, the network or a file.
//!
//! Two walls, each seen to stand: the crates that it is built from, and the list of forbidden calls in its `clippy.toml`.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the test runs cargo; the kernel does not"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const KERNEL: &str = env!("CARGO_MANIFEST_DIR");

/// Crates that would bring I/O, a runtime, a clock or randomness.
const FORBIDDEN: &[&str] = &[
    "kube",
    "k8s-openapi",
    "tokio",
    "async-std",
    "smol",
    "mio",
    "futures",
    "hyper",
    "reqwest",
    "axum",
    "tower",
    "rustls",
    "socket2",
    "rustix",
    "libc",
    "nix",
    "rand",
    "rand_core",
    "getrandom",
    "fastrand",
    "iana-time-zone",
    "tempfile",
    "tracing",
];

/// One use of every forbidden path, in the order of `clippy.toml` or not: the test below checks that none is missing.
const USES: &str = r#"
pub fn clocks(system: std::time::SystemTime, instant: std::time::Instant) {
    let _ = std::time::SystemTime::now();
    let _ = std::time::Instant::now();
    let _ = (system.elapsed(), instant.elapsed());
}
pub fn environment() {
    let _ = (std::env::var("HOME"), std::env::var_os("HOME"));
    let _ = (std::env::vars(), std::env::vars_os());
    let _ = (std::env::args(), std::env::args_os());
    let _ = (std::env::current_dir(), std::env::current_exe());
    let _ = (std::env::home_dir(), std::env::temp_dir());
    let _ = std::env::set_current_dir("/");
    unsafe {
        std::env::set_var("HOME", "/");
        std::env::remove_var("HOME");
    }
}
pub fn threads() {
    std::thread::sleep(std::time::Duration::ZERO);
    let _ = std::thread::spawn(|| ());
    std::thread::scope(|_| ());
    std::thread::park();
    std::thread::yield_now();
    let _ = std::thread::available_parallelism();
}
pub fn files(permissions: std::fs::Permissions) {
    let _ = (std::fs::read("/"), std::fs::read_to_string("/"));
    let _ = (std::fs::read_dir("/"), std::fs::read_link("/"));
    let _ = (std::fs::write("/", ""), std::fs::copy("/", "/"));
    let _ = (std::fs::rename("/", "/"), std::fs::hard_link("/", "/"));
    let _ = (std::fs::metadata("/"), std::fs::symlink_metadata("/"));
    let _ = (std::fs::canonicalize("/"), std::fs::exists("/"));
    let _ = (std::fs::create_dir("/"), std::fs::create_dir_all("/"));
    let _ = (std::fs::remove_file("/"), std::fs::remove_dir("/"));
    let _ = (std::fs::remove_dir_all("/"), std::fs::set_permissions("/", permissions));
}
pub fn paths(path: &std::path::Path) {
    let _ = (path.exists(), path.try_exists(), path.is_file(), path.is_dir(), path.is_symlink());
    let _ = (path.metadata(), path.symlink_metadata(), path.canonicalize());
    let _ = (path.read_dir(), path.read_link());
}
pub fn streams() {
    let _ = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    print!("");
    println!();
    eprint!("");
    eprintln!();
    dbg!();
}
pub fn names() {
    let _ = std::net::ToSocketAddrs::to_socket_addrs("localhost:1");
}
pub fn process() {
    let _ = std::process::id();
    if std::process::id() == 1 {
        std::process::exit(1);
    }
    std::process::abort();
}
pub fn mathematics() {
    let _ = 1.0_f64.exp();
    let _ = 1.0_f64.exp2();
    let _ = 1.0_f64.ln();
    let _ = 1.0_f64.log(2.0);
    let _ = 1.0_f64.log2();
    let _ = 1.0_f64.log10();
    let _ = 1.0_f64.powf(2.0);
    let _ = 1.0_f64.powi(2);
    let _ = 1.0_f64.sin();
    let _ = 1.0_f64.cos();
    let _ = 1.0_f64.tanh();
}
pub type File = std::fs::File;
pub type Options = std::fs::OpenOptions;
pub type Folder = std::fs::DirBuilder;
pub type Stream = std::net::TcpStream;
pub type Listener = std::net::TcpListener;
pub type Datagrams = std::net::UdpSocket;
pub type LocalStream = std::os::unix::net::UnixStream;
pub type LocalListener = std::os::unix::net::UnixListener;
pub type LocalDatagrams = std::os::unix::net::UnixDatagram;
pub type Process = std::process::Command;
pub type Thread = std::thread::Builder;
pub type Map = std::collections::HashMap<u8, u8>;
pub type Set = std::collections::HashSet<u8>;
pub type Random = std::hash::RandomState;
"#;

#[test]
fn no_crate_of_the_kernel_reaches_outside() {
    let tree = cargo(Path::new(KERNEL))
        .args([
            "tree",
            "--offline",
            "--package",
            "pomarium-kernel",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{lib}"])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", said(&tree));
    let said = said(&tree);
    let crates: BTreeSet<String> = said.lines().map(|name| name.trim().replace('_', "-")).collect();
    assert!(
        crates.contains("pomarium-kernel") && crates.contains("chrono"),
        "not a tree: {crates:?}"
    );
    let found: Vec<_> = FORBIDDEN.iter().filter(|name| crates.contains(**name)).collect();
    assert!(found.is_empty(), "the kernel depends on {found:?}");
}

#[test]
fn clippy_refuses_every_forbidden_call() {
    let refused = lint("forbidden", USES);
    assert!(!refused.status.success(), "clippy let forbidden calls pass");
    let said = said(&refused);
    let paths = forbidden_paths();
    assert!(paths.len() > 75, "{paths:?}");
    for path in paths {
        // Chrono is no part of the trial, so that it needs no registry.
        if !path.starts_with("chrono::") {
            assert!(
                said.contains(&format!("`{path}`")),
                "clippy does not refuse {path}:\n{said}"
            );
        }
    }

    let passed = lint(
        "allowed",
        "pub fn total(values: &[u64]) -> u64 {\n    values.iter().sum()\n}\n",
    );
    assert!(passed.status.success(), "{}", self::said(&passed));
}

/// Runs clippy with the kernel's `clippy.toml` on a crate that consists of `source`.
fn lint(name: &str, source: &str) -> Output {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("purity-{name}"));
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!("[package]\nname = \"purity-{name}\"\nedition = \"2024\"\n\n[workspace]\n");
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/lib.rs"), source).unwrap();
    fs::copy(Path::new(KERNEL).join("clippy.toml"), folder.join("clippy.toml")).unwrap();
    cargo(&folder)
        .args(["clippy", "--offline", "--quiet", "--", "-D", "warnings"])
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .unwrap()
}

/// The paths that `clippy.toml` forbids.
fn forbidden_paths() -> Vec<String> {
    let config = fs::read_to_string(Path::new(KERNEL).join("clippy.toml")).unwrap();
    config
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ path = \""))
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

fn cargo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(folder).env("CARGO_TERM_COLOR", "never");
    // What the outer cargo decided for this workspace is not meant for the trial.
    for inherited in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_CONF_DIR",
    ] {
        command.env_remove(inherited);
    }
    command
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
