//! The servers of a group: its provider's list joined with its Nodes.

use std::collections::{BTreeMap, BTreeSet};

use pomarium_api::group::ServerGroup;
use pomarium_api::labels;
use pomarium_kernel::lifecycle::{NodeFacts, ProviderFacts, ProviderState as KernelState, ServerFacts, server_state};
use pomarium_kernel::names::{GroupName, PoolId, ServerName, SiteName};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Contact, Inventory, Lease, Server, Site, Snapshot, Trust};
use pomarium_kernel::time::{Span, Timestamp};

use super::replicas::pool_of;
use crate::build::tolerates;
use crate::world::{NodeSeen, ProviderAnswer, ProviderServer, ProviderState, Readiness, SiteSeen, World};

/// What is read of the annotation on a Node that is on its way out.
#[derive(serde::Deserialize)]
struct DrainMark {
    since: Timestamp,
}

/// A provider's list that is older is not current any more.
const LIST_AGE: Span = Span::from_minutes(5);

/// Taints that the cluster itself puts on Nodes: conditions, not anybody's wish.
const CONDITIONS: [&str; 2] = ["node.kubernetes.io/", "node.cloudprovider.kubernetes.io/"];

/// All servers of `group`, or why its site makes it unusable.
pub(super) fn inventory(
    world: &World,
    name: &GroupName,
    object: &ServerGroup,
    sites: &BTreeMap<SiteName, Site>,
    now: Timestamp,
) -> Result<Inventory, Problem> {
    let site_name = &object.spec.site_ref.name;
    let (Some(seen), Some(site)) = (world.sites.get(site_name.as_str()), sites.get(site_name.as_str())) else {
        let exists = world.sites.contains_key(site_name.as_str());
        let why = if exists {
            "cannot be used as it is"
        } else {
            "does not exist"
        };
        let message = format!("spec.siteRef.name is {site_name:?}; the ServerSite of this name {why}");
        return Err(Problem::new(Reason::ReferenceMissing, message));
    };
    let answer = world.inventories.get(name).map(AsRef::as_ref);
    let listing = Listing::of(object, answer, &seen.contact, now);
    let lead_time = object
        .spec
        .lead_time
        .as_ref()
        .and_then(|lead| lead.provision)
        .map_or(Span::ZERO, Into::into);
    let always_on = object
        .spec
        .provider
        .r#static
        .as_ref()
        .is_some_and(|provider| provider.power.unwrap_or_default() == pomarium_api::group::PowerControl::None);

    let nodes = nodes_of(name, object, seen);
    let mut listed: BTreeMap<ServerName, ProviderServer> =
        answer.map(|answer| answer.servers.clone()).unwrap_or_default();
    add_ordered(name, answer, &nodes, &mut listed);
    let names: BTreeSet<&ServerName> = nodes.keys().copied().chain(listed.keys()).collect();
    let server = |name: &ServerName| {
        let (node, entry) = (nodes.get(name).copied(), listed.get(name));
        let facts = ServerFacts {
            provider: entry.map(provider_facts),
            provider_known: listing.since.is_none(),
            always_on,
            node: node.map(node_facts),
            draining_since: node.and_then(draining_since),
            lead_time,
        };
        let (state, since) = server_state(&facts, now);
        let server = Server {
            state,
            since,
            lease: entry.and_then(lease),
            cordoned: node.is_some_and(is_cordoned),
            held: node.is_some_and(|node| node.annotations.get(labels::HOLD).is_some_and(|value| value != "false")),
            // Evidence on Nodes is not checked yet: nothing counts as attested without it.
            proven: site.trust.min(Trust::Verified),
        };
        (name.clone(), server)
    };
    let servers = names.into_iter().map(server).collect();
    Ok(match listing.since {
        None => Inventory::Known(servers),
        Some(since) => Inventory::Unknown { last: servers, since },
    })
}

/// Whether the list of a group's servers is complete and current.
struct Listing {
    /// Since when it is not.
    since: Option<Timestamp>,
}

impl Listing {
    fn of(object: &ServerGroup, answer: Option<&ProviderAnswer>, contact: &Contact, now: Timestamp) -> Self {
        let by_site = match contact {
            Contact::Reachable => None,
            Contact::Lost { since, .. } => Some(*since),
        };
        let by_provider = if object.spec.provider.r#static.is_some() {
            None
        } else {
            match answer {
                Some(ProviderAnswer {
                    listed_at: Some(at),
                    problem,
                    ..
                }) => (problem.is_some() || now.since(*at) > LIST_AGE).then_some(*at),
                _ => Some(now),
            }
        };
        Self {
            since: match (by_site, by_provider) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        }
    }
}

/// The Nodes of a group.
pub(super) fn nodes_of<'a>(
    name: &GroupName,
    object: &ServerGroup,
    seen: &'a SiteSeen,
) -> BTreeMap<&'a ServerName, &'a NodeSeen> {
    let selector = object
        .spec
        .node_selector
        .as_ref()
        .map(|selector| &selector.match_labels);
    let belongs = |node: &NodeSeen| match selector {
        Some(wanted) if !wanted.is_empty() => wanted.iter().all(|(key, value)| node.labels.get(key) == Some(value)),
        _ => node
            .labels
            .get(labels::GROUP)
            .is_some_and(|label| label == name.as_str()),
    };
    let node =
        |(name, node): (&'a ServerName, &'a std::sync::Arc<NodeSeen>)| belongs(node).then_some((name, node.as_ref()));
    seen.nodes.iter().filter_map(node).collect()
}

/// Adds an entry for every server that a provider which only knows a size was asked for and that has no Node yet.
fn add_ordered(
    group: &GroupName,
    answer: Option<&ProviderAnswer>,
    nodes: &BTreeMap<&ServerName, &NodeSeen>,
    listed: &mut BTreeMap<ServerName, ProviderServer>,
) {
    let Some(ProviderAnswer {
        size: Some(size),
        listed_at: Some(at),
        ..
    }) = answer
    else {
        return;
    };
    let mut missing = (*size as usize).saturating_sub(nodes.len() + listed.len());
    for ordinal in 0.. {
        if missing == 0 {
            break;
        }
        let name = ServerName::new(format!("{group}-{ordinal}"));
        if nodes.contains_key(&name) || listed.contains_key(&name) {
            continue;
        }
        missing -= 1;
        let entry = ProviderServer {
            state: ProviderState::Provisioning,
            requested_at: *at,
            ready_at: None,
            lease_start: None,
            minimum_until: None,
            available_at: None,
        };
        listed.insert(name, entry);
    }
}

fn provider_facts(entry: &ProviderServer) -> ProviderFacts {
    ProviderFacts {
        state: match entry.state {
            ProviderState::Provisioning => KernelState::Provisioning,
            ProviderState::Booting => KernelState::Booting,
            ProviderState::Ready => KernelState::Ready,
            ProviderState::Releasing => KernelState::Releasing,
            ProviderState::Recycling => KernelState::Recycling,
            ProviderState::Failed => KernelState::Failed,
        },
        requested_at: entry.requested_at,
        ready_at: entry.ready_at,
    }
}

fn node_facts(node: &NodeSeen) -> NodeFacts {
    NodeFacts {
        ready: node.ready == Readiness::True && !node.deleting,
        ready_since: node.ready_since.unwrap_or(node.created),
    }
}

/// By our annotation; by our taint if the annotation cannot be read, because the taint keeps work away either way.
fn draining_since(node: &NodeSeen) -> Option<Timestamp> {
    let annotation = node.annotations.get(labels::SERVER_DRAIN);
    if let Some(drain) = annotation.and_then(|text| serde_json::from_str::<DrainMark>(text).ok()) {
        return Some(drain.since);
    }
    let tainted = node.taints.iter().any(|taint| taint.key == labels::DRAINING_TAINT);
    (tainted || annotation.is_some()).then(|| node.ready_since.unwrap_or(node.created))
}

fn lease(entry: &ProviderServer) -> Option<Lease> {
    entry.lease_start.map(|start| Lease {
        start,
        minimum_until: entry.minimum_until.unwrap_or(start),
    })
}

/// People do not want work here: a cordon, or a taint that replicas do not tolerate and that is neither
/// ours nor a condition's.
fn is_cordoned(node: &NodeSeen) -> bool {
    let foreign = |taint: &crate::world::TaintSeen| {
        !tolerates(taint)
            && taint.key != labels::DRAINING_TAINT
            && !CONDITIONS.iter().any(|prefix| taint.key.starts_with(prefix))
    };
    node.unschedulable || node.taints.iter().any(foreign)
}

/// Holds every server that runs a Pod of a pool which is not in the snapshot: an invalid pool's replicas, or those of
/// another hub. Nothing new is put there and nothing is taken away.
pub(super) fn hold_those_in_other_use(world: &World, snapshot: &mut Snapshot) {
    let mut used: BTreeSet<(&SiteName, &ServerName)> = BTreeSet::new();
    for (site, seen) in &world.sites {
        for pod in seen.pods.values() {
            let ours = pool_of(world, pod).is_some_and(|id: PoolId| snapshot.pools.contains_key(&id));
            if let Some(server) = pod.node.as_ref().or(pod.server.as_ref())
                && !ours
                && !pod.has_ended()
            {
                used.insert((site, server));
            }
        }
    }
    for group in snapshot.groups.values_mut() {
        let (Inventory::Known(servers) | Inventory::Unknown { last: servers, .. }) = &mut group.inventory;
        for (name, server) in servers {
            if used.contains(&(&group.site, name)) {
                server.held = true;
                server.cordoned = true;
            }
        }
    }
}
