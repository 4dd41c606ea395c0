//! Laws over random worlds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::worlds::worlds;
use super::*;
use crate::fixture::{START, pool_id};
use crate::lifecycle::{DrainStep, NodeHealth, ReplicaState, ServerState};
use crate::snapshot::{Contact, Demand, Group, Load, OnDeadline, Snapshot, Survive};
use crate::time::Timestamp;

/// What a plan may never do, whatever it finds.
pub(super) fn check_laws(snapshot: &Snapshot, plan: &Plan, now: Timestamp) -> Result<(), TestCaseError> {
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
                    crate::feasibility::Feasibility::of(pool, crate::catalogue::Catalogue::builtin(), now)
                        .check(group, found, site)
                        .is_ok(),
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
                let known = matches!(pool.demand, Demand::Known(_));
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
                let found = &snapshot.groups[group];
                let dead = matches!(found.inventory.servers()[server].node, NodeHealth::Down { .. });
                let left_behind = |state| matches!(state, ReplicaState::Terminating | ReplicaState::Ended);
                let mut there = snapshot.pools.values().flat_map(|pool| pool.running.values());
                let runs = there.any(|other| {
                    other.site == found.site && other.server == *server && !(dead && left_behind(other.state))
                });
                prop_assert!(!runs, "not empty: {}", text);
                let lease = found.inventory.servers()[server].lease;
                let costs = found.pricing.hourly > crate::units::Money::ZERO;
                let paid = costs && lease.is_some_and(|lease| lease.minimum_until > now);
                let for_good = matches!(
                    decision.reason,
                    Reason::ServerLost | Reason::ServerFailed | Reason::LeaseLate | Reason::GroupDeleted
                );
                let said = decision.message.contains("are lost");
                prop_assert!(!paid || (for_good && said), "a paid lease is given back: {}", text);
                prop_assert!(paid || !said, "nothing is lost: {}", text);
            }
            _ => {}
        }
        left_alone(snapshot, decision)?;
    }
    said(snapshot, plan)
}

/// What is paused or out of sight is not touched.
fn left_alone(snapshot: &Snapshot, decision: &Decision) -> Result<(), TestCaseError> {
    let text = format!("{decision:?}");
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
    Ok(())
}

/// What is said about every object agrees with what is done.
fn said(snapshot: &Snapshot, plan: &Plan) -> Result<(), TestCaseError> {
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
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_a_promise_whatever_it_finds(snapshot in worlds()) {
        let plan = crate::planning::plan(&snapshot, START);
        check_laws(&snapshot, &plan, START)?;
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
