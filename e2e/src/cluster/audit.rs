//! The API server's audit log: who wrote what, as the server saw it.

use serde::Deserialize;
use serde_json::Value;

/// What the API server records: bodies of our own kinds, metadata of the rest, and no noise (reads and leases of Kubernetes' own
/// parts, health and discovery).
pub(crate) const POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*", "/api", "/api/*", "/apis", "/apis/*"]
  - level: None
    users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
    verbs: [get, list, watch]
  - level: None
    userGroups: ["system:serviceaccounts:kube-system"]
    verbs: [get, list, watch]
  - level: None
    namespaces: [kube-node-lease]
    resources: [{group: coordination.k8s.io, resources: [leases]}]
  - level: RequestResponse
    verbs: [create, update, patch, delete, deletecollection]
    resources: [{group: pomarium.dev}]
  - level: Metadata
"#;

/// One request that the API server answered.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEvent {
    /// Such as `get`, `watch`, `create`, `patch`, `delete`.
    pub verb: String,
    /// Who asked, such as `system:serviceaccount:pomarium-system:pomarium`.
    pub user: String,
    /// The client's name of itself.
    pub user_agent: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural resource, such as `pods`.
    pub resource: String,
    /// Such as `status`, `scale`, `eviction`; empty for the object itself.
    pub subresource: String,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name of the object; empty for lists.
    pub name: String,
    /// Path and query as they were asked for.
    pub uri: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// `ResponseComplete`, `ResponseStarted` (a watch that runs) or `Panic`.
    pub stage: String,
    /// When the request came in, RFC 3339 with microseconds.
    pub received: String,
    /// When this stage was reached, RFC 3339 with microseconds.
    pub stage_timestamp: String,
    /// Body of the request, for writes of our own kinds.
    pub request: Option<Value>,
    /// Body of the answer, for writes of our own kinds.
    pub response: Option<Value>,
}

impl AuditEvent {
    /// Whether the request could change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether the answer was a success.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// Reads the log's lines. A line that is still being written (the last, without its end) is left out.
pub(crate) fn parse(log: &str) -> Result<Vec<AuditEvent>, serde_json::Error> {
    let complete = log.rfind('\n').map_or("", |end| &log[..end]);
    complete
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str::<Line>(line).map(AuditEvent::from))
        .collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
    request_object: Option<Value>,
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Line> for AuditEvent {
    fn from(line: Line) -> Self {
        Self {
            verb: line.verb,
            user: line.user.username,
            user_agent: line.user_agent,
            group: line.object_ref.api_group,
            resource: line.object_ref.resource,
            subresource: line.object_ref.subresource,
            namespace: line.object_ref.namespace,
            name: line.object_ref.name,
            uri: line.request_uri,
            code: line.response_status.code,
            stage: line.stage,
            received: line.request_received_timestamp,
            stage_timestamp: line.stage_timestamp,
            request: line.request_object,
            response: line.response_object,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_write_is_read_with_its_object_and_a_half_written_line_is_left_for_later() {
        let log = concat!(
            r#"{"kind":"Event","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/pods/b/eviction","verb":"create","#,
            r#""user":{"username":"alice"},"userAgent":"test/1","objectRef":{"resource":"pods","namespace":"a","name":"b","subresource":"eviction"},"#,
            r#""responseStatus":{"code":429},"requestReceivedTimestamp":"2026-01-01T00:00:00.000001Z","stageTimestamp":"2026-01-01T00:00:00.000002Z"}"#,
            "\n",
            r#"{"kind":"Ev"#
        );
        let events = parse(log).unwrap();
        let [event] = events.as_slice() else {
            panic!("one event: {events:?}")
        };
        assert_eq!(
            (event.verb.as_str(), event.user.as_str(), event.resource.as_str()),
            ("create", "alice", "pods")
        );
        assert_eq!(
            (event.subresource.as_str(), event.name.as_str(), event.code),
            ("eviction", "b", 429)
        );
        assert!(event.is_write() && !event.succeeded());
    }
}
