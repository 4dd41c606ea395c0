//! Queueing at one or several servers.

use super::percentiles::{Component, Extra, Percentiles};
use super::{Prediction, Servers};
use crate::performance::Performance;
use crate::snapshot::{Discipline, LengthMix};
use crate::units::Fraction;

/// Servers and the traffic that meets them.
pub(super) struct Station<'a> {
    mix: &'a LengthMix,
    discipline: Discipline,
    kinds: Vec<Kind>,
}

struct Kind {
    alpha: f64,
    beta: f64,
    delta: f64,
    chunk: f64,
    slots: f64,
    count: f64,
    /// Highest rate that one server of the kind finishes, per ms.
    saturation: f64,
}

/// Sort key: milliseconds of work that a mean request is.
pub(super) fn fastest_first(performance: &Performance, mix: &LengthMix) -> u64 {
    let (prompt, output) = mix.means();
    let times = &performance.times;
    let nanoseconds = prompt * times.delta_ns as f64 + output * (times.alpha_ns + times.beta_ns) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sort key")]
    {
        nanoseconds as u64
    }
}

impl<'a> Station<'a> {
    pub(super) fn new(servers: &[Servers], mix: &'a LengthMix, discipline: Discipline) -> Self {
        let (prompt, output) = mix.means();
        let kinds = servers
            .iter()
            .filter(|kind| kind.count > 0)
            .map(|kind| {
                let times = &kind.performance.times;
                let (alpha, beta, delta) = (
                    times.alpha_ns as f64 / 1e6,
                    times.beta_ns as f64 / 1e6,
                    times.delta_ns as f64 / 1e6,
                );
                let by_memory = times.kv_tokens as f64 / (prompt + output).max(1.0);
                let slots = f64::from(times.max_batch.max(1)).min(by_memory).max(1.0);
                Kind {
                    alpha,
                    beta,
                    delta,
                    chunk: f64::from(times.prefill_chunk.max(1)),
                    slots,
                    count: f64::from(kind.count),
                    saturation: 1.0 / (prompt * delta + output * (beta + alpha / slots)),
                }
            })
            .collect();
        Self { mix, discipline, kinds }
    }

    /// The rate, per second, that all servers together can finish at most.
    pub(super) fn saturation(&self) -> f64 {
        self.kinds.iter().map(|kind| kind.saturation * kind.count).sum::<f64>() * 1e3
    }

    /// Latencies at `rate` per second; `None` if some server would have to finish more than it can.
    pub(super) fn predict(&self, rate: f64) -> Option<Prediction> {
        let saturation = self.saturation();
        let servers: f64 = self.kinds.iter().map(|kind| kind.count).sum();
        let (mut ttft, mut itl) = (Vec::new(), Vec::new());
        let mut busiest: f64 = 0.0;
        for kind in &self.kinds {
            // The router of least work keeps all servers equally busy; the random one sends each the same.
            let (per_server, pooled) = match self.discipline {
                Discipline::LeastWork => (rate / saturation * kind.saturation, servers),
                Discipline::Weighted => (rate / servers / 1e3, 1.0),
            };
            if per_server >= kind.saturation {
                return None;
            }
            busiest = busiest.max(per_server / kind.saturation);
            let load = Load::new(kind, self.mix, per_server)?;
            load.components(self.mix, pooled, &mut ttft, &mut itl);
        }
        (!self.kinds.is_empty()).then(|| Prediction {
            ttft_ms: Percentiles::new(ttft),
            itl_ms: Percentiles::new(itl),
            utilization: Fraction::new(busiest),
        })
    }
}

/// One server in steady state.
struct Load<'a> {
    kind: &'a Kind,
    /// Requests per ms.
    rate: f64,
    /// Mean duration of an iteration without prefill.
    step: f64,
    /// Share of time in which prompts are prefilled.
    prefilling: f64,
    /// Share of time that goes into prompt tokens alone.
    prompt_work: f64,
    /// Mean square of the prompt's work, in ms².
    prompt_work_square: f64,
    /// Mean and mean square of a prompt's prefill.
    prefill: f64,
    prefill_square: f64,
}

impl<'a> Load<'a> {
    fn new(kind: &'a Kind, mix: &LengthMix, rate: f64) -> Option<Self> {
        let count = mix.classes.len().max(1) as f64;
        let (prompt, output) = mix.means();
        let prompt_work = rate * prompt * kind.delta;
        let progress = rate * (output - 1.0).max(0.0) / (1.0 - prompt_work);
        let decoding = (progress * kind.alpha / (1.0 - progress * kind.beta)).clamp(0.0, kind.slots);
        let step = kind.alpha + kind.beta * decoding;
        let (mut prefill, mut prefill_square, mut prompt_work_square) = (0.0, 0.0, 0.0);
        for class in &mix.classes {
            let work = kind.prefill(class.0, step);
            prefill += work / count;
            prefill_square += work * work / count;
            prompt_work_square += (f64::from(class.0) * kind.delta).powi(2) / count;
        }
        Some(Self {
            kind,
            rate,
            step,
            prefilling: rate * prefill,
            prompt_work,
            prompt_work_square,
            prefill,
            prefill_square,
        })
        .filter(|load| load.prefilling < 1.0)
    }

    fn components(&self, mix: &LengthMix, pooled: f64, ttft: &mut Vec<Component>, itl: &mut Vec<Component>) {
        let queued = self.wait_for_prefill(pooled);
        let weight = self.rate * self.kind.count;
        for &(prompt, output) in &mix.classes {
            ttft.push(Component {
                weight,
                base_ms: self.kind.prefill(prompt, self.step) + self.step / 2.0,
                extra: queued,
            });
            if output > 1 {
                itl.push(Component {
                    weight,
                    base_ms: self.step,
                    extra: self.interference(f64::from(output - 1)),
                });
            }
        }
    }

    fn wait_for_prefill(&self, pooled: f64) -> Extra {
        let probability = erlang_c(pooled, self.prefilling);
        let residual = self.prefill_square / (2.0 * self.prefill);
        Extra {
            probability,
            mean_ms: residual / (pooled * (1.0 - self.prefilling)),
            stages: 1,
        }
    }

    fn interference(&self, tokens: f64) -> Extra {
        let alone = tokens * self.step;
        let mean = alone * self.prompt_work / (1.0 - self.prompt_work);
        let variance = alone * self.rate * self.prompt_work_square / (1.0 - self.prompt_work).powi(3);
        let probability = 1.0 - (-alone * self.rate / (1.0 - self.prompt_work)).exp();
        let conditional = mean / probability;
        let spread = ((variance + mean * mean) / probability - conditional * conditional).max(1e-9);
        Extra {
            probability,
            mean_ms: conditional / tokens,
            stages: stages(conditional * conditional / spread),
        }
    }
}

impl Kind {
    /// Time from a prompt's first chunk to its first token.
    fn prefill(&self, prompt: u32, step: f64) -> f64 {
        let prompt = f64::from(prompt.max(1));
        prompt * self.delta + (prompt / self.chunk).ceil() * step
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn stages(shape: f64) -> u32 {
    shape.round().clamp(1.0, 32.0) as u32
}

/// Probability that all of `servers` are busy (Erlang's C formula), each to the share `utilization`.
fn erlang_c(servers: f64, utilization: f64) -> f64 {
    let offered = servers * utilization;
    let mut blocking = 1.0;
    let mut busy = 1.0;
    while busy <= servers {
        blocking = offered * blocking / (busy + offered * blocking);
        busy += 1.0;
    }
    blocking / (1.0 - utilization * (1.0 - blocking))
}
