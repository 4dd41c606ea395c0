//! What is kept of a member cluster's objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, NodeCondition, Pod, Taint};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use pomarium_api::labels;
use pomarium_kernel::names::ServerName;
use pomarium_kernel::time::Timestamp;
use serde::Deserialize;

use super::Projection;
use crate::clock::Clock;
use crate::world::{NodeSeen, ObjectKey, PodSeen, Readiness, TaintSeen};

/// The annotations of Nodes that are ours to read.
const OUR_PREFIX: &str = "pomarium.dev/";

/// Nodes.
pub(crate) struct Nodes {
    pub(crate) clock: Clock,
}

/// A Node without what nobody here reads: its list of images alone is larger than all the rest.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = Node)]
pub(crate) struct SlimNode {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimNodeSpec,
    #[serde(default)]
    status: SlimNodeStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
struct SlimNodeSpec {
    #[serde(default)]
    unschedulable: bool,
    #[serde(default)]
    taints: Vec<Taint>,
}

#[derive(Deserialize, Clone, Debug, Default)]
struct SlimNodeStatus {
    #[serde(default)]
    conditions: Vec<NodeCondition>,
}

impl Projection for Nodes {
    type Watched = DeserializeGuard<SlimNode>;
    type Key = ServerName;
    type Value = NodeSeen;

    fn key(metadata: &ObjectMeta) -> ServerName {
        ServerName::new(metadata.name.clone().unwrap_or_default())
    }

    fn project(&self, object: Self::Watched) -> Result<NodeSeen, String> {
        let SlimNode { metadata, spec, status } = object.0.map_err(|invalid| invalid.error)?;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| key.starts_with(OUR_PREFIX));
        let taint = |taint: Taint| TaintSeen {
            key: taint.key,
            value: taint.value.unwrap_or_default(),
            effect: taint.effect,
        };
        Ok(NodeSeen {
            name: ServerName::new(metadata.name.unwrap_or_default()),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations,
            taints: spec.taints.into_iter().map(taint).collect(),
            unschedulable: spec.unschedulable,
            ready: match ready.map(|condition| condition.status.as_str()) {
                Some("True") => Readiness::True,
                Some("False") => Readiness::False,
                _ => Readiness::Unknown,
            },
            ready_since: ready
                .and_then(|condition| condition.last_transition_time.as_ref())
                .map(|time| self.clock.to_virtual(time)),
            created: created(self.clock, metadata.creation_timestamp.as_ref()),
            deleting: metadata.deletion_timestamp.is_some(),
        })
    }

    /// Heartbeats change the version of a Node and nothing else.
    fn matters(old: &NodeSeen, new: &NodeSeen) -> bool {
        let NodeSeen {
            name: _,
            uid,
            resource_version: _,
            labels,
            annotations,
            taints,
            unschedulable,
            ready,
            ready_since,
            created: _,
            deleting,
        } = new;
        old.uid != *uid
            || old.labels != *labels
            || old.annotations != *annotations
            || old.taints != *taints
            || old.unschedulable != *unschedulable
            || old.ready != *ready
            || old.ready_since != *ready_since
            || old.deleting != *deleting
    }
}

/// Pods of pools.
pub(crate) struct Pods {
    pub(crate) clock: Clock,
}

impl Projection for Pods {
    type Watched = DeserializeGuard<Pod>;
    type Key = ObjectKey;
    type Value = PodSeen;

    fn key(metadata: &ObjectMeta) -> ObjectKey {
        object_key(metadata)
    }

    fn project(&self, object: Self::Watched) -> Result<PodSeen, String> {
        let pod = object.0.map_err(|invalid| invalid.error)?;
        let ObjectKey { namespace, name } = object_key(&pod.metadata);
        let metadata = pod.metadata;
        let mut annotations: BTreeMap<String, String> = metadata.annotations.unwrap_or_default();
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let engine = spec.containers.iter().find(|container| container.name == "engine");
        let port = engine
            .and_then(|engine| {
                engine
                    .ports
                    .as_ref()?
                    .iter()
                    .find(|port| port.name.as_deref() == Some("http"))
            })
            .and_then(|port| u16::try_from(port.container_port).ok());
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        Ok(PodSeen {
            namespace,
            name,
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            server: annotations.remove(labels::SERVER).map(ServerName::new),
            node: spec.node_name.map(ServerName::new),
            drain: annotations.remove(labels::DRAIN),
            phase: status.phase.unwrap_or_else(|| "Pending".to_owned()),
            ready: ready.is_some_and(|ready| ready.status == "True"),
            ready_since: ready
                .and_then(|ready| ready.last_transition_time.as_ref())
                .map(|time| self.clock.to_virtual(time)),
            ip: status.pod_ip.filter(|ip| !ip.is_empty()),
            port,
            created: created(self.clock, metadata.creation_timestamp.as_ref()),
            deletion: metadata
                .deletion_timestamp
                .as_ref()
                .map(|time| self.clock.to_virtual(time)),
        })
    }

    fn matters(old: &PodSeen, new: &PodSeen) -> bool {
        old != new
    }
}

/// Namespaces: that they exist.
pub(crate) struct Namespaces;

impl Projection for Namespaces {
    type Watched = PartialObjectMeta<Namespace>;
    type Key = String;
    type Value = ();

    fn key(metadata: &ObjectMeta) -> String {
        metadata.name.clone().unwrap_or_default()
    }

    fn project(&self, _: Self::Watched) -> Result<(), String> {
        Ok(())
    }

    fn matters((): &(), (): &()) -> bool {
        false
    }
}

/// `PodDisruptionBudget`s of pools: that they exist.
pub(crate) struct Budgets;

impl Projection for Budgets {
    type Watched = PartialObjectMeta<PodDisruptionBudget>;
    type Key = ObjectKey;
    type Value = ();

    fn key(metadata: &ObjectMeta) -> ObjectKey {
        object_key(metadata)
    }

    fn project(&self, _: Self::Watched) -> Result<(), String> {
        Ok(())
    }

    fn matters((): &(), (): &()) -> bool {
        false
    }
}

fn object_key(metadata: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn created(clock: Clock, time: Option<&Time>) -> Timestamp {
    time.map_or_else(|| clock.now(), |time| clock.to_virtual(time))
}
