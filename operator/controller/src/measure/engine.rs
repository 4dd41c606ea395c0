//! Metrics of model servers: one small table per engine, in its own file.
//!
//! A new engine is one file here and one line in [`names`].

pub(crate) mod llama_cpp;
pub(crate) mod sglang;
pub(crate) mod vllm;
pub(crate) mod vllm_metal;
pub(crate) mod vllm_mlx;

use pomarium_api::pool::EngineType;
use pomarium_kernel::snapshot::Load;
use pomarium_kernel::time::Timestamp;

use super::scrape::{Names, Scrape};

/// What the metrics of `engine` are called.
pub(crate) fn names(engine: EngineType) -> &'static Names {
    match engine {
        EngineType::LlamaCpp => llama_cpp::NAMES,
        EngineType::VllmMetal => vllm_metal::NAMES,
        EngineType::VllmMlx => vllm_mlx::NAMES,
        EngineType::Vllm => vllm::NAMES,
        EngineType::SGLang => sglang::NAMES,
    }
}

/// What an engine says it is doing. Both figures must be there: half an answer is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates; rounded up, so that a fraction of a request is not idle"
)]
pub(crate) fn load(scrape: &Scrape, at: Timestamp) -> Load {
    match (scrape.running, scrape.queued) {
        (Some(running), Some(queued)) => Load::Known {
            running: running.ceil() as u32,
            queued: queued.ceil() as u32,
            at,
        },
        _ => Load::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(7);

    #[test]
    fn every_engine_tells_its_load_by_its_own_names() {
        let answers = [
            (
                EngineType::LlamaCpp,
                "llamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n",
            ),
            (
                EngineType::VllmMetal,
                "vllm:num_requests_running{e=\"0\"} 2\nvllm:num_requests_waiting{e=\"0\"} 3\n",
            ),
            (
                EngineType::VllmMlx,
                "vllm_mlx_scheduler_running_requests 2\nvllm_mlx_scheduler_waiting_requests 3\n",
            ),
            (
                EngineType::Vllm,
                "vllm:num_requests_running 2\nvllm:num_requests_waiting 3\n",
            ),
            (
                EngineType::SGLang,
                "sglang:num_running_reqs 2\nsglang:num_queue_reqs 3\n",
            ),
        ];
        for (engine, text) in answers {
            let expected = Load::Known {
                running: 2,
                queued: 3,
                at: AT,
            };
            assert_eq!(load(&Scrape::read(text, names(engine)), AT), expected, "{engine:?}");
            for half in text.lines() {
                assert_eq!(
                    load(&Scrape::read(half, names(engine)), AT),
                    Load::Unknown,
                    "half an answer of {engine:?}"
                );
            }
        }
    }

    #[test]
    fn a_fraction_of_a_request_is_not_idle() {
        let text = "sglang:num_running_reqs 0.2\nsglang:num_queue_reqs 0\n";
        let Load::Known { running, .. } = load(&Scrape::read(text, sglang::NAMES), AT) else {
            panic!("must be known")
        };
        assert_eq!(running, 1);
    }
}
