//! A server's Node: registered, kept alive by its Lease, removed when the server is given back.
//!
//! Heartbeats are in real time, because the controller manager that judges them is real: it finds a silent Node not ready
//! after its own grace period. The taints for that are its business too.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use pomarium_api::labels;
use serde_json::json;
use tokio::time::Instant;

use super::cluster::{Backoff, CallError, Server, call};

const FIELD_MANAGER: &str = "pomarium-fleet";
/// As kubelets say by default.
const LEASE_SECONDS: i32 = 40;
/// Three chances within a Lease's time; hundreds of Nodes make some tens of small writes a second.
const HEARTBEAT: Duration = Duration::from_secs(12);
/// How often the whole status is written though nothing changed, as kubelets do by default.
const STATUS_PERIOD: Duration = Duration::from_secs(300);

/// Keeps the Node of `server` until it is released; then removes it.
pub(crate) async fn keep(server: Arc<Server>) {
    let mut node = NodeKeeper {
        nodes: Api::all(server.group.cluster.client.clone()),
        leases: Api::namespaced(server.group.cluster.client.clone(), "kube-node-lease"),
        uid: None,
        status_due: Instant::now(),
        ready: true,
        ready_since: Time(server.booted),
        server: &server,
    };
    let mut ailments = server.ailments.subscribe();
    let mut backoff = Backoff::default();
    let mut first = true;
    while !server.released.is_cancelled() {
        let dead = ailments.borrow_and_update().dead;
        let pause = if dead {
            // The controller manager writes into our status meanwhile: all of it is due afterwards.
            node.status_due = Instant::now();
            node.ready = false;
            Duration::MAX
        } else {
            match node.beat().await {
                Ok(()) => {
                    backoff.reset();
                    if std::mem::take(&mut first) {
                        phase(&server.name)
                    } else {
                        HEARTBEAT
                    }
                }
                Err(error) => {
                    tracing::debug!(node = server.name, %error, "heartbeat");
                    node.status_due = Instant::now();
                    backoff.pause()
                }
            }
        };
        tokio::select! {
            () = server.released.cancelled() => {}
            _ = ailments.changed() => node.status_due = Instant::now(),
            () = tokio::time::sleep(pause) => {}
        }
    }
    node.remove().await;
}

/// Spreads the heartbeats of Nodes that came up together.
fn phase(name: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let permille = u32::try_from(hasher.finish() % 1_000).unwrap_or(0);
    HEARTBEAT * permille / 1_000
}

struct NodeKeeper<'a> {
    server: &'a Server,
    nodes: Api<Node>,
    leases: Api<Lease>,
    /// Of the registered Node.
    uid: Option<String>,
    status_due: Instant,
    /// What the Node says, and since when.
    ready: bool,
    ready_since: Time,
}

impl NodeKeeper<'_> {
    async fn beat(&mut self) -> Result<(), CallError> {
        let uid = match self.uid.clone() {
            Some(uid) => uid,
            None => self.register().await?,
        };
        let beat = async {
            if Instant::now() >= self.status_due {
                let ready = !self.server.ailments.borrow().not_ready;
                if std::mem::replace(&mut self.ready, ready) != ready {
                    self.ready_since = Time(jiff::Timestamp::now());
                }
                let status = json!({"metadata": {"uid": uid}, "status": self.status()});
                let patch = Patch::Strategic(status);
                call(
                    self.nodes
                        .patch_status(&self.server.name, &PatchParams::default(), &patch),
                )
                .await?;
                self.status_due = Instant::now() + STATUS_PERIOD;
            }
            let lease = self.lease(&uid);
            let apply = PatchParams::apply(FIELD_MANAGER).force();
            call(self.leases.patch(&self.server.name, &apply, &Patch::Apply(&lease))).await?;
            Ok(())
        };
        let outcome = beat.await;
        if let Err(error) = &outcome
            && CallError::is_gone(error)
        {
            // Somebody deleted the Node of a machine that runs: it registers again.
            self.uid = None;
        }
        outcome
    }

    async fn register(&mut self) -> Result<String, CallError> {
        let node = self.node();
        let registered = match call(self.nodes.create(&PostParams::default(), &node)).await {
            Err(error) if error.is_already_exists() => {
                let metadata =
                    json!({"metadata": {"labels": node.metadata.labels, "annotations": node.metadata.annotations}});
                call(
                    self.nodes
                        .patch(&self.server.name, &PatchParams::default(), &Patch::Merge(metadata)),
                )
                .await?
            }
            answer => answer?,
        };
        self.status_due = Instant::now();
        let uid = registered.metadata.uid.unwrap_or_default();
        self.uid = Some(uid.clone());
        Ok(uid)
    }

    /// Deletes the Node that was registered, and no other of its name.
    async fn remove(&mut self) {
        let Some(uid) = self.uid.take() else { return };
        let exactly = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let mut backoff = Backoff::default();
        while let Err(error) = call(self.nodes.delete(&self.server.name, &exactly)).await {
            if error.is_gone() {
                return;
            }
            tracing::debug!(node = self.server.name, %error, "removing the Node");
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    fn node(&self) -> Node {
        let config = &self.server.group.config;
        let own = [
            (labels::GROUP, config.name.as_str()),
            ("kubernetes.io/os", "darwin"),
            ("kubernetes.io/arch", "arm64"),
            ("kubernetes.io/hostname", &self.server.name),
        ];
        let mut all = config.labels.clone();
        all.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
        Node {
            metadata: ObjectMeta {
                name: Some(self.server.name.clone()),
                labels: Some(all),
                annotations: Some(config.annotations.clone()).filter(|annotations| !annotations.is_empty()),
                ..ObjectMeta::default()
            },
            ..Node::default()
        }
    }

    fn status(&self) -> NodeStatus {
        let machine = &self.server.group.config.machine;
        let resources = BTreeMap::from([
            ("cpu".to_owned(), Quantity(machine.cpus.to_string())),
            ("memory".to_owned(), Quantity(format!("{}Gi", machine.memory_gib))),
            ("pods".to_owned(), Quantity("110".to_owned())),
        ]);
        let address = |kind: &str, address: &str| NodeAddress {
            address: address.to_owned(),
            type_: kind.to_owned(),
        };
        let ready = self.ready;
        let conditions = [
            ("MemoryPressure", false, "KubeletHasSufficientMemory", "enough memory"),
            ("DiskPressure", false, "KubeletHasNoDiskPressure", "no disk pressure"),
            ("PIDPressure", false, "KubeletHasSufficientPID", "enough process ids"),
            (
                "Ready",
                ready,
                if ready { "KubeletReady" } else { "KubeletNotReady" },
                if ready {
                    "the machine is ready"
                } else {
                    "the machine says that it is not ready"
                },
            ),
        ];
        let now = Time(jiff::Timestamp::now());
        NodeStatus {
            addresses: Some(vec![
                address("InternalIP", &self.server.address.to_string()),
                address("Hostname", &self.server.name),
            ]),
            allocatable: Some(resources.clone()),
            capacity: Some(resources),
            conditions: Some(conditions.map(|condition| self.condition(condition, &now)).into()),
            node_info: Some(NodeSystemInfo {
                architecture: "arm64".to_owned(),
                operating_system: "darwin".to_owned(),
                os_image: "macOS".to_owned(),
                kubelet_version: "v1.36.4".to_owned(),
                container_runtime_version: "pomarium-fleet://1".to_owned(),
                machine_id: self.server.name.clone(),
                system_uuid: self.server.name.clone(),
                boot_id: self.server.booted.as_millisecond().to_string(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }
    }

    fn condition(&self, (kind, holds, reason, message): (&str, bool, &str, &str), now: &Time) -> NodeCondition {
        NodeCondition {
            type_: kind.to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(if kind == "Ready" {
                self.ready_since.clone()
            } else {
                Time(self.server.booted)
            }),
        }
    }

    fn lease(&self, node_uid: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.server.name.clone()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: self.server.name.clone(),
                    uid: node_uid.to_owned(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.server.name.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(MicroTime(jiff::Timestamp::now())),
                ..LeaseSpec::default()
            }),
        }
    }
}
