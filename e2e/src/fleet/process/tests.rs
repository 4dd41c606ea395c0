//! A model server over real HTTP, without a cluster.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use pomarium_api::pool::EngineType;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::super::faults::MetricsAnswer;
use super::super::{Addresses, TICK};
use super::*;
use crate::wait::until;

const SCALE: f64 = 20.0;
const MS: u64 = 1_000_000;
/// Far more than anything here takes, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    process: Process,
    address: SocketAddr,
    ailments: watch::Sender<Ailments>,
    totals: Arc<Totals>,
    client: Client<HttpConnector, Full<Bytes>>,
    _addresses: Addresses,
}

impl Rig {
    async fn start(engine: EngineType) -> Self {
        let addresses = Addresses::claim().await.unwrap();
        let address = SocketAddr::from((addresses.next(), 8080));
        let spec = Spec {
            kind: Kind {
                engine,
                model: "m".into(),
                kv_tokens: 20_000,
            },
            times: StepTimes {
                alpha_ns: 10 * MS,
                beta_ns: 2 * MS,
                delta_ns: MS,
                kv_tokens: 20_000,
                max_batch: 4,
                prefill_chunk: 100,
            },
            address,
        };
        let (ailments, totals) = (watch::Sender::default(), Arc::default());
        let clock = EngineClock::new(SCALE, TICK);
        let process = Process::start(spec, clock, Arc::default(), Arc::clone(&totals), ailments.subscribe())
            .await
            .unwrap();
        Self {
            process,
            address,
            ailments,
            totals,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _addresses: addresses,
        }
    }

    async fn loaded(engine: EngineType) -> Self {
        let rig = Self::start(engine).await;
        rig.process.loaded();
        rig
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let uri = format!("http://{}{path}", self.address).parse().unwrap();
        let answer = self.client.get(uri).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn post(&self, path: &str, prompt: Option<u32>, body: Value) -> http::Response<Incoming> {
        let mut request = Request::post(format!("http://{}{path}", self.address));
        if let Some(prompt) = prompt {
            request = request.header("x-prompt-tokens", prompt);
        }
        let request = request.body(Full::new(body.to_string().into())).unwrap();
        self.client.request(request).await.unwrap()
    }

    async fn stream(&self, prompt: u32, output: u32) -> http::Response<Incoming> {
        let body = json!({"messages": [], "max_tokens": output, "stream": true});
        self.post("/v1/chat/completions", Some(prompt), body).await
    }

    /// Waits until the engine works on `running` and `queued` requests.
    async fn load(&self, running: u64, queued: u64) {
        let state = self.process.state();
        let reached = until(PATIENCE, "the engine's load", async || {
            let figures = state.figures();
            (figures.running, state.queued(&figures)) == (running, queued)
        });
        reached.await.unwrap();
    }

    async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    async fn answers_nothing(&self) -> bool {
        TcpStream::connect(self.address).await.is_err()
    }

    fn count(&self, counter: fn(&Totals) -> &AtomicU64) -> u64 {
        counter(&self.totals).load(Ordering::Relaxed)
    }
}

/// Reads to the end: events before `[DONE]`, and whether `[DONE]` came.
async fn read(answer: http::Response<Incoming>) -> (usize, bool) {
    let mut body = answer.into_body();
    let mut text = String::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    let done = text.ends_with("data: [DONE]\n\n");
    (text.matches("data: ").count() - usize::from(done), done)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_every_token_at_the_times_of_the_step_model() {
    let rig = Rig::loaded(EngineType::Vllm).await;
    let start = Instant::now();
    let mut body = rig.stream(250, 40).await.into_body();
    let first = body.frame().await.unwrap().unwrap();
    let ttft = start.elapsed();
    let rest = body.collect().await.unwrap().to_bytes();
    let whole = start.elapsed();
    let text = [first.data_ref().unwrap(), &rest]
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .concat();
    assert_eq!(text.matches("data: {").count(), 40);
    assert!(text.ends_with("data: [DONE]\n\n"));

    // 3 alpha + 250 delta, then 39 of alpha + beta. Never early; late by what a busy machine may cost.
    let (first_due, all_due) = (0.280, 0.280 + 39.0 * 0.012);
    let virtual_secs = |real: Duration| real.as_secs_f64() * SCALE;
    assert!(
        virtual_secs(ttft) >= first_due && virtual_secs(whole) >= all_due,
        "{ttft:?} {whole:?}"
    );
    assert!(whole < PATIENCE, "{whole:?}");
    // What the engine itself counts does not depend on the machine.
    assert!((rig.metric("vllm:time_to_first_token_seconds_sum").await - first_due).abs() < 1e-9);
    assert!((rig.metric("vllm:inter_token_latency_seconds_sum").await - 39.0 * 0.012).abs() < 1e-9);
    assert!((rig.metric("vllm:request_time_per_output_token_seconds_sum").await - 0.012).abs() < 1e-9);
    assert!((rig.metric("vllm:prompt_tokens_total").await - 250.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_slots_are_all_answered_to_their_last_token() {
    let rig = Rig::loaded(EngineType::VllmMlx).await;
    let lengths: Vec<u32> = (1..=20).map(|n| n * 3).collect();
    let answers = lengths
        .iter()
        .map(async |output| read(rig.stream(30, *output).await).await);
    let answers = timeout(PATIENCE, futures::future::join_all(answers)).await.unwrap();
    for (output, answer) in lengths.iter().zip(answers) {
        assert_eq!(answer, (*output as usize, true));
    }
    let tokens: u32 = lengths.iter().sum();
    assert!((rig.metric("vllm_mlx_completion_tokens_total").await - f64::from(tokens)).abs() < 1e-9);
    assert_eq!((rig.count(|t| &t.completed), rig.count(|t| &t.cancelled)), (20, 0));
    rig.load(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_once_has_the_same_tokens_and_counts_the_prompt_by_its_text() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    let asked = json!({"messages": [{"role": "user", "content": "x".repeat(400)}], "max_tokens": 5});
    let answer = rig.post("/v1/chat/completions", None, asked).await;
    let answer: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105})
    );
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        " the orchard keeps its trees"
    );
    assert!((rig.metric("llamacpp:tokens_predicted_total").await - 5.0).abs() < 1e-9);

    let text = rig
        .post("/v1/completions", None, json!({"prompt": "x", "max_tokens": 2}))
        .await;
    let text: Value = serde_json::from_slice(&text.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(text["choices"][0]["text"], " the orchard");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_served_are_refused_with_a_message() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    assert_eq!(rig.stream(19_999, 2).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        rig.post("/v1/completions", None, json!({"max_tokens": "many"}))
            .await
            .status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(rig.get("/v1/nothing").await.0, StatusCode::NOT_FOUND);
    assert!(rig.get("/v1/models").await.1.contains("\"id\":\"m\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_while_the_model_loads() {
    let rig = Rig::start(EngineType::LlamaCpp).await;
    assert_eq!(rig.get("/health").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.stream(10, 2).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    rig.process.loaded();
    assert_eq!(rig.get("/health").await.0, StatusCode::OK);
    assert_eq!(read(rig.stream(10, 2).await).await, (2, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_taken_shows_in_the_metrics_at_once() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    rig.ailments.send_modify(|ailments| ailments.hangs = true);
    let mut streams = Vec::new();
    for taken in 1_i32..=6 {
        streams.push(rig.stream(10, 5).await);
        let busy = rig.metric("llamacpp:requests_processing").await + rig.metric("llamacpp:requests_deferred").await;
        assert!((busy - f64::from(taken)).abs() < 1e-9, "{busy} of {taken}");
    }
    rig.ailments.send_modify(|ailments| ailments.hangs = false);
    let (_, slots) = rig.get("/slots").await;
    let slots: Vec<Value> = serde_json::from_str(&slots).unwrap();
    assert_eq!(slots.len(), 4);
    for stream in streams {
        assert_eq!(timeout(PATIENCE, read(stream)).await.unwrap(), (5, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_its_place() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(rig.stream(10, 4_900).await);
    }
    rig.load(4, 2).await;
    streams.truncate(5);
    rig.load(4, 1).await;
    streams.remove(0);
    rig.load(4, 0).await;
    drop(streams);
    rig.load(0, 0).await;
    assert_eq!((rig.count(|t| &t.cancelled), rig.count(|t| &t.cut)), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_shut_down_finishes_its_answers_and_then_nothing_answers() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    let early = rig.stream(10, 2_000).await;
    rig.load(1, 0).await;
    let reading = tokio::spawn(read(early));
    // The hook waits; requests are still taken, which is what a router that has not noticed yet needs.
    assert!(timeout(Duration::from_millis(20), rig.process.idle()).await.is_err());
    let late = rig.stream(10, 100).await;
    let end = async {
        rig.process.idle().await;
        rig.process.shut_down().await;
    };
    let (late, ended) = tokio::join!(read(late), timeout(PATIENCE, end));
    ended.unwrap();
    assert_eq!((reading.await.unwrap(), late), ((2_000, true), (100, true)));
    assert!(rig.answers_nothing().await);
    assert_eq!((rig.count(|t| &t.completed), rig.count(|t| &t.cut)), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_cuts_its_answers_and_they_are_counted() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    let running = rig.stream(10, 10_000).await;
    rig.load(1, 0).await;
    rig.process.kill().await;
    let (_, done) = timeout(PATIENCE, read(running)).await.unwrap();
    assert!(!done, "a cut answer looks whole");
    assert!(rig.answers_nothing().await);
    assert_eq!((rig.count(|t| &t.cut), rig.count(|t| &t.cancelled)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_machine_says_nothing_and_closes_nothing() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    let mut running = rig.stream(10, 10_000).await.into_body();
    running.frame().await.unwrap().unwrap();
    rig.ailments.send_modify(|ailments| ailments.dead = true);
    rig.process.machine_died();
    // What was sent before may still be read.
    let silent = async {
        loop {
            match timeout(Duration::from_millis(300), running.frame()).await {
                Ok(Some(Ok(_))) => {}
                other => return other,
            }
        }
    };
    assert!(
        timeout(PATIENCE, silent).await.unwrap().is_err(),
        "the stream went on or was closed"
    );
    // The kernel still takes the connection; nobody answers.
    let fresh = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let health = fresh.get(format!("http://{}/health", rig.address).parse().unwrap());
    assert!(timeout(Duration::from_millis(300), health).await.is_err());
    assert_eq!((rig.count(|t| &t.lost), rig.count(|t| &t.cut)), (1, 0));
    rig.process.kill().await;
    assert!(rig.answers_nothing().await);
    assert_eq!(
        (
            rig.count(|t| &t.lost),
            rig.count(|t| &t.cut),
            rig.count(|t| &t.cancelled)
        ),
        (1, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_engine_is_healthy_and_goes_on_where_it_stopped() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    rig.ailments.send_modify(|ailments| ailments.hangs = true);
    let stream = rig.stream(10, 30).await;
    let reading = tokio::spawn(read(stream));
    assert_eq!(rig.get("/health").await.0, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        !reading.is_finished(),
        "2 s of virtual time are enough for 30 tokens of an engine that works"
    );
    rig.ailments.send_modify(|ailments| ailments.hangs = false);
    assert_eq!(timeout(PATIENCE, reading).await.unwrap().unwrap(), (30, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_engine_takes_its_factor_longer() {
    let rig = Rig::loaded(EngineType::Vllm).await;
    rig.ailments.send_modify(|ailments| ailments.slowness = 3.0);
    assert_eq!(read(rig.stream(100, 11).await).await, (11, true));
    assert!((rig.metric("vllm:time_to_first_token_seconds_sum").await - 0.330).abs() < 1e-9);
    assert!((rig.metric("vllm:inter_token_latency_seconds_sum").await - 0.360).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_metrics_are_lost_in_every_way_and_come_back() {
    let rig = Rig::loaded(EngineType::LlamaCpp).await;
    let break_as = |answer| rig.ailments.send_modify(|ailments| ailments.metrics = answer);
    break_as(Some(MetricsAnswer::NotFound));
    assert_eq!(rig.get("/metrics").await.0, StatusCode::NOT_FOUND);
    break_as(Some(MetricsAnswer::Garbage));
    assert!(!rig.get("/metrics").await.1.contains("requests_processing 0"));
    break_as(Some(MetricsAnswer::Hang));
    assert!(timeout(Duration::from_millis(200), rig.get("/metrics")).await.is_err());
    break_as(Some(MetricsAnswer::Huge));
    assert!(rig.get("/metrics").await.1.len() > 60 << 20);
    break_as(None);
    assert!(rig.metric("llamacpp:requests_processing").await.abs() < 1e-9);
}
