//! What memory the operator takes with 1,000 pools and 10,000 servers: `cargo bench --package pomarium-controller --features
//! pomarium-controller/fixture --bench memory`.
//!
//! The process fills up as the operator does: what watches keep, four weeks of each pool's past, and passes with what they keep. After each
//! step the system is asked what is resident. Not in it: connections to API servers with the TLS of each, pages of a list while it is read, and
//! what scrapes count per engine. The strategic plan is the controller's own, from nothing and once more: how long each takes is printed too.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use pomarium_controller::fixture::NOW;
use pomarium_controller::observe::observe;
use pomarium_controller::strategist;
use pomarium_controller::world::World;
use pomarium_kernel::forecast::Counts;
use pomarium_kernel::snapshot::Demand;
use pomarium_kernel::strategy::ahead;
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Rate;

use self::world::{Operator, Size, staffed};

const SIZE: Size = Size {
    pools: 1_000,
    groups: 200,
    servers: 50,
    replicas: 6,
};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(fill());
}

async fn fill() {
    say("an empty process");
    let mut operator = Operator::new(&Arc::new(AtomicUsize::new(0)));
    let mut world = staffed(&SIZE, &mut operator).await;
    say("what watches keep of sites, groups, pools, Nodes and Pods");
    pasts(&mut world);
    say("and the pasts of pools");
    demand(&mut world);
    operator.settle(&mut world).await;
    for _ in 0..5 {
        operator.pass(&world).await;
    }
    say("and statuses, and what passes take");
    look_ahead(&world);
    say("and a strategic plan");
}

/// Plans ahead as the controller does beside its loop.
fn look_ahead(world: &World) {
    let snapshot = observe(world, NOW).snapshot;
    let mut memo = strategist::memo();
    for what in ["from nothing", "once more"] {
        let started = Instant::now();
        let ahead = ahead::look_ahead(&snapshot, NOW, &mut memo, strategist::EFFORT);
        let (seconds, pools) = (started.elapsed().as_secs_f64(), ahead.pools.len());
        println!("{seconds:6.1} s: a plan for {pools} pools {what}");
    }
}

/// Prints what is resident now, and the most that ever was, in MiB.
fn say(what: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kibibytes.map_or(f64::NAN, |kibibytes| kibibytes / 1_024.0)
    };
    println!(
        "{:6.1} MiB, at most {:6.1}: {what}",
        mebibytes("VmRSS"),
        mebibytes("VmHWM")
    );
}

/// Every pool is asked for what half of its replicas do.
fn demand(world: &mut World) {
    for measurement in world.measurements.values_mut() {
        if let Demand::Known(arrivals) = &mut Arc::make_mut(measurement).demand {
            arrivals.rate_1m = Rate::per_second(1.0);
            arrivals.rate_5m = Rate::per_second(1.0);
        }
    }
}

/// Four weeks for every pool, the last two days of them scrape by scrape: each read from what is stored, as after a restart.
fn pasts(world: &mut World) {
    let stored = [3, 30].map(|scale| serde_json::to_string(&past(scale)).unwrap());
    for (id, stored) in world.pools.keys().zip(stored.iter().cycle()) {
        let past: Past = serde_json::from_str(stored).unwrap();
        world.pasts.insert(id.clone(), Arc::new(past));
    }
}

/// With so many requests in 15 s at the height of the day.
fn past(scale: u64) -> Past {
    let mut past = Past::default();
    let (step, most) = (Span::from_secs(15), 28 * 5_760);
    for number in 0..most {
        let day = number % 5_760;
        let wave = day.min(5_760 - day) * scale / 2_880;
        let requests = wave + number.wrapping_mul(2_654_435_761) % (2 * scale.isqrt() + 3);
        let counts = Counts {
            requests,
            prompt_tokens: requests * 1_000,
            output_tokens: requests * 200,
        };
        let from = NOW - step * (most - number);
        past.arrived(from, from + step, counts, &[]);
    }
    past
}
