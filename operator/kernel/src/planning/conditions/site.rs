//! What to say about a site.

use super::condition;
use crate::lifecycle::ServerState;
use crate::plan::{Condition, ConditionKind, SiteOutlook, Truth};
use crate::planning::draft::Draft;
use crate::planning::world::World;
use crate::reason::Reason;
use crate::snapshot::{Contact, Maintenance, Site};

/// Writes the outlook of every site into the draft.
pub(crate) fn describe(world: &World, draft: &mut Draft) {
    for (name, site) in &world.snapshot.sites {
        let groups = || world.snapshot.groups.iter().filter(|(_, group)| group.site == *name);
        let ready = groups()
            .flat_map(|(_, group)| group.inventory.servers().values())
            .filter(|server| server.state == ServerState::Ready)
            .count();
        let outlook = SiteOutlook {
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            hourly: groups()
                .filter_map(|(group, _)| Some(draft.plan.groups.get(group)?.hourly))
                .sum(),
            conditions: conditions(site, world.pods(name).len()),
        };
        draft.plan.sites.insert(name.clone(), outlook);
    }
}

fn conditions(site: &Site, used: usize) -> Vec<Condition> {
    let ready = |truth, reason, message: String| condition(ConditionKind::Ready, truth, reason, message);
    match (&site.contact, site.maintenance) {
        (Contact::Lost { since, message }, _) => {
            let message = format!("no answer since {since}: {message}. What is there is left alone");
            vec![ready(Truth::Unknown, Reason::SiteUnreachable, message)]
        }
        (Contact::Reachable, _) if site.paused => {
            vec![ready(Truth::Unknown, Reason::Paused, "paused by annotation".to_owned())]
        }
        (Contact::Reachable, Maintenance::Draining) if used > 0 => {
            let message = format!("{used} replicas are still there");
            vec![
                ready(Truth::False, Reason::SiteDraining, message.clone()),
                condition(ConditionKind::Reconciling, Truth::True, Reason::SiteDraining, message),
            ]
        }
        (Contact::Reachable, maintenance) => {
            let message = match maintenance {
                Maintenance::Active => "its API server answers and its cache is complete",
                Maintenance::Cordoned => "it answers; it is cordoned and takes no new work",
                Maintenance::Draining => "it answers; it is drained",
            };
            vec![ready(Truth::True, Reason::Reachable, message.to_owned())]
        }
    }
}
