//! API clients that cannot hang, cannot flood, and cannot write without leading.
//!
//! kube's default client retries refused evictions for minutes and has no time-out on answers. Clients made here have no
//! hidden retries; every request is bounded in time; each cluster has its own budget of requests per second; and writes
//! pass a [`Gate`] that is open only while this process is sure to lead. The gate is the last thing that a request meets
//! before the network, so a task that outlives the leadership cannot write either.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// How long an API server may take to begin its answer to a read. Lists of thousands of objects take seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be silent. Watches end by themselves after 290 s, so that a healthy one is never cut.
const SILENCE: Duration = Duration::from_secs(300);

/// A write was refused by the [`Gate`] of this very process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("writing without leadership")]
pub struct NotLeader;

impl NotLeader {
    /// Whether `error` says that.
    pub fn caused(error: &kube::Error) -> bool {
        matches!(error, kube::Error::Service(source) if source.is::<Self>())
    }
}

/// Lets writes pass until a deadline that only a renewed leadership moves. Clones are the same gate.
///
/// # Guarantees
/// The deadline is monotonic time of this machine, counted from *before* the renewal was sent: whatever happens to clocks,
/// schedulers and networks, the gate shuts before another candidate may take the Lease over.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<Opening>>);

#[derive(Clone, Copy, Debug, Default)]
enum Opening {
    #[default]
    Shut,
    Until(Instant),
    Always,
}

impl Gate {
    /// A gate that is shut.
    pub fn shut() -> Self {
        Self::default()
    }

    /// A gate that is always open: without leader election there is nobody to wait for.
    pub fn open() -> Self {
        Self(Arc::new(Mutex::new(Opening::Always)))
    }

    /// Opens it until `deadline`.
    pub fn open_until(&self, deadline: Instant) {
        self.set(Opening::Until(deadline));
    }

    /// Shuts it at once.
    pub fn close(&self) {
        self.set(Opening::Shut);
    }

    /// Whether a write may pass now.
    pub fn is_open(&self) -> bool {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Opening::Shut => false,
            Opening::Until(deadline) => Instant::now() < deadline,
            Opening::Always => true,
        }
    }

    fn set(&self, opening: Opening) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = opening;
    }
}

/// A token bucket. Clones share it.
#[derive(Clone, Debug)]
pub struct RateLimit(Arc<Mutex<Bucket>>);

#[derive(Debug)]
struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the bucket will be full again if nobody takes from it.
    full_at: Instant,
}

impl RateLimit {
    /// `per_second` requests per second, and `burst` at once after a quiet time.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self(Arc::new(Mutex::new(Bucket {
            interval: Duration::from_secs(1) / per_second.max(1),
            burst: burst.max(1),
            full_at: Instant::now(),
        })))
    }

    /// Takes a token, and says how long to wait for it.
    fn reserve(&self, now: Instant) -> Duration {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.full_at = bucket.full_at.max(now) + bucket.interval;
        let ahead = bucket.interval * bucket.burst;
        bucket.full_at.saturating_duration_since(now + ahead)
    }
}

/// A client for reads and watches.
pub fn reader(mut config: Config, limit: &RateLimit) -> Result<Client, kube::Error> {
    config.default_retry = false;
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&Bounds {
            gate: Gate::shut(),
            limit: limit.clone(),
            timeout: READ_TIMEOUT,
        })
        .build())
}

/// A client for writes, and for the reads just before them. Every request ends within `timeout`.
pub fn writer(mut config: Config, limit: &RateLimit, gate: &Gate, timeout: Duration) -> Result<Client, kube::Error> {
    config.default_retry = false;
    config.connect_timeout = Some(timeout);
    config.read_timeout = Some(timeout);
    config.write_timeout = Some(timeout);
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&Bounds {
            gate: gate.clone(),
            limit: limit.clone(),
            timeout,
        })
        .build())
}

/// An error with its causes, each said once: many errors repeat their source in their own text.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = source.source();
    }
    text
}

/// What every request is held to.
#[derive(Clone)]
pub(crate) struct Bounds {
    pub(crate) gate: Gate,
    pub(crate) limit: RateLimit,
    pub(crate) timeout: Duration,
}

impl<S> Layer<S> for Bounds {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded {
            inner,
            bounds: self.clone(),
        }
    }
}

/// A service under [`Bounds`].
#[derive(Clone)]
pub(crate) struct Bounded<S> {
    inner: S,
    bounds: Bounds,
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mutates = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let Bounds { gate, limit, timeout } = self.bounds.clone();
        if mutates && !gate.is_open() {
            return Box::pin(async { Err(NotLeader.into()) });
        }
        let wait = limit.reserve(Instant::now());
        // Nothing is sent before this future is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
                // Leadership may have been lost in the queue.
                if mutates && !gate.is_open() {
                    return Err(NotLeader.into());
                }
            }
            match tokio::time::timeout(timeout, answer).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(late) => Err(late.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams, PostParams};

    use super::*;

    /// A client under `bounds` whose server counts requests and answers after `delay`.
    fn client(gate: &Gate, limit: RateLimit, delay: Duration) -> (Client, Arc<AtomicUsize>) {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let server = tower::service_fn(move |_: Request<Body>| {
            let counter = Arc::clone(&counter);
            async move {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(delay).await;
                let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"b"}}"#;
                Ok::<_, Infallible>(Response::new(Body::from(pod.as_bytes().to_vec())))
            }
        });
        let bounds = Bounds {
            gate: gate.clone(),
            limit,
            timeout: Duration::from_millis(100),
        };
        (ClientBuilder::new(bounds.layer(server), "default").build(), requests)
    }

    async fn try_all_writes(pods: &Api<Pod>) -> Vec<Result<(), kube::Error>> {
        let pod = Pod::default();
        vec![
            pods.create(&PostParams::default(), &pod).await.map(drop),
            pods.replace("a", &PostParams::default(), &pod).await.map(drop),
            pods.patch("a", &PatchParams::default(), &Patch::Merge(&pod))
                .await
                .map(drop),
            pods.delete("a", &DeleteParams::default()).await.map(drop),
            pods.evict("a", &EvictParams::default()).await.map(drop),
        ]
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_refuses_every_write_after_its_deadline_and_no_read() {
        let gate = Gate::shut();
        let (client, served) = client(&gate, RateLimit::new(100, 100), Duration::ZERO);
        let pods: Api<Pod> = Api::default_namespaced(client);

        for result in try_all_writes(&pods).await {
            assert!(NotLeader::caused(&result.unwrap_err()), "never led");
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        gate.open_until(deadline);
        for result in try_all_writes(&pods).await {
            assert!(
                !matches!(result, Err(ref error) if NotLeader::caused(error)),
                "{result:?}"
            );
        }
        assert_eq!(served.load(Ordering::SeqCst), 5);

        tokio::time::sleep_until(deadline).await;
        for result in try_all_writes(&pods).await {
            assert!(NotLeader::caused(&result.unwrap_err()), "led once");
        }
        assert_eq!(served.load(Ordering::SeqCst), 5, "nothing reached the server");
        pods.get("a").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_waits_for_its_turn_is_refused_if_leadership_ends_meanwhile() {
        let gate = Gate::shut();
        gate.open_until(Instant::now() + Duration::from_millis(500));
        let (client, served) = client(&gate, RateLimit::new(1, 1), Duration::ZERO);
        let pods: Api<Pod> = Api::default_namespaced(client);

        pods.delete("a", &DeleteParams::default()).await.unwrap();
        let error = pods.delete("a", &DeleteParams::default()).await.unwrap_err();
        assert!(NotLeader::caused(&error), "{error}");
        assert_eq!(served.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up_on() {
        let (client, _) = client(&Gate::open(), RateLimit::new(100, 100), Duration::from_secs(3_600));
        let started = Instant::now();
        let pods: Api<Pod> = Api::default_namespaced(client);
        pods.get("a").await.unwrap_err();
        assert_eq!(started.elapsed(), Duration::from_millis(100));
    }

    #[test]
    fn requests_beyond_the_burst_are_spread_out() {
        let limit = RateLimit::new(10, 3);
        let now = Instant::now();
        let waits: Vec<u128> = (0..6).map(|_| limit.reserve(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(60);
        assert_eq!(limit.reserve(later), Duration::ZERO, "a quiet time refills the bucket");
    }
}
