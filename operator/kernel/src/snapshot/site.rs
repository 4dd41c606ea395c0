//! Member clusters: who owns them, what they may be used for, and whether they answer.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::Jurisdiction;
use crate::reason::Problem;
use crate::time::Timestamp;
use crate::units::Money;

/// Who owns a site's machines and building. The order is the order in which `OwnedFirst` fills them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ownership {
    /// Own machines in an own building.
    Owned,
    /// Own machines in a partner's building.
    Managed,
    /// Leased machines.
    Hosted,
}

/// How much a site can prove about its machines. Ordered from nothing to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Trust {
    /// Nothing.
    None,
    /// The owner checks them by other means.
    Verified,
    /// Signed evidence on every server.
    Attested,
}

/// What a site's machines may be used for under their licence, or what a pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Use {
    /// Anything, users' requests included.
    Production,
    /// Building and testing only.
    DevelopmentOnly,
}

/// Whether people want new work at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Maintenance {
    /// Yes.
    Active,
    /// What runs may stay; nothing new comes.
    Cordoned,
    /// What runs is drained.
    Draining,
}

/// Whether the member cluster answered lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contact {
    /// Its API server answers and its caches are complete: what is seen there is current.
    Reachable,
    /// It does not: everything seen there is as of `since`, and nothing may be concluded from it.
    Lost {
        /// When it last answered.
        since: Timestamp,
        /// Why it is not reachable, for people.
        message: String,
    },
}

/// A member cluster at one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Who owns it.
    pub ownership: Ownership,
    /// Jurisdictions whose data may be processed here.
    pub residency: BTreeSet<Jurisdiction>,
    /// The most that this site can prove.
    pub trust: Trust,
    /// What its machines may be used for.
    pub permitted_use: Use,
    /// Electricity.
    pub energy: Energy,
    /// What people want of it.
    pub maintenance: Maintenance,
    /// Whether it answers.
    pub contact: Contact,
    /// Why the object cannot be used as it is. The figures here are those that can be read; nothing is done at the site.
    pub problem: Option<Problem>,
    /// Pomarium only watches: set by people with the annotation `pomarium.dev/paused`.
    pub paused: bool,
}

/// What electricity costs at a site.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Price of one kilowatt-hour at the meter.
    pub price_per_kwh: Money,
    /// Power usage effectiveness: watts at the meter per watt at the machines, at least 1.
    pub pue: f64,
    /// The most that all machines together may draw, in watts at the machines.
    pub power_limit_watts: Option<f64>,
}
