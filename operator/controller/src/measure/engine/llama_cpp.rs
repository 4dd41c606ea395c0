//! llama.cpp's `llama-server --metrics`: no TTFT, no ITL, no count of requests.

use crate::measure::scrape::{Counter, Names};

pub(crate) const NAMES: &Names = &Names {
    running: &["llamacpp:requests_processing"],
    queued: &["llamacpp:requests_deferred"],
    counters: &[
        (Counter::PromptTokens, &["llamacpp:prompt_tokens_total"]),
        (Counter::OutputTokens, &["llamacpp:tokens_predicted_total"]),
    ],
    distributions: &[],
};
