//! Pods, and the PodDisruptionBudget of each pool.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, Preconditions};
use pomarium_api::labels;
use pomarium_kernel::lifecycle::Drain;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::snapshot::Load;
use serde_json::{Value, json};

use super::AskLoad;
use super::kube_call::{LIFECYCLE, PODS, as_manager, call};
use crate::effect::{Farewell, Outcome, PodRef};
use crate::member::Member;

/// Grace period of a Pod that need not wait any more: ends its `preStop` sleep, and leaves the engine time to close.
const SHORT_GRACE_SECS: u32 = 5;

pub(super) async fn apply(member: &Member, pod: &Pod) -> Result<Outcome, Outcome> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(member.write.clone(), &namespace);
    let applied = call(api.patch(&pod.name_any(), &as_manager(PODS), &Patch::Apply(pod))).await;
    match applied {
        // The name is taken by a Pod on its way out: it has to go first.
        Ok(applied) if applied.metadata.deletion_timestamp.is_some() => Ok(Outcome::Conflict),
        Ok(_) => Ok(Outcome::Done),
        Err(Outcome::Gone) => Err(Outcome::Failed {
            category: "namespace_missing",
            message: format!("site {} has no namespace {namespace}", member.site),
        }),
        Err(outcome) => Err(outcome),
    }
}

/// Applies the whole of what the lifecycle manager owns. With the uid it can never create, nor hit another Pod.
pub(super) async fn set_lifecycle(
    member: &Member,
    pod: &PodRef,
    serving: bool,
    drain: Option<Drain>,
) -> Result<Outcome, Outcome> {
    let mut metadata = json!({"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid});
    if serving {
        metadata["labels"] = json!({labels::SERVING: "true"});
    }
    if let Some(drain) = drain {
        let text = serde_json::to_string(&drain).map_err(|error| Outcome::Failed {
            category: "encoding",
            message: error.to_string(),
        })?;
        metadata["annotations"] = json!({labels::DRAIN: text});
    }
    let patch = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata});
    let api: Api<Pod> = Api::namespaced(member.write.clone(), &pod.key.namespace);
    let applied = call(api.patch(&pod.key.name, &as_manager(LIFECYCLE), &Patch::Apply(&patch))).await?;
    // Somebody else may own the label too, and then leaving it out does not remove it. Fencing must not depend on that.
    let still_serving = applied.labels().contains_key(labels::SERVING);
    if !serving && still_serving {
        let remove: Value = json!({"metadata": {"uid": pod.uid, "labels": {labels::SERVING: null}}});
        let (params, patch) = super::kube_call::merge(remove);
        call(api.patch(&pod.key.name, &params, &patch)).await?;
    }
    Ok(Outcome::Done)
}

pub(super) async fn delete(
    member: &Member,
    loads: &dyn AskLoad,
    pod: &PodRef,
    farewell: Farewell,
) -> Result<Outcome, Outcome> {
    let read: Api<Pod> = Api::namespaced(member.read.clone(), &pod.key.namespace);
    let seen = call(read.get(&pod.key.name)).await?;
    if seen.uid().as_deref() != Some(pod.uid.as_str()) {
        return Ok(Outcome::Gone);
    }
    may_go(member, loads, &seen, farewell).await?;
    let params = DeleteParams {
        grace_period_seconds: match farewell {
            Farewell::Quiet | Farewell::Cut { .. } | Farewell::NotRunning => Some(SHORT_GRACE_SECS),
            // Its engine may be well behind a partition: when the kubelet is back, it gets the time it was promised.
            Farewell::Lost => None,
        },
        preconditions: Some(Preconditions {
            uid: Some(pod.uid.clone()),
            resource_version: seen.resource_version(),
        }),
        ..DeleteParams::default()
    };
    let already = seen.metadata.deletion_grace_period_seconds;
    if already.is_some_and(|grace| grace <= i64::from(SHORT_GRACE_SECS)) {
        return Ok(Outcome::Unchanged);
    }
    let write: Api<Pod> = Api::namespaced(member.write.clone(), &pod.key.namespace);
    call(write.delete(&pod.key.name, &params)).await?;
    Ok(Outcome::Done)
}

/// Looks once more at what makes a deletion safe. What cannot be read is not safe.
async fn may_go(member: &Member, loads: &dyn AskLoad, pod: &Pod, farewell: Farewell) -> Result<(), Outcome> {
    let refuse = |why: &str| Err(Outcome::Refused(format!("{}: {why}", pod.name_any())));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Ok(());
    }
    if farewell == Farewell::Lost && node_is_gone(member, pod).await? {
        return Ok(());
    }
    if pod.labels().contains_key(labels::SERVING) {
        return refuse("routers may still send it requests");
    }
    match farewell {
        Farewell::NotRunning | Farewell::Lost if is_ready(pod) => refuse("it answers after all"),
        Farewell::NotRunning | Farewell::Lost | Farewell::Cut { .. } => Ok(()),
        Farewell::Quiet => match loads.ask(&member.site, pod).await {
            Load::Known {
                running: 0, queued: 0, ..
            } => Ok(()),
            Load::Known { running, queued, .. } => {
                refuse(&format!("it has {running} requests running and {queued} queued"))
            }
            Load::Unknown => refuse("its engine does not say whether it is idle"),
        },
    }
}

/// A Pod whose Node does not exist any more keeps its last status for ever: readiness and labels say nothing.
async fn node_is_gone(member: &Member, pod: &Pod) -> Result<bool, Outcome> {
    let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) else {
        return Ok(false);
    };
    let nodes: Api<Node> = Api::all(member.read.clone());
    Ok(call(nodes.get_metadata_opt(node)).await?.is_none())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(super) async fn apply_budget(member: &Member, budget: &PodDisruptionBudget) -> Result<Outcome, Outcome> {
    let namespace = budget.namespace().unwrap_or_default();
    let api: Api<PodDisruptionBudget> = Api::namespaced(member.write.clone(), &namespace);
    call(api.patch(&budget.name_any(), &as_manager(PODS), &Patch::Apply(budget))).await?;
    Ok(Outcome::Done)
}

pub(super) async fn delete_budget(member: &Member, pool: &PoolId) -> Result<Outcome, Outcome> {
    let key = crate::build::budget_key(pool);
    let read: Api<PodDisruptionBudget> = Api::namespaced(member.read.clone(), &key.namespace);
    let seen = call(read.get(&key.name)).await?;
    let pods: Api<Pod> = Api::namespaced(member.read.clone(), &key.namespace);
    let of_pool = ListParams::default()
        .labels(&format!("{}={}", labels::POOL, pool.name))
        .limit(1);
    if !call(pods.list(&of_pool)).await?.items.is_empty() {
        return Err(Outcome::Refused(format!("{pool} still has Pods at {}", member.site)));
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: seen.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let write: Api<PodDisruptionBudget> = Api::namespaced(member.write.clone(), &key.namespace);
    call(write.delete(&key.name, &params)).await?;
    Ok(Outcome::Done)
}
