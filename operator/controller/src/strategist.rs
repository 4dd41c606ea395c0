//! Plans ahead beside the loop.
//!
//! The strategic plan takes as long as it takes, on a thread of its own, from the snapshot of a pass; passes go on meanwhile with the plan
//! before it and find the new one when it is there. When to make one is the kernel's to say ([`pomarium_kernel::strategy::due`]).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use pomarium_kernel::capacity::curve;
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::strategy::Effort;
use pomarium_kernel::strategy::ahead::{Ahead, look_ahead};
use pomarium_kernel::strategy::due::{Due, due};
use pomarium_kernel::time::Timestamp;
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
    /// Specs of what the last plan was made for; not known after a restart.
    specs: Option<u64>,
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
            specs: None,
            making: None,
        }
    }

    /// Goes on with the plan of an earlier leader.
    pub(crate) fn resume(&mut self, ahead: Ahead) {
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

    /// Begins a plan from `snapshot` if it is time for one, or somebody asked, and none is being made.
    pub(crate) fn consider(&mut self, snapshot: &Arc<Snapshot>, world: &World, now: Timestamp, asked: bool) {
        if self.making.is_some() {
            return;
        }
        let specs = specs(world);
        let changed = self.specs.is_some_and(|before| before != specs);
        let Some(due) = due(snapshot, now, self.tried_at, changed || asked) else {
            self.specs.get_or_insert(specs);
            return;
        };
        debug!(due = due.as_str(), "planning ahead");
        self.tried_at = Some(now);
        self.specs = Some(specs);
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
