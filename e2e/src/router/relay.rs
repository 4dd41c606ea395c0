//! An answer on its way through: forwarded byte by byte as it comes, and measured.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::dispatch::Lease;
use super::events::EventCounter;
use super::{Counters, Shared};

/// The body of an answer whose first bytes are there already. Holds the request's place on its server until it ends.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    lease: Lease,
    /// What came before the head of the answer was sent on.
    first: Option<Bytes>,
    rest: Incoming,
    /// Fires when the server has said nothing for too long.
    silence: Pin<Box<Sleep>>,
    timing: Timing,
    ended: bool,
}

/// The times of one answer, real.
struct Timing {
    arrived: Instant,
    first_token: Option<Instant>,
    last_token: Instant,
    events: EventCounter,
}

impl Relay {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lease: Lease,
        arrived: Instant,
        first: Option<Bytes>,
        rest: Incoming,
    ) -> Self {
        let silence = Box::pin(tokio::time::sleep(shared.silence));
        Self {
            shared,
            lease,
            first,
            rest,
            silence,
            timing: Timing {
                arrived,
                first_token: None,
                last_token: arrived,
                events: EventCounter::default(),
            },
            ended: false,
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        if self.timing.events.feed(bytes) == 0 {
            return;
        }
        self.timing.last_token = now;
        if self.timing.first_token.is_none() {
            self.timing.first_token = Some(now);
            self.lease.prompt_done();
            let ttft = self.virtual_secs(now - self.timing.arrived);
            self.shared.metrics.ttft.observe(ttft);
        }
    }

    /// Accounts for an answer that is complete, or that broke off.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Timing {
            first_token,
            last_token,
            ref events,
            ..
        } = self.timing;
        if !events.is_done() {
            self.shared.counters.cut.fetch_add(1, Ordering::Relaxed);
            return;
        }
        Counters::add(&self.shared.counters.completed);
        let tokens = events.events();
        self.shared.metrics.output_tokens.observe(tokens as f64);
        self.shared.learn_output(tokens);
        if let (Some(first), true) = (first_token, tokens >= 2) {
            let itl = self.virtual_secs(last_token - first) / (tokens - 1) as f64;
            self.shared.metrics.itl.observe(itl);
        }
    }

    fn virtual_secs(&self, real: Duration) -> f64 {
        real.as_secs_f64() * self.shared.scale
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        if let Some(bytes) = this.first.take() {
            this.note(&bytes);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    this.note(bytes);
                }
                this.silence.as_mut().reset(Instant::now() + this.shared.silence);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                this.end();
                // An end without `[DONE]` is passed on as a broken answer: the client must not take it for a whole one.
                let whole = end.is_none() && this.timing.events.is_done();
                Poll::Ready((!whole).then_some(Err(BrokenOff)))
            }
            Poll::Pending if this.silence.as_mut().poll(cx).is_ready() => {
                this.end();
                Poll::Ready(Some(Err(BrokenOff)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The client read the last event and closed before the server's end of stream: complete. It went away in the
        // middle of an answer: its own choice, and nobody's cut.
        if self.timing.events.is_done() {
            self.end();
        } else if !self.ended {
            Counters::add(&self.shared.counters.abandoned);
        }
    }
}

/// An answer broke off before it was complete.
#[derive(Debug, thiserror::Error)]
#[error("the model server's answer broke off")]
pub(crate) struct BrokenOff;
