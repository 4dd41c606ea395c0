//! The strategic plan in a real cluster: what is remembered buys ahead of a peak, once, through a crash.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pomarium_api::plan::{ServerPlan, SubjectKind};
use pomarium_e2e::chart;
use pomarium_e2e::fleet::{Lease, Supply};
use pomarium_kernel::forecast::{Counts, History};
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::{Span, Timestamp};
use serde_json::{Value, json};

use support::{Rig, TEAM, group, machines, pool, site};

const GROUP: &str = "rented";
/// From the start of the test to the peak: an operator that is started, killed and started again has planned long before.
const UNTIL_PEAK: Span = Span::from_minutes(35);
/// How long the peak lasts.
const PEAK: Span = Span::from_hours(2);
/// Far more than one machine finishes.
const RATE: u64 = 6;

fn leases(rig: &Rig) -> Vec<Lease> {
    rig.fleet.summary().groups[GROUP].leases.clone()
}

/// A week in which the same peak came every day at the same time, up to `now`; nothing in between.
fn a_week_of_peaks(now: Timestamp, peak: Timestamp) -> Past {
    let day = Span::from_hours(24);
    let step = Span::from_minutes(5);
    let mut past = Past::default();
    let rounds = 7 * day.as_millis() / step.as_millis();
    for back in (0..rounds).rev() {
        let until = now - Span::from_millis(back * step.as_millis());
        let from = until - step;
        let into_day = (from.as_millis() - peak.as_millis()).rem_euclid(day.as_millis().cast_signed());
        let requests = if into_day < PEAK.as_millis().cast_signed() {
            RATE * 300
        } else {
            0
        };
        let counts = Counts {
            requests,
            prompt_tokens: requests * 800,
            output_tokens: requests * 200,
        };
        past.arrived(from, until, counts, &[]);
    }
    past
}

fn text(part: &impl serde::Serialize) -> String {
    serde_json::to_string(part).unwrap()
}

/// The object that an operator of before has left.
fn remembered(past: &Past, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("pomarium-history-{uid}"), "namespace": chart::NAMESPACE,
            "labels": {"pomarium.dev/history": "pool", "pomarium.dev/pool-uid": uid}},
        "data": {"format": "1", "history": text(&past.history), "backtest": text(&past.backtest), "ledger": text(&past.ledger),
            "prices": text(&past.prices)}})
}

/// One machine of our own and two that can be rented; a pool that has lived through a week of peaks, of which the operator that starts now
/// knows.
async fn start(special: &Value) -> (Rig, Timestamp) {
    let rented = support::rented(Span::from_hours(1));
    let fleet = vec![machines("owned", Supply::always_on(1)), machines(GROUP, rented)];
    let mut rig = Rig::start(fleet, async |hub| chart::install(hub, &[]).await.unwrap()).await;
    rig.operator.kill9();
    let terms = json!({"provider": {"simulated": {}}, "size": {"max": 2}, "leadTime": {"provision": "90s"},
        "pricing": {"hourly": "2.00", "currency": "USD", "minimumLease": "1h"}});
    rig.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}}),
        site(),
        group(
            "owned",
            "home",
            &json!({"provider": {"static": {}}, "size": {"max": 1}}),
        ),
        group(GROUP, GROUP, &terms),
        pool("chat", 1, special),
    ])
    .await;
    let uid = rig.pools.get("chat").await.unwrap().uid().unwrap();
    let now = rig.time.now();
    let peak = now + UNTIL_PEAK;
    rig.apply(&[remembered(&a_week_of_peaks(now, peak), &uid)]).await;
    rig.operator.restart().unwrap();
    (rig, peak)
}

/// What the operator means to do for the pool, as soon as it means to rent anything.
async fn plan_to_rent(rig: &Rig) -> ServerPlan {
    let plans: Api<ServerPlan> = Api::namespaced(rig.client.clone(), TEAM);
    rig.eventually("a plan to rent", async || {
        let listed = plans
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let rents = |plan: &ServerPlan| {
            let mut actions = plan.spec.actions.iter();
            plan.spec.subject.kind == SubjectKind::ServerPool && actions.any(|action| action.action == "RequestServer")
        };
        listed.items.into_iter().find(rents).ok_or_else(|| "none".to_owned())
    })
    .await
}

/// What people do to agree with a plan.
async fn approve(rig: &Rig, namespace: &str, plan: &ServerPlan) {
    let name = plan.name_any();
    let approval = [
        "annotate",
        "serverplan",
        &name,
        "--namespace",
        namespace,
        "pomarium.dev/approved=true",
    ];
    rig.hub.kubectl(&approval).await.unwrap().checked().unwrap();
}

/// Strategic plans that the running process has made.
async fn plans_made(rig: &Rig) -> u64 {
    let text = rig.operator.metrics().await.unwrap_or_default();
    let made = text
        .lines()
        .filter(|line| line.starts_with("pomarium_ahead_plans_total{"));
    made.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

async fn recorded_until(rig: &Rig) -> Option<Timestamp> {
    let kept: Api<ConfigMap> = Api::namespaced(rig.client.clone(), chart::NAMESPACE);
    let uid = rig.pools.get("chat").await.ok()?.uid()?;
    let object = kept.get(&format!("pomarium-history-{uid}")).await.ok()?;
    let history: History = serde_json::from_str(object.data?.get("history")?).ok()?;
    history.recorded_until()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peak_that_is_remembered_is_bought_for_ahead_of_time_and_once_through_a_crash() {
    let (mut rig, peak) = start(&json!({})).await;
    rig.serving_become("chat", 1).await;

    // Nobody has asked for anything yet: the plan says what it will do, and when.
    let plan = plan_to_rent(&rig).await;
    let outlook = plan.spec.outlook.unwrap();
    assert!(
        outlook.demand.is_some() && !outlook.error_budget.is_empty(),
        "{outlook:?}"
    );

    // Bought before the peak and not long before, though the operator dies as soon as it has asked.
    let bought = rig
        .eventually("a lease", async || {
            leases(&rig).first().cloned().ok_or("none".to_owned())
        })
        .await;
    rig.operator.kill9();
    assert!(
        bought.bought < peak && peak.since(bought.bought) < UNTIL_PEAK,
        "leased {}, peak {peak}",
        bought.bought
    );
    rig.operator.restart().unwrap();
    rig.eventually("the restarted operator to plan ahead", async || {
        match plans_made(&rig).await {
            0 => Err("it has not".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    rig.serving_become("chat", 1 + leases(&rig).len()).await;
    let wanted = leases(&rig).len();
    let mut servers: Vec<_> = leases(&rig).into_iter().map(|lease| lease.server).collect();
    servers.dedup();
    assert_eq!(servers.len(), wanted, "each server is bought once: {servers:?}");

    // What the new process measures goes on where the old one's memory ended.
    rig.eventually("the past to be written on", async || match recorded_until(&rig).await {
        Some(until) if until > bought.bought => Ok(()),
        until => Err(format!("recorded until {until:?}")),
    })
    .await;

    // Any decision can be made again elsewhere.
    let decision = rig.operator.decision().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("decision.json");
    std::fs::write(&file, decision).unwrap();
    let said = rig
        .operator
        .run(&["replay", "--snapshot", &file.display().to_string()])
        .unwrap();
    assert!(said.contains("identical to what was decided live"), "{said}");

    // Who is told to end does not wait for the next batch.
    let batch = recorded_until(&rig).await.unwrap();
    let written = rig
        .eventually("a batch", async || match recorded_until(&rig).await {
            Some(until) if until > batch => Ok(until),
            until => Err(format!("recorded until {until:?}")),
        })
        .await;
    rig.eventually("something to be learnt after it", async || {
        let since = rig.time.now().since(written);
        if since >= Span::from_minutes(2) {
            Ok(())
        } else {
            Err(format!("{since:?}"))
        }
    })
    .await;
    assert!(
        rig.operator.terminate(Duration::from_secs(20)).await,
        "it ends by itself"
    );
    let last = recorded_until(&rig).await.unwrap();
    assert!(
        last > written,
        "recorded until {last}, and until {written} by the batch"
    );

    let summary = rig.fleet.summary();
    assert_eq!(summary.cut(), 0);
    rig.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_approve_is_bought_and_nothing_before() {
    let rented = support::rented(Span::from_hours(1));
    let rig = Rig::start(vec![machines(GROUP, rented)], async |hub| {
        chart::install(hub, &[]).await.unwrap()
    })
    .await;
    let terms = json!({"provider": {"simulated": {}}, "size": {"max": 2}, "leadTime": {"provision": "90s"}, "mode": "Approve",
        "pricing": {"hourly": "2.00", "currency": "USD", "minimumLease": "1h"}});
    rig.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}}),
        site(),
        group(GROUP, GROUP, &terms),
        pool("chat", 1, &json!({})),
    ])
    .await;
    let proposals: Api<ServerPlan> = Api::namespaced(rig.client.clone(), chart::NAMESPACE);
    let proposal = rig
        .eventually("a proposal", async || {
            let listed = proposals
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?;
            listed.items.first().cloned().ok_or_else(|| "none".to_owned())
        })
        .await;
    let [action] = &proposal.spec.actions[..] else {
        panic!("one server is enough: {:?}", proposal.spec.actions)
    };
    assert_eq!(
        (action.action.as_str(), action.target.as_str()),
        ("RequestServer", "rented-0")
    );
    rig.pool_says("chat", "CapacityAvailable", "AwaitingApproval").await;
    assert!(leases(&rig).is_empty(), "nobody has approved it");

    approve(&rig, chart::NAMESPACE, &proposal).await;
    rig.serving_become("chat", 1).await;
    let bought: Vec<_> = leases(&rig).into_iter().map(|lease| lease.server).collect();
    assert_eq!(bought, ["rented-0"]);
    rig.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_approve_of_a_pools_plan_is_bought_when_it_is_time_and_nothing_before() {
    let (rig, _) = start(&json!({"mode": "Approve"})).await;
    rig.serving_become("chat", 1).await;
    // It is time, and nobody has said anything.
    let waiting = rig.pool_says("chat", "CapacityAvailable", "AwaitingApproval").await;
    assert!(leases(&rig).is_empty(), "{}", waiting.message);

    let plan = plan_to_rent(&rig).await;
    approve(&rig, TEAM, &plan).await;
    // All that there are of the group: the peak needs more than that.
    rig.serving_become("chat", 3).await;
    let requests = plan
        .spec
        .actions
        .iter()
        .filter(|action| action.action == "RequestServer");
    let approved: Vec<&str> = requests.map(|action| action.target.as_str()).collect();
    for lease in leases(&rig) {
        assert!(
            approved.contains(&lease.server.as_str()),
            "{} of {approved:?}",
            lease.server
        );
    }
    rig.fleet.stop().await;
}
