//! Requests: arrivals, routing, answers.

use pomarium_kernel::engine::RequestId;
use pomarium_kernel::engine::skipping::Finished;
use pomarium_kernel::snapshot::Discipline;

use super::{World, signed};
use crate::score::Answered;
use crate::trace::Arrival;

/// A request without an answer yet. A free place of the slab has no arrival.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    arrival_ms: Option<u64>,
    prompt: u32,
    output: u32,
    work_ns: u64,
}

impl World<'_> {
    pub(super) fn in_flight(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let context = u64::from(arrival.prompt_tokens) + u64::from(arrival.output_tokens);
        let scored = self.scored(arrival.arrival_ms).is_some();
        if context > u64::from(self.scenario.context_tokens) {
            // The gateway answers these itself: no server ever sees them.
            self.requests.rejected += u64::from(scored);
            return;
        }
        self.scrapes.arrived(arrival.prompt_tokens, arrival.output_tokens);
        if let Some(timeline) = self.timeline.as_deref_mut() {
            timeline.arrived(arrival.arrival_ms);
        }
        self.requests.total += u64::from(scored);
        let id = self.put(InFlight {
            arrival_ms: Some(arrival.arrival_ms),
            prompt: arrival.prompt_tokens,
            output: arrival.output_tokens,
            work_ns: 0,
        });
        self.route(id, signed(arrival.arrival_ms));
    }

    /// Sends a request to a serving machine, or lets it wait while there is none.
    pub(super) fn route(&mut self, id: RequestId, now_ms: i64) {
        let Some(machine) = self.choose() else {
            self.queue.push_back(id);
            return;
        };
        let at_ns = self.to_ns(now_ms);
        let times = &self.scenario.groups[self.machines[machine].group].times;
        let index = slab_index(id);
        let InFlight { prompt, output, .. } = self.slab[index];
        let work_ns = times.estimated_work_ns(prompt, self.scenario.mean_output_tokens);
        self.slab[index].work_ns = work_ns;
        self.settle(machine, at_ns);
        if self.machines[machine].submit(at_ns, id, prompt, output).is_err() {
            self.never_serve(id);
            return;
        }
        self.machines[machine].requests += 1;
        self.machines[machine].outstanding_ns += work_ns;
        self.watch(machine);
    }

    /// The machine for the next request. Routes by weight give every replica the same, as the controller's do.
    fn choose(&mut self) -> Option<usize> {
        match self.scenario.discipline {
            Discipline::LeastWork => self
                .serving
                .iter()
                .copied()
                .min_by_key(|&machine| (self.machines[machine].outstanding_ns, machine)),
            Discipline::Weighted if self.serving.is_empty() => None,
            Discipline::Weighted => Some(self.serving[self.routing.below(self.serving.len())]),
        }
    }

    pub(super) fn empty_queue(&mut self, now_ms: i64) {
        while !self.serving.is_empty() {
            let Some(id) = self.queue.pop_front() else { break };
            self.route(id, now_ms);
        }
    }

    /// Takes a request that a machine gives back off its books.
    pub(super) fn unassign(&mut self, machine: usize, id: RequestId) {
        self.machines[machine].requests -= 1;
        self.machines[machine].outstanding_ns -= self.slab[slab_index(id)].work_ns;
    }

    pub(super) fn finish(&mut self, machine: usize, done: &Finished) {
        self.unassign(machine, done.request);
        let arrival_ms = self.take(done.request);
        let from_ns = self.to_ns(signed(arrival_ms));
        let answered = Answered {
            arrival_ms,
            ttft_ms: done.first_token_ns.saturating_sub(from_ns) as f64 / 1e6,
            itl_ms: (done.output > 1)
                .then(|| (done.last_token_ns - done.first_token_ns) as f64 / 1e6 / f64::from(done.output - 1)),
        };
        self.scrapes.answered(self.machines[machine].group, &answered);
        if let Some(timeline) = self.timeline.as_deref_mut() {
            timeline.answered(&answered);
        }
        if let Some(scored_ms) = self.scored(arrival_ms) {
            self.requests.completed += 1;
            let answered = Answered {
                arrival_ms: scored_ms,
                ..answered
            };
            for scorer in &mut self.scorers {
                scorer.answered(&answered);
            }
        }
    }

    /// A request that ran on a machine that died.
    pub(super) fn cut(&mut self, id: RequestId) {
        let arrival_ms = self.take(id);
        self.requests.cut += u64::from(self.scored(arrival_ms).is_some());
        self.miss(arrival_ms);
    }

    fn never_serve(&mut self, id: RequestId) {
        let arrival_ms = self.take(id);
        self.requests.never_served += u64::from(self.scored(arrival_ms).is_some());
        self.miss(arrival_ms);
    }

    /// When the simulation ends, what has no answer has none for good.
    pub(super) fn miss_the_rest(&mut self) {
        for index in 0..self.slab.len() {
            if self.slab[index].arrival_ms.is_some() {
                self.never_serve(index as RequestId);
            }
        }
    }

    fn miss(&mut self, arrival_ms: u64) {
        if let Some(timeline) = self.timeline.as_deref_mut() {
            timeline.missed(arrival_ms);
        }
        if let Some(scored_ms) = self.scored(arrival_ms) {
            for scorer in &mut self.scorers {
                scorer.missed(scored_ms);
            }
        }
    }

    /// The arrival in ms from the start of the scored part; `None` for history.
    fn scored(&self, arrival_ms: u64) -> Option<u64> {
        arrival_ms.checked_sub(u64::try_from(self.scenario.score_from_ms).unwrap_or(0))
    }

    fn put(&mut self, request: InFlight) -> RequestId {
        let index = if let Some(index) = self.free.pop() {
            self.slab[index] = request;
            index
        } else {
            self.slab.push(request);
            self.slab.len() - 1
        };
        index as RequestId
    }

    /// Forgets a request; its arrival.
    fn take(&mut self, id: RequestId) -> u64 {
        let index = slab_index(id);
        self.free.push(index);
        self.slab[index].arrival_ms.take().unwrap_or_default()
    }
}

fn slab_index(id: RequestId) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}
