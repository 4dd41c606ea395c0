//! Routes, Services and proposals in the hub.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, Preconditions};
use pomarium_api::plan::ServerPlan;
use serde_json::Value;

use super::kube_call::{as_manager, call};
use crate::effect::Outcome;
use crate::member::Hub;
use crate::route::Route;
use crate::world::ObjectKey;

/// The Gateway API.
const API_GROUP: &str = "gateway.networking.k8s.io";
/// Field manager of routes and their Services.
const ROUTES: &str = "pomarium.dev/routes";
/// Field manager of proposals.
const PLANS: &str = "pomarium.dev/plans";

/// Services first: a route must not name what does not exist. Nothing at all is written where the Gateway API is missing, nor
/// over what somebody else made under our names.
pub(super) async fn apply(hub: &Hub, route: &Route) -> Result<Outcome, Outcome> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(API_GROUP, "v1", "HTTPRoute"));
    let text = |field: &str| route.http_route["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let (read, write): (Api<DynamicObject>, Api<DynamicObject>) = (
        Api::namespaced_with(hub.read.clone(), namespace, &resource),
        Api::namespaced_with(hub.write.clone(), namespace, &resource),
    );
    let seen = match call(read.get(name)).await {
        Ok(seen) => Some(seen),
        Err(Outcome::Gone) => None,
        Err(outcome) => return Err(outcome),
    };
    match &seen {
        Some(seen) => check_owner("HTTPRoute", seen, route)?,
        // A missing route and a missing API look the same here.
        None if !offers_routes(hub).await? => return Ok(Outcome::Gone),
        None if !route.create => return Ok(Outcome::Unchanged),
        None => {}
    }
    let mut outcome = Outcome::Unchanged;
    for service in &route.services {
        if apply_service(hub, route, service).await? {
            outcome = Outcome::Done;
        }
    }
    if !seen.is_some_and(|seen| holds(&route.http_route, &json(&seen))) {
        call(write.patch(name, &as_manager(ROUTES), &Patch::Apply(&route.http_route))).await?;
        outcome = Outcome::Done;
    }
    Ok(outcome)
}

/// True if it was written.
async fn apply_service(hub: &Hub, route: &Route, service: &Service) -> Result<bool, Outcome> {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let (read, write): (Api<Service>, Api<Service>) = (
        Api::namespaced(hub.read.clone(), &namespace),
        Api::namespaced(hub.write.clone(), &namespace),
    );
    match call(read.get_opt(&name)).await? {
        Some(seen) => {
            check_owner("Service", &seen, route)?;
            if holds(&json(service), &json(&seen)) {
                return Ok(false);
            }
        }
        None if !route.create => return Ok(false),
        None => {}
    }
    call(write.patch(&name, &as_manager(ROUTES), &Patch::Apply(service))).await?;
    Ok(true)
}

/// Whether the hub has HTTPRoutes at all.
async fn offers_routes(hub: &Hub) -> Result<bool, Outcome> {
    match call(hub.read.list_api_group_resources(&format!("{API_GROUP}/v1"))).await {
        Ok(offered) => Ok(offered.resources.iter().any(|resource| resource.name == "httproutes")),
        Err(Outcome::Gone) => Ok(false),
        Err(outcome) => Err(outcome),
    }
}

/// Names are chosen by people too. An object that the pool does not own was made by one of them, or for an earlier pool
/// of this name, and then it will soon be collected.
fn check_owner(kind: &str, seen: &impl ResourceExt, route: &Route) -> Result<(), Outcome> {
    let owned = seen.owner_references().iter().any(|owner| owner.uid == route.owner);
    if owned {
        return Ok(());
    }
    Err(Outcome::Refused(format!(
        "{kind} {} exists and does not belong to this pool; it is left as it is",
        seen.name_any()
    )))
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

/// Only the very one that was looked at: its name may be another one's by now.
pub(super) async fn remove_plan(hub: &Hub, plan: &ObjectKey, uid: &str) -> Result<Outcome, Outcome> {
    let api: Api<ServerPlan> = Api::namespaced(hub.write.clone(), &plan.namespace);
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    });
    call(api.delete(&plan.name, &params)).await?;
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
