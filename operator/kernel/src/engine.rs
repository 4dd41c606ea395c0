//! The reference engine, one iteration at a time.
//!
//! Iteration-level continuous batching with chunked prefill. Requests wait first-in-first-out; one is admitted when a slot
//! is free and its whole context (prompt + output) fits the KV cache. One iteration decodes one token of every running
//! sequence that has finished its prompt, and prefills up to `prefill_chunk` prompt tokens of the others, oldest first.
//! The iteration that finishes a prompt yields that request's first token.
//!
//! Times are whole nanoseconds, so that `n` equal iterations take exactly `n` times as long as one, in any order of
//! summation: skipping over iterations gives the same bytes as stepping through them.

pub mod skipping;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Step times and limits of one machine for one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepTimes {
    /// Fixed part of an iteration, in ns.
    pub alpha_ns: u64,
    /// Part per decoding sequence, in ns. `alpha + beta` is one stream's decode step.
    pub beta_ns: u64,
    /// Part per prompt token prefilled, in ns.
    pub delta_ns: u64,
    /// Tokens that fit the KV cache.
    pub kv_tokens: u64,
    /// Most sequences at once.
    pub max_batch: u32,
    /// Most prompt tokens prefilled in one iteration.
    pub prefill_chunk: u32,
}

impl StepTimes {
    /// The duration of one iteration that decodes `decoded` sequences and prefills `prefilled` prompt tokens, in ns.
    pub const fn iteration_ns(&self, decoded: u64, prefilled: u64) -> u64 {
        self.alpha_ns
            .saturating_add(self.beta_ns.saturating_mul(decoded))
            .saturating_add(self.delta_ns.saturating_mul(prefilled))
    }

    /// A router's estimate of one request's work, in ns: it knows the prompt, and expects the mean output. A decode step counts
    /// with the request's own share of a full batch.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates; the value is not negative"
    )]
    pub fn estimated_work_ns(&self, prompt: u32, mean_output: f64) -> u64 {
        let per_token = self.beta_ns + self.alpha_ns / u64::from(self.max_batch.max(1));
        self.delta_ns * u64::from(prompt) + (per_token as f64 * mean_output).round() as u64
    }
}

/// Names a request within one engine. Chosen by the caller, unique among the requests in it.
pub type RequestId = u64;

/// A request's context is longer than the KV cache: it can never be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a context of {context} tokens does not fit a KV cache of {kv_tokens}")]
pub struct TooLong {
    /// Prompt and output tokens.
    pub context: u64,
    /// What would fit.
    pub kv_tokens: u64,
}

/// What one iteration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// How long it took, in ns.
    pub duration_ns: u64,
    /// Tokens that it yielded at its end, in the order of admission.
    pub tokens: Vec<Token>,
}

/// One output token of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub request: RequestId,
    /// It is the request's first.
    pub first: bool,
    /// It is the request's last: the slot and the cache are free again.
    pub last: bool,
}

/// One server's engine.
#[derive(Clone, Debug)]
pub struct Engine {
    times: StepTimes,
    /// In the order of admission: never longer than the batch, so that a walk over it beats any index.
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    /// Sum of the contexts of `running`.
    reserved: u64,
}

/// A request, waiting or running.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    request: RequestId,
    /// Prompt and output tokens: what it reserves of the KV cache from admission to its end.
    context: u64,
    /// Prompt tokens not prefilled yet.
    prompt_left: u32,
    /// Output tokens not yielded yet.
    output_left: u32,
    /// It has yielded a token.
    started: bool,
}

impl Engine {
    /// An idle engine. A batch or a chunk of zero counts as one: an engine always gets on.
    pub fn new(times: StepTimes) -> Self {
        Self {
            times,
            running: Vec::new(),
            waiting: VecDeque::new(),
            reserved: 0,
        }
    }

    /// Its step times.
    pub fn times(&self) -> StepTimes {
        self.times
    }

    /// Puts a request at the end of the queue. `output` counts at least one token, and so does `prompt`: even an empty
    /// one begins with a token that marks the beginning.
    pub fn submit(&mut self, request: RequestId, prompt: u32, output: u32) -> Result<(), TooLong> {
        let (prompt, output) = (prompt.max(1), output.max(1));
        let context = u64::from(prompt) + u64::from(output);
        if context > self.times.kv_tokens {
            return Err(TooLong {
                context,
                kv_tokens: self.times.kv_tokens,
            });
        }
        self.waiting.push_back(Sequence {
            request,
            context,
            prompt_left: prompt,
            output_left: output,
            started: false,
        });
        Ok(())
    }

    /// Takes a request out, wherever it is. False if it is not there.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let is_it = |sequence: &Sequence| sequence.request == request;
        if let Some(index) = self.running.iter().position(is_it) {
            self.reserved -= self.running.remove(index).context;
            true
        } else if let Some(index) = self.waiting.iter().position(is_it) {
            self.waiting.remove(index);
            true
        } else {
            false
        }
    }

    /// Runs one iteration. `None` if nothing runs and nothing waits.
    pub fn step(&mut self) -> Option<Step> {
        self.admit();
        if self.running.is_empty() {
            return None;
        }

        let mut chunk = self.times.prefill_chunk.max(1);
        let (mut decoded, mut prefilled) = (0_u64, 0_u64);
        let mut tokens = Vec::with_capacity(self.running.len());
        for sequence in &mut self.running {
            if sequence.prompt_left == 0 {
                decoded += 1;
            } else {
                let share = sequence.prompt_left.min(chunk);
                chunk -= share;
                prefilled += u64::from(share);
                sequence.prompt_left -= share;
                if sequence.prompt_left > 0 {
                    continue;
                }
            }
            sequence.output_left -= 1;
            tokens.push(Token {
                request: sequence.request,
                first: !sequence.started,
                last: sequence.output_left == 0,
            });
            sequence.started = true;
        }
        self.running.retain(|sequence| {
            let stays = sequence.output_left > 0;
            if !stays {
                self.reserved -= sequence.context;
            }
            stays
        });

        Some(Step {
            duration_ns: self.times.iteration_ns(decoded, prefilled),
            tokens,
        })
    }

    /// Requests in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests waiting.
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Tokens of KV cache reserved by the running requests.
    pub fn kv_reserved(&self) -> u64 {
        self.reserved
    }

    /// Admits from the head of the queue for as long as the head fits. Nothing overtakes it: else a stream of short
    /// requests would keep a long one out for ever.
    fn admit(&mut self) {
        let slots = usize::try_from(self.times.max_batch.max(1)).unwrap_or(usize::MAX);
        while self.running.len() < slots
            && let Some(head) = self.waiting.front()
            && self.reserved + head.context <= self.times.kv_tokens
            && let Some(head) = self.waiting.pop_front()
        {
            self.reserved += head.context;
            self.running.push(head);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn times() -> StepTimes {
        StepTimes {
            alpha_ns: 10 * MS,
            beta_ns: 2 * MS,
            delta_ns: MS,
            kv_tokens: 1_000,
            max_batch: 2,
            prefill_chunk: 100,
        }
    }

    /// Duration in ms, and tokens as (request, first, last).
    type Iteration = (u64, Vec<(RequestId, bool, bool)>);

    /// Runs to the end.
    fn run(engine: &mut Engine) -> Vec<Iteration> {
        std::iter::from_fn(|| engine.step())
            .map(|step| {
                let tokens = step.tokens.iter().map(|t| (t.request, t.first, t.last)).collect();
                (step.duration_ns / MS, tokens)
            })
            .collect()
    }

    #[test]
    fn a_request_alone_takes_its_prefill_and_then_one_stream_steps() {
        let mut engine = Engine::new(times());
        engine.submit(7, 150, 3).unwrap();
        assert_eq!(
            run(&mut engine),
            [
                (110, vec![]),                 // alpha + 100 delta
                (60, vec![(7, true, false)]),  // alpha + 50 delta, and the first token
                (12, vec![(7, false, false)]), // alpha + beta
                (12, vec![(7, false, true)]),
            ]
        );
        assert_eq!((engine.running(), engine.queued(), engine.kv_reserved()), (0, 0, 0));
    }

    #[test]
    fn one_chunk_is_shared_oldest_first_while_others_decode() {
        let mut engine = Engine::new(StepTimes {
            max_batch: 3,
            ..times()
        });
        engine.submit(1, 40, 4).unwrap();
        assert_eq!(engine.step().unwrap().duration_ns, 50 * MS);
        engine.submit(2, 70, 1).unwrap();
        engine.submit(3, 50, 2).unwrap();
        assert_eq!(
            run(&mut engine),
            [
                (112, vec![(1, false, false), (2, true, true)]), // alpha + beta + (70 + 30) delta
                (32, vec![(1, false, false), (3, true, false)]), // alpha + beta + 20 delta
                (14, vec![(1, false, true), (3, false, true)]),  // alpha + 2 beta
            ]
        );
    }

    #[test]
    fn nothing_overtakes_a_head_that_does_not_fit() {
        let mut engine = Engine::new(times());
        engine.submit(1, 90, 2).unwrap();
        engine.submit(2, 950, 1).unwrap();
        engine.submit(3, 1, 1).unwrap();
        engine.step().unwrap();
        assert_eq!((engine.running(), engine.queued(), engine.kv_reserved()), (1, 2, 92));
        engine.step().unwrap();
        engine.step().unwrap();
        assert_eq!((engine.running(), engine.queued(), engine.kv_reserved()), (2, 0, 953));
    }

    #[test]
    fn a_context_longer_than_the_cache_is_refused_at_once() {
        let mut engine = Engine::new(times());
        let refused = TooLong {
            context: 1_001,
            kv_tokens: 1_000,
        };
        assert_eq!(engine.submit(1, 1_000, 1), Err(refused));
        assert_eq!(engine.submit(1, 999, 1), Ok(()));
        assert_eq!(engine.queued(), 1);
    }

    #[test]
    fn empty_lengths_and_limits_count_as_one() {
        let mut engine = Engine::new(StepTimes {
            max_batch: 0,
            prefill_chunk: 0,
            ..times()
        });
        engine.submit(1, 0, 0).unwrap();
        assert_eq!(run(&mut engine), [(11, vec![(1, true, true)])]);
    }

    #[test]
    fn a_cancelled_request_frees_its_slot_and_cache_and_yields_nothing_more() {
        let mut engine = Engine::new(times());
        for request in 1..=4 {
            engine.submit(request, 50, 10).unwrap();
        }
        engine.step().unwrap();
        assert!(engine.cancel(1));
        assert!(engine.cancel(4));
        assert!(!engine.cancel(1));
        assert_eq!((engine.running(), engine.queued(), engine.kv_reserved()), (1, 1, 60));
        let yielded: Vec<_> = run(&mut engine).into_iter().flat_map(|(_, tokens)| tokens).collect();
        assert_eq!(yielded.iter().filter(|token| token.2).count(), 2);
        assert!(yielded.iter().all(|token| [2, 3].contains(&token.0)));
    }

    proptest! {
        /// Whatever comes when: every request that was taken yields exactly its tokens, in order of admission, no
        /// limit is ever exceeded, and no first token comes before its prompt can have been prefilled.
        #[test]
        fn every_token_is_yielded_once_and_no_limit_is_exceeded(
            kv_tokens in 50_u64..600,
            max_batch in 1_u32..6,
            prefill_chunk in 1_u32..80,
            requests in prop::collection::vec((0_u32..300, 0_u32..20, 0_u64..30), 1..40),
        ) {
            let times = StepTimes { kv_tokens, max_batch, prefill_chunk, ..times() };
            let mut engine = Engine::new(times);
            let mut arrivals: Vec<_> = (0..).zip(requests).collect();
            arrivals.sort_by_key(|(_, (_, _, at))| *at);
            let mut arrivals = arrivals.into_iter().peekable();
            // Per request: iteration of arrival, prompt, output, tokens seen.
            let mut taken: BTreeMap<RequestId, (u64, u32, u32, u32)> = BTreeMap::new();
            let mut order_of_first = Vec::new();
            let mut submitted = Vec::new();

            for iteration in 0.. {
                while let Some((id, (prompt, output, _))) = arrivals.next_if(|(_, (_, _, at))| *at <= iteration) {
                    let (prompt, output) = (prompt.max(1), output.max(1));
                    let fits = u64::from(prompt) + u64::from(output) <= kv_tokens;
                    prop_assert_eq!(engine.submit(id, prompt, output).is_ok(), fits);
                    if fits {
                        taken.insert(id, (iteration, prompt, output, 0));
                        submitted.push(id);
                    }
                }
                let Some(step) = engine.step() else {
                    if arrivals.peek().is_none() { break }
                    continue;
                };
                prop_assert!(engine.running() <= max_batch as usize);
                prop_assert!(engine.kv_reserved() <= kv_tokens);
                let work = step.duration_ns - times.alpha_ns;
                prop_assert!(work <= u64::from(max_batch) * times.beta_ns + u64::from(prefill_chunk) * times.delta_ns);
                for token in step.tokens {
                    let (arrived, prompt, output, seen) = taken.get_mut(&token.request).unwrap();
                    prop_assert_eq!(token.first, *seen == 0);
                    *seen += 1;
                    prop_assert_eq!(token.last, seen == output);
                    if token.first {
                        prop_assert!(iteration + 1 - *arrived >= u64::from(prompt.div_ceil(prefill_chunk)));
                        order_of_first.push(token.request);
                    }
                }
            }
            prop_assert!(taken.values().all(|(_, _, output, seen)| output == seen));
            // Oldest first in admission and in prefill: first tokens come in the order of submission.
            prop_assert_eq!(order_of_first, submitted);
        }

        /// Durations add up to what the formula says of all tokens together: nothing is prefilled or decoded twice.
        #[test]
        fn the_whole_time_is_that_of_its_tokens(
            requests in prop::collection::vec((1_u32..300, 1_u32..20), 1..20),
        ) {
            let mut engine = Engine::new(times());
            let (mut prompts, mut decodes) = (0, 0);
            for (id, (prompt, output)) in (0..).zip(requests) {
                engine.submit(id, prompt, output).unwrap();
                prompts += u64::from(prompt);
                decodes += u64::from(output - 1);
            }
            let durations: Vec<u64> = std::iter::from_fn(|| engine.step()).map(|step| step.duration_ns).collect();
            let iterations = u64::try_from(durations.len()).unwrap();
            let expected = iterations * times().alpha_ns + decodes * times().beta_ns + prompts * times().delta_ns;
            prop_assert_eq!(durations.iter().sum::<u64>(), expected);
        }
    }
}
