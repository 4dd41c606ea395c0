//! The servers of a group: its provider's list joined with its Nodes.

use std::collections::{BTreeMap, BTreeSet};

use pomarium_api::group::ServerGroup;
use pomarium_api::labels;
use pomarium_kernel::lifecycle::{
    NodeFacts, NodeHealth, ProviderFacts, ProviderState as KernelState, ServerFacts, ServerState, server_state,
};
use pomarium_kernel::names::{GroupName, PoolId, ServerName, SiteName};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Contact, Inventory, Lease, Server, Site, Snapshot, Trust};
use pomarium_kernel::time::{Span, Timestamp};

use super::nodes::OwnNode;
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

/// Why a group is of no use: its site.
pub(super) fn unusable_site(site: &str, why: &str) -> Problem {
    let message = format!("spec.siteRef.name is {site:?}; the ServerSite of this name {why}");
    Problem::new(Reason::ReferenceMissing, message)
}

/// All servers of a group at `site`, whose Nodes are `nodes`.
pub(super) fn inventory(
    world: &World,
    name: &GroupName,
    object: &ServerGroup,
    (seen, site): (&SiteSeen, &Site),
    nodes: &BTreeMap<&ServerName, OwnNode<'_>>,
    now: Timestamp,
) -> Inventory {
    let answer = world.inventories.get(name).map(AsRef::as_ref);
    let listing = Listing::of(object, answer, world.started, &seen.contact, now);
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

    let mut listed: BTreeMap<ServerName, ProviderServer> =
        answer.map(|answer| answer.servers.clone()).unwrap_or_default();
    let missing = match answer {
        Some(answer) if answer.listed_at.is_some() => ordered(answer, nodes.len() + listed.len()),
        _ => remembered(world, object),
    };
    if let Some((count, requested_at)) = missing {
        add_coming(name, count, requested_at, nodes, &mut listed);
    }
    let names: BTreeSet<&ServerName> = nodes.keys().copied().chain(listed.keys()).collect();
    let server = |name: &ServerName| {
        let own = nodes.get(name);
        let (node, entry) = (own.map(|own| own.node), listed.get(name));
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
            node: NodeHealth::of(facts.node.as_ref()),
            lease: entry.and_then(lease),
            cordoned: own.is_some_and(|own| own.stray || is_cordoned(own.node)),
            held: node.is_some_and(|node| node.annotations.get(labels::HOLD).is_some_and(|value| value != "false")),
            // Evidence on Nodes is not checked yet: nothing counts as attested without it.
            proven: site.trust.min(Trust::Verified),
        };
        (name.clone(), server)
    };
    let servers = names.into_iter().map(server).collect();
    match listing.since {
        None => Inventory::Known(servers),
        Some(since) => Inventory::Unknown { last: servers, since },
    }
}

/// Whether the list of a group's servers is complete and current.
struct Listing {
    /// Since when it is not.
    since: Option<Timestamp>,
}

impl Listing {
    fn of(
        object: &ServerGroup,
        answer: Option<&ProviderAnswer>,
        started: Timestamp,
        contact: &Contact,
        now: Timestamp,
    ) -> Self {
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
                _ => Some(started),
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

/// How many servers a provider that only knows a size was asked for and that are not there yet, and when.
fn ordered(answer: &ProviderAnswer, there: usize) -> Option<(usize, Timestamp)> {
    let size = usize::try_from(answer.size?).unwrap_or(usize::MAX);
    Some((size.saturating_sub(there), answer.listed_at?))
}

/// How many servers were on their way when the last pass wrote the status. A provider that has not answered since this
/// process began is not believed to have none: they are paid, and would be bought again.
fn remembered(world: &World, object: &ServerGroup) -> Option<(usize, Timestamp)> {
    let status = object.status.as_ref()?;
    let coming = ServerState::ALL.into_iter().filter(|state| state.is_coming());
    let by_state = &status.servers.as_ref()?.by_state;
    let count: i32 = coming.filter_map(|state| by_state.get(state.as_str())).sum();
    let requested_at = status
        .memory
        .as_ref()
        .and_then(|memory| memory.last_requested_at.as_deref());
    let requested_at = requested_at.and_then(Timestamp::parse).unwrap_or(world.started);
    Some((usize::try_from(count).unwrap_or_default(), requested_at))
}

/// Adds an entry for each of `count` servers that are on their way, under the names that the plan would give them.
fn add_coming(
    group: &GroupName,
    count: usize,
    requested_at: Timestamp,
    nodes: &BTreeMap<&ServerName, OwnNode<'_>>,
    listed: &mut BTreeMap<ServerName, ProviderServer>,
) {
    let names: Vec<ServerName> = (0u32..)
        .map(|ordinal| ServerName::new(format!("{group}-{ordinal}")))
        .filter(|name| !nodes.contains_key(name) && !listed.contains_key(name))
        .take(count)
        .collect();
    for name in names {
        let entry = ProviderServer {
            state: ProviderState::Provisioning,
            requested_at,
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
        ready: node.ready == Readiness::True,
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

/// People do not want work here: a cordon, a Node that is being deleted, or a taint that replicas do not tolerate and that
/// is neither ours nor a condition's.
fn is_cordoned(node: &NodeSeen) -> bool {
    let foreign = |taint: &crate::world::TaintSeen| {
        !tolerates(taint)
            && taint.key != labels::DRAINING_TAINT
            && !CONDITIONS.iter().any(|prefix| taint.key.starts_with(prefix))
    };
    node.unschedulable || node.deleting || node.taints.iter().any(foreign)
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
