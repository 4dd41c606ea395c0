//! What the fleet has done so far.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pomarium_kernel::time::Span;
use pomarium_kernel::units::Money;
use serde::Serialize;

use super::Shared;
use super::group::Group;
use super::machines::{Lease, ServerState};

/// What the fleet has done so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// By name.
    pub groups: BTreeMap<String, GroupSummary>,
    /// The most that tokens were late.
    pub lag: Lag,
}

impl Summary {
    /// Answers that were broken off because a process was ended, in all groups.
    pub fn cut(&self) -> u64 {
        self.groups.values().map(|group| group.cut).sum()
    }
}

/// What one group has done so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupSummary {
    /// Servers that exist, by state.
    pub servers: BTreeMap<ServerState, u32>,
    /// Most servers that were up at the same time.
    pub servers_peak: u32,
    /// Processes that load their model.
    pub loading: u32,
    /// Processes that take requests.
    pub serving: u32,
    /// Requests in batches.
    pub running: u64,
    /// Requests that wait for a batch.
    pub queued: u64,
    /// Answered to the end.
    pub completed: u64,
    /// Broken off because the process was ended.
    pub cut: u64,
    /// Broken off because the machine died.
    pub lost: u64,
    /// Broken off by the client.
    pub cancelled: u64,
    /// Tokens yielded.
    pub tokens: u64,
    /// Every paid term, oldest first.
    pub leases: Vec<Lease>,
    /// What they come to.
    pub cost: Money,
}

/// The most that tokens were late against the step model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// In virtual time, in ms.
    pub virtual_ms: Span,
    /// In real time, in µs.
    pub real_us: u64,
}

impl Lag {
    pub(crate) fn of(shared: &Shared) -> Self {
        let virtual_ns = shared.lag.largest();
        let real = Duration::from_nanos(virtual_ns).div_f64(shared.time.scale());
        Self {
            virtual_ms: Span::from_millis(virtual_ns / 1_000_000),
            real_us: u64::try_from(real.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

pub(crate) fn of(shared: &Shared) -> Summary {
    Summary {
        groups: shared
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), of_group(group, shared)))
            .collect(),
        lag: Lag::of(shared),
    }
}

fn of_group(group: &Group, shared: &Shared) -> GroupSummary {
    let machines = group.machines();
    let leases = machines.leases(shared.time.now());
    let totals = &group.totals;
    let mut summary = GroupSummary {
        servers_peak: machines.peak(),
        completed: totals.completed.load(Ordering::Relaxed),
        cut: totals.cut.load(Ordering::Relaxed),
        lost: totals.lost.load(Ordering::Relaxed),
        cancelled: totals.cancelled.load(Ordering::Relaxed),
        tokens: totals.tokens.load(Ordering::Relaxed),
        cost: leases.iter().map(|lease| lease.cost).sum(),
        leases,
        ..GroupSummary::default()
    };
    for server in machines.servers() {
        *summary.servers.entry(server.state).or_default() += 1;
    }
    drop(machines);
    let up = group.cluster.up();
    for server in up
        .values()
        .filter(|server| server.group.config.name == group.config.name)
    {
        for process in server.processes().values() {
            let state = process.state();
            *(if state.is_loaded() {
                &mut summary.serving
            } else {
                &mut summary.loading
            }) += 1;
            let figures = state.figures();
            summary.running += figures.running;
            summary.queued += state.queued(&figures);
            summary.tokens += figures.tokens();
        }
    }
    summary
}
