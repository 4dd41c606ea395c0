//! What a pool gives up by the strategic plan: servers whose time is over, and those that another pool is planned to have.
//!
//! The plan decides which and when; what is measured has the last word. Nothing goes on a metric gap, nothing that the rest, or the rest
//! after the loss that the pool wants to survive, needs for what arrives right now, and nothing faster than the group's disruption budget
//! allows. A server that the plan wants stays, however little arrives.

use super::crew::{Crew, Member, Standing, count};
use super::demand::Need;
use super::figures;
use super::guide::Guide;
use super::hold::disruption;
use super::model::{Counts, total, without};
use super::policy::{HOLD_DOWN, OVERLOADED};
use super::shrink::{Case, Shrinkage, Surplus, above_maximum};
use crate::names::GroupName;
use crate::reason::Reason;
use crate::snapshot::{Ownership, Survive};
use crate::units::Rate;

/// What becomes of servers that the pool is planned to leave. `promised` are servers of each group that are planned for others.
pub(crate) fn part(case: &Case, guide: &Guide, promised: &Counts) -> Shrinkage {
    let crew = case.crew;
    let keepers = crew.kept();
    let Need::Known { rate, .. } = case.need else {
        return Shrinkage::hold(
            false,
            Reason::MetricsUnavailable,
            "nothing is removed while demand is unknown",
            None,
        );
    };
    if crew.out_of_sight() {
        let message = "nothing is removed while a site with replicas of the pool does not answer";
        return Shrinkage::hold(false, Reason::SiteUnreachable, message, None);
    }
    if total(keepers) > crew.pool.replicas.max {
        return above_maximum(case, total(keepers));
    }
    if total(keepers) <= crew.pool.replicas.min {
        return Shrinkage::NEEDED;
    }
    let candidates = case.candidates();
    let due = |member: &&&Member| guide.is_due(member.group, &member.replica.server);
    if let Some(victim) = candidates.iter().find(due) {
        let group = victim.group;
        let rest = rest(crew, victim);
        let owned_left = rest.keys().any(|group| case.ownership(group) == Ownership::Owned);
        let reason = if case.ownership(group) != Ownership::Owned && owned_left {
            Reason::ReturnToOwned
        } else {
            Reason::DemandFell
        };
        let until = guide
            .group(group)
            .and_then(|ahead| ahead.until.get(&victim.replica.server));
        let until = until.map_or(String::new(), |until| format!(" beyond {until}"));
        let message = format!("server {} is not planned for{until}", victim.replica.server);
        return leave(case, guide, victim, &rest, *rate, reason, message);
    }
    let more_than_planned = |member: &&&Member| {
        let group = member.group;
        promised.contains_key(group) && keepers.get(group).is_some_and(|has| *has > guide.replicas(group))
    };
    match candidates.iter().find(more_than_planned) {
        Some(victim) => {
            let since = crew.pool.memory.surplus_since.unwrap_or(guide.now);
            let group = victim.group;
            let message = format!("a server of {group} is planned for another pool");
            // Two plans in a row say so.
            if guide.now < since + HOLD_DOWN {
                return Shrinkage::hold(true, Reason::HoldDown, message, Some(since + HOLD_DOWN));
            }
            let rest = rest(crew, victim);
            leave(case, guide, victim, &rest, *rate, Reason::DemandFell, message)
        }
        None => Shrinkage::NEEDED,
    }
}

fn rest(crew: &Crew, victim: &Member) -> Counts {
    let serving = count(crew.keepers().filter(|member| member.serving));
    if victim.serving {
        without(&serving, victim.group)
    } else {
        serving
    }
}

/// Takes `victim` out, unless what is measured speaks against it.
fn leave(
    case: &Case,
    guide: &Guide,
    victim: &Member,
    rest: &Counts,
    rate: Rate,
    reason: Reason,
    message: String,
) -> Shrinkage {
    let arrives = rate.as_per_second();
    if victim.serving {
        if guide.capacity(rest) * OVERLOADED < arrives {
            let message = format!(
                "{message}, but {} requests/s arrive, and the other {} would be overloaded",
                figures::two(arrives),
                figures::replicas(rest)
            );
            return Shrinkage::hold(true, Reason::DemandGrew, message, None);
        }
        if let Some(loss) = loss(case, rest, rate) {
            let message = format!("{message}, but without it the rest would not carry the demand if {loss} were gone");
            return Shrinkage::hold(true, Reason::NeededForLoss, message, None);
        }
    }
    let group = victim.group;
    let allowed = case.world.group(group).map(|(found, _)| &found.disruption);
    if let Some(problem) = allowed.and_then(|allowed| disruption(group, allowed, case.draining)) {
        return Shrinkage::hold(true, problem.reason, problem.message, None);
    }
    debug_assert!(victim.standing == Standing::Keeper);
    Shrinkage {
        surplus: true,
        verdict: Surplus::Remove(victim.name.clone(), reason, message, Vec::new()),
    }
}

/// What must not be lost besides, if the pool wants to survive it.
fn loss(case: &Case, rest: &Counts, rate: Rate) -> Option<String> {
    let model = case.model;
    let carries = |counts: &Counts| model.carries(counts, rate, 1.0);
    match case.crew.pool.placement.survive_loss_of {
        Survive::None => None,
        Survive::Server => rest
            .keys()
            .any(|group: &GroupName| !carries(&without(rest, group)))
            .then(|| "one more server".to_owned()),
        Survive::Site => model
            .sites(rest)
            .into_iter()
            .find(|site| !carries(&model.without_site(rest, site)))
            .map(|site| format!("site {site}")),
    }
}
