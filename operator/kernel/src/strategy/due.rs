//! When to plan ahead again.

use super::ahead::{Ahead, GroupAhead, REPLAN};
use crate::lifecycle::ServerState;
use crate::names::GroupName;
use crate::snapshot::{Demand, Snapshot};
use crate::time::{Span, Timestamp};
use crate::units::{Fraction, Rate};

/// However much happens, no more often than this.
pub const SOONEST: Span = Span::from_minutes(1);

/// Demand above this quantile of what was forecast, and by a tenth of it, is a surprise.
const BAND: f64 = 0.95;
const MARGIN: f64 = 1.1;

/// Why a strategic plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// There is none.
    First,
    /// The last one was made some time ago.
    Periodic,
    /// More arrives than it was made for.
    Demand,
    /// Sites, groups or pools are not what they were.
    Objects,
}

impl Due {
    /// A stable word, for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "First",
            Self::Periodic => "Periodic",
            Self::Demand => "Demand",
            Self::Objects => "Objects",
        }
    }
}

/// Whether, and why, the plan of `snapshot` is to be replaced. `tried_at` is when that was last begun, and `changed` whether sites, groups
/// or pools have changed since.
pub fn due(snapshot: &Snapshot, now: Timestamp, tried_at: Option<Timestamp>, changed: bool) -> Option<Due> {
    if tried_at.is_some_and(|at| now.since(at) < SOONEST && at <= now) {
        return None;
    }
    let Some(ahead) = &snapshot.ahead else {
        return Some(Due::First);
    };
    // A plan of the future comes from a clock that was wrong.
    if now.since(ahead.made_at) >= REPLAN || ahead.made_at > now {
        Some(Due::Periodic)
    } else if changed
        || ahead
            .groups
            .iter()
            .any(|(name, group)| has_lost(group, name, snapshot, ahead.made_at, now))
    {
        Some(Due::Objects)
    } else {
        is_surprised(ahead, snapshot, now).then_some(Due::Demand)
    }
}

/// A server that the plan counted on is of no use any more.
fn has_lost(planned: &GroupAhead, name: &GroupName, snapshot: &Snapshot, made_at: Timestamp, now: Timestamp) -> bool {
    let Some(group) = snapshot.groups.get(name) else {
        return !planned.known.is_empty();
    };
    let servers = group.inventory.servers();
    planned.known.iter().any(|server| {
        let gone = servers.get(server).is_none_or(|server| {
            matches!(server.state, ServerState::Suspect | ServerState::Failed) && server.since > made_at
        });
        gone && planned.until.get(server).is_none_or(|until| *until > now)
    })
}

fn is_surprised(ahead: &Ahead, snapshot: &Snapshot, now: Timestamp) -> bool {
    ahead.pools.iter().any(|(id, planned)| {
        let Some(Demand::Known(arrivals)) = snapshot.pools.get(id).map(|pool| &pool.demand) else {
            return false;
        };
        // Planned before anything was known of it.
        let known = || snapshot.pools[id].past.history.recorded_until().is_some();
        if planned.forecast.is_none() {
            return known();
        }
        let slots = planned.forecast.iter().flat_map(|forecast| &forecast.slots);
        let current = slots
            .into_iter()
            .find(|slot| slot.slot.start <= now && now < slot.slot.end());
        let high = current.map(|slot| slot.requests.at(Fraction::new(BAND)));
        high.is_some_and(|high| arrivals.recent() > Rate::per_second(high.as_per_second() * MARGIN))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::ahead::PoolAhead;
    use super::*;
    use crate::forecast::{Counts, Forecast, Quantiles, Season, Slot, SlotForecast};
    use crate::names::PoolId;
    use crate::snapshot::{Arrivals, Pool};

    const MADE: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn snapshot(rate: f64) -> Snapshot {
        let id = PoolId::new("team", "chat");
        let slot = Slot {
            start: MADE,
            length: REPLAN,
        };
        let forecast = Forecast {
            as_of: MADE,
            season: Season::Unknown,
            slots: vec![SlotForecast {
                slot,
                requests: Quantiles::certain(Rate::per_second(2.0)),
            }],
            lengths: None,
            accuracy: Vec::new(),
        };
        let planned = PoolAhead {
            forecast: Some(forecast),
            ..PoolAhead::default()
        };
        let arrivals = Arrivals {
            rate_1m: Rate::per_second(rate),
            rate_5m: Rate::per_second(rate),
            lengths: None,
            at: MADE,
        };
        let pool = Pool {
            demand: Demand::Known(arrivals),
            ..Pool::fixture()
        };
        Snapshot {
            pools: [(id.clone(), pool)].into(),
            ahead: Some(Arc::new(Ahead {
                made_at: MADE,
                pools: [(id, planned)].into(),
                ..Ahead::default()
            })),
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_plan_is_replaced_when_it_is_old_or_something_is_not_as_it_was_planned_for() {
        let minute = |n| MADE + Span::from_minutes(n);
        for (rate, now, tried, changed, expected) in [
            (2.0, minute(2), Some(MADE), false, None),
            (2.1, minute(2), Some(MADE), false, None),
            (2.3, minute(2), Some(MADE), false, Some(Due::Demand)),
            (2.0, minute(2), Some(MADE), true, Some(Due::Objects)),
            (2.3, MADE + Span::from_secs(59), Some(MADE), true, None),
            (2.0, minute(5), Some(MADE), false, Some(Due::Periodic)),
            (2.0, minute(6), Some(minute(5)), false, Some(Due::Periodic)),
            (2.0, MADE - Span::from_hours(1), None, false, Some(Due::Periodic)),
        ] {
            let seen = due(&snapshot(rate), now, tried, changed);
            assert_eq!(seen, expected, "{rate} requests/s at {now}");
        }
        let mut blind = snapshot(2.0);
        let planned = PoolAhead::default();
        blind.ahead = Some(Arc::new(Ahead {
            made_at: MADE,
            pools: [(PoolId::new("team", "chat"), planned)].into(),
            ..Ahead::default()
        }));
        assert_eq!(due(&blind, minute(2), Some(MADE), false), None, "still nothing known");
        if let Some(pool) = blind.pools.values_mut().next() {
            let counts = Counts {
                requests: 3,
                ..Counts::default()
            };
            Arc::make_mut(&mut pool.past).arrived(MADE, minute(1), counts, &[]);
        }
        assert_eq!(due(&blind, minute(2), Some(MADE), false), Some(Due::Demand));
        let none = Snapshot {
            ahead: None,
            ..snapshot(2.0)
        };
        assert_eq!(due(&none, MADE, None, false), Some(Due::First));
    }
}
