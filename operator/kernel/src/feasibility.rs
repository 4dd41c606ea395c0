//! Which pool may run where.
//!
//! A chain of named checks, in this order: selector and namespace, trust, residency, permitted use, memory, objectives. The first
//! that fails is the answer: what the law or a promise forbids is said before what a larger machine would cure. All of
//! them fail closed.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::capacity::{self, Unreachable, duration};
use crate::names::{GroupName, SiteName};
use crate::performance::{Performance, performance};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Demand, Group, LengthMix, Metric, Pool, Site, Use};

/// Whether `pool` may run on servers of `group`, and what they do for it.
pub fn check(pool: &Pool, group: &Group, site: &Site) -> Result<Performance, Problem> {
    selected(pool, group)?;
    namespace_exists(pool, group)?;
    trusted(pool, group, site)?;
    resident(pool, group, site)?;
    use_permitted(pool, group, site)?;
    let performance = fits(pool, group)?;
    objectives_reachable(pool, group, &performance)?;
    Ok(performance)
}

/// The groups on which `pool` may run.
///
/// # Errors
/// If there is none: the one problem for a person to read. That of the group that came furthest in the chain, because it needs
/// the smallest change; among those with unreachable objectives, that of the fastest.
pub fn feasible<'a>(
    pool: &Pool,
    groups: &'a BTreeMap<GroupName, Group>,
    sites: &BTreeMap<SiteName, Site>,
) -> Result<Vec<(&'a GroupName, Performance)>, Problem> {
    let mut found = Vec::new();
    let mut nearest: Option<(Distance, Problem)> = None;
    for (name, group) in groups {
        let Some(site) = sites.get(&group.site) else {
            continue;
        };
        match check(pool, group, site) {
            Ok(performance) => found.push((name, performance)),
            Err(problem) => {
                let distance = distance(pool, group, &problem);
                if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                    nearest = Some((distance, problem));
                }
            }
        }
    }
    if found.is_empty() {
        let nothing = || Problem::new(Reason::NoGroup, "there is no server group at a known site");
        Err(nearest.map_or_else(nothing, |(_, problem)| problem))
    } else {
        Ok(found)
    }
}

/// Lengths to judge and plan with: those seen, or else the assumed ones, within the model's context.
pub fn lengths(pool: &Pool) -> LengthMix {
    let seen = match &pool.demand {
        Demand::Known(arrivals) => arrivals.lengths.as_ref(),
        Demand::Unknown { .. } => None,
    };
    seen.filter(|mix| !mix.classes.is_empty())
        .unwrap_or_else(|| LengthMix::assumed())
        .within_context(pool.model.context_tokens)
}

// --------------------------------------------------------------------------------------------------------- the checks

fn selected(pool: &Pool, group: &Group) -> Result<(), Problem> {
    let differs = |(key, value): &(&String, &String)| group.labels.get(*key) != Some(*value);
    match pool.placement.group_labels.iter().find(differs) {
        None => Ok(()),
        Some((key, value)) => Err(Problem::new(
            Reason::NoGroup,
            format!("no server group carries the label {key}={value} and all others of groupSelector"),
        )),
    }
}

fn namespace_exists(pool: &Pool, group: &Group) -> Result<(), Problem> {
    if pool.namespace_at.contains(&group.site) {
        return Ok(());
    }
    Err(Problem::new(
        Reason::NamespaceMissing,
        format!("the cluster of site {} does not have the pool's namespace", group.site),
    ))
}

fn trusted(pool: &Pool, group: &Group, site: &Site) -> Result<(), Problem> {
    let needed = pool.placement.minimum_trust;
    if site.trust >= needed {
        return Ok(());
    }
    Err(Problem::new(
        Reason::TrustTooLow,
        format!(
            "the pool wants trust {needed:?}, and site {} proves {:?}",
            group.site, site.trust
        ),
    ))
}

fn resident(pool: &Pool, group: &Group, site: &Site) -> Result<(), Problem> {
    let wanted = &pool.placement.residency;
    if wanted.is_empty() || !wanted.is_disjoint(&site.residency) {
        return Ok(());
    }
    Err(Problem::new(
        Reason::ResidencyForbidden,
        format!(
            "data must stay in {}, and site {} is for {}",
            list(wanted),
            group.site,
            if site.residency.is_empty() {
                "none".to_owned()
            } else {
                list(&site.residency)
            }
        ),
    ))
}

fn use_permitted(pool: &Pool, group: &Group, site: &Site) -> Result<(), Problem> {
    if pool.usage == Use::DevelopmentOnly || site.permitted_use == Use::Production {
        return Ok(());
    }
    Err(Problem::new(
        Reason::UseForbidden,
        format!(
            "the pool serves production, and the machines at site {} are licensed for development only",
            group.site
        ),
    ))
}

fn fits(pool: &Pool, group: &Group) -> Result<Performance, Problem> {
    performance(&pool.model, &group.machine, &pool.performance)
}

fn objectives_reachable(pool: &Pool, group: &Group, performance: &Performance) -> Result<(), Problem> {
    let Err(unreachable) = capacity::unloaded(performance, &lengths(pool), &pool.objectives) else {
        return Ok(());
    };
    let Unreachable { objective, value_ms } = unreachable;
    let what = format!(
        "{} p{} {} is unreachable: best is {} on an idle {}",
        match objective.metric {
            Metric::TimeToFirstToken => "TTFT",
            Metric::InterTokenLatency => "ITL",
        },
        (objective.percentile.get() * 1e4).round() / 1e2,
        objective.threshold,
        duration(value_ms),
        group.machine.chip
    );
    let threshold = if value_ms < 1_000.0 {
        format!("a threshold of at least {:.0}ms", value_ms.ceil())
    } else {
        format!("a threshold of at least {:.0}s", (value_ms / 1_000.0).ceil())
    };
    let shorter = match objective.metric {
        Metric::TimeToFirstToken => longest_prompt(performance, objective.threshold.as_millis() as f64),
        Metric::InterTokenLatency => None,
    };
    let message = match shorter {
        Some(tokens) => format!("{what}; {threshold}, or prompts of at most {tokens} tokens, would do"),
        None => format!("{what}; {threshold} would do"),
    };
    Err(Problem::new(Reason::ObjectiveUnreachable, message))
}

// ------------------------------------------------------------------------------------------------------------- helpers

/// How far a group is from being feasible: the checks that it has not passed, then how slow it is.
type Distance = (u8, u64);

fn distance(pool: &Pool, group: &Group, problem: &Problem) -> Distance {
    let unpassed = match problem.reason {
        Reason::NoGroup => 7,
        Reason::NamespaceMissing => 6,
        Reason::TrustTooLow => 5,
        Reason::ResidencyForbidden => 4,
        Reason::UseForbidden => 3,
        Reason::DoesNotFit => 2,
        Reason::MachineUnknown => 1,
        _ => 0,
    };
    let slowness = match fits(pool, group) {
        Ok(performance) => performance.times.delta_ns.saturating_add(performance.times.alpha_ns),
        Err(_) => 0,
    };
    (unpassed, slowness)
}

/// The longest prompt whose first token an idle server gives within `ms`, if there is any.
fn longest_prompt(performance: &Performance, ms: f64) -> Option<u32> {
    let (mut low, mut high) = (0, 1 << 24);
    while low + 1 < high {
        let middle = u32::midpoint(low, high);
        if capacity::prefill_alone_ms(performance, middle) <= ms {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low > 0).then_some(low)
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}
