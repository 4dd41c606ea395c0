//! The reference engine over long times: skips over iterations in which nothing changes.
//!
//! Between two changes of the batch (an admission, the end of a prompt, the end of a request) all iterations take
//! equally long. [`SkippingEngine`] books them as one *run*. It yields exactly what stepping through a
//! [`super::Engine`] yields, to the nanosecond; a property test holds the two against each other.
//!
//! The caller owns the clock: a nanosecond count from an origin of its choice. At equal times, iterations end before
//! requests arrive, and requests arrive before the next iteration begins.

use std::collections::VecDeque;

use super::{RequestId, StepTimes, TooLong};

/// A request that has yielded its last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which.
    pub request: RequestId,
    /// When its first token came.
    pub first_token_ns: u64,
    /// When its last token came; equal to the first for a request of one token.
    pub last_token_ns: u64,
    /// Output tokens.
    pub output: u32,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    request: RequestId,
    prompt: u32,
    output: u32,
}

impl Waiting {
    fn context(self) -> u64 {
        u64::from(self.prompt) + u64::from(self.output)
    }
}

#[derive(Clone, Copy, Debug)]
struct Sequence {
    request: RequestId,
    context: u64,
    output: u32,
    prompt_left: u32,
    output_left: u32,
    first_token_ns: u64,
}

/// Equal iterations in a row.
#[derive(Clone, Copy, Debug)]
struct Run {
    start_ns: u64,
    step_ns: u64,
    /// After so many the batch changes.
    steps: u32,
    /// So many are already booked.
    booked: u32,
}

impl Run {
    fn end_ns(self) -> u64 {
        self.start_ns + self.step_ns * u64::from(self.steps)
    }

    fn booked_until_ns(self) -> u64 {
        self.start_ns + self.step_ns * u64::from(self.booked)
    }
}

/// One server's engine, advanced from change to change.
#[derive(Clone, Debug)]
pub struct SkippingEngine {
    times: StepTimes,
    waiting: VecDeque<Waiting>,
    /// In the order of admission.
    running: Vec<Sequence>,
    kv_reserved: u64,
    /// Where the next run begins if none is under way.
    boundary_ns: u64,
    run: Option<Run>,
    busy_ns: u64,
}

impl SkippingEngine {
    /// An idle engine.
    pub fn new(times: StepTimes) -> Self {
        Self {
            times,
            waiting: VecDeque::new(),
            running: Vec::with_capacity(times.max_batch as usize),
            kv_reserved: 0,
            boundary_ns: 0,
            run: None,
            busy_ns: 0,
        }
    }

    /// Its step times.
    pub fn times(&self) -> StepTimes {
        self.times
    }

    /// Requests in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests waiting.
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Time spent in iterations that have ended, in ns.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    /// Whether a request is within what it can hold at all.
    pub fn fits(&self, prompt: u32, output: u32) -> bool {
        u64::from(prompt.max(1)) + u64::from(output.max(1)) <= self.times.kv_tokens
    }

    /// Puts a request at the end of the queue at `at_ns`, up to which the engine has been advanced.
    /// `output` counts at least one token, and so does `prompt`.
    pub fn submit(&mut self, at_ns: u64, request: RequestId, prompt: u32, output: u32) -> Result<(), TooLong> {
        let waiting = Waiting {
            request,
            prompt: prompt.max(1),
            output: output.max(1),
        };
        if !self.fits(prompt, output) {
            return Err(TooLong {
                context: waiting.context(),
                kv_tokens: self.times.kv_tokens,
            });
        }
        if self.running.is_empty() && self.waiting.is_empty() {
            self.boundary_ns = self.boundary_ns.max(at_ns);
            self.run = None;
        }
        self.waiting.push_back(waiting);
        // Only the head can be admitted; whoever queues behind another changes nothing.
        if self.waiting.len() == 1 && self.admits(waiting) {
            match &mut self.run {
                // An iteration would begin right now: it begins with this one.
                Some(run) if run.booked_until_ns() == at_ns => {
                    self.boundary_ns = at_ns;
                    self.run = None;
                }
                Some(run) => run.steps = run.steps.min(run.booked + 1),
                None => {}
            }
        }
        Ok(())
    }

    /// Books every iteration that ends at or before `to_ns`, and adds the requests that ended to `finished`, in the
    /// order in which they ended.
    pub fn advance(&mut self, to_ns: u64, finished: &mut Vec<Finished>) {
        loop {
            // A run that would begin exactly now waits for what may still arrive now.
            if self.run.is_none() && (self.boundary_ns >= to_ns || !self.begin_run()) {
                return;
            }
            let Some(run) = self.run else { return };
            let ended = to_ns.saturating_sub(run.start_ns) / run.step_ns;
            if ended < u64::from(run.steps) {
                let ended = u32::try_from(ended).unwrap_or(run.steps);
                self.book(ended - run.booked, finished);
                return;
            }
            self.book(run.steps - run.booked, finished);
            self.boundary_ns = run.end_ns();
            self.run = None;
        }
    }

    /// When the batch changes next if nothing arrives; `None` if idle. Begins the next iteration if it is due.
    pub fn next_change_ns(&mut self) -> Option<u64> {
        if self.run.is_none() && !self.begin_run() {
            return None;
        }
        self.run.map(Run::end_ns)
    }

    /// Takes out everything that waits, oldest first.
    pub fn take_waiting(&mut self) -> impl Iterator<Item = RequestId> + '_ {
        self.waiting.drain(..).map(|waiting| waiting.request)
    }

    /// Takes out everything, as when the machine dies: what ran is lost, in the order of admission.
    pub fn take_running(&mut self) -> Vec<RequestId> {
        self.run = None;
        self.kv_reserved = 0;
        self.running.drain(..).map(|sequence| sequence.request).collect()
    }

    fn admits(&self, waiting: Waiting) -> bool {
        self.running.len() < self.times.max_batch as usize
            && self.kv_reserved + waiting.context() <= self.times.kv_tokens
    }

    /// Admits whom it can and plans the iterations until the batch changes. False if there is nothing to run.
    fn begin_run(&mut self) -> bool {
        while let Some(&head) = self.waiting.front() {
            if !self.admits(head) {
                break;
            }
            self.waiting.pop_front();
            self.kv_reserved += head.context();
            self.running.push(Sequence {
                request: head.request,
                context: head.context(),
                output: head.output,
                prompt_left: head.prompt,
                output_left: head.output,
                first_token_ns: 0,
            });
        }
        if self.running.is_empty() {
            return false;
        }
        let mut decoding = 0_u64;
        let mut steps = u32::MAX;
        let mut prefill_left = self.times.prefill_chunk;
        let mut oldest_prompt = None;
        for sequence in &self.running {
            if sequence.prompt_left == 0 {
                decoding += 1;
                steps = steps.min(sequence.output_left);
            } else if prefill_left > 0 {
                let oldest = *oldest_prompt.get_or_insert(sequence.prompt_left);
                prefill_left -= sequence.prompt_left.min(prefill_left);
                if oldest < self.times.prefill_chunk {
                    // The chunk is shared: the next iteration shares it differently.
                    steps = 1;
                } else {
                    steps = steps.min(oldest / self.times.prefill_chunk);
                }
            }
        }
        let prefilled = u64::from(self.times.prefill_chunk - prefill_left);
        let step_ns = self.times.iteration_ns(decoding, prefilled).max(1);
        self.run = Some(Run {
            start_ns: self.boundary_ns,
            step_ns,
            steps,
            booked: 0,
        });
        true
    }

    /// Books `steps` iterations of the run under way.
    fn book(&mut self, steps: u32, finished: &mut Vec<Finished>) {
        let Some(run) = &mut self.run else { return };
        if steps == 0 {
            return;
        }
        run.booked += steps;
        self.busy_ns += run.step_ns * u64::from(steps);
        let now_ns = run.booked_until_ns();
        let mut prefill_left = u64::from(self.times.prefill_chunk) * u64::from(steps);
        let mut ended = false;
        for sequence in &mut self.running {
            if sequence.prompt_left == 0 {
                sequence.output_left -= steps;
            } else {
                let prefilled = u64::from(sequence.prompt_left).min(prefill_left);
                prefill_left -= prefilled;
                sequence.prompt_left -= u32::try_from(prefilled).unwrap_or(sequence.prompt_left);
                if sequence.prompt_left == 0 {
                    sequence.first_token_ns = now_ns;
                    sequence.output_left -= 1;
                }
            }
            ended |= sequence.prompt_left == 0 && sequence.output_left == 0;
        }
        if ended {
            let kv_reserved = &mut self.kv_reserved;
            self.running.retain(|sequence| {
                let ends = sequence.prompt_left == 0 && sequence.output_left == 0;
                if ends {
                    *kv_reserved -= sequence.context;
                    finished.push(Finished {
                        request: sequence.request,
                        first_token_ns: sequence.first_token_ns,
                        last_token_ns: now_ns,
                        output: sequence.output,
                    });
                }
                !ends
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::engine::Engine;

    #[derive(Clone, Copy, Debug)]
    struct Request {
        at_ns: u64,
        prompt: u32,
        output: u32,
    }

    /// Steps through every iteration.
    fn stepping(times: StepTimes, requests: &[Request]) -> Vec<Finished> {
        let mut engine = Engine::new(times);
        let mut first = vec![0; requests.len()];
        let mut finished = Vec::new();
        let mut arrivals = requests.iter().enumerate().peekable();
        let mut now_ns = 0;
        loop {
            while let Some((id, request)) = arrivals.next_if(|(_, request)| request.at_ns <= now_ns) {
                engine.submit(id as u64, request.prompt, request.output).unwrap();
            }
            let Some(step) = engine.step() else {
                match arrivals.peek() {
                    Some((_, next)) => now_ns = next.at_ns,
                    None => return finished,
                }
                continue;
            };
            now_ns += step.duration_ns;
            for token in step.tokens {
                let index = usize::try_from(token.request).unwrap();
                if token.first {
                    first[index] = now_ns;
                }
                if token.last {
                    finished.push(Finished {
                        request: token.request,
                        first_token_ns: first[index],
                        last_token_ns: now_ns,
                        output: requests[index].output,
                    });
                }
            }
        }
    }

    /// Skips from change to change, and looks in between at the arrivals and at `looks`.
    fn skipping(times: StepTimes, requests: &[Request], looks: &[u64]) -> Vec<Finished> {
        let mut engine = SkippingEngine::new(times);
        let mut finished = Vec::new();
        let mut events: Vec<(u64, Option<usize>)> = looks.iter().map(|&at_ns| (at_ns, None)).collect();
        events.extend(
            requests
                .iter()
                .enumerate()
                .map(|(id, request)| (request.at_ns, Some(id))),
        );
        events.sort_by_key(|&(at_ns, id)| (at_ns, id.is_none(), id));
        for (at_ns, id) in events {
            engine.advance(at_ns, &mut finished);
            match id {
                Some(id) => engine
                    .submit(at_ns, id as u64, requests[id].prompt, requests[id].output)
                    .unwrap(),
                None => drop(engine.next_change_ns()),
            }
        }
        while let Some(at_ns) = engine.next_change_ns() {
            engine.advance(at_ns, &mut finished);
        }
        assert_eq!(engine.kv_reserved, 0);
        finished
    }

    fn requests() -> impl Strategy<Value = Vec<Request>> {
        let request =
            (0_u64..3_000, 1_u32..90, 1_u32..60).prop_map(|(at_ns, prompt, output)| Request { at_ns, prompt, output });
        prop::collection::vec(request, 1..40).prop_map(|mut requests| {
            requests.sort_by_key(|request| request.at_ns);
            requests
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn skipping_gives_exactly_what_stepping_gives(
            requests in requests(),
            looks in prop::collection::vec(0_u64..6_000, 0..40),
            alpha_ns in 0_u64..20, beta_ns in 0_u64..5, delta_ns in 0_u64..3,
            max_batch in 1_u32..6, prefill_chunk in 1_u32..40, kv_tokens in 160_u64..600,
        ) {
            let times = StepTimes { alpha_ns: alpha_ns + 1, beta_ns, delta_ns, kv_tokens, max_batch, prefill_chunk };
            let (skipped, stepped) = (skipping(times, &requests, &looks), stepping(times, &requests));
            prop_assert_eq!(skipped, stepped);
        }
    }
}
