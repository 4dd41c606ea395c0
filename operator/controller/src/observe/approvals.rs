//! What people have approved: pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use pomarium_api::labels;
use pomarium_api::plan::{ServerPlan, SubjectKind};
use pomarium_kernel::names::{GroupName, ServerName};
use pomarium_kernel::snapshot::Approved;
use pomarium_kernel::time::Timestamp;

use crate::build::is_over;
use crate::world::World;

/// Approvals that have not expired, by group. A plan for a group counts in the operator's own namespace only: who may write elsewhere
/// decides nothing about a group.
pub(super) fn by_group(world: &World, now: Timestamp) -> BTreeMap<GroupName, Approved> {
    let mut approved: BTreeMap<GroupName, Approved> = BTreeMap::new();
    let valid = world.plans.iter().filter(|(key, plan)| {
        key.namespace == world.namespace
            && plan.spec.subject.kind == SubjectKind::ServerGroup
            && is_approved(plan)
            && !is_over(plan, now)
    });
    for (_, plan) in valid {
        let of_group = approved
            .entry(GroupName::from(plan.spec.subject.name.as_str()))
            .or_default();
        for action in &plan.spec.actions {
            let server = ServerName::from(action.target.as_str());
            match action.action.as_str() {
                "RequestServer" => drop(of_group.requests.insert(server)),
                "ReleaseServer" => drop(of_group.releases.insert(server)),
                _ => {}
            }
        }
    }
    approved
}

fn is_approved(plan: &ServerPlan) -> bool {
    let leaving = plan.metadata.deletion_timestamp.is_some();
    !leaving
        && plan
            .annotations()
            .get(labels::APPROVED)
            .is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pomarium_kernel::time::Span;
    use serde_json::json;

    use super::*;
    use crate::fixture::{NOW, read, world};
    use crate::world::ObjectKey;

    #[test]
    fn an_approval_counts_until_it_expires_and_only_where_the_operator_writes() {
        let until = NOW + Span::from_hours(1);
        let approvals = |namespace: &str, value: &str, now: Timestamp| {
            let plan = json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerPlan",
                "metadata": {"name": "p", "namespace": namespace, "annotations": {labels::APPROVED: value}},
                "spec": {"subject": {"kind": "ServerGroup", "name": "hosted"}, "hourlyChange": "1.97 USD", "expiresAt": until.to_string(),
                    "actions": [{"action": "RequestServer", "target": "hosted-0", "reason": "ServersNeeded", "message": ""},
                        {"action": "ReleaseServer", "target": "hosted-4", "reason": "LeaseEnded", "message": ""}]}});
            let mut world = world();
            world.plans.insert(ObjectKey::new(namespace, "p"), read(plan));
            by_group(&world, now).remove("hosted").unwrap_or_default()
        };
        let expected = Approved {
            requests: ["hosted-0".into()].into(),
            releases: ["hosted-4".into()].into(),
        };
        assert_eq!(approvals("pomarium-system", "true", NOW), expected);
        for (namespace, value, now) in [
            ("pomarium-system", "true", until),
            ("pomarium-system", "yes", NOW),
            ("assistants", "true", NOW),
        ] {
            assert!(approvals(namespace, value, now).is_empty(), "{namespace} {value} {now}");
        }
    }
}
