//! How much one core can emulate. Not part of the suite, because it says something about a machine and not about the code:
//!
//! `cargo test --release -p pomarium-e2e --lib throughput -- --ignored --nocapture`

#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use pomarium_api::pool::EngineType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{Addresses, TICK};
use super::*;

const ENGINES: usize = 20;
const STREAMS: u32 = 8;
const SCALE: f64 = 15.0;
const SPAN: Duration = Duration::from_secs(10);
const MS: u64 = 1_000_000;
/// 8 tokens every 96 ms on each of 20 engines, 15 times as fast: 25,000 a second.
const TIMES: StepTimes = StepTimes {
    alpha_ns: 16 * MS,
    beta_ns: 10 * MS,
    delta_ns: 0,
    kv_tokens: 10_000_000,
    max_batch: STREAMS,
    prefill_chunk: 512,
};

/// CPU time of the calling thread, by the scheduler's own clock: the coarser one beats with the ticks of the engines.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

async fn read_stream(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = r#"{"max_tokens":1000000,"stream":true,"prompt":"x"}"#;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 64 << 10];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

#[test]
#[ignore = "measures the machine"]
fn one_core_sustains_25000_tokens_a_second() {
    let (send_addresses, addresses) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let block = Addresses::claim().await.unwrap();
            let (clock, lag, totals) = (
                EngineClock::new(SCALE, TICK),
                Arc::<Lag>::default(),
                Arc::<Totals>::default(),
            );
            let ailments = watch::Sender::<Ailments>::default();
            let mut processes = Vec::new();
            for _ in 0..ENGINES {
                let address = SocketAddr::from((block.next(), 8080));
                let kind = Kind {
                    engine: EngineType::Vllm,
                    model: "llama-3.1-8b-instruct".into(),
                    kv_tokens: TIMES.kv_tokens,
                };
                let spec = Spec {
                    kind,
                    times: TIMES,
                    address,
                };
                let process = Process::start(spec, clock, Arc::clone(&lag), Arc::clone(&totals), ailments.subscribe())
                    .await
                    .unwrap();
                process.loaded();
                processes.push(process);
                send_addresses.send(address).unwrap();
            }
            drop(send_addresses);
            let tokens = || {
                processes
                    .iter()
                    .map(|process| process.state().figures().tokens())
                    .sum::<u64>()
            };
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (tokens_before, cpu, start) = (tokens(), thread_cpu(), Instant::now());
            tokio::time::sleep(SPAN).await;
            let (made, cpu, took) = (
                tokens() - tokens_before,
                thread_cpu().saturating_sub(cpu),
                start.elapsed(),
            );
            let rate = made as f64 / took.as_secs_f64();
            let cores = cpu.as_secs_f64() / took.as_secs_f64();
            let lag = Duration::from_nanos(lag.largest()).div_f64(SCALE);
            println!("{rate:.0} tokens/s on {cores:.2} cores, largest lag {lag:?} real");
            (rate, cores)
        })
    });
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let all: Vec<SocketAddr> = addresses.iter().collect();
        runtime.block_on(async {
            let streams = all
                .iter()
                .flat_map(|address| (0..STREAMS).map(|_| read_stream(*address)));
            futures::future::join_all(streams).await;
        });
    });
    let (rate, cores) = server.join().unwrap();
    client.join().unwrap();
    assert!(rate > 24_000.0, "{rate}");
    assert!(cores < 1.0, "{cores}");
}
