//! Builds the world of the demo: two clusters, the operator with the chart's rights, the emulated fleet, the router.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::{Client, ResourceExt};
use pomarium_api::site::ServerSite;
use serde_json::json;

use super::manifests::Manifests;
use super::observer::Observer;
use super::steps::Steps;
use crate::chart;
use crate::cluster::{self, ControlPlane};
use crate::fleet::{self, Fleet, FleetConfig};
use crate::load::Ledger;
use crate::operator_process::{self, Operator, OperatorConfig};
use crate::router::{self, Labels, Router, backends};
use crate::time::VirtualTime;

/// Virtual time that a request waits in the router for a replica, and that a model server may be silent.
const PATIENCE_SECS: f64 = 600.0;

/// Longest real wait for the operator to be ready.
const OPERATOR_LIMIT: Duration = Duration::from_secs(60);

/// Everything that runs. Fields are dropped in this order: who acts goes before what is acted upon.
pub(crate) struct World {
    pub(crate) observer: Arc<Observer>,
    pub(crate) operator: Operator,
    pub(crate) router: Arc<Router>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) clusters: BTreeMap<String, ControlPlane>,
    /// The hub's name among the clusters.
    pub(crate) hub: String,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) time: VirtualTime,
}

/// Finds or builds the programs.
pub(crate) async fn programs(steps: &mut Steps) -> Result<()> {
    steps
        .next("control plane and operator binaries (built once; the first time about 5 minutes with Go, 3 with Cargo)");
    cluster::binary().await?;
    operator_process::built().await?;
    Ok(())
}

/// Starts all of it.
pub(crate) async fn build(manifests: &Manifests, scale: f64, steps: &mut Steps) -> Result<World> {
    let names: Vec<_> = manifests.sites.iter().map(ResourceExt::name_any).collect();
    steps.next(&format!("clusters {} (about 10 s)", names.join(" and ")));
    let started = names
        .iter()
        .map(|name| ControlPlane::builder(name).audit(false).start());
    let started = futures::future::try_join_all(started).await?;
    let clusters: BTreeMap<_, _> = names.iter().cloned().zip(started).collect();
    let hub_name = manifests.hub_site()?.name_any();
    let hub = clusters.get(&hub_name).context("the hub has no cluster")?;
    let mut clients = BTreeMap::new();
    for (name, cluster) in &clusters {
        clients.insert(name.clone(), cluster.client().await?);
    }

    steps.next("Pomarium's chart in the hub, its rights in the member clusters");
    let kubeconfig = install(hub, manifests, &clusters).await?;

    steps.next(&format!("emulated servers; from here one second is {scale} s"));
    let time = VirtualTime::from_now(scale);
    let fleet = Arc::new(Fleet::start(fleet_config(manifests, &clients, time)?).await?);
    let router = start_router(manifests, &clients, time).await?;

    steps.next("the operator");
    let operator = Operator::start(OperatorConfig::new(kubeconfig).args([
        "--fleet-url".to_owned(),
        fleet.url().to_owned(),
        "--gateway-metrics-url".to_owned(),
        router.metrics_url(),
        "--time-origin".to_owned(),
        time.origin_ms().to_string(),
        "--time-scale".to_owned(),
        time.scale().to_string(),
        // Both clusters are on this machine.
        "--allow-loopback-members".to_owned(),
    ]))
    .await?;
    operator.wait_until_ready(OPERATOR_LIMIT).await?;

    let ledger = Arc::new(Ledger::default());
    let hub_client = clients.get(&hub_name).context("the hub has no client")?;
    let observer = Observer::start(
        manifests,
        time,
        hub_client,
        &clients,
        router.clone(),
        ledger.clone(),
        fleet.clone(),
    );
    Ok(World {
        observer: Arc::new(observer),
        operator,
        router,
        fleet,
        clusters,
        hub: hub_name,
        ledger,
        time,
    })
}

/// Installs the chart everywhere, and puts the members' credentials into the hub. Returns the operator's own kubeconfig.
async fn install(
    hub: &ControlPlane,
    manifests: &Manifests,
    clusters: &BTreeMap<String, ControlPlane>,
) -> Result<String> {
    let kubeconfig = chart::install(hub, &[]).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": manifests.namespace()}});
    for cluster in clusters.values() {
        cluster.apply_yaml(&namespace.to_string()).await?;
    }
    for site in manifests.remote_sites() {
        let name = site.name_any();
        let member = clusters.get(&name).context("a site has no cluster")?;
        let credentials = chart::install_member(member, &[]).await?;
        hub.apply_yaml(&secret(site, &credentials)?).await?;
    }
    Ok(kubeconfig)
}

/// The Secret that a site's `kubeconfigSecretRef` names.
fn secret(site: &ServerSite, kubeconfig: &str) -> Result<String> {
    let reference = site.spec.connection.kubeconfig_secret_ref.as_ref();
    let reference = reference.context("the site is not reached by a kubeconfig")?;
    let key = reference.key.as_deref().unwrap_or("kubeconfig");
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": reference.name, "namespace": chart::NAMESPACE},
        "stringData": {key: kubeconfig},
    });
    Ok(secret.to_string())
}

async fn start_router(
    manifests: &Manifests,
    clients: &BTreeMap<String, Client>,
    time: VirtualTime,
) -> Result<Arc<Router>> {
    let patience = Duration::from_secs_f64(PATIENCE_SECS / time.scale());
    let pool = manifests.pool.name_any();
    let config = router::Config {
        bind: ([127, 0, 0, 1], 0).into(),
        labels: Labels {
            model_name: manifests.pool.spec.model.name.clone(),
            namespace: manifests.namespace(),
            pool: pool.clone(),
        },
        thresholds: manifests.thresholds(),
        scale: time.scale(),
        queue_timeout: patience,
        silence: patience,
    };
    let router = Arc::new(Router::start(config).await?);
    let speeds = manifests.speeds()?;
    for (site, client) in clients {
        let source = backends::Source {
            site: site.clone(),
            client: client.clone(),
            namespace: manifests.namespace(),
            pool: pool.clone(),
            speeds: speeds.clone(),
        };
        router.follow(source);
    }
    Ok(router)
}

/// The machines that the groups describe.
fn fleet_config(manifests: &Manifests, clients: &BTreeMap<String, Client>, time: VirtualTime) -> Result<FleetConfig> {
    let groups = manifests.groups.iter().map(|group| manifests.machines_of(group));
    Ok(FleetConfig {
        clusters: clients.clone(),
        groups: groups.collect::<Result<_>>()?,
        time,
        tick: fleet::TICK,
    })
}
