//! The hub and the member clusters, and whether they answer.
//!
//! Every site has one task of its own that connects, watches, probes and reconnects. A dead or slow cluster keeps that
//! task busy and nobody else: [`Members::get`] answers at once, with nothing while contact is lost, and what was seen
//! last stays readable. A changed ServerSite or Secret restarts the task; everything else heals by itself.

mod connect;
mod contact;
mod tend;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::{Client, Config};
use pomarium_api::site::{Connection, ServerSite};
use pomarium_kernel::names::SiteName;
use pomarium_kernel::reason::Problem;
use pomarium_kernel::snapshot::Contact;
use tokio::task::JoinHandle;
use tracing::info;

use crate::client::{self, Gate, RateLimit};
use crate::clock::Clock;
use crate::latest::Trigger;
use crate::store::{Budgets, Namespaces, Nodes, Pods, Store};
use crate::world::SiteSeen;

/// Requests per second to one cluster, and at once after a quiet time.
const RATE: (u32, u32) = (50, 200);

/// The cluster in which Pomarium's own objects live.
#[derive(Clone)]
pub struct Hub {
    /// For reading: watches and gets.
    pub read: Client,
    /// For writing: no hidden retries, every call bounded, refused while this process does not lead.
    pub write: Client,
    /// The operator's own namespace.
    pub namespace: String,
    /// Uid of the hub's `kube-system` namespace: marks what is ours in member clusters.
    pub uid: String,
}

/// A connection to a member cluster.
#[derive(Clone)]
pub struct Member {
    /// Whose.
    pub site: SiteName,
    /// For reading: watches and gets.
    pub read: Client,
    /// For writing: no hidden retries, every call bounded, refused while this process does not lead.
    pub write: Client,
    /// It is the hub itself.
    pub local: bool,
}

impl Member {
    /// Clients for `config`, with a budget of requests of their own.
    fn new(site: SiteName, config: &Config, local: bool, gate: &Gate, timeout: Duration) -> Result<Self, kube::Error> {
        let limit = RateLimit::new(RATE.0, RATE.1);
        Ok(Self {
            site,
            read: client::reader(config.clone(), &limit)?,
            write: client::writer(config.clone(), &limit, gate, timeout)?,
            local,
        })
    }
}

/// What every site's task needs.
#[derive(Clone)]
pub struct Surroundings {
    /// The hub.
    pub hub: Hub,
    /// How to reach the hub, for the site that is the hub itself.
    pub hub_config: Config,
    /// Time.
    pub clock: Clock,
    /// Shut while this process does not lead.
    pub gate: Gate,
    /// How long a write may take.
    pub write_timeout: Duration,
    /// Wakes the loop.
    pub trigger: Trigger,
    /// Accept kubeconfigs of servers on this very machine. For local test clusters.
    pub allow_loopback: bool,
}

/// The member clusters. Clones share their content.
#[derive(Clone)]
pub struct Members {
    surroundings: Surroundings,
    sites: Arc<Mutex<BTreeMap<SiteName, Site>>>,
}

/// One site that is looked after.
struct Site {
    /// What its task was started for; a change restarts it.
    wanted: Wanted,
    caches: Caches,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How to connect, and the version of the Secret to connect with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    connection: Connection,
    secret: Option<String>,
}

/// What is kept of a member cluster. Outlives connections.
#[derive(Clone)]
struct Caches {
    nodes: Store<Nodes>,
    pods: Store<Pods>,
    namespaces: Store<Namespaces>,
    budgets: Store<Budgets>,
}

impl Caches {
    fn new(clock: Clock, trigger: &Trigger) -> Self {
        Self {
            nodes: Store::new(Nodes { clock }, trigger.clone()),
            pods: Store::new(Pods { clock }, trigger.clone()),
            namespaces: Store::new(Namespaces, trigger.clone()),
            budgets: Store::new(Budgets, trigger.clone()),
        }
    }

    fn are_current(&self) -> Result<(), String> {
        self.nodes.is_current()?;
        self.pods.is_current()?;
        self.namespaces.is_current()?;
        self.budgets.is_current()
    }

    fn suspend(&self, reason: &str) {
        self.nodes.suspend(reason);
        self.pods.suspend(reason);
        self.namespaces.suspend(reason);
        self.budgets.suspend(reason);
    }
}

/// What a site's task says about it.
#[derive(Clone)]
struct State {
    contact: Contact,
    problem: Option<Problem>,
    version: Option<String>,
    member: Option<Arc<Member>>,
    /// The first attempt has come to an end, one way or the other.
    settled: bool,
}

impl Members {
    /// No sites yet.
    pub fn new(surroundings: Surroundings) -> Self {
        Self {
            surroundings,
            sites: Arc::default(),
        }
    }

    /// The connection to `site`; `None` while contact is lost, so that nobody waits for a dead cluster.
    pub fn get(&self, site: &SiteName) -> Option<Arc<Member>> {
        let sites = self.lock();
        let state = lock(&sites.get(site)?.state);
        match state.contact {
            Contact::Reachable => state.member.clone(),
            Contact::Lost { .. } => None,
        }
    }

    /// Looks after exactly these sites from now on. `secrets` are the versions of the Secrets in the operator's namespace.
    pub(crate) fn follow(
        &self,
        objects: &BTreeMap<SiteName, Arc<ServerSite>>,
        secrets: &BTreeMap<String, Arc<String>>,
    ) {
        let mut sites = self.lock();
        sites.retain(|name, _| objects.contains_key(name));
        for (name, object) in objects {
            let connection = object.spec.connection.clone();
            let secret = connection
                .kubeconfig_secret_ref
                .as_ref()
                .and_then(|reference| secrets.get(&reference.name))
                .map(ToString::to_string);
            let wanted = Wanted { connection, secret };
            if sites.get(name).is_some_and(|site| site.wanted == wanted) {
                continue;
            }
            // What was seen through the old connection stays readable: it is most likely the same cluster.
            let caches = match sites.remove(name) {
                Some(old) => old.caches.clone(),
                None => Caches::new(self.surroundings.clock, &self.surroundings.trigger),
            };
            info!(site = %name, "connecting");
            caches.suspend("is being connected");
            sites.insert(name.clone(), self.start(name.clone(), wanted, caches));
        }
    }

    fn start(&self, name: SiteName, wanted: Wanted, caches: Caches) -> Site {
        let state = Arc::new(Mutex::new(State {
            contact: Contact::Lost {
                since: self.surroundings.clock.now(),
                message: "it is being connected".to_owned(),
            },
            problem: None,
            version: None,
            member: None,
            settled: false,
        }));
        let task = tend::Task {
            site: name,
            surroundings: self.surroundings.clone(),
            connection: wanted.connection.clone(),
            caches: caches.clone(),
            state: Arc::clone(&state),
        };
        Site {
            wanted,
            caches,
            state,
            task: tokio::spawn(task.run()),
        }
    }

    /// All sites that are looked after; without a member where contact is lost.
    pub(crate) fn all(&self) -> Vec<(SiteName, Option<Arc<Member>>)> {
        let names: Vec<SiteName> = self.lock().keys().cloned().collect();
        let member = |name: SiteName| {
            let member = self.get(&name);
            (name, member)
        };
        names.into_iter().map(member).collect()
    }

    /// Whether every site's first attempt to connect has come to an end. Before that a site that is merely not connected
    /// *yet* looks like one that is lost, and the loop might buy a replacement for it.
    pub(crate) fn settled(&self) -> bool {
        self.lock().values().all(|site| lock(&site.state).settled)
    }

    /// What has been seen in every site's cluster.
    pub(crate) fn seen(&self, objects: &BTreeMap<SiteName, Arc<ServerSite>>) -> BTreeMap<SiteName, SiteSeen> {
        let sites = self.lock();
        let seen = |(name, site): (&SiteName, &Site)| {
            let object = Arc::clone(objects.get(name)?);
            // The state before the caches: content that is newer than "reachable" does no harm, older content would.
            let state = lock(&site.state).clone();
            let seen = SiteSeen {
                object,
                contact: state.contact,
                problem: state.problem,
                version: state.version,
                nodes: site.caches.nodes.items(),
                pods: site.caches.pods.items(),
                namespaces: site.caches.namespaces.items(),
                budgets: site.caches.budgets.items(),
            };
            Some((name.clone(), seen))
        };
        sites.iter().filter_map(seen).collect()
    }

    /// Objects of all sites that cannot be decoded.
    pub(crate) fn undecodable(&self) -> usize {
        let count = |site: &Site| site.caches.nodes.undecodable().len() + site.caches.pods.undecodable().len();
        self.lock().values().map(count).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SiteName, Site>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
