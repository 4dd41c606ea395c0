//! From API objects to kernel types. After it, no code looks at an API object to decide anything.
//!
//! Pure: takes an object and what was observed beside it, fills in the documented defaults, and returns the kernel's
//! type. The schema and its CEL rules have refused most mistakes before; what they cannot check (cron, time zones, calendar
//! dates, one currency per hub) is found here. So is everything that would break the kernel, because an object may have
//! been stored under an older schema.
//!
//! # Errors
//!
//! A [`Problem`] names the field by its path and says what is allowed. The controller shows it in the condition `Stalled`.

mod currency;
mod group;
mod memory;
mod pool;
mod revision;
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kube::ResourceExt;
use pomarium_kernel::names::{GroupName, ReplicaId, SiteName};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Demand, EnginesMeasured, Inventory, Measured, Mode, Replica};
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Money;

use crate::common;
use crate::duration::Duration;
use crate::labels;

pub use currency::{Currency, one_currency};
pub use group::{group, group_as_known};
pub use pool::pool;
pub use revision::revision;
pub use site::{site, site_as_known};

/// What was observed of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSeen {
    /// Its servers.
    pub inventory: Inventory,
}

/// What was observed of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSeen {
    /// Sites whose cluster has the pool's namespace.
    pub namespace_at: BTreeSet<SiteName>,
    /// Sites that are the hub's own cluster: an HTTPRoute reaches no others.
    pub local_sites: BTreeSet<SiteName>,
    /// Arrivals, as measured.
    pub demand: Demand,
    /// Objectives, as measured, in the order of `spec.objectives`.
    pub measured: Vec<Measured>,
    /// What its engines say, by group.
    pub engines: BTreeMap<GroupName, EnginesMeasured>,
    /// All Pods of the pool at all sites.
    pub running: BTreeMap<ReplicaId, Replica>,
    /// What it has lived through.
    pub past: Arc<Past>,
}

/// The problem that `path` holds `found`, which is not `allowed`.
fn invalid(path: &str, found: impl fmt::Debug, allowed: impl fmt::Display) -> Problem {
    Problem::new(Reason::InvalidSpec, format!("{path} is {found:?}; allowed: {allowed}"))
}

/// A plain decimal number: digits, at most one point, no sign and no exponent. What formulas need in place of a float.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    if plain { number } else { None }
}

fn number(path: &str, text: &str) -> Result<f64, Problem> {
    decimal(text).ok_or_else(|| invalid(path, text, "a decimal number that is not negative, such as 8.0"))
}

/// A number above zero.
fn positive(path: &str, text: &str) -> Result<f64, Problem> {
    match number(path, text)? {
        number if number > 0.0 => Ok(number),
        _ => Err(invalid(path, text, "a decimal number above 0, such as 8.0")),
    }
}

fn money(path: &str, text: &str) -> Result<Money, Problem> {
    text.parse().ok().filter(|money| *money >= Money::ZERO).ok_or_else(|| {
        invalid(
            path,
            text,
            "an amount that is not negative, with at most 6 decimals, such as 1.97",
        )
    })
}

/// A whole number from 0 on.
fn count(path: &str, number: i32) -> Result<u32, Problem> {
    u32::try_from(number).map_err(|_| invalid(path, number, "a whole number from 0 on"))
}

/// A whole number from 1 on.
fn at_least_one(path: &str, number: i32) -> Result<u32, Problem> {
    match count(path, number)? {
        0 => Err(invalid(path, 0, "a whole number from 1 on")),
        number => Ok(number),
    }
}

/// A span above zero.
fn positive_span(path: &str, duration: Duration) -> Result<Span, Problem> {
    match duration.into() {
        Span::ZERO => Err(invalid(path, "0s", "a duration above 0s, such as 10s")),
        span => Ok(span),
    }
}

fn span_or_zero(duration: Option<Duration>) -> Span {
    duration.unwrap_or_default().into()
}

fn time(path: &str, text: &str) -> Result<Timestamp, Problem> {
    Timestamp::parse(text).ok_or_else(|| invalid(path, text, "an RFC 3339 time, such as 2027-03-01T00:00:00Z"))
}

/// Reads the fields of an object, and remembers the first that cannot be used.
///
/// What runs on an object's servers runs on when its spec is broken, and counts by the figures that can still be read.
#[derive(Default)]
struct Reading {
    problem: Option<Problem>,
}

impl Reading {
    /// What was read, or `otherwise`.
    fn or<T>(&mut self, read: Result<T, Problem>, otherwise: T) -> T {
        read.unwrap_or_else(|problem| {
            self.problem.get_or_insert(problem);
            otherwise
        })
    }
}

/// Refuses `min` above `max`.
fn ordered(path: &str, min: u32, max: u32) -> Result<(), Problem> {
    if min <= max {
        return Ok(());
    }
    Err(invalid(
        &format!("{path}.min"),
        min,
        format_args!("at most {path}.max, which is {max}"),
    ))
}

fn mode(mode: Option<common::Mode>) -> Mode {
    match mode.unwrap_or_default() {
        common::Mode::Auto => Mode::Auto,
        common::Mode::Approve => Mode::Approve,
        common::Mode::Advise => Mode::Advise,
    }
}

/// Whether people have paused the object by annotation.
fn paused(object: &impl ResourceExt) -> bool {
    object
        .annotations()
        .get(labels::PAUSED)
        .is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests;
