//! Servers that a pool takes from pools that yield to it.

use std::collections::BTreeMap;

use super::crew::{Crew, Standing};
use super::hold::disruption;
use super::options::Options;
use super::pools::{Shared, rank};
use super::slots::{Slot, Source};
use super::world::{World, is_usable};
use crate::names::PoolId;
use crate::plan::Verdict;

/// Servers that this pool could use and that run replicas of pools that yield to it, with those pools.
///
/// A pool that yields is disrupted by our choice: at most as many servers of a group as its windows and its disruption budget
/// allow.
pub(crate) fn yielding<'a>(
    world: &World<'a>,
    crew: &Crew<'a>,
    options: &Options<'a>,
    below: &[Crew<'a>],
    shared: &Shared<'a>,
) -> BTreeMap<Slot, &'a PoolId> {
    let mut owners = BTreeMap::new();
    let mut draining = shared.draining.clone();
    let yields = |other: &&Crew| rank(other.pool) > rank(crew.pool) && !other.pool.paused;
    // The last in rank yields first.
    for other in below.iter().filter(yields) {
        for member in other.of(Standing::Keeper).filter(|member| !member.hands_off) {
            let replica = member.replica;
            let group = &replica.group;
            let permitted = options.satisfies(group) && world.takes_no_work(group).is_none();
            let usable = member
                .server
                .is_some_and(|server| is_usable(server) && server.proven >= crew.pool.placement.minimum_trust);
            let target = (group.clone(), replica.server.clone());
            let Some((found, _)) = world.group(group) else { continue };
            if !permitted
                || !usable
                || shared.claims.keeps(group, &replica.server)
                || disruption(group, &found.disruption, &draining).is_some()
            {
                continue;
            }
            *draining.entry(group.clone()).or_default() += 1;
            let (group, server) = target;
            let slot = Slot {
                group,
                source: Source::Vacating(server),
                verdict: Verdict::Act,
            };
            owners.insert(slot, other.id);
        }
    }
    owners
}
