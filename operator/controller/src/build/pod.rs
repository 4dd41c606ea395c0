//! The Pod of one replica on one server.
//!
//! # Why it looks as it does
//!
//! *Pinned by node affinity*, as `DaemonSets` do, and not by `nodeName`: the scheduler still checks taints and resources.
//!
//! *Tolerates not-ready and unreachable for ever*: a partition kills nothing. Whether a silent server is lost is the
//! plan's decision, not a timer's.
//!
//! *`preStop` sleeps for the whole drain time-out.* Only the plan deletes a Pod once its engine is quiet, and that
//! deletion carries a short grace period, which ends the sleep. Anybody else's deletion leaves the engine answering
//! while Pomarium sees the Pod terminate, fences it, waits until it is quiet and then deletes it with the short grace
//! period. So "wait until idle" needs nothing of an image that is not ours: no shell, no curl, no endpoint. The sleep
//! is the kubelet's own action (GA since Kubernetes 1.34, on by default since 1.30).
//!
//! *Restricted*: passes the Pod Security Standard `restricted`. Images that insist on running as root are refused by the
//! kubelet with a message that says so.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, NodeAffinity,
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSecurityContext, PodSpec, Probe, SeccompProfile,
    SecurityContext, SleepAction, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use pomarium_api::labels;
use pomarium_api::pool::{EngineType, ServerPool};
use pomarium_kernel::names::{GroupName, PoolId, Revision, SiteName};
use pomarium_kernel::time::Span;

use super::name::replica_name;
use crate::world::{NodeSeen, TaintSeen};

/// Between the end of `preStop` and a kill: time for the engine to close its sockets.
const AFTER_DRAIN_SECS: i64 = 30;
/// An unprivileged user that images do not need to know.
const NOBODY: i64 = 65_532;

/// What a Pod is made from.
pub(super) struct Wanted<'a> {
    pub(super) pool: &'a PoolId,
    pub(super) object: &'a ServerPool,
    pub(super) site: &'a SiteName,
    pub(super) group: &'a GroupName,
    pub(super) node: &'a NodeSeen,
    pub(super) revision: &'a Revision,
    pub(super) drain_timeout: Span,
    pub(super) hub_uid: &'a str,
}

/// Whether replicas tolerate a taint that forbids scheduling. A taint under `pomarium.dev/` dedicates a server to
/// Pomarium's work; the one that marks a drain keeps replicas away like anybody's.
pub fn tolerates(taint: &TaintSeen) -> bool {
    match taint.key.as_str() {
        labels::DRAINING_TAINT => false,
        "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable" => taint.effect == "NoExecute",
        key => key.starts_with("pomarium.dev/") || taint.effect == "PreferNoSchedule",
    }
}

/// The name of an engine, as the annotation on Pods has it.
pub(crate) fn engine_name(engine: EngineType) -> &'static str {
    match engine {
        EngineType::LlamaCpp => "LlamaCpp",
        EngineType::VllmMetal => "VllmMetal",
        EngineType::VllmMlx => "VllmMlx",
        EngineType::Vllm => "Vllm",
        EngineType::SGLang => "SGLang",
    }
}

pub(super) fn pod(wanted: &Wanted<'_>) -> Pod {
    let spec = &wanted.object.spec;
    let sleep = drain_secs(wanted.drain_timeout);
    Pod {
        metadata: ObjectMeta {
            name: Some(replica_name(wanted.pool, &wanted.node.name, wanted.revision).to_string()),
            namespace: Some(wanted.pool.namespace.clone()),
            labels: Some(pod_labels(wanted)),
            annotations: Some(BTreeMap::from([
                (labels::SERVER.to_owned(), wanted.node.name.to_string()),
                (labels::ENGINE.to_owned(), engine_name(spec.engine.r#type).to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            affinity: Some(pinned_to(wanted.node.name.as_str())),
            tolerations: Some(tolerations(wanted.node)),
            termination_grace_period_seconds: Some(sleep.saturating_add(AFTER_DRAIN_SECS)),
            restart_policy: Some("Always".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(NOBODY),
                run_as_group: Some(NOBODY),
                fs_group: Some(NOBODY),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![container(wanted, sleep)],
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn container(wanted: &Wanted<'_>, sleep: i64) -> Container {
    let engine = &wanted.object.spec.engine;
    Container {
        name: "engine".to_owned(),
        image: Some(engine.image.clone()),
        args: (!engine.args.is_empty()).then(|| engine.args.clone()),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: engine.port(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/health".to_owned()),
                port: IntOrString::String("http".to_owned()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(5),
            timeout_seconds: Some(3),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        // No liveness probe: a busy engine that answers slowly must not be killed with its streams.
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: sleep }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Without `pomarium.dev/serving`: that label belongs to the lifecycle, and a new Pod does not serve.
fn pod_labels(wanted: &Wanted<'_>) -> BTreeMap<String, String> {
    let mut labels = super::budget::ours(wanted.pool, wanted.object, wanted.hub_uid);
    labels.extend([
        (labels::REVISION.to_owned(), wanted.revision.to_string()),
        (labels::SITE.to_owned(), wanted.site.to_string()),
        (labels::GROUP.to_owned(), wanted.group.to_string()),
    ]);
    labels
}

fn pinned_to(node: &str) -> Affinity {
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_fields: Some(vec![NodeSelectorRequirement {
                        key: "metadata.name".to_owned(),
                        operator: "In".to_owned(),
                        values: Some(vec![node.to_owned()]),
                    }]),
                    ..NodeSelectorTerm::default()
                }],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn tolerations(node: &NodeSeen) -> Vec<Toleration> {
    let tolerate = |key: &str, effect: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let mut tolerations = vec![
        tolerate("node.kubernetes.io/not-ready", "NoExecute"),
        tolerate("node.kubernetes.io/unreachable", "NoExecute"),
    ];
    let dedicated = node.taints.iter().filter(|taint| {
        taint.key.starts_with("pomarium.dev/") && taint.key != labels::DRAINING_TAINT && tolerates(taint)
    });
    tolerations.extend(dedicated.map(|taint| tolerate(&taint.key, &taint.effect)));
    tolerations.dedup();
    tolerations
}

/// Whole seconds, rounded up; at least one, because the kubelet refuses less.
fn drain_secs(timeout: Span) -> i64 {
    i64::try_from(timeout.as_millis().div_ceil(1_000).max(1)).unwrap_or(i64::from(i32::MAX))
}

/// The uid of an object in the hub; empty before it is stored, which an object that was read never is.
pub(super) fn uid_of(object: &ServerPool) -> String {
    object.uid().unwrap_or_default()
}
