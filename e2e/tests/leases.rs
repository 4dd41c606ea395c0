//! A leased server's whole life: bought once, served from, kept for as long as it is paid, drained and given back.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use kube::ResourceExt;
use pomarium_e2e::chart;
use pomarium_e2e::fleet::{Lease, ServerState, Supply};
use pomarium_kernel::time::Span;
use serde_json::json;
use tokio::time::Instant;

use support::{Rig, TEAM, group, machines, pool, site};

const GROUP: &str = "rented";
/// Longer than all hold-downs of the planner together: without a paid term the server would be gone long before.
const TERM: Span = Span::from_minutes(30);
/// Between two short requests.
const BETWEEN: Duration = Duration::from_millis(300);
/// A return this long before the end of the term wastes nothing worth talking of.
const NEAR_THE_END: Span = Span::from_minutes(6);

fn leases(rig: &Rig) -> Vec<Lease> {
    rig.fleet.summary().groups[GROUP].leases.clone()
}

/// One server of our own, and two that can be rented; a pool that one server is enough for.
async fn start() -> Rig {
    let rented = support::rented(TERM);
    let fleet = vec![machines("owned", Supply::always_on(1)), machines(GROUP, rented)];
    let rig = Rig::start(fleet, async |hub| chart::install(hub, &[]).await.unwrap()).await;
    let terms = json!({"provider": {"simulated": {}}, "size": {"max": 2}, "leadTime": {"provision": "90s"},
        "pricing": {"hourly": "2.00", "currency": "USD", "minimumLease": "30m"}});
    rig.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}}),
        site(),
        group(
            "owned",
            "home",
            &json!({"provider": {"static": {}}, "size": {"max": 1}}),
        ),
        group(GROUP, GROUP, &terms),
        pool("chat", 1, &json!({})),
    ])
    .await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_bought_once_serves_to_the_end_of_its_term_and_is_given_back_without_a_cut() {
    let mut rig = start().await;
    rig.serving_become("chat", 1).await;
    assert!(leases(&rig).is_empty(), "an own server is enough");

    // Bought once, even though the operator dies as soon as it has asked.
    rig.set_minimum("chat", 2).await;
    rig.eventually("a lease", async || {
        leases(&rig).first().cloned().ok_or("none".to_owned())
    })
    .await;
    rig.operator.kill9();
    rig.operator.restart().unwrap();
    let serving = rig.serving_become("chat", 2).await;
    let [lease] = leases(&rig).try_into().unwrap();
    let rented = serving
        .iter()
        .find(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(&lease.server))
        .unwrap();
    assert!(rig.request(rented, 100).await.await.unwrap(), "it serves");

    // Not needed any more, it serves on while it is paid.
    rig.set_minimum("chat", 1).await;
    let (mut answers, mut long, mut began) = (Vec::new(), Vec::new(), None::<Instant>);
    rig.eventually("the server to be drained near the end of its term", async || {
        let now = rig.time.now();
        let pod = rig
            .pods
            .get_opt(&rented.name_any())
            .await
            .map_err(|error| error.to_string())?;
        let serves = pod.is_some_and(|pod| pod.labels().contains_key(pomarium_api::labels::SERVING));
        if serves {
            // Short ones, so that demand is known, and always a long one that a drain has to wait for.
            if began.is_none_or(|began| began.elapsed() >= BETWEEN) {
                began = Some(Instant::now());
                answers.push(rig.request(rented, 400).await);
            }
            if long.last().is_none_or(tokio::task::JoinHandle::is_finished) {
                long.push(rig.request(rented, 3_000).await);
            }
            let said = rig.pools.get("chat").await.map_err(|error| error.to_string())?.status;
            let said = said.map(|status| (status.conditions, status.observed));
            return Err(format!(
                "it serves at {now}, paid until {}: {said:?}",
                lease.minimum_until
            ));
        }
        assert!(
            now + NEAR_THE_END >= lease.minimum_until,
            "paid until {}, fenced before {now}\n{}",
            lease.minimum_until,
            rig.operator.log_tail()
        );
        Ok(())
    })
    .await;
    let returned = rig
        .eventually("the lease to be given back", async || {
            leases(&rig)[0].returned.ok_or_else(|| "it is held".to_owned())
        })
        .await;
    assert!(
        returned >= lease.minimum_until,
        "paid until {}, returned {returned}",
        lease.minimum_until
    );
    assert!(
        returned.since(lease.minimum_until) <= NEAR_THE_END,
        "paid until {}, returned {returned}",
        lease.minimum_until
    );
    assert!(answers.len() > 20, "requests came all the time");
    for answer in answers.into_iter().chain(long) {
        assert!(answer.await.unwrap(), "answered to its end");
    }
    rig.serving_become("chat", 1).await;
    let summary = rig.fleet.summary();
    assert_eq!(summary.cut(), 0);
    let rented = &summary.groups[GROUP];
    assert_eq!(
        (rented.leases.len(), rented.servers_peak),
        (1, 1),
        "bought once: {rented:?}"
    );
    assert!(
        !rented.servers.contains_key(&ServerState::Ready),
        "{:?}",
        rented.servers
    );
    rig.fleet.stop().await;
}
