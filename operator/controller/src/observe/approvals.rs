//! What people have approved: pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use pomarium_api::labels;
use pomarium_api::plan::{PlannedAction, ServerPlan, SubjectKind};
use pomarium_kernel::names::{GroupName, PoolId, ServerName};
use pomarium_kernel::snapshot::Approved;
use pomarium_kernel::time::Timestamp;

use crate::build::{SAME, is_over};
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

/// Servers that may be asked for by approval, by pool. What is planned for later is approved for later.
pub(super) fn by_pool(world: &World, now: Timestamp) -> BTreeMap<PoolId, BTreeSet<ServerName>> {
    let mut approved: BTreeMap<PoolId, BTreeSet<ServerName>> = BTreeMap::new();
    let valid = world.plans.iter().filter(|(_, plan)| {
        plan.spec.subject.kind == SubjectKind::ServerPool && is_approved(plan) && !is_over(plan, now)
    });
    let is_time = |action: &PlannedAction| match action.at.as_deref() {
        Some(at) => Timestamp::parse(at).is_some_and(|at| at <= now + SAME),
        None => true,
    };
    for (key, plan) in valid {
        let requests = plan
            .spec
            .actions
            .iter()
            .filter(|action| action.action == "RequestServer");
        let servers = requests.filter(|action| is_time(action));
        let of_pool = approved
            .entry(PoolId::new(&key.namespace, &plan.spec.subject.name))
            .or_default();
        of_pool.extend(servers.map(|action| ServerName::from(action.target.as_str())));
    }
    approved
}

/// Whether people have approved a plan.
pub(crate) fn is_approved(plan: &ServerPlan) -> bool {
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

    #[test]
    fn the_plan_of_a_pool_counts_in_the_pools_own_namespace_and_not_before_its_time() {
        let until = NOW + Span::from_hours(30);
        let later = NOW + Span::from_hours(9);
        let plan = json!({"apiVersion": "pomarium.dev/v1alpha1", "kind": "ServerPlan",
            "metadata": {"name": "p", "namespace": "assistants", "annotations": {labels::APPROVED: "true"}},
            "spec": {"subject": {"kind": "ServerPool", "name": "chat"}, "hourlyChange": "3.94 USD", "expiresAt": until.to_string(),
                "actions": [
                    {"action": "RequestServer", "target": "hosted-0", "at": NOW.to_string(), "reason": "PlannedAhead", "message": ""},
                    {"action": "RequestServer", "target": "hosted-1", "at": later.to_string(), "reason": "PlannedAhead", "message": ""},
                    {"action": "ReleaseServer", "target": "hosted-4", "at": NOW.to_string(), "reason": "LeaseEnded", "message": ""}]}});
        let mut world = world();
        world.plans.insert(ObjectKey::new("assistants", "p"), read(plan));
        let approved = |now: Timestamp| {
            let mut approved = by_pool(&world, now);
            let own = approved.remove(&PoolId::new("assistants", "chat"));
            assert!(approved.is_empty());
            own.unwrap_or_default()
        };
        assert_eq!(approved(NOW), ["hosted-0".into()].into());
        assert_eq!(approved(later), ["hosted-0".into(), "hosted-1".into()].into());
        assert!(approved(until).is_empty());
        assert!(by_group(&world, NOW).is_empty());
    }
}
