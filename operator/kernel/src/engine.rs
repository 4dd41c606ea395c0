//! The reference engine, one iteration at a time.
//!
//! Iteration-level continuous batching (DESIGN of the project: "capacity: what one server can carry"). Requests wait
//! first-in-first-out; one is admitted when a slot is free and its whole context (prompt + output) fits the KV cache.
//! One iteration decodes one token of every running sequence that has finished its prompt, and prefills up to
//! `prefill_chunk` prompt tokens of the others, oldest first. The iteration that finishes a prompt yields that
//! request's first token.
//!
//! Times are whole nanoseconds, so that `n` equal iterations take exactly `n` times as long as one, in any order of
//! summation: skipping over iterations gives the same bytes as stepping through them.

use serde::{Deserialize, Serialize};

/// Step times and limits of one machine for one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTimes {
    /// Fixed part of an iteration, in ns.
    pub alpha_ns: u64,
    /// Part per decoding sequence, in ns. `alpha + beta` is one stream's decode step.
    pub beta_ns: u64,
    /// Part per prompt token prefilled, in ns.
    pub delta_ns: u64,
    /// Tokens that fit the KV cache.
    pub kv_tokens: u64,
    /// Most sequences at once.
    pub max_batch: u32,
    /// Most prompt tokens prefilled in one iteration.
    pub prefill_chunk: u32,
}

/// Names a request within one engine. Chosen by the caller, unique among the requests in it.
pub type RequestId = u64;

/// A request's context is longer than the KV cache: it can never be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a context of {context} tokens does not fit a KV cache of {kv_tokens}")]
pub struct TooLong {
    /// Prompt and output tokens.
    pub context: u64,
    /// What would fit.
    pub kv_tokens: u64,
}

/// What one iteration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// How long it took, in ns.
    pub duration_ns: u64,
    /// Tokens that it yielded at its end, in the order of admission.
    pub tokens: Vec<Token>,
}

/// One output token of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub request: RequestId,
    /// It is the request's first.
    pub first: bool,
    /// It is the request's last: the slot and the cache are free again.
    pub last: bool,
}

/// One server's engine.
#[derive(Clone, Debug)]
pub struct Engine {
    times: StepTimes,
}

impl Engine {
    /// An idle engine.
    pub fn new(times: StepTimes) -> Self {
        Self { times }
    }

    /// Its step times.
    pub fn times(&self) -> StepTimes {
        self.times
    }

    /// Puts a request at the end of the queue. `output` counts at least one token.
    pub fn submit(&mut self, _request: RequestId, _prompt: u32, _output: u32) -> Result<(), TooLong> {
        unimplemented!()
    }

    /// Takes a request out, wherever it is. False if it is not there.
    pub fn cancel(&mut self, _request: RequestId) -> bool {
        unimplemented!()
    }

    /// Runs one iteration. `None` if nothing runs and nothing waits.
    pub fn step(&mut self) -> Option<Step> {
        unimplemented!()
    }

    /// Requests in the batch.
    pub fn running(&self) -> usize {
        unimplemented!()
    }

    /// Requests waiting.
    pub fn queued(&self) -> usize {
        unimplemented!()
    }

    /// Tokens of KV cache reserved by the running requests.
    pub fn kv_reserved(&self) -> u64 {
        unimplemented!()
    }
}
