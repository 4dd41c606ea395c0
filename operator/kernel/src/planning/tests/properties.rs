//! Laws over random worlds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::fixture::{START, pool_id};
use crate::lifecycle::{Drain, DrainStep, ReplicaState, ServerState};
use crate::snapshot::{
    Contact, Group, Lease, Load, Maintenance, OnDeadline, Ownership, Replica, Server, Site, Snapshot, Survive, Trust,
    Use,
};

/// A world that no sequence of plans need ever have made: the planner has to cope with whatever it finds.
fn worlds() -> impl Strategy<Value = Snapshot> {
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
                let server_name = crate::names::ServerName::new(format!("{name}-{ordinal}"));
                spots.push((site.clone(), name.clone(), server_name.clone()));
                group.servers_mut().insert(server_name, server.clone());
            }
            stage = stage.group(&name, group);
        }
        let mut taken = std::collections::BTreeSet::new();
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
                    let key = crate::names::ReplicaName::new(format!("{name}-{server}"));
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
        Server {
            state,
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

/// What a plan may never do, whatever it finds.
fn check_laws(snapshot: &Snapshot, plan: &Plan) -> Result<(), TestCaseError> {
    let mut started: BTreeMap<_, u32> = BTreeMap::new();
    for decision in &plan.decisions {
        let text = format!("{decision:?}");
        prop_assert!(
            !decision.message.is_empty() && decision.rejected.len() <= Decision::MAX_REJECTED,
            "{}",
            text
        );
        match &decision.action {
            Action::StartReplica {
                pool, group, server, ..
            } => {
                let (pool, found) = (&snapshot.pools[pool], &snapshot.groups[group]);
                let site = &snapshot.sites[&found.site];
                prop_assert!(
                    crate::feasibility::check(pool, found, site).is_ok(),
                    "infeasible: {}",
                    text
                );
                prop_assert!(
                    found.inventory.servers()[server].proven >= pool.placement.minimum_trust,
                    "{}",
                    text
                );
                let once = started.entry((found.site.clone(), server.clone())).or_default();
                *once += 1;
                let there = snapshot.pools.values().flat_map(|pool| pool.running.values());
                let there = there
                    .filter(|other| other.site == found.site && other.server == *server)
                    .count();
                prop_assert!(*once == 1 && there == 0, "two replicas on one server: {}", text);
            }
            Action::DrainReplica {
                pool, replica, step, ..
            } => {
                let pool = &snapshot.pools[pool];
                let known = matches!(pool.demand, crate::snapshot::Demand::Known(_));
                let less = matches!(
                    decision.reason,
                    Reason::DemandFell | Reason::ReturnToOwned | Reason::AboveMaximum
                );
                let begins = *step == DrainStep::Fence && pool.running[replica].drain.is_none();
                prop_assert!(known || !begins || !less, "a removal with unknown demand: {}", text);
            }
            Action::RemoveReplica { pool, replica, cut, .. } => {
                let pool = &snapshot.pools[pool];
                let found = &pool.running[replica];
                prop_assert!(*cut == 0 || pool.drain.on_deadline == OnDeadline::Cut, "{}", text);
                let busy = matches!(found.load, Load::Known { running, .. } if running > 0);
                let gone = matches!(
                    decision.reason,
                    Reason::ReplicaLost | Reason::DeadlineCut | Reason::NoLongerPermitted | Reason::PoolDeleted
                ) || found.state != ReplicaState::Ready;
                prop_assert!(!busy || gone, "a busy replica is removed: {}", text);
            }
            Action::ReleaseServer { group, server } => {
                let site = &snapshot.groups[group].site;
                let mut there = snapshot.pools.values().flat_map(|pool| pool.running.values());
                prop_assert!(
                    !there.any(|other| other.site == *site && other.server == *server),
                    "not empty: {}",
                    text
                );
            }
            _ => {}
        }
        let touched = match &decision.action {
            Action::RequestServer { group, .. }
            | Action::DrainServer { group, .. }
            | Action::UndrainServer { group, .. }
            | Action::ReleaseServer { group, .. }
            | Action::StartReplica { group, .. } => group,
            Action::OpenReplica { pool, replica }
            | Action::DrainReplica { pool, replica, .. }
            | Action::RemoveReplica { pool, replica, .. } => {
                prop_assert!(!snapshot.pools[pool].paused, "paused: {}", text);
                &snapshot.pools[pool].running[replica].group
            }
        };
        let site = &snapshot.sites[&snapshot.groups[touched].site];
        prop_assert!(site.contact == Contact::Reachable, "at a lost site: {}", text);
    }
    for (id, outlook) in &plan.pools {
        let pool = &snapshot.pools[id];
        let there = u32::try_from(pool.running.len()).unwrap();
        prop_assert!(
            outlook.target <= pool.replicas.max.max(there),
            "{} above {:?}",
            outlook.target,
            pool.replicas
        );
        let ready = outlook
            .conditions
            .iter()
            .filter(|condition| condition.kind == ConditionKind::Ready);
        prop_assert_eq!(ready.count(), 1);
    }
    for (name, group) in &snapshot.groups {
        let asked = of(
            &plan.decisions,
            |action| matches!(action, Action::RequestServer { group, .. } if group == name),
        );
        let alive = group
            .inventory
            .servers()
            .values()
            .filter(|server| server.state != ServerState::Gone);
        let many = asked.len() + alive.count();
        prop_assert!(
            asked.is_empty() || many <= usize::try_from(group.size.max).unwrap(),
            "{name} has {many}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1200, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_a_promise_whatever_it_finds(snapshot in worlds()) {
        let plan = crate::planning::plan(&snapshot, START);
        check_laws(&snapshot, &plan)?;
        // Deterministic, and not changed by a journey through its serialised form.
        let text = serde_json::to_string(&snapshot).unwrap();
        let back: Snapshot = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&plan, &crate::planning::plan(&back, START));
    }

    #[test]
    fn a_group_that_nobody_may_use_changes_nothing(snapshot in worlds()) {
        let mut more = snapshot.clone();
        let mut useless = Group::hosted("nowhere", 9);
        useless.size.min = 0;
        more.groups.insert("zzz".into(), useless);
        let (plan, same) = (crate::planning::plan(&snapshot, START), crate::planning::plan(&more, START));
        prop_assert_eq!(plan.decisions, same.decisions);
        prop_assert_eq!(plan.pools, same.pools);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_fixed_demand_converges_and_then_stays_silent(
        rate in 0.0..4.5f64,
        owned in 0..8u32,
        hosted in 0..6u32,
        other in 0.0..1.0f64,
        site in any::<bool>(),
    ) {
        let survive = if site { Survive::Site } else { Survive::Server };
        let mut stage = hybrid(owned, hosted)
            .pool("chat", Pool::fixture().surviving(survive))
            .pool("other", Pool::fixture());
        stage.demand("chat", rate);
        stage.demand("other", other);
        stage.run(Span::from_hours(1));
        let moves = stage.history.len();
        for _ in 0..60 {
            let plan = stage.step();
            prop_assert!(plan.decisions.is_empty(), "{:#?}", plan.decisions);
        }
        // Each server is asked for, each replica started and opened at most once on the way up.
        let servers = usize::try_from(owned + hosted).unwrap();
        prop_assert!(moves <= 4 * servers, "{moves} moves with {servers} servers");
        prop_assert!(stage.snapshot.pools.contains_key(&pool_id("chat")));
    }
}
