//! Which purchases there is money and power for.

use std::collections::{BTreeMap, BTreeSet};

use super::crew::Crew;
use super::guide::Guide;
use super::slots::Slot;
use super::stock::Stock;
use super::world::World;
use crate::names::GroupName;
use crate::reason::Problem;

/// Offers without purchases for which there is no money or no power left, and groups that have none left for that. What is planned comes before
/// what is merely offered.
pub(crate) fn affordable(
    world: &World,
    crew: &Crew,
    guide: Option<&Guide>,
    stock: &Stock,
    offers: Vec<Slot>,
) -> (Vec<Slot>, BTreeMap<GroupName, Problem>) {
    let mut purse = world.accounts.purse(crew.id, crew.pool, world.now);
    let mut refused = BTreeMap::new();
    if purse.is_none() && !stock.power.is_limited() {
        return (offers, refused);
    }
    let mut power = stock.power.clone();
    let mut without = BTreeSet::new();
    for index in in_order(world, guide, stock, &offers) {
        let Some(slot) = offers.get(index) else { continue };
        let Some((group, _)) = world.group(&slot.group) else {
            continue;
        };
        let unpaid = || purse.as_mut().and_then(|purse| purse.buy(group).err());
        match power.refuses(&slot.group).or_else(unpaid) {
            Some(problem) => {
                refused.insert(slot.group.clone(), problem);
                without.insert(index);
            }
            None => power.take(&slot.group),
        }
    }
    let kept = offers.into_iter().enumerate();
    let kept = kept.filter(|(index, _)| !without.contains(index));
    let offers: Vec<Slot> = kept.map(|(_, slot)| slot).collect();
    refused.retain(|group, _| !offers.iter().any(|slot| slot.group == *group));
    (offers, refused)
}

/// Purchases by index: as many as are planned first.
fn in_order(world: &World, guide: Option<&Guide>, stock: &Stock, offers: &[Slot]) -> Vec<usize> {
    let planned = guide.into_iter().flat_map(|guide| {
        let groups = guide.planned.replicas.keys();
        groups.filter_map(|name| {
            let (group, _) = world.group(name)?;
            Some((name, guide.purchases(name, group, stock.shelves.get(name))))
        })
    });
    let mut planned: BTreeMap<&GroupName, u32> = planned.collect();
    let purchases = offers.iter().enumerate().filter(|(_, slot)| slot.is_purchase());
    let order = purchases.map(|(index, slot)| {
        let left = planned.get_mut(&slot.group).filter(|left| **left > 0);
        let merely_offered = left.map(|left| *left -= 1).is_none();
        (merely_offered, index)
    });
    let order: BTreeSet<(bool, usize)> = order.collect();
    order.into_iter().map(|(_, index)| index).collect()
}
