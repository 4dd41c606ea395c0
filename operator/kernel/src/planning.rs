//! From a snapshot to a plan.
//!
//! The tactical planner: what every site, group and pool needs right now. Pure and deterministic; the order of the input
//! does not matter, and planning again what is being done already changes nothing.
//!
//! # One pass
//!
//! | step | module |
//! |---|---|
//! | index the snapshot, and see where anything may be done at all | `world`, `stock`, `power` |
//! | for each pool, the highest priority first: | `pools` |
//! | – where it may run, in which order | `options` |
//! | – where each of its replicas stands | `crew` |
//! | – what arrives, as far as it can be believed | `demand` |
//! | – whether the figures of machines can be believed | `evidence` |
//! | – who decides: the strategic plan, or what is measured | `guide` |
//! | – what there is money and power for | `afford` |
//! | – what the plan adds and gives up | `follow`, `part` |
//! | – otherwise what is missing, and where it goes | `grow`, `react`, `slots`, `preempt`, `model` |
//! | – what is too much, what goes first, and why it may have to wait | `shrink`, `returning`, `hold` |
//! | – who has to go: replacement first | `leave` |
//! | – a step for every drain | `drains` |
//! | servers asked for, called back, drained, given back | `servers` |
//! | what to say about all of it | `conditions` |
//!
//! # Guarantees
//! Nothing is removed on a metric gap, from a site that does not answer, or while the rest would not carry the measured
//! demand; nothing is placed where trust, residency or licence forbid it; nothing is asked for from an inventory that is not
//! known, nor beyond a budget or a site's power; no replica that may still answer a request is deleted, unless the pool's deadline says so.

mod afford;
mod conditions;
mod crew;
mod demand;
mod draft;
mod drains;
mod evidence;
mod figures;
mod follow;
mod grow;
mod guide;
mod hold;
mod lasting;
mod leave;
mod memo;
mod model;
mod options;
mod part;
mod policy;
mod pools;
mod power;
mod preempt;
mod promised;
mod react;
mod returning;
mod servers;
mod shrink;
mod slots;
mod stock;
mod world;

use std::collections::{BTreeMap, BTreeSet};

// What the strategic plan counts on is what this one counts on.
pub(crate) use self::crew::recallable;
pub(crate) use self::demand::{Need, need, planned_lengths};
pub(crate) use self::evidence::is_full;
pub(crate) use self::options::{Choice, Options};
pub(crate) use self::policy::{DRAIN_ESTIMATE, MEASURE_MAX_AGE, MEASURED_OVER};
pub(crate) use self::pools::rank;
pub(crate) use self::power::{Power, draws};
pub(crate) use self::stock::{may_grow, retained_until};
pub(crate) use self::world::is_usable;

use self::crew::voluntary;
pub(crate) use self::crew::{Crew, Member, Standing};
use self::draft::Draft;
pub use self::memo::Memo;
use self::pools::Shared;
use self::promised::Promised;
use self::servers::Claims;
use self::stock::Stock;
pub(crate) use self::world::World;
use crate::names::{GroupName, PoolId};
use crate::plan::{Plan, Rejected};
use crate::reason::Reason;
use crate::snapshot::Snapshot;
use crate::time::Timestamp;

/// Plans what every site, group and pool needs right now.
pub fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    plan_again(snapshot, now, &mut Memo::default())
}

/// The same, with what earlier passes have computed: it changes no plan, only how long it takes.
pub fn plan_again(snapshot: &Snapshot, now: Timestamp, memo: &mut Memo) -> Plan {
    let world = World::new(snapshot, now);
    let mut crews: Vec<Crew> = snapshot
        .pools
        .iter()
        .map(|(id, pool)| Crew::muster(&world, id, pool))
        .collect();
    crews.sort_by_key(|crew| (rank(crew.pool), crew.id));
    let mut shared = Shared {
        stock: Stock::of(&world),
        claims: Claims::default(),
        draining: draining_by_choice(&crews),
        preempted: BTreeMap::new(),
        promised: Promised::of(snapshot, &crews, now),
        guided: BTreeSet::new(),
        draft: Draft::new(now),
    };
    crews.reverse();
    while let Some(crew) = crews.pop() {
        pools::decide(&world, crew, &crews, &mut shared, memo);
    }
    memo.forget();
    servers::manage(
        &world,
        &mut shared.stock,
        &shared.claims,
        &shared.guided,
        &mut shared.draft,
    );
    conditions::group::describe(&world, &shared.stock, &mut shared.draft);
    conditions::site::describe(&world, &mut shared.draft);
    shared.draft.finish()
}

/// Groups that a pool may not use, and why.
pub fn refused(snapshot: &Snapshot, id: &PoolId, now: Timestamp) -> Vec<Rejected> {
    let world = World::new(snapshot, now);
    let pool = snapshot.pools.get(id);
    pool.map_or_else(Vec::new, |pool| Options::of(&world, pool).unsatisfying().collect())
}

fn draining_by_choice(crews: &[Crew]) -> BTreeMap<GroupName, u32> {
    let mut draining = BTreeMap::new();
    for member in crews.iter().flat_map(|crew| crew.of(Standing::Draining)) {
        let by_choice = |reason| voluntary(reason) || reason == Reason::Preempted;
        if member.replica.drain.is_some_and(|drain| by_choice(drain.reason)) {
            *draining.entry(member.replica.group.clone()).or_default() += 1;
        }
    }
    draining
}

#[cfg(test)]
mod tests;
