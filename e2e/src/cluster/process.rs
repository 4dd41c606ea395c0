//! One child process: its own group, a log file, ended by id.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::watchdog;

/// How much of a log an error shows.
const TAIL: u64 = 4_000;

/// A running child. Dropping it ends it, and everything in its process group, at once.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// It has ended, and the watchdog knows.
    ended: bool,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub(crate) fn spawn(name: &str, mut command: Command, log: PathBuf) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // A group of its own: a Ctrl-C in the terminal reaches us alone, and we end the children in order.
            .process_group(0)
            .spawn()?;
        watchdog::kill_at_end(child.id());
        Ok(Self {
            name: name.to_owned(),
            child,
            ended: false,
            log,
        })
    }

    /// What the process is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file with everything that it wrote.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        // Looked at before it is reaped: from then on its id may be another process's, which the watchdog must not end.
        if !self.ended && self.has_ended() {
            self.ended = true;
            watchdog::spare(self.id());
        }
        self.child.try_wait().ok().flatten()
    }

    /// Whether it has ended and was not reaped yet.
    fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let looked = self.pid().ok().map(|pid| waitid(WaitId::Pid(pid), look));
        matches!(looked, Some(Ok(Some(_))))
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Ends the process at once. Harmless when it has ended already.
    pub(crate) fn kill(&mut self) {
        if self.exited().is_none() {
            if let Ok(pid) = self.pid() {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            // Between the two: before, a process that dies right here would leave its child running; later, the id may
            // be another process's.
            self.ended = true;
            watchdog::spare(self.id());
            let _ = self.child.wait();
        }
    }

    /// Asks the process to end, and ends it when it has not after `limit`.
    pub(crate) async fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        let _ = self.signal(Signal::TERM);
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill();
        None
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log)
    }

    fn pid(&self) -> io::Result<Pid> {
        i32::try_from(self.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the process id is out of range"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log file, or why it cannot be read.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let start = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        // The first line is cut in two unless it is the file's first.
        Ok(match text.split_once('\n') {
            Some((_, rest)) if start > 0 => rest.to_owned(),
            _ => text.into_owned(),
        })
    };
    read().unwrap_or_else(|error| format!("(reading {}: {error})", log.display()))
}
