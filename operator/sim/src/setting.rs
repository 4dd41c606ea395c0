//! From declared objects to a scenario: what the simulator needs to know of one pool and the groups that may serve it.
//!
//! Pure. The objects are the kernel's, as the controller's own validation made them; who may serve whom is the kernel's
//! decision ([`Feasibility::check`]), so that a replay leaves out exactly what a cluster would.

use std::fmt;

use pomarium_kernel::catalogue::Catalogue;
use pomarium_kernel::feasibility::Feasibility;
use pomarium_kernel::names::{GroupName, PoolId};
use pomarium_kernel::performance::Performance;
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Arrivals, Demand, Group, LengthMix, Ownership, PlacementOrder, Pool, Site, Snapshot};
use pomarium_kernel::time::Timestamp;

use crate::lengths::Lengths;
use crate::machines::GroupModel;
use crate::world::Scenario;

/// One pool, the groups that may serve it, and why others may not.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What is simulated: groups in the order of placement.
    pub scenario: Scenario,
    /// The objects behind it, with the trace's lengths as the pool's. Times of the simulation count from [`Self::epoch`].
    pub snapshot: Snapshot,
    /// The pool.
    pub pool: PoolId,
    /// When the trace begins, by the calendar.
    pub epoch: Timestamp,
    /// Groups that do not take part.
    pub left_out: Vec<LeftOut>,
    /// No group can meet an objective, not even unloaded: the nearest one's answer. Everything is simulated all the same.
    pub unreachable: Option<Problem>,
}

/// A group that does not take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub group: GroupName,
    /// Why.
    pub problem: Problem,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.group, self.problem.message, self.problem.reason)
    }
}

/// Nothing can be simulated.
#[derive(Debug, thiserror::Error)]
pub enum NoSetting {
    /// There is no such pool.
    #[error("finding pool {0} in the manifests")]
    NoPool(PoolId),
    /// No group may serve the pool.
    #[error("finding a group that may serve pool {pool}{}", list(left_out))]
    NoGroup {
        /// The pool.
        pool: PoolId,
        /// All groups, with the reason.
        left_out: Vec<LeftOut>,
    },
}

fn list(left_out: &[LeftOut]) -> String {
    if left_out.is_empty() {
        return ": the manifests have no server group at a known site".to_owned();
    }
    let lines: Vec<String> = left_out.iter().map(ToString::to_string).collect();
    format!("\n  {}", lines.join("\n  "))
}

impl Setting {
    /// The scenario of `pool` with every group of `snapshot` that may serve it, for requests of these lengths.
    pub fn new(mut snapshot: Snapshot, pool: PoolId, lengths: &Lengths, epoch: Timestamp) -> Result<Self, NoSetting> {
        let Some(declared) = snapshot.pools.get_mut(&pool) else {
            return Err(NoSetting::NoPool(pool));
        };
        let demand = |mix: &LengthMix| {
            Demand::Known(Arrivals {
                rate_1m: lengths.rate,
                rate_5m: lengths.rate,
                lengths: Some(mix.clone()),
                at: epoch,
            })
        };
        declared.demand = demand(&lengths.coarse);
        let declared = Pool {
            demand: demand(&lengths.fine),
            ..declared.clone()
        };
        let feasibility = Feasibility::of(&declared, Catalogue::builtin(), epoch);
        let mut candidates = Vec::new();
        let mut too_slow = Vec::new();
        let mut left_out = Vec::new();
        for (name, group) in &snapshot.groups {
            let leave_out = |problem| LeftOut {
                group: name.clone(),
                problem,
            };
            let Some(site) = snapshot.sites.get(&group.site) else {
                let message = format!("site {} is not in the manifests", group.site);
                left_out.push(leave_out(Problem::new(Reason::ReferenceMissing, message)));
                continue;
            };
            match feasibility.check(name, group, site) {
                Ok(figures) => candidates.push(Candidate::new(name, group, site, &figures, epoch)),
                Err(problem) if problem.reason == Reason::ObjectiveUnreachable => {
                    if let Ok(figures) = feasibility.performance(group) {
                        too_slow.push((
                            figures.times.delta_ns,
                            Candidate::new(name, group, site, &figures, epoch),
                        ));
                    }
                    left_out.push(leave_out(problem));
                }
                Err(problem) => left_out.push(leave_out(problem)),
            }
        }
        let mut unreachable = None;
        if candidates.is_empty() {
            // The fastest machine's answer is the nearest to what was asked for.
            too_slow.sort_by_key(|(delta_ns, _)| *delta_ns);
            for (_, candidate) in too_slow {
                if let Some(index) = left_out
                    .iter()
                    .position(|left| left.group.as_str() == candidate.model.name)
                {
                    let left = left_out.remove(index);
                    unreachable.get_or_insert(left.problem);
                }
                candidates.push(candidate);
            }
        }
        if candidates.iter().all(|candidate| candidate.model.max == 0) {
            return Err(NoSetting::NoGroup { pool, left_out });
        }
        let scenario = scenario(&declared, candidates, lengths);
        Ok(Self {
            scenario,
            snapshot,
            pool,
            epoch,
            left_out,
            unreachable,
        })
    }

    /// Machines of all groups.
    pub fn machines(&self) -> u32 {
        self.scenario.groups.iter().map(|group| group.max).sum()
    }
}

/// A group that takes part, with what its place in the order depends on.
struct Candidate {
    ownership: Ownership,
    /// An hour under full load, energy included.
    hourly: f64,
    model: GroupModel,
}

impl Candidate {
    fn new(name: &GroupName, group: &Group, site: &Site, figures: &Performance, epoch: Timestamp) -> Self {
        let due = group.deliveries.iter().filter(|delivery| delivery.at <= epoch);
        let price_per_kwh = site.energy.price_per_kwh.as_f64() * site.energy.pue.max(1.0);
        let hourly = group.pricing.hourly.as_f64();
        Self {
            ownership: site.ownership,
            hourly: hourly + price_per_kwh * group.power.busy_watts / 1e3,
            model: GroupModel {
                name: name.to_string(),
                times: figures.times,
                load_ms: figures.load_time.as_millis(),
                lead_ms: group.lead_time.provision.as_millis(),
                recycle_ms: group.lead_time.recycle.as_millis(),
                minimum_lease_ms: group.pricing.minimum_lease.as_millis(),
                hourly,
                idle_watts: group.power.idle_watts,
                busy_watts: group.power.busy_watts,
                price_per_kwh,
                max: due.fold(group.size.max, |max, delivery| max.saturating_add(delivery.servers)),
                always_on: group.provider.always_on,
            },
        }
    }
}

fn scenario(pool: &Pool, mut candidates: Vec<Candidate>, lengths: &Lengths) -> Scenario {
    candidates.sort_by(|left, right| {
        let by_owner = match pool.placement.order {
            PlacementOrder::OwnedFirst => left.ownership.cmp(&right.ownership),
            PlacementOrder::Cheapest => std::cmp::Ordering::Equal,
        };
        by_owner
            .then(left.hourly.total_cmp(&right.hourly))
            .then(left.model.name.cmp(&right.model.name))
    });
    let groups = candidates.into_iter().map(|candidate| candidate.model).collect();
    let mut scenario = Scenario::new(groups, pool.objectives.clone(), lengths.mean_output);
    scenario.discipline = pool.discipline;
    scenario.context_tokens = pool.model.context_tokens;
    scenario
}
