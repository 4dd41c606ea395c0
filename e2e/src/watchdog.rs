//! Nothing outlives the process that started it.
//!
//! `Drop` ends child processes on a return and on a panic. Nothing in a process can do so after a SIGKILL, after a Ctrl-C without a
//! handler, or for a `static` that is never dropped. So one small child per process holds a list of what must go, and
//! acts when the pipe to it closes, see `controlplane/watchdog.go`.
//!
//! Without the multi-call binary (`KUBEBUILDER_ASSETS`) there is no watchdog, and `Drop` has to do.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

static WATCHDOG: Mutex<Option<Child>> = Mutex::new(None);

/// Starts the watchdog with the multi-call binary, once per process.
pub(crate) fn start(binary: &Path) {
    let mut running = WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner);
    if running.is_none() {
        *running = Command::new(binary)
            .arg("watchdog")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of the terminal's foreground group: a Ctrl-C must not end the watchdog before it has done its work.
            .process_group(0)
            .spawn()
            .ok();
    }
}

/// Ends the process group that `pid` leads when this process ends.
pub(crate) fn kill_at_end(pid: u32) {
    order(&format!("kill {pid}"));
}

/// Takes back [`kill_at_end`]. Call it before the process is reaped, so that its id cannot belong to another one yet.
pub(crate) fn spare(pid: u32) {
    order(&format!("spare {pid}"));
}

/// Removes a folder when this process ends.
pub(crate) fn remove_at_end(folder: &Path) {
    order(&format!("remove {}", folder.display()));
}

/// Takes back [`remove_at_end`].
pub(crate) fn keep(folder: &Path) {
    order(&format!("keep {}", folder.display()));
}

/// Best effort: a watchdog that is gone must not fail what it only guards.
fn order(line: &str) {
    let mut running = WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pipe) = running.as_mut().and_then(|child| child.stdin.as_mut()) {
        let _ = pipe.write_all(format!("{line}\n").as_bytes());
    }
}
