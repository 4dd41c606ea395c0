//! Arrivals, latencies and loads, from gateways, engines or Prometheus.
//!
//! A background task asks all sources at its own pace; the pass says whom to ask and reads the last answers, with their
//! age. It never waits.
//!
//! # Guarantees
//! - Missing, malformed, slow, huge or old answers are *unknown*: never zero, and never idle.
//! - What one source answers harms no other: every request is bounded in time and size, and so is their number.
//! - Demand counts only when every serving replica answered (source `Engine`): a part is not the whole. It is the least
//!   that arrives, which is enough to add capacity for and never to take any away.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`exposition`] | reads the text format |
//! | [`scrape`] | sorts one answer into quantities |
//! | [`engine`], [`gateway`], [`prometheus`] | what the metrics are called |
//! | [`histogram`], [`ledger`] | percentiles, attainment, rates and lengths from what was counted |
//! | [`target`] | whom to ask |
//! | [`ask`] | asks one engine |
//! | [`groups`] | latencies of each group's engines |
//! | [`silence`] | engines that do not answer any more |

mod ask;
pub(crate) mod engine;
pub(crate) mod exposition;
pub(crate) mod gateway;
mod groups;
pub(crate) mod histogram;
pub(crate) mod ledger;
pub(crate) mod prometheus;
pub(crate) mod scrape;
mod silence;
pub(crate) mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use pomarium_api::pool::MetricsSource;
use pomarium_kernel::names::{GroupName, PoolId};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Load, Snapshot};
use pomarium_kernel::time::{Span, Timestamp};
use reqwest::Method;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::fetch::{self, Bounds};
use crate::latest::{Latest, Trigger};
use crate::member::Members;
use crate::world::{Measurement, World};

use self::ledger::Ledger;
use self::scrape::Scrape;
use self::silence::Silence;

pub use self::ask::Engines;
use self::target::{PodTarget, PoolTarget, Targets};

/// Between two rounds, in virtual time.
const INTERVAL: Span = Span::from_secs(15);
/// Between two looks at replicas that are being drained, in virtual time.
const DRAIN_INTERVAL: Span = Span::from_secs(2);
/// No shorter in real time, however compressed time is.
const SHORTEST: Duration = Duration::from_millis(100);
/// Samples older than this are no measurement of now.
const STALE: Span = Span::from_secs(45);
/// However compressed time is, a sample is not stale before this many questions in a row could have timed out.
const TRIES: u32 = 3;
/// Engines asked at the same time.
const CONCURRENCY: usize = 32;
/// An answer is never longer. vLLM's is about 100 kB, a gateway's with a thousand pools a few megabytes.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// Where metrics are read, as the operator was started.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The gateway's metrics.
    pub gateway: Option<String>,
    /// Prometheus.
    pub prometheus: Option<String>,
}

/// Measures in the background. Clones share everything.
#[derive(Clone)]
pub struct Meter {
    clock: Clock,
    sources: Sources,
    http: reqwest::Client,
    engines: Engines,
    targets: Arc<Mutex<Arc<Targets>>>,
    answers: Latest<PoolId, Measurement>,
    trigger: Trigger,
}

/// What the background task keeps from round to round. Locked only between questions, never during one.
#[derive(Default)]
struct Memory {
    ledgers: BTreeMap<PoolId, Ledger>,
    /// Of the engines of each pool in each group.
    engines: BTreeMap<(PoolId, GroupName), Ledger>,
    loads: BTreeMap<String, Load>,
    silent: Silence,
}

impl Memory {
    fn ledger(&mut self, pool: &PoolId, now: Timestamp) -> &mut Ledger {
        self.ledgers.entry(pool.clone()).or_insert_with(|| Ledger::open(now))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meter {
    /// Nothing measured yet. `trigger` is pulled when a replica that is being drained becomes quiet.
    pub fn new(sources: Sources, members: Members, clock: Clock, trigger: Trigger) -> Self {
        let http = fetch::client();
        Self {
            clock,
            sources,
            engines: Engines::new(http.clone(), members, clock),
            http,
            targets: Arc::default(),
            answers: Latest::new(trigger.clone()),
            trigger,
        }
    }

    /// Says whom to ask: everybody that this pass has seen.
    pub fn look_at(&self, snapshot: &Snapshot, world: &World) {
        self.engines.set_access(target::access(world));
        self.set_targets(Targets::new(snapshot, world));
    }

    fn set_targets(&self, targets: Targets) {
        *lock(&self.targets) = Arc::new(targets);
    }

    /// The last measurements.
    pub fn answers(&self) -> BTreeMap<PoolId, Arc<Measurement>> {
        self.answers.all()
    }

    /// Asks one engine at a time, right now.
    pub fn engines(&self) -> Engines {
        self.engines.clone()
    }

    /// Measures on until dropped. Gateways, engines and drains are asked independently: a slow engine delays its own kind.
    pub async fn run(self) {
        let memory = Mutex::default();
        let shared = async {
            loop {
                let next = self.next(INTERVAL);
                self.ask_shared(&self.current_targets(), &memory).await;
                tokio::time::sleep_until(next).await;
            }
        };
        let engines = async {
            loop {
                let next = self.next(INTERVAL);
                self.ask_all_engines(&self.current_targets(), &memory).await;
                tokio::time::sleep_until(next).await;
            }
        };
        let drains = async {
            loop {
                let next = self.next(DRAIN_INTERVAL);
                self.ask_drains(&self.current_targets(), &memory).await;
                tokio::time::sleep_until(next).await;
            }
        };
        let ((), (), ()) = tokio::join!(shared, engines, drains);
    }

    fn next(&self, span: Span) -> Instant {
        Instant::now() + self.real(span)
    }

    /// Asks the sources that speak for all pools.
    async fn ask_shared(&self, targets: &Targets, memory: &Mutex<Memory>) {
        let (gateway, prometheus) = tokio::join!(self.ask_gateway(targets), self.ask_prometheus(targets));
        let now = self.clock.now();
        let mut memory = lock(memory);
        memory.ledgers.retain(|pool, _| targets.pools.contains_key(pool));
        for (pool, target) in &targets.pools {
            let answer = match target.source {
                MetricsSource::Gateway => &gateway,
                MetricsSource::Prometheus => &prometheus,
                MetricsSource::Engine => continue,
            };
            absorb_shared(memory.ledger(pool, now), pool, answer, now);
        }
        self.publish(targets, &memory, now);
    }

    /// Asks every engine.
    async fn ask_all_engines(&self, targets: &Targets, memory: &Mutex<Memory>) {
        let asked_at = self.clock.now();
        let engines = self.ask_engines(targets, |_| true).await;
        let now = self.clock.now();
        let mut memory = lock(memory);
        memory.loads.retain(|uid, _| engines.contains_key(uid));
        memory.silent.retain(|uid| engines.contains_key(uid));
        memory.engines.retain(|(pool, _), _| targets.pools.contains_key(pool));
        for (uid, scrape) in &engines {
            memory.silent.note(uid, scrape.is_some(), asked_at);
            memory.loads.insert(uid.clone(), load_of(scrape.as_ref()));
        }
        for (pool, target) in &targets.pools {
            if target.source == MetricsSource::Engine {
                absorb_engines(memory.ledger(pool, now), pool, target, &engines, now);
            }
            groups::absorb(&mut memory.engines, pool, target, &engines, now);
        }
        self.publish(targets, &memory, now);
    }

    /// Asks the engines that are being drained, and wakes the loop when one has become quiet.
    async fn ask_drains(&self, targets: &Targets, memory: &Mutex<Memory>) {
        let seen = self.ask_engines(targets, |pod| pod.draining).await;
        if seen.is_empty() {
            return;
        }
        let mut quiet = false;
        {
            let mut memory = lock(memory);
            for (uid, scrape) in &seen {
                let load = load_of(scrape.as_ref());
                let before = memory.loads.insert(uid.clone(), load);
                quiet |= is_quiet(Some(&load)) && !is_quiet(before.as_ref());
            }
            self.publish(targets, &memory, self.clock.now());
        }
        if quiet {
            self.trigger.wake();
        }
    }

    fn publish(&self, targets: &Targets, memory: &Memory, now: Timestamp) {
        let stale = self.stale();
        for (pool, target) in &targets.pools {
            let Some(ledger) = memory.ledgers.get(pool) else {
                continue;
            };
            let names = match target.source {
                MetricsSource::Engine => engine::names(target.engine),
                MetricsSource::Gateway | MetricsSource::Prometheus => &gateway::NAMES,
            };
            let measured = target
                .objectives
                .iter()
                .map(|objective| ledger.measured(objective, names, pool, now, stale));
            let loads = target
                .pods
                .iter()
                .filter_map(|pod| Some((pod.uid.clone(), *memory.loads.get(&pod.uid)?)));
            let silent = target
                .pods
                .iter()
                .filter_map(|pod| Some((pod.uid.clone(), memory.silent.since(&pod.uid)?)));
            let measurement = Measurement {
                demand: ledger.demand(pool, now, stale),
                measured: measured.collect(),
                engines: groups::measured(&memory.engines, pool, target, now),
                counted: ledger.counted(&target.objectives),
                loads: loads.collect(),
                silent: silent.collect(),
            };
            // Quietly: it differs after every round, and the next tick is soon enough.
            self.answers.put_quietly(pool.clone(), measurement);
        }
        self.answers.retain(|pool| targets.pools.contains_key(pool));
    }

    async fn ask_gateway(&self, targets: &Targets) -> Result<BTreeMap<PoolId, Scrape>, String> {
        let pools = targets.of_source(MetricsSource::Gateway);
        if pools.is_empty() {
            return Ok(BTreeMap::new());
        }
        let url = self
            .sources
            .gateway
            .as_ref()
            .ok_or("the operator was started without --gateway-metrics-url")?;
        let text = self.get(url).await?;
        if exposition::samples(&text, |_| true).next().is_none() {
            return Err("its answer is not in Prometheus' text format".to_owned());
        }
        Ok(gateway::by_pool(&text, pools))
    }

    async fn ask_prometheus(&self, targets: &Targets) -> Result<BTreeMap<PoolId, Scrape>, String> {
        let pools = targets.of_source(MetricsSource::Prometheus);
        if pools.is_empty() {
            return Ok(BTreeMap::new());
        }
        let url = self
            .sources
            .prometheus
            .as_ref()
            .ok_or("the operator was started without --prometheus-url")?;
        let url = format!("{}{}", url.trim_end_matches('/'), prometheus::query_path());
        let text = self.get(&url).await?;
        let answered = prometheus::Answered::read(&text).ok_or("Prometheus did not answer the query")?;
        Ok(gateway::sort_by_pool(&answered.samples(), pools))
    }

    async fn get(&self, url: &str) -> Result<String, String> {
        match fetch::send(&self.http, Method::GET, url, self.bounds()).await {
            Ok((status, text)) if status.is_success() => Ok(text),
            Ok((status, _)) => Err(format!("it answered {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Asks the engines that `wanted` chooses. Those that did not answer are there without an answer.
    async fn ask_engines(
        &self,
        targets: &Targets,
        wanted: impl Fn(&PodTarget) -> bool,
    ) -> BTreeMap<String, Option<(Scrape, Timestamp)>> {
        let pods: Vec<_> = targets
            .pools
            .values()
            .flat_map(|pool| pool.pods.iter().map(|pod| (pod.clone(), pool.engine)))
            .filter(|(pod, _)| wanted(pod))
            .collect();
        let bounds = self.bounds();
        stream::iter(pods)
            .map(|(pod, engine)| async move {
                let names = engine::names(engine);
                // The time before the question: an answer is never newer than it says.
                let asked_at = self.clock.now();
                let answer = match self.engines.read(&pod.address, bounds).await {
                    Ok(text) => readable(Scrape::read(&text, names), &pod).map(|scrape| (scrape, asked_at)),
                    Err(error) => {
                        tracing::debug!(pod = pod.address.name, %error, "an engine did not answer");
                        None
                    }
                };
                (pod.uid, answer)
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await
    }

    fn current_targets(&self) -> Arc<Targets> {
        Arc::clone(&lock(&self.targets))
    }

    fn real(&self, span: Span) -> Duration {
        self.clock.real_duration(span).max(SHORTEST)
    }

    /// Measurements that are further apart have a gap between them.
    pub(crate) fn stale(&self) -> Span {
        STALE.max(self.clock.virtual_span(self.bounds().time * TRIES))
    }

    /// Within one interval, but never so short that a busy machine could not answer in time.
    fn bounds(&self) -> Bounds {
        Bounds {
            time: self
                .real(INTERVAL)
                .clamp(Duration::from_millis(1_500), Duration::from_secs(10)),
            bytes: LONGEST_ANSWER,
        }
    }
}

/// An engine always tells its load. An answer without it, such as a proxy's page with status 200, is no answer: counted as
/// one, it would look like no demand at all.
fn readable(scrape: Scrape, pod: &PodTarget) -> Option<Scrape> {
    if scrape.running.is_none() && scrape.queued.is_none() {
        tracing::debug!(pod = pod.address.name, "an engine's answer has none of its metrics");
        return None;
    }
    Some(scrape)
}

fn load_of(answer: Option<&(Scrape, Timestamp)>) -> Load {
    answer.map_or(Load::Unknown, |(scrape, at)| engine::load(scrape, *at))
}

fn is_quiet(load: Option<&Load>) -> bool {
    matches!(
        load,
        Some(Load::Known {
            running: 0,
            queued: 0,
            ..
        })
    )
}

fn absorb_shared(
    ledger: &mut Ledger,
    pool: &PoolId,
    answer: &Result<BTreeMap<PoolId, Scrape>, String>,
    now: Timestamp,
) {
    match answer {
        Ok(scrapes) => {
            // A pool that the answer does not mention has no series yet; the one that will come begins at zero.
            ledger.absorb(String::new(), scrapes.get(pool).cloned().unwrap_or_default());
            ledger.complete(now);
        }
        Err(why) => ledger.incomplete(unavailable(pool, why)),
    }
}

fn absorb_engines(
    ledger: &mut Ledger,
    pool: &PoolId,
    target: &PoolTarget,
    engines: &BTreeMap<String, Option<(Scrape, Timestamp)>>,
    now: Timestamp,
) {
    let mut silent = 0;
    for pod in &target.pods {
        match engines.get(&pod.uid) {
            Some(Some((scrape, _))) => ledger.absorb(pod.uid.clone(), scrape.clone()),
            _ if pod.serving => silent += 1,
            _ => {}
        }
    }
    let known: BTreeSet<_> = target.pods.iter().map(|pod| pod.uid.clone()).collect();
    ledger.keep_sources(&known);
    match (silent, target.pods.iter().filter(|pod| pod.serving).count()) {
        (_, 0) => ledger.incomplete(unavailable(pool, "no replica serves")),
        (0, _) => ledger.complete(now),
        (silent, all) => {
            let problem = unavailable(pool, &format!("{silent} of {all} serving replicas did not answer"));
            if silent < all {
                ledger.incomplete_at(now, problem);
            } else {
                ledger.incomplete(problem);
            }
        }
    }
}

fn unavailable(pool: &PoolId, why: &str) -> Problem {
    Problem::new(Reason::MetricsUnavailable, format!("metrics of {pool}: {why}"))
}

#[cfg(test)]
mod tests;
