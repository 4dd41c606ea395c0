//! What the conditions of Pods and Nodes say. No word is no: what is not known to be ready is not.

use k8s_openapi::api::core::v1::{Node, Pod};

/// Whether a Pod's condition `Ready` is true.
pub fn pod_is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What a Node's condition `Ready` says: `True`, `False` or `Unknown`.
pub fn node_readiness(node: &Node) -> Option<&str> {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .find(|condition| condition.type_ == "Ready")
        .map(|condition| condition.status.as_str())
}
