//! Watches both clusters, the router, the load and the lessor while the demo runs.
//!
//! Only reads. What it collects becomes a [`Picture`] twice a second, and the figures of the summary at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pomarium_api::group::ServerGroup;
use pomarium_api::labels;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Money;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::manifests::{self, Manifests};
use super::tally::{ReplicaSeen, Replicas};
use crate::fleet::Fleet;
use crate::load::{self, Ledger, percentile};
use crate::readiness::pod_is_ready;
use crate::router::Router;
use crate::summary::Target;
use crate::time::VirtualTime;
use crate::view::{self, DecisionView, GroupView, ObjectiveView, Picture, PoolView, ServerView, SiteView};

/// Most decisions that a picture carries.
const DECISIONS: usize = 20;

/// Everything that is watched. Watching stops when dropped.
pub(crate) struct Observer {
    manifests: Manifests,
    targets: Vec<Target>,
    time: VirtualTime,
    router: Arc<Router>,
    ledger: Arc<Ledger>,
    fleet: Arc<Fleet>,
    sites: reflector::Store<ServerSite>,
    groups: reflector::Store<ServerGroup>,
    pools: reflector::Store<ServerPool>,
    events: reflector::Store<Event>,
    nodes: BTreeMap<String, reflector::Store<Node>>,
    replicas: Arc<Mutex<Replicas>>,
    energy: Mutex<EnergyMeter>,
    _watches: JoinSet<()>,
}

/// What electricity has cost so far.
#[derive(Default)]
struct EnergyMeter {
    sum: Money,
    read_at: Option<Timestamp>,
}

/// What the run came to, for the summary.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// Replicas added since [`Observer::start_counting`].
    pub(crate) added: u64,
    /// Replicas drained to the end.
    pub(crate) drains: u64,
    /// Leases begun.
    pub(crate) bought: u64,
    /// Leases ended.
    pub(crate) returned: u64,
    /// Price of the leases.
    pub(crate) leases: Money,
    /// Price of the energy since [`Observer::start_counting`].
    pub(crate) energy: Money,
    /// By site: most servers that ran a replica at the same time.
    pub(crate) peaks: BTreeMap<String, u64>,
}

impl Observer {
    /// Starts to watch. `clusters` are the clients of all sites, the hub's included.
    pub(crate) fn start(
        manifests: &Manifests,
        time: VirtualTime,
        hub: &Client,
        clusters: &BTreeMap<String, Client>,
        router: Arc<Router>,
        ledger: Arc<Ledger>,
        fleet: Arc<Fleet>,
    ) -> Self {
        let mut watches = JoinSet::new();
        let replicas = Arc::new(Mutex::new(Replicas::default()));
        let mut nodes = BTreeMap::new();
        for (site, client) in clusters {
            let store = stored(&mut watches, Api::<Node>::all(client.clone()));
            nodes.insert(site.clone(), store);
            let pods = Api::<Pod>::namespaced(client.clone(), &manifests.namespace());
            let selector = format!("{}={}", labels::POOL, manifests.pool.name_any());
            watches.spawn(follow(pods, selector, site.clone(), replicas.clone()));
        }
        Self {
            targets: manifests.targets(),
            manifests: manifests.clone(),
            time,
            router,
            ledger,
            fleet,
            sites: stored(&mut watches, Api::all(hub.clone())),
            groups: stored(&mut watches, Api::all(hub.clone())),
            pools: stored(&mut watches, Api::namespaced(hub.clone(), &manifests.namespace())),
            events: stored(&mut watches, Api::all(hub.clone())),
            nodes,
            replicas,
            energy: Mutex::default(),
            _watches: watches,
        }
    }

    /// From here on, new replicas count as scale-ups and energy is counted.
    pub(crate) fn start_counting(&self) {
        lock(&self.replicas).start_counting();
        *lock(&self.energy) = EnergyMeter {
            sum: Money::ZERO,
            read_at: Some(self.time.now()),
        };
    }

    /// The pool as the API server has it.
    pub(crate) fn pool(&self) -> Option<Arc<ServerPool>> {
        let name = self.manifests.pool.name_any();
        self.pools.find(|pool| pool.name_any() == name)
    }

    /// Replicas that take requests, by their own clusters' word.
    pub(crate) fn serving(&self) -> usize {
        lock(&self.replicas).alive().filter(|replica| replica.serving).count()
    }

    /// Reads the meter: adds up energy since the last reading. To be called about once a second.
    pub(crate) fn read_meter(&self) {
        let now = self.time.now();
        let mut meter = lock(&self.energy);
        if let Some(before) = meter.read_at.replace(now) {
            meter.sum = meter.sum + self.energy(now.since(before));
        }
    }

    /// What the servers that are on have drawn over `span`, at the price of their sites.
    fn energy(&self, span: Span) -> Money {
        let loads = self.router.loads();
        let busy: BTreeSet<_> = loads
            .iter()
            .filter(|load| load.in_flight > 0)
            .map(|load| load.backend.server.as_str())
            .collect();
        let mut sum = Money::ZERO;
        for site in &self.manifests.sites {
            let Ok(price) = manifests::energy_price(site) else {
                continue;
            };
            for node in self.nodes_at(&site.name_any()) {
                let group = node.labels().get(labels::GROUP);
                let Some(group) = self
                    .manifests
                    .groups
                    .iter()
                    .find(|known| Some(&known.name_any()) == group)
                else {
                    continue;
                };
                let power = group.spec.power.clone().unwrap_or_default();
                let watts = if busy.contains(node.name_any().as_str()) {
                    power.busy_watts
                } else {
                    power.idle_watts
                };
                sum = sum + price.cost(f64::from(watts.unwrap_or(0)), span);
            }
        }
        sum
    }

    /// What the run came to so far.
    pub(crate) fn totals(&self) -> Totals {
        let fleet = self.fleet.summary();
        let leases = || fleet.groups.values().flat_map(|group| &group.leases);
        let replicas = lock(&self.replicas);
        let sites = self.manifests.sites.iter().map(ResourceExt::name_any);
        Totals {
            added: replicas.added(),
            drains: replicas.drains(),
            bought: leases().count() as u64,
            returned: leases().filter(|lease| lease.returned.is_some()).count() as u64,
            leases: leases().map(|lease| lease.cost).sum(),
            energy: lock(&self.energy).sum,
            peaks: sites.map(|site| (site.clone(), replicas.peak(&site))).collect(),
        }
    }

    /// How things stand. `begun` is when the replay began.
    pub(crate) fn picture(&self, stage: &str, begun: Timestamp, length: Span) -> Picture {
        let requests = self.ledger.snapshot();
        Picture {
            stage: stage.to_owned(),
            elapsed_secs: self.time.now().since(begun).as_secs_f64(),
            length_secs: length.as_secs_f64(),
            scale: self.time.scale(),
            sites: self.site_views(),
            pool: self.pool_view(),
            objectives: self.objective_views(&requests),
            requests,
            queued: self.router.queued(),
            decisions: self.decisions(begun),
        }
    }

    fn objective_views(&self, requests: &load::Snapshot) -> Vec<ObjectiveView> {
        use crate::summary::TargetMetric::{InterTokenLatency, TimeToFirstToken};
        let view = |target: &Target| ObjectiveView {
            value_ms: match target.metric {
                TimeToFirstToken => percentile(&requests.recent_ttft_ms, target.percentile),
                InterTokenLatency => percentile(&requests.recent_itl_ms, target.percentile),
            },
            target: target.clone(),
        };
        self.targets.iter().map(view).collect()
    }

    fn pool_view(&self) -> PoolView {
        let id = format!("{}/{}", self.manifests.namespace(), self.manifests.pool.name_any());
        let Some(status) = self.pool().and_then(|pool| pool.status.clone()) else {
            return PoolView {
                id,
                ..PoolView::default()
            };
        };
        let replicas = status.replicas.unwrap_or_default();
        let observed = status.observed.unwrap_or_default();
        PoolView {
            id,
            target: count(replicas.target),
            serving: count(replicas.serving),
            draining: count(replicas.draining),
            demand: observed.demand.unwrap_or_default(),
            sustainable: observed.sustainable.unwrap_or_default(),
            summary: status.summary.unwrap_or_default(),
            cost_per_hour: status.cost_per_hour.unwrap_or_default(),
        }
    }

    fn site_views(&self) -> Vec<SiteView> {
        let view = |site: &ServerSite| {
            let name = site.name_any();
            let live = self.sites.find(|live| live.name_any() == name);
            let status = live.and_then(|live| live.status.clone()).unwrap_or_default();
            SiteView {
                ownership: manifests::ownership(site).to_owned(),
                summary: status.summary.unwrap_or_default(),
                cost_per_hour: status.cost_per_hour.unwrap_or_default(),
                groups: self
                    .manifests
                    .groups_at(&name)
                    .map(|group| self.group_view(&name, group))
                    .collect(),
                name,
            }
        };
        self.manifests.sites.iter().map(view).collect()
    }

    fn group_view(&self, site: &str, group: &ServerGroup) -> GroupView {
        let name = group.name_any();
        let live = self.groups.find(|live| live.name_any() == name);
        let status = live.and_then(|live| live.status.clone()).unwrap_or_default();
        let nodes = self.nodes_at(site).into_iter();
        let servers: BTreeSet<_> = nodes
            .filter(|node| node.labels().get(labels::GROUP) == Some(&name))
            .map(|node| node.name_any())
            .collect();
        let by_state = status.servers.unwrap_or_default().by_state;
        let in_states = |states: &[&str]| {
            let counts = by_state.iter().filter(|(state, _)| states.contains(&state.as_str()));
            counts.map(|(_, servers)| count(*servers)).sum::<u32>()
        };
        let mut views = BTreeMap::new();
        let mut used = BTreeSet::new();
        for replica in lock(&self.replicas).alive() {
            if replica.site == site && servers.contains(&replica.server) && used.insert(replica.server.clone()) {
                let view = match replica {
                    ReplicaSeen { draining: true, .. } => ServerView::Draining,
                    ReplicaSeen { serving: true, .. } => ServerView::Serving,
                    _ => ServerView::Loading,
                };
                *views.entry(view).or_default() += 1;
            }
        }
        let leaving = in_states(&["Releasing", "Recycling"]);
        let free = u32::try_from(servers.len() - used.len()).unwrap_or(0);
        for (view, servers) in [
            (ServerView::Idle, free),
            (ServerView::Coming, in_states(&["Requested", "Provisioning", "Booting"])),
            (ServerView::Leaving, leaving),
        ] {
            if servers > 0 {
                views.insert(view, servers);
            }
        }
        let loads = self.router.loads();
        let of_group = loads
            .iter()
            .filter(|load| load.backend.id.site == site && servers.contains(&load.backend.server));
        let machine = &group.spec.machine;
        GroupView {
            machine: format!("{} {} GiB", machine.chip, machine.memory_gib),
            max: count(group.spec.size.max),
            servers: views,
            in_flight: of_group.map(|load| load.in_flight).sum(),
            leases: count(status.leases.unwrap_or(0)),
            cost_per_hour: status.cost_per_hour.unwrap_or_default(),
            name,
        }
    }

    /// Nodes with a group.
    fn nodes_at(&self, site: &str) -> Vec<Arc<Node>> {
        let all = self.nodes.get(site).map(reflector::Store::state).unwrap_or_default();
        all.into_iter()
            .filter(|node| node.labels().contains_key(labels::GROUP))
            .collect()
    }

    /// What the operator said it decided, newest first.
    fn decisions(&self, begun: Timestamp) -> Vec<DecisionView> {
        let mut views: Vec<_> = self
            .events
            .state()
            .iter()
            .filter_map(|event| self.decision(event, begun))
            .collect();
        views.sort_by(|a, b| b.at_secs.total_cmp(&a.at_secs));
        view::told(views, DECISIONS)
    }

    fn decision(&self, event: &Event, begun: Timestamp) -> Option<DecisionView> {
        event
            .reporting_controller
            .as_ref()?
            .starts_with("pomarium")
            .then_some(())?;
        let series = event.series.as_ref();
        let at = series
            .map(|series| &series.last_observed_time)
            .or(event.event_time.as_ref())?;
        let at = self.time.at_real_ms(at.0.as_millisecond());
        let regarding = event.regarding.as_ref()?;
        Some(DecisionView {
            at_secs: (at.as_millis() - begun.as_millis()) as f64 / 1_000.0,
            reason: event.reason.clone().unwrap_or_default(),
            subject: format!(
                "{} {}",
                regarding.kind.as_deref().unwrap_or_default(),
                regarding.name.as_deref().unwrap_or_default()
            ),
            message: event.note.clone().unwrap_or_default(),
            count: series.map_or(1, |series| count(series.count)),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// A store that follows all objects of `api`.
fn stored<K>(watches: &mut JoinSet<()>, api: Api<K>) -> reflector::Store<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    K::DynamicType: Default + std::hash::Hash + Eq + Clone + Unpin + Send + Sync,
{
    let (store, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    // Errors are retried with back-off; a store that lags shows an older picture, no wrong one.
    watches.spawn(stream.for_each(|_| futures::future::ready(())));
    store
}

/// Follows the Pods of a pool at one site, event by event, so that no short life is missed.
async fn follow(pods: Api<Pod>, selector: String, site: String, replicas: Arc<Mutex<Replicas>>) {
    let config = watcher::Config::default().labels(&selector);
    let mut events = watcher(pods, config).default_backoff().into_stream().boxed();
    let mut listed = BTreeSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(pod))) => {
                listed.insert(pod.uid().unwrap_or_default());
                lock(&replicas).seen(replica(&site, &pod));
            }
            Ok(Some(watcher::Event::InitDone)) => lock(&replicas).only(&site, &listed),
            Ok(Some(watcher::Event::Apply(pod))) => lock(&replicas).seen(replica(&site, &pod)),
            Ok(Some(watcher::Event::Delete(pod))) => lock(&replicas).gone(&site, &pod.uid().unwrap_or_default()),
            Ok(None) => return,
            Err(_) => {}
        }
    }
}

fn replica(site: &str, pod: &Pod) -> ReplicaSeen {
    let deleted = pod.metadata.deletion_timestamp.is_some();
    let labelled = pod.labels().get(labels::SERVING).is_some_and(|value| value == "true");
    ReplicaSeen {
        site: site.to_owned(),
        uid: pod.uid().unwrap_or_default(),
        server: pod.annotations().get(labels::SERVER).cloned().unwrap_or_default(),
        serving: pod_is_ready(pod) && labelled && !deleted,
        draining: deleted || pod.annotations().contains_key(labels::DRAIN),
    }
}
