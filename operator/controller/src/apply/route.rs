//! Routes, Services and proposals in the hub.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch};
use pomarium_api::plan::ServerPlan;
use serde_json::Value;

use super::kube_call::{as_manager, call};
use crate::effect::Outcome;
use crate::member::Hub;
use crate::route::Route;

/// Field manager of routes and their Services.
const ROUTES: &str = "pomarium.dev/routes";
/// Field manager of proposals.
const PLANS: &str = "pomarium.dev/plans";

/// Services first: a route must not name what does not exist.
pub(super) async fn apply(hub: &Hub, route: &Route) -> Result<Outcome, Outcome> {
    let mut outcome = Outcome::Unchanged;
    for service in &route.services {
        let namespace = service.namespace().unwrap_or_default();
        let (read, write): (Api<Service>, Api<Service>) = (
            Api::namespaced(hub.read.clone(), &namespace),
            Api::namespaced(hub.write.clone(), &namespace),
        );
        let seen = call(read.get_opt(&service.name_any())).await?;
        if !seen.is_some_and(|seen| holds(&json(service), &json(&seen))) {
            call(write.patch(&service.name_any(), &as_manager(ROUTES), &Patch::Apply(service))).await?;
            outcome = Outcome::Done;
        }
    }
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
    let text = |field: &str| route.http_route["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let (read, write): (Api<DynamicObject>, Api<DynamicObject>) = (
        Api::namespaced_with(hub.read.clone(), namespace, &resource),
        Api::namespaced_with(hub.write.clone(), namespace, &resource),
    );
    // `get_opt` cannot tell a missing route from a missing API; the patch can.
    let seen = call(read.get_opt(name)).await?;
    if !seen.is_some_and(|seen| holds(&route.http_route, &json(&seen))) {
        call(write.patch(name, &as_manager(ROUTES), &Patch::Apply(&route.http_route))).await?;
        outcome = Outcome::Done;
    }
    Ok(outcome)
}

/// A proposal is written once; its spec is immutable.
pub(super) async fn propose(hub: &Hub, plan: &ServerPlan) -> Result<Outcome, Outcome> {
    let namespace = plan.namespace().unwrap_or_default();
    let (read, write): (Api<ServerPlan>, Api<ServerPlan>) = (
        Api::namespaced(hub.read.clone(), &namespace),
        Api::namespaced(hub.write.clone(), &namespace),
    );
    if call(read.get_metadata_opt(&plan.name_any())).await?.is_some() {
        return Ok(Outcome::Unchanged);
    }
    call(write.patch(&plan.name_any(), &as_manager(PLANS), &Patch::Apply(plan))).await?;
    Ok(Outcome::Done)
}

fn json(object: &impl serde::Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Whether everything in `wanted` is so in `seen`. What the API server adds does not matter; lists must agree in length.
fn holds(wanted: &Value, seen: &Value) -> bool {
    match (wanted, seen) {
        (Value::Object(wanted), Value::Object(seen)) => wanted
            .iter()
            .all(|(key, value)| value.is_null() || seen.get(key).is_some_and(|seen| holds(value, seen))),
        (Value::Array(wanted), Value::Array(seen)) => {
            wanted.len() == seen.len() && wanted.iter().zip(seen).all(|(wanted, seen)| holds(wanted, seen))
        }
        (wanted, seen) => wanted == seen,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_that_the_server_adds_are_no_difference() {
        let wanted = json!({"a": 1, "b": [{"c": "x"}], "d": null});
        for (seen, same) in [
            (json!({"a": 1, "b": [{"c": "x", "added": 1}], "more": {}}), true),
            (json!({"a": 2, "b": [{"c": "x"}]}), false),
            (json!({"a": 1, "b": []}), false),
            (json!({"a": 1, "b": [{"c": "x"}, {"c": "y"}]}), false),
            (json!({"b": [{"c": "x"}]}), false),
        ] {
            assert_eq!(holds(&wanted, &seen), same, "{seen}");
        }
    }
}
