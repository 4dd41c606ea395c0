//! Carries effects out.
//!
//! One lane per API server and per provider. Effects of a lane happen one after the other, in their order; lanes do not
//! wait for each other, and a pass does not wait for a slow lane: what a lane has not finished in time goes on in the
//! background while the next pass leaves it alone. Nothing is remembered that matters: an effect that was not reached is
//! planned again.
//!
//! # Guarantees
//! - Every call is bounded in time and goes through clients that do not retry behind our backs.
//! - What makes a destructive effect safe is read again right before it, and the call carries uid and resourceVersion.
//! - Nothing is written that is so already. What is gone already (404) or was changed by somebody else (409) is no error.

mod finalizer;
mod kube_call;
mod node;
mod pod;
mod provider;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use pomarium_kernel::names::SiteName;
use pomarium_kernel::snapshot::Load;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::effect::{Applied, Effect, Lane, Outcome};
use crate::member::{Hub, Member, Members};
use crate::provider::Inventories;

/// How long a pass waits for its lanes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks an engine what it is doing, right now.
pub trait AskLoad: Send + Sync {
    /// The answer of the engine in `pod`; unknown if there is none.
    fn ask<'a>(&'a self, site: &'a SiteName, pod: &'a Pod) -> BoxFuture<'a, Load>;
}

/// What effects are done with. Cheap to clone.
#[derive(Clone)]
pub struct Hands {
    /// The hub.
    pub hub: Hub,
    /// The member clusters that answer.
    pub members: Members,
    /// The providers.
    pub inventories: Inventories,
    /// The engines.
    pub loads: Arc<dyn AskLoad>,
}

impl Hands {
    fn member(&self, site: &SiteName) -> Result<Arc<Member>, Outcome> {
        self.members.get(site).ok_or_else(|| Outcome::Failed {
            category: kube_call::UNREACHABLE,
            message: format!("site {site} does not answer"),
        })
    }

    async fn carry_out(&self, effect: &Effect) -> Outcome {
        let result = match effect {
            Effect::AddFinalizer(object) => finalizer::add(&self.hub, object).await,
            Effect::RemoveFinalizer(object) => finalizer::remove(self, object).await,
            Effect::ApplyPod { site, pod, .. } => self.at(site, async |m| pod::apply(m, pod).await).await,
            Effect::SetLifecycle {
                site,
                pod,
                serving,
                drain,
            } => {
                self.at(site, async |m| pod::set_lifecycle(m, pod, *serving, *drain).await)
                    .await
            }
            Effect::DeletePod { site, pod, farewell } => {
                self.at(site, async |m| {
                    pod::delete(m, self.loads.as_ref(), pod, *farewell).await
                })
                .await
            }
            Effect::MarkServer { site, node, drain } => {
                self.at(site, async |m| node::mark(m, node, *drain).await).await
            }
            Effect::UnmarkServer { site, node } => self.at(site, async |m| node::unmark(m, node).await).await,
            Effect::ApplyBudget { site, budget, .. } => {
                self.at(site, async |m| pod::apply_budget(m, budget).await).await
            }
            Effect::DeleteBudget { site, pool } => self.at(site, async |m| pod::delete_budget(m, pool).await).await,
            Effect::RequestServer { group, server, size } => {
                provider::outcome(self.inventories.request(group, server, *size).await)
            }
            Effect::ReleaseServer { group, server, site } => provider::release(self, group, server, site).await,
            Effect::EmptyGroup { group, site, servers } => provider::empty(self, group, servers, site).await,
            Effect::ApplyRoute { route, .. } => route::apply(&self.hub, route).await,
            Effect::Propose(plan) => route::propose(&self.hub, plan).await,
            Effect::RemovePlan { plan, uid } => route::remove_plan(&self.hub, plan, uid).await,
        };
        result.unwrap_or_else(|outcome| outcome)
    }

    async fn at(
        &self,
        site: &SiteName,
        call: impl AsyncFnOnce(&Member) -> Result<Outcome, Outcome>,
    ) -> Result<Outcome, Outcome> {
        let member = self.member(site)?;
        call(&member).await
    }
}

/// Carries effects out, lane by lane.
pub struct Applier {
    hands: Hands,
    busy: BTreeSet<Lane>,
    /// Aborted when the applier is dropped: who does not lead any more does nothing any more.
    tasks: JoinSet<(Lane, Vec<Applied>)>,
}

impl Applier {
    /// Nothing under way.
    pub fn new(hands: Hands) -> Self {
        Self {
            hands,
            busy: BTreeSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Starts all effects and waits for them for a bounded time. Returns what has been finished, by this call's effects
    /// and by earlier ones, and what was not reached.
    pub async fn apply(&mut self, effects: Vec<Effect>) -> Vec<Applied> {
        let mut applied = self.finished();
        let mut lanes: BTreeMap<Lane, Vec<Effect>> = BTreeMap::new();
        // What an earlier pass has under way elsewhere may yet make what a finalizer stands for.
        let unfinished = self.busy.iter().any(|lane| *lane != Lane::Hub);
        for effect in effects {
            if unfinished && matches!(effect, Effect::RemoveFinalizer(_)) {
                applied.push(not_reached(effect));
                continue;
            }
            lanes.entry(effect.lane()).or_default().push(effect);
        }
        for (lane, effects) in lanes {
            if self.busy.contains(&lane) {
                applied.extend(effects.into_iter().map(not_reached));
                continue;
            }
            self.busy.insert(lane.clone());
            let hands = self.hands.clone();
            self.tasks.spawn(async move { (lane, walk(&hands, effects).await) });
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.tasks.is_empty() {
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(Ok((lane, done)))) => {
                    self.busy.remove(&lane);
                    applied.extend(done);
                }
                Ok(Some(Err(error))) => self.lane_lost(&error),
                Ok(None) | Err(_) => break,
            }
        }
        applied
    }

    /// Whether a lane is still at work on an earlier pass's effects.
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// What lanes have finished since the last pass stopped waiting for them.
    fn finished(&mut self) -> Vec<Applied> {
        let mut applied = Vec::new();
        while let Some(joined) = self.tasks.try_join_next() {
            match joined {
                Ok((lane, done)) => {
                    self.busy.remove(&lane);
                    applied.extend(done);
                }
                Err(error) => self.lane_lost(&error),
            }
        }
        applied
    }

    /// A lane's task did not end by itself. Which one it was is not told: all are started anew once none is at work.
    fn lane_lost(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(%error, "a lane ended without a result");
        if self.tasks.is_empty() {
            self.busy.clear();
        }
    }
}

/// One lane, in order. After a call without an answer the rest is left for the next pass: a dead API server must not be
/// asked once per effect.
async fn walk(hands: &Hands, effects: Vec<Effect>) -> Vec<Applied> {
    let mut applied = Vec::with_capacity(effects.len());
    let mut broken = false;
    for effect in effects {
        if broken {
            applied.push(not_reached(effect));
            continue;
        }
        let outcome = hands.carry_out(&effect).await;
        if let Outcome::Failed { category, message } = &outcome {
            tracing::warn!(effect = effect.name(), category, message, "an effect failed");
            broken = *category == kube_call::UNREACHABLE;
        }
        applied.push(Applied { effect, outcome });
    }
    applied
}

fn not_reached(effect: Effect) -> Applied {
    Applied {
        effect,
        outcome: Outcome::NotReached,
    }
}

#[cfg(test)]
mod tests;
