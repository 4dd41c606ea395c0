//! Requests: arrivals, routing, answers.
//!
//! An engine knows of what runs and of what it may admit next. Whatever waits behind that changes nothing for it and is kept packed,
//! so that the backlog of a server that is far too slow takes little memory.

use pomarium_kernel::engine::RequestId;
use pomarium_kernel::engine::skipping::Finished;
use pomarium_kernel::snapshot::Discipline;

use super::{World, signed};
use crate::score::Answered;
use crate::trace::Arrival;

/// A request that an engine knows of. A free place of the slab has no arrival.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    arrival_ms: Option<u64>,
    prompt: u32,
    output: u32,
    work_ns: u64,
}

impl World<'_> {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
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
        self.in_flight += 1;
        self.route(arrival, signed(arrival.arrival_ms));
    }

    /// Sends a request to a serving machine, or lets it wait while there is none.
    pub(super) fn route(&mut self, request: Arrival, now_ms: i64) {
        let Some(machine) = self.choose() else {
            self.queue.push(request);
            return;
        };
        if !self.machines[machine].fits(request.prompt_tokens, request.output_tokens) {
            self.never_serve(request.arrival_ms);
            return;
        }
        let work_ns = self.work_ns(machine, request.prompt_tokens);
        let machine_of = &mut self.machines[machine];
        machine_of.requests += 1;
        machine_of.outstanding_ns += work_ns;
        if machine_of.is_backed_up() {
            machine_of.backlog.push(request);
            return;
        }
        let at_ns = self.to_ns(now_ms);
        self.settle(machine, at_ns);
        self.submit(machine, at_ns, request);
        self.watch(machine, at_ns);
    }

    /// What the router takes a request with such a prompt for.
    fn work_ns(&self, machine: usize, prompt: u32) -> u64 {
        let times = &self.scenario.groups[self.machines[machine].group].times;
        times.estimated_work_ns(prompt, self.scenario.mean_output_tokens)
    }

    /// Tells the engine of a request that the machine has.
    fn submit(&mut self, machine: usize, at_ns: u64, request: Arrival) {
        let Arrival {
            arrival_ms,
            prompt_tokens: prompt,
            output_tokens: output,
        } = request;
        let id = self.put(InFlight {
            arrival_ms: Some(arrival_ms),
            prompt,
            output,
            work_ns: self.work_ns(machine, prompt),
        });
        if self.machines[machine].submit(at_ns, id, prompt, output).is_err() {
            // Does not happen: whether it fits was asked before.
            self.unassign(machine, id);
            self.take(id);
            self.never_serve(arrival_ms);
        }
    }

    /// Tells the engine of as much of the backlog as it could admit at once.
    pub(super) fn top_up(&mut self, machine: usize, at_ns: u64) {
        while self.machines[machine].has_room()
            && let Some(request) = self.machines[machine].backlog.pop()
        {
            self.submit(machine, at_ns, request);
        }
    }

    /// Routes again what waits on a machine that serves no more.
    pub(super) fn send_back(&mut self, machine: usize, now_ms: i64) {
        for id in self.machines[machine].take_waiting() {
            self.unassign(machine, id);
            let request = self.take(id);
            self.route(request, now_ms);
        }
        let mut backlog = std::mem::take(&mut self.machines[machine].backlog);
        while let Some(request) = backlog.pop() {
            self.machines[machine].requests -= 1;
            self.machines[machine].outstanding_ns -= self.work_ns(machine, request.prompt_tokens);
            self.route(request, now_ms);
        }
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
            let Some(request) = self.queue.pop() else { break };
            self.route(request, now_ms);
        }
    }

    /// Takes a request that a machine gives back off its books.
    fn unassign(&mut self, machine: usize, id: RequestId) {
        self.machines[machine].requests -= 1;
        self.machines[machine].outstanding_ns -= self.slab[slab_index(id)].work_ns;
    }

    pub(super) fn finish(&mut self, machine: usize, done: &Finished) {
        self.unassign(machine, done.request);
        let Arrival {
            arrival_ms,
            prompt_tokens,
            output_tokens,
        } = self.take(done.request);
        self.in_flight -= 1;
        let from_ns = self.to_ns(signed(arrival_ms));
        let answered = Answered {
            arrival_ms,
            prompt_tokens,
            output_tokens,
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
        let arrival_ms = self.take(id).arrival_ms;
        self.in_flight -= 1;
        self.requests.cut += u64::from(self.scored(arrival_ms).is_some());
        self.miss(arrival_ms);
    }

    fn never_serve(&mut self, arrival_ms: u64) {
        self.in_flight -= 1;
        self.requests.never_served += u64::from(self.scored(arrival_ms).is_some());
        self.miss(arrival_ms);
    }

    /// When the simulation ends, what has no answer has none for good.
    pub(super) fn miss_the_rest(&mut self) {
        for index in 0..self.slab.len() {
            if let Some(arrival_ms) = self.slab[index].arrival_ms {
                self.never_serve(arrival_ms);
            }
        }
        let mut waiting = std::mem::take(&mut self.queue);
        for machine in 0..=self.machines.len() {
            while let Some(request) = waiting.pop() {
                self.never_serve(request.arrival_ms);
            }
            if let Some(machine) = self.machines.get_mut(machine) {
                waiting = std::mem::take(&mut machine.backlog);
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

    /// Forgets a request that no engine knows of any more.
    fn take(&mut self, id: RequestId) -> Arrival {
        let index = slab_index(id);
        self.free.push(index);
        let request = &mut self.slab[index];
        Arrival {
            arrival_ms: request.arrival_ms.take().unwrap_or_default(),
            prompt_tokens: request.prompt,
            output_tokens: request.output,
        }
    }
}

fn slab_index(id: RequestId) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}
