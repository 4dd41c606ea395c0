//! Says on stderr what takes long: what, how long already, how long it may take.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// What takes less needs no word.
const SLOW: Duration = Duration::from_secs(2);

/// Something slow under way. Dropping it ends the display.
pub(crate) struct Progress {
    what: String,
    start: Instant,
    end: Option<Sender<()>>,
    line: Option<thread::JoinHandle<()>>,
}

/// Begins to say that `what` is under way: a line that counts on a terminal, else a line every ten seconds.
pub(crate) fn show(what: &str, expected: Option<&str>) -> Progress {
    let (end, ended) = mpsc::channel::<()>();
    let start = Instant::now();
    let text = expected.map_or_else(|| what.to_owned(), |expected| format!("{what}; {expected}"));
    let on_terminal = std::io::stderr().is_terminal();
    let pause = Duration::from_secs(if on_terminal { 1 } else { 10 });
    let line = thread::spawn(move || {
        // Not slow at all: nothing to say.
        if ended.recv_timeout(SLOW) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let mut err = std::io::stderr();
        loop {
            let seconds = start.elapsed().as_secs();
            let _ = if on_terminal {
                write!(err, "\r\x1b[2K{text} … {seconds} s").and_then(|()| err.flush())
            } else {
                writeln!(err, "{text} … {seconds} s")
            };
            if ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        if on_terminal {
            let _ = write!(err, "\r\x1b[2K");
        }
    });
    Progress {
        what: what.to_owned(),
        start,
        end: Some(end),
        line: Some(line),
    }
}

impl Progress {
    /// Ends the display and says how long it took.
    pub(crate) fn done(mut self) {
        self.finish();
        let _ = writeln!(
            std::io::stderr(),
            "{}: done in {} s",
            self.what,
            self.start.elapsed().as_secs()
        );
    }

    fn finish(&mut self) {
        drop(self.end.take());
        if let Some(line) = self.line.take() {
            let _ = line.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
