//! One call to an API server: bounded, and its errors as outcomes.

use std::time::Duration;

use kube::api::{Patch, PatchParams};

use crate::effect::Outcome;

/// No call takes longer. Shorter than a leader's lease, so that no write outlives the right to it.
const LIMIT: Duration = Duration::from_secs(5);
/// Nobody answered: the rest of the lane would not be answered either.
pub(super) const UNREACHABLE: &str = "unreachable";

/// Field manager of what never changes for one revision.
pub(super) const PODS: &str = "pomarium.dev/pods";
/// Field manager of the serving label and the drain annotation.
pub(super) const LIFECYCLE: &str = "pomarium.dev/lifecycle";

/// The answer of one call, or what became of it instead.
pub(super) async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Outcome> {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(outcome(&error)),
        Err(_) => Err(Outcome::Failed {
            category: UNREACHABLE,
            message: format!("no answer within {LIMIT:?}"),
        }),
    }
}

/// Server-side apply by one of our managers. Conflicts with other managers are won: the fields are ours by definition.
pub(super) fn as_manager(manager: &str) -> PatchParams {
    PatchParams::apply(manager).force()
}

/// A merge patch, for lists that server-side apply cannot share.
pub(super) fn merge<T: serde::Serialize + std::fmt::Debug>(patch: T) -> (PatchParams, Patch<T>) {
    (
        PatchParams {
            field_manager: Some("pomarium.dev/controller".to_owned()),
            ..PatchParams::default()
        },
        Patch::Merge(patch),
    )
}

fn outcome(error: &kube::Error) -> Outcome {
    match error {
        // By the code: where a whole API group is missing, the server answers with a line of text and no reason.
        kube::Error::Api(status) if status.code == 404 => Outcome::Gone,
        kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => Outcome::Conflict,
        kube::Error::Api(status) => Outcome::Failed {
            category: match status.code {
                401 => "unauthorized",
                403 => "forbidden",
                422 => "invalid",
                429 => "throttled",
                _ => "refused_by_api",
            },
            message: status.message.clone(),
        },
        error => Outcome::Failed {
            category: UNREACHABLE,
            message: crate::fetch::root_cause(error),
        },
    }
}
