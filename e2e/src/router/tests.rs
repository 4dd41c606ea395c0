//! The router in front of small HTTP servers of this process.

#![allow(clippy::unwrap_used)]

use std::convert::Infallible;

use axum::response::sse::{Event, Sse};
use futures::{Stream, StreamExt, stream};
use tokio::sync::Semaphore;

use super::*;
use crate::wait;
use dispatch::tests::backend;

fn config() -> Config {
    Config {
        bind: ([127, 0, 0, 1], 0).into(),
        labels: Labels {
            model_name: "m".into(),
            namespace: "n".into(),
            pool: "p".into(),
        },
        thresholds: Thresholds::default(),
        scale: 10.0,
        queue_timeout: Duration::from_secs(20),
        silence: Duration::from_secs(20),
    }
}

/// Starts a server that answers completions with `answer`; returns its port.
async fn engine<F, R>(answer: F) -> u16
where
    F: Fn() -> R + Clone + Send + Sync + 'static,
    R: IntoResponse + 'static,
{
    let routes = axum::Router::new().route(
        "/v1/completions",
        post(move || {
            let response = answer().into_response();
            async move { response }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(axum::serve(listener, routes).into_future());
    port
}

fn answer(tokens: usize, done: bool) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let tokens = stream::iter(vec!["{\"text\":\"apple \"}"; tokens]);
    let end = stream::iter(done.then_some("[DONE]"));
    Sse::new(tokens.chain(end).map(|data| Ok(Event::default().data(data))))
}

/// Sends one request. The status and the body, or `Err` if the answer broke off.
async fn ask(router: &Router) -> Result<(u16, String), reqwest::Error> {
    let url = format!("http://{}/v1/completions", router.address());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(url).header(PROMPT_TOKENS, "100").body("{}");
    let response = request.send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let held = wait::until(Duration::from_secs(20), what, async || condition()).await;
    held.unwrap();
}

#[tokio::test]
async fn an_answer_is_passed_on_whole_and_measured() {
    install_tls();
    let router = Router::start(config()).await.unwrap();
    router.open(backend("a", engine(|| answer(5, true)).await, 1));
    let (status, body) = ask(&router).await.unwrap();
    assert_eq!((status, body.matches("apple").count()), (200, 5));
    assert!(body.ends_with("data: [DONE]\n\n"));
    until("counted", || router.outcomes().completed == 1).await;
    let metrics = reqwest::get(router.metrics_url()).await.unwrap().text().await.unwrap();
    let label = r#"{model_name="m",namespace="n",pool="p"}"#;
    for (series, value) in [
        ("llm_d_epp_request_total", "1"),
        ("llm_d_epp_request_ttft_seconds_count", "1"),
        ("llm_d_epp_request_streaming_itl_seconds_count", "1"),
        ("llm_d_epp_request_input_tokens_sum", "100"),
        ("llm_d_epp_request_output_tokens_sum", "5"),
    ] {
        assert!(
            metrics.contains(&format!("{series}{label} {value}\n")),
            "{series} in {metrics}"
        );
    }
    assert!(router.loads().iter().all(|load| load.in_flight == 0));
}

#[tokio::test]
async fn a_request_waits_while_nothing_serves_and_counts_as_an_arrival_at_once() {
    install_tls();
    let router = Router::start(config()).await.unwrap();
    let port = engine(|| answer(2, true)).await;
    let (response, ()) = tokio::join!(ask(&router), async {
        until("queued", || router.queued() == 1).await;
        assert_eq!(router.outcomes().received, 1);
        router.open(backend("a", port, 1));
    });
    assert_eq!(response.unwrap().0, 200);
}

#[tokio::test]
async fn a_request_that_nobody_serves_in_time_is_refused() {
    install_tls();
    let router = Router::start(Config {
        queue_timeout: Duration::from_millis(50),
        ..config()
    });
    let router = router.await.unwrap();
    assert_eq!(ask(&router).await.unwrap().0, 503);
    assert_eq!(
        router.outcomes(),
        Outcomes {
            received: 1,
            refused: 1,
            ..Outcomes::default()
        }
    );
}

#[tokio::test]
async fn a_replica_that_fails_before_its_first_byte_costs_the_client_nothing() {
    install_tls();
    let router = Router::start(config()).await.unwrap();
    // Nobody listens; says 503; ends before the first byte. All are idle and faster than the good one.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = free.local_addr().unwrap().port();
    drop(free);
    router.open(backend("dead", dead, 1));
    router.open(backend("refusing", engine(|| StatusCode::SERVICE_UNAVAILABLE).await, 1));
    router.open(backend("empty", engine(|| StatusCode::OK).await, 1));
    router.open(backend("good", engine(|| answer(3, true)).await, 5));
    let (status, body) = ask(&router).await.unwrap();
    assert_eq!((status, body.matches("apple").count()), (200, 3));
    until("counted", || router.outcomes().completed == 1).await;
    assert_eq!((router.outcomes().retried, router.outcomes().cut), (3, 0));
}

#[tokio::test]
async fn an_answer_that_ends_without_done_is_cut_and_never_looks_whole() {
    install_tls();
    let router = Router::start(config()).await.unwrap();
    router.open(backend("a", engine(|| answer(3, false)).await, 1));
    assert!(ask(&router).await.is_err());
    until("counted", || router.outcomes().cut == 1).await;
    assert_eq!(router.outcomes().completed, 0);
    assert!(router.loads().iter().all(|load| load.in_flight == 0));
}

#[tokio::test]
async fn a_replica_that_falls_silent_in_the_middle_is_a_cut() {
    install_tls();
    let router = Router::start(Config {
        silence: Duration::from_millis(200),
        ..config()
    });
    let router = router.await.unwrap();
    let stuck = engine(|| Sse::new(answer_stream(2).chain(stream::pending())));
    router.open(backend("a", stuck.await, 1));
    assert!(ask(&router).await.is_err());
    until("counted", || router.outcomes().cut == 1).await;
}

fn answer_stream(tokens: usize) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::iter(vec![Ok(Event::default().data("{}")); tokens])
}

#[tokio::test]
async fn a_fenced_replica_finishes_its_answers_and_gets_no_new_one() {
    install_tls();
    let router = Router::start(config()).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let slow = engine(move || {
        let held = held.clone();
        let rest = stream::once(async move {
            let _ = held.acquire().await;
            Ok(Event::default().data("[DONE]"))
        });
        Sse::new(answer_stream(1).chain(rest))
    });
    let fenced = backend("fenced", slow.await, 1);
    let other = engine(|| answer(1, true)).await;
    router.open(fenced.clone());
    let (first, ()) = tokio::join!(ask(&router), async {
        until("in flight", || router.loads()[0].in_flight == 1).await;
        router.fence(&fenced.id);
        router.open(backend("other", other, 9));
        for _ in 0..5 {
            assert_eq!(ask(&router).await.unwrap().0, 200);
        }
        assert_eq!(
            router
                .loads()
                .iter()
                .find(|load| load.backend == fenced)
                .unwrap()
                .in_flight,
            1
        );
        gate.add_permits(1);
    });
    assert!(first.unwrap().1.ends_with("data: [DONE]\n\n"));
    until("forgotten", || router.loads().iter().all(|load| load.backend != fenced)).await;
    assert_eq!((router.outcomes().completed, router.outcomes().cut), (6, 0));
}
