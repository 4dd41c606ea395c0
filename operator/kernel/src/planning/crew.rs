//! The replicas of one pool, and where each of them stands.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::demand;
use super::model::Counts;
use super::policy::LOST_GRACE;
use super::world::{World, is_gone};
use crate::lifecycle::{DrainStep, NodeHealth, ReplicaState, ServerState, drain::in_flight, server::SUSPECT_LIMIT};
use crate::names::{GroupName, PoolId, ReplicaId};
use crate::reason::Reason;
use crate::snapshot::{Contact, Group, Maintenance, Pool, Replica, Server, Site, Use};

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
    pub(crate) name: &'a ReplicaId,
    pub(crate) replica: &'a Replica,
    /// Its group, by the group's own name if there is one.
    pub(crate) group: &'a GroupName,
    /// Where that is among all of the world's, if there is one.
    pub(crate) place: Option<usize>,
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
    /// See [`Self::serving`].
    serving: OnceCell<Counts>,
    /// See [`Self::kept`].
    kept: OnceCell<Counts>,
}

impl<'a> Crew<'a> {
    pub(crate) fn muster(world: &World<'a>, id: &'a PoolId, pool: &'a Pool) -> Self {
        let attained = demand::attained(pool, world.now);
        let members = pool
            .running
            .iter()
            .map(|(name, replica)| member(world, pool, name, replica, attained))
            .collect();
        Self {
            id,
            pool,
            members,
            serving: OnceCell::new(),
            kept: OnceCell::new(),
        }
    }

    /// To be called when the standing of a member has changed.
    pub(crate) fn moved(&mut self) {
        (self.serving, self.kept) = (OnceCell::new(), OnceCell::new());
    }

    /// What stays.
    pub(crate) fn kept(&self) -> &Counts {
        self.kept.get_or_init(|| count(self.keepers()))
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
    pub(crate) fn serving(&self) -> &Counts {
        let serving = || {
            let stays = |member: &Member| member.standing == Standing::Keeper;
            if self.members.iter().all(|member| member.serving == stays(member)) {
                return self.kept().clone();
            }
            count(self.members.iter().filter(|member| member.serving))
        };
        self.serving.get_or_init(serving)
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
        match counts.get_mut(member.group) {
            Some(count) => *count += 1,
            None => drop(counts.insert(member.group.clone(), 1)),
        }
    }
    counts
}

fn member<'a>(
    world: &World<'a>,
    pool: &'a Pool,
    name: &'a ReplicaId,
    replica: &'a Replica,
    attained: bool,
) -> Member<'a> {
    let place = world.place(&replica.group);
    let ground = place.and_then(|place| world.grounds().get(place));
    let group = ground.map_or(&replica.group, |ground| ground.name);
    let server = ground.and_then(|ground| ground.group.inventory.servers().get(&replica.server));
    let site = match ground {
        Some(ground) if ground.group.site == replica.site => ground.site,
        _ => world.snapshot.sites.get(&replica.site),
    };
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
            group,
            place,
            standing: Standing::OutOfSight,
            server,
            hands_off: true,
            serving: takes_requests && (attained || world.now.since(since) < LOST_GRACE),
        };
    }
    let hands_off = pool.paused || ground.is_none_or(|ground| ground.hands_off.is_some());
    let ground = ground.map(|ground| ground.group);
    let standing = match standing(world, pool, replica, (ground, site, server)) {
        // Nobody may move it, and it serves: no replacement is needed.
        Standing::Leaving(reason) if hands_off && !outranks(reason) => Standing::Keeper,
        standing => standing,
    };
    let answers = !server.is_some_and(is_down) && world.silent(replica).is_none();
    Member {
        name,
        replica,
        group,
        place,
        standing,
        server,
        hands_off,
        serving: takes_requests && answers && matches!(standing, Standing::Keeper | Standing::Leaving(_)),
    }
}

/// The group, the site and the server that a replica is on, as far as they are there.
type Place<'p> = (Option<&'p Group>, Option<&'p Site>, Option<&'p Server>);

/// Where a replica stands that can be seen: the first of these that holds.
fn standing(world: &World, pool: &Pool, replica: &Replica, place: Place) -> Standing {
    let (group, site, server) = place;
    if matches!(replica.state, ReplicaState::Terminating | ReplicaState::Ended) {
        Standing::Over
    } else if replica.drain.is_some() {
        Standing::Draining
    } else if pool.deleting {
        Standing::Leaving(Reason::PoolDeleted)
    } else if site.is_some_and(|site| forbidden(pool, site, server)) {
        Standing::Leaving(Reason::NoLongerPermitted)
    } else if group.is_some_and(|group| is_gone(group, server))
        || server.is_some_and(|server| is_taken_back(server) || world.is_dead(server))
    {
        Standing::Leaving(Reason::ReplicaLost)
    } else if world.is_late(pool, replica) && !server.is_some_and(|server| server.held) {
        Standing::Leaving(Reason::ReplicaLate)
    } else if let Some(lost) = lost(world, pool, replica, server) {
        lost
    } else {
        to_be_moved(pool, place).map_or(Standing::Keeper, Standing::Leaving)
    }
}

/// The provider takes the server back, though nobody here gave it: what still runs there has no time to wait.
fn is_taken_back(server: &Server) -> bool {
    matches!(server.state, ServerState::Releasing | ServerState::Recycling)
}

/// A replica that does not answer is out of capacity at once, and given up after a while.
fn lost(world: &World, pool: &Pool, replica: &Replica, server: Option<&Server>) -> Option<Standing> {
    if replica.state == ReplicaState::Suspect {
        let given_up = world.now >= world.recovery_deadline(pool, replica);
        return Some(if given_up {
            Standing::Leaving(Reason::ReplicaLost)
        } else {
            Standing::Lost
        });
    }
    if server.is_some_and(is_down) {
        return Some(Standing::Lost);
    }
    // Its probe says that all is well: one witness against the other, so that it only goes after its replacement serves.
    let since = world.silent(replica)?;
    Some(if world.now.since(since) >= SUSPECT_LIMIT {
        Standing::Leaving(Reason::EngineSilent)
    } else {
        Standing::Lost
    })
}

fn is_down(server: &Server) -> bool {
    server.state == ServerState::Suspect || matches!(server.node, NodeHealth::Down { .. })
}

/// Why a replica that serves well has to move, after its replacement serves.
fn to_be_moved(pool: &Pool, (group, site, server): Place) -> Option<Reason> {
    if server.is_some_and(|server| server.cordoned && !server.held) {
        Some(Reason::ServerCordoned)
    } else if server.is_some_and(|server| server.state == ServerState::Failed) {
        Some(Reason::ServerFailed)
    } else if group.is_some_and(|group| group.deleting) {
        Some(Reason::GroupDeleted)
    } else if group.is_some_and(|group| !selects(pool, group)) {
        Some(Reason::NoLongerSelected)
    } else {
        site.is_some_and(|site| site.maintenance == Maintenance::Draining)
            .then_some(Reason::SiteDraining)
    }
}

/// Whether a pool's selector chooses a group.
fn selects(pool: &Pool, group: &Group) -> bool {
    let wanted = &pool.placement.group_labels;
    wanted.iter().all(|(key, value)| group.labels.get(key) == Some(value))
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
        Reason::PoolDeleted | Reason::NoLongerPermitted | Reason::ReplicaLost | Reason::ReplicaLate | Reason::Preempted
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
                && server.node == NodeHealth::Ready
                && !server.cordoned
                && server.proven >= pool.placement.minimum_trust
        })
}

/// Who goes first: not serving yet, an old revision, least in flight, soonest end of lease, newest. Unknown load counts
/// as full.
pub(crate) fn victim_order<'a>(member: &Member<'a>, pool: &Pool) -> impl Ord + use<'a> {
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
        member.name,
    )
}
