//! Puts everything together; the only place that knows all parts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Client, Config};
use pomarium_kernel::time::Span;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::apply::Hands;
use crate::client::{self, Gate, RateLimit, error_chain};
use crate::clock::Clock;
use crate::export::Exporter;
use crate::health::{self, Check, Health};
use crate::history::{Backfill, Histories};
use crate::latest::Trigger;
use crate::leader::{Election, Settings};
use crate::measure::{Meter, Sources};
use crate::member::{Hub, Members, Surroundings};
use crate::pass::{Executor, Eyes, HubCaches, Loop};
use crate::provider::{Inventories, Providers};
use crate::strategist::Strategist;
use crate::telemetry::Telemetry;

/// Kinds without which nothing can begin.
const KINDS: [&str; 4] = ["serverpools", "servergroups", "serversites", "serverplans"];

/// Between two looks for the API server and the custom resources.
const WAIT: Duration = Duration::from_secs(1);

/// What is to be written before this process ends takes no longer.
const FAREWELL: Duration = Duration::from_secs(5);

/// Requests per second to the hub, and at once after a quiet time.
const HUB_RATE: (u32, u32) = (100, 400);

/// How the controller is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// A kubeconfig file; the usual places and the Pod's own account if there is none.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it.
    pub context: Option<String>,
    /// The operator's own namespace.
    pub namespace: String,
    /// Name of this process among the candidates for leadership.
    pub identity: String,
    /// Where metrics are served.
    pub metrics_bind: SocketAddr,
    /// Where probes are served.
    pub health_bind: SocketAddr,
    /// Elect a leader; without, this process must be the only one.
    pub leader_elect: bool,
    /// How long leadership is honoured after its last renewal.
    pub lease_duration: Duration,
    /// The emulated fleet.
    pub fleet_url: Option<String>,
    /// The gateway's metrics.
    pub gateway_metrics_url: Option<String>,
    /// Prometheus.
    pub prometheus_url: Option<String>,
    /// Time.
    pub clock: Clock,
    /// Longest time between two passes.
    pub tick: Span,
    /// Accept kubeconfigs of member clusters on this very machine.
    pub allow_loopback_members: bool,
}

/// Why the controller ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to reach the hub.
    #[error("reading the kubeconfig of the hub")]
    Kubeconfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client cannot be made.
    #[error("preparing the client of the hub")]
    Client(#[source] Box<kube::Error>),
    /// An address is taken or not ours.
    #[error("serving {what} on {address}")]
    Serve {
        /// What.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The metrics cannot be registered.
    #[error("registering metrics")]
    Metrics(#[from] prometheus::Error),
    /// Signals cannot be received.
    #[error("listening for signals")]
    Signals(#[source] std::io::Error),
    /// Another process leads, or may. To be started again.
    #[error("leadership was lost")]
    LeadershipLost,
    /// A part that never ends has ended.
    #[error("the {0} ended")]
    Ended(&'static str),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Client(Box::new(error))
    }
}

/// Runs the controller until a signal ends it.
pub async fn run(options: Options) -> Result<(), Error> {
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let telemetry = Telemetry::new()?;
    let health = Health::default();
    let (address, served) = (options.health_bind, health.clone());
    let probes = async move { (health::serve_probes(address, served).await, "probes", address) };
    let (address, served) = (options.metrics_bind, telemetry.clone());
    let trigger = Trigger::default();
    let exporter = Exporter::new(trigger.clone());
    let asked = exporter.clone();
    let metrics = async move { (health::serve_metrics(address, served, asked).await, "metrics", address) };

    let settings = Settings {
        namespace: options.namespace.clone(),
        identity: options.identity.clone(),
        lease_duration: options.lease_duration,
    };
    let gate = if options.leader_elect {
        Gate::shut()
    } else {
        Gate::open()
    };
    let config = hub_config(&options).await?;
    let timeout = settings.write_timeout();
    // The Lease has a client of its own: neither the gate nor a queue of other requests may keep it from being renewed.
    let lease_client = client::writer(config.clone(), &RateLimit::new(50, 50), &Gate::open(), timeout)?;
    let election = Election::new(lease_client, settings, gate.clone());

    let stop = Arc::new(Notify::new());
    let parts = Parts {
        stop: Arc::clone(&stop),
        health: health.clone(),
        telemetry: telemetry.clone(),
        trigger,
        exporter,
    };
    let work = async {
        tokio::select! {
            () = lead(&election, &options, &health) => Err(Error::LeadershipLost),
            result = control(&options, config, gate.clone(), timeout, parts) => result,
        }
    };
    tokio::pin!(work);
    let result = tokio::select! {
        (served, what, address) = probes => Err(ended(served, what, address)),
        (served, what, address) = metrics => Err(ended(served, what, address)),
        result = &mut work => result,
        signal = signals.next() => {
            info!(signal, "stopping");
            stop.notify_one();
            if tokio::time::timeout(FAREWELL, work).await.is_err() {
                warn!("what was learnt since the last batch is lost: it could not be written in time");
            }
            Ok(())
        }
    };
    gate.close();
    if options.leader_elect && result.is_ok() {
        election.resign().await;
    }
    result
}

fn ended(served: std::io::Result<()>, what: &'static str, address: SocketAddr) -> Error {
    match served {
        Ok(()) => Error::Ended(what),
        Err(source) => Error::Serve { what, address, source },
    }
}

/// Leads until the leadership is lost.
async fn lead(election: &Election, options: &Options, health: &Health) {
    // Standing by is ready, too.
    health.set(Check::Election, true);
    if !options.leader_elect {
        return std::future::pending().await;
    }
    election.win().await;
    election.keep().await;
}

/// What the loop shares with those who ask from outside.
struct Parts {
    stop: Arc<Notify>,
    health: Health,
    telemetry: Telemetry,
    trigger: Trigger,
    exporter: Exporter,
}

/// Observes, plans and acts.
async fn control(
    options: &Options,
    config: Config,
    gate: Gate,
    write_timeout: Duration,
    parts: Parts,
) -> Result<(), Error> {
    let Parts {
        stop,
        health,
        telemetry,
        trigger,
        exporter,
    } = parts;
    let limit = RateLimit::new(HUB_RATE.0, HUB_RATE.1);
    let read = client::reader(config.clone(), &limit)?;
    let write = client::writer(config.clone(), &limit, &gate, write_timeout)?;
    wait_for_kinds(&read).await;
    health.set(Check::Crds, true);
    let hub = Hub {
        uid: hub_uid(&read).await,
        read,
        write,
        namespace: options.namespace.clone(),
    };

    let caches = HubCaches::new(&trigger);
    // Everything that runs beside the loop ends with it.
    let mut tasks = JoinSet::new();
    follow_hub(&caches, &hub, &mut tasks);
    let members = Members::new(Surroundings {
        hub: hub.clone(),
        hub_config: config,
        clock: options.clock,
        gate: gate.clone(),
        write_timeout,
        trigger: trigger.clone(),
        allow_loopback: options.allow_loopback_members,
    });
    let providers = Providers::new(hub.clone(), members.clone(), options.fleet_url.clone(), options.clock);
    let inventories = Inventories::new(providers, options.clock, trigger.clone()).guarded_by(gate.clone());
    tasks.spawn(inventories.clone().run());
    let sources = Sources {
        gateway: options.gateway_metrics_url.clone(),
        prometheus: options.prometheus_url.clone(),
    };
    let meter = Meter::new(sources, members.clone(), options.clock, trigger.clone());
    tasks.spawn(meter.clone().run());
    // In compressed time, nobody else's calendar is ours.
    let uncompressed = (options.clock.scale() - 1.0).abs() < f64::EPSILON;
    let backfill = options
        .prometheus_url
        .as_deref()
        .filter(|_| uncompressed)
        .map(Backfill::new);
    let hands = Hands {
        hub: hub.clone(),
        members: members.clone(),
        inventories: inventories.clone(),
        loads: Arc::new(meter.engines()),
    };
    let turns = Loop {
        eyes: Eyes {
            hub_uid: hub.uid.clone(),
            namespace: hub.namespace.clone(),
            started: options.clock.now(),
            hub: caches,
            members: members.clone(),
            inventories,
            meter,
        },
        execute: Executor::new(hands, options.identity.clone()),
        histories: Histories::new(hub.clone(), backfill),
        strategist: Strategist::new(trigger.clone()),
        exporter,
        memo: pomarium_kernel::planning::Memo::default(),
        to_export: None,
        clock: options.clock,
        tick: options.tick,
        gate,
        trigger,
        stop,
        health,
        telemetry,
    };
    tokio::select! {
        () = turns.run() => Err(Error::Ended("loop")),
        Some(_) = tasks.join_next() => Err(Error::Ended("background work")),
    }
}

fn follow_hub(caches: &HubCaches, hub: &Hub, tasks: &mut JoinSet<()>) {
    let HubCaches {
        pools,
        groups,
        sites,
        plans,
        secrets,
    } = caches.clone();
    let config = watcher::Config::default();
    let (api, settings) = (Api::all(hub.read.clone()), config.clone());
    tasks.spawn(async move { pools.follow(api, settings).await });
    let (api, settings) = (Api::all(hub.read.clone()), config.clone());
    tasks.spawn(async move { groups.follow(api, settings).await });
    let (api, settings) = (Api::all(hub.read.clone()), config.clone());
    tasks.spawn(async move { sites.follow(api, settings).await });
    let (api, settings) = (Api::all(hub.read.clone()), config.clone());
    tasks.spawn(async move { plans.follow(api, settings).await });
    let api = Api::namespaced(hub.read.clone(), &hub.namespace);
    tasks.spawn(async move { secrets.follow(api, config).await });
}

async fn hub_config(options: &Options) -> Result<Config, Error> {
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| Error::Kubeconfig(error);
    if options.kubeconfig.is_none() && options.context.is_none() {
        return Config::infer().await.map_err(|error| unreadable(error.into()));
    }
    let kubeconfig = match &options.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    }
    .map_err(|error| unreadable(error.into()))?;
    let chosen = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(kubeconfig, &chosen)
        .await
        .map_err(|error| unreadable(error.into()))
}

/// Waits until the API server answers and serves our kinds. Installing the operator before its CRDs is no error.
async fn wait_for_kinds(client: &Client) {
    let mut last = String::new();
    loop {
        let missing = match client.list_api_group_resources("pomarium.dev/v1alpha1").await {
            Ok(served) => {
                let offers = |kind: &&str| served.resources.iter().any(|resource| resource.name == **kind);
                let absent: Vec<&str> = KINDS.iter().filter(|kind| !offers(kind)).copied().collect();
                if absent.is_empty() {
                    return;
                }
                format!("custom resources are missing: {}", absent.join(", "))
            }
            // By the code: where a whole API group is missing, the server answers with a line of text and no reason.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                "the custom resources of pomarium.dev/v1alpha1 are not installed".to_owned()
            }
            Err(error) => error_chain(&error),
        };
        if missing != last {
            warn!(missing, "waiting for the custom resources");
            last = missing;
        }
        tokio::time::sleep(WAIT).await;
    }
}

/// Uid of `kube-system`: as good as the uid of the cluster itself, which has none.
async fn hub_uid(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        match namespaces.get("kube-system").await {
            Ok(Namespace { metadata, .. }) => {
                if let Some(uid) = metadata.uid {
                    return uid;
                }
            }
            Err(error) => warn!(error = error_chain(&error), "reading the namespace kube-system"),
        }
        tokio::time::sleep(WAIT).await;
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
