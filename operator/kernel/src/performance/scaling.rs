//! From the catalogue's benchmark to another model's step times.
//!
//! The benchmark is LLaMA-2 7B (6.74 billion parameters): 3.56 GiB of weights in `Q4_0`, 12.55 GiB in `F16` (llama.cpp
//! discussion 4167). The test below compares the formulas with machines and models that others have measured; they agree within
//! a quarter, mostly on the slow side. Long contexts slow decoding further (an M2 Ultra from 79 to 54 tokens/s at 8,192
//! tokens): what is measured belongs into `spec.performance`.

use crate::catalogue::Machine;
use crate::snapshot::Model;
use crate::time::Span;

/// Parameters of the benchmark's model, in billions.
const BENCHMARK_PARAMETERS: f64 = 6.74;
/// Its weights in `Q4_0`.
const Q4_0_GIB: f64 = 3.56;
/// Its weights in `F16`.
const F16_GIB: f64 = 12.55;

/// `beta / (alpha + beta)`: the part of one stream's decode step that each further sequence adds.
///
/// Six measured batches on Apple silicon, fitted as `alpha + beta · sequences`, give 0.12, 0.14, 0.16, 0.28, 0.36 and 0.58
/// (vllm-mlx `docs/benchmarks/llm.md` at 4b654c0 on an M4 Max, of which the larger ones contain prefill; mlx-lm pull requests 468 and
/// 478), 0.22 in the middle.
pub(super) const BETA_SHARE: f64 = 0.2;

/// Share of the nominal bandwidth at which weights are read, where the `F16` benchmark is missing: the lowest of the
/// machines for which both benchmarks exist (0.82 to 0.97).
const BANDWIDTH_SHARE: f64 = 0.82;

/// Bytes of weights that an engine loads from a cold disk per second: half of what MLX reached on an M5 Max (8B in 1.8 s, 70B
/// in 15.2 s, one source), because smaller machines have slower disks.
const LOAD_GIB_PER_SECOND: f64 = 1.2;
/// Starting the process, before weights are read. An assumption.
const START: Span = Span::from_secs(5);

/// One stream's decode step, `alpha + beta`.
///
/// `step = overhead · √(parameters / 6.74) + weights read · time per GiB`. Both unknowns come from the two benchmarks of the
/// machine. The overhead is per layer, and depth grows about with the square root of the size (7B: 32 layers, 70B: 80). A
/// mixture of experts reads its active share of the weights but has all of its layers.
pub(super) fn decode_step_ms(model: &Model, machine: &Machine) -> Option<f64> {
    let q4_ms = 1e3 / machine.q4_0.decode_per_second?;
    let most_per_gib = q4_ms / Q4_0_GIB;
    let per_gib = match machine.f16.decode_per_second {
        Some(f16) => (1e3 / f16 - q4_ms) / (F16_GIB - Q4_0_GIB),
        None => 1e3 * 1.073_741_824 / (BANDWIDTH_SHARE * machine.bandwidth_gbs),
    }
    .clamp(0.0, most_per_gib);
    let overhead = (q4_ms - Q4_0_GIB * per_gib) * (model.parameters_billions / BENCHMARK_PARAMETERS).sqrt();
    Some(overhead + model.weights_gib * active_share(model) * per_gib)
}

/// Prefilling one prompt token: `delta`.
///
/// Prefill is bound by arithmetic, so it scales with the parameters touched per token. `Q4_0` and `F16` differ by at most 15 %;
/// `Q4_0` is the slower one and stands for all.
pub(super) fn prefill_token_ms(model: &Model, machine: &Machine) -> Option<f64> {
    let active = model.parameters_billions * active_share(model);
    Some(1e3 / machine.q4_0.prefill_per_second? * active / BENCHMARK_PARAMETERS)
}

/// From the start of the Pod to its readiness.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and not negative; `as` saturates"
)]
pub(super) fn load_time(model: &Model) -> Span {
    START + Span::from_millis((model.weights_gib / LOAD_GIB_PER_SECOND * 1e3).round() as u64)
}

fn active_share(model: &Model) -> f64 {
    if model.parameters_billions > 0.0 {
        (model.active_parameters_billions / model.parameters_billions).clamp(0.0, 1.0)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::catalogue::Catalogue;
    use crate::snapshot::MachineKey;

    fn model(parameters: f64, active: f64, weights_gib: f64) -> Model {
        Model {
            name: String::new(),
            quantization: String::new(),
            parameters_billions: parameters,
            active_parameters_billions: active,
            weights_gib,
            context_tokens: 8_192,
            kv_bytes_per_token: 131_072,
        }
    }

    fn machine(chip: &str, gpu_cores: u32) -> &'static Machine {
        let is_it = |(key, _): &(&MachineKey, &Machine)| key.chip == chip && key.gpu_cores == gpu_cores;
        Catalogue::builtin().machines().find(is_it).unwrap().1
    }

    /// Tokens per second (prefill, decode) of one stream, as published: `XiongjieDai/GPU-Benchmarks-on-LLM-Inference`,
    /// `brand-o/normiebench` issues 3 and 40, `geerlingguy/beowulf-ai-cluster` issue 17, vllm-mlx `docs/benchmarks/llm.md`.
    #[test]
    fn predictions_are_within_a_quarter_of_what_others_have_measured() {
        let (q4_8b, q4_70b) = ((8.03, 8.03, 4.58), (70.6, 70.6, 39.6));
        for (chip, cores, (parameters, active, gib), prefill, decode) in [
            ("M2 Ultra", 76, q4_8b, Some(994.04), 78.81),
            ("M2 Ultra", 76, (70.6, 70.6, 36.2), Some(133.18), 14.37),
            ("M3 Max", 40, q4_8b, Some(694.0), 49.0),
            ("M3 Max", 40, q4_70b, Some(70.4), 7.65),
            ("M1 Max", 32, q4_8b, Some(499.58), 46.2),
            ("M4", 10, q4_8b, Some(224.81), 20.87),
            ("M3 Ultra", 80, q4_70b, Some(162.3), 14.41),
            ("M4 Max", 40, (30.5, 3.3, 16.0), None, 98.1),
        ] {
            let (machine, model) = (machine(chip, cores), model(parameters, active, gib));
            let got = 1e3 / decode_step_ms(&model, machine).unwrap();
            let context = format!("{chip} {parameters}B: decode {got:.1}, measured {decode}");
            assert!(got / decode > 0.75 && got / decode < 1.15, "{context}");
            if let Some(prefill) = prefill {
                let got = 1e3 / prefill_token_ms(&model, machine).unwrap();
                let context = format!("{chip} {parameters}B: prefill {got:.1}, measured {prefill}");
                assert!(got / prefill > 0.75 && got / prefill < 1.15, "{context}");
            }
        }
    }

    #[test]
    fn the_benchmark_itself_is_reproduced() {
        let benchmark = model(BENCHMARK_PARAMETERS, BENCHMARK_PARAMETERS, Q4_0_GIB);
        for (key, machine) in Catalogue::builtin().machines() {
            let Some(decode) = machine.q4_0.decode_per_second else {
                assert_eq!(decode_step_ms(&benchmark, machine), None, "{key:?}");
                continue;
            };
            let step = decode_step_ms(&benchmark, machine).unwrap();
            assert!((step * decode / 1e3 - 1.0).abs() < 1e-9, "{key:?}");
        }
    }

    #[test]
    fn a_mixture_of_experts_scales_by_its_active_weights() {
        let m4_max = machine("M4 Max", 40);
        let (dense, experts) = (model(30.5, 30.5, 16.0), model(30.5, 3.3, 16.0));
        let ratio = prefill_token_ms(&experts, m4_max).unwrap() / prefill_token_ms(&dense, m4_max).unwrap();
        assert!((ratio - 3.3 / 30.5).abs() < 1e-9);
        assert!(decode_step_ms(&experts, m4_max).unwrap() < 0.5 * decode_step_ms(&dense, m4_max).unwrap());
    }

    #[test]
    fn loading_takes_longer_for_larger_weights() {
        assert_eq!(load_time(&model(8.0, 8.0, 4.8)), Span::from_secs(9));
        assert!(load_time(&model(70.0, 70.0, 39.6)) > load_time(&model(8.0, 8.0, 4.8)));
    }
}
