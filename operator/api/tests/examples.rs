//! Every manifest in `examples/` is read and validated, so that a user can start from each.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pomarium_api::group::ServerGroup;
use pomarium_api::plan::ServerPlan;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use pomarium_api::validate::{self, GroupSeen, PoolSeen};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Contact, Demand, Inventory};
use pomarium_kernel::time::Timestamp;
use serde_json::Value;

#[derive(Default)]
struct Examples {
    sites: Vec<ServerSite>,
    groups: Vec<ServerGroup>,
    pools: Vec<ServerPool>,
    kinds: BTreeSet<String>,
}

/// All documents below `folder`. Nothing may be lost in reading: what is written again has every field of the file.
fn read(folder: &str) -> Examples {
    let mut examples = Examples::default();
    for path in support::example_files(folder) {
        for value in support::documents(&path) {
            let kind = value["kind"].as_str().unwrap().to_owned();
            match kind.as_str() {
                "ServerSite" => examples.sites.push(typed(&path, &value)),
                "ServerGroup" => examples.groups.push(typed(&path, &value)),
                "ServerPool" => examples.pools.push(typed(&path, &value)),
                "ServerPlan" => drop(typed::<ServerPlan>(&path, &value)),
                _ => {}
            }
            examples.kinds.insert(kind);
        }
    }
    examples
}

fn typed<T: serde::de::DeserializeOwned + serde::Serialize>(path: &Path, value: &Value) -> T {
    let object: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let again = serde_json::to_value(&object).unwrap();
    assert!(
        is_within(&value["spec"], &again["spec"]),
        "{}: a field is not known\n{again:#?}",
        path.display()
    );
    object
}

/// Whether every field of `part` is in `whole`. Texts are not compared: durations may be written in several ways.
fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|other| is_within(value, other))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| is_within(part, whole))
        }
        (part, whole) => std::mem::discriminant(part) == std::mem::discriminant(whole),
    }
}

fn check(examples: &Examples) {
    let now = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
    for site in &examples.sites {
        validate::site(site, Contact::Reachable).unwrap();
    }
    for group in &examples.groups {
        let inventory = Inventory::Known(BTreeMap::new());
        validate::group(group, GroupSeen { inventory }, now).unwrap();
        let named = &group.spec.site_ref.name;
        let exists = examples
            .sites
            .iter()
            .any(|site| site.metadata.name.as_ref() == Some(named));
        assert!(exists, "{named} is a site of the examples");
    }
    for pool in &examples.pools {
        let seen = PoolSeen {
            namespace_at: BTreeSet::new(),
            local_sites: BTreeSet::new(),
            demand: Demand::Unknown {
                since: now,
                problem: Problem::new(Reason::Starting, "starting"),
                at_least: None,
            },
            measured: Vec::new(),
            engines: BTreeMap::new(),
            running: BTreeMap::new(),
            past: Arc::default(),
        };
        validate::pool(pool, seen).unwrap();
    }
    let currency = validate::one_currency(&examples.sites, &examples.groups, &examples.pools).unwrap();
    assert_eq!(currency.as_str(), "USD");
}

#[test]
fn every_example_is_read_in_full_and_valid() {
    let examples = read("");
    check(&examples);
    for kind in ["ServerSite", "ServerGroup", "ServerPool", "ServerPlan", "Namespace"] {
        assert!(examples.kinds.contains(kind), "an example of {kind}");
    }
}

#[test]
fn the_hybrid_example_is_complete_by_itself() {
    let hybrid = read("hybrid");
    check(&hybrid);
    assert_eq!((hybrid.sites.len(), hybrid.groups.len(), hybrid.pools.len()), (2, 2, 1));
}
