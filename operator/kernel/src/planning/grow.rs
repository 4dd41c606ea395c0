//! How many replicas a pool wants, and where the missing ones go.
//!
//! The model says how many; where it cannot, the reactive rule adds by measured percentile over objective; where nothing is
//! measured, the last decided count is kept up.

use std::collections::BTreeMap;

use super::crew::{Crew, Standing, count};
use super::demand::{Need, strain};
use super::figures;
use super::model::{Counts, Lack, Model, total, with};
use super::policy::{REACT_AFTER, REACT_COOLDOWN, SHRINK_UTILIZATION, TARGET_UTILIZATION};
use super::slots::Slot;
use crate::names::GroupName;
use crate::reason::{Problem, Reason};
use crate::time::Timestamp;

/// What a pool adds.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Each with its reason.
    pub(crate) slots: Vec<(Slot, Reason, String)>,
    /// What is missing even with all of them.
    pub(crate) short: Option<Problem>,
}

/// Since when an objective is missed by measurement.
pub(crate) fn missing_since(crew: &Crew, now: Timestamp) -> Option<Timestamp> {
    (strain(crew.pool, now)? > 1.0).then(|| crew.pool.memory.missing_objective_since.unwrap_or(now))
}

/// How many replicas the pool wants at least, whatever the model says, and why.
fn floor(
    crew: &Crew,
    model: &Model,
    need: &Need,
    keepers: &Counts,
    missing: Option<Timestamp>,
    now: Timestamp,
) -> (u32, Reason, String) {
    let count = total(keepers);
    let decided = crew.pool.memory.target.unwrap_or(count).min(crew.pool.replicas.max);
    if let Need::Unknown(problem) = need {
        let message = format!(
            "demand is unknown ({}): the last decided count is kept up",
            problem.message
        );
        return (decided, Reason::Replacing, message);
    }
    let Some(since) = missing else {
        // What was decided stays decided, until less would do: a server that is coming is still wanted when demand wobbles,
        // and the place of a replica that is replaced is filled again.
        let less_would_do = need
            .rate()
            .is_some_and(|rate| !model.unfathomed(keepers) && model.lack(keepers, rate, SHRINK_UTILIZATION).is_none());
        let message = format!("{decided} replicas were decided and are still wanted");
        return (if less_would_do { 0 } else { decided }, Reason::DemandGrew, message);
    };
    let strain = strain(crew.pool, now).unwrap_or(1.0);
    let message = format!(
        "an objective is missed since {since}, the worst is at {} of its threshold",
        figures::two(strain)
    );
    let settled = crew.keepers().all(|member| member.serving) && decided <= count;
    let waited = crew
        .pool
        .memory
        .last_added
        .is_none_or(|at| now.since(at) >= REACT_COOLDOWN);
    let more = if settled && waited && now.since(since) >= REACT_AFTER {
        proportional(count, strain)
    } else {
        0
    };
    // What the rule asked for before is still wanted while the objective is missed.
    (
        decided.max(count.saturating_add(more)),
        Reason::ObjectiveMissed,
        message,
    )
}

/// One more, or as many as the measured percentile is over, but at most half as many again.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and the result is clamped"
)]
fn proportional(keepers: u32, strain: f64) -> u32 {
    let over = (f64::from(keepers) * (strain.min(2.0) - 1.0)).ceil().max(1.0) as u32;
    over.clamp(1, (keepers / 2).max(1))
}

/// What a pool adds now, out of `offers` in their order.
pub(crate) fn grow(
    crew: &Crew,
    model: &Model,
    need: &Need,
    mut offers: Vec<Slot>,
    unavailable: &mut BTreeMap<GroupName, Problem>,
    now: Timestamp,
) -> Growth {
    let pool = crew.pool;
    let mut growth = Growth::default();
    let mut have = count(crew.keepers());
    let missing = missing_since(crew, now);
    let floor = floor(crew, model, need, &have, missing, now);
    let before = have.clone();
    loop {
        let wanting = wanting(crew, model, need, &have, &before, &floor);
        let Some((reason, message, lack)) = wanting else {
            break;
        };
        if total(&have) >= pool.replicas.max {
            growth.short = Some(Problem::new(
                Reason::CapacityExhausted,
                format!("{message}; replicas.max is {}", pool.replicas.max),
            ));
            break;
        }
        if let Some(lack) = &lack {
            drop_useless(model, &have, lack, &mut offers, unavailable);
        }
        let elsewhere = |slot: &Slot| match &lack {
            Some(Lack::Site(site)) => model.site_of(&slot.group) != Some(site),
            _ => true,
        };
        let Some(index) = offers.iter().position(elsewhere) else {
            growth.short = Some(shortage(&message, model, unavailable));
            break;
        };
        let slot = offers.remove(index);
        have = with(&have, &slot.group);
        growth.slots.push((slot, reason, message));
    }
    growth
}

/// What `have` is missing, with the reason and the sentence.
fn wanting(
    crew: &Crew,
    model: &Model,
    need: &Need,
    have: &Counts,
    before: &Counts,
    (floor, floor_reason, floor_message): &(u32, Reason, String),
) -> Option<(Reason, String, Option<Lack>)> {
    let pool = crew.pool;
    let have_now = total(have);
    let gone = crew
        .members
        .iter()
        .filter(|member| matches!(member.standing, Standing::Leaving(_) | Standing::Lost));
    let mut with_gone = have.clone();
    for (group, more) in count(gone) {
        *with_gone.entry(group).or_default() += more;
    }
    let replacing = with_gone != *have;
    if have_now < pool.replicas.min {
        let message = format!("{} of at least {}", figures::replicas(before), pool.replicas.min);
        let reason = if replacing && total(&with_gone) >= pool.replicas.min {
            Reason::Replacing
        } else {
            Reason::BelowMinimum
        };
        return Some((reason, message, None));
    }
    if let Some(rate) = need.rate()
        && let Some(lack) = model.lack(have, rate, TARGET_UTILIZATION)
    {
        let load = format!(
            "{} requests/s arrive, {} are sustainable on {}",
            figures::two(rate.as_per_second()),
            figures::two(model.sustainable(before).as_per_second()),
            figures::replicas(before),
        );
        let replacing = replacing && model.lack(&with_gone, rate, TARGET_UTILIZATION).is_none();
        let (reason, message) = match &lack {
            _ if replacing => (Reason::Replacing, format!("{load}, others are leaving or lost")),
            Lack::Capacity => (Reason::DemandGrew, load),
            Lack::Server => (Reason::SpareForLoss, format!("{load}, not with one server gone")),
            Lack::Site(site) => (Reason::SpareForLoss, format!("{load}, not with site {site} gone")),
        };
        return Some((reason, message, Some(lack)));
    }
    let floor_reason = match floor_reason {
        Reason::DemandGrew if replacing => Reason::Replacing,
        other => *other,
    };
    (have_now < *floor).then(|| (floor_reason, floor_message.clone(), None))
}

/// Takes groups out of `offers` that would not help however many servers of them came: a figure in the catalogue may be
/// wrong, and buying without end does not make it right.
fn drop_useless(
    model: &Model,
    have: &Counts,
    lack: &Lack,
    offers: &mut Vec<Slot>,
    unavailable: &mut BTreeMap<GroupName, Problem>,
) {
    if !matches!(lack, Lack::Capacity | Lack::Server) {
        return;
    }
    let now = model.sustainable(have).as_per_second();
    let mut offered: Counts = Counts::new();
    for slot in offers.iter() {
        *offered.entry(slot.group.clone()).or_default() += 1;
    }
    for (group, more) in offered {
        let mut all = have.clone();
        *all.entry(group.clone()).or_default() += more;
        if model.sustainable(&all).as_per_second() <= now {
            let message = format!("by the model, servers of {group} add nothing to what is sustainable");
            unavailable.insert(group.clone(), Problem::new(Reason::ObjectiveUnreachable, message));
            offers.retain(|slot| slot.group != group);
        }
    }
}

fn shortage(message: &str, model: &Model, unavailable: &BTreeMap<GroupName, Problem>) -> Problem {
    // The group that comes first in the order says it best, unless it is merely full.
    let full = |problem: &Problem| problem.reason == Reason::CapacityExhausted;
    let first = unavailable
        .iter()
        .min_by_key(|(group, problem)| (full(problem), model.place(group), *group));
    match first {
        Some((_, problem)) if !full(problem) => Problem::new(problem.reason, format!("{message}; {}", problem.message)),
        _ => Problem::new(
            Reason::CapacityExhausted,
            format!("{message}; no permitted group has another server"),
        ),
    }
}
