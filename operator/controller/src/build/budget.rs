//! The PodDisruptionBudget that refuses everybody else's evictions, so that `kubectl drain` becomes a Pomarium drain.

use std::collections::BTreeMap;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pomarium_api::labels;
use pomarium_api::pool::ServerPool;
use pomarium_kernel::names::PoolId;

use super::pod::uid_of;
use crate::world::ObjectKey;

/// More Pods than a pool ever has. Budgets over bare Pods only understand an absolute number that must stay.
const NEVER: i32 = 1_000_000;

/// Where a pool's budget is found, in every member cluster.
pub(crate) fn key(pool: &PoolId) -> ObjectKey {
    ObjectKey::new(pool.namespace.clone(), format!("{}-pomarium", pool.name))
}

pub(super) fn budget(pool: &PoolId, object: &ServerPool, hub_uid: &str) -> PodDisruptionBudget {
    let key = key(pool);
    PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(key.name),
            namespace: Some(key.namespace),
            labels: Some(ours(pool, object, hub_uid)),
            ..ObjectMeta::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(NEVER)),
            selector: Some(LabelSelector {
                match_labels: Some(BTreeMap::from([(labels::POOL.to_owned(), pool.name.clone())])),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// Labels of everything that is made for a pool in a member cluster.
pub(super) fn ours(pool: &PoolId, object: &ServerPool, hub_uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::POOL.to_owned(), pool.name.clone()),
        (labels::POOL_UID.to_owned(), uid_of(object)),
        (labels::HUB_UID.to_owned(), hub_uid.to_owned()),
    ])
}
