//! `ServerPlan`s: what would be done where people want to be asked.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::api::ObjectMeta;
use pomarium_api::limits;
use pomarium_api::plan::{PlannedAction, ServerPlan, ServerPlanSpec, Subject, SubjectKind};
use pomarium_api::pool::RejectedAlternative;
use pomarium_kernel::names::GroupName;
use pomarium_kernel::plan::{Action, Decision, Plan, Rejected, Verdict};
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Money;

use super::Context;
use super::name::fnv1a;
use crate::effect::Effect;
use crate::world::{ObjectKey, World};

/// Proposals expire at the second midnight, UTC: the same proposal made again on the same day is the same object.
const DAY: Span = Span::from_hours(24);

/// One plan per group of which servers would be asked for or given back, if people agreed.
pub(super) fn proposals(plan: &Plan, snapshot: &Snapshot, world: &World, context: &Context<'_>) -> Vec<Effect> {
    let mut by_group: BTreeMap<&GroupName, Vec<&Decision>> = BTreeMap::new();
    for decision in plan
        .decisions
        .iter()
        .filter(|decision| decision.verdict == Verdict::Propose)
    {
        if let Action::RequestServer { group, .. } | Action::ReleaseServer { group, .. } = &decision.action {
            by_group.entry(group).or_default().push(decision);
        }
    }
    by_group
        .into_iter()
        .filter_map(|(group, decisions)| {
            let hourly = snapshot.groups.get(group)?.pricing.hourly;
            let proposal = proposal(group, hourly, &decisions, context);
            let key = ObjectKey::new(context.namespace, proposal.name_any());
            (!world.plans.contains_key(&key)).then(|| Effect::Propose(Box::new(proposal)))
        })
        .collect()
}

fn proposal(group: &GroupName, hourly: Money, decisions: &[&Decision], context: &Context<'_>) -> ServerPlan {
    let actions: Vec<PlannedAction> = decisions
        .iter()
        .take(limits::ACTIONS)
        .map(|decision| planned(decision, context.currency))
        .collect();
    let change: Money = decisions
        .iter()
        .map(|decision| match decision.action {
            Action::RequestServer { .. } => hourly,
            _ => Money::ZERO - hourly,
        })
        .sum();
    let expires_at = second_midnight(context.now);
    let what: Vec<_> = actions
        .iter()
        .map(|action| (&action.action, &action.target, &action.reason))
        .collect();
    let hash = fnv1a(format!("{group} {what:?} {expires_at}").as_bytes());
    let short = group.as_str().get(..30).unwrap_or(group.as_str()).trim_end_matches('-');
    let mut plan = ServerPlan::new(
        &format!("{short}-{hash:08x}"),
        ServerPlanSpec {
            subject: Subject {
                kind: SubjectKind::ServerGroup,
                name: group.to_string(),
            },
            actions,
            hourly_change: format!("{change} {}", context.currency),
            outlook: None,
            expires_at: expires_at.to_string(),
        },
    );
    plan.metadata = ObjectMeta {
        namespace: Some(context.namespace.to_owned()),
        ..plan.metadata
    };
    plan
}

fn planned(decision: &Decision, currency: &str) -> PlannedAction {
    let (action, target) = match &decision.action {
        Action::RequestServer { server, .. } => ("RequestServer", server.to_string()),
        Action::ReleaseServer { server, .. } => ("ReleaseServer", server.to_string()),
        _ => ("None", String::new()),
    };
    PlannedAction {
        action: action.to_owned(),
        target,
        at: None,
        cost: None,
        reason: decision.reason.to_string(),
        message: limits::clip(&decision.message, limits::MESSAGE),
        rejected: decision
            .rejected
            .iter()
            .take(limits::REJECTED)
            .map(|each| rejected(each, currency))
            .collect(),
    }
}

/// A rejected alternative, as the API shows it.
pub(crate) fn rejected(rejected: &Rejected, currency: &str) -> RejectedAlternative {
    RejectedAlternative {
        alternative: rejected.alternative.clone(),
        reason: rejected.reason.to_string(),
        message: limits::clip(&rejected.message, limits::MESSAGE),
        cost_per_hour: rejected.hourly.map(|hourly| format!("{hourly} {currency}")),
        cost: rejected.cost.map(|cost| format!("{cost} {currency}")),
    }
}

pub(super) fn second_midnight(now: Timestamp) -> Timestamp {
    let day = i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX);
    let today = now.as_millis().div_euclid(day);
    Timestamp::from_millis(today.saturating_add(2).saturating_mul(day))
}
