//! Why servers are leased from one group and not from another, and what the same would have cost there.
//!
//! An estimate, and an honest one: of the other group as many servers as carry what one of the chosen does, for the same time, their minimum
//! leases paid in full, and nothing else of the plan changed.

use std::collections::BTreeMap;

use super::Chosen;
use super::scene::{Planned, Scene, Source};
use crate::names::GroupName;
use crate::plan::{Decision, Rejected};
use crate::planning::Choice;
use crate::reason::{Problem, Reason};
use crate::strategy::envelope::{Envelope, Fresh, Supply, SupplyPlan};
use crate::time::Timestamp;
use crate::units::Money;

/// Groups that a pool's servers are planned to be leased from, each with the first of its leases and what was rejected for it.
pub(super) fn chosen(scene: &Scene, pool: usize, envelope: &Envelope) -> BTreeMap<GroupName, Chosen> {
    let mut found = BTreeMap::new();
    let (Some(planned), Some(plan)) = (scene.pools.get(pool), envelope.pools.get(pool)) else {
        return found;
    };
    let offers: Vec<Offer> = scene
        .sources
        .iter()
        .zip(&envelope.supplies)
        .zip(&plan.capacity)
        .filter_map(|((source, plan), capacity)| {
            Some(Offer {
                source,
                plan,
                capacity: capacity.filter(|each| *each > 0.0)?,
            })
        })
        .collect();
    for offer in &offers {
        let leases = offer.plan.fresh.iter().filter(|lease| lease.pool == pool);
        if let Some(lease) = leases.min() {
            let cost = to_cents(price(&offer.source.supply, lease));
            let chosen = Chosen {
                serves: lease.serves,
                to: lease.to,
                cost,
                rejected: rejected(scene, planned, &offers, offer, lease, cost),
            };
            found.entry(offer.source.group.clone()).or_insert(chosen);
        }
    }
    found
}

/// Servers of a source, as one pool sees them.
struct Offer<'o, 'a> {
    source: &'o Source<'a>,
    plan: &'o SupplyPlan,
    /// Requests/s of one server at saturation.
    capacity: f64,
}

/// Other groups that the pool may use, the cheapest first.
fn rejected(
    scene: &Scene,
    planned: &Planned,
    offers: &[Offer],
    chosen: &Offer,
    lease: &Fresh,
    cost: Money,
) -> Vec<Rejected> {
    let others = offers.iter().filter(|other| other.source.group != chosen.source.group);
    let mut others: Vec<Instead> = others.map(|other| instead(scene, other, chosen, lease)).collect();
    others.sort_by_key(|instead| (instead.cost, instead.offer.source.group));
    // Servers of one group that give other evidence are the same to people.
    others.dedup_by_key(|instead| instead.offer.source.group);
    let rejected = others.into_iter().take(Decision::MAX_REJECTED).map(|instead| {
        let group = instead.offer.source.group;
        let (count, there) = (instead.count, instead.cost);
        let Problem { reason, message } = why_not(scene, &instead, chosen, lease, cost);
        Rejected {
            alternative: group.to_string(),
            reason,
            message: format!("{message}; the same on {count:.0} of its servers costs {there} instead of {cost}"),
            hourly: planned.options.choice(group).map(Choice::hourly),
            cost: Some(there),
        }
    });
    rejected.collect()
}

/// What it would be to serve the same from another group.
struct Instead<'i, 'o, 'a> {
    offer: &'i Offer<'o, 'a>,
    /// So many servers carry the same.
    count: f64,
    cost: Money,
    /// When a server that is asked for now serves.
    earliest: Timestamp,
}

fn instead<'i, 'o, 'a>(scene: &Scene, offer: &'i Offer<'o, 'a>, chosen: &Offer, lease: &Fresh) -> Instead<'i, 'o, 'a> {
    let supply = &offer.source.supply;
    let lead = supply.lead();
    let count = (chosen.capacity / offer.capacity - 1e-9).ceil().max(1.0);
    let earliest = scene.now + lead;
    let serves = lease.serves.max(earliest);
    let same = Fresh {
        from: scene.now.max(serves - lead),
        serves,
        to: lease.to.max(serves),
        pool: lease.pool,
    };
    Instead {
        offer,
        count,
        cost: to_cents(price(supply, &same) * count),
        earliest,
    }
}

fn why_not(scene: &Scene, instead: &Instead, chosen: &Offer, lease: &Fresh, cost: Money) -> Problem {
    let (other, name) = (instead.offer, instead.offer.source.group);
    if let Some(problem) = scene.unavailable.get(name) {
        return problem.clone();
    }
    let free = other.source.supply.free.len();
    let leases = other.plan.fresh.iter();
    let meanwhile = leases.filter(|other| other.from < lease.to && other.to > lease.from);
    if meanwhile.count() >= free {
        let message = format!("all {free} servers of {name} that may be asked for are planned already");
        return Problem::new(Reason::CapacityExhausted, message);
    }
    if instead.earliest > lease.serves {
        let message = format!(
            "a server of {name} serves from {} on, and is needed at {}",
            instead.earliest, lease.serves
        );
        return Problem::new(Reason::ComesTooLate, message);
    }
    if instead.cost > cost {
        return Problem::new(Reason::CostsMore, format!("{name} costs more"));
    }
    let message = format!("{name} comes after {} in the placement order", chosen.source.group);
    Problem::new(Reason::LaterInOrder, message)
}

/// What a lease costs from the purchase to its end.
fn price(supply: &Supply, lease: &Fresh) -> f64 {
    let paid = lease.to.since(lease.from).max(supply.minimum_lease).as_hours_f64();
    let on = lease.to.since(lease.serves).as_hours_f64();
    supply.hourly * paid + supply.energy_hourly * on
}

fn to_cents(amount: f64) -> Money {
    Money::from_f64((amount * 100.0).round() / 100.0)
}
