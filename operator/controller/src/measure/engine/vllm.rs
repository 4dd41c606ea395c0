//! vLLM.

use crate::measure::scrape::{Counter, Distribution, Names};

pub(crate) const NAMES: &Names = &Names {
    running: &["vllm:num_requests_running"],
    queued: &["vllm:num_requests_waiting"],
    counters: &[
        (Counter::PromptTokens, &["vllm:prompt_tokens_total"]),
        (Counter::OutputTokens, &["vllm:generation_tokens_total"]),
    ],
    distributions: &[
        (Distribution::TimeToFirstToken, &["vllm:time_to_first_token_seconds"]),
        (
            Distribution::InterTokenLatency,
            // Objectives are over requests: the mean per request goes before the time per token.
            &[
                "vllm:request_time_per_output_token_seconds",
                "vllm:inter_token_latency_seconds",
                "vllm:time_per_output_token_seconds",
            ],
        ),
        (Distribution::PromptLength, &["vllm:request_prompt_tokens"]),
        (Distribution::OutputLength, &["vllm:request_generation_tokens"]),
    ],
};
