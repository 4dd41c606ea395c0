//! How much memory a pool's past takes, a copy of it that has learned something since, and a snapshot with its servers and Pods.
//!
//! What is kept is `alloc` and `grow` less `dealloc` and `shrink`; times do not matter here.

#![allow(missing_docs)]

use pomarium_kernel::fixture::{START, Stage};
use pomarium_kernel::forecast::Counts;
use pomarium_kernel::names::ServerName;
use pomarium_kernel::snapshot::{Group, Ownership, Pool, Server, Site, Snapshot};
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::Span;

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

const SCRAPE: Span = Span::from_secs(15);

/// Requests in a quarter of a minute, by its number: day and night, and something like chance.
fn requests(number: u64, scale: u64) -> u64 {
    let day = number % 5_760;
    let wave = day.min(5_760 - day) * scale / 2_880;
    wave + number.wrapping_mul(2_654_435_761) % (2 * scale.isqrt() + 3)
}

fn counts(number: u64, scale: u64) -> Counts {
    let requests = requests(number, scale);
    Counts {
        requests,
        prompt_tokens: requests * (900 + number % 200),
        output_tokens: requests * (200 + number % 50),
    }
}

/// Four weeks, the last two days of them scrape by scrape.
fn past(scale: u64) -> Past {
    let mut past = Past::default();
    let mut at = START - Span::from_hours(28 * 24);
    let mut number = 0;
    while at < START {
        let coarse = at < START - Span::from_hours(49);
        let (step, scrapes) = if coarse { (SCRAPE * 20, 20) } else { (SCRAPE, 1) };
        let Counts {
            requests,
            prompt_tokens,
            output_tokens,
        } = counts(number, scale);
        let counts = Counts {
            requests: requests * scrapes,
            prompt_tokens: prompt_tokens * scrapes,
            output_tokens: output_tokens * scrapes,
        };
        past.arrived(at, at + step, counts, &[]);
        (at, number) = (at + step, number + scrapes);
    }
    past
}

/// With so many requests in a quarter of a minute at the height of the day.
const SCALES: [u64; 3] = [3, 30, 1_000];

#[divan::bench(args = SCALES, sample_count = 1)]
fn a_past(bencher: divan::Bencher, scale: u64) {
    let Ok(text) = serde_json::to_string(&past(scale)) else {
        return;
    };
    bencher.bench_local(|| serde_json::from_str::<Past>(&text));
}

#[divan::bench(args = SCALES, sample_count = 1)]
fn a_copy_that_has_learned(bencher: divan::Bencher, scale: u64) {
    let past = past(scale);
    bencher.bench_local(|| {
        let mut copy = past.clone();
        copy.arrived(START, START + SCRAPE, counts(7, scale), &[]);
        copy
    });
}

/// 1,000 pools and 10,000 servers in 200 groups, two of three of them with a Pod; no past.
#[divan::bench(sample_count = 1)]
fn a_snapshot(bencher: divan::Bencher) {
    bencher.bench_local(snapshot);
}

fn snapshot() -> Snapshot {
    let mut stage = Stage::new(START);
    for site in 0..20 {
        stage = stage.site(&format!("site-{site}"), Site::fixture(Ownership::Owned));
    }
    for group in 0..200 {
        let mut made = Group::owned(&format!("site-{}", group / 10), "", 0);
        for server in 0..50 {
            let name = ServerName::new(format!("group-{group}-{server}"));
            made.servers_mut().insert(name, Server::fixture(START));
        }
        stage = stage.group(&format!("group-{group}"), made);
    }
    for pool in 0..1_000 {
        stage = stage.pool(&format!("pool-{pool}"), Pool::fixture().demanding(1.0, START));
    }
    for pod in 0..6_667 {
        let (group, server) = (pod % 200, pod / 200);
        let server = format!("group-{group}-{server}");
        stage = stage.serving(&format!("pool-{}", pod % 1_000), &format!("group-{group}"), &server);
    }
    stage.snapshot
}
