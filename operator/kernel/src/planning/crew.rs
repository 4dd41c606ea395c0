//! The replicas of one pool, and where each of them stands.

use std::collections::BTreeMap;

use super::demand;
use super::model::Counts;
use super::policy::LOST_GRACE;
use super::world::World;
use crate::lifecycle::{DrainStep, ReplicaState, ServerState, drain::in_flight, server::SUSPECT_LIMIT};
use crate::names::{GroupName, PoolId, ReplicaName};
use crate::reason::Reason;
use crate::snapshot::{Contact, Maintenance, Pool, Replica, Server, Site, Use};

/// Where a replica stands in this pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It stays.
    Keeper,
    /// It has to go, and its drain has not begun.
    Leaving(Reason),
    /// Its drain is under way.
    Draining,
    /// It does not answer: out of capacity, but it may come back.
    Lost,
    /// It is of no use any more: ended, or deleted.
    Over,
    /// It is at a site that does not answer, and may well serve there.
    OutOfSight,
}

/// One replica.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a ReplicaName,
    pub(crate) replica: &'a Replica,
    pub(crate) standing: Standing,
    /// Its server, as last seen.
    pub(crate) server: Option<&'a Server>,
    /// Nothing may be done to it: paused, or out of sight.
    pub(crate) hands_off: bool,
    /// It takes requests now.
    pub(crate) serving: bool,
}

impl Member<'_> {
    /// People asked to leave its server alone.
    pub(crate) fn held(&self) -> bool {
        self.server.is_some_and(|server| server.held)
    }
}

/// All replicas of one pool.
#[derive(Debug)]
pub(crate) struct Crew<'a> {
    pub(crate) id: &'a PoolId,
    pub(crate) pool: &'a Pool,
    pub(crate) members: Vec<Member<'a>>,
}

impl<'a> Crew<'a> {
    pub(crate) fn muster(world: &World<'a>, id: &'a PoolId, pool: &'a Pool) -> Self {
        let attained = demand::attained(pool, world.now);
        let members = pool
            .running
            .iter()
            .map(|(name, replica)| member(world, pool, name, replica, attained))
            .collect();
        Self { id, pool, members }
    }

    pub(crate) fn keepers(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| {
            member.standing == Standing::Keeper || (member.standing == Standing::OutOfSight && member.serving)
        })
    }

    pub(crate) fn leaving(&self) -> impl Iterator<Item = (&Member<'a>, Reason)> {
        self.members.iter().filter_map(|member| match member.standing {
            Standing::Leaving(reason) => Some((member, reason)),
            _ => None,
        })
    }

    pub(crate) fn of(&self, standing: Standing) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(move |member| member.standing == standing)
    }

    /// What takes requests now, drains excepted.
    pub(crate) fn serving(&self) -> Counts {
        count(self.members.iter().filter(|member| member.serving))
    }

    /// Replicas at a site that does not answer.
    pub(crate) fn out_of_sight(&self) -> bool {
        self.of(Standing::OutOfSight).next().is_some()
    }
}

/// Members by group.
pub(crate) fn count<'m, 'a: 'm>(members: impl Iterator<Item = &'m Member<'a>>) -> Counts {
    let mut counts: BTreeMap<GroupName, u32> = BTreeMap::new();
    for member in members {
        *counts.entry(member.replica.group.clone()).or_default() += 1;
    }
    counts
}

fn member<'a>(
    world: &World<'a>,
    pool: &'a Pool,
    name: &'a ReplicaName,
    replica: &'a Replica,
    attained: bool,
) -> Member<'a> {
    let server = world.server_of(replica);
    let site = world.snapshot.sites.get(&replica.site);
    let takes_requests = replica.state == ReplicaState::Ready && replica.serving && replica.drain.is_none();
    let lost_since = site.and_then(|site| match site.contact {
        Contact::Lost { since, .. } => Some(since),
        Contact::Reachable => None,
    });
    if let Some(since) = lost_since {
        // It is not gone. Whether it still serves, measurements say; without any, it is believed for a moment.
        return Member {
            name,
            replica,
            standing: Standing::OutOfSight,
            server,
            hands_off: true,
            serving: takes_requests && (attained || world.now.since(since) < LOST_GRACE),
        };
    }
    let standing = standing(world, pool, replica, site, server);
    let answers = server.is_none_or(|server| !matches!(server.state, ServerState::Suspect | ServerState::Failed));
    Member {
        name,
        replica,
        standing,
        server,
        hands_off: pool.paused || world.hands_off(&replica.group).is_some(),
        serving: takes_requests && answers && matches!(standing, Standing::Keeper | Standing::Leaving(_)),
    }
}

fn standing(world: &World, pool: &Pool, replica: &Replica, site: Option<&Site>, server: Option<&Server>) -> Standing {
    match replica.state {
        ReplicaState::Terminating | ReplicaState::Ended => return Standing::Over,
        _ if replica.drain.is_some() => return Standing::Draining,
        _ if pool.deleting => return Standing::Leaving(Reason::PoolDeleted),
        _ if site.is_some_and(|site| forbidden(pool, site, server)) => {
            return Standing::Leaving(Reason::NoLongerPermitted);
        }
        _ if world.server_gone(replica) => return Standing::Leaving(Reason::ReplicaLost),
        ReplicaState::Suspect => {
            let given_up = server.is_some_and(|server| {
                server.state == ServerState::Suspect && world.now >= server.since + SUSPECT_LIMIT
            });
            return if given_up {
                Standing::Leaving(Reason::ReplicaLost)
            } else {
                Standing::Lost
            };
        }
        ReplicaState::Pending | ReplicaState::Loading | ReplicaState::Ready => {}
    }
    if server.is_some_and(|server| server.state == ServerState::Suspect) {
        Standing::Lost
    } else if server.is_some_and(|server| server.cordoned && !server.held) {
        Standing::Leaving(Reason::ServerCordoned)
    } else if site.is_some_and(|site| site.maintenance == Maintenance::Draining) {
        Standing::Leaving(Reason::SiteDraining)
    } else {
        Standing::Keeper
    }
}

/// Whether trust, residency or licence forbid a pool to run on a server. These fail closed, whatever it costs.
pub(crate) fn forbidden(pool: &Pool, site: &Site, server: Option<&Server>) -> bool {
    let trust = pool.placement.minimum_trust;
    site.trust < trust
        || server.is_some_and(|server| server.proven < trust)
        || (!pool.placement.residency.is_empty() && pool.placement.residency.is_disjoint(&site.residency))
        || (pool.usage == Use::Production && site.permitted_use == Use::DevelopmentOnly)
}

/// Reasons that outrank capacity: the replica goes even if nothing takes its place.
pub(crate) fn outranks(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PoolDeleted | Reason::NoLongerPermitted | Reason::ReplicaLost | Reason::Preempted
    )
}

/// Reasons of our own choice: they count against the group's disruption budget and can be called off.
pub(crate) fn voluntary(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::DemandFell
            | Reason::AboveMaximum
            | Reason::ReturnToOwned
            | Reason::LeaseEnded
            | Reason::RevisionReplaced
    )
}

/// A drain that may be called off: the replica is as good as any, and only demand sent it away.
pub(crate) fn recallable(member: &Member, pool: &Pool) -> bool {
    let Some(drain) = member.replica.drain else {
        return false;
    };
    voluntary(drain.reason)
        && drain.reason != Reason::RevisionReplaced
        && drain.step != DrainStep::Remove
        && member.replica.state == ReplicaState::Ready
        && member.replica.revision == pool.revision
        && !member.hands_off
        && member.server.is_some_and(|server| {
            matches!(server.state, ServerState::Ready | ServerState::Draining)
                && !server.cordoned
                && server.proven >= pool.placement.minimum_trust
        })
}

/// Who goes first: not serving yet, an old revision, least in flight, soonest end of lease, newest. Unknown load counts
/// as full.
pub(crate) fn victim_order(member: &Member, pool: &Pool) -> impl Ord + use<> {
    let lease_end = member
        .server
        .and_then(|server| server.lease)
        .map(|lease| lease.minimum_until);
    (
        member.serving,
        member.replica.revision == pool.revision,
        in_flight(&member.replica.load).unwrap_or(u32::MAX),
        lease_end.is_none(),
        lease_end,
        std::cmp::Reverse(member.replica.created),
        member.name.clone(),
    )
}
