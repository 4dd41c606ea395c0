//! Measuring against real HTTP servers on this machine: good ones, and bad ones.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use pomarium_api::pool::EngineType;
use pomarium_kernel::names::SiteName;
use pomarium_kernel::snapshot::{Demand, Measured, Metric, Objective};
use pomarium_kernel::units::Fraction;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::target::Address;
use super::*;
use crate::fixture::{empty_client, hub, no_members};

/// Fast enough that two rounds are soon far enough apart for a rate, slow enough that a busy machine does not make a sample old.
const SCALE: f64 = 50.0;

/// An HTTP server that counts its answers and gives the same text each time, with `{n}` replaced by the count.
async fn server(text: &'static str) -> u16 {
    let app = Router::new()
        .route("/metrics", get(answer))
        .with_state((text, Arc::new(AtomicU64::new(0))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

async fn answer(State((text, count)): State<(&'static str, Arc<AtomicU64>)>) -> String {
    let n = count.fetch_add(1, Ordering::SeqCst) * 100;
    text.replace("{n}", &n.to_string())
}

/// A server that reads a request and then writes `bytes` over and over, with a pause before each.
async fn raw_server(head: &'static [u8], repeat: &'static [u8], pause: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = socket.write_all(head).await;
                while !repeat.is_empty() {
                    tokio::time::sleep(pause).await;
                    if socket.write_all(repeat).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn pool() -> PoolId {
    PoolId::new("assistants", "chat")
}

fn pod(uid: &str, port: u16) -> PodTarget {
    PodTarget {
        uid: uid.to_owned(),
        address: Address {
            site: SiteName::from("home"),
            namespace: "assistants".to_owned(),
            name: uid.to_owned(),
            ip: "127.0.0.1".to_owned(),
            port,
        },
        serving: true,
        draining: false,
        group: None,
    }
}

fn targets(source: MetricsSource, engine: EngineType, pods: Vec<PodTarget>) -> Targets {
    let objective = |metric| Objective {
        metric,
        percentile: Fraction::new(0.95),
        threshold: Span::from_secs(1),
        window: Span::from_hours(24),
    };
    let target = PoolTarget {
        source,
        model: "llama".to_owned(),
        engine,
        objectives: vec![
            objective(Metric::TimeToFirstToken),
            objective(Metric::InterTokenLatency),
        ],
        pods,
    };
    Targets {
        pools: [(pool(), target)].into(),
    }
}

fn meter(gateway: Option<u16>) -> Meter {
    meter_at(Clock::compressed(0, SCALE), gateway)
}

fn meter_at(clock: Clock, gateway: Option<u16>) -> Meter {
    let sources = Sources {
        gateway: gateway.map(|port| format!("http://127.0.0.1:{port}/metrics")),
        prometheus: None,
    };
    let members = no_members(hub(&empty_client()));
    Meter::new(sources, members, clock, Trigger::default())
}

async fn rounds(meter: &Meter, targets: &Targets, rounds: usize) -> Arc<Measurement> {
    let memory = Mutex::default();
    for _ in 0..rounds {
        meter.ask_shared(targets, &memory).await;
        meter.ask_all_engines(targets, &memory).await;
        // A rate needs time between its ends: five virtual seconds.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Arc::clone(&meter.answers()[&pool()])
}

/// A kilobyte of comments.
const LINES: &[u8] = &[b'#'; 1024];

const GATEWAY: &str = "garbage }{\nllm_d_epp_request_total{model_name=\"llama\",namespace=\"assistants\",pool=\"chat\"} {n}\n\
    llm_d_epp_request_total{model_name=\"other\"} 9999999\n\
    llm_d_epp_request_ttft_seconds_bucket{model_name=\"llama\",le=\"0.5\"} {n}\n\
    llm_d_epp_request_ttft_seconds_bucket{model_name=\"llama\",le=\"+Inf\"} {n}\n\
    llm_d_epp_request_ttft_seconds_sum{model_name=\"llama\"} NaN\n";

#[tokio::test]
async fn a_gateway_tells_arrivals_and_latencies_of_its_pools() {
    let port = server(GATEWAY).await;
    let targets = targets(MetricsSource::Gateway, EngineType::LlamaCpp, Vec::new());
    let seen = rounds(&meter(Some(port)), &targets, 3).await;
    let Demand::Known(arrivals) = &seen.demand else {
        panic!("known, not {:?}", seen.demand)
    };
    assert!(arrivals.rate_1m.as_per_second() > 0.0);
    let Measured::Known { attained, samples, .. } = &seen.measured[0] else {
        panic!("known, not {:?}", seen.measured[0])
    };
    assert_eq!((attained.get().to_bits(), *samples), (1.0_f64.to_bits(), 200));
    assert!(
        matches!(seen.measured[1], Measured::Unknown { .. }),
        "the gateway could tell ITL and does not: unknown, not ModelOnly"
    );
}

#[tokio::test]
async fn a_sample_is_not_stale_before_three_questions_could_have_timed_out() {
    for (scale, expected) in [(1.0, STALE), (10.0, STALE), (50.0, Span::from_secs(225))] {
        let meter = meter_at(Clock::compressed(0, scale), None);
        assert_eq!(meter.stale(), expected, "{scale} times as fast");
        assert!(
            meter.clock.real_duration(meter.stale()) >= 3 * meter.bounds().time,
            "{scale}"
        );
    }
}

#[tokio::test]
async fn no_gateway_and_a_silent_one_are_unknown_with_a_reason() {
    let targets = targets(MetricsSource::Gateway, EngineType::LlamaCpp, Vec::new());
    for (meter, expected) in [(meter(None), "--gateway-metrics-url"), (meter(Some(1)), "no answer")] {
        let seen = rounds(&meter, &targets, 2).await;
        let Demand::Unknown { problem, .. } = &seen.demand else {
            panic!("unknown, not {:?}", seen.demand)
        };
        assert!(problem.message.contains(expected), "{}", problem.message);
    }
}

const VLLM: &str = "vllm:num_requests_running 2\nvllm:num_requests_waiting 1\n\
    vllm:time_to_first_token_seconds_bucket{le=\"0.5\"} {n}\nvllm:time_to_first_token_seconds_bucket{le=\"+Inf\"} {n}\n";

#[tokio::test]
async fn engines_tell_their_load_and_their_pool_s_demand() {
    let (one, two) = (server(VLLM).await, server(VLLM).await);
    let targets = targets(
        MetricsSource::Engine,
        EngineType::Vllm,
        vec![pod("u1", one), pod("u2", two)],
    );
    let seen = rounds(&meter(None), &targets, 2).await;
    assert!(matches!(seen.demand, Demand::Known(_)), "{:?}", seen.demand);
    for uid in ["u1", "u2"] {
        assert!(
            matches!(
                seen.loads[uid],
                Load::Known {
                    running: 2,
                    queued: 1,
                    ..
                }
            ),
            "{uid}"
        );
    }
}

#[tokio::test]
async fn one_bad_engine_harms_only_itself_and_makes_demand_unknown() {
    let good = server(VLLM).await;
    let huge = raw_server(b"HTTP/1.1 200 OK\r\n\r\n", LINES, Duration::ZERO).await;
    let slow = raw_server(
        b"HTTP/1.1 200 OK\r\n\r\nvllm:num_requests_running 0\nvllm:num_requests_waiting 0\n",
        b"#",
        Duration::from_millis(200),
    )
    .await;
    let reset = raw_server(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nvllm:",
        b"",
        Duration::ZERO,
    )
    .await;
    let nonsense = raw_server(b"\x00\xff\x00\xff\r\n\r\n", b"", Duration::ZERO).await;
    for (name, bad) in [
        ("huge", huge),
        ("slow", slow),
        ("reset", reset),
        ("nonsense", nonsense),
        ("closed", 1),
    ] {
        let targets = targets(
            MetricsSource::Engine,
            EngineType::Vllm,
            vec![pod("good", good), pod("bad", bad)],
        );
        let seen = rounds(&meter(None), &targets, 2).await;
        assert_eq!(seen.loads["bad"], Load::Unknown, "{name}: not idle");
        assert!(matches!(seen.loads["good"], Load::Known { .. }), "{name}");
        assert!(
            matches!(seen.demand, Demand::Unknown { .. }),
            "{name}: a part is not the whole"
        );
    }
}

#[tokio::test]
async fn an_engine_without_latencies_is_said_to_be_one() {
    let port =
        server("llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\nllamacpp:prompt_tokens_total {n}\n")
            .await;
    let targets = targets(MetricsSource::Engine, EngineType::LlamaCpp, vec![pod("u1", port)]);
    let seen = rounds(&meter(None), &targets, 2).await;
    assert_eq!(seen.measured, [Measured::ModelOnly, Measured::ModelOnly]);
}

#[tokio::test]
async fn a_replica_that_becomes_quiet_while_it_drains_wakes_the_loop() {
    let port = server("sglang:num_running_reqs 0\nsglang:num_queue_reqs 0\n").await;
    let mut leaving = pod("u1", port);
    leaving.draining = true;
    let targets = targets(MetricsSource::Engine, EngineType::SGLang, vec![leaving]);
    let meter = meter(None);
    let memory = Mutex::default();
    meter.ask_drains(&targets, &memory).await;
    let woken = tokio::time::timeout(Duration::from_secs(5), meter.trigger.changed()).await;
    assert!(woken.is_ok());
    meter.ask_drains(&targets, &memory).await;
    let again = tokio::time::timeout(Duration::from_millis(50), meter.trigger.changed()).await;
    assert!(again.is_err(), "once");
}

#[tokio::test]
async fn an_answer_that_is_no_metrics_is_unknown_and_not_idle() {
    const PAGE: &str = "<html>\nsign in first, please\n</html>\n";
    let port = server(PAGE).await;
    for (source, meter, pods) in [
        (MetricsSource::Gateway, meter(Some(port)), Vec::new()),
        (MetricsSource::Engine, meter(None), vec![pod("a", port)]),
    ] {
        let seen = rounds(&meter, &targets(source, EngineType::Vllm, pods), 3).await;
        assert!(
            matches!(seen.demand, Demand::Unknown { .. }),
            "{source:?}: {:?}",
            seen.demand
        );
        assert!(seen.loads.values().all(|load| *load == Load::Unknown), "{source:?}");
    }
}
