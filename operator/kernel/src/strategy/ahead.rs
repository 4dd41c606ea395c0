//! The strategic plan by names: what the tactical pass, the controller and people read.
//!
//! [`look_ahead`] makes it of a snapshot whenever one is [due](super::due). It is part of the next snapshots until it is replaced, so that a decision
//! can be planned again from its snapshot alone.
//!
//! What it counts on is what the tactical pass counts on: servers that can be seen and used, or are expected to be of use again soon; groups
//! that may be asked; pools whose demand is known. See `scene`.

mod calibrate;
mod instead;
mod limits;
mod scene;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::scene::Scene;
use super::burn::BurnTable;
use super::dwell::Considered;
use super::envelope::{Memo, Method};
use super::{Burnt, Effort, envelope};
use crate::capacity::Calibrations;
use crate::forecast::Forecast;
use crate::names::{GroupName, PoolId, ServerName};
use crate::plan::Rejected;
use crate::snapshot::Snapshot;
use crate::time::{Span, Timestamp};
use crate::units::{Money, Rate};

/// A strategic plan is made so often, and earlier when demand leaves the forecast's band.
pub const REPLAN: Span = Span::from_minutes(5);

/// Older than this it is not followed any more: the tactical pass goes by what it measures alone, and says so.
pub const STALE: Span = Span::from_minutes(20);

/// What to have over the next 36 hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ahead {
    /// When it was made.
    pub made_at: Timestamp,
    /// Groups that some pool of the plan may use.
    pub groups: BTreeMap<GroupName, GroupAhead>,
    /// Pools that were planned for. One whose demand is not known is not among them: it is left to the tactical pass.
    pub pools: BTreeMap<PoolId, PoolAhead>,
    /// Expected cost of the next 36 hours in the hub's currency; leases that are paid in any case are left out.
    pub cost: f64,
    /// No plan for the same problem costs less.
    pub bound: f64,
    /// What this plan and the last ones want of groups with long leases.
    #[serde(default)]
    pub considered: Considered,
    /// What is known of figures of machines, by pool, after this look: the next plan is made with it. Pools of which nothing new was
    /// measured are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calibrations: BTreeMap<PoolId, Calibrations>,
}

/// One group's part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupAhead {
    /// Servers to have by now, those on their way included. More are there only until they can be given back.
    pub servers: u32,
    /// Of those, to be asked for: for which pool, and how many.
    pub buyers: BTreeMap<PoolId, u32>,
    /// Further purchases that are planned within the horizon, as things are now: when to ask, and for how many.
    pub later: Vec<(Timestamp, u32)>,
    /// Servers that are there or coming and are not wanted beyond the horizon: until when each is.
    pub until: BTreeMap<ServerName, Timestamp>,
    /// Servers that there were. What is there besides has been asked for since.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub known: BTreeSet<ServerName>,
}

/// One pool's part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolAhead {
    /// Servers that are planned for it now, by group, those on their way included.
    pub replicas: BTreeMap<GroupName, u32>,
    /// Windows of its objectives, by start, with what is expected to be burnt of what is left.
    pub windows: Vec<(Timestamp, Burnt)>,
    /// Prices of a burnt request by start of the window: the next plan begins with them.
    pub prices: BTreeMap<Timestamp, f64>,
    /// What it was planned for.
    pub forecast: Option<Forecast>,
    /// How much there is to do for one of its requests, see [`crate::work`]: rates are of such requests.
    #[serde(default)]
    pub work: f64,
    /// What its servers burn at which load.
    pub burn: Option<BurnTable>,
    /// Requests/s of one server of each group at saturation.
    pub capacity: BTreeMap<GroupName, f64>,
    /// What it is expected to cost over the horizon: its servers' leases that are not sunk, and their energy.
    pub cost: f64,
    /// Periods of its budget within the horizon; none without a budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spending: Vec<Spending>,
    /// What servers would have cost that the plan does without, because the budget does not allow them.
    #[serde(default)]
    pub forgone: f64,
    /// Groups that servers are planned to be leased from for it, and why not from others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<GroupName, Chosen>,
    /// Windows that will not hold, by start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// Why servers are leased from one group and not from another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The first of the leases that are planned there: from when on it serves.
    pub serves: Timestamp,
    /// Until when it is wanted; the end of the horizon if beyond.
    pub to: Timestamp,
    /// What it costs from the purchase to its end, its whole minimum included.
    pub cost: Money,
    /// Other groups that the pool may use, the cheapest first.
    pub rejected: Vec<Rejected>,
}

/// What is planned to be spent in one period of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spending {
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// What there is to spend, beyond what is spent in any case.
    pub left: f64,
    /// What is planned to be spent of it within the horizon.
    pub planned: f64,
}

/// What will miss in a window beyond what is planned to be spent of its error budget: servers, power or money have run out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// When the window began.
    pub window: Timestamp,
    /// So many requests, if they miss the strictest objective.
    pub requests: f64,
    /// What they cost by the pool's own price of a miss.
    pub cost: f64,
}

impl Ahead {
    /// What a better plan could save at most, as a share of the cost.
    pub fn gap(&self) -> f64 {
        super::gap(self.cost, self.bound)
    }

    /// Whether it is recent enough to be followed.
    pub fn holds(&self, now: Timestamp) -> bool {
        now.since(self.made_at) < STALE
    }
}

impl PoolAhead {
    /// Rates that are expected in the first slot: the lower end of the band, the median and the upper end.
    pub fn expected(&self) -> Option<[Rate; 3]> {
        let first = self.forecast.as_ref()?.slots.first()?.requests.0;
        Some([first[0], first[2], first[5]])
    }
}

/// Plans ahead for all pools of `snapshot` whose demand is known. Pure: the same snapshot gives the same plan, whatever `memo` remembers.
pub fn look_ahead(snapshot: &Snapshot, now: Timestamp, memo: &mut Memo, effort: Effort) -> Ahead {
    look_ahead_by(Method::default(), snapshot, now, memo, effort)
}

/// The same by another method.
pub fn look_ahead_by(method: Method, snapshot: &Snapshot, now: Timestamp, memo: &mut Memo, effort: Effort) -> Ahead {
    let scene = Scene::of(snapshot, now);
    let ahead = match scene.situation(method) {
        Some(situation) => scene.named(&envelope::plan(&situation, memo, effort)),
        None => Ahead {
            made_at: now,
            ..Ahead::default()
        },
    };
    Ahead {
        calibrations: calibrate::calibrate(snapshot, now, &mut memo.curves),
        ..ahead
    }
}
