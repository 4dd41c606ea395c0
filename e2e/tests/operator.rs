//! The operator's process in a real cluster, with exactly the rights that the chart gives it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use pomarium_api::pool::ServerPool;
use pomarium_e2e::chart;
use pomarium_e2e::cluster::{ControlPlane, repository};
use pomarium_e2e::operator_process::Operator;
use pomarium_e2e::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_the_chart_are_enough_from_the_start_to_a_good_end() {
    let hub = ControlPlane::start("operator").await.unwrap();
    let client = hub.client().await.unwrap();
    let mut operator = Operator::start_as_chart(&hub, &["--leader-lease-duration=10s"])
        .await
        .unwrap();
    operator.wait_until_ready(LIMIT).await.unwrap();
    assert!(operator.metrics().await.unwrap().contains("# TYPE pomarium_"));

    hub.apply_path(&repository().join("examples/hybrid")).await.unwrap();
    let pools: Api<ServerPool> = Api::namespaced(client.clone(), "assistants");
    let answered = async |operator: &Operator, what: &str| {
        let seen = eventually(LIMIT, what, async || {
            let pool = pools.get("chat").await.map_err(|error| error.to_string())?;
            let status = pool.status.as_ref().ok_or("the pool has no status")?;
            if status.observed_generation == pool.metadata.generation {
                Ok(())
            } else {
                Err("an old status".to_owned())
            }
        });
        seen.await
            .unwrap_or_else(|error| panic!("{error}; the end of its log:\n{}", operator.log_tail()));
    };
    answered(&operator, "the operator to answer the pool").await;

    // Killed without a word, it comes back and goes on.
    operator.kill9();
    assert!(!operator.is_running());
    let change = r#"{"spec": {"priority": 101}}"#;
    let args = [
        "patch",
        "serverpool/chat",
        "--namespace=assistants",
        "--type=merge",
        "--patch",
        change,
    ];
    hub.kubectl(&args).await.unwrap().checked().unwrap();
    operator.restart().unwrap();
    operator.wait_until_ready(LIMIT).await.unwrap();
    answered(&operator, "the operator to answer the pool after its restart").await;
    let mebibytes = operator.resident_bytes().map(|bytes| bytes >> 20);
    eprintln!("the operator holds {mebibytes:?} MiB");

    // Asked to end, it ends by itself and gives its Lease back.
    assert!(
        operator.terminate(Duration::from_secs(20)).await,
        "{}",
        operator.log_tail()
    );
    let leases: Api<Lease> = Api::namespaced(client, chart::NAMESPACE);
    let holder = leases
        .get("pomarium")
        .await
        .unwrap()
        .spec
        .and_then(|spec| spec.holder_identity);
    assert!(
        holder.as_deref().unwrap_or_default().is_empty(),
        "{holder:?}: {}",
        operator.log_tail()
    );

    // The API server refused nothing that it asked for.
    let user = format!("system:serviceaccount:{}:{}", chart::NAMESPACE, chart::RELEASE);
    let asked: Vec<_> = hub
        .audit()
        .unwrap()
        .into_iter()
        .filter(|event| event.user == user)
        .collect();
    assert!(
        asked.iter().any(|event| event.is_write() && event.succeeded()),
        "it wrote nothing at all"
    );
    let mut refused = BTreeMap::new();
    for event in asked.iter().filter(|event| event.code == 403) {
        *refused
            .entry(format!(
                "{} {}/{} in '{}'",
                event.verb, event.resource, event.subresource, event.namespace
            ))
            .or_insert(0) += 1;
    }
    assert!(refused.is_empty(), "{refused:#?}");
}
