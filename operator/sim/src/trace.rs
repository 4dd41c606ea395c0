//! Request traces: who arrives when, with how many tokens.
//!
//! A trace is a CSV file, gzipped or not, with the header `arrival_ms,prompt_tokens,output_tokens` and whole numbers,
//! sorted by arrival. It is never held in memory: every run reads the file again, and changes of its rate are made on the way.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | `reader` | lines of the file become requests; what is wrong with one |
//! | `file` | the same bytes for every run |
//! | `excerpt` | the part that is replayed, from the file to the simulator |
//! | `scale` | more or fewer requests at the same times |

mod excerpt;
mod file;
mod reader;
mod scale;

pub use excerpt::Excerpt;
pub use file::TraceFile;
pub use reader::{TraceError, TraceReader};
pub use scale::Scaled;

use serde::{Deserialize, Serialize};

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Arrival {
    /// When it arrives, in ms from the start of the trace.
    pub arrival_ms: u64,
    /// Length of its prompt.
    pub prompt_tokens: u32,
    /// Length of its answer.
    pub output_tokens: u32,
}

/// The requests of one run, in the order of their arrival.
pub type Stream<'a> = Box<dyn Iterator<Item = Result<Arrival, TraceError>> + 'a>;

/// Requests that are gone through from the first to the last, as often as there are runs, and by several at once.
pub trait Trace: Sync {
    /// All requests, the same each time.
    fn requests(&self) -> Result<Stream<'_>, TraceError>;
}

impl Trace for Vec<Arrival> {
    fn requests(&self) -> Result<Stream<'_>, TraceError> {
        Ok(Box::new(self.iter().copied().map(Ok)))
    }
}
