//! The schedule of a replay: what happened to every machine, complete enough for a third party to simulate it again.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

mod check;

pub use check::{Impossible, check};

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// When, in ms from the start of the trace.
    pub t: i64,
    /// The machine.
    pub node: String,
    /// Its group.
    pub group: String,
    /// What happens to it.
    pub event: ScheduleEvent,
}

/// Writes one JSON object a line, or keeps the lines.
pub struct Schedule {
    out: Out,
    /// The first write that failed; reported at the end, so that a full disk does not change a simulation.
    failed: Option<io::Error>,
}

enum Out {
    Written(Box<dyn Write>),
    Kept(Vec<Line>),
}

impl Schedule {
    /// Writes to `out`.
    pub fn new(out: Box<dyn Write>) -> Self {
        Self {
            out: Out::Written(out),
            failed: None,
        }
    }

    /// Keeps the lines in memory, for [`check()`].
    pub fn kept() -> Self {
        Self {
            out: Out::Kept(Vec::new()),
            failed: None,
        }
    }

    /// The lines of a schedule that was kept; none of one that was written.
    pub fn lines(&self) -> &[Line] {
        match &self.out {
            Out::Written(_) => &[],
            Out::Kept(lines) => lines,
        }
    }

    pub(crate) fn push(&mut self, t: i64, node: &str, group: &str, event: ScheduleEvent) {
        if self.failed.is_some() {
            return;
        }
        let line = Line {
            t,
            node: node.to_owned(),
            group: group.to_owned(),
            event,
        };
        match &mut self.out {
            Out::Kept(lines) => lines.push(line),
            Out::Written(out) => {
                let json = serde_json::to_vec(&line).map_err(io::Error::from);
                let written = json.and_then(|mut json| {
                    json.push(b'\n');
                    out.write_all(&json)
                });
                self.failed = written.err();
            }
        }
    }

    /// Flushes; the first error of any write.
    pub fn finish(mut self) -> io::Result<()> {
        match (self.failed, &mut self.out) {
            (Some(error), _) => Err(error),
            (None, Out::Written(out)) => out.flush(),
            (None, Out::Kept(_)) => Ok(()),
        }
    }
}
