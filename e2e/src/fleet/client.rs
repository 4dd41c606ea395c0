//! Talks to one emulated model server without a router, as tests and benches do.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::router::{EventCounter, PROMPT_TOKENS};

/// The port of every emulated model server.
const PORT: u16 = 8080;
/// What each request brings.
const PROMPT: u32 = 100;

/// A client of model servers.
#[derive(Clone, Debug)]
pub struct ModelClient(Client<HttpConnector, Full<Bytes>>);

/// No answer began.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The address is none.
    #[error("building the request")]
    Build(#[from] http::Error),
    /// Nobody listens, or the connection broke.
    #[error("sending the request")]
    Send(#[from] hyper_util::client::legacy::Error),
    /// The server refused.
    #[error("the server answered {0}")]
    Status(StatusCode),
}

/// An answer that has begun. Dropping it goes away, as a client does.
#[derive(Debug)]
pub struct Answering(Incoming);

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Tokens that came.
    pub tokens: u64,
    /// Whether it came to its end.
    pub whole: bool,
}

impl Default for ModelClient {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl ModelClient {
    /// Asks the server at an IP address for `tokens` tokens as a stream. Returns when the answer begins, which it does before the
    /// first token.
    pub async fn ask(&self, address: &str, tokens: u32) -> Result<Answering, NoAnswer> {
        let body = json!({"max_tokens": tokens, "stream": true}).to_string();
        let request = Request::post(format!("http://{address}:{PORT}/v1/completions"))
            .header(PROMPT_TOKENS, PROMPT)
            .body(Full::new(body.into()))?;
        let answer = self.0.request(request).await?;
        match answer.status() {
            StatusCode::OK => Ok(Answering(answer.into_body())),
            status => Err(NoAnswer::Status(status)),
        }
    }
}

impl Answering {
    /// Reads until it ends or breaks off.
    pub async fn read(mut self) -> Answered {
        let mut events = EventCounter::default();
        while let Some(Ok(frame)) = self.0.frame().await {
            if let Some(bytes) = frame.data_ref() {
                events.feed(bytes);
            }
        }
        Answered {
            tokens: events.events(),
            whole: events.is_done(),
        }
    }
}
