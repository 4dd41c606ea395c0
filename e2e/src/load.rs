//! Replays a trace as real HTTP streams.
//!
//! # Guarantees
//! - Open loop: a request is sent when the trace says, whether or not the ones before it are answered.
//! - No coordinated omission: TTFT counts from the moment at which the trace says that the request arrives. A generator
//!   that is late makes the figures worse, never better.
//! - Every request ends in exactly one [`Outcome`], within a bounded time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use pomarium_sim::trace::Arrival;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::router::{EventCounter, PROMPT_TOKENS};

/// How a trace is replayed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The router.
    pub target: SocketAddr,
    /// The model that the requests name.
    pub model: String,
    /// Virtual seconds in one real second.
    pub scale: f64,
    /// Longest real time from a request's arrival to its end.
    pub request_timeout: Duration,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered to the end.
    Completed,
    /// The answer began and broke off.
    Cut,
    /// No answer began: refused, an error, or out of time.
    Failed,
}

/// One request, as its sender saw it. Times are virtual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// When it arrived, in ms from the start of the trace.
    pub arrival_ms: u64,
    /// From then to the first token, in ms.
    pub ttft_ms: Option<f64>,
    /// Mean time between its tokens, in ms. None with fewer than two tokens.
    pub itl_ms: Option<f64>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended, in ms from the start of the trace.
    pub ended_ms: f64,
}

/// What the generator has done so far; shared with whoever shows it.
#[derive(Default)]
pub struct Ledger(Mutex<State>);

#[derive(Default)]
struct State {
    sent: u64,
    in_flight: u64,
    position_ms: u64,
    worst_lag_ms: f64,
    records: Vec<Record>,
    /// Records of the last [`WINDOW_MS`], by the time of their end.
    recent: VecDeque<Record>,
}

/// How far [`Snapshot`]'s percentiles look back, in virtual ms.
pub const WINDOW_MS: f64 = 300_000.0;

/// The generator's progress at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Requests sent.
    pub sent: u64,
    /// Sent and not ended.
    pub in_flight: u64,
    /// Answered to the end.
    pub completed: u64,
    /// Begun and broken off.
    pub cut: u64,
    /// Never begun.
    pub failed: u64,
    /// Where the replay is, in ms from the start of the trace.
    pub position_ms: u64,
    /// The most that the generator was behind the trace, in virtual ms.
    pub worst_lag_ms: f64,
    /// TTFT of the requests that ended in the last five virtual minutes, in ms, sorted. A request that failed counts as infinite.
    pub recent_ttft_ms: Vec<f64>,
    /// ITL of the same, likewise.
    pub recent_itl_ms: Vec<f64>,
}

impl Ledger {
    /// Where things are.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let count = |outcome| state.records.iter().filter(|record| record.outcome == outcome).count() as u64;
        let recent = |value: fn(&Record) -> Option<f64>| {
            let mut values: Vec<f64> = state.recent.iter().filter_map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        Snapshot {
            sent: state.sent,
            in_flight: state.in_flight,
            completed: count(Outcome::Completed),
            cut: count(Outcome::Cut),
            failed: count(Outcome::Failed),
            position_ms: state.position_ms,
            worst_lag_ms: state.worst_lag_ms,
            recent_ttft_ms: recent(|record| Some(record.ttft_or_infinite())),
            recent_itl_ms: recent(|record| record.itl_ms),
        }
    }

    /// Every request that has ended, in the order of its end.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    fn begin(&self, arrival: &Arrival, lag_ms: f64) {
        let mut state = self.lock();
        state.sent += 1;
        state.in_flight += 1;
        state.position_ms = arrival.arrival_ms;
        state.worst_lag_ms = state.worst_lag_ms.max(lag_ms);
    }

    fn end(&self, record: Record) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.records.push(record);
        state.recent.push_back(record);
        while state
            .recent
            .front()
            .is_some_and(|old| old.ended_ms < record.ended_ms - WINDOW_MS)
        {
            state.recent.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// TTFT in ms; infinite for a request whose answer never began or was cut, so that it misses every objective.
    pub fn ttft_or_infinite(&self) -> f64 {
        match self.outcome {
            Outcome::Completed => self.ttft_ms.unwrap_or(f64::INFINITY),
            Outcome::Cut | Outcome::Failed => f64::INFINITY,
        }
    }
}

/// The value below which `percentile` percent of `sorted` lie, by the nearest rank; `None` if there is none.
pub fn percentile(sorted: &[f64], percentile: u32) -> Option<f64> {
    let rank = (sorted.len() * percentile.min(100) as usize).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// Sends all of `arrivals` at their times, from now on, and waits for the last answer. Stops early when `stop` is
/// cancelled: what is in flight is then finished, nothing more is sent.
pub async fn replay(arrivals: &[Arrival], config: &Config, ledger: &Arc<Ledger>, stop: &CancellationToken) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: HttpClient = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(5))
        .build(connector);
    let shared = Arc::new(Sender {
        client,
        config: config.clone(),
        start: Instant::now(),
    });
    let tasks = TaskTracker::new();
    for arrival in arrivals {
        let due = shared.start + Duration::from_secs_f64(arrival.arrival_ms as f64 / 1_000.0 / config.scale);
        if stop.run_until_cancelled(sleep_until(due)).await.is_none() {
            break;
        }
        ledger.begin(arrival, shared.virtual_ms(due.elapsed()));
        let (shared, ledger, arrival) = (shared.clone(), ledger.clone(), *arrival);
        tasks.spawn(async move {
            let record = shared.send(arrival, due).await;
            ledger.end(record);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// What all requests share.
struct Sender {
    client: HttpClient,
    config: Config,
    start: Instant,
}

/// What is known of an answer while it comes. Real times.
#[derive(Default)]
struct Answer {
    first: Option<Instant>,
    last: Option<Instant>,
    events: EventCounter,
}

impl Sender {
    async fn send(&self, arrival: Arrival, due: Instant) -> Record {
        let mut answer = Answer::default();
        let ended = timeout(self.config.request_timeout, self.stream(arrival, &mut answer)).await;
        let outcome = match ended {
            Ok(Ok(())) if answer.events.is_done() => Outcome::Completed,
            _ if answer.first.is_some() => Outcome::Cut,
            _ => Outcome::Failed,
        };
        let tokens = answer.events.events();
        let itl_ms = answer
            .first
            .zip(answer.last)
            .filter(|_| tokens >= 2)
            .map(|(first, last)| {
                let steps = (tokens - 1) as f64;
                self.virtual_ms(last - first) / steps
            });
        Record {
            arrival_ms: arrival.arrival_ms,
            ttft_ms: answer.first.map(|first| self.virtual_ms(first - due)),
            itl_ms,
            outcome,
            ended_ms: self.virtual_ms(self.start.elapsed()),
        }
    }

    async fn stream(&self, arrival: Arrival, answer: &mut Answer) -> Result<(), SendError> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.config.target.to_string())
            .path_and_query("/v1/completions")
            .build()?;
        let body = serde_json::json!({
            "model": self.config.model,
            "prompt": "",
            "stream": true,
            "max_tokens": arrival.output_tokens.max(1),
            "ignore_eos": true,
        });
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(PROMPT_TOKENS, arrival.prompt_tokens)
            .body(Full::new(Bytes::from(body.to_string())))?;
        let mut response = self.client.request(request).await?;
        if !response.status().is_success() {
            return Err(SendError::Status);
        }
        while let Some(frame) = response.body_mut().frame().await {
            let Ok(bytes) = frame?.into_data() else { continue };
            if answer.events.feed(&bytes) > 0 {
                let now = Instant::now();
                answer.first.get_or_insert(now);
                answer.last = Some(now);
            }
        }
        Ok(())
    }

    fn virtual_ms(&self, real: Duration) -> f64 {
        real.as_secs_f64() * 1_000.0 * self.config.scale
    }
}

/// A request was not answered to the end.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("building the request")]
    Build(#[from] http::Error),
    #[error("sending the request")]
    Send(#[from] hyper_util::client::legacy::Error),
    #[error("reading the answer")]
    Read(#[from] hyper::Error),
    #[error("the request was refused")]
    Status,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::body::Body;
    use axum::response::{IntoResponse, Response};
    use axum::routing::post;
    use futures::{StreamExt, stream};
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::wait::until;

    fn arrival(arrival_ms: u64, prompt_tokens: u32) -> Arrival {
        Arrival {
            arrival_ms,
            prompt_tokens,
            output_tokens: 2,
        }
    }

    /// Answers as the prompt's length says, so that one server plays every case.
    async fn play(headers: HeaderMap) -> Response {
        let streamed = |chunks: Vec<Result<&'static str, &'static str>>| {
            let paced = stream::iter(chunks).then(|chunk| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                chunk.map(Bytes::from).map_err(std::io::Error::other)
            });
            Body::from_stream(paced).into_response()
        };
        match headers[PROMPT_TOKENS].to_str().unwrap() {
            "1" => streamed(vec![Ok("data: {}\n\n"), Ok("data: {}\n\n"), Ok("data: [DONE]\n\n")]),
            "2" => streamed(vec![Ok("data: {}\n\n"), Err("gone")]),
            "3" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            "4" => Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()).into_response(),
            _ => streamed(vec![Ok("data: {}\n\n")]),
        }
    }

    async fn server() -> SocketAddr {
        let routes = axum::Router::new().route("/v1/completions", post(play));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, routes).into_future());
        address
    }

    async fn replay_to(target: SocketAddr, arrivals: &[Arrival], ledger: &Arc<Ledger>, stop: &CancellationToken) {
        let config = Config {
            target,
            model: "m".into(),
            scale: 10.0,
            request_timeout: Duration::from_secs(5),
        };
        replay(arrivals, &config, ledger, stop).await;
    }

    #[tokio::test]
    async fn every_request_ends_once_as_completed_cut_or_failed() {
        let cases = [
            (1, Outcome::Completed),
            (2, Outcome::Cut),
            (3, Outcome::Failed),
            (4, Outcome::Failed),
            (5, Outcome::Cut),
        ];
        let arrivals: Vec<_> = cases.iter().map(|(case, _)| arrival(u64::from(*case), *case)).collect();
        let ledger = Arc::default();
        replay_to(server().await, &arrivals, &ledger, &CancellationToken::new()).await;
        let mut records = ledger.records();
        records.sort_by_key(|record| record.arrival_ms);
        assert_eq!(
            records.iter().map(|record| record.outcome).collect::<Vec<_>>(),
            cases.map(|(_, outcome)| outcome)
        );
        let seen = ledger.snapshot();
        assert_eq!(
            (seen.sent, seen.completed, seen.cut, seen.failed, seen.in_flight),
            (5, 1, 2, 2, 0)
        );
        // 20 ms of real time are 200 ms of virtual time.
        let (ttft, itl) = (records[0].ttft_ms.unwrap(), records[0].itl_ms.unwrap());
        assert!(ttft >= 200.0 && itl >= 150.0, "TTFT {ttft} ms, ITL {itl} ms");
        assert_eq!(
            seen.recent_ttft_ms.iter().filter(|value| value.is_infinite()).count(),
            4
        );
    }

    #[tokio::test]
    async fn requests_are_sent_on_time_even_if_nothing_is_answered() {
        let arrivals: Vec<_> = (0..20).map(|index| arrival(index * 100, 4)).collect();
        let start = Instant::now();
        let ledger = Arc::default();
        replay_to(server().await, &arrivals, &ledger, &CancellationToken::new()).await;
        // The trace takes 190 ms; then the last one times out after 5 s. One after the other would take 100 s.
        assert!(start.elapsed() < Duration::from_secs(50));
        assert_eq!(ledger.snapshot().failed, 20);
    }

    #[tokio::test]
    async fn a_replay_that_is_stopped_finishes_what_it_has_sent_and_sends_no_more() {
        let arrivals = [arrival(0, 1), arrival(0, 1), arrival(3_600_000, 1)];
        let stop = CancellationToken::new();
        let (target, ledger) = (server().await, Arc::default());
        tokio::join!(replay_to(target, &arrivals, &ledger, &stop), async {
            until(Duration::from_secs(20), "both to be sent", async || {
                ledger.snapshot().sent == 2
            })
            .await
            .unwrap();
            stop.cancel();
        });
        let seen = ledger.snapshot();
        assert_eq!((seen.sent, seen.completed, seen.in_flight), (2, 2, 0));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        for (percent, expected) in [(0, 1.0), (5, 1.0), (50, 10.0), (95, 19.0), (96, 20.0), (100, 20.0)] {
            assert_eq!(percentile(&values, percent), Some(expected), "p{percent}");
        }
        assert_eq!(percentile(&[], 95), None);
    }
}
