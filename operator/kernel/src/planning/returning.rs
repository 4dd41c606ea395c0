//! Own servers that can do the work of one whose paid term is over.

use super::crew::Member;
use super::figures;
use super::hold::not_yet;
use super::model::{Counts, total, with, without};
use super::options::Choice;
use super::policy::{RETURN_LEAD, SHRINK_UTILIZATION};
use super::shrink::{Case, Shrinkage, Surplus};
use super::slots::{Slot, Source};
use crate::plan::Verdict;
use crate::reason::Reason;
use crate::snapshot::Ownership;
use crate::units::{Money, Rate};

/// Moves the work of the dearest server to own ones, if they cost less all together.
pub(crate) fn returning(case: &Case, keepers: &Counts, rate: Rate) -> Shrinkage {
    let (crew, now) = (case.crew, case.world.now);
    // From then on nothing of it is paid any more.
    let at = now + RETURN_LEAD;
    let soon = |member: &&Member| {
        let lease = member.server.and_then(|server| server.lease);
        lease.is_none_or(|lease| lease.minimum_until <= at)
    };
    let is_foreign = |member: &Member| case.ownership(member.group) != Ownership::Owned;
    if !crew.keepers().any(is_foreign) {
        return Shrinkage::NEEDED;
    }
    let cost = |choice: &Choice, member: &Member| choice.marginal(member.server, at);
    let dearest = case
        .candidates()
        .into_iter()
        .filter(soon)
        .filter_map(|member| Some((member, case.options.choice(member.group)?)))
        .filter(|(_, choice)| choice.ownership != Ownership::Owned)
        .max_by_key(|(member, choice)| cost(choice, member));
    let Some((member, dear)) = dearest else {
        return Shrinkage::NEEDED;
    };
    let group = member.group;
    let mut after = without(keepers, group);
    let (mut taken, mut sum): (Vec<Slot>, Money) = (Vec::new(), Money::ZERO);
    for slot in (case.offers)() {
        let Some(choice) = case.options.choice(&slot.group) else {
            continue;
        };
        let server = match &slot.source {
            Source::Free(server) | Source::Reclaim(server) => choice.group.inventory.servers().get(server),
            Source::Purchase => None,
            Source::Recall(..) | Source::Vacating(_) | Source::Coming => continue,
        };
        if choice.ownership >= dear.ownership || slot.verdict == Verdict::Propose {
            continue;
        }
        sum = sum + choice.marginal(server, at);
        let count = total(keepers) + u32::try_from(taken.len()).unwrap_or(u32::MAX);
        if sum >= cost(dear, member) || count >= crew.pool.replicas.max {
            return Shrinkage::NEEDED;
        }
        after = with(&after, &slot.group);
        taken.push(slot);
        if case.model.lack(&after, rate, SHRINK_UTILIZATION).is_none() {
            if crew.keepers().any(|member| !member.serving) {
                return Shrinkage::hold(true, Reason::ReplicasLoading, "others have to be ready first", None);
            }
            if let Some(hold) = not_yet(case, group) {
                return hold;
            }
            let message = format!("{} can do the work of a server of {group}", figures::replicas(&after));
            return Shrinkage {
                surplus: true,
                verdict: Surplus::Move(taken, message),
            };
        }
    }
    Shrinkage::NEEDED
}
