//! Laws of what is never exceeded, over random worlds, through both passes.

use proptest::prelude::*;
use serde_json::Value;

use super::foresight_laws::ahead;
use super::worlds::worlds;
use super::*;
use crate::fixture::START;
use crate::planning::draws;
use crate::snapshot::{Budget, Period, Snapshot};
use crate::strategy::ahead::Ahead;
use crate::units::Money;

/// A day's budget for every pool.
fn with_budgets(snapshot: &Snapshot, amount: f64) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for pool in snapshot.pools.values_mut() {
        pool.budget = Some(Budget {
            amount: Money::from_f64(amount),
            period: Period::Day,
        });
    }
    snapshot
}

fn burnt(ahead: &Ahead) -> Vec<f64> {
    let of = |pool: &crate::strategy::ahead::PoolAhead| pool.windows.iter().map(|(_, burnt)| burnt.expected).sum();
    ahead.pools.values().map(of).collect()
}

/// Both passes; servers asked for by group.
fn asked(snapshot: &Snapshot) -> (Ahead, std::collections::BTreeMap<crate::names::GroupName, u32>) {
    let ahead = ahead(snapshot);
    let mut snapshot = snapshot.clone();
    snapshot.ahead = Some(ahead.clone().into());
    let plan = crate::planning::plan(&snapshot, START);
    let mut asked = std::collections::BTreeMap::new();
    for decision in asks(&plan.decisions) {
        if let Action::RequestServer { group, .. } = &decision.action {
            *asked.entry(group.clone()).or_default() += 1;
        }
    }
    (ahead, asked)
}

/// Entries of all objects from last to first.
fn reversed(value: Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key), reversed(value)))
                .rev()
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(values) => {
            let values: Vec<String> = values.into_iter().map(reversed).collect();
            format!("[{}]", values.join(","))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn more_budget_never_predicts_worse_and_no_more_is_planned_than_there_is(
        snapshot in worlds(),
        amounts in (0.0..200.0f64, 0.0..200.0f64),
    ) {
        let (less, more) = (amounts.0.min(amounts.1), amounts.0.max(amounts.1));
        let (little, much) = (ahead(&with_budgets(&snapshot, less)), ahead(&with_budgets(&snapshot, more)));
        for ahead in [&little, &much] {
            for (id, planned) in &ahead.pools {
                // What is there already costs what it costs.
                let buys = ahead.groups.values().any(|group| group.buyers.contains_key(id));
                prop_assert_eq!(planned.spending.len(), 2, "today and tomorrow");
                for period in &planned.spending {
                    prop_assert!(!buys || period.planned <= period.left + 1e-6, "{period:?}");
                }
            }
        }
        for (less, more) in burnt(&little).into_iter().zip(burnt(&much)) {
            prop_assert!(more <= less + 1e-6, "{less} with less, {more} with more");
        }
    }

    #[test]
    fn no_site_is_planned_or_asked_to_draw_more_than_its_limit(mut snapshot in worlds(), limit in 0.0..1_500.0f64) {
        for site in snapshot.sites.values_mut() {
            site.energy.power_limit_watts = Some(limit);
        }
        let (ahead, asked) = asked(&snapshot);
        for name in snapshot.sites.keys() {
            let groups = || snapshot.groups.iter().filter(|(_, group)| group.site == *name);
            let there: f64 = groups()
                .flat_map(|(_, group)| group.inventory.servers().values().map(|server| draws(group, server, START)))
                .sum();
            let more = |count: &dyn Fn(&crate::names::GroupName) -> u32| -> f64 {
                groups().map(|(name, group)| f64::from(count(name)) * group.power.busy_watts).sum()
            };
            let bought = more(&|group| ahead.groups.get(group).map_or(0, |group| group.buyers.values().sum()));
            let asked = more(&|group| asked.get(group).copied().unwrap_or(0));
            prop_assert!(bought <= 0.0 || there + bought <= limit + 1e-6, "{there} and {bought} of {limit}");
            prop_assert!(asked <= 0.0 || there + asked <= limit + 1e-6, "{there} and {asked} of {limit}");
        }
    }

    #[test]
    fn no_pool_is_planned_to_have_more_servers_than_its_most(snapshot in worlds()) {
        let ahead = ahead(&snapshot);
        for (id, planned) in &ahead.pools {
            let most = snapshot.pools[id].replicas.max;
            let bought: u32 = ahead.groups.values().filter_map(|group| group.buyers.get(id)).sum();
            prop_assert!(bought <= most, "{id}: {bought} of {most} are bought");
            prop_assert!(planned.replicas.values().sum::<u32>() <= most, "{id}: {:?} of {most}", planned.replicas);
        }
    }

    #[test]
    fn the_order_of_pools_and_groups_in_the_snapshot_changes_nothing(snapshot in worlds()) {
        let text = serde_json::to_value(&snapshot).unwrap();
        let back: Snapshot = serde_json::from_str(&reversed(text)).unwrap();
        let (once, again) = (asked(&snapshot), asked(&back));
        prop_assert!(once == again);
    }
}
