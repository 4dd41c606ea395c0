//! How the operator behaves towards a cluster that is not its own: it waits for what is not installed yet, needs no more
//! rights than its chart grants, leaves other people's objects and fields alone, and turns their evictions into drains.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, EvictParams, GroupVersionKind, ListParams, Patch, PatchParams,
};
use pomarium_api::group::ServerGroup;
use pomarium_api::labels;
use pomarium_e2e::chart;
use pomarium_e2e::cluster::{ControlPlane, repository};
use pomarium_e2e::fleet::{LeaseTerms, Supply};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Money;
use serde_json::{Value, json};
use support::{PATIENCE, Rig, TEAM, group, machines, pool, site};

/// The chart may scale this kind and no other.
const SCALES: [&str; 2] = [
    "rbac.scaleTargets[0].apiGroup=infra.example.dev",
    "rbac.scaleTargets[0].resources[0]=macsets",
];
/// Each with one server, so that each replica is the only one of its group.
const OWNED: [&str; 3] = ["rack-a", "rack-b", "rack-c"];

/// One cluster for all of it: starting one takes longer than most of the steps.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_a_good_guest() {
    let leased = Supply {
        maximum: 2,
        always_on: false,
        provision: Span::from_minutes(1),
        boot: Span::ZERO,
        recycle: Span::ZERO,
        lease: Some(LeaseTerms {
            hourly: Money::from_micros(2_000_000),
            minimum: Span::from_hours(1),
        }),
    };
    let mut fleet: Vec<_> = OWNED.iter().map(|name| machines(name, Supply::always_on(1))).collect();
    fleet.push(machines("rented", leased));
    let mut rig = Rig::start(fleet, install_without_kinds).await;

    it_waits_for_its_kinds_and_says_so(&rig).await;
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}}),
        site(),
        pool(
            "chat",
            2,
            // No more than two: the plan ahead leaves no machine idle that costs the same if it serves.
            &json!({"placement": {"surviveLossOf": "None", "groupSelector": {"matchLabels": {"at": "racks"}}},
                "replicas": {"min": 2, "max": 2},
                "routing": {"httpRoute": {"gatewayRef": {"name": "web"}, "hostnames": ["chat.example.com"]}}}),
        ),
    ];
    objects.extend(OWNED.map(|name| group(name, "racks", &json!({"provider": {"static": {}}, "size": {"max": 1}}))));
    rig.apply(&objects).await;
    rig.serving_become("chat", 2).await;

    a_route_waits_for_the_gateway_api_and_then_follows_the_plan(&rig).await;
    an_eviction_becomes_a_drain(&rig).await;
    where_people_want_to_be_asked_nothing_is_bought_and_the_pool_says_why(&rig).await;
    a_target_is_scaled_through_its_subresource_and_no_further_than_needed(&rig).await;
    what_is_deleted_leaves_nothing_behind(&rig).await;

    assert_eq!(rig.fleet.summary().cut(), 0, "no request was ever cut");
    let refused: Vec<_> = rig.asked().into_iter().filter(|event| event.code == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let log = rig.operator.log();
    assert!(!log.to_lowercase().contains("forbidden"), "{log}");
    assert!(rig.operator.terminate(PATIENCE).await, "{}", rig.operator.log_tail());
    rig.fleet.stop().await;
}

/// The chart's rights, and none of its kinds: as when a tool gets to the definitions last.
async fn install_without_kinds(hub: &ControlPlane) -> String {
    let path = chart::path().display().to_string();
    let install = [
        "upgrade",
        "--install",
        chart::RELEASE,
        &path,
        "--create-namespace",
        "--namespace",
        chart::NAMESPACE,
    ];
    let values = ["--set", "replicas=0", "--set", "crds.install=false"];
    let scales = SCALES.map(|value| ["--set", value]).concat();
    hub.helm(&[&install[..], &values, &scales].concat())
        .await
        .unwrap()
        .checked()
        .unwrap();
    hub.service_account_kubeconfig(chart::NAMESPACE, chart::RELEASE)
        .await
        .unwrap()
}

async fn it_waits_for_its_kinds_and_says_so(rig: &Rig) {
    rig.eventually("the operator to say that it waits for its kinds", async || {
        let (code, text) = rig.operator.readyz().await.map_err(|error| error.to_string())?;
        let waits = code == 503 && text.contains("[-]crds not yet") && text.contains("[+]leader-election ok");
        let waits = waits && rig.operator.log().contains("waiting for the custom resources");
        if waits { Ok(()) } else { Err(format!("{code}: {text}")) }
    })
    .await;
    let (code, text) = rig.operator.healthz().await.unwrap();
    assert_eq!(code, 200, "waiting is no reason for a restart: {text}");
    let before = rig.operator.id();
    chart::install(&rig.hub, &SCALES).await.unwrap();
    rig.operator.wait_until_ready(PATIENCE).await.unwrap();
    assert_eq!(rig.operator.id(), before, "it went on by itself");
}

// --------------------------------------------------------------------------------------------------------------- routes

fn routes(rig: &Rig) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    Api::namespaced_with(rig.client.clone(), TEAM, &ApiResource::from_gvk(&kind))
}

/// Backends and their weights.
fn weights(route: &DynamicObject) -> Vec<(String, u64)> {
    let backends = route.data["spec"]["rules"][0]["backendRefs"].as_array().unwrap();
    let one = |backend: &Value| {
        let name = backend["name"].as_str().unwrap().to_owned();
        (name, backend["weight"].as_u64().unwrap())
    };
    backends.iter().map(one).collect()
}

async fn a_route_waits_for_the_gateway_api_and_then_follows_the_plan(rig: &Rig) {
    rig.pool_says("chat", "RoutingReady", "GatewayApiMissing").await;
    assert_eq!(
        rig.written(&["httproutes", "services"]),
        [],
        "nothing is tried that cannot work"
    );

    let file = repository().join("e2e/data/httproutes-v1.6.3.yaml.gz");
    let mut definition = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap())
        .read_to_string(&mut definition)
        .unwrap();
    rig.hub.apply_yaml(&definition).await.unwrap();
    rig.pool_says("chat", "RoutingReady", "RoutesWritten").await;

    let route = routes(rig).get("chat").await.unwrap();
    let serving = weights(&route);
    assert_eq!(serving.len(), 2, "{serving:?}");
    assert!(serving.iter().all(|(_, weight)| *weight == 1), "{serving:?}");
    let services: Api<Service> = Api::namespaced(rig.client.clone(), TEAM);
    for (name, _) in &serving {
        let service = services.get(name).await.unwrap();
        let selector = service.spec.unwrap().selector.unwrap();
        assert_eq!(selector[labels::SERVING], "true", "a fenced replica gets nothing");
    }
    let managers: Vec<_> = route
        .managed_fields()
        .iter()
        .map(|entry| (&entry.manager, &entry.operation))
        .collect();
    assert_eq!(
        managers,
        [(&Some("pomarium.dev/routes".to_owned()), &Some("Apply".to_owned()))]
    );

    // What other people add is theirs.
    let theirs = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"labels": {"team": "web"}, "annotations": {"example.dev/owner": "web"}}});
    let params = PatchParams::apply("web-team");
    routes(rig).patch("chat", &params, &Patch::Apply(theirs)).await.unwrap();

    // And nothing is written while nothing changes.
    let (before, passes) = (rig.written(&["httproutes", "services"]).len(), rig.passes().await);
    rig.eventually("four more passes", async || {
        let more = rig.passes().await - passes;
        if more >= 4.0 { Ok(()) } else { Err(format!("{more}")) }
    })
    .await;
    assert_eq!(rig.written(&["httproutes", "services"]).len(), before);
}

// ------------------------------------------------------------------------------------------------------------ evictions

async fn an_eviction_becomes_a_drain(rig: &Rig) {
    let serving = rig.serving_become("chat", 2).await;
    let mut answers = Vec::new();
    for pod in &serving {
        // Some fifteen seconds each.
        answers.push(rig.request(pod, 24_000).await);
    }
    let victim = &serving[0];
    let (name, server) = (
        victim.name_any(),
        victim.spec.as_ref().unwrap().node_name.clone().unwrap(),
    );
    let backend = format!("chat-{}", victim.labels()[labels::GROUP]);

    let refused = rig.pods.evict(&name, &EvictParams::default()).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 429),
        "its disruption budget refuses: {refused}"
    );
    let drain = ["drain", &server, "--force", "--ignore-daemonsets", "--timeout=120s"];
    let watching = async {
        let fenced = rig.eventually("the replica to be fenced", async || {
            let pod = rig.pods.get(&name).await.map_err(|error| error.to_string())?;
            match pod.labels().get(labels::SERVING) {
                None => Ok(pod),
                Some(_) => Err("routers may still send it requests".to_owned()),
            }
        });
        let fenced = fenced.await;
        assert!(
            fenced.annotations().contains_key(labels::DRAIN),
            "{:?}",
            fenced.metadata
        );
        rig.eventually("its backend to lose its weight", async || {
            let weights = weights(&routes(rig).get("chat").await.map_err(|error| error.to_string())?);
            if weights.contains(&(backend.clone(), 0)) {
                Ok(())
            } else {
                Err(format!("{weights:?}"))
            }
        })
        .await;
        assert!(!answers[0].is_finished(), "all of it while its request is under way");
        assert!(rig.serving("chat").await.len() >= 2, "its replacement came first");
    };
    let (drained, ()) = tokio::join!(rig.hub.kubectl(&drain), watching);
    let drained = drained.unwrap();
    assert!(drained.success(), "{drained:?}\n{}", rig.operator.log_tail());
    assert!(
        drained.stderr.contains("Cannot evict pod"),
        "it had to wait: {}",
        drained.stderr
    );
    assert!(
        answers[0].is_finished(),
        "kubectl came to its end after the request did"
    );
    for answer in answers {
        assert!(answer.await.unwrap(), "answered to its end");
    }
    assert!(rig.pods.get_opt(&name).await.unwrap().is_none());
    assert_eq!(rig.fleet.summary().cut(), 0);

    let route = rig
        .eventually("the route to be without the group", async || {
            let route = routes(rig).get("chat").await.map_err(|error| error.to_string())?;
            if weights(&route).iter().any(|(name, _)| *name == backend) {
                Err(format!("{:?}", weights(&route)))
            } else {
                Ok(route)
            }
        })
        .await;
    assert_eq!(route.labels()["team"], "web");
    assert_eq!(route.annotations()["example.dev/owner"], "web");
    Api::<Node>::all(rig.client.clone()).uncordon(&server).await.unwrap();
}

// --------------------------------------------------------------------------------------------------------------- rights

async fn where_people_want_to_be_asked_nothing_is_bought_and_the_pool_says_why(rig: &Rig) {
    let terms = json!({"provider": {"simulated": {}}, "mode": "Approve",
        "pricing": {"hourly": "2.00", "currency": "USD", "minimumLease": "1h"}, "leadTime": {"provision": "1m"}});
    let only_there =
        json!({"placement": {"surviveLossOf": "None", "groupSelector": {"matchLabels": {"at": "rented"}}}});
    rig.apply(&[group("rented", "rented", &terms), pool("extra", 1, &only_there)])
        .await;
    rig.eventually("the pool to say that people have to be asked", async || {
        let pool = rig.pools.get("extra").await.map_err(|error| error.to_string())?;
        let conditions = pool.status.map(|status| status.conditions).unwrap_or_default();
        let asks = conditions
            .iter()
            .any(|condition| condition.reason == "AwaitingApproval" || condition.message.contains("may only propose"));
        if asks { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
    // What it will propose it may write.
    let operator = format!("--as=system:serviceaccount:{}:{}", chart::NAMESPACE, chart::RELEASE);
    for verb in ["get", "create", "patch"] {
        let may = [
            "auth",
            "can-i",
            verb,
            "serverplans.pomarium.dev",
            "--namespace",
            chart::NAMESPACE,
            &operator,
        ];
        rig.hub.kubectl(&may).await.unwrap().checked().unwrap();
    }
    assert!(
        rig.fleet.summary().groups["rented"].leases.is_empty(),
        "nothing was bought"
    );
    rig.pools.delete("extra", &DeleteParams::default()).await.unwrap();
}

async fn a_target_is_scaled_through_its_subresource_and_no_further_than_needed(rig: &Rig) {
    let kind = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "macsets.infra.example.dev"},
        "spec": {"group": "infra.example.dev", "scope": "Namespaced",
            "names": {"kind": "MacSet", "plural": "macsets", "singular": "macset"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}, "chip": {"type": "string"}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}}}]}});
    rig.apply(&[kind]).await;
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/macsets.infra.example.dev",
    ];
    rig.hub.kubectl(&established).await.unwrap().checked().unwrap();
    let target = json!({"apiVersion": "infra.example.dev/v1", "kind": "MacSet", "metadata": {"name": "farm", "namespace": TEAM},
        "spec": {"chip": "M2 Ultra", "replicas": 0}});
    let scale = json!({"provider": {"scale": {"targetRef": {"apiVersion": "infra.example.dev/v1", "kind": "MacSet",
        "namespace": TEAM, "name": "farm", "cluster": "Hub"}}}, "leadTime": {"provision": "2h"}});
    let only_there = json!({"placement": {"surviveLossOf": "None", "groupSelector": {"matchLabels": {"at": "farm"}}}});
    rig.apply(&[target, group("farm", "farm", &scale), pool("farmed", 1, &only_there)])
        .await;

    let kind = GroupVersionKind::gvk("infra.example.dev", "v1", "MacSet");
    let targets: Api<DynamicObject> = Api::namespaced_with(rig.client.clone(), TEAM, &ApiResource::from_gvk(&kind));
    rig.eventually("the target to grow", async || {
        let target = targets.get("farm").await.map_err(|error| error.to_string())?;
        let size = target.data["spec"]["replicas"].as_i64();
        if size == Some(1) {
            Ok(())
        } else {
            Err(format!("{size:?}"))
        }
    })
    .await;
    // Its server never comes, and is not asked for again.
    let passes = rig.passes().await;
    rig.eventually("four more passes", async || {
        let more = rig.passes().await - passes;
        if more >= 4.0 { Ok(()) } else { Err(format!("{more}")) }
    })
    .await;
    let written = rig.written(&["macsets"]);
    assert_eq!(written.len(), 1, "{written:#?}");
    assert_eq!(
        (written[0].verb.as_str(), written[0].subresource.as_str()),
        ("update", "scale")
    );
    rig.pools.delete("farmed", &DeleteParams::default()).await.unwrap();
}

async fn what_is_deleted_leaves_nothing_behind(rig: &Rig) {
    let serving = rig.serving_become("chat", 2).await;
    let answer = rig.request(&serving[0], 6_000).await;
    rig.pools.delete("chat", &DeleteParams::default()).await.unwrap();
    rig.eventually("the pools to be gone", async || {
        let left = rig
            .pools
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let names: Vec<_> = left
            .items
            .iter()
            .map(|pool| {
                (
                    pool.name_any(),
                    pool.status.as_ref().and_then(|status| status.summary.clone()),
                )
            })
            .collect();
        if names.is_empty() {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await;
    assert!(answer.await.unwrap(), "answered to its end");
    let all = ListParams::default().labels(labels::POOL);
    let pods: Api<Pod> = Api::all(rig.client.clone());
    assert!(pods.list(&all).await.unwrap().items.is_empty());
    let budgets: Api<PodDisruptionBudget> = Api::all(rig.client.clone());
    assert!(budgets.list(&all).await.unwrap().items.is_empty());
    let services: Api<Service> = Api::namespaced(rig.client.clone(), TEAM);
    rig.eventually("the route and its Services to be collected", async || {
        let routes = routes(rig)
            .list(&all)
            .await
            .map_err(|error| error.to_string())?
            .items
            .len();
        let services = services
            .list(&all)
            .await
            .map_err(|error| error.to_string())?
            .items
            .len();
        if routes + services == 0 {
            Ok(())
        } else {
            Err(format!("{routes} and {services}"))
        }
    })
    .await;
    let groups: Api<ServerGroup> = Api::all(rig.client.clone());
    for name in ["rack-a", "rented"] {
        groups.delete(name, &DeleteParams::default()).await.unwrap();
        rig.eventually(&format!("group {name} to be gone"), async || {
            let left = groups.get_opt(name).await.map_err(|error| error.to_string())?;
            left.map_or(Ok(()), |_| Err("it is still there".to_owned()))
        })
        .await;
    }
}
