//! Turns a run into its summary, and writes it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::ResourceExt;

use super::manifests::{self, Manifests};
use super::setup::World;
use crate::load::Record;
use crate::summary::{Cost, Lag, Leases, Requests, Site, Summary, round};

/// What the demo of the shipped hour should take, once built, at its usual pace.
const USUAL_LIMIT: Duration = Duration::from_secs(360);

/// Takes the figures of the run into the summary.
pub(crate) fn fill(summary: &mut Summary, world: &World, manifests: &Manifests) -> Result<()> {
    let records: Vec<Record> = world.ledger.records();
    let seen = world.ledger.snapshot();
    let totals = world.observer.totals();
    let outcomes = world.router.outcomes();
    summary.requests = Requests {
        sent: seen.sent,
        completed: seen.completed,
        cut: seen.cut,
        failed: seen.failed,
        retried: outcomes.retried,
        rejected: 0,
    };
    summary.objectives = manifests
        .targets()
        .iter()
        .map(|target| target.judge(&records))
        .collect();
    summary.sites = manifests
        .sites
        .iter()
        .map(|site| Site {
            name: site.name_any(),
            ownership: manifests::ownership(site).to_owned(),
            servers_peak: totals.peaks.get(&site.name_any()).copied().unwrap_or(0),
        })
        .collect();
    summary.sites.sort_by(|a, b| a.name.cmp(&b.name));
    summary.scale_ups = totals.added;
    summary.drains = totals.drains;
    summary.leases = Leases {
        bought: totals.bought,
        returned: totals.returned,
    };
    let mut currencies = manifests.groups.iter().map(manifests::hourly);
    summary.cost = Cost {
        currency: currencies
            .next()
            .transpose()?
            .map_or("USD".to_owned(), |(_, currency)| currency),
        total: round((totals.leases + totals.energy).as_f64(), 4),
        leases: round(totals.leases.as_f64(), 4),
        energy: round(totals.energy.as_f64(), 4),
    };
    let resident = world.operator.resident_bytes().unwrap_or(0);
    summary.operator_resident_mib = round(resident as f64 / 1_048_576.0, 1);
    summary.worst_lag_ms = Lag {
        load: round(seen.worst_lag_ms, 0),
        fleet: world.fleet.lag().virtual_ms.as_millis() as f64,
    };
    Ok(())
}

/// A demo at its usual pace that takes longer than it should says so: its figures may be those of a machine too slow for it.
pub(crate) fn say_if_slow(summary: &Summary, replay_time: Duration) {
    let took = summary.seconds_once_built();
    if replay_time < USUAL_LIMIT && took > USUAL_LIMIT.as_secs_f64() {
        println!(
            "It took {took:.0} s once built, and should take less than {} s: this machine is slow or busy. Try --rate-scale 0.5.",
            USUAL_LIMIT.as_secs()
        );
    }
}

/// Fails before minutes of work whose result could not be written. What the file holds stays until then.
pub(crate) fn check_writable(path: &Path) -> Result<()> {
    let opened = File::options().create(true).append(true).open(path);
    opened.map(drop).with_context(|| format!("writing {}", path.display()))
}

pub(crate) fn write_json(path: &Path, summary: &Summary) -> Result<()> {
    let mut text = serde_json::to_string_pretty(summary)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
