//! The Helm chart: what it renders, what it refuses, and what a real API server makes of it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use pomarium_e2e::chart;
use pomarium_e2e::cluster::{self, ControlPlane, Output, helm, repository};
use pomarium_e2e::wait::eventually;
use serde::Deserialize;
use serde_json::Value;

/// `helm template` with `--set` values and more arguments.
async fn template(values: &[&str], more: &[&str]) -> Output {
    let chart = chart::path().display().to_string();
    let mut args = vec!["template", chart::RELEASE, &chart, "--namespace", chart::NAMESPACE];
    for value in values {
        args.extend(["--set", value]);
    }
    args.extend(more);
    helm(&args).await.unwrap()
}

fn documents(yaml: &str) -> Vec<Value> {
    let parsed = serde_yaml::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap());
    parsed.filter(|value| !value.is_null()).collect()
}

async fn rendered(values: &[&str], more: &[&str]) -> Vec<Value> {
    documents(&template(values, more).await.checked().unwrap())
}

fn count(documents: &[Value]) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for document in documents {
        *count.entry(document["kind"].as_str().unwrap()).or_default() += 1;
    }
    count
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents
        .iter()
        .find(|document| document["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}"))
}

#[tokio::test]
async fn lint_finds_nothing_in_either_role() {
    let chart = chart::path().display().to_string();
    for role in ["role=Hub", "role=Member"] {
        let said = helm(&["lint", "--strict", &chart, "--set", role])
            .await
            .unwrap()
            .checked()
            .unwrap();
        assert!(said.contains("0 chart(s) failed"), "{said}");
    }
}

#[tokio::test]
async fn values_that_nobody_reads_or_that_cannot_work_are_refused_by_name() {
    for (value, named) in [
        ("replica=1", "replica"),
        ("replicas=-1", "replicas"),
        ("role=hub", "role"),
        ("operator.leaderElect=true", "leaderElect"),
        ("operator.logFormat=xml", "logFormat"),
        ("operator.prometheusUrl=prometheus:9090", "prometheusUrl"),
        ("image.digest=latest", "digest"),
        ("rbac.scaleTargets[0].group=x", "group"),
        ("metrics.serviceMonitor.interval=30", "interval"),
        ("resources.limit.memory=1Gi", "limit"),
    ] {
        let output = template(&[value], &[]).await;
        assert!(
            !output.success() && output.stderr.contains(named),
            "{value}: {}{}",
            output.stdout,
            output.stderr
        );
    }
}

#[tokio::test]
async fn each_option_makes_what_it_says_and_nothing_else() {
    let plain = rendered(&[], &[]).await;
    let kinds = count(&plain);
    assert_eq!(kinds.get("CustomResourceDefinition"), Some(&4));
    assert_eq!(kinds.get("Deployment"), Some(&1));
    assert_eq!(kinds.get("Service"), Some(&1));
    for absent in ["ServiceMonitor", "PodDisruptionBudget", "NetworkPolicy", "Secret"] {
        assert!(!kinds.contains_key(absent), "{absent}");
    }

    let without = rendered(
        &[
            "crds.install=false",
            "rbac.create=false",
            "metrics.service.enabled=false",
        ],
        &[],
    )
    .await;
    assert_eq!(
        count(&without),
        BTreeMap::from([("Deployment", 1), ("ServiceAccount", 1)])
    );

    let monitor = [
        "metrics.serviceMonitor.enabled=true",
        "podDisruptionBudget.enabled=true",
        "networkPolicy.enabled=true",
    ];
    let with = rendered(&monitor, &["--api-versions", "monitoring.coreos.com/v1"]).await;
    assert!(
        ["ServiceMonitor", "PodDisruptionBudget", "NetworkPolicy"]
            .iter()
            .all(|kind| count(&with).contains_key(kind))
    );
    let without_the_kind = rendered(&monitor, &[]).await;
    assert!(
        !count(&without_the_kind).contains_key("ServiceMonitor"),
        "a kind that the cluster does not have"
    );

    let flags = rendered(
        &[
            "operator.fleetUrl=http://fleet:1",
            "operator.gatewayMetricsUrl=http://gateway:2",
            "operator.prometheusUrl=http://prometheus:3",
        ],
        &[],
    )
    .await;
    let args = of_kind(&flags, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    for flag in [
        "--fleet-url=http://fleet:1",
        "--gateway-metrics-url=http://gateway:2",
        "--prometheus-url=http://prometheus:3",
    ] {
        assert!(args.contains(flag), "{flag} in {args}");
    }

    let member = rendered(&["role=Member"], &[]).await;
    assert!(!count(&member).contains_key("Deployment") && !count(&member).contains_key("CustomResourceDefinition"));
    assert_eq!(
        of_kind(&member, "Secret")["type"],
        "kubernetes.io/service-account-token"
    );
}

#[tokio::test]
async fn no_role_holds_a_wildcard_or_reads_secrets_of_other_namespaces() {
    for role in ["role=Hub", "role=Member"] {
        for document in rendered(&[role], &[]).await {
            let kind = document["kind"].as_str().unwrap();
            for rule in document["rules"].as_array().into_iter().flatten() {
                let text = rule.to_string();
                assert!(!text.contains("\"*\""), "{kind}: {text}");
                assert!(kind == "Role" || !text.contains("\"secrets\""), "{kind}: {text}");
                for dangerous in ["escalate", "impersonate", "bind", "serviceaccounts", "pods/exec"] {
                    assert!(!text.contains(&format!("\"{dangerous}\"")), "{kind}: {text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_kinds_are_rendered_as_they_were_written_and_kept_only_if_asked() {
    let files: Vec<_> = fs::read_dir(repository().join("crds"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let written: Vec<_> = files
        .iter()
        .flat_map(|file| documents(&fs::read_to_string(file).unwrap()))
        .collect();
    assert_eq!(written.len(), 4);
    for (keep, annotation) in [
        ("crds.keep=true", Value::from("keep")),
        ("crds.keep=false", Value::Null),
    ] {
        for mut crd in rendered(&[keep], &["--show-only", "templates/crds.yaml"]).await {
            assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], annotation);
            crd["metadata"].as_object_mut().unwrap().retain(|key, _| key == "name");
            let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
            let written = written
                .iter()
                .find(|written| written["metadata"]["name"] == *name)
                .unwrap();
            assert_eq!(crd["spec"], written["spec"], "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_lives_in_a_real_cluster_from_install_to_uninstall() {
    let hub = ControlPlane::start("chart").await.unwrap();
    let client = hub.client().await.unwrap();

    // Restricted Pod security is enforced by the API server on the Pod that the Deployment really makes.
    hub.apply_yaml(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}",
        chart::NAMESPACE
    ))
    .await
    .unwrap();
    chart::install(&hub, &["replicas=1"]).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), chart::NAMESPACE);
    eventually(
        Duration::from_secs(30),
        "the operator's Pod to be admitted",
        async || {
            let seen = pods
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?;
            if seen.items.len() == 1 {
                Ok(())
            } else {
                Err(format!("{} Pods", seen.items.len()))
            }
        },
    )
    .await
    .unwrap();

    an_upgrade_without_changes_changes_nothing(&hub, &client).await;
    the_rights_are_enough_and_not_more(&client).await;

    // The kinds survive, and the next release adopts them.
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    hub.helm(&["uninstall", chart::RELEASE, "--namespace", chart::NAMESPACE, "--wait"])
        .await
        .unwrap()
        .checked()
        .unwrap();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), chart::NAMESPACE);
    assert!(deployments.get_opt(chart::RELEASE).await.unwrap().is_none());
    assert!(crds.get_opt("serverpools.pomarium.dev").await.unwrap().is_some());
    chart::install(&hub, &[]).await.unwrap();
    hub.helm(&["uninstall", chart::RELEASE, "--namespace", chart::NAMESPACE, "--wait"])
        .await
        .unwrap()
        .checked()
        .unwrap();

    a_member_gets_a_token_that_works_and_no_more(&hub).await;
    hub.stop().await;
}

async fn an_upgrade_without_changes_changes_nothing(hub: &ControlPlane, client: &kube::Client) {
    let versions = async || {
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), chart::NAMESPACE);
        let mut versions = BTreeMap::new();
        for crd in crds.list(&ListParams::default()).await.unwrap() {
            versions.insert(crd.metadata.name.unwrap(), crd.metadata.generation.unwrap());
        }
        let deployment = deployments.get(chart::RELEASE).await.unwrap();
        versions.insert("deployment".to_owned(), deployment.metadata.generation.unwrap());
        versions
    };
    let before = versions().await;
    assert_eq!(before.len(), 5);
    chart::install(hub, &["replicas=1"]).await.unwrap();
    assert_eq!(versions().await, before);
}

async fn the_rights_are_enough_and_not_more(client: &kube::Client) {
    let own = chart::NAMESPACE;
    for (verb, group, resource, namespace, expected) in [
        ("patch", "pomarium.dev", "serverpools", "assistants", true),
        ("patch", "pomarium.dev", "serverpools/status", "assistants", true),
        ("create", "pomarium.dev", "serverplans", "assistants", true),
        ("update", "pomarium.dev", "serverpools", "assistants", false),
        ("delete", "pomarium.dev", "serverpools", "assistants", false),
        ("create", "pomarium.dev", "servergroups", "", false),
        ("create", "", "pods", "assistants", true),
        ("delete", "", "pods", "assistants", true),
        ("update", "", "pods", "assistants", false),
        ("deletecollection", "", "pods", "assistants", false),
        ("create", "", "pods/exec", "assistants", false),
        ("get", "", "pods/proxy", "assistants", true),
        ("create", "", "pods/proxy", "assistants", false),
        ("patch", "", "nodes", "", true),
        ("delete", "", "nodes", "", false),
        ("create", "", "namespaces", "", false),
        ("create", "policy", "poddisruptionbudgets", "assistants", true),
        (
            "update",
            "cluster.x-k8s.io",
            "machinedeployments/scale",
            "assistants",
            true,
        ),
        ("update", "cluster.x-k8s.io", "machinedeployments", "assistants", false),
        ("update", "apps", "deployments/scale", own, false),
        ("get", "", "secrets", own, true),
        ("get", "", "secrets", "assistants", false),
        ("create", "", "secrets", own, false),
        ("list", "", "configmaps", own, true),
        ("patch", "", "configmaps", own, true),
        ("delete", "", "configmaps", own, true),
        ("update", "", "configmaps", own, false),
        ("watch", "", "configmaps", own, false),
        ("list", "", "configmaps", "assistants", false),
        ("create", "coordination.k8s.io", "leases", own, true),
        ("update", "coordination.k8s.io", "leases", own, false),
        ("update", "coordination.k8s.io", "leases", "kube-system", false),
        ("create", "events.k8s.io", "events", "assistants", true),
        ("get", "apiextensions.k8s.io", "customresourcedefinitions", "", false),
        ("create", "gateway.networking.k8s.io", "httproutes", "assistants", true),
        ("patch", "", "services", "assistants", true),
        ("delete", "", "services", "assistants", false),
    ] {
        let allowed = chart::is_allowed(client, verb, group, resource, namespace)
            .await
            .unwrap();
        assert_eq!(allowed, expected, "{verb} {resource}.{group} in '{namespace}'");
    }
}

async fn a_member_gets_a_token_that_works_and_no_more(member: &ControlPlane) {
    let kubeconfig = chart::install_member(member, &[]).await.unwrap();
    let hub = cluster::client(&kubeconfig, "member").await.unwrap();
    let pods: Api<Pod> = Api::all(hub.clone());
    eventually(Duration::from_secs(10), "the member's rights to be known", async || {
        pods.list(&ListParams::default()).await
    })
    .await
    .unwrap();
    let secrets: Api<Secret> = Api::all(hub);
    let refused = secrets.list(&ListParams::default()).await.unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");
}
