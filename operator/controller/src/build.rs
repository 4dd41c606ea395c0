//! From a plan to effects: pure.
//!
//! Looks up what the plan names in what has been seen, and writes down the API objects that are wanted. It decides
//! nothing: an action whose subject is not there any more is left out, and the next pass plans anew.
//!
//! A finalizer goes on an object before anything outside of the hub is made for it. An object that is seen without it
//! gets it now and everything else in the next pass, which its own watch event starts.

mod budget;
mod cleanup;
mod name;
mod outlook;
mod pod;
mod proposal;
mod strategic;

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use pomarium_api::labels;
use pomarium_kernel::lifecycle::{Drain, DrainStep, ReplicaState, ServerState};
use pomarium_kernel::names::{GroupName, PoolId, ReplicaId, Revision, ServerName, SiteName};
use pomarium_kernel::plan::{Action, Decision, Plan, Verdict};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Contact, Mode, Server, Snapshot};
use pomarium_kernel::time::Timestamp;

pub(crate) use budget::key as budget_key;
pub use name::replica_name;
pub(crate) use name::short_name;
pub use pod::tolerates;
pub(crate) use proposal::rejected;
pub(crate) use strategic::{SAME, is_over};

use crate::effect::{Effect, Farewell, NodeRef, Object, PodRef, ServerDrain};
use crate::route;
use crate::world::{NodeSeen, ObjectKey, PodSeen, World};

/// What effects carry beside what has been seen.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Uid of the hub's `kube-system` namespace: marks what is ours in member clusters.
    pub hub_uid: &'a str,
    /// The operator's own namespace.
    pub namespace: &'a str,
    /// The hub's one currency, as amounts are printed with.
    pub currency: &'a str,
    /// The virtual time of the pass.
    pub now: Timestamp,
}

/// Everything that `plan` means for the world, in order.
pub fn effects(plan: &Plan, snapshot: &Snapshot, world: &World, context: &Context<'_>) -> Vec<Effect> {
    let mut build = Build {
        snapshot,
        world,
        context,
        sizes: BTreeMap::new(),
        effects: Vec::new(),
    };
    build.add_finalizers();
    // What is only proposed becomes a ServerPlan and nothing else.
    for decision in plan
        .decisions
        .iter()
        .filter(|decision| decision.verdict == Verdict::Act)
    {
        build.decision(decision);
    }
    build.empty_groups(plan);
    build
        .effects
        .extend(proposal::proposals(plan, snapshot, world, context));
    build.effects.extend(strategic::plans(snapshot, world, context));
    build.effects.extend(route::routes(plan, snapshot, world));
    build.effects.extend(cleanup::cleanup(world));
    build.effects
}

struct Build<'a> {
    snapshot: &'a Snapshot,
    world: &'a World,
    context: &'a Context<'a>,
    /// Sizes that this plan has asked for so far.
    sizes: BTreeMap<GroupName, u32>,
    effects: Vec<Effect>,
}

impl<'a> Build<'a> {
    /// Every usable object that is not being deleted carries the finalizer.
    fn add_finalizers(&mut self) {
        let pools = self.world.pools.iter().map(|(id, pool)| {
            let wanted = self.snapshot.pools.contains_key(id) && needs_finalizer(pool.as_ref());
            (wanted, Object::Pool(id.clone()))
        });
        let groups = self.world.groups.iter().map(|(name, group)| {
            let wanted =
                usable(self.snapshot.groups.get(name).map(|group| &group.problem)) && needs_finalizer(group.as_ref());
            (wanted, Object::Group(name.clone()))
        });
        let sites = self.world.sites.iter().map(|(name, site)| {
            let wanted = usable(self.snapshot.sites.get(name).map(|site| &site.problem))
                && needs_finalizer(site.object.as_ref());
            (wanted, Object::Site(name.clone()))
        });
        self.effects.extend(
            pools
                .chain(groups)
                .chain(sites)
                .filter(|(wanted, _)| *wanted)
                .map(|(_, object)| Effect::AddFinalizer(object)),
        );
    }

    fn decision(&mut self, decision: &Decision) {
        let effect = match &decision.action {
            Action::RequestServer { group, server } => self.request(group, server),
            Action::DrainServer { group, server } => self.mark(group, server, decision.reason),
            Action::UndrainServer { group, server } => self.unmark(group, server),
            Action::ReleaseServer { group, server } => self.release(group, server),
            Action::StartReplica {
                pool,
                group,
                server,
                revision,
            } => self.start(pool, group, server, revision),
            Action::OpenReplica { pool, replica } => self.open(pool, replica),
            Action::DrainReplica {
                pool,
                replica,
                step,
                deadline,
            } => self.drain(pool, replica, *step, *deadline, decision.reason),
            Action::RemoveReplica {
                pool,
                replica,
                uid,
                cut,
            } => self.remove(pool, replica, uid, *cut, decision.reason),
        };
        self.effects.extend(effect);
    }

    // ------------------------------------------------------------------------------------------------------- servers

    fn request(&mut self, group: &GroupName, server: &ServerName) -> Option<Effect> {
        let seen = self.snapshot.groups.get(group)?;
        let object = self.world.groups.get(group)?;
        let decided = seen.mode == Mode::Auto || seen.approved_requests().any(|approved| approved == server);
        if !decided || needs_finalizer(object.as_ref()) || object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let answered = self.world.inventories.get(group).and_then(|answer| answer.size);
        let size = self.sizes.entry(group.clone()).or_insert(answered.unwrap_or_default());
        *size = size.saturating_add(1);
        Some(Effect::RequestServer {
            group: group.clone(),
            server: server.clone(),
            size: *size,
        })
    }

    fn mark(&self, group: &GroupName, server: &ServerName, reason: Reason) -> Option<Effect> {
        let (site, node) = self.node(group, server)?;
        let marked = node.annotations.contains_key(labels::SERVER_DRAIN) && is_tainted(node);
        (!marked).then(|| Effect::MarkServer {
            site,
            node: reference(node),
            drain: ServerDrain {
                since: self.context.now,
                reason,
            },
        })
    }

    fn unmark(&self, group: &GroupName, server: &ServerName) -> Option<Effect> {
        let (site, node) = self.node(group, server)?;
        let marked = node.annotations.contains_key(labels::SERVER_DRAIN) || is_tainted(node);
        marked.then(|| Effect::UnmarkServer {
            site,
            node: reference(node),
        })
    }

    fn release(&self, group: &GroupName, server: &ServerName) -> Option<Effect> {
        let seen = self.snapshot.groups.get(group)?;
        // Who deletes a group has decided to do without its servers.
        let decided = seen.mode == Mode::Auto || seen.deleting || seen.may_release(server);
        (decided && seen.provider.releases_chosen).then(|| Effect::ReleaseServer {
            group: group.clone(),
            server: server.clone(),
            site: seen.site.clone(),
        })
    }

    /// A provider that cannot be told which server to take only goes to zero, and only when the plan lets all of them go.
    fn empty_groups(&mut self, plan: &Plan) {
        let mut released: BTreeMap<&GroupName, BTreeSet<&ServerName>> = BTreeMap::new();
        for decision in &plan.decisions {
            if let Action::ReleaseServer { group, server } = &decision.action {
                released.entry(group).or_default().insert(server);
            }
        }
        for (group, servers) in released {
            let Some(seen) = self.snapshot.groups.get(group) else {
                continue;
            };
            let released = |(name, server): (&ServerName, &Server)| servers.contains(name) || is_gone(server.state);
            let all = seen.inventory.is_known() && seen.inventory.servers().iter().all(released);
            if (seen.mode == Mode::Auto || seen.deleting) && !seen.provider.releases_chosen && all {
                self.effects.push(Effect::EmptyGroup {
                    group: group.clone(),
                    site: seen.site.clone(),
                    servers: servers.into_iter().cloned().collect(),
                });
            }
        }
    }

    fn node(&self, group: &GroupName, server: &ServerName) -> Option<(SiteName, &'a NodeSeen)> {
        let site = &self.snapshot.groups.get(group)?.site;
        let node = self.world.sites.get(site)?.nodes.get(server)?;
        Some((site.clone(), node))
    }

    // ------------------------------------------------------------------------------------------------------ replicas

    fn start(&mut self, pool: &PoolId, group: &GroupName, server: &ServerName, revision: &Revision) -> Option<Effect> {
        let object = self.world.pools.get(pool)?;
        let (site_name, node) = self.node(group, server)?;
        let site = self.world.sites.get(&site_name)?;
        let ready = !needs_finalizer(object.as_ref()) && !needs_finalizer(site.object.as_ref());
        let reachable = self.snapshot.sites.get(&site_name)?.contact == Contact::Reachable;
        if !ready || !reachable || object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let budget = budget::key(pool);
        let pending = self.effects.iter().any(
            |effect| matches!(effect, Effect::ApplyBudget { site, pool: of, .. } if *site == site_name && of == pool),
        );
        if !site.budgets.contains_key(&budget) && !pending {
            // Before the first Pod: from its first request on, nobody else may evict it.
            self.effects.push(Effect::ApplyBudget {
                site: site_name.clone(),
                pool: pool.clone(),
                budget: Box::new(budget::budget(pool, object, self.context.hub_uid)),
            });
        }
        let drain = self.snapshot.pools.get(pool)?.drain;
        let pod = pod::pod(&pod::Wanted {
            pool,
            object,
            site: &site_name,
            group,
            node,
            revision,
            drain_timeout: drain.timeout,
            hub_uid: self.context.hub_uid,
        });
        Some(Effect::ApplyPod {
            site: site_name,
            pool: pool.clone(),
            pod: Box::new(pod),
        })
    }

    fn open(&self, pool: &PoolId, replica: &ReplicaId) -> Option<Effect> {
        let (site, pod) = self.pod(pool, replica, None)?;
        let open = is_serving(pod) && pod.drain.is_none();
        (!open).then(|| Effect::SetLifecycle {
            site,
            pod: pod_reference(pool, pod),
            serving: true,
            drain: None,
        })
    }

    fn drain(
        &self,
        pool: &PoolId,
        replica: &ReplicaId,
        step: DrainStep,
        deadline: Timestamp,
        reason: Reason,
    ) -> Option<Effect> {
        let (site, pod) = self.pod(pool, replica, None)?;
        let before = pod.drain.as_deref().and_then(read_drain);
        let drain = match before {
            // A repeated step keeps its start and its first reason; a deadline only comes nearer.
            Some(before) => Drain {
                step,
                step_since: if before.step == step {
                    before.step_since
                } else {
                    self.context.now
                },
                reason: before.reason,
                deadline: before.deadline.min(deadline),
            },
            None => Drain {
                step,
                step_since: self.context.now,
                reason,
                deadline,
            },
        };
        let unchanged = before == Some(drain) && !is_serving(pod);
        (!unchanged).then(|| Effect::SetLifecycle {
            site,
            pod: pod_reference(pool, pod),
            serving: false,
            drain: Some(drain),
        })
    }

    fn remove(&self, pool: &PoolId, replica: &ReplicaId, uid: &str, cut: u32, reason: Reason) -> Option<Effect> {
        let (site, pod) = self.pod(pool, replica, Some(uid))?;
        let state = self.snapshot.pools.get(pool)?.running.get(replica)?.state;
        let farewell = match (cut, state) {
            (requests @ 1.., _) => Farewell::Cut { requests },
            (0, _) if reason == Reason::DeadlineCut => Farewell::Cut { requests: 0 },
            (0, ReplicaState::Ended | ReplicaState::Pending | ReplicaState::Loading) => Farewell::NotRunning,
            (0, _) if reason == Reason::ReplicaLost => Farewell::Lost,
            (0, ReplicaState::Ready | ReplicaState::Suspect | ReplicaState::Terminating) => Farewell::Quiet,
        };
        Some(Effect::DeletePod {
            site,
            pod: pod_reference(pool, pod),
            farewell,
        })
    }

    fn pod(&self, pool: &PoolId, replica: &ReplicaId, uid: Option<&str>) -> Option<(SiteName, &'a PodSeen)> {
        let key = ObjectKey::new(pool.namespace.clone(), replica.name.as_str());
        let pod = self.world.sites.get(&replica.site)?.pods.get(&key)?;
        let same = uid.is_none_or(|uid| pod.uid == uid);
        same.then(|| (replica.site.clone(), pod.as_ref()))
    }
}

/// The drain that an annotation records, if it can be read.
pub(crate) fn read_drain(annotation: &str) -> Option<Drain> {
    serde_json::from_str(annotation).ok()
}

/// An object that is in the snapshot without a problem.
fn usable(problem: Option<&Option<Problem>>) -> bool {
    problem.is_some_and(Option::is_none)
}

/// Given back already.
fn is_gone(state: ServerState) -> bool {
    matches!(
        state,
        ServerState::Releasing | ServerState::Recycling | ServerState::Gone
    )
}

fn needs_finalizer(object: &impl ResourceExt) -> bool {
    object.meta().deletion_timestamp.is_none() && !has_finalizer(object)
}

fn has_finalizer(object: &impl ResourceExt) -> bool {
    object.finalizers().iter().any(|name| name == labels::FINALIZER)
}

fn is_serving(pod: &PodSeen) -> bool {
    pod.labels.get(labels::SERVING).is_some_and(|value| value == "true")
}

fn is_tainted(node: &NodeSeen) -> bool {
    node.taints.iter().any(|taint| taint.key == labels::DRAINING_TAINT)
}

fn reference(node: &NodeSeen) -> NodeRef {
    NodeRef {
        name: node.name.clone(),
        uid: node.uid.clone(),
    }
}

fn pod_reference(pool: &PoolId, pod: &PodSeen) -> PodRef {
    PodRef {
        key: pod.key(),
        uid: pod.uid.clone(),
        pool: pool.clone(),
    }
}

#[cfg(test)]
mod tests;
