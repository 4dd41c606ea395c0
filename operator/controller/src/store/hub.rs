//! What is kept of the hub's objects: our own kinds whole, without managed fields, and the versions of Secrets.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use pomarium_api::group::ServerGroup;
use pomarium_api::plan::ServerPlan;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use pomarium_kernel::names::{GroupName, PoolId, SiteName};

use super::Projection;
use crate::world::ObjectKey;

/// `ServerPool`s.
pub(crate) struct Pools;
/// `ServerGroup`s.
pub(crate) struct Groups;
/// `ServerSite`s.
pub(crate) struct Sites;
/// `ServerPlan`s.
pub(crate) struct Plans;

macro_rules! whole_object {
    ($projection:ident, $object:ty, $key:ty, $make_key:expr) => {
        impl Projection for $projection {
            type Watched = DeserializeGuard<$object>;
            type Key = $key;
            type Value = $object;

            fn key(metadata: &ObjectMeta) -> $key {
                $make_key(metadata)
            }

            fn project(&self, object: Self::Watched) -> Result<$object, String> {
                let mut object = object.0.map_err(|invalid| invalid.error)?;
                object.metadata.managed_fields = None;
                Ok(object)
            }

            /// Our own writes of the status come back as events; they are no news.
            fn matters(old: &$object, new: &$object) -> bool {
                old.spec != new.spec || is_news(&old.metadata, &new.metadata)
            }
        }
    };
}

whole_object!(Pools, ServerPool, PoolId, |metadata: &ObjectMeta| PoolId::new(
    metadata.namespace.clone().unwrap_or_default(),
    name(metadata)
));
whole_object!(Groups, ServerGroup, GroupName, |metadata| GroupName::new(name(
    metadata
)));
whole_object!(Sites, ServerSite, SiteName, |metadata| SiteName::new(name(metadata)));

whole_object!(Plans, ServerPlan, ObjectKey, |metadata: &ObjectMeta| ObjectKey::new(
    metadata.namespace.clone().unwrap_or_default(),
    name(metadata)
));

/// Secrets of the operator's namespace: only that they changed. Their content is read when a site is connected.
pub(crate) struct SecretVersions;

impl Projection for SecretVersions {
    type Watched = PartialObjectMeta<Secret>;
    type Key = String;
    type Value = String;

    fn key(metadata: &ObjectMeta) -> String {
        name(metadata)
    }

    fn project(&self, object: Self::Watched) -> Result<String, String> {
        let metadata = object.metadata;
        // The uid too: a Secret that was replaced may have any version.
        Ok(format!(
            "{}/{}",
            metadata.uid.unwrap_or_default(),
            metadata.resource_version.unwrap_or_default()
        ))
    }

    fn matters(old: &String, new: &String) -> bool {
        old != new
    }
}

fn name(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn is_news(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid != new.uid
        || old.labels != new.labels
        || old.annotations != new.annotations
        || old.deletion_timestamp != new.deletion_timestamp
}
