//! The custom resource definitions, as the `crds/` folder and `pomarium crds` have them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
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
    .map(|mut crd| {
        for version in &mut crd.spec.versions {
            if let Some(schema) = version
                .schema
                .as_mut()
                .and_then(|schema| schema.open_api_v3_schema.as_mut())
            {
                null_means_absent(schema);
            }
        }
        crd
    })
}

/// One YAML document that `kubectl apply` takes.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(crd)
}

/// Optional fields come out of the derive as nullable. The API server drops the null of a field that is not: templates may
/// leave a value empty, and no rule has to think of null.
fn null_means_absent(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        null_means_absent(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        null_means_absent(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        null_means_absent(values);
    }
}
