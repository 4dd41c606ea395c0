//! Asks one engine for its metrics, directly or through the pod proxy of its API server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::engine;
use super::scrape::Scrape;
use super::target::Address;
use crate::apply::AskLoad;
use crate::clock::Clock;
use crate::fetch::{self, Bounds};
use crate::member::Members;
use futures::future::BoxFuture;
use futures::{AsyncReadExt, FutureExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pomarium_api::labels;
use pomarium_api::pool::EngineType;
use pomarium_api::site::MetricsAccess;
use pomarium_kernel::names::SiteName;
use pomarium_kernel::snapshot::Load;
use reqwest::Method;

/// For one question that somebody waits for.
const NOW: Bounds = Bounds {
    time: Duration::from_secs(2),
    bytes: super::LONGEST_ANSWER,
};

/// Why an engine's metrics are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Over HTTP.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    /// It answered with something else than 200.
    #[error("it answered {0}")]
    Status(reqwest::StatusCode),
    /// Through the API server.
    #[error("through the API server: {0}")]
    Proxy(String),
    /// The site says that engines are not to be asked one by one, or does not answer.
    #[error("engines of site {0} cannot be asked")]
    NoAccess(SiteName),
}

/// Asks engines. Clones share everything.
#[derive(Clone)]
pub struct Engines {
    http: reqwest::Client,
    members: Members,
    clock: Clock,
    access: Arc<Mutex<BTreeMap<SiteName, MetricsAccess>>>,
}

impl Engines {
    pub(super) fn new(http: reqwest::Client, members: Members, clock: Clock) -> Self {
        Self {
            http,
            members,
            clock,
            access: Arc::default(),
        }
    }

    /// Says how engines of each site are reached.
    pub(super) fn set_access(&self, access: BTreeMap<SiteName, MetricsAccess>) {
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// The text of one engine's metrics.
    pub(super) async fn read(&self, address: &Address, bounds: Bounds) -> Result<String, AskError> {
        let access = {
            let all = self.access.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&address.site).copied().unwrap_or_default()
        };
        match access {
            MetricsAccess::Direct => {
                let (status, text) = fetch::send(&self.http, Method::GET, &address.url(), bounds).await?;
                status.is_success().then_some(text).ok_or(AskError::Status(status))
            }
            MetricsAccess::PodProxy => self.through_proxy(address, bounds).await,
            MetricsAccess::Prometheus => Err(AskError::NoAccess(address.site.clone())),
        }
    }

    async fn through_proxy(&self, address: &Address, bounds: Bounds) -> Result<String, AskError> {
        let failed = |error: &dyn std::error::Error| AskError::Proxy(fetch::root_cause(error));
        let member = self
            .members
            .get(&address.site)
            .ok_or_else(|| AskError::NoAccess(address.site.clone()))?;
        let request = http::Request::get(address.proxy_path())
            .body(Vec::new())
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let stream = member
                .read
                .request_stream(request)
                .await
                .map_err(|error| failed(&error))?;
            let mut body = Vec::new();
            // One byte more than is allowed tells a long answer from one that just fits.
            let limit = u64::try_from(bounds.bytes).unwrap_or(u64::MAX).saturating_add(1);
            std::pin::pin!(stream)
                .take(limit)
                .read_to_end(&mut body)
                .await
                .map_err(|error| failed(&error))?;
            if body.len() > bounds.bytes {
                return Err(fetch::FetchError::Huge(bounds.bytes).into());
            }
            Ok(String::from_utf8_lossy(&body).into_owned())
        };
        tokio::time::timeout(bounds.time, exchange)
            .await
            .unwrap_or(Err(fetch::FetchError::Slow(bounds.time).into()))
    }
}

impl AskLoad for Engines {
    fn ask<'a>(&'a self, site: &'a SiteName, pod: &'a Pod) -> BoxFuture<'a, Load> {
        async move {
            let (Some(address), Some(engine)) = (address(site, pod), engine_of(pod)) else {
                return Load::Unknown;
            };
            let asked_at = self.clock.now();
            match self.read(&address, NOW).await {
                Ok(text) => engine::load(&Scrape::read(&text, engine::names(engine)), asked_at),
                Err(_) => Load::Unknown,
            }
        }
        .boxed()
    }
}

fn address(site: &SiteName, pod: &Pod) -> Option<Address> {
    let containers = &pod.spec.as_ref()?.containers;
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports
        .into_iter()
        .find(|port| port.name.as_deref() == Some("http"))?
        .container_port;
    Some(Address {
        site: site.clone(),
        namespace: pod.namespace()?,
        name: pod.name_any(),
        ip: pod.status.as_ref()?.pod_ip.clone()?,
        port: u16::try_from(port).ok()?,
    })
}

fn engine_of(pod: &Pod) -> Option<EngineType> {
    let name = pod.annotations().get(labels::ENGINE)?;
    serde_json::from_value(serde_json::Value::String(name.clone())).ok()
}
