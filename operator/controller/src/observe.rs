//! From the world to the kernel's snapshot.
//!
//! Pure. Joins what providers, Nodes, Pods, engines and gateways said, and lets `pomarium_api::validate` turn API objects
//! into kernel types. It never decides: states come from [`pomarium_kernel::lifecycle`], and what is not known stays
//! unknown. A site or group that cannot be used is seen as far as it can be read, with its problem: what runs there counts
//! and is left alone. A pool that cannot be used is left out, and the servers that it runs on are held so that nobody else
//! is put there.

mod approvals;
mod currency;
mod nodes;
mod replicas;
mod servers;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use approvals::is_approved;
use pomarium_api::validate::{self, GroupSeen, PoolSeen};
use pomarium_kernel::names::{GroupName, PoolId, SiteName};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Demand, EnginesMeasured, Measured, Snapshot};
use pomarium_kernel::time::Timestamp;

use crate::world::{Invalid, World};

/// What a pass plans on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Everything that can be used.
    pub snapshot: Snapshot,
    /// Everything that cannot, and why.
    pub invalid: Invalid,
    /// The hub's one currency.
    pub currency: String,
}

/// The snapshot of `world` at `now`.
pub fn observe(world: &World, now: Timestamp) -> Observed {
    let (currency, mut invalid) = currency::check(world);
    // What cannot be decoded any more is seen as it last was.
    invalid.groups.extend(world.invalid.groups.clone());
    invalid.sites.extend(world.invalid.sites.clone());
    let mut snapshot = Snapshot {
        ahead: world.ahead.clone(),
        ..Snapshot::default()
    };
    for (name, seen) in &world.sites {
        let mut site = validate::site_as_known(&seen.object, seen.contact.clone());
        site.problem = invalid.sites.get(name).cloned().or(site.problem);
        if let Some(problem) = &site.problem {
            invalid.sites.insert(name.clone(), problem.clone());
        }
        snapshot.sites.insert(name.clone(), site);
    }
    let nodes = nodes::by_group(world, &invalid);
    let mut approvals = approvals::by_group(world, now);
    for (name, object) in &world.groups {
        let site_name = &object.spec.site_ref.name;
        let (Some(seen), Some(site)) = (
            world.sites.get(site_name.as_str()),
            snapshot.sites.get(site_name.as_str()),
        ) else {
            let problem = servers::unusable_site(site_name, "does not exist");
            invalid.groups.entry(name.clone()).or_insert(problem);
            continue;
        };
        let own = nodes.of(name);
        let inventory = servers::inventory(world, name, object, (seen, site), &own, now);
        let mut group = validate::group_as_known(object, GroupSeen { inventory }, now);
        let by_site = site
            .problem
            .as_ref()
            .map(|_| servers::unusable_site(site_name, "cannot be used as it is"));
        group.problem = invalid.groups.get(name).cloned().or(group.problem).or(by_site);
        group.overlap = nodes.overlap(name);
        group.approved = approvals.remove(name).unwrap_or_default();
        if let Some(problem) = &group.problem {
            invalid.groups.insert(name.clone(), problem.clone());
        }
        if let Some(answer) = world.inventories.get(name)
            && answer.out_of_stock_since.is_some()
        {
            group.out_of_stock_since = answer.out_of_stock_since;
        }
        snapshot.groups.insert(name.clone(), group);
    }
    let mut replicas = replicas::by_pool(world, &snapshot.groups);
    let mut approvals = approvals::by_pool(world, now);
    for (id, object) in &world.pools {
        if invalid.pools.contains_key(id) {
            continue;
        }
        let (demand, measured, engines) = measured(world, id, object.spec.objectives.len());
        let seen = PoolSeen {
            namespace_at: namespace_at(world, id),
            local_sites: local_sites(world),
            demand,
            measured,
            engines,
            running: replicas.remove(id).unwrap_or_default(),
            past: world.pasts.get(id).cloned().unwrap_or_default(),
        };
        match validate::pool(object, seen) {
            Ok(mut pool) => {
                pool.approved = approvals.remove(id).unwrap_or_default();
                snapshot.pools.insert(id.clone(), pool);
            }
            Err(problem) => drop(invalid.pools.insert(id.clone(), problem)),
        }
    }
    servers::hold_those_in_other_use(world, &mut snapshot);
    Observed {
        snapshot,
        invalid,
        currency,
    }
}

fn namespace_at(world: &World, id: &PoolId) -> BTreeSet<SiteName> {
    let has = |(name, seen): (&SiteName, &crate::world::SiteSeen)| {
        seen.namespaces.contains_key(&id.namespace).then(|| name.clone())
    };
    world.sites.iter().filter_map(has).collect()
}

/// Sites in the hub's own cluster: a route there reaches no others.
fn local_sites(world: &World) -> BTreeSet<SiteName> {
    let local = |seen: &crate::world::SiteSeen| seen.object.spec.connection.local.is_some();
    let sites = world.sites.iter().filter(|(_, seen)| local(seen));
    sites.map(|(name, _)| name.clone()).collect()
}

/// What was measured of a pool; unknown where nothing was.
fn measured(
    world: &World,
    id: &PoolId,
    objectives: usize,
) -> (Demand, Vec<Measured>, BTreeMap<GroupName, EnginesMeasured>) {
    let nothing = || Problem::new(Reason::Starting, "nothing has been measured yet");
    let unknown = || Measured::Unknown { problem: nothing() };
    let all_unknown = || (0..objectives).map(|_| unknown()).collect();
    let Some(measurement) = world.measurements.get(id) else {
        let demand = Demand::Unknown {
            since: world.started,
            problem: nothing(),
            at_least: None,
        };
        return (demand, all_unknown(), BTreeMap::new());
    };
    // The objectives may have changed since: what was measured for other ones is not an answer.
    let (measured, engines) = if measurement.measured.len() == objectives {
        (measurement.measured.clone(), measurement.engines.clone())
    } else {
        (all_unknown(), BTreeMap::new())
    };
    (measurement.demand.clone(), measured, engines)
}

#[cfg(test)]
mod tests;
