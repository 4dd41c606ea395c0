//! vllm-mlx with `--metrics`: TTFT, but no ITL.

use crate::measure::scrape::{Counter, Distribution, Names};

pub(crate) const NAMES: &Names = &Names {
    running: &["vllm_mlx_scheduler_running_requests"],
    queued: &["vllm_mlx_scheduler_waiting_requests"],
    counters: &[
        (Counter::PromptTokens, &["vllm_mlx_prompt_tokens_total"]),
        (Counter::OutputTokens, &["vllm_mlx_completion_tokens_total"]),
    ],
    distributions: &[(Distribution::TimeToFirstToken, &["vllm_mlx_inference_ttft_seconds"])],
};
