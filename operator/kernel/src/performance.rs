//! A machine's step times for one model: measured, or scaled from the catalogue.
//!
//! Measured figures win field by field. The rest is scaled from the catalogue's benchmark of LLaMA-2 7B; [`scaling`] has
//! the formulas with their sources and how far off they are on machines and models that were measured.

mod scaling;

use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, usable_memory_gib};
use crate::engine::StepTimes;
use crate::reason::{Problem, Reason};
use crate::snapshot::{MachineKey, MeasuredPerformance, Model};
use crate::time::Span;

/// Most sequences at once, where nobody says. Measured gains of batching on Apple silicon flatten out at about 16
/// (vllm-mlx: 4.3 times at 16, arXiv 2601.19139; mlx-lm pull request 478: 4.6 times at 16).
pub const DEFAULT_MAX_BATCH: u32 = 16;

/// Most prompt tokens in one iteration, where nobody says: llama.cpp's physical batch (`--ubatch-size`), and the length at
/// which the catalogue's prefill speeds were measured. Smaller chunks stall the decoding of neighbours for less long.
pub const DEFAULT_PREFILL_CHUNK: u32 = 512;

const BYTES_PER_GIB: f64 = 1_073_741_824.0;

/// What one machine does with one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// Step times and limits.
    pub times: StepTimes,
    /// From the start of the Pod to its readiness.
    pub load_time: Span,
    /// Where the figures come from, for people.
    pub source: String,
}

/// What `machine` does with `model`, by `catalogue` and what was `measured`.
///
/// # Errors
/// [`Reason::MachineUnknown`] if a figure is neither measured nor in the catalogue; [`Reason::DoesNotFit`] if the weights
/// and one longest context do not fit the memory that the GPU may use.
pub fn performance(
    catalogue: &Catalogue,
    model: &Model,
    machine: &MachineKey,
    measured: &[MeasuredPerformance],
) -> Result<Performance, Problem> {
    let measured = Figures::measured(machine, measured);
    let kv_tokens = match measured.kv_tokens {
        Some(tokens) => tokens,
        None => kv_tokens(model, machine.memory_gib),
    };
    if kv_tokens < u64::from(model.context_tokens).max(1) {
        let cache = (kv_tokens, measured.kv_tokens.is_some());
        return Err(does_not_fit(catalogue, model, machine, cache));
    }

    let known = catalogue.machine(machine);
    let scaled = known.map(|known| Figures::scaled(model, known)).unwrap_or_default();
    let missing: Vec<&str> = [
        ("alphaMs", measured.alpha_ms.or(scaled.alpha_ms)),
        ("betaMs", measured.beta_ms.or(scaled.beta_ms)),
        ("deltaMs", measured.delta_ms.or(scaled.delta_ms)),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.is_none().then_some(name))
    .collect();
    let (Some(alpha_ms), Some(beta_ms), Some(delta_ms)) = (
        measured.alpha_ms.or(scaled.alpha_ms),
        measured.beta_ms.or(scaled.beta_ms),
        measured.delta_ms.or(scaled.delta_ms),
    ) else {
        return Err(machine_unknown(machine, known.is_some(), &missing));
    };

    Ok(Performance {
        times: StepTimes {
            alpha_ns: nanoseconds(alpha_ms),
            beta_ns: nanoseconds(beta_ms),
            delta_ns: nanoseconds(delta_ms),
            kv_tokens,
            max_batch: measured.max_batch.unwrap_or(DEFAULT_MAX_BATCH),
            prefill_chunk: measured.prefill_chunk.unwrap_or(DEFAULT_PREFILL_CHUNK),
        },
        load_time: measured.load_time.unwrap_or_else(|| scaling::load_time(model)),
        source: source(&measured, known.map(|known| known.source.as_str())),
    })
}

/// What is known of one machine with one model, from one source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Figures {
    alpha_ms: Option<f64>,
    beta_ms: Option<f64>,
    delta_ms: Option<f64>,
    kv_tokens: Option<u64>,
    max_batch: Option<u32>,
    prefill_chunk: Option<u32>,
    load_time: Option<Span>,
}

impl Figures {
    /// The measured figures that are for `machine`: those for exactly its memory before those for any.
    fn measured(machine: &MachineKey, measured: &[MeasuredPerformance]) -> Self {
        let for_memory = |memory_gib: Option<u32>| {
            measured
                .iter()
                .filter(move |entry| entry.chip == machine.chip && entry.gpu_cores == machine.gpu_cores)
                .filter(move |entry| entry.memory_gib == memory_gib)
        };
        let mut figures = Self::default();
        for entry in for_memory(Some(machine.memory_gib)).chain(for_memory(None)) {
            // A measurement that is not a positive number measures nothing.
            let valid = |value: Option<f64>| value.filter(|ms| ms.is_finite() && *ms >= 0.0);
            figures.alpha_ms = figures.alpha_ms.or(valid(entry.alpha_ms));
            figures.beta_ms = figures.beta_ms.or(valid(entry.beta_ms));
            figures.delta_ms = figures.delta_ms.or(valid(entry.delta_ms));
            figures.kv_tokens = figures.kv_tokens.or(entry.kv_tokens);
            figures.max_batch = figures.max_batch.or(entry.max_batch);
            figures.prefill_chunk = figures.prefill_chunk.or(entry.prefill_chunk);
            figures.load_time = figures.load_time.or(entry.load_time);
        }
        figures
    }

    /// Scaled from the catalogue's benchmarks.
    fn scaled(model: &Model, known: &crate::catalogue::Machine) -> Self {
        let step_ms = scaling::decode_step_ms(model, known);
        Self {
            alpha_ms: step_ms.map(|step| step * (1.0 - scaling::BETA_SHARE)),
            beta_ms: step_ms.map(|step| step * scaling::BETA_SHARE),
            delta_ms: scaling::prefill_token_ms(model, known),
            ..Self::default()
        }
    }
}

/// Tokens that fit beside the weights in the memory that the GPU may use.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded down and not negative; `as` saturates"
)]
fn kv_tokens(model: &Model, memory_gib: u32) -> u64 {
    let free_bytes = (usable_memory_gib(memory_gib) - model.weights_gib) * BYTES_PER_GIB;
    (free_bytes / (model.kv_bytes_per_token.max(1) as f64)).floor().max(0.0) as u64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and not negative; `as` saturates"
)]
fn nanoseconds(ms: f64) -> u64 {
    (ms * 1e6).round().max(0.0) as u64
}

fn source(measured: &Figures, catalogue: Option<&str>) -> String {
    let figures = [measured.alpha_ms, measured.beta_ms, measured.delta_ms];
    match (figures.iter().flatten().count(), catalogue) {
        (3, _) | (_, None) => "spec.performance".to_owned(),
        (0, Some(catalogue)) => format!("scaled from LLaMA-2 7B: {catalogue}"),
        (_, Some(catalogue)) => format!("spec.performance; the rest scaled from LLaMA-2 7B: {catalogue}"),
    }
}

fn does_not_fit(
    catalogue: &Catalogue,
    model: &Model,
    machine: &MachineKey,
    (kv_tokens, measured): (u64, bool),
) -> Problem {
    let MachineKey { chip, memory_gib, .. } = machine;
    let why = if measured {
        format!(
            "spec.performance gives {chip} with {memory_gib} GiB a KV cache of {kv_tokens} tokens, and one context of {} \
             has {} tokens",
            model.name, model.context_tokens
        )
    } else {
        let context_gib = f64::from(model.context_tokens) * model.kv_bytes_per_token as f64 / BYTES_PER_GIB;
        format!(
            "{} needs {:.1} GiB for weights and {context_gib:.1} GiB for one context of {} tokens, and the GPU of {chip} \
             with {memory_gib} GiB may use {:.1} GiB",
            model.name,
            model.weights_gib,
            model.context_tokens,
            usable_memory_gib(*memory_gib)
        )
    };
    let fits = catalogue
        .machines()
        .map(|(key, _)| key)
        .filter(|key| key.chip == *chip && key.memory_gib > *memory_gib)
        .filter(|key| self::kv_tokens(model, key.memory_gib) >= u64::from(model.context_tokens).max(1))
        .min_by_key(|key| key.memory_gib);
    let alternative = match fits {
        Some(key) => format!("{chip} with {} GiB would do", key.memory_gib),
        None => format!("no larger {chip} would do"),
    };
    Problem::new(Reason::DoesNotFit, format!("{why}; {alternative}"))
}

fn machine_unknown(machine: &MachineKey, in_catalogue: bool, missing: &[&str]) -> Problem {
    let MachineKey {
        chip,
        gpu_cores,
        memory_gib,
    } = machine;
    let what = if in_catalogue {
        "the catalogue has too few speeds of"
    } else {
        "the catalogue does not know"
    };
    Problem::new(
        Reason::MachineUnknown,
        format!(
            "{what} {chip} with {gpu_cores} GPU cores and {memory_gib} GiB: spec.performance must give {}",
            missing.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn performance(
        model: &Model,
        machine: &MachineKey,
        measured: &[MeasuredPerformance],
    ) -> Result<Performance, Problem> {
        super::performance(Catalogue::builtin(), model, machine, measured)
    }

    fn llama_8b() -> Model {
        Model {
            name: "llama-3.1-8b-instruct".to_owned(),
            quantization: "Q4_K_M".to_owned(),
            parameters_billions: 8.03,
            active_parameters_billions: 8.03,
            weights_gib: 4.9,
            context_tokens: 16_384,
            kv_bytes_per_token: 131_072,
        }
    }

    fn machine(chip: &str, gpu_cores: u32, memory_gib: u32) -> MachineKey {
        MachineKey {
            chip: chip.to_owned(),
            gpu_cores,
            memory_gib,
        }
    }

    fn measured(memory_gib: Option<u32>) -> MeasuredPerformance {
        MeasuredPerformance {
            chip: "M2 Ultra".to_owned(),
            gpu_cores: 76,
            memory_gib,
            alpha_ms: None,
            beta_ms: None,
            delta_ms: None,
            kv_tokens: None,
            max_batch: None,
            prefill_chunk: None,
            load_time: None,
        }
    }

    #[test]
    fn the_catalogue_alone_gives_all_figures_with_their_source() {
        let got = performance(&llama_8b(), &machine("M2 Ultra", 76, 192), &[]).unwrap();
        // (144 GiB − 4.9 GiB) ÷ 128 KiB.
        assert_eq!(got.times.kv_tokens, 1_139_507);
        assert_eq!((got.times.max_batch, got.times.prefill_chunk), (16, 512));
        assert!(got.source.contains("4167"), "{}", got.source);
        let share = got.times.beta_ns as f64 / (got.times.alpha_ns + got.times.beta_ns) as f64;
        assert!((share - scaling::BETA_SHARE).abs() < 1e-6);
    }

    #[test]
    fn measured_figures_win_field_by_field_and_the_exact_memory_first() {
        let key = machine("M2 Ultra", 76, 192);
        let catalogue = performance(&llama_8b(), &key, &[]).unwrap();
        let general = MeasuredPerformance {
            alpha_ms: Some(10.2),
            beta_ms: Some(2.5),
            kv_tokens: Some(400_000),
            ..measured(None)
        };
        let exact = MeasuredPerformance {
            beta_ms: Some(2.0),
            prefill_chunk: Some(256),
            load_time: Some(Span::from_secs(30)),
            ..measured(Some(192))
        };
        let other = MeasuredPerformance {
            delta_ms: Some(9.0),
            ..measured(Some(64))
        };
        let got = performance(&llama_8b(), &key, &[general, other, exact]).unwrap();
        assert_eq!((got.times.alpha_ns, got.times.beta_ns), (10_200_000, 2_000_000));
        assert_eq!(got.times.delta_ns, catalogue.times.delta_ns);
        assert_eq!((got.times.kv_tokens, got.times.prefill_chunk), (400_000, 256));
        assert_eq!(got.load_time, Span::from_secs(30));
        assert!(got.source.starts_with("spec.performance;"), "{}", got.source);
    }

    #[test]
    fn an_unknown_machine_says_which_figures_would_do() {
        for (key, missing) in [
            (machine("M5", 10, 32), "spec.performance must give deltaMs"),
            (machine("M5 Ultra", 80, 256), "must give alphaMs, betaMs, deltaMs"),
            (machine("M9", 10, 32), "does not know M9 with 10 GPU cores and 32 GiB"),
        ] {
            let problem = performance(&llama_8b(), &key, &[]).unwrap_err();
            assert_eq!(problem.reason, Reason::MachineUnknown);
            assert!(problem.message.contains(missing), "{}", problem.message);
        }
    }

    #[test]
    fn a_machine_outside_the_catalogue_works_with_measured_figures() {
        let figures = MeasuredPerformance {
            chip: "M9".to_owned(),
            alpha_ms: Some(5.0),
            beta_ms: Some(1.0),
            delta_ms: Some(0.2),
            ..measured(None)
        };
        let got = performance(&llama_8b(), &machine("M9", 76, 64), std::slice::from_ref(&figures)).unwrap();
        assert_eq!(got.source, "spec.performance");
        assert!(got.times.kv_tokens > 300_000);
        let not_a_number = MeasuredPerformance {
            alpha_ms: Some(f64::NAN),
            ..figures
        };
        assert!(performance(&llama_8b(), &machine("M9", 76, 64), &[not_a_number]).is_err());
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_figures_and_the_smallest_machine_that_would_do() {
        let llama_70b = Model {
            name: "llama-3.3-70b".to_owned(),
            parameters_billions: 70.6,
            active_parameters_billions: 70.6,
            weights_gib: 39.6,
            kv_bytes_per_token: 327_680,
            ..llama_8b()
        };
        for (key, expected) in [
            (machine("M4 Pro", 16, 24), "M4 Pro with 64 GiB would do"),
            (
                machine("M4 Pro", 16, 48),
                "39.6 GiB for weights and 5.0 GiB for one context of 16384 tokens",
            ),
            (machine("M4", 10, 16), "no larger M4 would do"),
        ] {
            let problem = performance(&llama_70b, &key, &[]).unwrap_err();
            assert_eq!(problem.reason, Reason::DoesNotFit);
            assert!(problem.message.contains(expected), "{}", problem.message);
        }
        assert!(performance(&llama_70b, &machine("M4 Pro", 16, 64), &[]).is_ok());
    }

    #[test]
    fn a_measured_cache_smaller_than_one_context_does_not_fit() {
        let small = MeasuredPerformance {
            kv_tokens: Some(8_000),
            ..measured(None)
        };
        let problem = performance(&llama_8b(), &machine("M2 Ultra", 76, 192), &[small]).unwrap_err();
        assert_eq!(problem.reason, Reason::DoesNotFit);
        assert!(problem.message.contains("8000 tokens"), "{}", problem.message);
    }
}
