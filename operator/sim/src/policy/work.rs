//! What a machine spends on a request: the coarse figure that rules without a model scale their targets by.

use pomarium_kernel::engine::StepTimes;

/// Time that one request takes of a machine whose batch is full, in ms: its prefill, and its share of decode steps.
pub(crate) fn request_ms(times: &StepTimes, prompt: f64, output: f64) -> f64 {
    let alpha = times.alpha_ns as f64 / 1e6;
    let (beta, delta) = (times.beta_ns as f64 / 1e6, times.delta_ns as f64 / 1e6);
    let per_token = beta + alpha / f64::from(times.max_batch.max(1));
    (delta * prompt + per_token * output).max(1e-3)
}
