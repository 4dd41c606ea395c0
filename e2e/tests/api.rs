//! The custom resources on a real API server: what is accepted, what is refused and with which words, and how it all prints.

#![allow(clippy::unwrap_used)]

#[path = "../../operator/api/tests/support/mod.rs"]
mod support;

use http::{Method, Request};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use kube::Client;
use pomarium_api::crds::crds;
use pomarium_e2e::cluster::ControlPlane;
use serde_json::{Value, json};

/// The collection that a manifest belongs to.
fn collection(manifest: &Value) -> String {
    let kind = manifest["kind"].as_str().unwrap();
    if kind == "Namespace" {
        return "/api/v1/namespaces".to_owned();
    }
    let plural = format!("{}s", kind.to_lowercase());
    match manifest["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/apis/pomarium.dev/v1alpha1/namespaces/{namespace}/{plural}"),
        None => format!("/apis/pomarium.dev/v1alpha1/{plural}"),
    }
}

/// What the API server says to a request: the object, or the refusal's text.
async fn send(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value, String> {
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(other) => panic!("{path}: {other}"),
    }
}

async fn dry_run(client: &Client, manifest: &Value) -> Result<Value, String> {
    let path = format!("{}?dryRun=All&", collection(manifest));
    send(client, Method::POST, &path, manifest).await
}

async fn create(client: &Client, manifest: &Value) -> Result<Value, String> {
    let path = format!("{}?", collection(manifest));
    send(client, Method::POST, &path, manifest).await
}

/// Tries to replace what exists with `manifest`.
async fn change(client: &Client, manifest: &Value) -> Result<Value, String> {
    let name = manifest["metadata"]["name"].as_str().unwrap();
    let path = format!("{}/{name}?", collection(manifest));
    let existing = send(client, Method::GET, &path, &Value::Null).await.unwrap();
    let mut manifest = manifest.clone();
    manifest["metadata"]["resourceVersion"] = existing["metadata"]["resourceVersion"].clone();
    send(client, Method::PUT, &format!("{path}dryRun=All&"), &manifest).await
}

async fn namespaces(client: &Client) {
    for name in ["assistants", "pomarium-system"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(client, &namespace).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_judges_manifests_as_documented() {
    let plane = ControlPlane::builder("api")
        .without_scheduler()
        .without_controller_manager()
        .start()
        .await
        .unwrap();
    // Established: the cost of every rule is bounded, and every schema is structural.
    plane.install_crds().await.unwrap();
    let client = plane.client().await.unwrap();
    namespaces(&client).await;

    every_example_is_accepted(&client).await;
    every_bad_manifest_is_refused(&client).await;
    every_bound_is_enforced(&client).await;
    null_means_absent(&client).await;
    the_manual_can_be_read_in_the_cluster(&plane).await;
    a_table_answers_in_one_line(&plane, &client).await;
    plane.stop().await;
}

async fn every_example_is_accepted(client: &Client) {
    for path in support::example_files("") {
        for document in support::documents(&path) {
            if document["kind"] == "Namespace" || document["kind"] == "Secret" {
                continue;
            }
            if let Err(refusal) = dry_run(client, &document).await {
                panic!("{}: {refusal}", path.display());
            }
        }
    }
}

async fn every_bad_manifest_is_refused(client: &Client) {
    let cases = support::refused();
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| case.change) {
        let _ = create(client, &support::example(&case.example)).await;
    }
    for case in &cases {
        let manifest = case.manifest();
        let answer = if case.change {
            change(client, &manifest).await
        } else {
            dry_run(client, &manifest).await
        };
        match answer {
            Err(refusal) if refusal.contains(&case.field) && refusal.contains(&case.says) => {}
            other => wrong.push(format!("{case:?}\n  → {other:?}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// A value just outside a bound of the schema, the bound's kind, and the JSON pointer to it.
fn outside(pointer: &str, schema: &JSONSchemaProps, found: &mut Vec<(String, Value, &'static str)>) {
    let mut add = |value: Value, says: &'static str| found.push((pointer.to_owned(), value, says));
    #[expect(clippy::cast_possible_truncation, reason = "bounds of integers are integers")]
    {
        if let Some(minimum) = schema.minimum {
            add(json!(minimum as i64 - 1), "greater than or equal to");
        }
        if let Some(maximum) = schema.maximum {
            add(json!(maximum as i64 + 1), "less than or equal to");
        }
    }
    if let Some(longest) = schema.max_length {
        let text = "a".repeat(usize::try_from(longest).unwrap() + 1);
        add(json!(text), "Too long");
    }
    if schema.enum_.is_some() {
        add(json!("Nonsense"), "supported values");
    }
    if let Some(most) = schema.max_items {
        let items = vec![json!({}); usize::try_from(most).unwrap() + 1];
        add(Value::Array(items), "Too many");
    }
    if let Some(most) = schema.max_properties {
        let entries = (0..=most).map(|entry| (format!("key{entry}"), json!("value")));
        add(Value::Object(entries.collect()), "Too many");
    }
    for required in schema.required.iter().flatten() {
        found.push((format!("{pointer}/{required}"), Value::Null, "Required value"));
    }
    for (name, property) in schema.properties.iter().flatten() {
        outside(&format!("{pointer}/{name}"), property, found);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        outside(&format!("{pointer}/0"), items, found);
    }
}

/// Breaks every bound of every schema, one by one, in the first example that has the field, and expects the field's name and
/// the kind of the bound in the answer.
async fn every_bound_is_enforced(client: &Client) {
    let mut tried = 0;
    let mut wrong = Vec::new();
    for crd in crds() {
        let kind = &crd.spec.names.kind;
        let examples: Vec<Value> = support::example_files("")
            .iter()
            .flat_map(|path| support::documents(path))
            .filter(|document| document["kind"] == kind.as_str())
            .collect();
        let root = crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        let mut bounds = Vec::new();
        outside("/spec", &root.properties.as_ref().unwrap()["spec"], &mut bounds);
        for (pointer, value, says) in bounds {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            let Some(example) = examples
                .iter()
                .find(|example| example.pointer(parent).is_some_and(|parent| !parent.is_null()))
            else {
                wrong.push(format!("{kind}{pointer}: no example has it"));
                continue;
            };
            let mut manifest = example.clone();
            support::put(&mut manifest, &pointer, value);
            tried += 1;
            match dry_run(client, &manifest).await {
                Err(refusal) if refusal.contains(says) && (refusal.contains(field) || field == "0") => {}
                other => wrong.push(format!("{kind}{pointer} ({says}): {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(tried > 150, "bounds are found: {tried}");
}

async fn null_means_absent(client: &Client) {
    let mut pool = support::example("ServerPool/chat");
    for field in ["budget", "placement", "drain", "mode", "events", "missPenalty"] {
        pool["spec"][field] = Value::Null;
    }
    pool["spec"]["replicas"]["min"] = Value::Null;
    let stored = dry_run(client, &pool).await.unwrap();
    assert!(stored["spec"].get("budget").is_none(), "{stored}");
    assert!(stored["spec"]["replicas"].get("min").is_none(), "{stored}");
}

async fn the_manual_can_be_read_in_the_cluster(plane: &ControlPlane) {
    for (path, words) in [
        (
            "serverpool.spec.objectives",
            vec!["percentile", "1 to 99", "Example: `10s`", "Default: 24h"],
        ),
        ("serverpool.spec.drain", vec!["Default: 15m", "enum: Keep, Cut"]),
        (
            "servergroup.spec.pricing",
            vec!["minimumLease", "Default: 0s", "one currency per hub"],
        ),
        (
            "serversite.spec.trust",
            vec!["Attested", "signed evidence", "Default: None"],
        ),
        ("serverplan.spec", vec!["expiresAt", "hourlyChange"]),
    ] {
        let manual = plane.kubectl(&["explain", path]).await.unwrap().checked().unwrap();
        // kubectl wraps lines where it likes.
        let manual = manual.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(
                manual.contains(word),
                "kubectl explain {path} does not say {word:?}:\n{manual}"
            );
        }
    }
}

async fn a_table_answers_in_one_line(plane: &ControlPlane, client: &Client) {
    for name in [
        "ServerSite/cupertino",
        "ServerGroup/oregon-m4-max",
        "ServerPool/chat",
        "ServerPlan/oregon-m4-max-6f1c2a90",
    ] {
        let _ = create(client, &support::example(name)).await;
    }
    let ready = json!([{
        "type": "Ready", "status": "True", "reason": "OnTarget", "message": "all is well",
        "lastTransitionTime": "2026-11-20T12:00:00Z",
    }, {
        "type": "SLOMet", "status": "Unknown", "reason": "ModelOnly", "message": "the engine exports no such metric",
        "lastTransitionTime": "2026-11-20T12:00:00Z",
    }]);
    let why = "DemandGrew: 5.3 requests/s, 4 replicas sustain 4.2";
    for (resource, status) in [
        (
            "serversites/cupertino",
            json!({"serversReady": 8, "costPerHour": "0.28 USD"}),
        ),
        (
            "servergroups/oregon-m4-max",
            json!({"servers": {"target": 4, "ready": 3, "used": 3}, "costPerHour": "7.88 USD"}),
        ),
        (
            "namespaces/assistants/serverpools/chat",
            json!({"replicas": {"target": 12, "current": 12, "serving": 11, "draining": 0, "text": "11/12"}, "costPerHour": "11.82 USD"}),
        ),
    ] {
        let mut patch = json!({ "status": status });
        patch["status"]["conditions"] = ready.clone();
        patch["status"]["summary"] = json!(why);
        let request = Request::patch(format!(
            "/apis/pomarium.dev/v1alpha1/{resource}/status?fieldValidation=Strict"
        ))
        .header("content-type", "application/merge-patch+json")
        .body(serde_json::to_vec(&patch).unwrap())
        .unwrap();
        client.request::<Value>(request).await.unwrap();
    }
    // By category, over all kinds and namespaces.
    let all = plane
        .kubectl(&["get", "pomarium", "-A"])
        .await
        .unwrap()
        .checked()
        .unwrap();
    for words in [
        ["cupertino", "Owned", "0.28 USD", why],
        ["oregon-m4-max", "3 ", "7.88 USD", why],
        ["chat", "11/12", "11.82 USD", why],
        ["oregon-m4-max-6f1c2a90", "RequestServer", "1.97 USD", "DemandGrew"],
    ] {
        let line = all.lines().find(|line| words.iter().all(|word| line.contains(word)));
        assert!(line.is_some(), "no line has {words:?}:\n{all}");
    }
    // By short name.
    for short in ["ssite", "sgroup", "spool", "splan"] {
        let table = plane.kubectl(&["get", short, "-A"]).await.unwrap().checked().unwrap();
        for line in table.lines() {
            assert!(
                line.trim_end().chars().count() <= 120,
                "wider than 120 characters:\n{table}"
            );
        }
    }
    // By field.
    for (short, selector, found) in [
        ("sgroup", "spec.siteRef.name=oregon", true),
        ("sgroup", "spec.siteRef.name=cupertino", false),
        ("spool", "spec.engine.type=LlamaCpp", true),
        ("ssite", "spec.ownership=Hosted", false),
        ("splan", "spec.subject.name=oregon-m4-max", true),
    ] {
        let names = plane
            .kubectl(&["get", short, "-A", "--field-selector", selector, "-o", "name"])
            .await
            .unwrap()
            .checked()
            .unwrap();
        assert_eq!(
            names.lines().any(|name| !name.is_empty()),
            found,
            "{short} {selector}: {names}"
        );
    }
}
