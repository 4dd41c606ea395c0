//! `SGLang` with `--enable-metrics`.

use crate::measure::scrape::{Counter, Distribution, Names};

pub(crate) const NAMES: &Names = &Names {
    running: &["sglang:num_running_reqs"],
    queued: &["sglang:num_queue_reqs"],
    counters: &[
        (Counter::PromptTokens, &["sglang:prompt_tokens_total"]),
        (Counter::OutputTokens, &["sglang:generation_tokens_total"]),
    ],
    distributions: &[
        (Distribution::TimeToFirstToken, &["sglang:time_to_first_token_seconds"]),
        (
            Distribution::InterTokenLatency,
            &[
                "sglang:inter_token_latency_seconds",
                "sglang:time_per_output_token_seconds",
            ],
        ),
    ],
};
