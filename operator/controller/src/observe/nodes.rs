//! Which group each Node belongs to.
//!
//! A Node counts once. Where two groups select it, the one that can be used, is not being deleted, and whose name comes
//! first has it, and both say so. A Node that no group selects any more, but that runs a replica of one, stays that
//! group's until the replica has moved.

use std::collections::{BTreeMap, BTreeSet};

use pomarium_api::group::ServerGroup;
use pomarium_api::labels;
use pomarium_kernel::names::{GroupName, ServerName, SiteName};
use pomarium_kernel::reason::{Problem, Reason};

use super::replicas::pool_of;
use crate::world::{Invalid, NodeSeen, SiteSeen, World};

/// One Node, as its group sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnNode<'a> {
    pub(super) node: &'a NodeSeen,
    /// No group selects it any more: what runs there is to be moved.
    pub(super) stray: bool,
}

/// All Nodes of all groups.
#[derive(Debug, Default)]
pub(super) struct Nodes<'a> {
    by_group: BTreeMap<GroupName, BTreeMap<&'a ServerName, OwnNode<'a>>>,
    overlaps: BTreeMap<GroupName, Problem>,
}

impl<'a> Nodes<'a> {
    /// The Nodes of a group.
    pub(super) fn of(&self, group: &GroupName) -> BTreeMap<&'a ServerName, OwnNode<'a>> {
        self.by_group.get(group).cloned().unwrap_or_default()
    }

    /// With whom a group shares a Node, if it does.
    pub(super) fn overlap(&self, group: &GroupName) -> Option<Problem> {
        self.overlaps.get(group).cloned()
    }
}

/// The Nodes of all groups of `world`, of which some are `invalid`.
pub(super) fn by_group<'a>(world: &'a World, invalid: &Invalid) -> Nodes<'a> {
    let mut nodes = Nodes::default();
    let mut owners: BTreeMap<(&SiteName, &ServerName), &GroupName> = BTreeMap::new();
    let mut groups: Vec<(&GroupName, &ServerGroup)> = world
        .groups
        .iter()
        .map(|(name, group)| (name, group.as_ref()))
        .collect();
    groups.sort_by_key(|(name, group)| {
        let deleting = group.metadata.deletion_timestamp.is_some();
        (invalid.groups.contains_key(*name), deleting, *name)
    });
    for (name, object) in groups {
        let Some((site, seen)) = world.sites.get_key_value(object.spec.site_ref.name.as_str()) else {
            continue;
        };
        let mut own = BTreeMap::new();
        for (server, node) in selected(name, object, seen) {
            if let Some(owner) = owners.insert((site, server), name) {
                owners.insert((site, server), owner);
                overlap(&mut nodes.overlaps, owner, name, server);
            } else {
                own.insert(server, OwnNode { node, stray: false });
            }
        }
        nodes.by_group.insert(name.clone(), own);
    }
    for (group, server, node) in strays(world, &owners) {
        let own = nodes.by_group.entry(group).or_default();
        own.insert(server, OwnNode { node, stray: true });
    }
    nodes
}

fn overlap(overlaps: &mut BTreeMap<GroupName, Problem>, owner: &GroupName, other: &GroupName, server: &ServerName) {
    let message = format!("groups {owner} and {other} both select Node {server}; it counts for {owner}");
    for group in [owner, other] {
        let problem = || Problem::new(Reason::GroupsOverlap, message.clone());
        overlaps.entry(group.clone()).or_insert_with(problem);
    }
}

/// The Nodes that a group's selector chooses.
fn selected<'a>(
    name: &'a GroupName,
    object: &'a ServerGroup,
    seen: &'a SiteSeen,
) -> impl Iterator<Item = (&'a ServerName, &'a NodeSeen)> {
    let selector = object.spec.node_selector.as_ref();
    let wanted = selector
        .map(|selector| &selector.match_labels)
        .filter(|wanted| !wanted.is_empty());
    let belongs = move |node: &NodeSeen| match wanted {
        Some(wanted) => wanted.iter().all(|(key, value)| node.labels.get(key) == Some(value)),
        None => node
            .labels
            .get(labels::GROUP)
            .is_some_and(|label| label == name.as_str()),
    };
    let all = seen.nodes.iter().map(|(server, node)| (server, node.as_ref()));
    all.filter(move |(_, node)| belongs(node))
}

/// Nodes that no group selects, and that run a replica which was placed there for a group of the same site.
fn strays<'a>(
    world: &'a World,
    owners: &BTreeMap<(&SiteName, &ServerName), &GroupName>,
) -> Vec<(GroupName, &'a ServerName, &'a NodeSeen)> {
    let mut found = Vec::new();
    let mut seen_before: BTreeSet<(&SiteName, &ServerName)> = BTreeSet::new();
    for (site, seen) in &world.sites {
        for pod in seen.pods.values().filter(|pod| pool_of(world, pod).is_some()) {
            let (Some(server), Some(group)) = (&pod.node, pod.labels.get(labels::GROUP)) else {
                continue;
            };
            let known = world.groups.get_key_value(group.as_str());
            let Some((group, _)) = known.filter(|(_, object)| object.spec.site_ref.name == site.as_str()) else {
                continue;
            };
            let selected = owners.contains_key(&(site, server));
            if let Some((server, node)) = seen.nodes.get_key_value(server)
                && !selected
                && seen_before.insert((site, server))
            {
                found.push((group.clone(), server, node.as_ref()));
            }
        }
    }
    found
}
