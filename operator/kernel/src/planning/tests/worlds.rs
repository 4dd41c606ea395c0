//! Random worlds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::fixture::{START, Stage};
use crate::lifecycle::{Drain, DrainStep, NodeHealth, ReplicaState, ServerState};
use crate::names::{ReplicaId, ServerName};
use crate::reason::Reason;
use crate::snapshot::{
    Group, Lease, Load, Maintenance, OnDeadline, Ownership, Pool, Replica, Server, Site, Snapshot, Survive, Trust, Use,
};
use crate::time::Span;

/// A world that no sequence of plans need ever have made: the planner has to cope with whatever it finds.
pub(super) fn worlds() -> impl Strategy<Value = Snapshot> {
    let sites = prop::collection::vec(sites(), 3);
    let groups = prop::collection::vec((0..3usize, 0..5u32, any::<bool>(), 0..2u32), 1..5);
    let servers = prop::collection::vec(servers(), 20);
    let pools = prop::collection::vec((pools(), prop::collection::vec((0..20usize, replicas()), 0..8)), 1..4);
    (sites, groups, servers, pools).prop_map(|(sites, groups, servers, pools)| {
        let mut stage = Stage::new(START);
        for (index, site) in sites.into_iter().enumerate() {
            stage = stage.site(&format!("s{index}"), site);
        }
        let mut spots = Vec::new();
        for (index, (site, room, hosted, minimum)) in groups.into_iter().enumerate() {
            let (site, name) = (format!("s{site}"), format!("g{index}"));
            let mut group = if hosted {
                Group::hosted(&site, room + 2)
            } else {
                Group::owned(&site, &name, room)
            };
            group.size.min = if hosted { minimum } else { 0 };
            let here = servers.iter().skip(index * 5).take(usize::try_from(room).unwrap());
            for (ordinal, server) in here.enumerate() {
                let server_name = ServerName::new(format!("{name}-{ordinal}"));
                spots.push((site.clone(), name.clone(), server_name.clone()));
                group.servers_mut().insert(server_name, server.clone());
            }
            stage = stage.group(&name, group);
        }
        let mut taken = BTreeSet::new();
        for (index, (pool, running)) in pools.into_iter().enumerate() {
            let name = format!("p{index}");
            stage = stage.pool(&name, pool);
            for (spot, replica) in running {
                let Some((site, group, server)) = spots.get(spot) else {
                    continue;
                };
                if taken.insert(spot) {
                    let replica = Replica {
                        uid: format!("uid-{spot}"),
                        site: site.as_str().into(),
                        group: group.as_str().into(),
                        server: server.clone(),
                        ..replica
                    };
                    let key = ReplicaId::new(site.as_str(), format!("{name}-{server}"));
                    stage.seen_mut(&name).running.insert(key, replica);
                }
            }
        }
        stage.snapshot
    })
}

fn sites() -> impl Strategy<Value = Site> {
    let ownership = prop::sample::select(vec![Ownership::Owned, Ownership::Managed, Ownership::Hosted]);
    let trust = prop::sample::select(vec![Trust::None, Trust::Verified, Trust::Attested]);
    let country = prop::sample::select(vec!["US", "DE"]);
    let maintenance = prop::sample::select(vec![
        Maintenance::Active,
        Maintenance::Active,
        Maintenance::Cordoned,
        Maintenance::Draining,
    ]);
    (ownership, trust, country, maintenance, 0..10u8, 0..10u8).prop_map(
        |(ownership, trust, country, maintenance, lost, development)| {
            let mut site = Site::fixture(ownership);
            (site.trust, site.maintenance) = (trust, maintenance);
            site.residency = [country.into()].into();
            if development == 0 {
                site.permitted_use = Use::DevelopmentOnly;
            }
            if lost == 0 {
                site.lost(START - Span::from_minutes(10))
            } else {
                site
            }
        },
    )
}

fn servers() -> impl Strategy<Value = Server> {
    let state = prop::sample::select(
        ServerState::ALL
            .into_iter()
            .chain([ServerState::Ready; 12])
            .collect::<Vec<_>>(),
    );
    let trust = prop::sample::select(vec![Trust::None, Trust::Attested, Trust::Attested]);
    (state, trust, 0..2_000u64, 0..12u8, prop::option::of(0..3_000u64)).prop_map(|(state, proven, age, mark, paid)| {
        let down = NodeHealth::Down {
            since: START - Span::from_secs(age),
        };
        Server {
            state,
            node: match state {
                ServerState::Requested | ServerState::Provisioning | ServerState::Gone => NodeHealth::Absent,
                ServerState::Suspect => down,
                ServerState::Ready => NodeHealth::Ready,
                // The provider, or our mark, says one thing, and the Node any other.
                _ => [NodeHealth::Ready, NodeHealth::Absent, down][usize::from(mark % 3)],
            },
            proven,
            since: START - Span::from_secs(age),
            cordoned: mark == 0,
            held: mark == 1,
            lease: paid.map(|paid| Lease {
                start: START - Span::from_hours(1),
                minimum_until: START + Span::from_secs(paid),
            }),
        }
    })
}

fn pools() -> impl Strategy<Value = Pool> {
    let survive = prop::sample::select(vec![Survive::None, Survive::Server, Survive::Site]);
    let trust = prop::sample::select(vec![Trust::None, Trust::Attested]);
    let residency = prop::sample::select(vec![None, Some("US")]);
    let rate = prop::option::weighted(0.8, 0.0..4.0f64);
    (
        (survive, trust, residency, rate),
        (0..3u32, 1..8u32, 0..3i32),
        (0..9u8, 0..1_500u64),
    )
        .prop_map(
            |((survive, trust, residency, rate), (min, more, priority), (mark, held))| {
                let mut pool = Pool::fixture().surviving(survive).replicas(min, min + more);
                pool.placement.minimum_trust = trust;
                pool.placement.residency = residency.into_iter().map(Into::into).collect();
                (pool.priority, pool.deleting, pool.paused) = (priority, mark == 0, mark == 1);
                if mark == 2 {
                    pool.drain.on_deadline = OnDeadline::Cut;
                }
                pool.memory.surplus_since = Some(START - Span::from_secs(held));
                pool.memory.target = (held % 2 == 0).then_some(min + 1);
                match rate {
                    Some(rate) => pool.demanding(rate, START),
                    None => pool,
                }
            },
        )
}

fn replicas() -> impl Strategy<Value = Replica> {
    use ReplicaState::{Ended, Loading, Pending, Ready, Suspect, Terminating};
    let state = prop::sample::select(vec![
        Ready,
        Ready,
        Ready,
        Ready,
        Pending,
        Loading,
        Suspect,
        Terminating,
        Ended,
    ]);
    let step = prop::sample::select(vec![DrainStep::Fence, DrainStep::Quiesce]);
    let reason = prop::sample::select(vec![
        Reason::DemandFell,
        Reason::ServerCordoned,
        Reason::RevisionReplaced,
    ]);
    let drain = prop::option::weighted(0.2, (step, reason, 0..2_000u64));
    let load = prop::option::of(0..3u32);
    let revision = prop::sample::select(vec!["r1", "r1", "r1", "r0"]);
    (state, drain, load, revision, any::<bool>()).prop_map(|(state, drain, load, revision, label)| Replica {
        uid: String::new(),
        site: "".into(),
        group: "".into(),
        server: "".into(),
        revision: revision.into(),
        state,
        serving: label && state == Ready && drain.is_none(),
        since: START - Span::from_minutes(5),
        silent_since: (label && load.is_none()).then_some(START - Span::from_minutes(1)),
        drain: drain.map(|(step, reason, since)| Drain {
            step,
            reason,
            step_since: START - Span::from_secs(since),
            deadline: START - Span::from_secs(since) + Span::from_minutes(15),
        }),
        load: load.map_or(Load::Unknown, |running| Load::Known {
            running,
            queued: 0,
            at: START,
        }),
        created: START - Span::from_hours(1),
    })
}
