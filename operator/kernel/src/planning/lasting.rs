//! Whether misses of minutes are worth a lease of a day.
//!
//! An error budget is there to be spent. Where a lease cannot be given back for hours, what is missed right now is no reason for it as long as
//! what is left of the window's budget would outlast the window even if as much were burnt until its end: the burn-rate alerts of site
//! reliability engineering ask the same before they wake somebody (Beyer et al., *The Site Reliability Workbook*, 2018, ch. 5).

use super::demand::burnt;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Measured, Pool};
use crate::strategy::horizon::start_of;
use crate::strategy::past::window;
use crate::time::Timestamp;
use crate::units::Rate;

/// That what is left of the error budget outlasts its window at the rate at which it is burnt now; `None` if it does not, or nobody knows.
pub(crate) fn outlasts(pool: &Pool, rate: Option<Rate>, now: Timestamp) -> Option<Problem> {
    let left = pool.past.ledger.carried(now, &pool.objectives);
    let length = window(&pool.objectives);
    let end = start_of(now, length) + length;
    let burnt = most_burnt(pool, now)?;
    let to_come = rate?.as_per_second() * end.since(now).as_secs_f64();
    (left > 0.0 && left + to_come * (1.0 - burnt) >= 0.0).then(|| {
        Problem::new(
            Reason::ErrorBudgetLasts,
            format!("what is left of the error budget lasts until {end} at this rate"),
        )
    })
}

/// What a request burns of the error budget now, by measurement: the objective that burns most counts. `None` if none is measured, or one cannot be
/// for now.
fn most_burnt(pool: &Pool, now: Timestamp) -> Option<f64> {
    let all = pool.objectives.iter().zip(&pool.measured);
    all.filter(|(_, measured)| **measured != Measured::ModelOnly)
        .map(|(objective, measured)| burnt(objective, measured, now))
        .reduce(|most, burnt| Some(most?.max(burnt?)))
        .flatten()
}
