//! A small inference gateway: one address in front of all replicas of one pool, at all sites.
//!
//! # Guarantees
//! - Each request goes to the serving replica with the least outstanding work ([`dispatch`]). A replica that loses its
//!   label gets no new request from the moment the watch says so ([`backends`]).
//! - Requests that come while nothing serves wait, in order, for a bounded time; then they are refused with 503.
//! - A replica that fails before the first byte of its answer costs the client nothing: the request goes to another one.
//! - An answer that ends without `[DONE]` is counted as cut, and reaches the client as a broken stream, never as a whole one.
//! - Bytes are forwarded as they come; only `data:` events are counted ([`events`]).
//!
//! Not for production use: no authentication, one pool, plain HTTP.

pub mod backends;
mod dispatch;
mod events;
mod metrics;
mod relay;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use dispatch::{Backend, BackendId, BackendLoad};
pub(crate) use events::EventCounter;
pub use metrics::{Labels, Thresholds};

use dispatch::{Dispatcher, Lease, Work};
use metrics::Metrics;
use relay::Relay;

/// Header with the number of tokens of a request's prompt.
pub const PROMPT_TOKENS: HeaderName = HeaderName::from_static("x-prompt-tokens");

/// Longest request body, in bytes.
const MAX_BODY: usize = 4 << 20;

/// What is expected of answers before any was seen, in tokens.
const FIRST_GUESS_OF_OUTPUT: u64 = 200;

/// How a router runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Whose requests it takes.
    pub labels: Labels,
    /// Thresholds of the pool's objectives, in virtual seconds.
    pub thresholds: Thresholds,
    /// Virtual seconds in one real second.
    pub scale: f64,
    /// Longest real time that a request waits for a replica.
    pub queue_timeout: Duration,
    /// Longest real time that a replica may say nothing in the middle of an answer, or before it.
    pub silence: Duration,
}

/// A router cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The address is taken or not ours.
    #[error("binding the router to {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A series cannot be registered.
    #[error("registering the router's metrics")]
    Metrics(#[source] prometheus::Error),
}

/// What all requests share.
struct Shared {
    dispatcher: Dispatcher,
    metrics: Metrics,
    counters: Counters,
    client: Client<HttpConnector, Full<Bytes>>,
    /// Running mean of output tokens, in 1/16 token.
    expected_output: AtomicU64,
    scale: f64,
    queue_timeout: Duration,
    silence: Duration,
}

#[derive(Default)]
struct Counters {
    completed: AtomicU64,
    cut: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    abandoned: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What became of the requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Received.
    pub received: u64,
    /// Answered to the end.
    pub completed: u64,
    /// Begun and broken off.
    pub cut: u64,
    /// Refused: nothing served in time, or the answer was an error.
    pub refused: u64,
    /// Attempts that failed before the first byte and were made again elsewhere.
    pub retried: u64,
    /// Given up by the client.
    pub abandoned: u64,
}

/// A running router. Stops when dropped.
pub struct Router {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Router {
    /// Starts listening. It knows no replica yet: see [`Router::follow`] and [`Router::open`].
    pub async fn start(config: Config) -> Result<Self, RouterError> {
        let binding = |source| RouterError::Bind {
            address: config.bind,
            source,
        };
        let listener = tokio::net::TcpListener::bind(config.bind).await.map_err(binding)?;
        let address = listener.local_addr().map_err(binding)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        let shared = Arc::new(Shared {
            dispatcher: Dispatcher::default(),
            metrics: Metrics::new(&config.labels, &config.thresholds).map_err(RouterError::Metrics)?,
            counters: Counters::default(),
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(5))
                .build(connector),
            expected_output: AtomicU64::new(FIRST_GUESS_OF_OUTPUT * 16),
            scale: config.scale,
            queue_timeout: config.queue_timeout,
            silence: config.silence,
        });
        let routes = axum::Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/completions", post(complete))
            .route("/metrics", get(render_metrics))
            .route("/health", get(|| async { "ok" }))
            .with_state(shared.clone());
        let stop = CancellationToken::new();
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            // Tokens are small and in a hurry.
            let _ = stream.set_nodelay(true);
        });
        let serving = axum::serve(listener, routes);
        let stopped = stop.clone();
        tokio::spawn(async move {
            let _ = stopped.run_until_cancelled(serving.into_future()).await;
        });
        Ok(Self { address, shared, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its metrics are.
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Lets a replica take requests.
    pub fn open(&self, backend: Backend) {
        self.shared.dispatcher.open(backend);
    }

    /// Takes a replica out: it gets no new request, what it runs goes on.
    pub fn fence(&self, id: &BackendId) {
        self.shared.dispatcher.fence(id);
    }

    /// What every replica runs, of those that serve or still run something.
    pub fn loads(&self) -> Vec<BackendLoad> {
        self.shared.dispatcher.loads()
    }

    /// Requests that wait because nothing serves.
    pub fn queued(&self) -> usize {
        self.shared.dispatcher.queued()
    }

    /// What became of the requests so far.
    pub fn outcomes(&self) -> Outcomes {
        let Counters {
            completed,
            cut,
            refused,
            retried,
            abandoned,
        } = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Outcomes {
            received: self.shared.metrics.requests.get(),
            completed: read(completed),
            cut: read(cut),
            refused: read(refused),
            retried: read(retried),
            abandoned: read(abandoned),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    /// Takes the length of one answer into the running mean over about 64 answers.
    fn learn_output(&self, tokens: u64) {
        let update = |mean: u64| Some(mean - mean / 64 + tokens * 16 / 64);
        let _ = self
            .expected_output
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    fn work(&self, headers: &HeaderMap, body: usize) -> Work {
        let said = headers
            .get(PROMPT_TOKENS)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        Work {
            // Four bytes a token is the usual rule of thumb for English.
            prompt_tokens: said.unwrap_or_else(|| u32::try_from(body / 4).unwrap_or(u32::MAX)),
            expected_output: u32::try_from(self.expected_output.load(Ordering::Relaxed) / 16).unwrap_or(u32::MAX),
        }
    }
}

async fn render_metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// One request, from its arrival to the head of its answer.
async fn complete(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let arrived = Instant::now();
    shared.metrics.requests.inc();
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        Counters::add(&shared.counters.refused);
        return (StatusCode::PAYLOAD_TOO_LARGE, "the request is too long or broke off").into_response();
    };
    let work = shared.work(&head.headers, body.len());
    shared.metrics.input_tokens.observe(f64::from(work.prompt_tokens));
    let deadline = arrived + shared.queue_timeout;
    let mut tried = BTreeSet::new();
    loop {
        let lease = match timeout_at(deadline, shared.dispatcher.acquire(work, &tried)).await {
            Ok(Ok(lease)) => lease,
            Ok(Err(_)) if Instant::now() < deadline => {
                // All that serve have failed. A moment later one may be back, or the watch may have told of others.
                tokio::time::sleep(Duration::from_millis(20)).await;
                tried.clear();
                continue;
            }
            Ok(Err(_)) | Err(_) => {
                Counters::add(&shared.counters.refused);
                return (StatusCode::SERVICE_UNAVAILABLE, "no replica served in time").into_response();
            }
        };
        let backend = lease.backend().clone();
        match attempt(&shared, lease, &head, &body, arrived).await {
            Ok(response) => return response,
            Err(error) => {
                tracing::debug!(site = backend.site, uid = backend.uid, %error, "sending the request elsewhere");
                Counters::add(&shared.counters.retried);
                tried.insert(backend);
            }
        }
    }
}

/// A replica failed before the first byte of its answer.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("sending the request")]
    Send(#[source] hyper_util::client::legacy::Error),
    #[error("the replica answered {0}")]
    Unavailable(StatusCode),
    #[error("the replica said nothing in time")]
    Silent,
    #[error("the answer broke off before its first byte")]
    Broken(#[source] Option<hyper::Error>),
    #[error("building the request")]
    Build(#[source] http::Error),
}

/// Sends one request to one replica, and waits for the first byte of its answer.
async fn attempt(
    shared: &Arc<Shared>,
    lease: Lease,
    head: &http::request::Parts,
    body: &Bytes,
    arrived: Instant,
) -> Result<Response, AttemptError> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(lease.address().to_string())
        .path_and_query(head.uri.path())
        .build()
        .map_err(AttemptError::Build)?;
    let mut request = http::Request::new(Full::new(body.clone()));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    for name in [
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::AUTHORIZATION,
        PROMPT_TOKENS,
    ] {
        if let Some(value) = head.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    let sent = timeout(shared.silence, shared.client.request(request)).await;
    let (mut answer, mut rest) = sent
        .map_err(|_| AttemptError::Silent)?
        .map_err(AttemptError::Send)?
        .into_parts();
    if matches!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY
    ) {
        return Err(AttemptError::Unavailable(answer.status));
    }
    answer.headers.remove(header::TRANSFER_ENCODING);
    answer.headers.remove(header::CONNECTION);
    if !answer.status.is_success() {
        // The replica's verdict on the request itself: for the client.
        Counters::add(&shared.counters.refused);
        return Ok(Response::from_parts(answer, Body::new(rest)));
    }
    let first = first_bytes(shared, &mut rest).await?;
    let relay = Relay::new(shared.clone(), lease, arrived, Some(first), rest);
    Ok(Response::from_parts(answer, Body::new(relay)))
}

async fn first_bytes(shared: &Shared, rest: &mut Incoming) -> Result<Bytes, AttemptError> {
    loop {
        let frame = timeout(shared.silence, rest.frame())
            .await
            .map_err(|_| AttemptError::Silent)?;
        let frame = frame
            .ok_or(AttemptError::Broken(None))?
            .map_err(|source| AttemptError::Broken(Some(source)))?;
        match frame.into_data() {
            Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
