//! A budget in a real cluster: what is bought stays within it, everybody can see why there is no more, and a crash forgets nothing.

#![allow(clippy::unwrap_used)]

mod support;

use pomarium_e2e::chart;
use pomarium_e2e::fleet::Lease;
use pomarium_kernel::time::{Span, Timestamp};
use serde_json::{Value, json};

use support::{Rig, TEAM, group, machines, pool, site};

const GROUP: &str = "rented";
/// Much longer than the test: no hour is paid for beyond it. At 2 USD an hour a lease costs 12 USD.
const TERM: Span = Span::from_hours(6);

fn leases(rig: &Rig) -> Vec<Lease> {
    rig.fleet.summary().groups[GROUP].leases.clone()
}

/// Of the day, or of the month if the day is about to end: a new period is a new budget.
fn budget(amount: &str, began: Timestamp) -> Value {
    let day = |at: Timestamp| at.as_millis().div_euclid(24 * 3_600_000);
    let ends = day(began + Span::from_hours(1)) != day(began);
    let period = if ends { "Month" } else { "Day" };
    json!({"budget": {"amount": amount, "currency": "USD", "period": period}})
}

/// Waits until the status says what was spent of what.
async fn says(rig: &Rig, text: &str) {
    rig.eventually(&format!("status.budget to be {text}"), async || {
        let pool = rig.pools.get("chat").await.map_err(|error| error.to_string())?;
        let said = pool.status.and_then(|status| status.budget).map(|budget| budget.text);
        match said {
            Some(said) if said == text => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_leased_than_the_budget_of_the_day_covers_through_a_crash() {
    let rented = support::rented(TERM);
    let mut rig = Rig::start(vec![machines(GROUP, rented)], async |hub| {
        chart::install(hub, &[]).await.unwrap()
    })
    .await;
    let began = rig.time.now();
    let terms = json!({"provider": {"simulated": {}}, "size": {"max": 2}, "leadTime": {"provision": "90s"},
        "pricing": {"hourly": "2.00", "currency": "USD", "minimumLease": "6h"}});
    // Two servers are wanted, and one can be paid for.
    rig.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}}),
        site(),
        group(GROUP, GROUP, &terms),
        pool("chat", 2, &budget("20", began)),
    ])
    .await;
    rig.serving_become("chat", 1).await;
    let short = rig.pool_says("chat", "CapacityAvailable", "BudgetSpent").await;
    assert!(
        short.message.contains("a server costs at least 12.00"),
        "{}",
        short.message
    );
    says(&rig, "12.00/20.00 USD").await;
    let within = rig.pool_says("chat", "WithinBudget", "BudgetAtRisk").await;
    assert!(within.message.starts_with("12.00 of 20.00"), "{}", within.message);

    // A new process knows what the one before it has spent.
    rig.operator.kill9();
    rig.operator.restart().unwrap();
    rig.eventually("passes of the restarted operator", async || {
        let text = rig.operator.metrics().await.unwrap_or_default();
        let passes = text
            .lines()
            .find_map(|line| line.strip_prefix("pomarium_passes_total{outcome=\"completed\"} "));
        match passes.and_then(|count| count.parse::<f64>().ok()) {
            Some(passes) if passes > 20.0 => Ok(()),
            other => Err(format!("{other:?} passes")),
        }
    })
    .await;
    assert_eq!(leases(&rig).len(), 1, "{:?}", leases(&rig));
    says(&rig, "12.00/20.00 USD").await;

    // Nothing but the budget was in the way.
    rig.apply(&[pool("chat", 2, &budget("30", began))]).await;
    rig.serving_become("chat", 2).await;
    assert_eq!(leases(&rig).len(), 2);
    says(&rig, "24.00/30.00 USD").await;
    rig.fleet.stop().await;
}
