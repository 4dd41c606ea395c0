//! The loop: one pass after the other, for all objects together.
//!
//! A pass begins when something changed (many changes at once are one pass), when the plan wanted to look again, or when
//! the tick has passed. It reads caches and last answers only; what it decides goes out through [`Execute`].
//!
//! # Guarantees
//! - No pass before the hub's objects are listed and every site was reached or given up on for the moment: what is not
//!   seen *yet* must not look like what is gone.
//! - No pass on caches of the hub that are not current, and none while this process does not lead.
//! - A pass that finds nothing to do writes nothing. What a pass writes comes back as an event and is looked at once; names are
//!   deterministic and writes idempotent, so that a pass on caches that are a moment old repeats itself at worst.

mod execute;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::plan::Plan;
use pomarium_kernel::planning;
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::time::{Span, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, error, info};

use crate::client::Gate;
use crate::clock::Clock;
use crate::export::Exporter;
use crate::health::{Check, Health};
use crate::history::{Existing, Histories};
use crate::latest::Trigger;
use crate::measure::Meter;
use crate::member::Members;
use crate::observe::observe;
use crate::provider::Inventories;
use crate::store::{Groups, Plans, Pools, SecretVersions, Sites, Store};
use crate::strategist::{Made, Strategist};
use crate::telemetry::Telemetry;
use crate::world::{Invalid, World};

pub(crate) use execute::Executor;

/// Changes that come within this time of the first are looked at together.
const COALESCE: Duration = Duration::from_millis(60);

/// Shortest time between two passes that nobody but the plan itself asked for.
const SHORTEST_WAKE: Duration = Duration::from_millis(200);

/// While something is missing that a pass needs, look for it this often.
const NOT_READY: Duration = Duration::from_millis(250);

/// What a pass has seen and planned.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The virtual time of the pass: no other time enters a decision.
    pub now: Timestamp,
    /// What was seen, with the problems of what cannot be used.
    pub world: Arc<World>,
    /// What was planned on.
    pub snapshot: Arc<Snapshot>,
    /// The plan.
    pub plan: Arc<Plan>,
}

/// What became of one effect, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Which kind of effect.
    pub kind: &'static str,
    /// What became of it.
    pub outcome: &'static str,
}

/// Builds, applies and reports what a pass has planned.
pub trait Execute: Send {
    /// Carries `pass` out. Bounded in time: what takes longer goes on elsewhere.
    fn execute(&mut self, pass: Pass) -> impl Future<Output = Vec<Tally>> + Send;
}

/// The caches of the hub.
#[derive(Clone)]
pub(crate) struct HubCaches {
    pub(crate) pools: Store<Pools>,
    pub(crate) groups: Store<Groups>,
    pub(crate) sites: Store<Sites>,
    pub(crate) plans: Store<Plans>,
    pub(crate) secrets: Store<SecretVersions>,
}

impl HubCaches {
    pub(crate) fn new(trigger: &Trigger) -> Self {
        Self {
            pools: Store::new(Pools, trigger.clone()),
            groups: Store::new(Groups, trigger.clone()),
            sites: Store::new(Sites, trigger.clone()),
            plans: Store::new(Plans, trigger.clone()),
            secrets: Store::new(SecretVersions, trigger.clone()),
        }
    }

    fn are_current(&self) -> Result<(), String> {
        self.pools.is_current()?;
        self.groups.is_current()?;
        self.sites.is_current()?;
        self.plans.is_current()?;
        self.secrets.is_current()
    }

    /// Groups and sites that cannot be decoded any more: they are seen as they last were, and nothing is done there.
    fn invalid(&self) -> Invalid {
        fn problems<K: Ord>(undecodable: BTreeMap<K, String>) -> BTreeMap<K, Problem> {
            let problem = |error| Problem::new(Reason::InvalidSpec, format!("it cannot be decoded: {error}"));
            undecodable
                .into_iter()
                .map(|(key, error)| (key, problem(error)))
                .collect()
        }
        Invalid {
            pools: BTreeMap::new(),
            groups: problems(self.groups.undecodable()),
            sites: problems(self.sites.undecodable()),
        }
    }

    fn undecodable(&self) -> usize {
        self.pools.undecodable().len() + self.groups.undecodable().len() + self.sites.undecodable().len()
    }
}

/// Everything that a pass reads.
pub(crate) struct Eyes {
    pub(crate) hub_uid: String,
    pub(crate) namespace: String,
    pub(crate) started: Timestamp,
    pub(crate) hub: HubCaches,
    pub(crate) members: Members,
    pub(crate) inventories: Inventories,
    pub(crate) meter: Meter,
}

impl Eyes {
    /// Follows the sites that the hub names, and says what is missing before anything may be concluded.
    fn ready(&self, health: &Health) -> Result<(), String> {
        let current = self.hub.are_current();
        health.set(Check::Caches, current.is_ok());
        current?;
        self.members.follow(&self.hub.sites.known(), &self.hub.secrets.items());
        let settled = self.members.settled();
        health.set(Check::Members, settled);
        if settled {
            Ok(())
        } else {
            Err("sites are being connected".to_owned())
        }
    }

    /// What is seen right now.
    fn look(&self) -> World {
        World {
            hub_uid: self.hub_uid.clone(),
            namespace: self.namespace.clone(),
            started: self.started,
            currency: String::new(),
            pools: (*self.hub.pools.items()).clone(),
            groups: self.hub.groups.known(),
            sites: self.members.seen(&self.hub.sites.known()),
            plans: (*self.hub.plans.items()).clone(),
            inventories: self.inventories.answers(),
            measurements: self.meter.answers(),
            invalid: self.hub.invalid(),
            ..World::default()
        }
    }

    /// All pools, those that cannot be decoded any more included.
    fn pools(&self) -> Existing {
        let known = self.hub.pools.known();
        let uids: BTreeMap<_, _> = known
            .iter()
            .filter_map(|(id, pool)| Some((id.clone(), pool.uid()?)))
            .collect();
        let undecodable = self.hub.pools.undecodable();
        Existing {
            and_others: undecodable.keys().any(|id| !uids.contains_key(id)),
            uids,
        }
    }

    /// How gateways name the model of each pool.
    fn models(&self) -> BTreeMap<PoolId, String> {
        let known = self.hub.pools.known();
        known
            .iter()
            .map(|(id, pool)| (id.clone(), pool.spec.model.name.clone()))
            .collect()
    }

    fn undecodable(&self) -> usize {
        self.hub.undecodable() + self.members.undecodable()
    }
}

/// The loop.
pub(crate) struct Loop<E> {
    pub(crate) eyes: Eyes,
    pub(crate) execute: E,
    pub(crate) histories: Histories,
    pub(crate) strategist: Strategist,
    /// What earlier passes have computed.
    pub(crate) memo: planning::Memo,
    pub(crate) exporter: Exporter,
    /// A plan that somebody waits for, until the pass that follows it.
    pub(crate) to_export: Option<Made>,
    pub(crate) clock: Clock,
    pub(crate) tick: Span,
    pub(crate) gate: Gate,
    pub(crate) trigger: Trigger,
    pub(crate) stop: Arc<Notify>,
    pub(crate) health: Health,
    pub(crate) telemetry: Telemetry,
}

impl<E: Execute> Loop<E> {
    /// Runs until told to stop, or dropped.
    pub(crate) async fn run(mut self) {
        let mut waiting_for = String::new();
        loop {
            self.health.beat();
            let pause = match self.eyes.ready(&self.health) {
                Ok(()) => self.turn().await,
                Err(missing) => {
                    if missing != waiting_for {
                        info!(missing, "waiting");
                        waiting_for = missing;
                    }
                    NOT_READY
                }
            };
            tokio::select! {
                () = self.trigger.changed() => tokio::time::sleep(COALESCE).await,
                () = tokio::time::sleep(pause) => {}
                () = self.stop.notified() => return self.end().await,
            }
        }
    }

    /// Leaves behind what a successor needs.
    async fn end(&mut self) {
        if self.gate.is_open() {
            self.histories.flush(self.strategist.newest()).await;
        }
    }

    /// One turn: a pass if this process leads. Returns how long to wait at most.
    async fn turn(&mut self) -> Duration {
        let began = Instant::now();
        let now = self.clock.now();
        let leads = self.gate.is_open();
        self.telemetry.leading(leads);
        let mut world = self.eyes.look();
        if leads {
            self.recall(&mut world, now).await;
        }
        let observed = observe(&world, now);
        world.invalid = observed.invalid;
        world.currency = observed.currency;
        self.telemetry.world(&world, self.eyes.undecodable());
        let world = Arc::new(world);
        let snapshot = Arc::new(observed.snapshot);
        // While standing by, too: whoever takes over must not begin with nothing known.
        self.eyes.inventories.look_at(&world);
        self.eyes.meter.look_at(&snapshot, &world);
        let tick = self.clock.real_duration(self.tick);

        if !leads {
            self.exporter.refuse();
            self.health.set(Check::FirstPass, true);
            return tick.min(Duration::from_secs(1));
        }
        self.remember(&snapshot, &world, now);
        let Some(plan) = self.plan(Arc::clone(&snapshot), now).await else {
            self.telemetry.pass("failed", began.elapsed());
            return tick;
        };
        let wake_at = plan.wake_at;
        let decisions = plan.decisions.len();
        let pass = Pass {
            now,
            world,
            snapshot,
            plan: Arc::new(plan),
        };
        if let Some(made) = self.to_export.take() {
            self.exporter.give(&pass, made);
        }
        let tallies = self.execute.execute(pass).await;
        for tally in &tallies {
            self.telemetry.effect(tally.kind, tally.outcome);
        }
        self.telemetry.pass("completed", began.elapsed());
        self.health.set(Check::FirstPass, true);
        debug!(decisions, effects = tallies.len(), took = ?began.elapsed(), "pass");
        match wake_at {
            Some(at) => tick.min(self.clock.real_duration_until(at).max(SHORTEST_WAKE)),
            None => tick,
        }
    }

    /// What is known beside what is seen: pasts, and the last strategic plan.
    async fn recall(&mut self, world: &mut World, now: Timestamp) {
        if let Some(ahead) = self.histories.read(&self.eyes.pools(), now).await {
            self.strategist.resume(ahead, now);
        }
        if self.histories.asks() {
            self.histories
                .recover(&self.eyes.pools(), &self.eyes.models(), now)
                .await;
        }
        if let Some(made) = self.strategist.finished().await {
            self.histories.planned(&made.ahead);
            self.telemetry.ahead(&made);
            self.to_export = self.exporter.is_wanted().then_some(made);
        }
        world.pasts = self.histories.pasts();
        world.unreadable = self.histories.unreadable();
        world.ahead = self.strategist.newest().cloned();
    }

    /// Learns from what was seen, plans ahead from it if it is time, and keeps both.
    fn remember(&mut self, snapshot: &Arc<Snapshot>, world: &World, now: Timestamp) {
        self.histories.learn(snapshot, world, self.eyes.meter.stale());
        if self.histories.is_read() {
            let asked = self.exporter.is_wanted() && self.to_export.is_none();
            self.strategist.consider(snapshot, world, now, asked);
        }
        let newest = self.strategist.newest();
        for written in self.histories.write(&self.eyes.pools(), newest, now) {
            self.telemetry.effect("WriteHistory", written.outcome);
        }
    }

    /// Plans on a thread of its own: a large plan must not hold up the renewal of the leadership.
    async fn plan(&mut self, snapshot: Arc<Snapshot>, now: Timestamp) -> Option<Plan> {
        let began = Instant::now();
        // What a panic leaves half done is not used again.
        let mut memo = std::mem::take(&mut self.memo);
        let planned = tokio::task::spawn_blocking(move || (planning::plan_again(&snapshot, now, &mut memo), memo));
        match planned.await {
            Ok((plan, memo)) => {
                self.memo = memo;
                self.telemetry.plan(&plan, began.elapsed());
                Some(plan)
            }
            Err(failure) => {
                // A bug in the planner. Nothing is done rather than the wrong thing; the next change may pass it by.
                error!(%failure, "planning panicked");
                self.telemetry.error("planning");
                None
            }
        }
    }
}
