//! The reactive rule: what the measured percentile says where the model is silent or wrong.
//!
//! It adds while an objective is missed, and keeps what was decided. It is bounded: what does not help when there is twice as
//! much of it does not help. Where every engine is full it does, by their own word: then it goes on to twice what they are seen to finish,
//! because a figure that is ten times too good must not leave requests waiting.

use super::crew::Crew;
use super::demand::{Need, strain};
use super::evidence::{self, overwhelmed, promise_too_much};
use super::figures;
use super::grow::Cause;
use super::model::{Counts, Model, total, without};
use super::policy::{REACT_AFTER, REACT_COOLDOWN, REACT_MOST, SHRINK_UTILIZATION};
use crate::reason::{Problem, Reason};
use crate::time::Timestamp;
use crate::units::Rate;

/// A time in which an objective is missed by measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Episode {
    /// It began then.
    pub(crate) since: Timestamp,
    /// There were so many replicas.
    pub(crate) from: u32,
}

/// The episode under way, if there is any. A gap in the measurements does not end it: only a measured objective that holds does.
pub(crate) fn episode(crew: &Crew, keepers: u32, now: Timestamp) -> Option<Episode> {
    let memory = &crew.pool.memory;
    // What was decided and has been lost since is not what did not help.
    let from = keepers.max(memory.target.unwrap_or(0)).max(1);
    let remembered = memory.missing_objective_since.map(|since| Episode {
        since,
        from: memory.missing_objective_from.unwrap_or(from),
    });
    match strain(crew.pool, now) {
        Some(strain) if strain > 1.0 => remembered.or(Some(Episode { since: now, from })),
        Some(_) => None,
        None => remembered,
    }
}

/// How many replicas a pool wants at least, whatever the model says, and why.
#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) replicas: u32,
    pub(crate) cause: Cause,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// Why the rule does not add any more, if it would.
    pub(crate) exhausted: Option<Problem>,
}

/// How many replicas the pool wants at least, whatever the model says.
pub(crate) fn floor(crew: &Crew, model: &Model, need: &Need, keepers: &Counts, now: Timestamp) -> Floor {
    let count = total(keepers);
    let decided = crew.pool.memory.target.unwrap_or(count).min(crew.pool.replicas.max);
    match (strain(crew.pool, now), episode(crew, count, now)) {
        (Some(strain), Some(episode)) => react(crew, model, need, keepers, decided, strain, episode, now),
        _ => keep(model, need, keepers, decided),
    }
}

/// What was decided stays decided, until less would do: a server that is coming is still wanted when demand wobbles, and the
/// place of a replica that is replaced is filled again.
fn keep(model: &Model, need: &Need, keepers: &Counts, decided: u32) -> Floor {
    let (replicas, reason, message) = match need {
        Need::Unknown { problem, .. } => {
            let why = &problem.message;
            let message = format!("demand is unknown ({why}): the last decided count is kept up");
            (decided, Reason::Replacing, message)
        }
        Need::Known { rate, .. } => {
            let less_would_do = !model.unfathomed(keepers) && model.lack(keepers, *rate, SHRINK_UTILIZATION).is_none();
            let message = format!("{decided} replicas were decided and are still wanted");
            (if less_would_do { 0 } else { decided }, Reason::DemandGrew, message)
        }
    };
    Floor {
        replicas,
        cause: Cause::Decided,
        reason,
        message,
        exhausted: None,
    }
}

#[expect(clippy::too_many_arguments, reason = "one decision from everything that is known")]
fn react(
    crew: &Crew,
    model: &Model,
    need: &Need,
    keepers: &Counts,
    decided: u32,
    strain: f64,
    episode: Episode,
    now: Timestamp,
) -> Floor {
    let (count, memory) = (total(keepers), &crew.pool.memory);
    let mut floor = Floor {
        // What the rule asked for before is still wanted while the objective is missed.
        replicas: decided.max(count),
        cause: Cause::Reaction,
        reason: Reason::ObjectiveMissed,
        message: format!(
            "an objective is missed since {}, the worst is at {} of its threshold",
            episode.since,
            figures::two(strain)
        ),
        exhausted: None,
    };
    let settled = crew.keepers().all(|member| member.serving) && decided <= count;
    let waited = memory.last_added.is_none_or(|at| now.since(at) >= REACT_COOLDOWN);
    if !settled || !waited || now.since(episode.since) < REACT_AFTER {
        return floor;
    }
    let most = episode
        .from
        .saturating_mul(REACT_MOST)
        .max(episode.from.saturating_add(1));
    let full = overwhelmed(crew, model.options, now);
    let most = match evidence::most(crew, need.rate(), now) {
        Some(measured) if full => measured,
        None if full => u32::MAX,
        _ => most,
    };
    let message = &floor.message;
    let believed = !promise_too_much(crew, model.options);
    let exhausted = if count >= most {
        Some(format!(
            "{message}, and {count} replicas in place of {} did not help",
            episode.from
        ))
    } else if !full && believed && carry_enough(model, need, keepers) {
        Some(format!(
            "{message}, and by the model {} carry twice what arrives",
            figures::replicas(keepers)
        ))
    } else {
        None
    };
    floor.exhausted = exhausted.map(|message| {
        let message = format!("{message}: the figures of a machine may be wrong, or something else is slow");
        Problem::new(Reason::ObjectiveMissed, message)
    });
    if floor.exhausted.is_none() {
        floor.replicas = floor
            .replicas
            .max(count.saturating_add(more(count, strain, full)).min(most));
    }
    floor
}

/// Whether the model, were it as wrong as it may be, would see enough capacity with any one of the servers gone: the slow
/// one may be it.
fn carry_enough(model: &Model, need: &Need, keepers: &Counts) -> bool {
    let Some(rate) = need.rate().filter(|rate| *rate > Rate::ZERO) else {
        return false;
    };
    let doubled = Rate::per_second(rate.as_per_second() * f64::from(REACT_MOST));
    // Nobody knows what replicas without figures carry.
    !model.unfathomed(keepers)
        && keepers
            .keys()
            .all(|group| model.carries(&without(keepers, group), doubled, 1.0))
        && !keepers.is_empty()
}

/// One more, or as many as the measured percentile is over; at most half as many again, or as many again if all engines are full.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and the result is clamped"
)]
fn more(keepers: u32, strain: f64, full: bool) -> u32 {
    let over = (f64::from(keepers) * (strain.min(2.0) - 1.0)).ceil().max(1.0) as u32;
    let most = if full { keepers } else { keepers / 2 };
    over.clamp(1, most.max(1))
}
