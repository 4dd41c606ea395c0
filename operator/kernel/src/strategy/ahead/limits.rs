//! What a plan has to keep within: who comes first, money, and power.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::{Planned, Source};
use crate::names::{GroupName, ServerName, SiteName};
use crate::planning::{World, draws, rank};
use crate::snapshot::Site;
use crate::spending::Allowance;
use crate::strategy::horizon::LENGTH;

/// Limits of the pools and sites of one plan.
pub(super) struct Limits {
    /// Per pool: its place by priority, and by degrade order among equals. 0 is served first; equals share.
    pub(super) ranks: Vec<u32>,
    /// Per pool: what it may spend, by period.
    pub(super) allowances: Vec<Vec<Allowance>>,
    /// Per site: watts that servers of the plan may draw; `None` without a limit.
    pub(super) power: Vec<Option<f64>>,
}

impl Limits {
    pub(super) fn of(world: &World, pools: &[Planned], sources: &[Source]) -> Self {
        let planned = planned(sources);
        let places: BTreeSet<_> = pools.iter().map(|planned| rank(planned.pool)).collect();
        let places: BTreeMap<_, u32> = places.into_iter().zip(0..).collect();
        // Of a group where nothing can be done everything stays as it is.
        let untouched: BTreeSet<&GroupName> = world
            .snapshot
            .groups
            .keys()
            .filter(|group| world.takes_no_work(group).is_some())
            .collect();
        let stays = |group: &GroupName, server: &ServerName| match planned.get(&(group, server)) {
            Some(fixed) => *fixed,
            None => untouched.contains(group),
        };
        let allowances = pools.iter().map(|planned| {
            let (id, pool) = (planned.id, planned.pool);
            (world.accounts).allowances(id, pool, world.now, world.now + LENGTH, &stays)
        });
        let power = world.snapshot.sites.iter();
        let power = power.map(|(name, site)| power_left(world, name, site, &planned));
        Self {
            ranks: pools
                .iter()
                .map(|planned| places.get(&rank(planned.pool)).copied().unwrap_or(0))
                .collect(),
            allowances: allowances.collect(),
            power: power.collect(),
        }
    }
}

/// Servers of the plan, and whether each is not ours to switch off.
type Held<'s> = BTreeMap<(&'s GroupName, &'s ServerName), bool>;

fn planned<'s>(sources: &'s [Source<'s>]) -> Held<'s> {
    let held = |source: &'s Source<'s>| {
        let servers = source.servers.iter().zip(&source.supply.held);
        servers.map(|(server, held)| ((source.group, *server), held.fixed))
    };
    sources.iter().flat_map(held).collect()
}

/// What a site's limit leaves besides what servers draw that are not in the plan.
fn power_left(world: &World, name: &SiteName, site: &Site, planned: &Held) -> Option<f64> {
    let groups = world.snapshot.groups.iter().filter(|(_, group)| group.site == *name);
    let others = groups.flat_map(|(name, group)| {
        let servers = group.inventory.servers().iter();
        let others = servers.filter(move |(server, _)| !planned.contains_key(&(name, *server)));
        others.map(move |(_, server)| draws(group, server, world.now))
    });
    site.energy.power_limit_watts.map(|limit| limit - others.sum::<f64>())
}
