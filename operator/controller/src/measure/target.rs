//! Whom to ask: pure, from what has been seen.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pomarium_api::labels;
use pomarium_api::pool::{EngineType, MetricsSource};
use pomarium_api::site::MetricsAccess;
use pomarium_kernel::names::{GroupName, PoolId, SiteName};
use pomarium_kernel::snapshot::{Objective, Snapshot};

use crate::world::{PodSeen, World};

/// All pools, and the Pods that run for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Targets {
    /// By pool.
    pub(crate) pools: BTreeMap<PoolId, PoolTarget>,
}

/// One pool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolTarget {
    /// Where its arrivals and latencies are measured.
    pub(crate) source: MetricsSource,
    /// How gateways name its model.
    pub(crate) model: String,
    /// What its Pods run.
    pub(crate) engine: EngineType,
    /// In the order of the spec.
    pub(crate) objectives: Vec<Objective>,
    /// Pods that have an address.
    pub(crate) pods: Vec<PodTarget>,
}

/// One Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodTarget {
    /// Its uid.
    pub(crate) uid: String,
    /// Where it answers.
    pub(crate) address: Address,
    /// On which group's server it runs, if it says so.
    pub(crate) group: Option<GroupName>,
    /// It is ready, and routers may send it requests.
    pub(crate) serving: bool,
    /// It is on its way out: asked more often.
    pub(crate) draining: bool,
}

/// Where an engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// In which cluster.
    pub(crate) site: SiteName,
    /// Its Pod's namespace.
    pub(crate) namespace: String,
    /// Its Pod's name.
    pub(crate) name: String,
    /// Its Pod's address.
    pub(crate) ip: String,
    /// Its port.
    pub(crate) port: u16,
}

impl Address {
    /// The metrics, for those who reach the Pod.
    pub(super) fn url(&self) -> String {
        let Self { ip, port, .. } = self;
        match ip.parse::<IpAddr>() {
            Ok(ip) => format!("http://{}/metrics", SocketAddr::new(ip, *port)),
            Err(_) => format!("http://{ip}:{port}/metrics"),
        }
    }

    /// The metrics, through the API server of the Pod's cluster.
    pub(super) fn proxy_path(&self) -> String {
        let Self {
            namespace, name, port, ..
        } = self;
        format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics")
    }
}

impl Targets {
    /// All usable pools with their Pods at all sites.
    pub(super) fn new(snapshot: &Snapshot, world: &World) -> Self {
        let mut pools: BTreeMap<PoolId, PoolTarget> = snapshot
            .pools
            .iter()
            .filter_map(|(id, pool)| {
                let spec = &world.pools.get(id)?.spec;
                let target = PoolTarget {
                    source: spec
                        .metrics
                        .as_ref()
                        .and_then(|metrics| metrics.source)
                        .unwrap_or_default(),
                    model: spec.model.name.clone(),
                    engine: spec.engine.r#type,
                    objectives: pool.objectives.clone(),
                    pods: Vec::new(),
                };
                Some((id.clone(), target))
            })
            .collect();
        for (site, seen) in &world.sites {
            for pod in seen.pods.values() {
                let Some(name) = pod.labels.get(labels::POOL) else {
                    continue;
                };
                let id = PoolId::new(pod.namespace.clone(), name.clone());
                if let (Some(pool), Some(target)) = (pools.get_mut(&id), pod_target(site, pod)) {
                    pool.pods.push(target);
                }
            }
        }
        Self { pools }
    }

    /// Pools that are measured at `source`, with the names of their models.
    pub(super) fn of_source(&self, source: MetricsSource) -> Vec<(&PoolId, &str)> {
        let of_source = self.pools.iter().filter(|(_, target)| target.source == source);
        of_source.map(|(id, target)| (id, target.model.as_str())).collect()
    }
}

/// How the engines of each site are reached.
pub(super) fn access(world: &World) -> BTreeMap<SiteName, MetricsAccess> {
    world
        .sites
        .iter()
        .map(|(name, site)| (name.clone(), site.object.spec.metrics_access.unwrap_or_default()))
        .collect()
}

/// A Pod that runs and has an address. One that has not answers nobody.
fn pod_target(site: &SiteName, pod: &PodSeen) -> Option<PodTarget> {
    if pod.phase != "Running" {
        return None;
    }
    let labelled = pod.labels.get(labels::SERVING).is_some_and(|value| value == "true");
    Some(PodTarget {
        uid: pod.uid.clone(),
        address: Address {
            site: site.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            ip: pod.ip.clone()?,
            port: pod.port?,
        },
        group: pod.labels.get(labels::GROUP).map(|name| GroupName::new(name.clone())),
        serving: labelled && pod.ready,
        draining: pod.drain.is_some() || pod.deletion.is_some(),
    })
}
