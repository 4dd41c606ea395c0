//! What the strategic plan says of a pool, and whether it is followed.
//!
//! It is followed as long as it is recent, demand is measured, the figures of the machines in use are not far off, and requests do not miss
//! their objectives far more often than its capacity curves say. Otherwise the pool is left to what is measured, and says so: model, demand and the reactive rule, as if nobody planned
//! ahead.
//!
//! A percentile of five minutes above its threshold is no reason to doubt the plan: it may spend an error budget on purpose, where
//! capacity is dearest. What it did not expect is one: misses beyond anything that fluctuations of demand could explain, for half an hour.

use std::fmt::Write;

use super::crew::Crew;
use super::demand::{Need, burnt};
use super::evidence::{doubts, mislead};
use super::figures;
use super::model::{Counts, total};
use super::options::Options;
use super::policy::{AFTER_BURST, DISTRUST_AFTER, DISTRUST_FACTOR, DISTRUST_LEAST, DRAIN_ESTIMATE};
use super::react::episode;
use super::stock::Shelf;
use crate::lifecycle::ServerState;
use crate::names::{GroupName, PoolId, ServerName};
use crate::plan::Rejected;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, Snapshot};
use crate::strategy::ahead::{Ahead, GroupAhead, Missing, PoolAhead};
use crate::time::Timestamp;
use crate::units::Rate;

/// Who decides how much a pool needs.
#[derive(Debug)]
pub(crate) enum Lead<'a> {
    /// The strategic plan.
    Planned(Guide<'a>),
    /// What is measured: there is a plan, and it is not followed.
    Measured(Problem),
    /// What is measured: nobody plans ahead.
    Alone,
}

impl<'a> Lead<'a> {
    pub(crate) fn of(snapshot: &'a Snapshot, crew: &Crew<'a>, options: &Options, need: &Need, now: Timestamp) -> Self {
        let Some(ahead) = &snapshot.ahead else {
            return Self::Alone;
        };
        let measured = |why: String| Self::Measured(Problem::new(Reason::PlanNotFollowed, why));
        if !ahead.holds(now) {
            return measured(format!("the plan ahead is of {}", ahead.made_at));
        }
        let Need::Known { rate, .. } = need else {
            return measured("demand is unknown".to_owned());
        };
        let Some(planned) = ahead.pools.get(crew.id) else {
            return measured("the plan ahead was made without this pool".to_owned());
        };
        if let Some(doubt) = doubts(crew, options).filter(|_| mislead(crew, options)) {
            return Self::Measured(doubt);
        }
        let guide = Guide {
            id: crew.id,
            ahead,
            planned,
            now,
        };
        match guide.doubt(crew, *rate) {
            Some(doubt) => measured(doubt),
            None => Self::Planned(guide),
        }
    }

    pub(crate) fn guide(&self) -> Option<&Guide<'a>> {
        match self {
            Self::Planned(guide) => Some(guide),
            Self::Measured(_) | Self::Alone => None,
        }
    }
}

/// The plan that a pool follows.
#[derive(Debug)]
pub(crate) struct Guide<'a> {
    id: &'a PoolId,
    pub(crate) ahead: &'a Ahead,
    pub(crate) planned: &'a PoolAhead,
    pub(crate) now: Timestamp,
}

impl<'a> Guide<'a> {
    /// Why the plan's figures are not to be believed.
    fn doubt(&self, crew: &Crew, rate: Rate) -> Option<String> {
        let missed = episode(crew, total(crew.kept()), self.now)?;
        if self.now.since(missed.since) < DISTRUST_AFTER {
            return None;
        }
        let (pool, serving) = (crew.pool, crew.serving());
        let burnt = pool
            .objectives
            .iter()
            .zip(&pool.measured)
            .filter_map(|(objective, measured)| burnt(objective, measured, self.now))
            .reduce(f64::max)?;
        // Longer requests are more to do at the same rate.
        let work = self.planned.work;
        let lately = pool.past.history.lately(self.now).filter(|_| work > 0.0);
        let lately = lately.map_or(0.0, |work_per_s| work_per_s / work);
        let rate = rate.as_per_second().max(lately) * AFTER_BURST;
        let expected = self.planned.burn.as_ref()?.at(rate, self.capacity(serving));
        (burnt > DISTRUST_LEAST && burnt > expected * DISTRUST_FACTOR).then(|| {
            format!(
                "since {} requests miss an objective far more often than the capacity curves say",
                missed.since
            )
        })
    }

    pub(crate) fn group(&self, group: &GroupName) -> Option<&'a GroupAhead> {
        self.ahead.groups.get(group)
    }

    /// Replicas that are planned in a group.
    pub(crate) fn replicas(&self, group: &GroupName) -> u32 {
        self.planned.replicas.get(group).copied().unwrap_or(0)
    }

    /// Groups that were rejected for `group`; `None` if none of its servers is planned to be asked for.
    pub(crate) fn rejected(&self, group: &GroupName) -> Option<&'a [Rejected]> {
        Some(&self.planned.chosen.get(group)?.rejected)
    }

    /// Servers that the pool may still ask for: those planned, less those that have been asked for since.
    pub(crate) fn purchases(&self, name: &GroupName, group: &Group, stock: Option<&Shelf>) -> u32 {
        let Some(planned) = self.group(name) else { return 0 };
        let own = planned.buyers.get(self.id).copied().unwrap_or(0);
        if own == 0 {
            return 0;
        }
        let asked = stock.map_or(0, |shelf| shelf.asked.len());
        let done = u32::try_from(since(planned, group) + asked).unwrap_or(u32::MAX);
        let left = planned.buyers.values().sum::<u32>().saturating_sub(done);
        own.min(left)
    }

    /// Whether a server is to be left now: the plan does not want it for longer than a drain takes.
    pub(crate) fn is_due(&self, group: &GroupName, server: &ServerName) -> bool {
        self.leaves_at(group, server).is_some_and(|at| at <= self.now)
    }

    /// When a server is to be left, if that is planned.
    pub(crate) fn leaves_at(&self, group: &GroupName, server: &ServerName) -> Option<Timestamp> {
        Some(*self.group(group)?.until.get(server)? - DRAIN_ESTIMATE)
    }

    /// What `counts` finish at saturation, in requests/s.
    pub(crate) fn capacity(&self, counts: &Counts) -> f64 {
        let each = |group: &GroupName| self.planned.capacity.get(group).copied().unwrap_or(0.0);
        counts
            .iter()
            .map(|(group, count)| each(group) * f64::from(*count))
            .sum()
    }

    /// Whether the error budget of the window under way will not last, whatever is done.
    pub(crate) fn overspends(&self) -> bool {
        self.planned.windows.first().is_some_and(|(_, burnt)| !burnt.holds())
    }

    /// Why it will not last: there is no money for what would be needed, or nothing more to be had.
    pub(crate) fn lacks(&self) -> Reason {
        if self.planned.forgone > 0.0 {
            Reason::BudgetSpent
        } else {
            Reason::ErrorBudgetSpent
        }
    }

    /// What the window under way lacks.
    fn missing(&self) -> Option<&'a Missing> {
        let (window, _) = self.planned.windows.first()?;
        self.planned.missing.iter().find(|missing| missing.window == *window)
    }

    /// What the plan says, in one sentence for people. Rounded, so that a status changes when the plan does, and not whenever it is made.
    pub(crate) fn outlook(&self) -> String {
        let mut text = String::from("as planned ahead");
        let later = self.ahead.groups.iter().filter_map(|(name, group)| {
            let (at, count) = group.later.first()?;
            self.planned.capacity.contains_key(name).then_some((*at, *count, name))
        });
        if let Some((at, count, name)) = later.min() {
            let _ = write!(text, ", {count} more of {name} from about {} on", to_half_hour(at));
        }
        if let Some((_, burnt)) = self.planned.windows.first() {
            let share = if burnt.budget > 0.0 {
                burnt.expected / burnt.budget
            } else {
                f64::INFINITY
            };
            let _ = if share.is_finite() && share < 10.0 {
                write!(
                    text,
                    "; {:.0} % of what is left of the error budget is expected to be spent",
                    in_steps(share, 0.1)
                )
            } else {
                write!(
                    text,
                    "; more than what is left of the error budget is expected to be spent"
                )
            };
        }
        if let Some(short) = self.missing() {
            let _ = write!(
                text,
                "; about {} requests more will miss an objective, which costs {}",
                figures::two(short.requests),
                figures::two(short.cost)
            );
        }
        if self.planned.forgone > 0.0 {
            let _ = write!(
                text,
                "; servers for {} are not asked for because the budget does not allow them",
                figures::two(self.planned.forgone)
            );
        }
        let _ = write!(
            text,
            "; a better plan saves at most {:.0} %",
            in_steps(self.ahead.gap(), 0.01).max(1.0)
        );
        text
    }

    /// The rate at which `counts` just do not overspend an error budget.
    pub(crate) fn sustainable(&self, counts: &Counts) -> Rate {
        let capacity = self.capacity(counts);
        let Some(burn) = self.planned.burn.as_ref().filter(|_| capacity > 0.0) else {
            return Rate::ZERO;
        };
        let (mut low, mut high) = (0.0, 1.0);
        // To one part in a thousand.
        for _ in 0..10 {
            let load = f64::midpoint(low, high);
            if burn.at(load * capacity, capacity) <= 1.0 {
                low = load;
            } else {
                high = load;
            }
        }
        Rate::per_second(low * capacity)
    }
}

/// As a percentage, rounded up to whole steps.
fn in_steps(share: f64, step: f64) -> f64 {
    (share / step - 1e-9).ceil() * step * 100.0
}

fn to_half_hour(at: Timestamp) -> Timestamp {
    const HALF_HOUR_MS: i64 = 1_800_000;
    Timestamp::from_millis(at.as_millis().div_euclid(HALF_HOUR_MS) * HALF_HOUR_MS)
}

/// Servers of a group that have been asked for since the plan was made.
fn since(planned: &GroupAhead, group: &Group) -> usize {
    let given_back = |state| {
        matches!(
            state,
            ServerState::Gone | ServerState::Releasing | ServerState::Recycling
        )
    };
    let servers = group.inventory.servers().iter();
    servers
        .filter(|(name, server)| !planned.known.contains(*name) && !given_back(server.state))
        .count()
}
