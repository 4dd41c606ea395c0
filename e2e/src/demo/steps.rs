//! Says what the demo is doing, and for how long it has been.

use std::time::Instant;

/// The steps of one run, each a line on standard output.
pub(crate) struct Steps {
    start: Instant,
    number: u32,
}

impl Steps {
    /// The clock starts.
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
            number: 0,
        }
    }

    /// A step begins.
    pub(crate) fn next(&mut self, what: &str) {
        self.number += 1;
        self.say(&format!("{}. {what}", self.number));
    }

    /// Something worth knowing.
    pub(crate) fn say(&self, what: &str) {
        println!("[{:>4.0} s] {what}", self.seconds());
    }

    /// Real time since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}
