//! One Pod on one server, as its kubelet plays it.
//!
//! # Guarantees
//! - A Pod is ready when its model is loaded, which takes virtual time, and not before.
//! - A deleted Pod with a `preStop` hook goes on serving until it is idle, then it is shut down in good order; after its
//!   grace period (virtual) it is killed; another deletion may shorten that. Without a hook it is killed at once, as a
//!   model server ends on SIGTERM.
//! - The Pod object goes last, by its uid, when nothing answers any more.
//! - A member API server that does not answer stops no engine; what it missed is written when it answers again.
//!
//! # Caveats
//! A hook's command or request is not run: any `exec` or `httpGet` hook counts as one that waits for idle, `sleep` sleeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use pomarium_api::labels;
use pomarium_api::pool::EngineType;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::time::{Span, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Shared;
use super::cluster::{Backoff, Server, call};
use super::figures::Kind;
use super::group::ModelProfile;
use super::process::{Process, Spec};
use crate::readiness::pod_is_ready;

/// The container that serves; the first one if none has that name.
const ENGINE_CONTAINER: &str = "engine";
const DEFAULT_PORT: u16 = 8080;
/// Grace period of a Pod that names none, as the API server defaults it.
const DEFAULT_GRACE: Span = Span::from_secs(30);

/// Plays the Pod until it is gone or its server is released.
pub(crate) async fn play(object: watch::Receiver<Option<Arc<Pod>>>, server: Arc<Server>, shared: Arc<Shared>) {
    let Some(pod) = object.borrow().clone() else { return };
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let kubelet = Kubelet {
        pods: Api::namespaced(server.group.cluster.client.clone(), &namespace),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        address: shared.address(),
        born: jiff::Timestamp::now(),
        changed: jiff::Timestamp::now(),
        restarts: 0,
        life: Life::Waiting,
        written: None,
        object,
        server: Arc::clone(&server),
        shared,
    };
    let uid = kubelet.uid.clone();
    kubelet.run().await;
    server.processes().remove(&uid);
}

/// Where the container is in its life.
enum Life {
    /// It has not started: see the message.
    Waiting,
    /// Its process cannot be started.
    Refused(&'static str, String),
    /// The process runs and loads its model.
    Loading { process: Arc<Process>, until: Timestamp },
    /// The process takes requests.
    Serving { process: Arc<Process> },
}

struct Kubelet {
    pods: Api<Pod>,
    name: String,
    uid: String,
    address: Ipv4Addr,
    /// When the kubelet took the Pod, and when its life changed last. Real time.
    born: jiff::Timestamp,
    changed: jiff::Timestamp,
    restarts: u32,
    life: Life,
    /// The status that was written last.
    written: Option<Value>,
    object: watch::Receiver<Option<Arc<Pod>>>,
    server: Arc<Server>,
    shared: Arc<Shared>,
}

impl Kubelet {
    async fn run(mut self) {
        let mut ailments = self.server.ailments.subscribe();
        let mut backoff = Backoff::default();
        loop {
            let Some(pod) = self.object.borrow_and_update().clone() else {
                return self.kill().await;
            };
            if self.server.released.is_cancelled() {
                return self.leave().await;
            }
            if ailments.borrow_and_update().dead {
                // Nothing happens on a dead machine; when it is back, its processes are not.
                tokio::select! {
                    _ = ailments.changed() => {}
                    _ = self.object.changed() => {}
                    () = self.server.released.cancelled() => {}
                }
                if !ailments.borrow().dead {
                    self.reboot().await;
                }
                continue;
            }
            if pod.metadata.deletion_timestamp.is_some() {
                if self.terminate(&pod).await {
                    return;
                }
                continue;
            }
            if matches!(self.life, Life::Waiting | Life::Refused(..)) {
                self.start(&pod).await;
            }

            let mut retry = None;
            match self.write_status(&pod).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::debug!(pod = self.name, %error, "writing a Pod's status");
                    self.written = None;
                    retry = Some(backoff.pause());
                }
            }
            if matches!(self.life, Life::Refused(..)) {
                retry.get_or_insert_with(|| backoff.pause());
            }
            let loaded = async {
                match &self.life {
                    Life::Loading { until, .. } => self.shared.time.sleep_until(*until).await,
                    _ => std::future::pending().await,
                }
            };
            let again = async {
                match retry {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            let mut object = self.object.clone();
            tokio::select! {
                _ = object.changed() => {}
                _ = ailments.changed() => {}
                () = self.server.released.cancelled() => {}
                () = again => {}
                () = loaded => self.finish_loading(),
            }
        }
    }

    async fn start(&mut self, pod: &Pod) {
        let container = engine_container(pod);
        let Some(profile) = self.profile(pod) else {
            let message = format!(
                "the machines of {} have no figures for this pool",
                self.server.group.config.name
            );
            self.life = Life::Refused("CreateContainerError", message);
            return;
        };
        let port = container.and_then(port).unwrap_or(DEFAULT_PORT);
        let spec = Spec {
            kind: Kind {
                engine: engine(pod).unwrap_or(profile.engine),
                model: profile.model,
                kv_tokens: profile.times.kv_tokens,
            },
            times: profile.times,
            address: SocketAddr::from((self.address, port)),
        };
        let (clock, lag) = (self.shared.clock, Arc::clone(&self.shared.lag));
        let totals = Arc::clone(&self.server.group.totals);
        self.life = match Process::start(spec, clock, lag, totals, self.server.ailments.subscribe()).await {
            Ok(process) => {
                let process = Arc::new(process);
                self.server.processes().insert(self.uid.clone(), Arc::clone(&process));
                self.changed = jiff::Timestamp::now();
                Life::Loading {
                    process,
                    until: self.shared.time.now() + profile.load_time,
                }
            }
            Err(error) => Life::Refused(
                "RunContainerError",
                format!("listening on {}: {error}", SocketAddr::from((self.address, port))),
            ),
        };
    }

    fn profile(&self, pod: &Pod) -> Option<ModelProfile> {
        let config = &self.server.group.config;
        let pool = pod.metadata.labels.as_ref().and_then(|labels| labels.get(labels::POOL));
        let id = pool.map(|pool| PoolId::new(pod.metadata.namespace.clone().unwrap_or_default(), pool.as_str()));
        id.and_then(|id| config.models.get(&id))
            .or(config.other_models.as_ref())
            .cloned()
    }

    fn finish_loading(&mut self) {
        if let Life::Loading { process, .. } = &self.life {
            process.loaded();
            self.changed = jiff::Timestamp::now();
            self.life = Life::Serving {
                process: Arc::clone(process),
            };
        }
    }

    /// The machine has booted again: the container starts anew.
    async fn reboot(&mut self) {
        if self.process().is_some() {
            self.kill().await;
            self.restarts += 1;
        }
        self.written = None;
    }

    fn process(&self) -> Option<&Arc<Process>> {
        match &self.life {
            Life::Loading { process, .. } | Life::Serving { process } => Some(process),
            Life::Waiting | Life::Refused(..) => None,
        }
    }

    async fn kill(&mut self) {
        if let Some(process) = self.process() {
            process.kill().await;
        }
        self.server.processes().remove(&self.uid);
        self.life = Life::Waiting;
        self.changed = jiff::Timestamp::now();
    }

    /// The server was given back with the Pod on it.
    async fn leave(mut self) {
        self.kill().await;
        // A cluster collects the Pods of Nodes that are gone in minutes of real time, which are hours here.
        self.delete_object().await;
    }

    /// Ends the container as a deletion asks. False if something else came first that must be looked at.
    async fn terminate(&mut self, pod: &Pod) -> bool {
        if let Some(process) = self.process().cloned() {
            let loaded_at = match &self.life {
                Life::Loading { until, .. } => Some(*until),
                _ => None,
            };
            let hook = hook(pod);
            let ending = async {
                match hook {
                    Hook::None => process.kill().await,
                    Hook::Idle => {
                        process.idle().await;
                        process.shut_down().await;
                    }
                    Hook::Sleep(span) => {
                        self.shared.time.sleep(span).await;
                        process.kill().await;
                    }
                }
            };
            // The model goes on loading, and requests that came early are answered.
            let loading = async {
                if let Some(until) = loaded_at {
                    self.shared.time.sleep_until(until).await;
                    process.loaded();
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = ending => {}
                () = loading => {}
                () = self.grace_is_over() => {}
                () = self.interrupted() => return false,
            }
            self.kill().await;
        }
        self.delete_object().await;
        true
    }

    /// Returns when the grace period has passed. Another deletion may shorten it, counted from that one.
    async fn grace_is_over(&self) {
        let mut object = self.object.clone();
        let mut deadline = None;
        loop {
            let grace = object.borrow_and_update().as_deref().map(grace_period);
            let proposed = grace.map(|grace| self.shared.time.now() + grace);
            deadline = deadline.into_iter().chain(proposed).min();
            let Some(deadline) = deadline else { return };
            tokio::select! {
                () = self.shared.time.sleep_until(deadline) => return,
                _ = object.changed() => {}
            }
        }
    }

    /// Returns when waiting for a good end makes no sense any more: the object was deleted by force, the machine died, or
    /// it was given back.
    async fn interrupted(&self) {
        let mut object = self.object.clone();
        let mut ailments = self.server.ailments.subscribe();
        tokio::select! {
            _ = object.wait_for(Option::is_none) => {}
            _ = ailments.wait_for(|ailments| ailments.dead) => {}
            () = self.server.released.cancelled() => {}
        }
    }

    /// Removes the Pod object for good: nothing runs for it any more.
    async fn delete_object(&mut self) {
        let finally = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let mut backoff = Backoff::default();
        while self.object.borrow_and_update().is_some() {
            match call(self.pods.delete(&self.name, &finally)).await {
                Ok(_) => return,
                Err(error) if error.is_gone() => return,
                Err(error) => tracing::debug!(pod = self.name, %error, "removing a Pod"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                _ = self.object.changed() => {}
            }
        }
    }

    /// Writes the status if it is not what the Pod says.
    async fn write_status(&mut self, pod: &Pod) -> Result<(), super::cluster::CallError> {
        let status = self.status(pod);
        if self.written.as_ref() == Some(&status) && pod_is_ready(pod) == self.is_ready() {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": self.uid}, "status": status});
        match call(
            self.pods
                .patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(patch)),
        )
        .await
        {
            Ok(_) => self.written = Some(status),
            // The watch tells soon.
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        matches!(self.life, Life::Serving { .. })
    }

    fn status(&self, pod: &Pod) -> Value {
        let ready = self.is_ready();
        let since = Time(self.changed);
        let state = match &self.life {
            Life::Waiting => json!({"waiting": {"reason": "ContainerCreating"}}),
            Life::Refused(reason, message) => json!({"waiting": {"reason": reason, "message": message}}),
            Life::Loading { .. } | Life::Serving { .. } => json!({"running": {"startedAt": since}}),
        };
        let running = self.process().is_some();
        let containers: Vec<Value> = (pod.spec.iter().flat_map(|spec| &spec.containers))
            .map(|container| {
                let image = container.image.clone().unwrap_or_default();
                json!({
                    "name": container.name, "ready": ready, "started": running, "restartCount": self.restarts,
                    "image": image, "imageID": image, "containerID": format!("pomarium-fleet://{}-{}", self.uid, self.restarts),
                    "state": state,
                })
            })
            .collect();
        let condition = |kind: &str, holds: bool| {
            let (status, reason) = if holds {
                ("True", Value::Null)
            } else {
                ("False", json!("ContainersNotReady"))
            };
            json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": since})
        };
        let host = self.server.address.to_string();
        let mut status = json!({
            "phase": if running { "Running" } else { "Pending" },
            "hostIP": host, "hostIPs": [{"ip": host}],
            "startTime": Time(self.born),
            "containerStatuses": containers,
            "conditions": [
                condition("PodReadyToStartContainers", true), condition("Initialized", true),
                condition("ContainersReady", ready), condition("Ready", ready),
            ],
        });
        if running {
            let address = self.address.to_string();
            status["podIP"] = json!(address);
            status["podIPs"] = json!([{"ip": address}]);
        }
        status
    }
}

/// What a Pod asks for before its end.
enum Hook {
    None,
    Idle,
    Sleep(Span),
}

fn grace_period(pod: &Pod) -> Span {
    let secs = pod.metadata.deletion_grace_period_seconds;
    secs.and_then(|secs| u64::try_from(secs).ok())
        .map_or(DEFAULT_GRACE, Span::from_secs)
}

fn hook(pod: &Pod) -> Hook {
    let lifecycle = engine_container(pod).and_then(|container| container.lifecycle.as_ref());
    match lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
        None => Hook::None,
        Some(handler) => match &handler.sleep {
            Some(sleep) => Hook::Sleep(Span::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))),
            None => Hook::Idle,
        },
    }
}

fn engine_container(pod: &Pod) -> Option<&Container> {
    let containers = &pod.spec.as_ref()?.containers;
    containers
        .iter()
        .find(|container| container.name == ENGINE_CONTAINER)
        .or(containers.first())
}

fn port(container: &Container) -> Option<u16> {
    let port = container.ports.as_ref()?.first()?.container_port;
    u16::try_from(port).ok()
}

fn engine(pod: &Pod) -> Option<EngineType> {
    let named = pod.metadata.annotations.as_ref()?.get(labels::ENGINE)?;
    serde_json::from_value(json!(named)).ok()
}
