//! What a pass costs in which nothing is to be done: `cargo bench --package pomarium-controller --features pomarium-controller/fixture`.
//!
//! One pass is the way from caches to "no write", as the loop goes it: join what Nodes, Pods, providers, engines and gateways said into a
//! snapshot, plan, build effects, build statuses, and compare them with what the objects say. The caches are full and the status writer has
//! an API server that counts: a pass that asks it for anything ends the measurement. Not in it: decoding of watch events, scrapes, the
//! history of demand and the strategic plan, which go on beside the loop, and the wait for further changes (60 ms) before a pass begins.
//!
//! All objects are handled by one pass, so that objects/s are those of a pass over its time. Figures say something about the machine as well:
//! none is asserted.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use self::world::{Operator, Size};

/// With how many passes.
const SIZES: [(Size, usize); 3] = [
    (
        Size {
            pools: 1,
            groups: 1,
            servers: 2,
            replicas: 2,
        },
        2_000,
    ),
    (
        Size {
            pools: 50,
            groups: 20,
            servers: 12,
            replicas: 3,
        },
        400,
    ),
    (
        Size {
            pools: 1_000,
            groups: 200,
            servers: 50,
            replicas: 6,
        },
        60,
    ),
];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (size, passes) in SIZES {
        runtime.block_on(measure(&size, passes));
    }
}

async fn measure(size: &Size, passes: usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut operator = Operator::new(&asked);
    let mut world = size.world();
    let settled = operator.settle(&mut world).await;
    assert_eq!(
        world.sites.values().map(|site| site.pods.len()).sum::<usize>(),
        size.pools * size.replicas
    );

    let before = asked.load(Ordering::Relaxed);
    let (mut clock, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..passes {
        let (began, had) = (Instant::now(), processor_time());
        let (effects, _) = operator.pass(&world).await;
        clock.push(began.elapsed());
        processor.push(processor_time().saturating_sub(had));
        assert!(
            effects.is_empty() && asked.load(Ordering::Relaxed) == before,
            "nothing is to be done"
        );
    }
    let objects = world.pools.len() + world.groups.len() + world.sites.len();
    let (processor, clock) = (Percentiles::of(processor), Percentiles::of(clock));
    println!(
        "{} pools, {} groups of {} servers, {} Pods (at rest after {settled} passes): processor {processor}; clock {clock}; {:.0} passes/s, {:.0} objects/s",
        size.pools,
        size.groups,
        size.servers,
        size.pools * size.replicas,
        1.0 / processor.median.as_secs_f64(),
        objects as f64 / processor.median.as_secs_f64(),
    );
}

struct Percentiles {
    median: Duration,
    high: Duration,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        Self {
            median: at(50),
            high: at(99),
        }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        write!(f, "p50 {:.2} ms, p99 {:.2} ms", ms(self.median), ms(self.high))
    }
}

/// What this thread has had of the processor: the machine may be busy with other work.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}
