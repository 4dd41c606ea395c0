//! What emulating Macs costs on this machine: `cargo bench --package pomarium-e2e`.
//!
//! Says something about the machine and not only about the code, so it prints figures and asserts none.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, PostParams};
use pomarium_api::pool::EngineType;
use pomarium_e2e::cluster::ControlPlane;
use pomarium_e2e::fleet::{Fleet, FleetConfig, FleetGroup, Machine, ModelClient, ModelProfile, Supply, TICK};
use pomarium_e2e::host;
use pomarium_e2e::readiness::{node_readiness, pod_is_ready};
use pomarium_e2e::time::VirtualTime;
use pomarium_e2e::wait::until;
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::time::Span;
use serde_json::json;

const SERVERS: u32 = 300;
const REPLICAS: u32 = 20;
const STREAMS: u32 = 8;
const SCALE: f64 = 15.0;
const PATIENCE: Duration = Duration::from_secs(300);
/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(20);
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

fn group() -> FleetGroup {
    let machine = Machine {
        chip: "M4 Pro".to_owned(),
        cpus: 14,
        memory_gib: 48,
    };
    let model = ModelProfile {
        model: "m".to_owned(),
        engine: EngineType::Vllm,
        times: TIMES,
        load_time: Span::ZERO,
    };
    FleetGroup::new("own", "site", machine, Supply::always_on(SERVERS), model)
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    // proc_pid_stat(5): utime and stime are fields 14 and 15, in ticks of 10 ms; the name before may hold anything but `)`.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Cores that this process used on average while `MEASURED` passed.
async fn cores() -> f64 {
    let (cpu, start) = (cpu_time(), Instant::now());
    tokio::time::sleep(MEASURED).await;
    cpu_time().saturating_sub(cpu).as_secs_f64() / start.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let site = ControlPlane::builder("site").audit(false).start().await.unwrap();
    let client = site.client().await.unwrap();
    let start = Instant::now();
    let config = FleetConfig {
        clusters: BTreeMap::from([("site".to_owned(), client.clone())]),
        groups: vec![group()],
        time: VirtualTime::from_now(SCALE),
        tick: TICK,
    };
    let fleet = Fleet::start(config).await.unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    until(PATIENCE, "all Nodes to be ready", async || {
        let nodes = nodes.list(&ListParams::default()).await.unwrap();
        nodes.iter().filter(|node| node_readiness(node) == Some("True")).count() == SERVERS as usize
    })
    .await
    .unwrap();
    println!("{SERVERS} Nodes ready after {:.1?}", start.elapsed());
    let (cores_idle, memory) = (
        cores().await,
        host::resident_bytes(std::process::id()).unwrap_or(0) >> 20,
    );
    println!("{cores_idle:.3} cores and {memory} MiB for {SERVERS} idle servers");

    let pods: Api<Pod> = Api::namespaced(client, "default");
    for number in 0..REPLICAS {
        let pod = json!({
            "metadata": {"name": format!("replica-{number}")},
            "spec": {"nodeName": format!("own-{number}"), "containers": [{
                "name": "engine", "image": "vllm:bench", "ports": [{"name": "http", "containerPort": 8080}],
            }]},
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap();
    }
    until(PATIENCE, "all Pods to be ready", async || {
        let pods = pods.list(&ListParams::default()).await.unwrap();
        pods.iter().filter(|pod| pod_is_ready(pod)).count() == REPLICAS as usize
    })
    .await
    .unwrap();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        let address = pod.status.unwrap().pod_ip.unwrap();
        for _ in 0..STREAMS {
            let answering = ModelClient::default().ask(&address, 1_000_000).await.unwrap();
            tokio::spawn(answering.read());
        }
    }
    let running = || fleet.summary().groups["own"].running;
    until(PATIENCE, "all streams to run", async || {
        running() == u64::from(REPLICAS * STREAMS)
    })
    .await
    .unwrap();
    let (tokens, start) = (fleet.summary().groups["own"].tokens, Instant::now());
    let cores_busy = cores().await;
    let made = fleet.summary().groups["own"].tokens - tokens;
    println!(
        "{:.0} tokens/s on {cores_busy:.2} cores, their readers included; largest lag {} µs real",
        made as f64 / start.elapsed().as_secs_f64(),
        fleet.lag().real_us
    );
    fleet.stop().await;
    site.stop().await;
}
