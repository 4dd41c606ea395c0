//! How long a tactical pass takes, by pools × groups, over a world in which everything serves: the first one, and later ones 15 s apart with nothing
//! changed, with a hundredth of the pools asked for more, and with rates and lengths of all pools moved besides.
//!
//! Percentiles over many passes come first, of the processor's time and by the clock: the machine may be busy with other work. The ratio is against
//! the least that any rule has to do: first-fit, which goes through all pools and servers once.

#![allow(missing_docs)]
// It is not the kernel that looks at a clock and prints here.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::fmt;
use std::time::{Duration, Instant};

use pomarium_kernel::fixture::{START, Stage, demand, pool_id};
use pomarium_kernel::names::{ReplicaId, ServerName};
use pomarium_kernel::planning::{Memo, plan, plan_again};
use pomarium_kernel::snapshot::{Demand, Group, Ownership, Pool, Site, Snapshot};
use pomarium_kernel::time::{Span, Timestamp};
use rustix::time::{ClockId, clock_gettime};

fn main() {
    if std::env::args().any(|argument| argument == "--bench") {
        for size in SIZES {
            for change in [Change::Hundredth, Change::Everything] {
                println!("{size}, {}: {}", change.what(), percentiles(size, change));
            }
        }
    }
    divan::main();
}

/// Every pool is among the hundredth that changes three times.
const MEASURED: u32 = 300;

/// What passes take, each of them over a world that differs from the one before.
fn percentiles(size: Size, change: Change) -> String {
    let (mut world, mut memo) = (size.world(), Memo::default());
    let mut times = Vec::new();
    for pass in 0..=MEASURED {
        let now = START + Span::from_secs(15) * u64::from(pass);
        size.move_on(&mut world, change, pass, now);
        let (clock, processor) = (Instant::now(), processor_time());
        let plan = divan::black_box(plan_again(&world, now, &mut memo));
        let took = (processor_time().saturating_sub(processor), clock.elapsed());
        drop(plan);
        // The first one is from nothing.
        if pass > 0 {
            times.push(took);
        }
    }
    let ranked = |of: fn(&(Duration, Duration)) -> Duration| {
        let mut ranked: Vec<_> = times.iter().map(of).collect();
        ranked.sort_unstable();
        let at = |percent: usize| ranked.get((ranked.len() * percent).div_ceil(100) - 1).copied();
        let at = |percent| at(percent).unwrap_or_default().as_secs_f64() * 1_000.0;
        format!("p50 {:.1} ms, p99 {:.1} ms", at(50), at(99))
    };
    let (processor, clock) = (ranked(|took| took.0), ranked(|took| took.1));
    format!("processor {processor}; clock {clock}, of {MEASURED} passes")
}

/// What this thread has had of the processor.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[derive(Clone, Copy)]
struct Size {
    pools: u32,
    groups: u32,
    servers: u32,
}

const fn size(pools: u32, groups: u32, servers: u32) -> Size {
    Size { pools, groups, servers }
}

const SIZES: [Size; 4] = [
    size(10, 5, 50),
    size(50, 20, 250),
    size(200, 50, 1_000),
    size(1_000, 200, 10_000),
];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} with {} servers", self.pools, self.groups, self.servers)
    }
}

impl Size {
    /// Two of three servers serve; the pools' demand is what theirs carry. Every pool may use every group, and has lengths of its own.
    fn world(self) -> Snapshot {
        let mut stage = Stage::new(START);
        for site in 0..self.groups.div_ceil(10) {
            stage = stage.site(&format!("s{site}"), Site::fixture(Ownership::Owned));
        }
        let each = self.servers / self.groups;
        for group in 0..self.groups {
            let (site, name) = (format!("s{}", group / 10), format!("g{group}"));
            stage = stage.group(&name, Group::owned(&site, &name, each));
        }
        let replicas = 2 * self.servers / 3 / self.pools;
        for pool in 0..self.pools {
            stage = stage.pool(&format!("p{pool}"), Pool::fixture());
        }
        let template = Stage::new(START)
            .site("s0", Site::fixture(Ownership::Owned))
            .group("g0", Group::owned("s0", "g0", 1))
            .pool("p0", Pool::fixture())
            .serving("p0", "g0", "g0-0");
        let Some(replica) = template.seen("p0").running.values().next() else {
            return stage.snapshot;
        };
        for pool in 0..self.pools {
            let seen = stage.seen_mut(&format!("p{pool}"));
            seen.memory.target = Some(replicas);
            for ordinal in 0..replicas {
                let server = pool * replicas + ordinal;
                let (group, ordinal) = (server % self.groups, server / self.groups);
                let site = format!("s{}", group / 10);
                let name = ServerName::new(format!("g{group}-{ordinal}"));
                let mut replica = replica.clone();
                replica.site = site.as_str().into();
                replica.group = format!("g{group}").as_str().into();
                replica.server = name.clone();
                replica.uid = format!("{pool}-{name}");
                seen.running
                    .insert(ReplicaId::new(site.as_str(), format!("p{pool}-{name}")), replica);
            }
        }
        stage.snapshot
    }

    /// The same as measured at several times, with the time: of every hundred pools one is asked for half as much again each time.
    fn passes(self, change: Change) -> Vec<(Snapshot, Timestamp)> {
        let world = self.world();
        let passes = (0_u32..PASSES).map(|pass| {
            let (mut world, now) = (world.clone(), START + Span::from_secs(15) * u64::from(pass));
            self.move_on(&mut world, change, pass, now);
            (world, now)
        });
        passes.collect()
    }

    /// Makes `world` what is measured `now`, at the time of `pass`.
    fn move_on(self, world: &mut Snapshot, change: Change, pass: u32, now: Timestamp) {
        let replicas = 2 * self.servers / 3 / self.pools;
        for (index, pool) in (0..self.pools).map(|index| (index, pool_id(&format!("p{index}")))) {
            let Some(pool) = world.pools.get_mut(&pool) else {
                continue;
            };
            let more = match change {
                // Each time more than the last.
                Change::Hundredth | Change::Everything if index % 100 == pass % 100 => {
                    1.5 + 0.01 * f64::from(pass / 100)
                }
                Change::Nothing | Change::Hundredth => 1.0,
                // A few percent up and down.
                Change::Everything => 1.0 + 0.02 * f64::from((index + pass) % 5),
            };
            let longer = if change == Change::Everything {
                index + 7 * pass
            } else {
                index
            };
            let mut demand = demand(0.27 * f64::from(replicas) * more, now);
            if let Demand::Known(arrivals) = &mut demand
                && let Some(mix) = &mut arrivals.lengths
            {
                for (prompt, output) in &mut mix.classes {
                    *prompt += longer % 97;
                    *output += longer % 89;
                }
            }
            pool.demand = demand;
        }
    }
}

/// What is different from one pass to the next, beside the time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    Hundredth,
    /// Rates and lengths of all pools move a little, and those of a hundredth by half.
    Everything,
}

impl Change {
    fn what(self) -> &'static str {
        match self {
            Self::Nothing => "nothing changed",
            Self::Hundredth => "a hundredth changed",
            Self::Everything => "everything moved",
        }
    }
}

const PASSES: u32 = 4;

fn again(bencher: divan::Bencher, size: Size, change: Change) {
    let passes = size.passes(change);
    let mut memo = Memo::default();
    let mut passes = passes.iter().cycle();
    for (world, now) in passes.by_ref().take(1) {
        plan_again(world, *now, &mut memo);
    }
    bencher.bench_local(|| passes.next().map(|(world, now)| plan_again(world, *now, &mut memo)));
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn from_nothing(bencher: divan::Bencher, size: Size) {
    let passes = size.passes(Change::Nothing);
    bencher.bench_local(|| passes.first().map(|(world, now)| plan(world, *now)));
}

#[divan::bench(args = SIZES, sample_count = 100)]
fn nothing_changed(bencher: divan::Bencher, size: Size) {
    again(bencher, size, Change::Nothing);
}

#[divan::bench(args = SIZES, sample_count = 100)]
fn a_hundredth_changed(bencher: divan::Bencher, size: Size) {
    again(bencher, size, Change::Hundredth);
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn everything_moved(bencher: divan::Bencher, size: Size) {
    again(bencher, size, Change::Everything);
}

/// Every pool takes the first servers that carry its demand, group by group.
#[divan::bench(args = SIZES, sample_count = 20)]
fn first_fit(bencher: divan::Bencher, size: Size) {
    let world = size.passes(Change::Nothing).remove(0).0;
    bencher.bench_local(|| {
        let mut left: Vec<usize> = world
            .groups
            .values()
            .map(|group| group.inventory.servers().len())
            .collect();
        let mut placed = 0_usize;
        for pool in world.pools.values() {
            let Demand::Known(arrivals) = &pool.demand else {
                continue;
            };
            let mut lacking = arrivals.recent().as_per_second();
            for left in &mut left {
                while lacking > 0.0 && *left > 0 {
                    lacking -= 0.4;
                    *left -= 1;
                    placed += 1;
                }
            }
        }
        placed
    });
}
