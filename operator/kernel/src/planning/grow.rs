//! What a pool is missing, and where it goes.
//!
//! The model says how many; where it cannot, the reactive rule adds by measured percentile over objective; where nothing is
//! measured, the last decided count is kept up. What is there is taken first, and at once; servers that have to be paid for are
//! asked for when they have been missing for a while, or when nobody can doubt it.

use std::collections::BTreeMap;

use super::crew::{Crew, Standing, count};
use super::demand::{Need, strain};
use super::evidence::{self, doubts, mislead, suffices};
use super::figures;
use super::lasting::outlasts;
use super::model::{Counts, Lack, Model, total, with};
use super::policy::{PURCHASE_DWELL, TARGET_UTILIZATION};
use super::react::{Floor, floor};
use super::slots::Slot;
use crate::names::GroupName;
use crate::plan::Verdict;
use crate::reason::{Problem, Reason};
use crate::strategy::dwell::is_long;
use crate::time::Timestamp;
use crate::units::Rate;

/// What a pool adds.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Each with its reason. Those that may only be proposed come last and change nothing.
    pub(crate) slots: Vec<(Slot, Reason, String)>,
    /// What is missing even with all of them that may be taken.
    pub(crate) short: Option<Problem>,
    /// Since when servers that would have to be paid for are missing.
    pub(crate) short_since: Option<Timestamp>,
}

impl Growth {
    /// What is really added.
    pub(crate) fn taken(&self) -> impl Iterator<Item = &(Slot, Reason, String)> {
        self.slots.iter().filter(|(slot, _, _)| slot.verdict == Verdict::Act)
    }
}

/// Who says that something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The spec: `replicas.min`.
    Minimum,
    /// The capacity model.
    Model,
    /// An earlier decision.
    Decided,
    /// A measured objective.
    Reaction,
}

/// What is missing.
struct Want {
    cause: Cause,
    reason: Reason,
    message: String,
    lack: Option<Lack>,
}

/// One pool's growth.
struct Grow<'g, 'a> {
    crew: &'g Crew<'a>,
    model: &'g Model<'g, 'a>,
    need: &'g Need<'g>,
    floor: Floor,
    /// Replicas that stay.
    before: &'g Counts,
    now: Timestamp,
}

/// What a pool adds now if that is nothing, whatever is offered; `None` if it wants something.
pub(crate) fn content<'g, 'a>(
    crew: &'g Crew<'a>,
    model: &'g Model<'g, 'a>,
    need: &'g Need<'g>,
    now: Timestamp,
) -> Option<Growth> {
    let grow = Grow::of(crew, model, need, now);
    let wants = grow.wanting(grow.before).is_some();
    (!wants).then(|| Growth {
        short: grow.floor.exhausted,
        ..Growth::default()
    })
}

/// What a pool adds now, out of `offers` in their order.
pub(crate) fn grow<'g, 'a>(
    crew: &'g Crew<'a>,
    model: &'g Model<'g, 'a>,
    need: &'g Need<'g>,
    mut offers: Vec<Slot>,
    unavailable: &mut BTreeMap<GroupName, Problem>,
    now: Timestamp,
) -> Growth {
    let grow = Grow::of(crew, model, need, now);
    let mut growth = Growth::default();
    let mut have = grow.before.clone();
    while let Some(want) = grow.wanting(&have) {
        if total(&have) >= crew.pool.replicas.max {
            growth.short = Some(grow.at_maximum(&want));
            break;
        }
        grow.drop_useless(&want, &have, &mut offers, unavailable);
        let elsewhere = |slot: &Slot| match &want.lack {
            Some(Lack::Site(site)) => model.site_of(&slot.group) != Some(site),
            _ => true,
        };
        let Some(next) = offers.iter().position(elsewhere) else {
            growth.short = Some(shortage(&want.message, model, unavailable));
            break;
        };
        if let Some(lasts) = grow.no_matter(&want, &have, offers.get(next)) {
            growth.short_since = grow.short_since(&want, &have);
            for slot in offers.extract_if(.., |slot| slot.is_purchase() && grow.binds(slot)) {
                unavailable.entry(slot.group).or_insert_with(|| lasts.clone());
            }
            continue;
        }
        let mut chosen = next;
        if offers.get(next).is_some_and(Slot::is_purchase) {
            growth.short_since = grow.short_since(&want, &have);
            if let Some(problem) = grow.not_yet(&want, &have, growth.short_since) {
                // What is there already needs no second thought.
                let there = |slot: &Slot| elsewhere(slot) && !slot.is_purchase();
                let Some(other) = offers.iter().position(there) else {
                    growth.short = Some(problem);
                    break;
                };
                chosen = other;
            }
        }
        let slot = offers.remove(chosen);
        have = with(&have, &slot.group);
        growth.slots.push((slot, want.reason, want.message));
    }
    let proposed = growth.slots.len() - growth.taken().count();
    if proposed > 0 {
        let message = growth.slots.last().map_or("", |(_, _, message)| message);
        growth.short = Some(Problem::new(
            Reason::AwaitingApproval,
            format!("{message}; {proposed} servers are proposed and not asked for"),
        ));
    } else if growth.short.is_none() {
        growth.short = grow.floor.exhausted;
    }
    growth
}

impl<'g, 'a> Grow<'g, 'a> {
    fn of(crew: &'g Crew<'a>, model: &'g Model<'g, 'a>, need: &'g Need<'g>, now: Timestamp) -> Self {
        let before = crew.kept();
        Self {
            crew,
            model,
            need,
            floor: floor(crew, model, need, before, now),
            before,
            now,
        }
    }

    /// What `have` is missing.
    fn wanting(&self, have: &Counts) -> Option<Want> {
        let pool = self.crew.pool;
        let gone = self
            .crew
            .members
            .iter()
            .filter(|member| matches!(member.standing, Standing::Leaving(_) | Standing::Lost));
        let mut with_gone = have.clone();
        for (group, more) in count(gone) {
            *with_gone.entry(group).or_default() += more;
        }
        let replacing = with_gone != *have;
        if total(have) == 0 && pool.replicas.min == 0 && self.unmeasured() {
            return Some(Want {
                cause: Cause::Minimum,
                reason: Reason::DemandGrew,
                message: "requests arrive, and how long they are is measured as soon as one replica serves".to_owned(),
                lack: None,
            });
        }
        if total(have) < pool.replicas.min {
            let replacing = replacing && total(&with_gone) >= pool.replicas.min;
            return Some(Want {
                cause: Cause::Minimum,
                reason: if replacing {
                    Reason::Replacing
                } else {
                    Reason::BelowMinimum
                },
                message: format!("{} of at least {}", figures::replicas(self.before), pool.replicas.min),
                lack: None,
            });
        }
        if let Some(rate) = self.need.certain().filter(|_| !self.model.is_silent())
            && let Some(lack) = self.model.lack(have, rate, TARGET_UTILIZATION)
        {
            let replacing = replacing && self.model.lack(&with_gone, rate, TARGET_UTILIZATION).is_none();
            return Some(self.lacking(rate, lack, replacing));
        }
        let reason = match self.floor.reason {
            Reason::DemandGrew if replacing => Reason::Replacing,
            other => other,
        };
        (total(have) < self.floor.replicas).then(|| Want {
            cause: self.floor.cause,
            reason,
            message: self.floor.message.clone(),
            lack: None,
        })
    }

    /// Requests arrive whose lengths nobody has measured: the model may be wrong about them, but not if there are none.
    fn unmeasured(&self) -> bool {
        matches!(self.need, Need::Known { rate, lengths: None, .. } if *rate > Rate::ZERO)
    }

    fn lacking(&self, rate: Rate, lack: Lack, replacing: bool) -> Want {
        let load = format!(
            "{} requests/s arrive, {} are sustainable on {}",
            figures::two(rate.as_per_second()),
            figures::two(self.model.sustainable(self.before).as_per_second()),
            figures::replicas(self.before),
        );
        let (reason, message) = match &lack {
            _ if replacing => (Reason::Replacing, format!("{load}, others are leaving or lost")),
            Lack::Capacity => (Reason::DemandGrew, load),
            Lack::Server => (Reason::SpareForLoss, format!("{load}, not with one server gone")),
            Lack::Site(site) => (Reason::SpareForLoss, format!("{load}, not with site {site} gone")),
        };
        Want {
            cause: Cause::Model,
            reason,
            message,
            lack: Some(lack),
        }
    }

    /// The spec allows no more.
    fn at_maximum(&self, want: &Want) -> Problem {
        let most = self.crew.pool.replicas.max;
        match want.lack {
            // Enough for the demand, and no room for the spare: a wish that the spec itself forbids.
            Some(Lack::Server | Lack::Site(_)) => Problem::new(
                Reason::SpareForLoss,
                format!(
                    "{}; replicas.max is {most} and leaves no room for the spare that surviveLossOf asks for",
                    want.message
                ),
            ),
            _ => Problem::new(
                Reason::CapacityExhausted,
                format!("{}; replicas.max is {most}", want.message),
            ),
        }
    }

    /// Takes groups out of `offers` whose servers would not help, or would harm.
    fn drop_useless(
        &self,
        want: &Want,
        have: &Counts,
        offers: &mut Vec<Slot>,
        unavailable: &mut BTreeMap<GroupName, Problem>,
    ) {
        if want.cause == Cause::Minimum {
            return;
        }
        let mut offered = Counts::new();
        for slot in offers.iter() {
            *offered.entry(slot.group.clone()).or_default() += 1;
        }
        for group in offered.keys() {
            let useless = match &want.lack {
                Some(Lack::Site(site)) if self.model.site_of(group) == Some(site) => false,
                Some(lack) => !self.model.helps(have, group, &offered, lack),
                None => self.model.harms(have, group),
            };
            if useless {
                let message = format!("by the model, another server of {group} adds nothing to what is sustainable");
                unavailable.insert(group.clone(), Problem::new(Reason::ObjectiveUnreachable, message));
                offers.retain(|slot| slot.group != *group);
            }
        }
    }

    /// Since when servers that have to be paid for are missing, if they are by all that is measured.
    fn short_since(&self, want: &Want, have: &Counts) -> Option<Timestamp> {
        let lasts = match (want.cause, self.need) {
            (Cause::Model, Need::Known { lasting, .. }) => {
                self.model.lack(have, *lasting, TARGET_UTILIZATION).is_some()
            }
            _ => true,
        };
        lasts.then(|| self.crew.pool.memory.short_since.unwrap_or(self.now))
    }

    /// Whether a server of this group, once asked for, is paid for many hours.
    fn binds(&self, slot: &Slot) -> bool {
        let choice = self.model.options.choice(&slot.group);
        choice.is_some_and(|choice| is_long(choice.group.pricing.minimum_lease))
    }

    /// Why what is missing is no reason to lease a server for many hours.
    fn no_matter(&self, want: &Want, have: &Counts, slot: Option<&Slot>) -> Option<Problem> {
        let slot = slot.filter(|slot| slot.is_purchase() && self.binds(slot))?;
        let measured = matches!(want.cause, Cause::Reaction | Cause::Model) && total(have) > 0;
        let pool = self.crew.pool;
        measured
            .then(|| outlasts(pool, self.need.rate(), self.now))?
            .map(|lasts| {
                let message = format!(
                    "{}; {}: no server of {} is leased for it",
                    want.message, lasts.message, slot.group
                );
                Problem::new(Reason::ErrorBudgetLasts, message)
            })
    }

    /// Why servers that only doubted figures ask for are not paid for.
    fn needless(&self, want: &Want, have: &Counts) -> Option<Problem> {
        let (crew, options, now) = (self.crew, self.model.options, self.now);
        let doubts = doubts(crew, options).filter(|_| mislead(crew, options))?;
        let most = evidence::most(crew, self.need.rate(), now).filter(|most| total(have) >= *most);
        let message = match most {
            _ if suffices(crew, options, now) => format!("{}: what serves is enough", doubts.message),
            Some(most) => format!(
                "{}; {}: {most} are twice what engines ask for",
                want.message, doubts.message
            ),
            None => return None,
        };
        Some(Problem::new(doubts.reason, message))
    }

    /// Why nothing is paid for yet. One measurement may be wrong, and a lease is paid for a day.
    fn not_yet(&self, want: &Want, have: &Counts, since: Option<Timestamp>) -> Option<Problem> {
        let by_figures = matches!(want.cause, Cause::Model | Cause::Decided) && total(have) > 0;
        if let Some(problem) = self.needless(want, have).filter(|_| by_figures) {
            return Some(problem);
        }
        let missed = strain(self.crew.pool, self.now).is_some_and(|strain| strain > 1.0);
        let beyond_doubt = match want.cause {
            Cause::Minimum | Cause::Reaction => true,
            // Nobody serves at all, or two measurements agree.
            Cause::Model => total(have) == 0 || (missed && since.is_some()),
            Cause::Decided => total(have) == 0,
        };
        if beyond_doubt || since.is_some_and(|since| self.now.since(since) >= PURCHASE_DWELL) {
            return None;
        }
        let until = since.unwrap_or(self.now) + PURCHASE_DWELL;
        let message = format!("{}; servers are asked for if that is still so at {until}", want.message);
        Some(Problem::new(Reason::DemandUnconfirmed, message))
    }
}

pub(crate) fn shortage(message: &str, model: &Model, unavailable: &BTreeMap<GroupName, Problem>) -> Problem {
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
