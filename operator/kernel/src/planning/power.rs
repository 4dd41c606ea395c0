//! Watts that sites have left for further servers.
//!
//! A server that is on counts as busy: nothing keeps work from it. Those that are there are never switched off for want of power; no more are
//! asked for than there is power for.

use std::collections::BTreeMap;

use super::stock::retained_until;
use super::world::World;
use crate::lifecycle::ServerState;
use crate::names::{GroupName, SiteName};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, Server};
use crate::time::Timestamp;

/// What is left at sites with a limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Power {
    /// Watts of the limit, and what is left of them.
    sites: BTreeMap<SiteName, (f64, f64)>,
    /// Watts of one server of each group at those sites.
    groups: BTreeMap<GroupName, (SiteName, f64)>,
}

impl Power {
    pub(crate) fn of(world: &World) -> Self {
        let sites = world.snapshot.sites.iter().filter_map(|(name, site)| {
            let limit = site.energy.power_limit_watts?;
            Some((name.clone(), (limit, limit)))
        });
        let mut power = Self {
            sites: sites.collect(),
            groups: BTreeMap::new(),
        };
        for (name, group) in &world.snapshot.groups {
            if let Some((_, left)) = power.sites.get_mut(&group.site) {
                let servers = group.inventory.servers().values();
                *left -= servers.map(|server| draws(group, server, world.now)).sum::<f64>();
                let needs = (group.site.clone(), group.power.busy_watts);
                power.groups.insert(name.clone(), needs);
            }
        }
        power
    }

    /// Whether any site has a limit.
    pub(crate) fn is_limited(&self) -> bool {
        !self.sites.is_empty()
    }

    /// Why there is no power for another server of `group`, if so.
    pub(crate) fn refuses(&self, group: &GroupName) -> Option<Problem> {
        let (site, needs) = self.groups.get(group)?;
        let (limit, left) = self.sites.get(site)?;
        (*needs > left + limit * 1e-9).then(|| {
            let drawn = limit - left;
            let message = format!(
                "a busy server of {group} draws {needs:.0} W; those at site {site} draw {drawn:.0} of {limit:.0} W when they are busy"
            );
            Problem::new(Reason::PowerLimited, message)
        })
    }

    /// Takes the power of another server of `group`.
    pub(crate) fn take(&mut self, group: &GroupName) {
        if let Some((site, needs)) = self.groups.get(group)
            && let Some((_, left)) = self.sites.get_mut(site)
        {
            *left -= needs;
        }
    }
}

/// Watts that a server draws when it works, or will draw once it is there.
pub(crate) fn draws(group: &Group, server: &Server, now: Timestamp) -> f64 {
    match server.state {
        ServerState::Gone | ServerState::Recycling => 0.0,
        // It may still come; one that nobody can give back must not keep others out for ever.
        ServerState::Failed if now >= retained_until(server) => 0.0,
        _ => group.power.busy_watts,
    }
}
