//! The status of a pool, a group and a site. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as ApiCondition;
use pomarium_api::group::{self, ServerCounts, ServerGroupStatus};
use pomarium_api::limits;
use pomarium_api::pool::{BudgetStatus, LastDecision, Observed, PoolMemory, ReplicaCounts, ServerPoolStatus};
use pomarium_api::site::{MetricsAccess, ServerSiteStatus};
use pomarium_kernel::names::{GroupName, PoolId, SiteName};
use pomarium_kernel::plan::{Action, Condition, ConditionKind, Decision, PoolOutlook, Truth};
use pomarium_kernel::reason::Reason;
use pomarium_kernel::snapshot::{Measured, Metric, Objective};
use pomarium_kernel::units::{Money, Rate};

use super::Said;
use super::condition::{conditions, stalled, summary};
use super::steady::steady;
use crate::build::rejected;

/// All statuses that are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statuses {
    /// Of pools.
    pub pools: BTreeMap<PoolId, ServerPoolStatus>,
    /// Of groups.
    pub groups: BTreeMap<GroupName, ServerGroupStatus>,
    /// Of sites.
    pub sites: BTreeMap<SiteName, ServerSiteStatus>,
}

/// The statuses that all objects should have now.
pub fn statuses(said: &Said<'_>) -> Statuses {
    Statuses {
        pools: said.world.pools.keys().map(|id| (id.clone(), pool(said, id))).collect(),
        groups: said
            .world
            .groups
            .keys()
            .map(|name| (name.clone(), group(said, name)))
            .collect(),
        sites: said
            .world
            .sites
            .keys()
            .map(|name| (name.clone(), site(said, name)))
            .collect(),
    }
}

// ---------------------------------------------------------------------------------------------------------------- pools

fn pool(said: &Said<'_>, id: &PoolId) -> ServerPoolStatus {
    let object = said.world.pools.get(id);
    let old = object.and_then(|object| object.status.clone()).unwrap_or_default();
    let generation = object.and_then(|object| object.metadata.generation);
    let outlook = said.plan.pools.get(id);

    let wanted = match (said.world.invalid.pools.get(id), outlook) {
        (Some(problem), _) => stalled(problem),
        (None, Some(outlook)) => with_what_was_applied(said, id, outlook.conditions.clone(), &old.conditions),
        (None, None) => Vec::new(),
    };
    let conditions = conditions(&old.conditions, wanted, generation, &said.clock);
    let cut = said.done.cut.get(id).copied().unwrap_or_default();
    let status = ServerPoolStatus {
        observed_generation: generation,
        summary: summary(&conditions),
        conditions,
        requests_cut: Some(old.requests_cut.unwrap_or_default().saturating_add_unsigned(cut)),
        ..old.clone()
    };
    let Some(outlook) = outlook else { return status };
    ServerPoolStatus {
        replicas: Some(replicas(outlook)),
        observed: Some(observed(said, id, outlook, old.observed.as_ref())),
        last_decision: last_decision(said, id, old.last_decision),
        cost_per_hour: Some(steady(
            old.cost_per_hour.as_deref(),
            amount(outlook.hourly, said.currency),
        )),
        budget: budget(said, id, outlook, old.budget),
        memory: Some(PoolMemory::from(&outlook.memory)),
        ..status
    }
}

/// What was spent of the pool's budget, if it has one and it was counted.
fn budget(said: &Said<'_>, id: &PoolId, outlook: &PoolOutlook, old: Option<BudgetStatus>) -> Option<BudgetStatus> {
    let limit = said.snapshot.pools.get(id)?.budget?.amount;
    let spent = outlook.memory.spent?;
    let new = BudgetStatus {
        period: spent.period.to_string(),
        spent: amount(spent.amount, said.currency),
        limit: amount(limit, said.currency),
        text: format!("{:.2}/{}", spent.amount.as_f64(), amount(limit, said.currency)),
    };
    // Cents by the minute are no news; a hundredth of the budget is.
    let said_before = |old: &BudgetStatus| old.spent.split(' ').next()?.parse::<f64>().ok();
    let close = |before: f64| (spent.amount.as_f64() - before).abs() < limit.as_f64() / 100.0;
    match old {
        Some(old) if old.period == new.period && old.limit == new.limit && said_before(&old).is_some_and(close) => {
            Some(old)
        }
        _ => Some(new),
    }
}

/// The plan's conditions, and what only the attempt could tell.
fn with_what_was_applied(
    said: &Said<'_>,
    id: &PoolId,
    mut wanted: Vec<Condition>,
    old: &[ApiCondition],
) -> Vec<Condition> {
    let asks_for_route = said.world.pools.get(id).is_some_and(|object| {
        let routing = object.spec.routing.as_ref();
        routing.is_some_and(|routing| routing.http_route.is_some())
    });
    if asks_for_route {
        wanted.retain(|condition| condition.kind != ConditionKind::RoutingReady);
        let routed = said.done.routes.get(id).cloned();
        wanted.extend(routed.or_else(|| as_before(old, ConditionKind::RoutingReady)));
    } else if !wanted
        .iter()
        .any(|condition| condition.kind == ConditionKind::RoutingReady)
    {
        wanted.push(Condition {
            kind: ConditionKind::RoutingReady,
            status: Truth::True,
            reason: Reason::NoRouteRequested,
            message: "the pool asks for no route".to_owned(),
        });
    }
    if let Some(failure) = said.done.failures.get(id) {
        // A pool whose effects fail is not on target, whatever the plan thought before it tried.
        for condition in &mut wanted {
            if condition.kind == ConditionKind::Ready && condition.status != Truth::True {
                condition.message = format!("{}; {failure}", condition.message);
            }
        }
    }
    wanted
}

/// A condition as it was, where this pass has nothing to say.
fn as_before(old: &[ApiCondition], kind: ConditionKind) -> Option<Condition> {
    let old = old
        .iter()
        .find(|condition| condition.type_ == super::condition::name(kind))?;
    Some(Condition {
        kind,
        status: match old.status.as_str() {
            "True" => Truth::True,
            "False" => Truth::False,
            _ => Truth::Unknown,
        },
        reason: Reason::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == old.reason)?,
        message: old.message.clone(),
    })
}

fn replicas(outlook: &PoolOutlook) -> ReplicaCounts {
    ReplicaCounts {
        target: whole(outlook.target),
        current: whole(outlook.current),
        serving: whole(outlook.serving),
        draining: whole(outlook.draining),
        text: format!("{}/{}", outlook.serving, outlook.target),
    }
}

fn observed(said: &Said<'_>, id: &PoolId, outlook: &PoolOutlook, old: Option<&Observed>) -> Observed {
    let rate = |rate: Rate| format!("{:.1}", rate.as_per_second());
    let keep = |old: Option<&String>, new: Option<String>| new.map(|new| steady(old.map(String::as_str), new));
    let measured: Vec<String> = said.snapshot.pools.get(id).map_or_else(Vec::new, |pool| {
        let pairs = pool.objectives.iter().zip(&pool.measured).enumerate();
        pairs
            .map(|(index, (objective, measured))| {
                let before = old.and_then(|old| old.objectives.get(index));
                steady(before.map(String::as_str), objective_text(objective, measured))
            })
            .collect()
    });
    Observed {
        demand: keep(old.and_then(|old| old.demand.as_ref()), outlook.demand.map(rate)),
        sustainable: keep(
            old.and_then(|old| old.sustainable.as_ref()),
            outlook.sustainable.map(rate),
        ),
        objectives: measured,
    }
}

/// Such as `p95 TTFT 3.1s ≤ 10s`.
fn objective_text(objective: &Objective, measured: &Measured) -> String {
    let metric = match objective.metric {
        Metric::TimeToFirstToken => "TTFT",
        Metric::InterTokenLatency => "ITL",
    };
    let percentile = objective.percentile.get() * 100.0;
    let threshold = objective.threshold;
    match measured {
        Measured::Known { value_ms, .. } => {
            let sign = if *value_ms <= threshold.as_millis() as f64 {
                "≤"
            } else {
                ">"
            };
            let value = if *value_ms < 1_000.0 {
                format!("{value_ms:.1}ms")
            } else {
                format!("{:.1}s", value_ms / 1_000.0)
            };
            format!("p{percentile:.0} {metric} {value} {sign} {threshold}")
        }
        Measured::ModelOnly => format!("p{percentile:.0} {metric} not measured by this engine ≤ {threshold}"),
        Measured::Unknown { .. } => format!("p{percentile:.0} {metric} unknown ≤ {threshold}"),
    }
}

/// The first thing that this plan does for the pool; what was last done, if it does nothing.
fn last_decision(said: &Said<'_>, id: &PoolId, old: Option<LastDecision>) -> Option<LastDecision> {
    let Some(decision) = said.plan.decisions.iter().find(|decision| is_for(&decision.action, id)) else {
        return old;
    };
    let new = LastDecision {
        at: said.now.to_string(),
        reason: decision.reason.to_string(),
        message: limits::clip(&decision.message, limits::MESSAGE),
        rejected: rejected_of(decision, said.currency),
    };
    match old {
        // The same decision stands: it was taken when it was taken.
        Some(old) if old.reason == new.reason && steady(Some(&old.message), new.message.clone()) == old.message => {
            Some(old)
        }
        _ => Some(new),
    }
}

fn rejected_of(decision: &Decision, currency: &str) -> Vec<pomarium_api::pool::RejectedAlternative> {
    let all = decision.rejected.iter().take(Decision::MAX_REJECTED);
    all.map(|each| rejected(each, currency)).collect()
}

fn is_for(action: &Action, id: &PoolId) -> bool {
    match action {
        Action::StartReplica { pool, .. }
        | Action::OpenReplica { pool, .. }
        | Action::DrainReplica { pool, .. }
        | Action::RemoveReplica { pool, .. } => pool == id,
        _ => false,
    }
}

// --------------------------------------------------------------------------------------------------------------- groups

fn group(said: &Said<'_>, name: &GroupName) -> ServerGroupStatus {
    let object = said.world.groups.get(name);
    let old = object.and_then(|object| object.status.clone()).unwrap_or_default();
    let generation = object.and_then(|object| object.metadata.generation);
    let outlook = said.plan.groups.get(name);
    let wanted = match (said.world.invalid.groups.get(name), outlook) {
        (Some(problem), _) => stalled(problem),
        (None, Some(outlook)) => outlook.conditions.clone(),
        (None, None) => Vec::new(),
    };
    let conditions = conditions(&old.conditions, wanted, generation, &said.clock);
    let status = ServerGroupStatus {
        observed_generation: generation,
        summary: summary(&conditions),
        conditions,
        ..old.clone()
    };
    let Some(outlook) = outlook else { return status };
    let answered = said.world.inventories.get(name);
    // Without an answer what was known before still holds.
    let out_of_stock_since = match answered {
        Some(answer) => answer.out_of_stock_since,
        None => said
            .snapshot
            .groups
            .get(name)
            .and_then(|group| group.out_of_stock_since),
    };
    ServerGroupStatus {
        servers: Some(ServerCounts {
            target: whole(outlook.target),
            ready: whole(outlook.ready),
            used: whole(outlook.used),
            by_state: outlook
                .by_state
                .iter()
                .map(|(state, count)| (state.clone(), whole(*count)))
                .collect(),
        }),
        leases: Some(whole(outlook.leases)),
        next_lease_end: outlook.next_lease_end.map(|end| end.to_string()),
        cost_per_hour: Some(steady(
            old.cost_per_hour.as_deref(),
            amount(outlook.hourly, said.currency),
        )),
        memory: Some(group::GroupMemory::new(&outlook.memory, out_of_stock_since)),
        ..status
    }
}

// ---------------------------------------------------------------------------------------------------------------- sites

fn site(said: &Said<'_>, name: &SiteName) -> ServerSiteStatus {
    let seen = said.world.sites.get(name);
    let object = seen.map(|seen| &seen.object);
    let old = object.and_then(|object| object.status.clone()).unwrap_or_default();
    let generation = object.and_then(|object| object.metadata.generation);
    let outlook = said.plan.sites.get(name);
    let problem = seen.and_then(|seen| seen.problem.as_ref());
    let mut wanted = match (said.world.invalid.sites.get(name).or(problem), outlook) {
        (Some(problem), _) => stalled(problem),
        (None, Some(outlook)) => outlook.conditions.clone(),
        (None, None) => Vec::new(),
    };
    if object.is_some_and(|object| object.spec.metrics_access == Some(MetricsAccess::Prometheus)) {
        wanted.push(Condition {
            kind: ConditionKind::MetricsAvailable,
            status: Truth::False,
            reason: Reason::MetricsUnavailable,
            message: "metricsAccess: Prometheus is not supported yet: no engine of this site is asked, so that drains wait for \
                      their deadline and pools with metrics.source: Engine keep what they have; use Direct or PodProxy"
                .to_owned(),
        });
    }
    let conditions = conditions(&old.conditions, wanted, generation, &said.clock);
    ServerSiteStatus {
        observed_generation: generation,
        summary: summary(&conditions),
        conditions,
        kubernetes_version: seen
            .and_then(|seen| seen.version.clone())
            .or_else(|| old.kubernetes_version.clone()),
        servers_ready: outlook.map(|outlook| whole(outlook.ready)).or(old.servers_ready),
        cost_per_hour: outlook
            .map(|outlook| steady(old.cost_per_hour.as_deref(), amount(outlook.hourly, said.currency)))
            .or_else(|| old.cost_per_hour.clone()),
    }
}

/// Rounded to cents: `11.82 USD`.
fn amount(amount: Money, currency: &str) -> String {
    format!("{:.2} {currency}", amount.as_f64())
}

fn whole(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
