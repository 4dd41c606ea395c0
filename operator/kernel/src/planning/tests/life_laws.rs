//! Laws over time: what holds in every hour of a life, whatever arrives, with the strategic plan and without.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::lifecycle::DrainStep;
use crate::names::ServerName;
use crate::snapshot::{Budget, Group, Period, Survive};
use crate::time::Timestamp;
use crate::units::Money;

const MINUTE: Span = Span::from_minutes(1);
/// Price of a server's whole lease.
const LEASE: f64 = 24.0 * 1.97;

/// What happens to servers and replicas by choice: everything that a plan could take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Move {
    Asked,
    Started,
    Fenced,
    Drained,
    Released,
}

/// A move and its server.
fn a_move(stage: &Stage, decision: &Decision) -> Option<(Move, ServerName)> {
    match &decision.action {
        Action::RequestServer { server, .. } => Some((Move::Asked, server.clone())),
        Action::StartReplica { server, .. } => Some((Move::Started, server.clone())),
        Action::DrainServer { server, .. } => Some((Move::Drained, server.clone())),
        Action::ReleaseServer { server, .. } => Some((Move::Released, server.clone())),
        Action::DrainReplica {
            pool,
            replica,
            step: DrainStep::Fence,
            ..
        } => {
            let pool = &stage.snapshot.pools[pool];
            Some((Move::Fenced, pool.running[replica].server.clone()))
        }
        _ => None,
    }
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    owned: u32,
    hosted: u32,
    survive: Survive,
    ahead: bool,
    budget: Option<f64>,
}

fn settings() -> impl Strategy<Value = Setting> {
    let survive = prop::sample::select(vec![Survive::None, Survive::Server]);
    (
        0..5u32,
        1..8u32,
        survive,
        any::<bool>(),
        prop::option::of(0.0..400.0f64),
    )
        .prop_map(|(owned, hosted, survive, ahead, budget)| Setting {
            owned,
            hosted,
            survive,
            ahead,
            budget,
        })
}

/// A stage and all moves on it.
struct Life {
    stage: Stage,
    moves: Vec<(Timestamp, Move, ServerName)>,
}

impl Life {
    fn new(setting: Setting, rate: f64) -> Self {
        let mut stage = hybrid(setting.owned, 0)
            .group("m4", Group::hosted("lease", setting.hosted))
            .pool("chat", Pool::fixture().surviving(setting.survive));
        if setting.ahead {
            stage = stage.planning_ahead();
        }
        stage.seen_mut("chat").budget = setting.budget.map(|amount| Budget {
            amount: Money::from_f64(amount),
            period: Period::Day,
        });
        stage.demand("chat", rate);
        Self {
            stage,
            moves: Vec::new(),
        }
    }

    /// A minute at a rate.
    fn live(&mut self, rate: f64) -> Result<(), TestCaseError> {
        self.stage.demand("chat", rate);
        let (before, now) = (self.stage.clone(), self.stage.now);
        for decision in self.stage.pass(MINUTE).decisions {
            let Some((what, server)) = a_move(&before, &decision) else {
                continue;
            };
            if what == Move::Released {
                let lease = before.snapshot.groups["m4"].inventory.servers()[&server].lease;
                let over = lease.is_none_or(|lease| lease.minimum_until <= now);
                prop_assert!(over, "given back before its term: {decision:?}");
            }
            self.moves.push((now, what, server));
        }
        Ok(())
    }

    fn count(&self, what: Move) -> usize {
        self.moves.iter().filter(|(_, other, _)| *other == what).count()
    }

    /// How often each thing was done to each server since then.
    fn since(&self, from: Timestamp) -> BTreeMap<(Move, &ServerName), usize> {
        let mut times = BTreeMap::new();
        for (_, what, server) in self.moves.iter().filter(|(at, ..)| *at >= from) {
            *times.entry((*what, server)).or_default() += 1;
        }
        times
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn noise_moves_next_to_nothing(
        setting in settings(),
        rate in 0.1..3.0f64,
        noise in prop::collection::vec(0.75..1.25f64, 240),
    ) {
        let mut life = Life::new(setting, rate);
        // The strategic plan learns for an hour how demand wobbles, and waits for an hour before it believes in a long lease.
        let settled = life.stage.now + Span::from_hours(2);
        for factor in noise {
            life.live(rate * factor)?;
        }
        let later: usize = life.since(settled).values().sum();
        prop_assert!(later <= 2 * 3, "{later} moves in two hours: {:?}", life.since(settled));
    }

    #[test]
    fn whatever_arrives_each_server_moves_once_an_hour_and_no_budget_is_overspent(
        setting in settings(),
        rates in prop::collection::vec(0.0..4.0f64, 1..7),
    ) {
        let mut life = Life::new(setting, rates[0]);
        for rate in rates {
            let from = life.stage.now;
            for _ in 0..60 {
                life.live(rate)?;
            }
            let times = life.since(from);
            let twice: Vec<_> = times.iter().filter(|(_, count)| **count > 1).collect();
            prop_assert!(twice.is_empty(), "{twice:?} in the hour from {from}");
        }
        let spent = life.count(Move::Asked) as f64 * LEASE;
        prop_assert!(setting.budget.is_none_or(|budget| spent <= budget), "{spent} of {:?}", setting.budget);
    }
}
