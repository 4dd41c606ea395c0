//! The strategic plan of each pool as a `ServerPlan`, and the end of plans that are over.
//!
//! It is there while the plan has anything to do, in every mode, for people to read. Its spec is immutable: another one takes its place when
//! the plan would do something else, not when it would do the same a little earlier or later.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use pomarium_api::limits;
use pomarium_api::plan::{PlannedAction, ServerPlan, ServerPlanSpec, Subject, SubjectKind};
use pomarium_api::pool::ServerPool;
use pomarium_kernel::names::{GroupName, PoolId, ServerName};
use pomarium_kernel::plan::Rejected;
use pomarium_kernel::planning::refused;
use pomarium_kernel::reason::Reason;
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::strategy::ahead::{Ahead, PoolAhead};
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::{Fraction, Money};

use super::Context;
use super::name::fnv1a;
use super::outlook::outlook;
use super::proposal::{rejected, second_midnight};
use crate::effect::Effect;
use crate::observe::is_approved;
use crate::world::World;

/// A plan that would do the same, but by less than this earlier or later, is the same.
pub(crate) const SAME: Span = Span::from_hours(1);

/// Plans of pools that are new, and the removal of those that are over.
pub(super) fn plans(snapshot: &Snapshot, world: &World, context: &Context<'_>) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut stands: BTreeSet<(String, String)> = BTreeSet::new();
    let followed = snapshot.ahead.as_ref().filter(|ahead| ahead.holds(context.now));
    for (id, planned) in followed.iter().flat_map(|ahead| &ahead.pools) {
        let (Some(ahead), Some(object)) = (followed, world.pools.get(id)) else {
            continue;
        };
        let actions = actions(id, planned, ahead, snapshot, context);
        if actions.is_empty() || object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let standing =
            of_pool(world, id).find(|plan| !is_over(plan, context.now) && same(&plan.spec.actions, &actions));
        let name = if let Some(plan) = standing {
            plan.name_any()
        } else {
            let mut actions = actions;
            add_refused(&mut actions, &refused(snapshot, id, context.now), context);
            let plan = plan(id, object, planned, ahead, actions, snapshot, context);
            let name = plan.name_any();
            effects.push(Effect::Propose(Box::new(plan)));
            name
        };
        stands.insert((id.namespace.clone(), name));
    }
    // Without a plan to compare with nothing is said about those that are there.
    let compared = followed.is_some();
    for (key, plan) in &world.plans {
        let superseded = compared
            && plan.spec.subject.kind == SubjectKind::ServerPool
            // What people have approved counts until it expires, whatever is planned since.
            && !is_approved(plan)
            && !stands.contains(&(key.namespace.clone(), key.name.clone()));
        if (is_over(plan, context.now) || superseded) && plan.metadata.deletion_timestamp.is_none() {
            effects.extend(plan.uid().map(|uid| Effect::RemovePlan { plan: key.clone(), uid }));
        }
    }
    effects
}

fn of_pool<'a>(world: &'a World, id: &'a PoolId) -> impl Iterator<Item = &'a ServerPlan> {
    let plans = world.plans.iter().filter(|(key, plan)| {
        let Subject { kind, name } = &plan.spec.subject;
        key.namespace == id.namespace && *kind == SubjectKind::ServerPool && *name == id.name
    });
    plans.map(|(_, plan)| plan.as_ref())
}

/// Void: its time is over, or cannot be read.
pub(crate) fn is_over(plan: &ServerPlan, now: Timestamp) -> bool {
    Timestamp::parse(&plan.spec.expires_at).is_none_or(|expires| expires <= now)
}

/// Whether two plans do the same things at about the same times.
fn same(old: &[PlannedAction], new: &[PlannedAction]) -> bool {
    let time = |action: &PlannedAction| action.at.as_deref().and_then(Timestamp::parse);
    let close = |old: Option<Timestamp>, new: Option<Timestamp>| match (old, new) {
        (Some(old), Some(new)) => old.since(new).max(new.since(old)) <= SAME,
        (old, new) => old == new,
    };
    old.len() == new.len()
        && new.iter().all(|new| {
            old.iter()
                .any(|old| old.action == new.action && old.target == new.target && close(time(old), time(new)))
        })
}

/// What the plan does for one pool, in the order of time.
fn actions(
    id: &PoolId,
    planned: &PoolAhead,
    ahead: &Ahead,
    snapshot: &Snapshot,
    context: &Context<'_>,
) -> Vec<PlannedAction> {
    let mut found: Vec<(Timestamp, PlannedAction)> = Vec::new();
    for (name, group) in &ahead.groups {
        let Some(seen) = snapshot.groups.get(name) else {
            continue;
        };
        let servers = seen.inventory.servers();
        let all = (0..seen.size.max).map(|ordinal| ServerName::new(format!("{name}-{ordinal}")));
        // Names that are free now first; what is asked for later than them is asked for under names that are free again by then.
        let free = all.clone().filter(|server| !servers.contains_key(server));
        let mut names = free.chain(all.cycle());
        // What was asked for since the plan was made is not asked for again.
        let since = servers.keys().filter(|server| !group.known.contains(*server)).count();
        let mut asked = u32::try_from(since).unwrap_or(u32::MAX);
        let alone = ahead
            .pools
            .values()
            .filter(|pool| pool.capacity.contains_key(name))
            .count()
            == 1;
        let now = group.buyers.iter().map(|(buyer, count)| (ahead.made_at, buyer, *count));
        let later = group
            .later
            .iter()
            .filter(|_| alone)
            .map(|(at, count)| (*at, id, *count));
        for (at, buyer, count) in now.chain(later) {
            for _ in 0..count {
                if asked > 0 {
                    asked -= 1;
                    continue;
                }
                let Some(server) = names.next() else { break };
                if buyer == id && planned.capacity.contains_key(name) && found.len() < limits::ACTIONS {
                    found.push((at, request(name, &server, at, planned, context)));
                }
            }
        }
        let ours = |server: &ServerName| {
            let running = snapshot.pools.get(id).map(|pool| &pool.running);
            running.is_some_and(|running| running.values().any(|replica| replica.server == *server))
        };
        for (server, until) in group.until.iter().filter(|(server, _)| ours(server)) {
            found.push((
                *until,
                release(
                    server,
                    *until,
                    servers.get(server).is_some_and(|server| server.lease.is_some()),
                ),
            ));
        }
    }
    found.sort_by(|left, right| (left.0, &left.1.target).cmp(&(right.0, &right.1.target)));
    found
        .into_iter()
        .map(|(_, action)| action)
        .take(limits::ACTIONS)
        .collect()
}

fn request(
    group: &GroupName,
    server: &ServerName,
    at: Timestamp,
    planned: &PoolAhead,
    context: &Context<'_>,
) -> PlannedAction {
    let expected = planned.forecast.as_ref().and_then(|forecast| {
        let slot = forecast
            .slots
            .iter()
            .find(|slot| slot.slot.start <= at && at < slot.slot.end());
        slot.or(forecast.slots.first()).map(|slot| slot.requests)
    });
    let demand = expected.map_or(String::new(), |quantiles| {
        let rate = |level| quantiles.at(Fraction::new(level)).as_per_second();
        format!(
            "{:.2} requests/s are expected then ({:.2} to {:.2}); ",
            rate(0.5),
            rate(0.05),
            rate(0.95)
        )
    });
    let carries = |group: &GroupName| planned.capacity.get(group).copied().unwrap_or_default();
    let chosen = planned.chosen.get(group);
    let others = chosen.into_iter().flat_map(|chosen| &chosen.rejected);
    PlannedAction {
        action: "RequestServer".to_owned(),
        target: server.to_string(),
        at: Some(at.to_string()),
        cost: chosen.map(|chosen| format!("{} {}", chosen.cost, context.currency)),
        reason: Reason::PlannedAhead.to_string(),
        message: format!("{demand}a server of {group} is saturated by {:.2}", carries(group)),
        rejected: others
            .take(limits::REJECTED)
            .map(|each| rejected(each, context.currency))
            .collect(),
    }
}

/// Says of every purchase why the pool may not use other groups at all, after those that it may use.
fn add_refused(actions: &mut [PlannedAction], refused: &[Rejected], context: &Context<'_>) {
    for action in actions.iter_mut().filter(|action| action.action == "RequestServer") {
        let room = limits::REJECTED.saturating_sub(action.rejected.len());
        let refused = refused.iter().map(|each| rejected(each, context.currency));
        action.rejected.extend(refused.take(room));
    }
}

fn release(server: &ServerName, until: Timestamp, leased: bool) -> PlannedAction {
    let reason = if leased { Reason::LeaseEnded } else { Reason::ServerIdle };
    PlannedAction {
        action: "ReleaseServer".to_owned(),
        target: server.to_string(),
        at: Some(until.to_string()),
        cost: None,
        reason: reason.to_string(),
        message: format!("it is not planned for beyond {until}"),
        rejected: Vec::new(),
    }
}

fn plan(
    id: &PoolId,
    object: &ServerPool,
    planned: &PoolAhead,
    ahead: &Ahead,
    actions: Vec<PlannedAction>,
    snapshot: &Snapshot,
    context: &Context<'_>,
) -> ServerPlan {
    let prices: BTreeMap<&str, Money> = snapshot
        .groups
        .iter()
        .map(|(name, group)| (name.as_str(), group.pricing.hourly))
        .collect();
    let price = |action: &PlannedAction| {
        let group = action.target.rsplit_once('-').map_or("", |(group, _)| group);
        let hourly = prices.get(group).copied().unwrap_or(Money::ZERO);
        if action.action == "RequestServer" {
            hourly
        } else {
            Money::ZERO - hourly
        }
    };
    let change: Money = actions.iter().map(price).sum();
    let expires_at = second_midnight(context.now);
    let what: Vec<_> = actions
        .iter()
        .map(|action| (&action.action, &action.target, &action.at))
        .collect();
    let hash = fnv1a(format!("{id} {what:?} {expires_at}").as_bytes());
    let short = id.name.get(..30).unwrap_or(&id.name).trim_end_matches('-');
    let mut plan = ServerPlan::new(
        &format!("{short}-ahead-{hash:08x}"),
        ServerPlanSpec {
            subject: Subject {
                kind: SubjectKind::ServerPool,
                name: id.name.clone(),
            },
            actions,
            hourly_change: format!("{change} {}", context.currency),
            outlook: Some(outlook(id, planned, ahead, snapshot, context)),
            expires_at: expires_at.to_string(),
        },
    );
    plan.metadata = ObjectMeta {
        namespace: Some(id.namespace.clone()),
        // It goes with its pool, whoever deletes that.
        owner_references: object.uid().map(|uid| {
            vec![OwnerReference {
                api_version: ServerPool::api_version(&()).into_owned(),
                kind: ServerPool::kind(&()).into_owned(),
                name: id.name.clone(),
                uid,
                ..OwnerReference::default()
            }]
        }),
        ..plan.metadata
    };
    plan
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use pomarium_kernel::strategy::Burnt;
    use pomarium_kernel::strategy::ahead::{Chosen, GroupAhead, Missing, Spending};

    use super::*;
    use crate::fixture::{NOW, chat, context, snapshot, world};
    use crate::world::ObjectKey;

    fn planning(buy: u32, later: &[(Timestamp, u32)]) -> World {
        let burnt = Burnt {
            expected: 40.0,
            budget: 100.0,
        };
        let chosen = Chosen {
            serves: NOW,
            to: NOW + Span::from_hours(3),
            cost: Money::from_micros(5_910_000),
            rejected: vec![Rejected {
                alternative: "owned".to_owned(),
                reason: Reason::CapacityExhausted,
                message: "none is left".to_owned(),
                hourly: Some(Money::ZERO),
                cost: Some(Money::from_micros(20_000)),
            }],
        };
        let pool = PoolAhead {
            windows: vec![(NOW, burnt)],
            capacity: [("owned".into(), 2.0), ("hosted".into(), 1.0)].into(),
            cost: 11.82,
            chosen: [("hosted".into(), chosen)].into(),
            missing: vec![Missing {
                window: NOW,
                requests: 320.4,
                cost: 0.64,
            }],
            forgone: 23.64,
            spending: vec![Spending {
                from: NOW,
                to: NOW + Span::from_hours(5),
                left: 20.0,
                planned: 11.82,
            }],
            ..PoolAhead::default()
        };
        let group = GroupAhead {
            servers: buy,
            buyers: [(chat(), buy)].into(),
            later: later.to_vec(),
            ..GroupAhead::default()
        };
        World {
            ahead: Some(Arc::new(Ahead {
                made_at: NOW,
                groups: [("hosted".into(), group)].into(),
                pools: [(chat(), pool)].into(),
                cost: 11.82,
                bound: 11.5,
                ..Ahead::default()
            })),
            ..world()
        }
    }

    fn effects(world: &World) -> Vec<Effect> {
        plans(&snapshot(world), world, &context())
    }

    /// The plans that are written and the names of those that are removed; done to the world.
    fn play(world: &mut World) -> (Vec<ServerPlan>, Vec<String>) {
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for effect in effects(world) {
            match effect {
                Effect::Propose(plan) => {
                    let mut stored = plan.clone();
                    stored.metadata.uid = Some(format!("uid-{}", plan.name_any()));
                    let key = ObjectKey::new(plan.namespace().unwrap(), plan.name_any());
                    world.plans.insert(key, Arc::new(*stored));
                    written.push(*plan);
                }
                Effect::RemovePlan { plan, .. } => {
                    world.plans.remove(&plan);
                    removed.push(plan.name);
                }
                other => panic!("{other:?}"),
            }
        }
        (written, removed)
    }

    #[test]
    fn a_plan_says_what_will_be_done_when_and_at_what_cost_until_it_is_done() {
        let hour = |n| NOW + Span::from_hours(n);
        let mut world = planning(1, &[(hour(3), 2)]);
        let (written, removed) = play(&mut world);
        let [plan] = written.try_into().unwrap();
        assert!(removed.is_empty());
        let actions: Vec<_> = plan
            .spec
            .actions
            .iter()
            .map(|action| (action.target.as_str(), action.at.clone().unwrap()))
            .collect();
        assert_eq!(
            actions,
            [
                ("hosted-0", NOW.to_string()),
                ("hosted-1", hour(3).to_string()),
                ("hosted-2", hour(3).to_string())
            ]
        );
        assert_eq!(plan.spec.hourly_change, "5.91 USD");
        assert_eq!(plan.spec.actions[0].cost.as_deref(), Some("5.91 USD"));
        let rejected = &plan.spec.actions[0].rejected[0];
        let costs = (rejected.cost_per_hour.as_deref(), rejected.cost.as_deref());
        assert_eq!(rejected.alternative, "owned");
        assert_eq!(costs, (Some("0.00 USD"), Some("0.02 USD")));
        let outlook = plan.spec.outlook.unwrap();
        assert_eq!(
            (
                outlook.cost.as_str(),
                outlook.bound.as_str(),
                outlook.gap_percent.as_str()
            ),
            ("11.82 USD", "11.50 USD", "2.7")
        );
        assert_eq!(
            outlook.attainment,
            ["p95 TTFT ≤ 10s: at least 98.0 % of what is still to come"]
        );
        assert!(
            outlook.error_budget[0].starts_with("40 % of what is left"),
            "{outlook:?}"
        );
        let until = NOW + Span::from_hours(5);
        let spending = format!("11.82 of 20.00 USD that are left until {until}");
        assert_eq!(outlook.spending, [spending]);
        assert!(
            outlook.shortfall[0].starts_with("about 320 requests more"),
            "{outlook:?}"
        );
        assert!(
            outlook.shortfall[1].starts_with("servers for 23.64 USD are not leased"),
            "{outlook:?}"
        );
        assert_eq!(plan.metadata.owner_references.unwrap()[0].uid, "uid-chat");

        // The same a little later is no news; something else is; and nothing at all ends it.
        let next = |world: &World, buy, later: Vec<(Timestamp, u32)>| World {
            ahead: planning(buy, &later).ahead,
            ..world.clone()
        };
        let mut world = next(&world, 1, vec![(hour(3) + Span::from_minutes(30), 2)]);
        assert_eq!(play(&mut world), (Vec::new(), Vec::new()));
        let mut world = next(&world, 2, Vec::new());
        let (written, removed) = play(&mut world);
        assert_eq!((written.len(), removed.len()), (1, 1));
        let mut world = next(&world, 0, Vec::new());
        assert_eq!(play(&mut world).1.len(), 1);
        assert!(world.plans.is_empty());
    }

    #[test]
    fn later_purchases_are_named_by_servers_that_the_group_can_have() {
        let later = (1..8).map(|hour| (NOW + Span::from_hours(hour), 2)).collect::<Vec<_>>();
        let mut world = planning(1, &later);
        let (written, _) = play(&mut world);
        let most = snapshot(&world).groups["hosted"].size.max;
        let names: Vec<String> = (0..most).map(|ordinal| format!("hosted-{ordinal}")).collect();
        let asked: Vec<_> = written[0].spec.actions.iter().map(|action| &action.target).collect();
        assert!(asked.len() > names.len(), "{asked:?}");
        assert!(asked.iter().all(|target| names.contains(target)), "{asked:?}");
    }

    #[test]
    fn without_a_recent_plan_only_what_has_expired_goes() {
        let mut world = planning(1, &[]);
        play(&mut world);
        world.ahead = None;
        assert!(effects(&world).is_empty());
        for plan in world.plans.values_mut() {
            Arc::make_mut(plan).spec.expires_at = NOW.to_string();
        }
        assert_eq!(play(&mut world).1.len(), 1);
    }
}
