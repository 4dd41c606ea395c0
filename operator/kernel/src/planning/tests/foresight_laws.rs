//! Laws of both passes joined, over random worlds.

use std::cell::RefCell;

use proptest::prelude::*;

use super::properties::check_laws;
use super::worlds::worlds;
use super::*;
use crate::capacity::curve;
use crate::catalogue::Catalogue;
use crate::feasibility::Feasibility;
use crate::fixture::START;
use crate::snapshot::{Demand, Group, Snapshot, Survive};
use crate::strategy::Effort;
use crate::strategy::ahead::{Ahead, look_ahead};
use crate::strategy::envelope::Memo;

thread_local! {
    /// Measured once for all worlds: what is remembered changes nothing.
    static CURVES: RefCell<Memo> = RefCell::new(Memo::new(curve::Effort::QUICK, 4_096));
}

pub(super) fn ahead(snapshot: &Snapshot) -> Ahead {
    CURVES.with(|curves| look_ahead(snapshot, START, &mut curves.borrow_mut(), Effort::REPLAN))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_ahead_breaks_a_promise_whatever_it_finds(mut snapshot in worlds()) {
        let ahead = ahead(&snapshot);
        for (id, planned) in &ahead.pools {
            let pool = &snapshot.pools[id];
            prop_assert!(matches!(pool.demand, Demand::Known(_)) && !pool.paused && !pool.deleting, "{id}");
            let feasibility = Feasibility::of(pool, Catalogue::builtin(), START);
            for name in planned.replicas.keys() {
                let group = &snapshot.groups[name];
                prop_assert!(feasibility.check(name, group, &snapshot.sites[&group.site]).is_ok(), "{id} on {name}");
            }
        }
        for (name, planned) in &ahead.groups {
            let group = &snapshot.groups[name];
            let buys: u32 = planned.buyers.values().sum();
            let most = usize::try_from(buys).unwrap() + planned.known.len();
            let room = usize::try_from(group.size.max).unwrap();
            prop_assert!(buys == 0 || most <= room, "{buys} more of {name}, which may have {room}");
            let replicas: u32 = ahead.pools.values().filter_map(|pool| pool.replicas.get(name)).sum();
            prop_assert!(replicas <= planned.servers, "{name}");
        }
        let text = serde_json::to_string(&ahead).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Ahead>(&text).unwrap(), &ahead);
        snapshot.ahead = Some(ahead.into());
        let plan = crate::planning::plan(&snapshot, START);
        check_laws(&snapshot, &plan, START)?;
    }

    #[test]
    fn a_group_that_nobody_may_use_changes_no_plan_ahead(snapshot in worlds()) {
        let mut more = snapshot.clone();
        for (name, site) in [("aaa", "nowhere"), ("zzz", "s0")] {
            let mut useless = Group::hosted(site, 9);
            useless.machine = crate::fixture::machine("M1", 8, 8);
            more.groups.insert(name.into(), useless);
        }
        prop_assert!(ahead(&snapshot) == ahead(&more));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn steady_demand_moves_nothing_and_no_lease_is_given_back_before_its_term(
        rate in 0.0..3.0f64,
        owned in 0..5u32,
        hosted in 1..8u32,
        hours in 1..30u64,
        spare in any::<bool>(),
    ) {
        let survive = if spare { Survive::Server } else { Survive::None };
        let mut stage = hybrid(owned, 0)
            .group("m4", Group::hosted("lease", hosted).minimum_lease(Span::from_hours(hours)))
            .pool("chat", Pool::fixture().surviving(survive))
            .planning_ahead();
        stage.demand("chat", rate);
        let tick = |stage: &mut Stage| {
            stage.demand("chat", rate);
            let before = stage.snapshot.groups["m4"].inventory.servers().clone();
            let now = stage.now;
            let plan = stage.pass(Span::from_minutes(1));
            for decision in &plan.decisions {
                if let Action::ReleaseServer { server, .. } = &decision.action {
                    let paid_until = before[server].lease.unwrap().minimum_until;
                    prop_assert!(paid_until <= now, "{decision:?}, paid until {paid_until}");
                }
            }
            Ok(plan.decisions.len())
        };
        for _ in 0..90 {
            tick(&mut stage)?;
        }
        let mut moves = 0;
        for _ in 0..180 {
            moves += tick(&mut stage)?;
        }
        // A lease of an hour or two may end meanwhile, and be taken again.
        let servers = usize::try_from(owned + hosted).unwrap();
        let ended = if hours <= 4 { 8 * servers } else { 0 };
        prop_assert!(moves <= ended + 3 * 2, "{moves} moves in three hours");
    }
}
