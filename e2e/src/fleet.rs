//! The emulated fleet: plays Macs for one or several clusters, in one process.
//!
//! ```text
//! lessor's API ─► machines ─► Nodes ─► Pods ─► processes: HTTP ─► engine on the clock
//!      [api]      [machines]  [node]   [pod]   [process, openai]   [pace, stream, figures]
//! ```
//!
//! # Guarantees
//! - Machines come after their lead time and go as they do in life: leases, minimum terms, recycling, stock-outs ([`machines`]).
//! - A Node heartbeats in real time, so that a real controller manager judges it; a Pod loads its model, serves, and ends
//!   by its `preStop` and its grace period ([`pod`]). Nothing is answered after its process has ended.
//! - Tokens come at the times of `pomarium_kernel::engine`, in virtual time; how late they were at most is told ([`pace`]).
//! - Whatever is broken off is counted, by who broke it ([`Summary`]).
//!
//! Listens on 127.0.0.0/8 only: each Pod gets an address of its own there.

mod api;
mod client;
mod cluster;
mod faults;
mod figures;
mod group;
mod machines;
mod node;
mod openai;
mod pace;
mod pod;
mod pods;
mod process;
mod stream;
mod summary;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use client::{Answered, Answering, ModelClient, NoAnswer};
pub use faults::{Fault, FaultId, MetricsAnswer};
pub use group::{FleetGroup, Machine, ModelProfile};
pub use machines::{Lease, LeaseTerms, Server, ServerState, Supply};
pub use summary::{GroupSummary, Lag, Summary};

use crate::time::VirtualTime;
use cluster::Cluster;
use faults::{Faults, Target};
use group::Group;
use machines::{Change, Machines, Refusal};
use pace::EngineClock;

/// Real time between two ticks of the engines. Tokens are late by one tick at most as long as the machine keeps up: with
/// time 15 times as fast that is 60 ms of virtual time on a first token, and next to nothing on the mean between tokens.
pub const TICK: Duration = Duration::from_millis(4);

/// What a fleet is.
#[derive(Clone)]
pub struct FleetConfig {
    /// The clusters that its Nodes register in, by name. Clients should not retry by themselves.
    pub clusters: BTreeMap<String, kube::Client>,
    /// The groups of machines.
    pub groups: Vec<FleetGroup>,
    /// The time of lead times, leases, model loads, grace periods and tokens.
    pub time: VirtualTime,
    /// Real time between two ticks of the engines. [`TICK`] unless there is a reason.
    pub tick: Duration,
}

/// A fleet cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// No address is free.
    #[error("listening on 127.0.0.0/8")]
    Listen(#[source] io::Error),
    /// A group names a cluster that the fleet was not given.
    #[error("group {group} is in cluster {cluster}, which the fleet does not know")]
    UnknownCluster {
        /// The group.
        group: String,
        /// The cluster.
        cluster: String,
    },
    /// Two groups have the same name.
    #[error("group {0} is there twice")]
    DuplicateGroup(String),
    /// A fault is about something that is not there.
    #[error("there is no {kind} {name}")]
    UnknownTarget {
        /// `server` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

/// A running fleet. Dropping it ends it; its Nodes and Pods stay behind in their clusters, silent.
pub struct Fleet {
    shared: Arc<Shared>,
    url: String,
}

/// What all parts share.
pub(crate) struct Shared {
    pub(crate) time: VirtualTime,
    pub(crate) clock: EngineClock,
    pub(crate) lag: Arc<pace::Lag>,
    pub(crate) groups: BTreeMap<String, Arc<Group>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    faults: Mutex<Faults>,
    addresses: Addresses,
}

impl Fleet {
    /// Starts it: the Nodes of machines that are always on register at once.
    pub async fn start(config: FleetConfig) -> Result<Self, FleetError> {
        let clusters: BTreeMap<String, Arc<Cluster>> = config
            .clusters
            .into_iter()
            .map(|(name, client)| (name, Arc::new(Cluster::new(client))))
            .collect();
        let now = config.time.now();
        let mut groups = BTreeMap::new();
        for group in config.groups {
            let cluster = clusters.get(&group.cluster).ok_or_else(|| FleetError::UnknownCluster {
                group: group.name.clone(),
                cluster: group.cluster.clone(),
            })?;
            let machines = Machines::new(&group.name, group.supply, now);
            let name = group.name.clone();
            let group = Arc::new(Group::new(group, Arc::clone(cluster), machines));
            if groups.insert(name.clone(), group).is_some() {
                return Err(FleetError::DuplicateGroup(name));
            }
        }
        let shared = Arc::new(Shared {
            time: config.time,
            clock: EngineClock::new(config.time.scale(), config.tick),
            lag: Arc::default(),
            groups,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            faults: Mutex::default(),
            addresses: Addresses::claim().await.map_err(FleetError::Listen)?,
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(FleetError::Listen)?;
        let address = listener.local_addr().map_err(FleetError::Listen)?;
        shared.spawn(api::serve(listener, Arc::clone(&shared)));
        for group in shared.groups.values() {
            let on: Vec<_> = group.machines().servers().map(|server| server.name.clone()).collect();
            for name in on {
                shared.bring_up(group, &name);
            }
            shared.spawn(drive(Arc::clone(group), Arc::clone(&shared)));
        }
        for cluster in clusters.into_values() {
            shared.spawn(pods::play(cluster, Arc::clone(&shared)));
        }
        Ok(Self {
            shared,
            url: format!("http://{address}"),
        })
    }

    /// Where its API is: what the operator gets as `--fleet-url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes something go wrong until it is cleared.
    pub fn inject(&self, fault: Fault) -> Result<FaultId, FleetError> {
        self.shared.inject(fault)
    }

    /// Ends a fault. False if there is none of that id.
    pub fn clear(&self, id: FaultId) -> bool {
        self.shared.clear(id)
    }

    /// The servers of a group, as its API tells them.
    pub fn servers(&self, group: &str) -> Vec<Server> {
        let group = self.shared.groups.get(group);
        group.map_or_else(Vec::new, |group| group.machines().servers().cloned().collect())
    }

    /// What the fleet has done so far.
    pub fn summary(&self) -> Summary {
        summary::of(&self.shared)
    }

    /// The most that tokens were late.
    pub fn lag(&self) -> Lag {
        Lag::of(&self.shared)
    }

    /// Ends it, and returns when nothing of it runs any more.
    pub async fn stop(self) {
        self.shared.silence();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.silence();
    }
}

impl Shared {
    /// Runs `task` until the fleet stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled_owned(task).await;
        })
    }

    /// Ends every task and every process.
    fn silence(&self) {
        self.stop.cancel();
        for group in self.groups.values() {
            // Servers know their group, and the group's cluster knows its servers: somebody has to let go.
            for server in std::mem::take(&mut *group.cluster.up()).into_values() {
                server.processes().clear();
            }
        }
    }

    /// An address that nothing else has.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.addresses.next()
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn inject(&self, fault: Fault) -> Result<FaultId, FleetError> {
        let unknown = |kind, name: &str| FleetError::UnknownTarget {
            kind,
            name: name.to_owned(),
        };
        match fault.target() {
            Target::Group(name) if !self.groups.contains_key(name) => return Err(unknown("group", name)),
            Target::Server(name) if !self.has_server(name) => return Err(unknown("server", name)),
            Target::Group(_) | Target::Server(_) => {}
        }
        let id = self.faults().inject(fault);
        self.spread_faults();
        Ok(id)
    }

    pub(crate) fn clear(&self, id: FaultId) -> bool {
        let cleared = self.faults().clear(id);
        self.spread_faults();
        cleared
    }

    fn has_server(&self, name: &str) -> bool {
        self.groups
            .values()
            .any(|group| group.machines().servers().any(|server| server.name == name))
    }

    /// Tells every server that is up what it suffers from.
    fn spread_faults(&self) {
        let faults = self.faults();
        for group in self.groups.values() {
            for server in group.cluster.up().values() {
                server.suffer(faults.ailments(&server.name));
            }
        }
    }

    /// A machine runs: its Node registers, and Pods may start on it.
    fn bring_up(&self, group: &Arc<Group>, name: &str) {
        let ailments = self.faults().ailments(name);
        let server = Arc::new(cluster::Server::new(name, Arc::clone(group), self.address(), ailments));
        group.cluster.up().insert(name.to_owned(), Arc::clone(&server));
        self.spawn(node::keep(server));
        group.cluster.came_up.notify_one();
    }

    /// Asks for a server. True if that made it.
    pub(crate) fn request(&self, group: &Group, name: &str) -> Result<(Server, bool), Refusal> {
        let market = self.faults().market(&group.config.name);
        let answer = group.machines().request(name, self.time.now(), market);
        group.changed.notify_one();
        answer
    }

    /// Gives a server back; everything on it ends. `None` if it was gone.
    pub(crate) fn release(self: &Arc<Self>, group: &Arc<Group>, name: &str) -> Result<Option<Server>, Refusal> {
        let answer = group.machines().release(name, self.time.now())?;
        if answer
            .as_ref()
            .is_some_and(|server| server.state == ServerState::Releasing)
        {
            let up = group.cluster.up().remove(name);
            let (shared, group, name) = (Arc::clone(self), Arc::clone(group), name.to_owned());
            self.spawn(async move {
                if let Some(server) = up {
                    server.kill_all().await;
                }
                group.machines().vacated(&name, shared.time.now());
                group.changed.notify_one();
            });
        }
        Ok(answer)
    }
}

/// Lets the machines of one group come and go.
async fn drive(group: Arc<Group>, shared: Arc<Shared>) {
    loop {
        let (changes, due) = {
            let mut machines = group.machines();
            (machines.advance(shared.time.now()), machines.next_due())
        };
        for Change::Up(name) in changes {
            shared.bring_up(&group, &name);
        }
        let due = async {
            match due {
                Some(at) => shared.time.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = group.changed.notified() => {}
        }
    }
}

/// Addresses of one fleet: a block of 127.0.0.0/8, so that several fleets on one machine do not meet.
#[derive(Debug)]
struct Addresses {
    block: u8,
    used: AtomicU32,
    /// Whoever listens at the block's first address, on the kubelets' port, has the block.
    _claim: TcpListener,
}

impl Addresses {
    async fn claim() -> io::Result<Self> {
        // Other processes begin elsewhere: fewer collisions, quicker starts.
        let first = std::process::id() % 240;
        let mut last = io::Error::other("no block was tried");
        for offset in 0..240 {
            let block = u8::try_from(10 + (first + offset) % 240).unwrap_or(10);
            match TcpListener::bind(SocketAddr::from(([127, block, 0, 1], 10_250))).await {
                Ok(claim) => {
                    return Ok(Self {
                        block,
                        used: AtomicU32::new(0),
                        _claim: claim,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The next one, round and round: 62,500 pass before one comes again.
    fn next(&self) -> Ipv4Addr {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let part = |value: u32| u8::try_from(1 + value % 250).unwrap_or(1);
        Ipv4Addr::new(127, self.block, part(number / 250), part(number))
    }
}
