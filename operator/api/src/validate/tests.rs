//! Objects are read as a user writes them: from YAML.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{
    Contact, Demand, Group, Inventory, LengthMix, Metric, OnDeadline, Ownership, Pool, PoolMemory, Site, Spent,
    Survive, Trust, Use,
};
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Money;

use super::{GroupSeen, PoolSeen, group, one_currency, pool, revision, site};
use crate::group::{GroupMemory, ServerGroup};
use crate::pool::ServerPool;
use crate::site::ServerSite;

const SITE: &str = "
apiVersion: pomarium.dev/v1alpha1
kind: ServerSite
metadata: {name: oregon}
spec:
  ownership: Hosted
  connection: {kubeconfigSecretRef: {name: oregon-kubeconfig}}
";

const GROUP: &str = "
apiVersion: pomarium.dev/v1alpha1
kind: ServerGroup
metadata: {name: oregon-m4-max, labels: {tier: rented}}
spec:
  siteRef: {name: oregon}
  machine: {chip: M4 Max, gpuCores: 40, memoryGiB: 128}
  size: {max: 20}
  provider: {simulated: {}}
";

const POOL: &str = "
apiVersion: pomarium.dev/v1alpha1
kind: ServerPool
metadata: {name: chat, namespace: assistants}
spec:
  model: {name: llama, quantization: Q4_K_M, parametersBillions: '8.0', weightsGiB: '4.9', contextTokens: 16384, kvBytesPerToken: 131072}
  engine: {type: LlamaCpp, image: example.com/llama:1}
  objectives: [{metric: TimeToFirstToken, percentile: 95, threshold: 10s}]
  replicas: {max: 40}
";

fn read_site(more: &str) -> Result<Site, Problem> {
    let object: ServerSite = serde_yaml::from_str(&format!("{SITE}{more}")).unwrap();
    site(&object, Contact::Reachable)
}

fn read_group(more: &str, now: &str) -> Result<Group, Problem> {
    let object: ServerGroup = serde_yaml::from_str(&format!("{GROUP}{more}")).unwrap();
    let inventory = Inventory::Known(BTreeMap::new());
    group(&object, GroupSeen { inventory }, Timestamp::parse(now).unwrap())
}

fn seen() -> PoolSeen {
    PoolSeen {
        namespace_at: BTreeSet::new(),
        local_sites: BTreeSet::new(),
        demand: Demand::Unknown {
            since: Timestamp::default(),
            problem: Problem::new(Reason::Starting, "starting"),
            at_least: None,
        },
        measured: Vec::new(),
        engines: BTreeMap::new(),
        running: BTreeMap::new(),
        past: Arc::default(),
    }
}

fn parse_pool(more: &str) -> ServerPool {
    serde_yaml::from_str(&format!("{POOL}{more}")).unwrap()
}

fn read_pool(more: &str) -> Result<Pool, Problem> {
    pool(&parse_pool(more), seen())
}

/// The pool with one line of its text replaced.
fn read_changed_pool(from: &str, to: &str) -> Result<Pool, Problem> {
    assert!(POOL.contains(from), "{from}");
    pool(&serde_yaml::from_str(&POOL.replace(from, to)).unwrap(), seen())
}

const NOON: &str = "2026-11-20T12:00:00Z";

#[test]
fn what_a_site_leaves_out_gets_its_documented_default() {
    let site = read_site("").unwrap();
    assert_eq!(site.ownership, Ownership::Hosted);
    assert_eq!(
        site.permitted_use,
        Use::DevelopmentOnly,
        "leased machines need a declaration for more"
    );
    assert_eq!(site.trust, Trust::None);
    assert_eq!(site.energy.price_per_kwh, Money::ZERO);
    assert!((site.energy.pue - 1.0).abs() < f64::EPSILON);
    assert!(!site.paused);

    let declared = read_site("  permittedUse: Production\n").unwrap();
    assert_eq!(declared.permitted_use, Use::Production);
}

#[test]
fn what_a_group_leaves_out_gets_its_documented_default() {
    let group = read_group("", NOON).unwrap();
    assert_eq!((group.size.min, group.size.max), (0, 20));
    assert_eq!(group.pricing.hourly, Money::ZERO);
    assert_eq!(group.lead_time.provision, Span::ZERO);
    assert_eq!(group.disruption.max_unavailable, 1);
    assert!(group.disruption.window_open);
    assert!(group.provider.grows && group.provider.releases_chosen && !group.provider.always_on);
    assert_eq!(group.labels["tier"], "rented");
}

#[test]
fn watts_are_the_groups_own_or_else_the_catalogues() {
    let default = read_group("", NOON).unwrap().power;
    assert!(default.idle_watts > 0.0 && default.busy_watts > 100.0, "{default:?}");
    let own = read_group("  power: {idleWatts: 7, busyWatts: 99}\n", NOON)
        .unwrap()
        .power;
    assert_eq!((own.idle_watts, own.busy_watts), (7.0, 99.0));
    let one = read_group("  power: {idleWatts: 7}\n", NOON).unwrap().power;
    assert_eq!((one.idle_watts, one.busy_watts), (7.0, default.busy_watts));
}

#[test]
fn what_a_pool_leaves_out_gets_its_documented_default() {
    let pool = read_pool("").unwrap();
    assert_eq!(pool.usage, Use::Production);
    assert_eq!((pool.replicas.min, pool.replicas.max), (1, 40));
    assert_eq!(pool.drain.timeout, Span::from_minutes(15));
    assert_eq!(pool.drain.on_deadline, OnDeadline::Keep);
    assert_eq!(pool.placement.survive_loss_of, Survive::Server);
    assert_eq!(pool.objectives[0].metric, Metric::TimeToFirstToken);
    assert_eq!(pool.objectives[0].window, Span::from_hours(24));
    assert_eq!(pool.memory, PoolMemory::default());
    assert!(!pool.deleting && !pool.paused);
}

#[test]
fn disruption_is_allowed_while_any_window_is_open() {
    let windows = "  disruption: {maxUnavailable: 2, windows: [{schedule: '0 9 * * 1-5', duration: 8h}, {schedule: '0 20 * * *', timeZone: Asia/Tokyo, duration: 2h}]}\n";
    for (now, open) in [
        ("2026-11-20T12:00:00Z", true),
        ("2026-11-20T18:00:00Z", false),
        ("2026-11-21T12:00:00Z", true),
        ("2026-11-21T13:00:00Z", false),
    ] {
        assert_eq!(read_group(windows, now).unwrap().disruption.window_open, open, "{now}");
    }
}

#[test]
fn deliveries_are_midnights_in_utc_in_order() {
    let group = read_group(
        "  deliveries: [{date: '2027-02-01', servers: 8}, {date: '2027-01-01', servers: 4}]\n",
        NOON,
    )
    .unwrap();
    let days: Vec<_> = group
        .deliveries
        .iter()
        .map(|delivery| delivery.at.to_string())
        .collect();
    assert_eq!(days, ["2027-01-01T00:00:00.000Z", "2027-02-01T00:00:00.000Z"]);
}

#[test]
fn what_no_schema_can_check_is_a_problem_that_names_the_field() {
    for (more, expected) in [
        (
            "  deliveries: [{date: '2027-02-30', servers: 1}]\n",
            "spec.deliveries[0].date is \"2027-02-30\"",
        ),
        (
            "  disruption: {windows: [{schedule: '0 25 * * *', duration: 1h}]}\n",
            "spec.disruption.windows[0].schedule is \"0 25 * * *\"; allowed: five fields of cron",
        ),
        (
            "  disruption: {windows: [{schedule: '0 0 31 6 *', duration: 1h}]}\n",
            "allowed: a schedule that comes round",
        ),
        (
            "  disruption: {windows: [{schedule: '0 9 * * *', timeZone: PST8, duration: 1h}]}\n",
            "spec.disruption.windows[0].timeZone is \"PST8\"; allowed: an IANA time zone",
        ),
    ] {
        let problem = read_group(more, NOON).unwrap_err();
        assert_eq!(problem.reason, Reason::InvalidSpec);
        assert!(problem.message.contains(expected), "{}", problem.message);
    }
    let problem =
        read_pool("  events: [{name: launch, start: '2027-02-30T00:00:00Z', demandFactor: '2'}]\n").unwrap_err();
    assert!(problem.message.contains("spec.events[0].start"), "{}", problem.message);
}

#[test]
fn an_object_that_an_older_schema_let_through_is_a_problem_too() {
    for (from, to, expected) in [
        ("'8.0'", "'0'", "spec.model.parametersBillions"),
        ("'8.0'", "'-8'", "spec.model.parametersBillions"),
        ("'8.0'", "'8e3'", "spec.model.parametersBillions"),
        ("16384", "-1", "spec.model.contextTokens"),
        (
            "{max: 40}",
            "{min: 41, max: 40}",
            "spec.replicas.min is 41; allowed: at most spec.replicas.max, which is 40",
        ),
        ("percentile: 95", "percentile: 100", "spec.objectives[0].percentile"),
        ("threshold: 10s", "threshold: 0s", "spec.objectives[0].threshold"),
        (
            "[{metric: TimeToFirstToken, percentile: 95, threshold: 10s}]",
            "[]",
            "spec.objectives",
        ),
    ] {
        let problem = read_changed_pool(from, to).unwrap_err();
        assert!(problem.message.contains(expected), "{to}: {}", problem.message);
    }
}

#[test]
fn a_revision_changes_with_what_runs_and_with_nothing_else() {
    let base = revision(&parse_pool("").spec);
    assert_eq!(base.as_str().len(), 8);
    let same = parse_pool("  priority: 7\n  drain: {timeout: 1m}\n");
    assert_eq!(revision(&same.spec), base);
    for (from, to) in [
        ("llama:1", "llama:2"),
        ("name: llama,", "name: qwen,"),
        ("llama:1}", "llama:1, args: [--verbose]}"),
        ("llama:1}", "llama:1, port: 9000}"),
    ] {
        assert_ne!(read_changed_pool(from, to).unwrap().revision, base, "{to}");
    }
    let default_written_out = read_changed_pool("llama:1}", "llama:1, port: 8080}").unwrap();
    assert_eq!(default_written_out.revision, base);
}

/// A release that changes this restarts every replica of every user.
#[test]
fn a_revision_is_the_same_in_every_release() {
    assert_eq!(revision(&parse_pool("").spec).as_str(), "d2c22d67");
}

#[test]
fn all_amounts_are_in_one_currency() {
    let parse = |currency: &str, amount: &str| {
        let group: ServerGroup =
            serde_yaml::from_str(&format!("{GROUP}  pricing: {{hourly: '{amount}'{currency}}}\n")).unwrap();
        group
    };
    let pool = parse_pool("  budget: {amount: '10', currency: EUR}\n");
    let currency = |group: &ServerGroup| one_currency([], [group], [&pool]);

    assert_eq!(currency(&parse(", currency: EUR", "1")).unwrap().as_str(), "EUR");
    assert_eq!(
        currency(&parse("", "0.00")).unwrap().as_str(),
        "EUR",
        "nothing is nothing in any currency"
    );
    let problem = currency(&parse("", "1.97")).unwrap_err();
    assert_eq!(
        problem.message,
        "ServerPool assistants/chat spec.budget.currency is EUR, but ServerGroup oregon-m4-max spec.pricing.currency is USD; \
         allowed: one currency for the whole hub"
    );
    assert_eq!(one_currency([], [], []).unwrap().as_str(), "USD");
}

#[test]
fn memory_survives_the_status() {
    let at = |ms| Some(Timestamp::from_millis(ms));
    let memory = PoolMemory {
        last_added: at(1),
        last_removed: None,
        surplus_since: at(1_700_000_000_123),
        missing_objective_since: at(3),
        missing_objective_from: Some(2),
        short_since: at(7),
        held_since: None,
        target: Some(4),
        spent: Some(Spent {
            period: Timestamp::from_millis(0),
            amount: Money::from_micros(12_345_678),
            until: Timestamp::from_millis(9),
        }),
        lengths: Some(LengthMix {
            classes: vec![(20, 300), (4_000, 12)],
        }),
    };
    let mut status = crate::pool::PoolMemory::from(&memory);
    assert_eq!(PoolMemory::from(&status), memory);
    status.lengths.push("many".to_owned());
    assert_eq!(
        PoolMemory::from(&status).lengths,
        None,
        "a part of a mix is another mix"
    );

    let memory = pomarium_kernel::snapshot::GroupMemory {
        last_requested_at: at(5),
    };
    let status = GroupMemory::new(&memory, at(6));
    assert_eq!(pomarium_kernel::snapshot::GroupMemory::from(&status), memory);
    assert_eq!(status.out_of_stock_since.as_deref(), Some("1970-01-01T00:00:00.006Z"));
}
