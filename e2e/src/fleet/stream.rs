//! One answer on its way from the engine to its client.
//!
//! The engine only counts: how many tokens there are is one atomic number, and the body writes events from a text that was
//! built once per request. So a token costs no allocation, and a slow client costs no memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use hyper::body::{Body, Bytes, Frame};

use super::process::Presence;

/// Words of the answer, over and over.
const WORDS: [&str; 16] = [
    " the", " orchard", " keeps", " its", " trees", " in", " rows", ",", " and", " every", " row", " bears", " when",
    " it", " can", ".",
];

/// Tokens produced so far; shared by the engine, which writes, and the body, which reads.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    tokens: AtomicU32,
    reader: AtomicWaker,
}

impl Produced {
    /// One more token. The reader is not told yet: several may come at once.
    pub(crate) fn add_one(&self) {
        self.tokens.fetch_add(1, Ordering::Release);
    }

    /// Tells the reader.
    pub(crate) fn wake(&self) {
        self.reader.wake();
    }

    /// Waits for the reader's next look, or gives what is there beyond `seen`.
    fn poll_beyond(&self, seen: u32, cx: &mut Context<'_>) -> Poll<u32> {
        // Register first: a token that comes in between must not be missed.
        self.reader.register(cx.waker());
        let tokens = self.tokens.load(Ordering::Acquire);
        if tokens > seen {
            Poll::Ready(tokens)
        } else {
            Poll::Pending
        }
    }

    /// Waits until there are `tokens`.
    pub(crate) async fn all(&self, tokens: u32) {
        std::future::poll_fn(|cx| self.poll_beyond(tokens.saturating_sub(1), cx).map(|_| ())).await;
    }
}

/// Which of the two endpoints is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// What an answer says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) dialect: Dialect,
    pub(crate) id: u64,
    /// Unix time in seconds.
    pub(crate) created: i64,
    pub(crate) model: Arc<str>,
    pub(crate) prompt_tokens: u32,
    pub(crate) tokens: u32,
    /// The client wants the figures in the last event.
    pub(crate) usage: bool,
}

impl Answer {
    fn prefix(&self) -> (&'static str, &'static str, &'static str) {
        match self.dialect {
            Dialect::Chat => ("chatcmpl", "chat.completion.chunk", "chat.completion"),
            Dialect::Text => ("cmpl", "text_completion", "text_completion"),
        }
    }

    fn usage(&self) -> serde_json::Value {
        serde_json::json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": u64::from(self.prompt_tokens) + u64::from(self.tokens),
        })
    }

    /// The event that carries the token number `index`, with its blank line.
    fn event(&self, index: u32, last: bool) -> String {
        let (prefix, object, _) = self.prefix();
        let word = word(index);
        let finish = last.then_some("length");
        let choice = match self.dialect {
            Dialect::Chat => serde_json::json!({"index": 0, "delta": {"content": word}, "finish_reason": finish}),
            Dialect::Text => serde_json::json!({"index": 0, "text": word, "finish_reason": finish}),
        };
        let mut event = serde_json::json!({
            "id": format!("{prefix}-{:016x}", self.id),
            "object": object,
            "created": self.created,
            "model": &*self.model,
            "choices": [choice],
        });
        if last && self.usage {
            event["usage"] = self.usage();
        }
        format!("data: {event}\n\n")
    }

    /// The whole answer at once, for a client that does not stream.
    pub(crate) fn whole(&self) -> serde_json::Value {
        let (prefix, _, object) = self.prefix();
        let text: String = (0..self.tokens).map(word).collect();
        let choice = match self.dialect {
            Dialect::Chat => serde_json::json!({
                "index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length",
            }),
            Dialect::Text => serde_json::json!({"index": 0, "text": text, "finish_reason": "length"}),
        };
        serde_json::json!({
            "id": format!("{prefix}-{:016x}", self.id),
            "object": object,
            "created": self.created,
            "model": &*self.model,
            "choices": [choice],
            "usage": self.usage(),
        })
    }
}

fn word(index: u32) -> &'static str {
    WORDS[index as usize % WORDS.len()]
}

/// The body of a streamed answer: one event per token, then `[DONE]`.
pub(crate) struct EventStream {
    produced: Arc<Produced>,
    /// One event for each of [`WORDS`].
    cycle: Bytes,
    /// Where each of them ends.
    ends: [usize; WORDS.len()],
    /// The last event and `[DONE]`.
    last: Bytes,
    tokens: u32,
    sent: u32,
    presence: Presence,
}

impl EventStream {
    pub(crate) fn new(answer: &Answer, produced: Arc<Produced>, presence: Presence) -> Self {
        let mut cycle = Vec::new();
        let mut ends = [0; WORDS.len()];
        for (index, end) in (0_u32..).zip(&mut ends) {
            cycle.extend_from_slice(answer.event(index, false).as_bytes());
            *end = cycle.len();
        }
        let last = answer.event(answer.tokens.saturating_sub(1), true) + "data: [DONE]\n\n";
        Self {
            produced,
            cycle: cycle.into(),
            ends,
            last: last.into(),
            tokens: answer.tokens,
            sent: 0,
            presence,
        }
    }

    /// The events of as many tokens from the next one on as lie in one piece, at most up to `until`.
    fn piece(&mut self, until: u32) -> Bytes {
        let first = self.sent as usize % WORDS.len();
        if self.sent + 1 == self.tokens {
            self.sent = self.tokens;
            return self.last.clone();
        }
        let count = ((until.min(self.tokens - 1) - self.sent) as usize).min(WORDS.len() - first);
        self.sent += u32::try_from(count).unwrap_or(u32::MAX);
        let start = if first == 0 { 0 } else { self.ends[first - 1] };
        self.cycle.slice(start..self.ends[first + count - 1])
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.sent >= this.tokens {
            return Poll::Ready(None);
        }
        let Poll::Ready(produced) = this.produced.poll_beyond(this.sent, cx) else {
            return Poll::Pending;
        };
        let piece = this.piece(produced);
        if this.sent >= this.tokens {
            this.presence.complete();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    fn answer(tokens: u32) -> Answer {
        Answer {
            dialect: Dialect::Chat,
            id: 7,
            created: 1,
            model: "m".into(),
            prompt_tokens: 3,
            tokens,
            usage: true,
        }
    }

    /// However tokens come together, the events are the same.
    #[tokio::test]
    async fn every_token_is_one_event_and_the_last_one_says_so() {
        for (tokens, burst) in [(1, 1), (2, 2), (16, 5), (17, 17), (40, 40), (100, 7)] {
            let produced = Arc::new(Produced::default());
            let stream = EventStream::new(&answer(tokens), Arc::clone(&produced), Presence::alone());
            let feed = async {
                for token in 1..=tokens {
                    produced.add_one();
                    if token % burst == 0 || token == tokens {
                        produced.wake();
                        tokio::task::yield_now().await;
                    }
                }
            };
            let (collected, ()) = tokio::join!(stream.collect(), feed);
            let text = String::from_utf8(collected.unwrap().to_bytes().to_vec()).unwrap();
            let events: Vec<&str> = text
                .split_terminator("\n\n")
                .map(|event| &event["data: ".len()..])
                .collect();
            assert_eq!(
                events.len(),
                tokens as usize + 1,
                "{tokens} tokens in bursts of {burst}"
            );
            assert_eq!(events.last(), Some(&"[DONE]"));
            for (index, event) in (0_u32..).zip(&events[..tokens as usize]) {
                let event: serde_json::Value = serde_json::from_str(event).unwrap();
                let last = index + 1 == tokens;
                assert_eq!(event["choices"][0]["delta"]["content"], word(index));
                assert_eq!(event["choices"][0]["finish_reason"].is_null(), !last);
                assert_eq!(
                    event["usage"]["completion_tokens"].as_u64(),
                    last.then_some(u64::from(tokens))
                );
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_before_it_is_produced() {
        let produced = Arc::new(Produced::default());
        let mut stream = EventStream::new(&answer(3), Arc::clone(&produced), Presence::alone());
        let wait = Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, stream.frame()).await.is_err());
        produced.add_one();
        assert!(stream.frame().await.is_some());
        assert!(tokio::time::timeout(wait, stream.frame()).await.is_err());
    }
}
