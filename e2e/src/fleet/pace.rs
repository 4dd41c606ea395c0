//! The step model on a clock: runs one engine's iterations at absolute virtual times.
//!
//! # Guarantees
//! - Iteration n ends at the start of the busy period plus the sum of the iterations' times. A late wake-up delays what is
//!   sent, never the iterations after it: they catch up, and the largest delay is kept.
//! - A request takes part from the first iteration that begins after its arrival, also when the loop is late.
//! - Everything due at one wake-up goes out together, and wake-ups of all engines fall on common ticks: that is what lets
//!   dozens of engines share a core.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pomarium_kernel::engine::{Engine, RequestId, Step, StepTimes};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::faults::Ailments;
use super::figures::{Figures, Finished};
use super::stream::Produced;

/// Virtual nanoseconds since the fleet's start.
pub(crate) type VirtualNs = u64;

/// The fleet's clock for engines: finer than milliseconds, and never set back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineClock {
    base: Instant,
    scale: f64,
    /// Real time between two ticks.
    tick: Duration,
}

impl EngineClock {
    pub(crate) fn new(scale: f64, tick: Duration) -> Self {
        Self {
            base: Instant::now(),
            scale,
            tick: tick.max(Duration::from_millis(1)),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "2^53 ns are 100 virtual days"
    )]
    pub(crate) fn now(&self) -> VirtualNs {
        (self.base.elapsed().as_nanos() as f64 * self.scale) as u64
    }

    /// The first tick at which `at` has passed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "2^53 ns are 100 virtual days"
    )]
    fn tick_after(&self, at: VirtualNs) -> Instant {
        let real = (at as f64 / self.scale).ceil() as u64;
        let tick = u64::try_from(self.tick.as_nanos()).unwrap_or(u64::MAX);
        self.base + Duration::from_nanos(real.div_ceil(tick).saturating_mul(tick))
    }
}

/// The largest delay between an iteration's end and the sending of its tokens, in virtual ns.
#[derive(Debug, Default)]
pub(crate) struct Lag(AtomicU64);

impl Lag {
    fn note(&self, late: VirtualNs) {
        self.0.fetch_max(late, Ordering::Relaxed);
    }

    pub(crate) fn largest(&self) -> VirtualNs {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the HTTP side tells the engine.
#[derive(Debug)]
pub(crate) enum Command {
    /// A request whose context fits.
    Submit(Submission),
    /// Its client has gone.
    Cancel(RequestId),
}

/// A request.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) request: RequestId,
    pub(crate) arrived: VirtualNs,
    pub(crate) prompt: u32,
    pub(crate) output: u32,
    pub(crate) produced: Arc<Produced>,
}

/// A request in the engine.
struct Ticket {
    arrived: VirtualNs,
    first_token: VirtualNs,
    last_token: VirtualNs,
    prompt: u32,
    output: u32,
    produced: Arc<Produced>,
    /// It has tokens that its reader was not told of.
    unread: bool,
}

/// An iteration under way.
struct Iteration {
    begun: VirtualNs,
    ends: VirtualNs,
    step: Step,
    /// Sequences that take part.
    sequences: u64,
}

/// Runs one engine until it is dropped.
pub(crate) struct Pacer {
    engine: Engine,
    clock: EngineClock,
    lag: Arc<Lag>,
    figures: Arc<Mutex<Figures>>,
    ailments: watch::Receiver<Ailments>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Not part of an iteration yet, in the order of arrival.
    arrivals: VecDeque<Submission>,
    tickets: HashMap<RequestId, Ticket>,
    current: Option<Iteration>,
    /// When the last iteration ended.
    free_since: VirtualNs,
    /// Tickets with unread tokens.
    unread: Vec<RequestId>,
}

impl Pacer {
    /// The commands' number is bounded by the connections of the process, one request each.
    pub(crate) fn new(
        times: StepTimes,
        clock: EngineClock,
        lag: Arc<Lag>,
        figures: Arc<Mutex<Figures>>,
        ailments: watch::Receiver<Ailments>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            engine: Engine::new(times),
            clock,
            lag,
            figures,
            ailments,
            commands,
            arrivals: VecDeque::new(),
            tickets: HashMap::new(),
            current: None,
            free_since: 0,
            unread: Vec::new(),
        }
    }

    /// Runs until all senders of commands are gone.
    pub(crate) async fn run(mut self) {
        let mut frozen_since = None;
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let ailments = *self.ailments.borrow_and_update();
            if ailments.hangs || ailments.dead {
                frozen_since.get_or_insert_with(|| self.clock.now());
            } else if let Some(since) = frozen_since.take() {
                // What was under way takes that much longer; nothing is caught up.
                let lost = self.clock.now().saturating_sub(since);
                if let Some(current) = &mut self.current {
                    current.ends += lost;
                }
            }

            let frozen = frozen_since.is_some();
            if !frozen {
                self.advance(self.clock.now(), ailments.slowness);
                if let Some(current) = &self.current {
                    timer.as_mut().reset(self.clock.tick_after(current.ends));
                }
            }
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => {
                        self.take(command);
                        while let Ok(command) = self.commands.try_recv() {
                            self.take(command);
                        }
                    }
                    None => return,
                },
                changed = self.ailments.changed() => if changed.is_err() {
                    return;
                },
                () = &mut timer, if !frozen && self.current.is_some() => {}
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => self.arrivals.push_back(submission),
            Command::Cancel(request) => {
                let waiting = self.arrivals.len();
                self.arrivals.retain(|submission| submission.request != request);
                if self.tickets.remove(&request).is_some() {
                    self.engine.cancel(request);
                } else if self.arrivals.len() == waiting {
                    // It was finished before its client went: counted already.
                    return;
                }
                self.figures().left += 1;
            }
        }
    }

    /// Ends every iteration that is due by `now`, and begins the next one.
    fn advance(&mut self, now: VirtualNs, slowness: f64) {
        let figures = Arc::clone(&self.figures);
        let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.current.take_if(|current| current.ends <= now) {
                Some(ended) => {
                    self.lag.note(now - ended.ends);
                    self.free_since = ended.ends;
                    self.end(&ended, &mut figures);
                }
                None if self.current.is_some() => break,
                None => {}
            }
            self.begin(now, slowness);
            if self.current.is_none() {
                break;
            }
        }
        let ending = self
            .current
            .as_ref()
            .map_or(0, |current| current.step.tokens.iter().filter(|t| t.last).count());
        // The engine has let go of those whose last token is on its way.
        figures.running = (self.engine.running() + ending) as u64;
        figures.kv_reserved = self.engine.kv_reserved();
        drop(figures);

        for request in self.unread.drain(..) {
            if let Some(ticket) = self.tickets.get_mut(&request) {
                ticket.unread = false;
                ticket.produced.wake();
            }
        }
    }

    fn begin(&mut self, now: VirtualNs, slowness: f64) {
        let idle = self.engine.running() == 0 && self.engine.queued() == 0;
        let at = match self.arrivals.front() {
            Some(first) if idle => self.free_since.max(first.arrived),
            _ => self.free_since,
        };
        debug_assert!(at <= now || !idle, "nothing arrives in the future");
        while self.arrivals.front().is_some_and(|submission| submission.arrived <= at)
            && let Some(submission) = self.arrivals.pop_front()
        {
            let Submission {
                request,
                arrived,
                prompt,
                output,
                produced,
            } = submission;
            // The HTTP side has refused what does not fit.
            if self.engine.submit(request, prompt, output).is_ok() {
                let ticket = Ticket {
                    arrived,
                    first_token: 0,
                    last_token: 0,
                    prompt,
                    output,
                    produced,
                    unread: false,
                };
                self.tickets.insert(request, ticket);
            }
        }
        if let Some(step) = self.engine.step() {
            let ending = step.tokens.iter().filter(|token| token.last).count();
            self.current = Some(Iteration {
                begun: at,
                ends: at + slowed(step.duration_ns, slowness),
                sequences: (self.engine.running() + ending) as u64,
                step,
            });
        }
    }

    fn end(&mut self, ended: &Iteration, figures: &mut Figures) {
        debug_assert!(ended.begun < ended.ends, "time passes in an iteration");
        figures.iteration(ended.sequences);
        for token in &ended.step.tokens {
            // Cancelled while the iteration ran: nobody waits for it.
            let Some(ticket) = self.tickets.get_mut(&token.request) else {
                continue;
            };
            if token.first {
                ticket.first_token = ended.ends;
                figures.first_token(ended.ends.saturating_sub(ticket.arrived), ticket.prompt);
            } else {
                figures.next_token(ended.ends.saturating_sub(ticket.last_token));
            }
            ticket.last_token = ended.ends;
            ticket.produced.add_one();
            if token.last {
                figures.finished(Finished {
                    arrived: ticket.arrived,
                    first_token: ticket.first_token,
                    last_token: ticket.last_token,
                    prompt: ticket.prompt,
                    output: ticket.output,
                });
                ticket.produced.wake();
                self.tickets.remove(&token.request);
            } else if !std::mem::replace(&mut ticket.unread, true) {
                self.unread.push(token.request);
            }
        }
    }

    fn figures(&self) -> std::sync::MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an iteration takes far less than 2^53 ns, and the factor is positive"
)]
fn slowed(ns: u64, factor: f64) -> u64 {
    if factor.to_bits() == 1.0_f64.to_bits() {
        ns
    } else {
        (ns as f64 * factor) as u64
    }
}
