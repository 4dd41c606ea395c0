//! How long a tactical pass takes, by pools × groups, over a world in which everything serves: with nothing changed, and with a hundredth of the
//! pools asked for more.
//!
//! The ratio is against the least that any rule has to do: first-fit, which goes through all pools and servers once.

#![allow(missing_docs)]

use std::fmt;

use pomarium_kernel::fixture::{START, Stage, pool_id};
use pomarium_kernel::names::{ReplicaId, ServerName};
use pomarium_kernel::planning::plan;
use pomarium_kernel::snapshot::{Demand, Group, Ownership, Pool, Site, Snapshot};

fn main() {
    divan::main();
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
    /// Two of three servers serve; the pools' demand is what theirs carry. Every pool may use every group.
    fn world(self, changed: bool) -> Snapshot {
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
            let more = if changed && pool.is_multiple_of(100) { 1.5 } else { 1.0 };
            let name = format!("p{pool}");
            stage = stage.pool(
                &name,
                Pool::fixture().demanding(0.3 * f64::from(replicas) * more, START),
            );
        }
        let mut template = Stage::new(START)
            .site("s0", Site::fixture(Ownership::Owned))
            .group("g0", Group::owned("s0", "g0", 1))
            .pool("p0", Pool::fixture())
            .serving("p0", "g0", "g0-0")
            .snapshot;
        let Some((_, replica)) = template
            .pools
            .get_mut(&pool_id("p0"))
            .and_then(|pool| pool.running.pop_first())
        else {
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
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn nothing_changed(bencher: divan::Bencher, size: Size) {
    let world = size.world(false);
    bencher.bench_local(|| plan(&world, START));
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn a_hundredth_changed(bencher: divan::Bencher, size: Size) {
    let world = size.world(true);
    bencher.bench_local(|| plan(&world, START));
}

/// Every pool takes the first servers that carry its demand, group by group.
#[divan::bench(args = SIZES, sample_count = 20)]
fn first_fit(bencher: divan::Bencher, size: Size) {
    let world = size.world(true);
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
