//! What to say about a pool.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use super::{because, condition};
use crate::feasibility::LengthSource;
use crate::lifecycle::ReplicaState;
use crate::names::GroupName;
use crate::plan::{Condition, ConditionKind, PoolOutlook, Truth};
use crate::planning::crew::{Crew, Standing};
use crate::planning::demand::Need;
use crate::planning::evidence::doubts;
use crate::planning::figures;
use crate::planning::grow::Growth;
use crate::planning::guide::Lead;
use crate::planning::model::{Counts, Model, total};
use crate::planning::options::Options;
use crate::planning::policy::{HELD_LIMIT, MIN_SAMPLES};
use crate::planning::shrink::Shrinkage;
use crate::planning::slots::Source;
use crate::planning::world::World;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Measured, Metric, Period, PoolMemory};
use crate::time::Span;
use crate::units::{Fraction, Money, Rate};

/// Everything that a pass found out about a pool.
pub(crate) struct Findings<'f, 'a> {
    pub(crate) crew: &'f Crew<'a>,
    pub(crate) options: &'f Options<'a>,
    pub(crate) model: &'f Model<'f, 'a>,
    pub(crate) need: &'f Need<'f>,
    pub(crate) lead: &'f Lead<'a>,
    pub(crate) target: Counts,
    pub(crate) growth: Growth,
    pub(crate) shrinkage: Option<Shrinkage>,
    /// Why something that has to go stays for now.
    pub(crate) held: Option<Problem>,
    /// Drains that are over their deadline and kept.
    pub(crate) kept: u32,
    pub(crate) memory: PoolMemory,
}

/// What to say about a pool.
pub(crate) fn outlook(world: &World, findings: Findings) -> PoolOutlook {
    let crew = findings.crew;
    let serving = crew.serving();
    let likely = || serving.keys().any(|group| findings.options.choice(group).is_some());
    let known = total(serving) == 0 || likely() || findings.options.choices().next().is_some();
    let carries = sustainable(&findings, serving);
    let conditions = conditions(world, &findings, serving, carries);
    let sustainable = known.then_some(carries);
    let demand = findings.need.rate();
    let current = crew
        .members
        .iter()
        .filter(|member| !matches!(member.replica.state, ReplicaState::Ended));
    PoolOutlook {
        target: total(&findings.target),
        current: u32::try_from(current.count()).unwrap_or(u32::MAX),
        serving: total(serving),
        draining: u32::try_from(crew.of(Standing::Draining).count()).unwrap_or(u32::MAX),
        demand: demand.map(figures::rate),
        sustainable: sustainable.map(figures::rate),
        utilization: demand
            .zip(sustainable)
            .and_then(|(demand, sustainable)| utilization(demand, sustainable)),
        hourly: hourly(world, crew),
        held: held(&findings).cloned(),
        conditions,
        by_group: findings.target,
        memory: findings.memory,
    }
}

/// By the curves that the plan was made with, if it is followed: what is said is what was decided with.
fn sustainable(findings: &Findings, serving: &Counts) -> Rate {
    match findings.lead {
        Lead::Planned(guide) => guide.sustainable(serving),
        Lead::Measured(_) | Lead::Alone => findings.model.sustainable(serving),
    }
}

/// Why something stays that has to go, or that nobody needs.
fn held<'f>(findings: &'f Findings) -> Option<&'f Problem> {
    let surplus = findings.shrinkage.as_ref().and_then(Shrinkage::held);
    findings.held.as_ref().or(surplus)
}

fn utilization(demand: Rate, sustainable: Rate) -> Option<Fraction> {
    let sustainable = sustainable.as_per_second();
    (sustainable > 0.0).then(|| figures::fraction(Fraction::new(demand.as_per_second() / sustainable)))
}

/// Leases and energy of the servers that the pool runs on.
fn hourly(world: &World, crew: &Crew) -> Money {
    let mut servers: Vec<_> = crew
        .members
        .iter()
        .map(|member| (&member.replica.server, &member.replica.site, member.place))
        .collect();
    // In the order of the members: of several on the same server the first one counts.
    servers.sort_by(|left, right| (left.0, left.1).cmp(&(right.0, right.1)));
    servers.dedup_by(|later, first| (later.0, later.1) == (first.0, first.1));
    let grounds = servers
        .into_iter()
        .filter_map(|(.., place)| world.grounds().get(place?));
    grounds.filter_map(|ground| ground.hourly).sum()
}

fn conditions(world: &World, findings: &Findings, serving: &Counts, sustainable: Rate) -> Vec<Condition> {
    let here = &figures::replicas(serving);
    let stalled = stalled(world, findings);
    let reconciling = if stalled.is_some() {
        None
    } else {
        reconciling(findings, serving)
    };
    let mut conditions = Vec::with_capacity(7);
    conditions.push(ready(findings, here, stalled.as_ref(), reconciling.as_ref()));
    conditions.extend(reconciling.map(|problem| because(ConditionKind::Reconciling, Truth::True, problem)));
    conditions.extend(stalled.map(|problem| because(ConditionKind::Stalled, Truth::True, problem)));
    conditions.push(objectives(findings));
    conditions.push(budget(world, findings));
    conditions.push(capacity(findings, serving, sustainable, here));
    conditions.push(metrics(findings));
    conditions
}

/// Nothing but a change of a spec, or another group, helps.
fn stalled(world: &World, findings: &Findings) -> Option<Problem> {
    let (pool, options) = (findings.crew.pool, findings.options);
    if pool.deleting || pool.paused {
        return None;
    }
    let here = findings.crew.members.iter().map(|member| member.group);
    if !options.any_satisfies(here) {
        let (groups, sites) = (&world.snapshot.groups, &world.snapshot.sites);
        return options.feasibility.groups(groups, sites).err();
    }
    // A window opens by itself; anything else that lasts needs people.
    let problem = findings
        .held
        .as_ref()
        .filter(|held| held.reason != Reason::WindowClosed)?;
    let since = findings
        .memory
        .held_since
        .filter(|since| world.now.since(*since) >= HELD_LIMIT)?;
    let message = format!("since {since}: {}", problem.message);
    Some(Problem::new(problem.reason, message))
}

/// Work that the spec asks for and that is not done.
fn reconciling(findings: &Findings, serving: &Counts) -> Option<Problem> {
    let (crew, pool) = (findings.crew, findings.crew.pool);
    let some = |reason, message: String| Some(Problem::new(reason, message));
    if pool.paused {
        return None;
    }
    if pool.deleting {
        return Some(left_behind(crew));
    }
    if let Some((member, reason)) = crew.leaving().find(|(_, reason)| !is_accident(*reason)) {
        let server = &member.replica.server;
        let message = format!("the replica on server {server} is to be replaced");
        return some(reason, waiting(message, findings.held.as_ref()));
    }
    if let Some(problem) = &findings.held {
        let message = format!(
            "{} replicas, replicas.max is {}",
            total(&findings.target),
            pool.replicas.max
        );
        return some(Reason::AboveMaximum, waiting(message, Some(problem)));
    }
    let replaced = |reason| {
        matches!(
            reason,
            Reason::RevisionReplaced | Reason::NoLongerPermitted | Reason::AboveMaximum
        )
    };
    let draining = crew
        .of(Standing::Draining)
        .filter_map(|member| member.replica.drain)
        .find(|drain| replaced(drain.reason));
    if let Some(drain) = draining {
        return some(drain.reason, "replicas are being drained".to_owned());
    }
    if total(serving) < pool.replicas.min {
        let message = format!(
            "{} serve, of at least {}",
            figures::replicas(serving),
            pool.replicas.min
        );
        return match &findings.growth.short {
            Some(problem) => some(problem.reason, format!("{message}: {}", problem.message)),
            None if on_the_way(findings) => some(Reason::ServersComing, message),
            None => some(Reason::ReplicasLoading, message),
        };
    }
    None
}

/// No spec asked for it.
fn is_accident(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ReplicaLost | Reason::ReplicaLate | Reason::EngineSilent | Reason::ServerFailed
    )
}

fn waiting(message: String, held: Option<&Problem>) -> String {
    match held {
        Some(problem) => format!("{message}; it waits ({}): {}", problem.reason, problem.message),
        None => message,
    }
}

/// What is left of a pool that is being deleted.
fn left_behind(crew: &Crew) -> Problem {
    let left = crew.members.len();
    let out_of_reach: BTreeSet<_> = crew
        .members
        .iter()
        .filter(|member| member.hands_off)
        .map(|member| format!("{} at site {}", member.replica.group, member.replica.site))
        .collect();
    if out_of_reach.is_empty() {
        return Problem::new(Reason::PoolDeleted, format!("{left} replicas are still there"));
    }
    let where_they_are = out_of_reach.into_iter().take(4).collect::<Vec<_>>().join(", ");
    let message = format!("{left} replicas are left, and nothing can be done about those in {where_they_are}");
    Problem::new(Reason::Forgotten, message)
}

/// Servers have to come first.
fn on_the_way(findings: &Findings) -> bool {
    findings
        .growth
        .taken()
        .any(|(slot, _, _)| matches!(slot.source, Source::Coming | Source::Purchase | Source::Vacating(_)))
}

fn ready(findings: &Findings, here: &str, stalled: Option<&Problem>, reconciling: Option<&Problem>) -> Condition {
    let pool = findings.crew.pool;
    if pool.paused {
        let message = format!("paused; {here} serve");
        return condition(ConditionKind::Ready, Truth::Unknown, Reason::Paused, message);
    }
    if let Some(problem) = stalled.or(reconciling) {
        return because(ConditionKind::Ready, Truth::False, problem.clone());
    }
    let serve = [here, " serve"].concat();
    let message = match held(findings) {
        Some(problem) => sentence(format_args!("{serve}; {} ({})", problem.message, problem.reason)),
        None if findings.kept > 0 => format!("{serve}; {} drains are over their deadline and wait on", findings.kept),
        None => serve,
    };
    condition(ConditionKind::Ready, Truth::True, Reason::OnTarget, message)
}

fn objectives(findings: &Findings) -> Condition {
    let pool = findings.crew.pool;
    let mut told = String::with_capacity(64 * pool.objectives.len());
    let mut worst: Option<(Truth, Reason)> = None;
    for (objective, measured) in pool.objectives.iter().zip(&pool.measured) {
        if !told.is_empty() {
            told.push_str("; ");
        }
        told.push('p');
        figures::push_whole(&mut told, percents(objective.percentile));
        told.push_str(match objective.metric {
            Metric::TimeToFirstToken => " TTFT",
            Metric::InterTokenLatency => " ITL",
        });
        let verdict = match measured {
            Measured::Known { samples, .. } if *samples < MIN_SAMPLES => {
                let _ = write!(told, ": fewer than {MIN_SAMPLES} requests");
                (Truth::Unknown, Reason::MetricsUnavailable)
            }
            Measured::Known { value_ms, attained, .. } => {
                told.push(' ');
                figures::push_two(&mut told, *value_ms);
                told.push_str(" ms of ");
                figures::push_whole(&mut told, objective.threshold.as_millis());
                told.push_str(" ms");
                if *attained >= objective.percentile {
                    (Truth::True, Reason::ObjectiveAttained)
                } else {
                    (Truth::False, Reason::ObjectiveMissed)
                }
            }
            Measured::ModelOnly => {
                told.push_str(": the engine exports no such metric");
                (Truth::Unknown, Reason::ModelOnly)
            }
            Measured::Unknown { problem } => {
                told.push_str(": ");
                told.push_str(&problem.message);
                (Truth::Unknown, problem.reason)
            }
        };
        // A miss outweighs what is unknown, and that outweighs what holds.
        let weight = |truth: Truth| match truth {
            Truth::False => 2,
            Truth::Unknown => 1,
            Truth::True => 0,
        };
        if worst.is_none_or(|(truth, _)| weight(verdict.0) > weight(truth)) {
            worst = Some(verdict);
        }
    }
    let (truth, reason) = worst.unwrap_or((Truth::Unknown, Reason::MetricsUnavailable));
    condition(ConditionKind::SLOMet, truth, reason, told)
}

/// A share as a whole number of hundredths.
fn percents(share: Fraction) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100")]
    let percents = (share.get() * 100.0).round_ties_even() as u64;
    percents
}

fn budget(world: &World, findings: &Findings) -> Condition {
    let kind = ConditionKind::WithinBudget;
    let Some(budget) = findings.crew.pool.budget else {
        return condition(kind, Truth::True, Reason::NoBudget, "no budget is set");
    };
    let (span, period) = match budget.period {
        Period::Day => (Span::from_hours(24), "day"),
        Period::Week => (Span::from_hours(7 * 24), "week"),
        Period::Month => (Span::from_hours(30 * 24), "month"),
    };
    let hourly = hourly(world, findings.crew);
    let gone = world
        .accounts
        .committed(findings.crew.id, findings.crew.pool, world.now)
        .unwrap_or_default();
    let message = format!(
        "{gone} of {} for this {period} are spent; {hourly} an hour now, {} if that went on for a {period}",
        budget.amount,
        hourly.for_span(span),
    );
    let (truth, reason) = if gone > budget.amount {
        (Truth::False, Reason::BudgetSpent)
    } else if hourly.for_span(span) <= budget.amount {
        (Truth::True, Reason::UnderBudget)
    } else {
        (Truth::Unknown, Reason::BudgetAtRisk)
    };
    condition(kind, truth, reason, message)
}

fn capacity(findings: &Findings, serving: &Counts, sustainable: Rate, here: &str) -> Condition {
    let kind = ConditionKind::CapacityAvailable;
    if let Some(problem) = &findings.growth.short {
        return because(kind, Truth::False, problem.clone());
    }
    let load = match findings.need.rate() {
        None => {
            let message = format!("demand is unknown; {here} serve");
            return condition(kind, Truth::Unknown, Reason::MetricsUnavailable, message);
        }
        Some(rate) => {
            let mut load = String::with_capacity(192);
            figures::push_two(&mut load, rate.as_per_second());
            load.push_str(" requests/s of ");
            figures::push_two(&mut load, sustainable.as_per_second());
            load.push_str(" sustainable on ");
            load.push_str(here);
            load
        }
    };
    let load = match findings.lead {
        Lead::Planned(guide) => sentence(format_args!("{load}; {}", guide.outlook())),
        Lead::Measured(why) => format!("{load}; decided by measurements alone: {}", why.message),
        Lead::Alone => load,
    };
    let wanted = total(&findings.target);
    if on_the_way(findings) {
        let groups: BTreeSet<&GroupName> = findings.growth.taken().map(|(slot, _, _)| &slot.group).collect();
        let groups: Vec<_> = groups.into_iter().map(GroupName::as_str).collect();
        let message = format!("{load}; {wanted} wanted, servers of {} are coming", groups.join(", "));
        return condition(kind, Truth::False, Reason::ServersComing, message);
    }
    if total(serving) < wanted {
        let message = format!("{load}; {wanted} wanted, the rest is loading");
        return condition(kind, Truth::False, Reason::ReplicasLoading, message);
    }
    match findings.lead {
        Lead::Planned(guide) if guide.overspends() => condition(kind, Truth::False, guide.lacks(), load),
        Lead::Measured(why) => condition(kind, Truth::True, why.reason, load),
        Lead::Planned(_) | Lead::Alone => condition(kind, Truth::True, Reason::OnTarget, load),
    }
}

fn metrics(findings: &Findings) -> Condition {
    let kind = ConditionKind::MetricsAvailable;
    if let (Need::Known { .. }, Some(doubts)) = (findings.need, doubts(findings.crew, findings.options)) {
        return because(kind, Truth::True, doubts);
    }
    match findings.need {
        Need::Unknown { problem, .. } => because(kind, Truth::False, problem.clone()),
        Need::Known { lengths: None, .. } => {
            condition(kind, Truth::True, Reason::MetricsRead, lengths_unknown(findings))
        }
        Need::Known { .. } => condition(
            kind,
            Truth::True,
            Reason::MetricsRead,
            "arrivals and lengths are measured",
        ),
    }
}

/// A sentence that is said in every pass: written into enough room at once.
fn sentence(text: fmt::Arguments) -> String {
    let mut sentence = String::with_capacity(192);
    let _ = sentence.write_fmt(text);
    sentence
}

/// What is planned with while lengths are not measured, and what they say that may not come true.
fn lengths_unknown(findings: &Findings) -> String {
    let with = match findings.options.feasibility.source() {
        LengthSource::Measured => return "arrivals and lengths are measured".to_owned(),
        LengthSource::Remembered => "the last ones that were measured",
        LengthSource::Assumed => "those of recorded conversations",
    };
    let message =
        format!("arrivals are measured; too few requests were seen to know their lengths: planned with {with}");
    match findings.options.doubt() {
        Some(doubt) => format!("{message}, with which {}", doubt.message),
        None => message,
    }
}
