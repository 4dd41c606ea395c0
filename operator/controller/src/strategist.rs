//! Plans ahead beside the loop.
//!
//! The strategic plan takes as long as it takes, on a thread of its own, from the snapshot of a pass; passes go on meanwhile with the plan
//! before it and find the new one when it is there. When to make one is the kernel's to say ([`pomarium_kernel::strategy::due`]).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use pomarium_kernel::capacity::curve;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::snapshot::{Demand, Snapshot};
use pomarium_kernel::strategy::Effort;
use pomarium_kernel::strategy::ahead::{Ahead, look_ahead};
use pomarium_kernel::strategy::due::{Due, due};
use pomarium_kernel::strategy::envelope::Memo;
use pomarium_kernel::time::{Span, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::latest::Trigger;
use crate::world::World;

/// How much work a plan may be.
pub const EFFORT: Effort = Effort::REPLAN;
/// How much work a capacity curve is worth.
pub const CURVE_EFFORT: curve::Effort = curve::Effort::QUICK;
/// Capacity curves that are remembered.
pub const CURVES: usize = 4_096;

/// So long after a restart metrics are still being read for the first time.
const GRACE: Span = Span::from_minutes(3);

/// A plan and what it was made from.
#[derive(Clone, Debug)]
pub struct Made {
    /// When.
    pub now: Timestamp,
    /// From what.
    pub snapshot: Arc<Snapshot>,
    /// The plan.
    pub ahead: Arc<Ahead>,
    /// Why then.
    pub due: Due,
    /// How long it took.
    pub took: Duration,
}

/// Makes strategic plans.
pub(crate) struct Strategist {
    trigger: Trigger,
    /// A memo: plans are the same without it.
    curves: Option<Memo>,
    newest: Option<Arc<Ahead>>,
    tried_at: Option<Timestamp>,
    /// A plan of an earlier leader is kept until then, while pools of it are not measured yet.
    grace: Option<Timestamp>,
    /// Specs of what the last plan was made for; not known after a restart.
    specs: Option<u64>,
    /// Pools whose demand was known then.
    measured: BTreeSet<PoolId>,
    making: Option<Making>,
}

struct Making {
    now: Timestamp,
    snapshot: Arc<Snapshot>,
    due: Due,
    began: Instant,
    thread: JoinHandle<(Ahead, Memo)>,
}

impl Strategist {
    /// No plan yet. `trigger` is pulled when one is ready.
    pub(crate) fn new(trigger: Trigger) -> Self {
        Self {
            trigger,
            curves: None,
            newest: None,
            tried_at: None,
            grace: None,
            specs: None,
            measured: BTreeSet::new(),
            making: None,
        }
    }

    /// Goes on with the plan of an earlier leader.
    pub(crate) fn resume(&mut self, ahead: Ahead, now: Timestamp) {
        self.grace = Some(now + GRACE);
        self.newest.get_or_insert_with(|| Arc::new(ahead));
    }

    /// The last plan.
    pub(crate) fn newest(&self) -> Option<&Arc<Ahead>> {
        self.newest.as_ref()
    }

    /// A plan that has become ready since the last call.
    pub(crate) async fn finished(&mut self) -> Option<Made> {
        let making = self.making.take_if(|making| making.thread.is_finished())?;
        match making.thread.await {
            Ok((ahead, curves)) => {
                let ahead = Arc::new(ahead);
                self.curves = Some(curves);
                self.newest = Some(Arc::clone(&ahead));
                Some(Made {
                    now: making.now,
                    snapshot: making.snapshot,
                    ahead,
                    due: making.due,
                    took: making.began.elapsed(),
                })
            }
            Err(failure) => {
                // A bug in the planner. The plan before it holds until it is stale; then the loop goes by what it measures.
                error!(%failure, "planning ahead panicked");
                None
            }
        }
    }

    /// What is not measured *yet* must not look like what cannot be: a plan without those pools would undo what was planned for them.
    fn waits(&self, snapshot: &Snapshot, now: Timestamp) -> bool {
        let Some(ahead) = self.newest.as_ref().filter(|ahead| ahead.holds(now)) else {
            return false;
        };
        let unmeasured = |id: &PoolId| {
            let pool = snapshot.pools.get(id);
            pool.is_some_and(|pool| !matches!(pool.demand, Demand::Known(_)))
        };
        self.grace.is_some_and(|until| now < until) && ahead.pools.keys().any(unmeasured)
    }

    /// Begins a plan from `snapshot` if it is time for one, or somebody asked, and none is being made.
    pub(crate) fn consider(&mut self, snapshot: &Arc<Snapshot>, world: &World, now: Timestamp, asked: bool) {
        if self.making.is_some() || self.waits(snapshot, now) {
            return;
        }
        let specs = specs(world);
        let measured: BTreeSet<PoolId> = measured(snapshot).cloned().collect();
        let changed = self.specs.is_some_and(|before| before != specs) || !measured.is_subset(&self.measured);
        let Some(due) = due(snapshot, now, self.tried_at, changed || asked) else {
            self.specs.get_or_insert(specs);
            return;
        };
        debug!(due = due.as_str(), "planning ahead");
        self.tried_at = Some(now);
        self.specs = Some(specs);
        self.measured = measured;
        let mut curves = self.curves.take().unwrap_or_else(memo);
        let (planned, trigger) = (Arc::clone(snapshot), self.trigger.clone());
        let thread = tokio::task::spawn_blocking(move || {
            let ahead = look_ahead(&planned, now, &mut curves, EFFORT);
            trigger.wake();
            (ahead, curves)
        });
        self.making = Some(Making {
            now,
            snapshot: Arc::clone(snapshot),
            due,
            began: Instant::now(),
            thread,
        });
    }
}

/// Pools whose demand is known.
fn measured(snapshot: &Snapshot) -> impl Iterator<Item = &PoolId> {
    let known = snapshot
        .pools
        .iter()
        .filter(|(_, pool)| matches!(pool.demand, Demand::Known(_)));
    known.map(|(id, _)| id)
}

/// An empty memo of capacity curves.
pub fn memo() -> Memo {
    Memo::new(CURVE_EFFORT, CURVES)
}

/// Tells apart whether specs have changed: the API server counts their generations.
fn specs(world: &World) -> u64 {
    fn all<K: Hash + Ord, T: ResourceExt>(hasher: &mut DefaultHasher, objects: &BTreeMap<K, Arc<T>>) {
        for (key, object) in objects {
            (key, object.uid(), object.meta().generation).hash(hasher);
        }
    }
    let mut hasher = DefaultHasher::new();
    all(&mut hasher, &world.pools);
    all(&mut hasher, &world.groups);
    for (name, site) in &world.sites {
        (name, site.object.uid(), site.object.metadata.generation).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pomarium_kernel::reason::{Problem, Reason};
    use pomarium_kernel::strategy::ahead::PoolAhead;

    use super::*;
    use crate::fixture::{NOW, chat, snapshot, world};

    fn unmeasured(mut snapshot: Snapshot) -> Arc<Snapshot> {
        snapshot.pools.get_mut(&chat()).unwrap().demand = Demand::Unknown {
            since: NOW,
            problem: Problem::new(Reason::Starting, "nothing has been measured yet"),
            at_least: None,
        };
        Arc::new(snapshot)
    }

    async fn made(strategist: &mut Strategist) -> Made {
        loop {
            if let Some(made) = strategist.finished().await {
                return made;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_plan_is_made_beside_the_loop_and_again_when_there_is_reason_to() {
        let world = world();
        let mut strategist = Strategist::new(Trigger::default());
        let at = |minutes| NOW + Span::from_minutes(minutes);
        let blind = unmeasured(snapshot(&world));
        strategist.consider(&blind, &world, NOW, false);
        assert_eq!(made(&mut strategist).await.due, Due::First);

        let mut seen = snapshot(&world);
        seen.ahead = strategist.newest().cloned();
        let seen = Arc::new(seen);
        strategist.consider(&seen, &world, at(0), false);
        assert!(strategist.making.is_none(), "too soon");
        strategist.consider(&seen, &world, at(2), false);
        assert_eq!(
            made(&mut strategist).await.due,
            Due::Objects,
            "the pool is measured now"
        );
        strategist.consider(&seen, &world, at(4), false);
        assert!(strategist.making.is_none(), "nothing is new");
        let mut changed = world.clone();
        Arc::make_mut(changed.pools.get_mut(&chat()).unwrap())
            .metadata
            .generation = Some(2);
        strategist.consider(&seen, &changed, at(4), false);
        assert_eq!(made(&mut strategist).await.due, Due::Objects, "a spec has changed");
    }

    #[tokio::test]
    async fn the_plan_of_an_earlier_leader_is_kept_until_its_pools_are_measured_for_a_bounded_time() {
        let world = world();
        let mut strategist = Strategist::new(Trigger::default());
        let ahead = Ahead {
            made_at: NOW - Span::from_minutes(10),
            pools: [(chat(), PoolAhead::default())].into(),
            ..Ahead::default()
        };
        strategist.resume(ahead, NOW);
        let with_plan = |strategist: &Strategist, mut snapshot: Snapshot| {
            snapshot.ahead = strategist.newest().cloned();
            snapshot
        };
        let blind = unmeasured(with_plan(&strategist, snapshot(&world)));
        strategist.consider(&blind, &world, NOW + Span::from_minutes(1), false);
        assert!(strategist.making.is_none(), "its pool is not measured yet");
        let seen = Arc::new(with_plan(&strategist, snapshot(&world)));
        strategist.consider(&seen, &world, NOW + Span::from_minutes(1), false);
        assert!(strategist.making.take().is_some(), "it is measured");
        strategist.tried_at = None;
        strategist.consider(&blind, &world, NOW + GRACE, false);
        assert!(strategist.making.is_some(), "it is not waited for any longer");
    }
}
