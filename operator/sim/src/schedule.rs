//! The schedule of a replay: what happened to every machine, complete enough for a third party to simulate it again.

use std::io::{self, Write};

use serde::Serialize;

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleEvent {
    /// Paid, and booting.
    Lease,
    /// Takes requests.
    Serve,
    /// Takes no new ones.
    Drain,
    /// Given back, nothing running.
    Release,
}

#[derive(Serialize)]
struct Line<'a> {
    t: i64,
    node: &'a str,
    group: &'a str,
    event: ScheduleEvent,
}

/// Writes one JSON object a line.
pub struct Schedule {
    out: Box<dyn Write>,
    /// The first write that failed; reported at the end, so that a full disk does not change a simulation.
    failed: Option<io::Error>,
}

impl Schedule {
    /// Writes to `out`.
    pub fn new(out: Box<dyn Write>) -> Self {
        Self { out, failed: None }
    }

    pub(crate) fn push(&mut self, t: i64, node: &str, group: &str, event: ScheduleEvent) {
        if self.failed.is_some() {
            return;
        }
        let line = serde_json::to_vec(&Line { t, node, group, event }).map_err(io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            self.out.write_all(&line)
        });
        self.failed = written.err();
    }

    /// Flushes; the first error of any write.
    pub fn finish(mut self) -> io::Result<()> {
        match self.failed {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }
}
