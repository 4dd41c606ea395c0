//! Servers given back to their providers, after one more look at what runs on them.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pomarium_api::labels;
use pomarium_kernel::names::{GroupName, ServerName, SiteName};

use super::Hands;
use super::kube_call::call;
use crate::effect::Outcome;
use crate::member::Member;
use crate::provider::ProviderError;

pub(super) async fn release(
    hands: &Hands,
    group: &GroupName,
    server: &ServerName,
    site: &SiteName,
) -> Result<Outcome, Outcome> {
    let member = hands.member(site)?;
    is_free(&member, server).await?;
    outcome(hands.inventories.release(group, server).await)
}

pub(super) async fn empty(
    hands: &Hands,
    group: &GroupName,
    servers: &[ServerName],
    site: &SiteName,
) -> Result<Outcome, Outcome> {
    let member = hands.member(site)?;
    for server in servers {
        is_free(&member, server).await?;
    }
    outcome(hands.inventories.empty(group).await)
}

/// Nothing of ours runs on the server, nothing new lands there, and nobody asked to leave it alone.
async fn is_free(member: &Member, server: &ServerName) -> Result<(), Outcome> {
    let refuse = |why: &str| Err(Outcome::Refused(format!("server {server}: {why}")));
    let nodes: Api<Node> = Api::all(member.read.clone());
    let mut answers = false;
    match call(nodes.get(server.as_str())).await {
        Ok(node) => {
            answers = is_ready(&node);
            if node.annotations().contains_key(labels::HOLD) {
                return refuse("people asked to leave it alone");
            }
            let spec = node.spec.unwrap_or_default();
            let marked = spec
                .taints
                .iter()
                .flatten()
                .any(|taint| taint.key == labels::DRAINING_TAINT);
            if !marked {
                return refuse("it is not marked as draining, so that something may still land there");
            }
        }
        // It never came up, or is gone already.
        Err(Outcome::Gone) => {}
        Err(outcome) => return Err(outcome),
    }
    let pods: Api<Pod> = Api::all(member.read.clone());
    let on_it = ListParams::default()
        .fields(&format!("spec.nodeName={server}"))
        .labels(labels::POOL);
    let runs = call(pods.list(&on_it)).await?.items.into_iter().find(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        // On a machine that does not answer nobody ends a Pod that was deleted: it stays as long as its Node.
        let left_behind = !answers && pod.metadata.deletion_timestamp.is_some();
        !matches!(phase, Some("Succeeded" | "Failed")) && !left_behind
    });
    match runs {
        Some(pod) => refuse(&format!("{} still runs there", pod.name_any())),
        None => Ok(()),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What a provider's answer comes to.
pub(super) fn outcome(answer: Result<bool, ProviderError>) -> Result<Outcome, Outcome> {
    match answer {
        Ok(true) => Ok(Outcome::Done),
        Ok(false) => Ok(Outcome::Unchanged),
        Err(ProviderError::OutOfStock(message)) => Err(Outcome::OutOfStock(message)),
        Err(error @ ProviderError::Refused(_)) => Err(Outcome::Refused(error.to_string())),
        Err(error) => Err(Outcome::Failed {
            category: error.category(),
            message: error.to_string(),
        }),
    }
}
