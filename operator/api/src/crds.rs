//! The custom resource definitions, as the `crds/` folder and `pomarium crds` have them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::group::ServerGroup;
use crate::plan::ServerPlan;
use crate::pool::ServerPool;
use crate::site::ServerSite;

/// All definitions, in the order in which a reader meets them.
pub fn crds() -> [CustomResourceDefinition; 4] {
    [
        ServerSite::crd(),
        ServerGroup::crd(),
        ServerPool::crd(),
        ServerPlan::crd(),
    ]
}

/// One YAML document that `kubectl apply` takes.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(crd)
}
