//! Queueing at one or several servers.
//!
//! A request meets three queues, one after the other, each with a formula of its own:
//!
//! 1. for a **slot** in the batch: a birth-death chain over the number of requests at the servers. A server that holds `n` finishes
//!    them at the rate that mean value analysis (Reiser and Lavenberg, 1980) gives for `n` requests that go round between one
//!    prefill queue and decoding in parallel. Beyond the last slot the tail is geometric, stretched for the variability of the
//!    work (Allen and Cunneen: half of one plus its squared coefficient of variation);
//! 2. for its **prefill**, behind the prompts of others: an M/G/c queue (Erlang's C formula, Pollaczek-Khinchine residual, Allen-Cunneen);
//! 3. while **decoding**, for the prompts of others that are prefilled in between, those left behind included: a compound Poisson sum,
//!    with its own delays (a delay cycle), fitted by two moments, and never more than one chunk between two tokens.
//!
//! Several servers behind a router of least work are a pool of `c` such servers with common queues; behind a random router each is one
//! for itself. All times are in ms, all rates in requests per ms.

use std::sync::Arc;

use super::Prediction;
use super::percentiles::{Component, Extra, Percentiles, Share};
use crate::engine::StepTimes;
use crate::snapshot::{Discipline, LengthMix, Metric, Objective};
use crate::units::Fraction;

/// More servers than this are taken to pool no better: keeps the chain short, costs a few percent, and errs on the safe side.
const MOST_POOLED: f64 = 16.0;

/// How much longer a prompt waits behind others than it would if decoding did not matter: while prompts queue, batches are
/// fuller than on average, and chunks slower. Calibrated with the engine on one server at 40 to 85 % load.
const CLUSTERING: f64 = 1.2;

/// Most stages of a sum of delays: with more, it hardly varies.
const MOST_STAGES: f64 = 8.0;

/// Servers and the traffic that meets them.
pub(super) struct Station<'a> {
    mix: &'a LengthMix,
    discipline: Discipline,
    kinds: Vec<(Arc<Kind>, f64)>,
}

impl<'a> Station<'a> {
    /// `kinds` of servers with what they do with the mix, and how many there are of each: every kind once.
    pub(super) fn new(kinds: Vec<(Arc<Kind>, f64)>, mix: &'a LengthMix, discipline: Discipline) -> Self {
        Self { mix, discipline, kinds }
    }

    /// The rate, per second, that all servers together can finish at most.
    pub(super) fn saturation(&self) -> f64 {
        self.kinds
            .iter()
            .map(|(kind, count)| kind.saturation() * count)
            .sum::<f64>()
            * 1e3
    }

    /// Latencies at `rate` per second; `None` if some server would have to finish more than it can.
    pub(super) fn predict(&self, rate: f64) -> Option<Prediction> {
        let loads = self.loads(rate)?;
        let (mut ttft, mut itl) = (Vec::new(), Vec::new());
        let mut busiest: f64 = 0.0;
        for load in &loads {
            busiest = busiest.max(load.rate / load.kind.saturation());
            load.first_tokens(|component| ttft.push(component));
            load.later_tokens(self.mix, |component| itl.push(component));
        }
        Some(Prediction {
            ttft_ms: Percentiles::new(ttft),
            itl_ms: Percentiles::new(itl),
            utilization: Fraction::new(busiest),
        })
    }

    /// Whether every objective holds at `rate` per second: as [`Self::predict`] says it, without the distributions.
    pub(super) fn holds(&self, rate: f64, objectives: &[Objective]) -> bool {
        let Some(loads) = self.loads(rate) else { return false };
        objectives.iter().all(|objective| {
            let ms = super::milliseconds(objective);
            let mut share = Share::default();
            for load in &loads {
                match objective.metric {
                    Metric::TimeToFirstToken => load.first_tokens(|component| share.add(&component, ms)),
                    Metric::InterTokenLatency => load.later_tokens(self.mix, |component| share.add(&component, ms)),
                }
            }
            share.within() >= objective.percentile
        })
    }

    /// Every kind at its part of `rate`; `None` if there is none, or one would have to finish more than it can.
    fn loads(&self, rate: f64) -> Option<Vec<Load<'_>>> {
        let saturation = self.saturation();
        let servers: f64 = self.kinds.iter().map(|(_, count)| count).sum();
        let loads = self.kinds.iter().map(|(kind, count)| {
            // The router of least work keeps all servers equally busy; the random one sends the same to each.
            let (per_server, pooled) = match self.discipline {
                Discipline::LeastWork => (rate / saturation * kind.saturation(), servers.min(MOST_POOLED)),
                Discipline::Weighted => (rate / servers / 1e3, 1.0),
            };
            Load::new(kind, *count, per_server, pooled)
        });
        if self.kinds.is_empty() { None } else { loads.collect() }
    }
}

/// One kind of server with one mix of lengths.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    alpha: f64,
    beta: f64,
    delta: f64,
    chunk: f64,
    slots: f64,
    /// Mean prompt and output tokens of the mix.
    means: (f64, f64),
    /// Each prompt of the mix: its own work, and its chunks.
    prompts: Vec<(f64, f64)>,
    /// Mean and mean square of a prompt's own work.
    prompt_work: (f64, f64),
    /// Rate at which a server that holds `n` requests finishes them, for `n` from zero to all slots.
    finishing: Vec<f64>,
    /// Squared coefficient of variation of a request's work in a full batch.
    variability: f64,
}

impl Kind {
    pub(super) fn new(times: &StepTimes, mix: &LengthMix) -> Self {
        let (prompt, output) = mix.means();
        let by_memory = times.kv_tokens as f64 / (prompt + output).max(1.0);
        let mut kind = Self {
            alpha: times.alpha_ns as f64 / 1e6,
            beta: times.beta_ns as f64 / 1e6,
            delta: times.delta_ns as f64 / 1e6,
            chunk: f64::from(times.prefill_chunk.max(1)),
            slots: f64::from(times.max_batch.max(1)).min(by_memory).floor().max(1.0),
            means: (prompt, output),
            prompts: Vec::new(),
            prompt_work: (0.0, 0.0),
            finishing: vec![0.0],
            variability: 0.0,
        };
        let per_output = kind.beta + kind.alpha / kind.slots;
        let (mean, square) = moments(mix, |prompt, output| {
            f64::from(prompt) * kind.delta + f64::from(output) * per_output
        });
        let (chunk, delta) = (kind.chunk, kind.delta);
        let prompts = mix.classes.iter().map(|&(prompt, _)| f64::from(prompt.max(1)));
        kind.prompts = prompts
            .map(|prompt| (prompt * delta, (prompt / chunk).ceil()))
            .collect();
        kind.prompt_work = moments(mix, |prompt, _| f64::from(prompt) * delta);
        kind.variability = (square / (mean * mean).max(f64::MIN_POSITIVE) - 1.0).max(0.0);
        kind.fill_finishing();
        kind
    }

    /// Mean value analysis, one request more at a time.
    fn fill_finishing(&mut self) {
        let (prompt, output) = self.means;
        let tokens = (output - 1.0).max(0.0);
        let (mut at_prefill, mut decoding) = (0.0, 0.0);
        let mut held = 1.0;
        while held <= self.slots {
            // A request sees the server as it is with one request fewer, and itself.
            let step = self.step(decoding + 1.0);
            let (prefill, _) = self.prefill_moments(step - self.beta);
            let stay = prefill * (1.0 + at_prefill);
            // rate · (stay + tokens · step / (1 − rate · work)) = held, because others' prompts stretch decoding.
            let (work, sum) = (prompt * self.delta, stay + tokens * step + held * prompt * self.delta);
            let root = (sum * sum - 4.0 * work * stay * held).max(0.0).sqrt();
            let rate = 2.0 * held / (sum + root);
            (at_prefill, decoding) = (rate * stay, held - rate * stay);
            self.finishing.push(rate);
            held += 1.0;
        }
    }

    /// The rate of a server that always has a full batch.
    fn saturation(&self) -> f64 {
        self.finishing.last().copied().unwrap_or(0.0)
    }

    /// The rate of a server that holds `requests`, between whole numbers too.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    fn finishing(&self, requests: f64) -> f64 {
        let below = requests.floor();
        let at = |index: f64| {
            self.finishing
                .get(index as usize)
                .copied()
                .unwrap_or_else(|| self.saturation())
        };
        at(below) + (at(below + 1.0) - at(below)) * (requests - below)
    }

    /// An iteration without prefill.
    fn step(&self, decoding: f64) -> f64 {
        self.alpha + self.beta * decoding.min(self.slots)
    }

    /// From each prompt's first chunk to its first token, in iterations of `step` and the chunk; in the order of the mix.
    fn prefills(&self, step: f64) -> impl Iterator<Item = f64> {
        self.prompts.iter().map(move |(work, chunks)| work + chunks * step)
    }

    /// Mean and mean square of them.
    fn prefill_moments(&self, step: f64) -> (f64, f64) {
        mean_and_square(self.prefills(step), self.prompts.len())
    }
}

/// One server in steady state.
struct Load<'a> {
    kind: &'a Kind,
    /// Servers of the kind.
    count: f64,
    /// Of one server.
    rate: f64,
    /// Servers with common queues.
    pooled: f64,
    /// Decoding sequences, mean over time.
    decoding: f64,
    /// Share of time that goes into prompt tokens.
    prompt_share: f64,
    /// Mean and mean square of a prompt's own work.
    prompt_work: (f64, f64),
    /// Mean and mean square of a prompt's prefill, iterations included.
    prefill: (f64, f64),
}

impl<'a> Load<'a> {
    fn new(kind: &'a Kind, count: f64, rate: f64, pooled: f64) -> Option<Self> {
        if rate >= kind.saturation() {
            return None;
        }
        let (prompt, output) = kind.means;
        let prompt_share = rate * prompt * kind.delta;
        // Little's law for decoding sequences: decoding = rate · tokens · step(decoding + 1) / (1 − prompt share).
        let tokens = rate * (output - 1.0).max(0.0) / (1.0 - prompt_share).max(0.01);
        let decoding = tokens * (kind.alpha + kind.beta) / (1.0 - tokens * kind.beta).max(0.01);
        let decoding = decoding.clamp(0.0, kind.slots);
        let step = kind.step(decoding);
        let prefill = kind.prefill_moments(step);
        Some(Self {
            kind,
            count,
            rate,
            pooled,
            decoding,
            prompt_share,
            prompt_work: kind.prompt_work,
            prefill,
        })
    }

    /// Time to first token, by class of the mix.
    fn first_tokens(&self, mut each: impl FnMut(Component)) {
        let queued = Extra::sum(self.wait_for_slot(), self.wait_for_prefill());
        let step = self.kind.step(self.decoding);
        for prefill in self.kind.prefills(step) {
            each(Component {
                weight: self.rate * self.count,
                // An arrival waits for the end of the iteration under way.
                base_ms: prefill + step / 2.0 * self.decoding.min(1.0),
                extra: queued,
            });
        }
    }

    /// Latency between tokens, by class of the mix.
    fn later_tokens(&self, mix: &LengthMix, mut each: impl FnMut(Component)) {
        let prompts = self.wait_for_prefill();
        let waited = prompts.probability * prompts.mean_ms;
        let step = self.kind.step(self.decoding);
        let classes = mix.classes.iter().zip(self.kind.prefills(step));
        for (&(_, output), prefill) in classes.filter(|((_, output), _)| *output > 1) {
            let sojourn = prefill + waited;
            each(Component {
                weight: self.rate * self.count,
                base_ms: self.kind.step(self.decoding + 1.0),
                extra: [self.interference(f64::from(output - 1), sojourn), Extra::NONE],
            });
        }
    }

    /// 1. The wait for a slot.
    fn wait_for_slot(&self) -> Extra {
        let arriving = self.rate * self.pooled;
        let most = self.pooled * self.kind.slots;
        // Share of the last state among all states so far: Erlang's recursion, with rates that depend on the state.
        let (mut last, mut requests) = (1.0, 1.0);
        while requests <= most {
            let finishing = self.pooled * self.kind.finishing(requests / self.pooled);
            let ratio = arriving / finishing.max(f64::MIN_POSITIVE) * last;
            last = ratio / (1.0 + ratio);
            requests += 1.0;
        }
        let utilization = self.rate / self.kind.saturation();
        let stretch = f64::midpoint(1.0, self.kind.variability);
        Extra {
            probability: last / (1.0 - utilization + last * utilization),
            mean_ms: stretch / (self.pooled * (self.kind.saturation() - self.rate)),
            stages: 1,
            most_ms: f64::INFINITY,
        }
    }

    /// 2. The wait for its turn at prefill: never behind more prompts than there are other slots.
    fn wait_for_prefill(&self) -> Extra {
        let (mean, square) = self.prefill;
        let utilization = (self.rate * mean).min(0.99);
        let bound = mean * self.kind.slots;
        Extra {
            probability: erlang_c(self.pooled, utilization),
            mean_ms: (CLUSTERING * square / (2.0 * mean) / (self.pooled * (1.0 - utilization))).min(bound),
            stages: 1,
            most_ms: f64::INFINITY,
        }
    }

    /// 3. The wait for others' prompts between `tokens` tokens, per token.
    ///
    /// `sojourn` is how long it was in the prefill queue itself: who came to the same server meanwhile is prefilled now.
    fn interference(&self, tokens: f64, sojourn: f64) -> Extra {
        let (work, work_square) = self.prompt_work;
        let idle = (1.0 - self.prompt_share).max(0.01);
        let utilization = (self.rate * self.prefill.0).min(0.99);
        // A pool sends most of them elsewhere.
        let behind = self.rate * sojourn * erlang_c(self.pooled, utilization) / utilization.max(f64::MIN_POSITIVE);
        let alone = tokens * self.kind.step(self.decoding + 1.0);

        let prompts = alone * self.rate + behind;
        let mean = prompts * work / idle;
        let variance = prompts * work_square / (idle * idle * idle);
        let probability = 1.0 - libm::exp(-prompts / idle);
        if probability <= 0.0 {
            return Extra::NONE;
        }
        let conditional = mean / probability;
        let spread = (variance + mean * mean) / probability - conditional * conditional;
        Extra {
            probability,
            mean_ms: conditional / tokens,
            stages: stages(conditional * conditional / spread.max(f64::MIN_POSITIVE)),
            // One chunk between two tokens.
            most_ms: self.kind.chunk * self.kind.delta,
        }
    }
}

/// Mean and mean square over the mix.
fn moments(mix: &LengthMix, of: impl Fn(u32, u32) -> f64) -> (f64, f64) {
    let values = mix.classes.iter().map(|&(prompt, output)| of(prompt, output));
    mean_and_square(values, mix.classes.len())
}

fn mean_and_square(values: impl Iterator<Item = f64>, count: usize) -> (f64, f64) {
    let count = count.max(1) as f64;
    let (mut mean, mut square) = (0.0, 0.0);
    for value in values {
        mean += value / count;
        square += value * value / count;
    }
    (mean, square)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn stages(shape: f64) -> u32 {
    shape.round().clamp(1.0, MOST_STAGES) as u32
}

/// Probability that all of `servers` are busy, each to the share `utilization` (Erlang's C formula).
fn erlang_c(servers: f64, utilization: f64) -> f64 {
    let offered = servers * utilization;
    let (mut blocking, mut busy) = (1.0, 1.0);
    while busy <= servers {
        blocking = offered * blocking / (busy + offered * blocking);
        busy += 1.0;
    }
    blocking / (1.0 - utilization * (1.0 - blocking))
}
