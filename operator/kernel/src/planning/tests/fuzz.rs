//! Random sequences of faults, and what may never follow from any of them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::properties::check_laws;
use super::*;
use crate::capacity::curve;
use crate::fixture::group;
use crate::lifecycle::{DrainStep, NodeHealth, ReplicaState, ServerState};
use crate::names::{GroupName, PoolId, ServerName};
use crate::reason::Problem;
use crate::snapshot::{Contact, Group, Inventory, Load, Replica, Server, Snapshot};
use crate::strategy::ahead::{Ahead, GroupAhead, look_ahead};
use crate::strategy::envelope::Memo;
use crate::strategy::{Burnt, Effort};
use crate::time::Timestamp;

/// One thing that happens. Each lasts for less than the time for which it is believed to pass.
#[derive(Clone, Debug)]
enum Fault {
    /// The provider of a group lists nothing.
    Unlisted(&'static str),
    /// The spec of a group cannot be used.
    Broken(&'static str),
    /// People pause a group.
    Paused(&'static str),
    /// People pause the pool.
    PoolPaused,
    /// A site does not answer.
    SiteLost(&'static str),
    /// The machine of some server falls silent and comes back.
    Blip(usize),
    /// The machine of some server falls silent for good.
    Death(usize),
    /// The engine of some replica answers nobody for a while.
    Hang(usize),
    /// So many requests per second arrive from now on, in hundredths.
    Demand(u32),
}

const GROUPS: [&str; 3] = ["ultra", "m4", "m4-dear"];

fn faults() -> impl Strategy<Value = Vec<(Fault, u32, u32)>> {
    let group = || prop::sample::select(GROUPS.to_vec());
    let fault = prop_oneof![
        group().prop_map(Fault::Unlisted),
        group().prop_map(Fault::Broken),
        group().prop_map(Fault::Paused),
        Just(Fault::PoolPaused),
        prop::sample::select(vec!["cupertino", "lease"]).prop_map(Fault::SiteLost),
        (0..8usize).prop_map(Fault::Blip),
        (0..8usize).prop_map(Fault::Death),
        (0..8usize).prop_map(Fault::Hang),
        (5..200u32).prop_map(Fault::Demand),
        (5..200u32).prop_map(Fault::Demand),
    ];
    // How long it lasts and how long it is quiet afterwards, in passes of 15 s.
    prop::collection::vec((fault, 1..36u32, 0..24u32), 1..8)
}

/// A world under attack, and what it may cost.
struct Siege {
    stage: Stage,
    /// Own servers, and leased ones, that may have been taken for lost.
    lost: (u32, usize),
    peak: f64,
}

impl Siege {
    fn new() -> Self {
        Self {
            stage: quiet_world(2),
            lost: (0, 0),
            peak: 0.0,
        }
    }

    fn demand(&mut self, rate: f64) {
        self.peak = self.peak.max(rate);
        self.stage.demand("chat", rate);
    }

    /// One pass, and the laws that hold in every one.
    fn pass(&mut self) -> Result<(), TestCaseError> {
        let plan = self.stage.plan();
        check_laws(&self.stage.snapshot, &plan, self.stage.now)?;
        for decision in &plan.decisions {
            self.gone_in_order(decision)?;
        }
        self.stage.apply(&plan);
        let next = self.stage.plan();
        for (done, undone) in plan
            .decisions
            .iter()
            .flat_map(|one| next.decisions.iter().map(move |other| (one, other)))
        {
            prop_assert!(
                !undoes(&done.action, &undone.action),
                "{done:#?}\nis undone by\n{undone:#?}"
            );
        }
        self.stage.pass_time(Span::from_secs(15));
        Ok(())
    }

    /// A replica that may still answer is removed only fenced and idle, or after its deadline.
    fn gone_in_order(&self, decision: &Decision) -> Result<(), TestCaseError> {
        let Action::RemoveReplica { replica, .. } = &decision.action else {
            return Ok(());
        };
        let replica = &self.stage.seen("chat").running[replica];
        if matches!(replica.state, ReplicaState::Ready | ReplicaState::Suspect) {
            let drained = replica.drain.is_some_and(|drain| {
                let idle = matches!(replica.load, Load::Known { running: 0, queued: 0, at } if at >= drain.step_since);
                let over = self.stage.now >= drain.deadline && replica.state == ReplicaState::Suspect;
                drain.step == DrainStep::Quiesce && (idle || over)
            });
            prop_assert!(drained && !replica.serving, "{decision:#?}\n{replica:#?}");
        }
        Ok(())
    }

    fn strike(&mut self, fault: &Fault) -> Option<ServerName> {
        let now = self.stage.now;
        match fault {
            Fault::Unlisted(name) => {
                let found = self.group(name);
                let last = servers(found).clone();
                found.inventory = Inventory::Unknown { last, since: now };
            }
            Fault::Broken(name) | Fault::Paused(name) => {
                // What has been free there for long is not waited for: people took it away.
                for _ in 0..self.free(name) {
                    self.lose(name);
                }
                let found = self.group(name);
                match fault {
                    Fault::Broken(_) => found.problem = Some(Problem::new(Reason::InvalidSpec, "a mess")),
                    _ => found.paused = true,
                }
            }
            Fault::PoolPaused => self.stage.seen_mut("chat").paused = true,
            Fault::SiteLost(name) => self.stage.lose(name),
            Fault::Blip(index) | Fault::Death(index) => {
                return self.silence(*index);
            }
            Fault::Hang(index) => {
                let ids: Vec<_> = self.stage.seen("chat").running.keys().cloned().collect();
                let id = ids.get(index % ids.len().max(1))?;
                let replica = self.stage.seen_mut("chat").running.get_mut(id)?;
                replica.silent_since = Some(now);
                let group = replica.group.clone();
                self.lose(group.as_str());
            }
            Fault::Demand(hundredths) => self.demand(f64::from(*hundredths) / 100.0),
        }
        None
    }

    fn heal(&mut self, fault: &Fault, struck: Option<&ServerName>) {
        let now = self.stage.now;
        match fault {
            Fault::Unlisted(name) => drop(self.group(name).servers_mut()),
            Fault::Broken(name) => self.group(name).problem = None,
            Fault::Paused(name) => self.group(name).paused = false,
            Fault::PoolPaused => self.stage.seen_mut("chat").paused = false,
            Fault::SiteLost(name) => {
                if let Some(site) = self.stage.snapshot.sites.get_mut(*name) {
                    site.contact = Contact::Reachable;
                }
            }
            Fault::Hang(_) => {
                for replica in self.stage.seen_mut("chat").running.values_mut() {
                    replica.silent_since = None;
                }
            }
            Fault::Blip(_) => {
                for found in self.stage.snapshot.groups.values_mut() {
                    if let Some(server) = struck.and_then(|struck| servers(found).get_mut(struck)) {
                        if server.state == ServerState::Suspect {
                            (server.state, server.since) = (ServerState::Ready, now);
                        }
                        if matches!(server.node, NodeHealth::Down { .. }) {
                            server.node = NodeHealth::Ready;
                        }
                    }
                }
                for replica in self.on(struck) {
                    if replica.state == ReplicaState::Suspect {
                        (replica.state, replica.since) = (ReplicaState::Ready, now);
                    }
                }
            }
            Fault::Death(_) | Fault::Demand(_) => {}
        }
    }

    fn silence(&mut self, index: usize) -> Option<ServerName> {
        let now = self.stage.now;
        let names: Vec<(GroupName, ServerName)> = self
            .stage
            .snapshot
            .groups
            .iter()
            .flat_map(|(group, found)| {
                let servers = found.inventory.servers().iter();
                servers
                    .filter(|(_, server)| server.node == NodeHealth::Ready)
                    .map(|(server, _)| (group.clone(), server.clone()))
            })
            .collect();
        let (group, name) = names.get(index % names.len().max(1))?.clone();
        self.lose(group.as_str());
        let server = servers(self.group(group.as_str())).get_mut(&name)?;
        server.node = NodeHealth::Down { since: now };
        if server.state == ServerState::Ready {
            (server.state, server.since) = (ServerState::Suspect, now);
        }
        for replica in self.on(Some(&name)) {
            (replica.state, replica.since, replica.load) = (ReplicaState::Suspect, now, Load::Unknown);
        }
        Some(name)
    }

    fn on(&mut self, server: Option<&ServerName>) -> impl Iterator<Item = &mut Replica> {
        let running = self.stage.seen_mut("chat").running.values_mut();
        running.filter(move |replica| Some(&replica.server) == server)
    }

    fn lose(&mut self, group: &str) {
        match group {
            "ultra" => self.lost.0 += 1,
            _ => self.lost.1 += 1,
        }
    }

    fn free(&self, name: &str) -> usize {
        let used: Vec<_> = self
            .stage
            .seen("chat")
            .running
            .values()
            .map(|replica| &replica.server)
            .collect();
        let all = self.stage.snapshot.groups[&group(name)].inventory.servers();
        all.iter()
            .filter(|(name, server)| server.state == ServerState::Ready && !used.contains(name))
            .count()
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.stage.snapshot.groups.get_mut(name).unwrap()
    }

    fn bought(&self) -> usize {
        let asked = self.stage.history.iter().map(|(_, decision)| decision);
        asked
            .filter(|decision| matches!(decision.action, Action::RequestServer { .. }))
            .count()
    }
}

/// A strategic plan that should not be there.
#[derive(Clone, Copy, Debug)]
enum Strange {
    /// Made from what is seen.
    Fresh,
    /// The same, long ago, or from a clock that runs ahead.
    Old,
    Future,
    /// Made for another world, in which everything has another size.
    Foreign,
    /// Of groups, servers and pools that nobody knows.
    Unknown,
    /// With figures that no plan has.
    Absurd,
    /// Empty.
    Nothing,
}

const STRANGE: [Strange; 7] = [
    Strange::Fresh,
    Strange::Old,
    Strange::Future,
    Strange::Foreign,
    Strange::Unknown,
    Strange::Absurd,
    Strange::Nothing,
];

thread_local! {
    /// Measured once for all: what is remembered changes nothing.
    static CURVES: RefCell<Memo> = RefCell::new(Memo::new(curve::Effort { requests: 3_000 }, 4_096));
}

fn ahead(snapshot: &Snapshot, now: Timestamp) -> Ahead {
    CURVES.with(|curves| look_ahead(snapshot, now, &mut curves.borrow_mut(), Effort::REPLAN))
}

fn strange(kind: Strange, stage: &Stage) -> Ahead {
    let (snapshot, now) = (&stage.snapshot, stage.now);
    match kind {
        Strange::Fresh => ahead(snapshot, now),
        Strange::Old => ahead(snapshot, now - Span::from_minutes(19)),
        Strange::Future => ahead(snapshot, now + Span::from_hours(30)),
        Strange::Foreign => {
            let mut other = quiet_world(9);
            other.demand("chat", 7.0);
            Ahead {
                made_at: now,
                ..ahead(&other.snapshot, other.now)
            }
        }
        Strange::Unknown => {
            let fresh = ahead(snapshot, now);
            let mut groups: BTreeMap<GroupName, GroupAhead> = BTreeMap::new();
            for (index, (_, mut group)) in fresh.groups.into_iter().enumerate() {
                group.until = [("nobody-0".into(), now)].into();
                group.known = ["nobody-1".into()].into();
                group.buyers = [(PoolId::new("else", "where"), 3)].into();
                groups.insert(format!("nowhere-{index}").as_str().into(), group);
            }
            let renamed = fresh.pools.into_values().map(|mut pool| {
                pool.replicas = [("nowhere-0".into(), 4), ("m4".into(), 2)].into();
                (PoolId::new("else", "where"), pool)
            });
            Ahead {
                groups,
                pools: renamed.collect(),
                ..fresh
            }
        }
        Strange::Absurd => {
            let mut fresh = ahead(snapshot, now);
            for group in fresh.groups.values_mut() {
                group.servers = u32::MAX;
                group.buyers.values_mut().for_each(|count| *count = u32::MAX);
                group.later = vec![(now - Span::from_hours(9), u32::MAX)];
            }
            for pool in fresh.pools.values_mut() {
                pool.replicas.values_mut().for_each(|count| *count = u32::MAX);
                pool.capacity.values_mut().for_each(|each| *each = f64::NAN);
                pool.windows = vec![(
                    now,
                    Burnt {
                        expected: f64::INFINITY,
                        budget: f64::NAN,
                    },
                )];
                pool.burn = None;
                pool.forecast = None;
            }
            fresh.cost = f64::NAN;
            fresh
        }
        Strange::Nothing => Ahead {
            made_at: now,
            ..Ahead::default()
        },
    }
}

/// A few own servers, and two groups of the same machines to lease, paid for a day.
fn quiet_world(owned: u32) -> Stage {
    let mut dear = Group::hosted("lease", 12);
    dear.pricing.hourly = crate::units::Money::from_micros(2_500_000);
    hybrid(owned, 12).group("m4-dear", dear).pool("chat", Pool::fixture())
}

/// The servers, without making the inventory known.
fn servers(group: &mut Group) -> &mut BTreeMap<ServerName, Server> {
    let (Inventory::Known(servers) | Inventory::Unknown { last: servers, .. }) = &mut group.inventory;
    servers
}

/// Whether `later` takes back what `earlier` has done.
fn undoes(earlier: &Action, later: &Action) -> bool {
    use Action as A;
    match (earlier, later) {
        (A::DrainServer { server, .. }, A::UndrainServer { server: other, .. })
        | (A::UndrainServer { server, .. }, A::DrainServer { server: other, .. })
        | (
            A::RequestServer { server, .. },
            A::DrainServer { server: other, .. } | A::ReleaseServer { server: other, .. },
        ) => server == other,
        (A::OpenReplica { replica, .. }, A::DrainReplica { replica: other, .. })
        | (A::DrainReplica { replica, .. }, A::OpenReplica { replica: other, .. }) => replica == other,
        (A::StartReplica { server, .. }, A::RemoveReplica { replica, .. }) => {
            replica.name.as_str().contains(&format!("-{server}-"))
        }
        _ => false,
    }
}

/// How many servers the peak needs in a world in which nothing happens, but which never had what was lost.
fn cold(rate: f64, (own, leased): (u32, usize)) -> usize {
    let mut calm = Siege {
        stage: quiet_world(2u32.saturating_sub(own)),
        ..Siege::new()
    };
    calm.demand(rate);
    calm.stage.run(Span::from_minutes(30));
    calm.bought() + leased
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_faults_buys_twice_or_undoes_itself_or_cuts_a_request(faults in faults()) {
        let mut siege = Siege::new();
        siege.demand(0.8);
        for _ in 0..8 {
            siege.pass()?;
        }
        for (fault, lasts, calm) in &faults {
            // A site is believed to serve on for two minutes only.
            let lasts = if matches!(fault, Fault::SiteLost(_)) { (*lasts).min(6) } else { *lasts };
            let struck = siege.strike(fault);
            for _ in 0..lasts {
                siege.pass()?;
            }
            siege.heal(fault, struck.as_ref());
            for _ in 0..*calm {
                siege.pass()?;
            }
        }
        let (bought, needed) = (siege.bought(), cold(siege.peak, siege.lost));
        prop_assert!(bought <= needed, "{bought} servers, {needed} needed, {:?} lost", siege.lost);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_ahead_however_old_or_strange_breaks_a_law_or_cuts_a_request(
        faults in faults(),
        plans in prop::collection::vec(prop::sample::select(STRANGE.to_vec()), 1..8),
    ) {
        let mut siege = Siege::new();
        siege.demand(0.8);
        for _ in 0..8 {
            siege.pass()?;
        }
        let mut plans = plans.into_iter().cycle();
        for (fault, lasts, calm) in &faults {
            let struck = siege.strike(fault);
            for healed in [false, true] {
                if healed {
                    siege.heal(fault, struck.as_ref());
                }
                siege.stage.snapshot.ahead = plans.next().map(|kind| strange(kind, &siege.stage).into());
                // Long enough for each to be followed, and to grow stale.
                for _ in 0..if healed { *calm } else { *lasts } {
                    siege.pass()?;
                }
            }
        }
        for server in siege.stage.snapshot.groups.values().map(|group| group.inventory.servers().len()) {
            prop_assert!(server <= 12, "{server} servers of a group that may have twelve");
        }
    }
}
