//! What outlives this process beside statuses: the past of each pool, and the last strategic plan.
//!
//! One bounded `ConfigMap` per pool in the operator's namespace, and one for the plan as a whole. They are read once, when this process
//! begins to lead and before it plans ahead; from then on the copy in memory counts, and goes out in batches. What is learnt, and how,
//! is the kernel's ([`pomarium_kernel::strategy::learning`]): this only keeps it.
//!
//! # Guarantees
//! - Only a leader reads or writes. No pass waits for a write.
//! - A leader that is told to end leaves nothing unwritten; one that is killed loses one batch, which is a gap afterwards.
//! - Nothing is written that is stored already, and nothing while nothing was read: a past that cannot be reached is not overwritten.
//! - What cannot be read is said and begun anew, part by part: a broken ledger costs no history, a broken pool no other one.
//! - Objects of pools that are gone are deleted.
//!
//! | module | what |
//! |---|---|
//! | [`backfill`] | the past of pools of which nothing is remembered, from Prometheus |
//! | [`stored`] | the parts of a past as text, and back |
//! | [`objects`] | `ConfigMap`s: lists, applies and deletes them |

mod backfill;
mod objects;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use pomarium_kernel::lifecycle::ReplicaState;
use pomarium_kernel::names::{GroupName, PoolId};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Pool, Snapshot};
use pomarium_kernel::strategy::ahead::Ahead;
use pomarium_kernel::strategy::learning::{Circumstances, Learner};
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::{Span, Timestamp};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::client::error_chain;
use crate::member::Hub;
use crate::world::World;
use backfill::Newcomer;
use objects::{Job, Key, Written};

pub(crate) use backfill::Backfill;

/// Between two batches, in virtual time.
const BATCH: Span = Span::from_minutes(5);
/// Between two attempts to read.
const RETRY: Duration = Duration::from_secs(5);
/// Reading takes no longer: the first pass waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is kept.
pub(crate) struct Histories {
    hub: Hub,
    pools: BTreeMap<PoolId, Kept>,
    /// What is stored of the plan as a whole.
    plan: Option<u64>,
    /// Objects of pools that are gone.
    leftovers: Vec<Key>,
    unreadable: BTreeMap<PoolId, Problem>,
    state: State,
    /// Asked once, for pools of which nothing was read.
    backfill: Option<Backfill>,
    /// Aborted when this is dropped: who does not lead any more writes nothing.
    writing: JoinSet<Vec<Written>>,
}

enum State {
    /// Nothing was read; not tried again before then.
    Unread(Option<Instant>),
    /// Read; the last batch went out then.
    Read(Timestamp),
}

/// The pools that exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Existing {
    /// Their uids.
    pub(crate) uids: BTreeMap<PoolId, String>,
    /// There are others of which not even the uid is known.
    pub(crate) and_others: bool,
}

/// One pool's.
struct Kept {
    uid: String,
    past: Arc<Past>,
    learner: Learner,
    /// The newest measurement that was learnt from.
    learnt_at: Option<Timestamp>,
    /// Something was learnt since it was last written.
    news: bool,
    /// Digest of what is stored.
    stored: Option<u64>,
}

impl Kept {
    fn new(uid: String, past: Past, stored: Option<u64>) -> Self {
        Self {
            uid,
            past: Arc::new(past),
            learner: Learner::default(),
            learnt_at: None,
            news: false,
            stored,
        }
    }
}

impl Histories {
    /// Nothing read yet. What is not remembered is asked for at `backfill`, if there is one.
    pub(crate) fn new(hub: Hub, backfill: Option<Backfill>) -> Self {
        Self {
            hub,
            backfill,
            pools: BTreeMap::new(),
            plan: None,
            leftovers: Vec::new(),
            unreadable: BTreeMap::new(),
            state: State::Unread(None),
            writing: JoinSet::new(),
        }
    }

    /// Whether what was stored has been read: no plan is made ahead before.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.state, State::Read(_))
    }

    /// The pasts of all pools.
    pub(crate) fn pasts(&self) -> BTreeMap<PoolId, Arc<Past>> {
        let pasts = self.pools.iter().map(|(id, kept)| (id.clone(), Arc::clone(&kept.past)));
        pasts.collect()
    }

    /// Pools of whose past something could not be read.
    pub(crate) fn unreadable(&self) -> BTreeMap<PoolId, Problem> {
        self.unreadable.clone()
    }

    /// Reads what an earlier leader has stored, and gives its last plan. For a bounded time; tried again later if that fails.
    pub(crate) async fn read(&mut self, pools: &Existing, now: Timestamp) -> Option<Ahead> {
        match self.state {
            State::Read(_) => return None,
            State::Unread(Some(tried)) if tried.elapsed() < RETRY => return None,
            State::Unread(_) => {}
        }
        let by_uid: BTreeMap<&String, &PoolId> = pools.uids.iter().map(|(id, uid)| (uid, id)).collect();
        let found = match tokio::time::timeout(PATIENCE, objects::list(&self.hub)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.not_read(&error_chain(&error)),
            Err(_) => return self.not_read(&format!("no answer within {PATIENCE:?}")),
        };
        let mut ahead = None;
        let mut planned = Vec::new();
        for (key, object) in found {
            match key {
                Key::Plan => {
                    self.plan = object.digest;
                    ahead = object.plan;
                    for problem in &object.problems {
                        warn!(problem, "the stored plan cannot be read; a new one is made");
                    }
                }
                Key::Pool(uid) => {
                    let Some(&id) = by_uid.get(&uid) else {
                        if !pools.and_others {
                            self.leftovers.push(Key::Pool(uid));
                        }
                        continue;
                    };
                    if !object.problems.is_empty() {
                        let message = format!("it is learnt anew: {}", object.problems.join("; "));
                        warn!(pool = %id, message, "what is remembered cannot be read");
                        let problem = Problem::new(Reason::HistoryUnreadable, message);
                        self.unreadable.insert(id.clone(), problem);
                    }
                    planned.extend(object.pool.map(|planned| (id.clone(), planned)));
                    self.pools
                        .insert(id.clone(), Kept::new(uid, object.past, object.digest));
                }
            }
        }
        info!(pools = self.pools.len(), "the past is read");
        self.state = State::Read(now);
        // Parts of another plan do not belong to it: those pools are planned for anew, soon.
        ahead.map(|mut ahead| {
            let made_at = ahead.made_at;
            let same = planned.into_iter().filter(|(_, planned)| planned.made_at == made_at);
            ahead.pools = same.map(|(id, planned)| (id, planned.pool)).collect();
            ahead
        })
    }

    /// Whether [`Self::recover`] has something to do.
    pub(crate) fn asks(&self) -> bool {
        self.is_read() && self.backfill.is_some()
    }

    /// Asks for what is not remembered of `pools`, once what is has been read. They are given with their models.
    pub(crate) async fn recover(&mut self, pools: &Existing, models: &BTreeMap<PoolId, String>, now: Timestamp) {
        if !self.asks() {
            return;
        }
        let Some(backfill) = self.backfill.take() else { return };
        let unknown = |id: &PoolId| {
            let kept = self.pools.get(id);
            kept.is_none_or(|kept| kept.past.history.recorded_until().is_none())
        };
        let newcomer = |(id, model): (&PoolId, &String)| Newcomer {
            id: id.clone(),
            model: model.clone(),
        };
        let newcomers: Vec<Newcomer> = models.iter().filter(|(id, _)| unknown(id)).map(newcomer).collect();
        if newcomers.is_empty() {
            return;
        }
        for (id, past) in backfill.recover(newcomers, now).await {
            let Some(uid) = pools.uids.get(&id) else { continue };
            let kept = self
                .pools
                .entry(id)
                .or_insert_with(|| Kept::new(uid.clone(), Past::default(), None));
            kept.past = Arc::new(past);
            kept.news = true;
        }
    }

    fn not_read(&mut self, why: &str) -> Option<Ahead> {
        warn!(why, "the past cannot be read; nothing is planned ahead until it is");
        self.state = State::Unread(Some(Instant::now()));
        None
    }

    /// Learns what was measured since the last pass. `gap` lies between measurements that do not follow each other.
    pub(crate) fn learn(&mut self, snapshot: &Snapshot, world: &World, gap: Span) {
        if !self.is_read() {
            return;
        }
        for (id, pool) in &snapshot.pools {
            let measurement = world.measurements.get(id);
            let (Some(uid), Some(counted)) = (
                world.pools.get(id).and_then(|object| object.uid()),
                measurement.and_then(|measurement| measurement.counted.as_ref()),
            ) else {
                continue;
            };
            let fresh = || Kept::new(uid.clone(), Past::default(), None);
            let kept = self.pools.entry(id.clone()).or_insert_with(fresh);
            if kept.uid != uid {
                // Another pool of the same name: what it replaced is none of its past.
                self.leftovers.push(Key::Pool(std::mem::replace(kept, fresh()).uid));
            }
            let seen = Circumstances {
                events: &pool.events,
                serving: &serving(pool),
                ahead: snapshot.ahead.as_ref().and_then(|ahead| ahead.pools.get(id)),
                gap,
            };
            // Most passes find what the last one found. A past is long, and snapshots share it: to touch it is to copy it.
            if kept.learnt_at.replace(counted.at) == Some(counted.at) {
                continue;
            }
            let past = Arc::make_mut(&mut kept.past);
            kept.news |= kept.learner.learn(past, counted, &seen);
        }
    }

    /// Remembers what the next plan begins with.
    pub(crate) fn planned(&mut self, ahead: &Ahead) {
        for (id, planned) in &ahead.pools {
            if let Some(kept) = self.pools.get_mut(id).filter(|kept| kept.past.prices != planned.prices) {
                Arc::make_mut(&mut kept.past).prices.clone_from(&planned.prices);
            }
        }
        for (id, known) in &ahead.calibrations {
            if let Some(kept) = self.pools.get_mut(id).filter(|kept| kept.past.calibrations != *known) {
                Arc::make_mut(&mut kept.past).calibrations.clone_from(known);
                kept.news = true;
            }
        }
    }

    /// Sends a batch out if it is time, and deletes what belongs to pools that are gone. Gives what has become of earlier ones.
    pub(crate) fn write(&mut self, pools: &Existing, ahead: Option<&Arc<Ahead>>, now: Timestamp) -> Vec<Written> {
        let written = self.finished();
        let State::Read(last) = self.state else {
            return written;
        };
        let is_gone = |id: &&PoolId| !pools.uids.contains_key(*id) && !pools.and_others;
        let gone: Vec<PoolId> = self.pools.keys().filter(is_gone).cloned().collect();
        for id in gone {
            self.unreadable.remove(&id);
            self.leftovers
                .extend(self.pools.remove(&id).map(|kept| Key::Pool(kept.uid)));
        }
        if !self.writing.is_empty() {
            return written;
        }
        let mut jobs: Vec<Job> = self.leftovers.drain(..).map(Job::Delete).collect();
        if now.since(last) >= BATCH || now < last {
            self.state = State::Read(now);
            jobs.extend(self.batch(ahead));
        }
        if !jobs.is_empty() {
            let hub = self.hub.clone();
            self.writing.spawn(async move { objects::carry_out(&hub, jobs).await });
        }
        written
    }

    fn batch(&mut self, ahead: Option<&Arc<Ahead>>) -> Vec<Job> {
        let plan = ahead.map(|ahead| Job::ApplyPlan {
            ahead: Arc::clone(ahead),
            stored: self.plan,
        });
        let mut jobs: Vec<Job> = plan.into_iter().collect();
        for (id, kept) in &mut self.pools {
            let planned = ahead.filter(|ahead| ahead.pools.contains_key(id));
            // A pool of which nothing is known has nothing to keep.
            if !std::mem::take(&mut kept.news) && planned.is_none() {
                continue;
            }
            jobs.push(Job::ApplyPool {
                id: id.clone(),
                uid: kept.uid.clone(),
                past: Arc::clone(&kept.past),
                ahead: planned.cloned(),
                stored: kept.stored,
            });
        }
        jobs
    }

    /// Sends out at once what has not gone out yet, and waits until it has: the last words of a leader that ends.
    pub(crate) async fn flush(&mut self, ahead: Option<&Arc<Ahead>>) {
        while let Some(joined) = self.writing.join_next().await {
            self.note(&joined.unwrap_or_default());
        }
        if self.is_read() {
            let jobs = self.batch(ahead);
            let written = objects::carry_out(&self.hub, jobs).await;
            self.note(&written);
        }
    }

    fn finished(&mut self) -> Vec<Written> {
        let mut all = Vec::new();
        while let Some(joined) = self.writing.try_join_next() {
            let Ok(written) = joined else { continue };
            self.note(&written);
            all.extend(written);
        }
        all
    }

    /// Takes in what became of writes.
    fn note(&mut self, written: &[Written]) {
        for each in written {
            match &each.key {
                Key::Plan if each.digest.is_some() => self.plan = each.digest,
                Key::Plan => {}
                Key::Pool(uid) => {
                    if let Some(kept) = self.pools.values_mut().find(|kept| kept.uid == *uid) {
                        kept.stored = each.digest.or(kept.stored);
                        kept.news |= each.outcome == objects::FAILED;
                    } else if each.outcome == objects::FAILED {
                        self.leftovers.push(each.key.clone());
                    }
                }
            }
        }
    }
}

/// Serving replicas by group.
fn serving(pool: &Pool) -> BTreeMap<GroupName, u32> {
    let mut serving = BTreeMap::new();
    for replica in pool
        .running
        .values()
        .filter(|replica| replica.serving && replica.state == ReplicaState::Ready)
    {
        *serving.entry(replica.group.clone()).or_default() += 1;
    }
    serving
}
