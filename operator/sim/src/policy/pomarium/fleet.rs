//! The simulated world as the planner sees it: a snapshot that follows the machines, and commands for what a plan asks for.
//!
//! Nothing is decided here. Sites, groups and the pool are those of the manifests, as far as the simulator plays them; what is Ready,
//! loads, serves and drains is what the machines say; demand and objectives are what was scraped.

use std::collections::BTreeMap;
use std::sync::Arc;

use pomarium_kernel::lifecycle::server::arrival_deadline;
use pomarium_kernel::lifecycle::{Drain, NodeHealth, ReplicaState, ServerState};
use pomarium_kernel::names::{GroupName, PoolId, ReplicaId, ServerName};
use pomarium_kernel::plan::{Action, Decision, Plan, Verdict};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{
    Arrivals, Demand, EnginesMeasured, Group, GroupMemory, Inventory, Lease, LengthMix, Load, Measured, Mode,
    Objective, Pool, PoolMemory, ProviderTraits, Replica, Server, SizeRange, Snapshot,
};
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::{Fraction, Rate};

use super::at;
use crate::machines::{Machine, Phase};
use crate::world::{Command, Scenario, View};

/// Classes of request lengths: as many as the controller measures.
const CLASSES: usize = 64;
/// Lengths are counted so often.
const LENGTHS_MS: i64 = 1_800_000;
/// Fewer requests say too little about lengths.
const LEAST_LENGTHS: usize = 200;

/// What is known of one machine.
#[derive(Clone, Debug)]
struct Seen {
    group: usize,
    server: ServerName,
    replica: ReplicaId,
    phase: Phase,
    /// Marked as draining by a plan.
    marked: bool,
}

/// The world as the planner sees it.
pub(super) struct Fleet {
    pub(super) snapshot: Snapshot,
    pub(super) pool: PoolId,
    groups: Vec<GroupName>,
    /// Per group: requests that an engine works on at once.
    batches: Vec<u32>,
    /// Machines that are paid for, by their index.
    seen: BTreeMap<usize, Seen>,
    lengths_ms: Option<i64>,
    looked_ms: i64,
}

impl Fleet {
    pub(super) fn new(scenario: &Scenario, declared: &Snapshot, id: &PoolId, without_leases: bool) -> Self {
        let mut snapshot = Snapshot {
            sites: declared.sites.clone(),
            ..Snapshot::default()
        };
        for model in &scenario.groups {
            let name = GroupName::from(model.name.as_str());
            if let Some(group) = declared.groups.get(&name) {
                let mut group = Group {
                    size: SizeRange {
                        max: model.max,
                        ..group.size
                    },
                    deliveries: Vec::new(),
                    // Here every machine can be woken and given back by name, whatever wakes it in life.
                    provider: ProviderTraits {
                        grows: !model.always_on,
                        releases_chosen: true,
                        always_on: model.always_on,
                    },
                    mode: Mode::Auto,
                    inventory: Inventory::Known(BTreeMap::new()),
                    out_of_stock_since: None,
                    memory: GroupMemory::default(),
                    problem: None,
                    overlap: None,
                    paused: false,
                    deleting: false,
                    ..group.clone()
                };
                group.disruption.window_open = true;
                if without_leases {
                    group.pricing.minimum_lease = Span::ZERO;
                }
                snapshot.groups.insert(name, group);
            }
        }
        if let Some(pool) = declared.pools.get(id) {
            let unseen = || Problem::new(Reason::Starting, "nothing has been measured yet");
            let pool = Pool {
                mode: Mode::Auto,
                demand: Demand::Unknown {
                    since: at(scenario.start_ms),
                    problem: unseen(),
                    at_least: None,
                },
                measured: pool
                    .objectives
                    .iter()
                    .map(|_| Measured::Unknown { problem: unseen() })
                    .collect(),
                engines: BTreeMap::new(),
                running: BTreeMap::new(),
                memory: PoolMemory::default(),
                past: Arc::new(Past::default()),
                paused: false,
                deleting: false,
                ..pool.clone()
            };
            snapshot.pools.insert(id.clone(), pool);
        }
        Self {
            snapshot,
            pool: id.clone(),
            groups: scenario.groups.iter().map(|model| model.name.as_str().into()).collect(),
            batches: scenario.groups.iter().map(|model| model.times.max_batch).collect(),
            seen: BTreeMap::new(),
            lengths_ms: None,
            looked_ms: scenario.start_ms,
        }
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        self.snapshot.pools.get(&self.pool)
    }

    pub(super) fn past_mut(&mut self) -> Option<&mut Arc<Past>> {
        self.snapshot.pools.get_mut(&self.pool).map(|pool| &mut pool.past)
    }

    /// Replicas that serve, by group.
    pub(super) fn serving(&self) -> BTreeMap<GroupName, u32> {
        let mut serving = BTreeMap::new();
        for seen in self.seen.values().filter(|seen| seen.phase == Phase::Serving) {
            *serving.entry(self.groups[seen.group].clone()).or_default() += 1;
        }
        serving
    }

    // ------------------------------------------------------------------------------------------------- what is seen

    /// Takes in what has changed.
    pub(super) fn look(&mut self, view: &View<'_>) {
        for (group, name) in self.groups.iter().enumerate() {
            if let Some(found) = self.snapshot.groups.get_mut(name) {
                found.out_of_stock_since = view.out_of_stock_ms(group).map(at);
            }
        }
        self.forget_released(view);
        for (index, machine) in view.live() {
            self.look_at(index, machine, view.now_ms);
        }
        self.measure(view);
        self.looked_ms = view.now_ms;
    }

    /// What was given back is cleaned, and then it is a place for another one.
    fn forget_released(&mut self, view: &View<'_>) {
        let released = |index: usize| {
            view.machines
                .get(index)
                .is_none_or(|machine| machine.phase == Phase::Released)
        };
        let gone: Vec<usize> = self.seen.keys().copied().filter(|index| released(*index)).collect();
        for index in gone {
            let Some(seen) = self.seen.remove(&index) else { continue };
            let since = at(self.looked_ms);
            let Some(group) = self.snapshot.groups.get_mut(&self.groups[seen.group]) else {
                continue;
            };
            if let Inventory::Known(servers) = &mut group.inventory
                && let Some(server) = servers.get_mut(&seen.server)
            {
                (server.state, server.since) = (ServerState::Recycling, since);
                (server.node, server.lease) = (NodeHealth::Absent, None);
            }
        }
        for group in self.snapshot.groups.values_mut() {
            let recycle = group.lead_time.recycle;
            if let Inventory::Known(servers) = &mut group.inventory {
                let recycled = |server: &Server| at(view.now_ms) >= server.since + recycle;
                servers.retain(|_, server| server.state != ServerState::Recycling || !recycled(server));
            }
        }
    }

    fn look_at(&mut self, index: usize, machine: &Machine, now_ms: i64) {
        let now = at(now_ms);
        let name = &self.groups[machine.group];
        let Some(group) = self.snapshot.groups.get_mut(name) else {
            return;
        };
        let Some(pool) = self.snapshot.pools.get_mut(&self.pool) else {
            return;
        };
        let (lead, minimum) = (group.lead_time.provision, group.pricing.minimum_lease);
        let (site, priced) = (group.site.clone(), group.pricing.hourly.as_micros() > 0);
        let Inventory::Known(servers) = &mut group.inventory else {
            return;
        };
        let trust = self.snapshot.sites.get(&site).map(|site| site.trust);
        let before = self.seen.get(&index).map(|seen| seen.phase);
        let seen = self.seen.entry(index).or_insert_with(|| {
            let server = ServerName::new(machine.name.clone());
            Seen {
                group: machine.group,
                replica: ReplicaId::new(site.clone(), format!("{}-{server}", self.pool.name)),
                server,
                phase: machine.phase,
                marked: false,
            }
        });
        seen.phase = machine.phase;
        let changed =
            before.is_none_or(|before| std::mem::discriminant(&before) != std::mem::discriminant(&machine.phase));
        let requested = at(machine.leased_ms);
        let server = servers.entry(seen.server.clone()).or_insert_with(|| Server {
            state: ServerState::Provisioning,
            since: requested,
            node: NodeHealth::Absent,
            lease: None,
            cordoned: false,
            held: false,
            proven: trust.unwrap_or(pomarium_kernel::snapshot::Trust::None),
        });
        if before.is_none() {
            server.lease = priced.then(|| Lease {
                start: requested,
                minimum_until: requested + minimum,
            });
            server.since = requested;
        }
        let deadline = arrival_deadline(requested, lead);
        (server.state, server.node) = match machine.phase {
            Phase::Booting { .. } if now >= deadline => (ServerState::Failed, NodeHealth::Absent),
            Phase::Booting { .. } => (ServerState::Provisioning, NodeHealth::Absent),
            Phase::Failed => (ServerState::Suspect, NodeHealth::Down { since: server.since }),
            _ if seen.marked => (ServerState::Draining, NodeHealth::Ready),
            _ => (ServerState::Ready, NodeHealth::Ready),
        };
        if server.state == ServerState::Failed {
            server.since = deadline;
        } else if changed && matches!(machine.phase, Phase::Failed) {
            server.since = now;
            server.node = NodeHealth::Down { since: now };
        } else if changed && matches!(before, Some(Phase::Booting { .. } | Phase::Failed)) {
            server.since = now;
        }
        let state = match machine.phase {
            Phase::Loading { .. } => ReplicaState::Loading,
            Phase::Serving | Phase::Draining => ReplicaState::Ready,
            Phase::Booting { .. } | Phase::Idle | Phase::Failed | Phase::Released => {
                if changed {
                    pool.running.remove(&seen.replica);
                }
                return;
            }
        };
        let replica = pool.running.entry(seen.replica.clone()).or_insert_with(|| Replica {
            uid: String::new(),
            site,
            group: name.clone(),
            server: seen.server.clone(),
            revision: pool.revision.clone(),
            state,
            since: now,
            serving: false,
            drain: None,
            load: Load::Unknown,
            silent_since: None,
            created: now,
        });
        if replica.state != state {
            (replica.state, replica.since) = (state, now);
        }
        // Routers hear of it at once.
        replica.serving = machine.phase == Phase::Serving;
        replica.load = Load::Known {
            running: machine.in_flight().min(self.batches[machine.group]),
            queued: machine.in_flight().saturating_sub(self.batches[machine.group]),
            at: now,
        };
    }

    /// What the gateway's metrics and those of the engines say.
    fn measure(&mut self, view: &View<'_>) {
        let engines = self.engines(view);
        let Some(pool) = self.snapshot.pools.get_mut(&self.pool) else {
            return;
        };
        let (Some(minute), Some(five)) = (view.scrapes.window(60.0), view.scrapes.window(300.0)) else {
            return;
        };
        pool.engines = engines;
        let before = match &mut pool.demand {
            Demand::Known(arrivals) => arrivals.lengths.take(),
            Demand::Unknown { .. } => None,
        };
        let lengths = view.scrapes.lengths();
        let stale = self.lengths_ms.is_none_or(|at_ms| view.now_ms >= at_ms + LENGTHS_MS);
        let counted = (stale && lengths.len() >= LEAST_LENGTHS).then(|| LengthMix::from_samples(lengths, CLASSES));
        if let Some(Some(_)) = &counted {
            self.lengths_ms = Some(view.now_ms);
        }
        pool.demand = Demand::Known(Arrivals {
            rate_1m: Rate::per_second(minute.rate),
            rate_5m: Rate::per_second(five.rate),
            lengths: counted.flatten().or(before),
            at: at(five.at_ms),
        });
        let objectives = pool.objectives.iter().zip(five.attained);
        for (measured, (objective, attained)) in pool.measured.iter_mut().zip(objectives) {
            let value = view
                .scrapes
                .percentile(objective.metric, objective.percentile.get(), five.seconds);
            *measured = match value {
                Some(value_ms) => Measured::Known {
                    value_ms,
                    attained: Fraction::new(attained),
                    samples: five.answered,
                    at: at(five.at_ms),
                },
                None => Measured::Unknown {
                    problem: Problem::new(Reason::MetricsUnavailable, "no request was answered"),
                },
            };
        }
    }

    fn engines(&self, view: &View<'_>) -> BTreeMap<GroupName, EnginesMeasured> {
        let (Some(pool), Some(five)) = (self.pool(), view.scrapes.window(300.0)) else {
            return BTreeMap::new();
        };
        let of = |(group, name): (usize, &GroupName)| {
            let serves = |seen: &&Seen| seen.group == group && seen.phase == Phase::Serving;
            let engines = self.seen.values().filter(serves).count();
            let samples = view.scrapes.answered_by(group, five.seconds).filter(|_| engines > 0)?;
            let value = |objective: &Objective| {
                let (metric, percentile) = (objective.metric, objective.percentile.get());
                view.scrapes.percentile_of(group, metric, percentile, five.seconds)
            };
            let measured = EnginesMeasured {
                engines: u32::try_from(engines).unwrap_or(u32::MAX),
                rate: Rate::per_second(samples as f64 / five.seconds),
                values_ms: pool.objectives.iter().map(value).collect(),
                samples,
                at: at(five.at_ms),
            };
            Some((name.clone(), measured))
        };
        self.groups.iter().enumerate().filter_map(of).collect()
    }

    // ------------------------------------------------------------------------------------------------- what is done

    /// What `plan` asks for, as commands, and what it wants remembered.
    pub(super) fn carry_out(&mut self, plan: Plan, now: Timestamp) -> Vec<Command> {
        let mut commands = Vec::new();
        for decision in plan
            .decisions
            .iter()
            .filter(|decision| decision.verdict == Verdict::Act)
        {
            commands.extend(self.command(decision, now));
        }
        for (id, outlook) in plan.pools {
            if let Some(pool) = self.snapshot.pools.get_mut(&id) {
                pool.memory = outlook.memory;
            }
        }
        for (name, outlook) in plan.groups {
            if let Some(group) = self.snapshot.groups.get_mut(&name) {
                group.memory = outlook.memory;
            }
        }
        commands
    }

    fn command(&mut self, decision: &Decision, now: Timestamp) -> Option<Command> {
        match &decision.action {
            Action::RequestServer { group, .. } => {
                let group = self.groups.iter().position(|name| name == group)?;
                Some(Command::Lease { group })
            }
            Action::DrainServer { server, .. } => {
                self.machine(server)?.1.marked = true;
                None
            }
            Action::UndrainServer { server, .. } => {
                self.machine(server)?.1.marked = false;
                None
            }
            Action::ReleaseServer { server, .. } => {
                let (machine, seen) = self.machine(server)?;
                // What has not come yet cannot be given back.
                matches!(seen.phase, Phase::Idle | Phase::Failed).then_some(Command::Release { machine })
            }
            Action::StartReplica { server, .. } => {
                let (machine, seen) = self.machine(server)?;
                (seen.phase == Phase::Idle).then_some(Command::Serve { machine })
            }
            Action::OpenReplica { replica, .. } => {
                let server = self.replica(replica)?.server.clone();
                self.replica(replica)?.drain = None;
                let (machine, seen) = self.machine(&server)?;
                (seen.phase == Phase::Draining).then_some(Command::Resume { machine })
            }
            Action::DrainReplica {
                replica,
                step,
                deadline,
                ..
            } => {
                let found = self.replica(replica)?;
                let begins = found.drain.is_none();
                let same = found.drain.filter(|drain| drain.step == *step);
                found.drain = Some(Drain {
                    step: *step,
                    step_since: same.map_or(now, |drain| drain.step_since),
                    reason: found.drain.map_or(decision.reason, |drain| drain.reason),
                    deadline: *deadline,
                });
                let server = found.server.clone();
                let (machine, seen) = self.machine(&server)?;
                let runs = matches!(seen.phase, Phase::Serving | Phase::Loading { .. });
                (begins && runs).then_some(Command::Drain { machine })
            }
            // The simulator takes an empty one away by itself.
            Action::RemoveReplica { .. } => None,
        }
    }

    fn machine(&mut self, server: &ServerName) -> Option<(usize, &mut Seen)> {
        let mut seen = self.seen.iter_mut();
        seen.find(|(_, seen)| seen.server == *server)
            .map(|(index, seen)| (*index, seen))
    }

    fn replica(&mut self, replica: &ReplicaId) -> Option<&mut Replica> {
        self.snapshot.pools.get_mut(&self.pool)?.running.get_mut(replica)
    }
}
