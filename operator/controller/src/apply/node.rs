//! The draining mark on Nodes.
//!
//! `spec.taints` is one atomic list to server-side apply, and people and the node controller write it too. So it is read,
//! changed, and written back only if nobody was faster.

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt;
use kube::api::Api;
use pomarium_api::labels;
use serde_json::json;

use super::kube_call::{call, merge};
use crate::effect::{NodeRef, Outcome, ServerDrain};
use crate::member::Member;

pub(super) async fn mark(member: &Member, node: &NodeRef, drain: ServerDrain) -> Result<Outcome, Outcome> {
    let Some(seen) = same(member, node).await? else {
        return Ok(Outcome::Gone);
    };
    let text = serde_json::to_string(&drain).map_err(|error| Outcome::Failed {
        category: "encoding",
        message: error.to_string(),
    })?;
    let tainted = taints(&seen).iter().any(is_ours);
    // A mark that is there keeps its time and its reason.
    let annotation = seen.annotations().get(labels::SERVER_DRAIN).map_or(text, Clone::clone);
    if tainted && seen.annotations().contains_key(labels::SERVER_DRAIN) {
        return Ok(Outcome::Unchanged);
    }
    let mut taints = taints(&seen);
    if !tainted {
        taints.push(Taint {
            key: labels::DRAINING_TAINT.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        });
    }
    write(member, &seen, json!(annotation), taints).await
}

pub(super) async fn unmark(member: &Member, node: &NodeRef) -> Result<Outcome, Outcome> {
    let Some(seen) = same(member, node).await? else {
        return Ok(Outcome::Gone);
    };
    let (ours, others): (Vec<Taint>, Vec<Taint>) = taints(&seen).into_iter().partition(is_ours);
    if ours.is_empty() && !seen.annotations().contains_key(labels::SERVER_DRAIN) {
        return Ok(Outcome::Unchanged);
    }
    write(member, &seen, serde_json::Value::Null, others).await
}

/// The Node as it is now, if it is still the same one.
async fn same(member: &Member, node: &NodeRef) -> Result<Option<Node>, Outcome> {
    let api: Api<Node> = Api::all(member.read.clone());
    let seen = call(api.get(node.name.as_str())).await?;
    Ok((seen.uid().as_deref() == Some(node.uid.as_str())).then_some(seen))
}

fn taints(node: &Node) -> Vec<Taint> {
    node.spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default()
}

fn is_ours(taint: &Taint) -> bool {
    taint.key == labels::DRAINING_TAINT
}

async fn write(
    member: &Member,
    seen: &Node,
    annotation: serde_json::Value,
    taints: Vec<Taint>,
) -> Result<Outcome, Outcome> {
    let (params, patch) = merge(json!({
        "metadata": {
            "uid": seen.uid(),
            "resourceVersion": seen.resource_version(),
            "annotations": {labels::SERVER_DRAIN: annotation},
        },
        "spec": {"taints": taints},
    }));
    let api: Api<Node> = Api::all(member.write.clone());
    call(api.patch(&seen.name_any(), &params, &patch)).await?;
    Ok(Outcome::Done)
}
