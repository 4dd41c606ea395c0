//! Looks after one site: connects, watches, probes, and connects again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher;
use pomarium_api::labels;
use pomarium_api::site::Connection;
use pomarium_kernel::names::SiteName;
use pomarium_kernel::reason::Problem;
use pomarium_kernel::snapshot::Contact;
use pomarium_kernel::time::Timestamp;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::connect::{Failure, connect};
use super::contact::{Rounds, differ};
use super::{Caches, Member, State, Surroundings, lock};
use crate::client::error_chain;

/// Between two rounds, in real time: a cluster fails in real time however fast the planner's clock runs.
const ROUND: Duration = Duration::from_secs(3);

/// Between two rounds until the first good one.
const FIRST_ROUNDS: Duration = Duration::from_millis(200);

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the first list of everything may take before the connection is made anew.
const FIRST_LIST: Duration = Duration::from_secs(60);

/// After this long without any contact the site counts as settled: the others do not wait for it any longer.
const SETTLE: Duration = Duration::from_secs(8);

/// First and longest pause between two connections.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// The task of one site.
pub(super) struct Task {
    pub(super) site: SiteName,
    pub(super) surroundings: Surroundings,
    pub(super) connection: Connection,
    pub(super) caches: Caches,
    pub(super) state: Arc<Mutex<State>>,
}

impl Task {
    /// Runs until it is aborted.
    pub(super) async fn run(self) {
        let mut pause = BACKOFF.0;
        let mut last_contact = self.surroundings.clock.now();
        loop {
            match connect(&self.site, &self.connection, &self.surroundings).await {
                Ok(member) => {
                    let began = tokio::time::Instant::now();
                    last_contact = self.session(Arc::new(member), last_contact).await;
                    if began.elapsed() > BACKOFF.1 * 3 {
                        pause = BACKOFF.0;
                    }
                }
                Err(Failure::Problem(problem)) => {
                    warn!(site = %self.site, reason = %problem.reason, message = problem.message, "not connected");
                    self.lost(last_contact, problem.message.clone(), Some(problem));
                    self.settle();
                }
                Err(Failure::Passing(message)) => self.lost(last_contact, message, None),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Uses one connection until contact is lost. Returns when the cluster last answered.
    async fn session(&self, member: Arc<Member>, since: Timestamp) -> Timestamp {
        let mut rounds = Rounds::new(since);
        let mut last_good = None;
        let began = tokio::time::Instant::now();
        // Dropped, and the watches with it, when the session ends.
        let mut watches = JoinSet::new();
        loop {
            let round = match self.probe(&member).await {
                Ok(()) => {
                    if watches.is_empty() {
                        self.watch(&member, &mut watches);
                    }
                    self.caches.are_current()
                }
                Err(error) => Err(error),
            };
            let now = self.surroundings.clock.now();
            let good = round.is_ok();
            match rounds.take(round, now).clone() {
                Contact::Reachable => {
                    self.reachable(&member, last_good.is_none()).await;
                    if good {
                        last_good = Some(now);
                    }
                    tokio::time::sleep(ROUND).await;
                }
                Contact::Lost { message, .. } => {
                    // It answers, and its first lists are on their way.
                    let listing = last_good.is_none() && !watches.is_empty() && began.elapsed() < FIRST_LIST;
                    if listing && began.elapsed() < SETTLE || !listing && rounds.failures() < 2 {
                        tokio::time::sleep(FIRST_ROUNDS).await;
                        continue;
                    }
                    self.lost(last_good.unwrap_or(since), message, None);
                    self.settle();
                    if listing {
                        tokio::time::sleep(ROUND).await;
                        continue;
                    }
                    self.caches.suspend("contact is lost");
                    return last_good.unwrap_or(since);
                }
            }
        }
    }

    /// Reads something small that needs the API server, its storage and our credentials.
    async fn probe(&self, member: &Member) -> Result<(), String> {
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(member.read.clone());
        let parameters = ListParams::default().limit(1);
        match tokio::time::timeout(PROBE_TIMEOUT, namespaces.list(&parameters)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error_chain(&error)),
            Err(_) => Err(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
        }
    }

    fn watch(&self, member: &Member, watches: &mut JoinSet<()>) {
        let Caches {
            nodes,
            pods,
            namespaces,
            budgets,
        } = self.caches.clone();
        let client = &member.read;
        let of_pools = watcher::Config::default().labels(labels::POOL);
        let api = Api::all(client.clone());
        // Nodes are large: small pages keep the peak of a first list low.
        watches.spawn(async move { nodes.follow(api, watcher::Config::default().page_size(100)).await });
        let api: Api<DeserializeGuard<Pod>> = Api::all(client.clone());
        let config = of_pools.clone();
        watches.spawn(async move { pods.follow(api, config).await });
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        watches.spawn(async move { namespaces.follow(api, watcher::Config::default()).await });
        let api: Api<PartialObjectMeta<PodDisruptionBudget>> = Api::all(client.clone());
        watches.spawn(async move { budgets.follow(api, of_pools).await });
    }

    async fn reachable(&self, member: &Arc<Member>, first: bool) {
        let version = if first {
            let version = tokio::time::timeout(PROBE_TIMEOUT, member.read.apiserver_version()).await;
            version.ok().and_then(Result::ok).map(|version| version.git_version)
        } else {
            None
        };
        let mut state = lock(&self.state);
        let changed = differ(&state.contact, &Contact::Reachable);
        state.contact = Contact::Reachable;
        state.problem = None;
        state.member = Some(Arc::clone(member));
        state.settled = true;
        if version.is_some() {
            state.version = version;
        }
        drop(state);
        if changed {
            info!(site = %self.site, "in contact");
            self.surroundings.trigger.wake();
        }
    }

    fn lost(&self, since: Timestamp, message: String, problem: Option<Problem>) {
        let mut state = lock(&self.state);
        let contact = Contact::Lost { since, message };
        let changed = differ(&state.contact, &contact) || state.problem != problem;
        if changed && let Contact::Lost { message, .. } = &contact {
            warn!(site = %self.site, message, "out of contact");
        }
        state.contact = contact;
        state.problem = problem;
        state.member = None;
        drop(state);
        if changed {
            self.surroundings.trigger.wake();
        }
    }

    fn settle(&self) {
        let mut state = lock(&self.state);
        if !state.settled {
            state.settled = true;
            drop(state);
            self.surroundings.trigger.wake();
        }
    }
}
