//! Which pool may run where.
//!
//! A chain of named checks, in this order: selector, namespace and route, trust, residency, permitted use, memory, objectives.
//! The first that fails is the answer: what the law or a promise forbids is said before what a larger machine would cure. All of
//! them fail closed, but for one: objectives are judged by the lengths of requests, and lengths that nobody has measured lately
//! give a warning and no refusal. A pool that may not serve would never be measured. Nor do figures refuse what engines are seen to do.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::capacity::calibration::calibrated;
use crate::capacity::{self, Trust, Unreachable, duration};
use crate::catalogue::Catalogue;
use crate::names::{GroupName, SiteName};
use crate::performance::{Performance, performance};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Demand, EnginesMeasured, Group, LengthMix, MachineKey, Metric, Pool, Site, Use};
use crate::time::{Span, Timestamp};

/// Lengths that were measured longer ago than this refuse nothing any more.
const LENGTHS_MAX_AGE: Span = Span::from_minutes(10);

/// Fewer requests disprove nothing.
const LEAST_SAMPLES: u64 = 20;

/// Where a mix of lengths comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthSource {
    /// Measured lately.
    Measured,
    /// Measured once, and remembered.
    Remembered,
    /// Never measured: those of recorded conversations.
    Assumed,
}

/// One pool, and what it is judged by.
#[derive(Clone, Debug)]
pub struct Feasibility<'a> {
    pool: &'a Pool,
    catalogue: &'a Catalogue,
    lengths: Cow<'a, LengthMix>,
    source: LengthSource,
    now: Timestamp,
    /// Hundreds of groups are of a handful of machines.
    machines: RefCell<Vec<Judged>>,
}

/// What a machine does for the pool, and which objective it does not meet even without load.
#[derive(Clone, Debug)]
struct Judged {
    machine: MachineKey,
    declared: Result<Performance, Problem>,
    trust: Trust,
    performance: Result<Arc<Performance>, Problem>,
    unreachable: Option<Unreachable>,
}

impl<'a> Feasibility<'a> {
    /// Judges `pool` by what `catalogue` knows of machines, and by the best lengths of requests that are known `now`.
    pub fn of(pool: &'a Pool, catalogue: &'a Catalogue, now: Timestamp) -> Self {
        let (lengths, source) = match measured_lengths(pool, now) {
            Some(mix) => (mix, LengthSource::Measured),
            None => match pool.memory.lengths.as_ref().filter(|mix| !mix.classes.is_empty()) {
                Some(mix) => (mix, LengthSource::Remembered),
                None => (LengthMix::assumed(), LengthSource::Assumed),
            },
        };
        Self {
            pool,
            catalogue,
            lengths: lengths.within_context(pool.model.context_tokens),
            source,
            now,
            machines: RefCell::default(),
        }
    }

    /// Lengths to judge and plan with, within the model's context.
    pub fn lengths(&self) -> &LengthMix {
        &self.lengths
    }

    /// Where they come from.
    pub fn source(&self) -> LengthSource {
        self.source
    }

    /// Whether the pool may run on servers of `group`, and what they do for it.
    pub fn check(&self, name: &GroupName, group: &Group, site: &Site) -> Result<Performance, Problem> {
        self.find(name, group, site).map(Arc::unwrap_or_clone)
    }

    /// The same, shared.
    pub(crate) fn find(&self, name: &GroupName, group: &Group, site: &Site) -> Result<Arc<Performance>, Problem> {
        let pool = self.pool;
        selected(pool, group)?;
        namespace_exists(pool, group)?;
        routable(pool, group)?;
        trusted(pool, group, site)?;
        resident(pool, group, site)?;
        use_permitted(pool, group, site)?;
        let performance = self.figures(group)?;
        match self.doubt(group, &performance) {
            Some(problem) if self.source == LengthSource::Measured && !self.disproved(name, group) => Err(problem),
            _ => Ok(performance),
        }
    }

    /// What servers of `group` do for the pool, if it fits them: by their figures, and by what was measured of these.
    pub fn performance(&self, group: &Group) -> Result<Performance, Problem> {
        self.figures(group).map(Arc::unwrap_or_clone)
    }

    /// The same, shared.
    pub(crate) fn figures(&self, group: &Group) -> Result<Arc<Performance>, Problem> {
        self.judged(&group.machine, |judged| judged.performance.clone())
    }

    /// What they would do by their figures alone.
    pub fn declared(&self, group: &Group) -> Result<Performance, Problem> {
        self.judged(&group.machine, |judged| judged.declared.clone())
    }

    /// What is found of a machine, which is found once.
    fn judged<T>(&self, machine: &MachineKey, of: impl Fn(&Judged) -> T) -> T {
        if let Some(judged) = self.machines.borrow().iter().find(|judged| judged.machine == *machine) {
            return of(judged);
        }
        let pool = self.pool;
        let declared = performance(self.catalogue, &pool.model, machine, &pool.performance);
        let trust = declared.as_ref().map_or(Trust::TooFewSamples, |declared| {
            pool.past.calibrations.trust(machine, &declared.times)
        });
        let performance = declared.clone().map(|declared| {
            Arc::new(Performance {
                times: calibrated(&declared.times, trust),
                ..declared
            })
        });
        let unloaded = |found: &Arc<Performance>| capacity::unloaded(found, &self.lengths, &pool.objectives).err();
        let judged = Judged {
            machine: machine.clone(),
            declared,
            trust,
            unreachable: performance.as_ref().ok().and_then(unloaded),
            performance,
        };
        let found = of(&judged);
        self.machines.borrow_mut().push(judged);
        found
    }

    /// What was found out about the figures of `group`'s machines.
    pub fn trust(&self, group: &Group) -> Trust {
        self.judged(&group.machine, |judged| judged.trust)
    }

    /// Whether servers of `group` have been seen to do what their figures rule out.
    fn disproved(&self, name: &GroupName, group: &Group) -> bool {
        let attains = |measured: &EnginesMeasured| {
            let mut each = self.pool.objectives.iter().zip(&measured.values_ms);
            measured.samples >= LEAST_SAMPLES
                && self.now.since(measured.at) <= LENGTHS_MAX_AGE
                && measured.values_ms.len() >= self.pool.objectives.len()
                && each.all(|(objective, value)| value.is_some_and(|ms| ms <= objective.threshold.as_millis() as f64))
        };
        !self.trust(group).may_refuse() || self.pool.engines.get(name).is_some_and(attains)
    }

    /// Why an objective is out of reach on servers of `group` even without load, if it is, with these lengths.
    pub fn doubt(&self, group: &Group, performance: &Performance) -> Option<Problem> {
        let unreachable = self.judged(&group.machine, |judged| judged.unreachable)?;
        Some(unreachable_objective(&unreachable, group, performance))
    }

    /// Whether an objective is out of reach on machines such as those of `group` even without load, with these lengths.
    pub(crate) fn is_out_of_reach(&self, group: &Group) -> bool {
        self.judged(&group.machine, |judged| judged.unreachable.is_some())
    }

    /// The groups on which the pool may run.
    ///
    /// # Errors
    /// If there is none: the one problem for a person to read. That of the group that came furthest in the chain, because it
    /// needs the smallest change; among those with unreachable objectives, that of the fastest.
    pub fn groups<'g>(
        &self,
        groups: &'g BTreeMap<GroupName, Group>,
        sites: &BTreeMap<SiteName, Site>,
    ) -> Result<Vec<(&'g GroupName, Performance)>, Problem> {
        let mut found = Vec::new();
        let mut nearest: Option<(Distance, Problem)> = None;
        for (name, group) in groups {
            let Some(site) = sites.get(&group.site) else {
                continue;
            };
            match self.check(name, group, site) {
                Ok(performance) => found.push((name, performance)),
                Err(problem) => {
                    let distance = self.distance(group, &problem);
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

    fn distance(&self, group: &Group, problem: &Problem) -> Distance {
        let unpassed = match problem.reason {
            Reason::NoGroup => 8,
            Reason::NamespaceMissing => 7,
            Reason::RouteUnsupported => 6,
            Reason::TrustTooLow => 5,
            Reason::ResidencyForbidden => 4,
            Reason::UseForbidden => 3,
            Reason::DoesNotFit => 2,
            Reason::MachineUnknown => 1,
            _ => 0,
        };
        let slowness = match self.performance(group) {
            Ok(performance) => performance.times.delta_ns.saturating_add(performance.times.alpha_ns),
            Err(_) => 0,
        };
        (unpassed, slowness)
    }
}

/// Lengths of the requests that were seen lately, if enough were.
pub fn measured_lengths(pool: &Pool, now: Timestamp) -> Option<&LengthMix> {
    match &pool.demand {
        Demand::Known(arrivals) if now.since(arrivals.at) <= LENGTHS_MAX_AGE => {
            arrivals.lengths.as_ref().filter(|mix| !mix.classes.is_empty())
        }
        Demand::Known(_) | Demand::Unknown { .. } => None,
    }
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

/// Whether requests get to a site. Capacity that no request reaches is none.
pub(crate) fn is_routable(pool: &Pool, site: &SiteName) -> bool {
    pool.routable_at.as_ref().is_none_or(|sites| sites.contains(site))
}

/// A Service backend must be in the gateway's cluster.
fn routable(pool: &Pool, group: &Group) -> Result<(), Problem> {
    if is_routable(pool, &group.site) {
        return Ok(());
    }
    Err(Problem::new(
        Reason::RouteUnsupported,
        format!(
            "the pool's HTTPRoute is in the hub and cannot send requests to site {}, which is another cluster",
            group.site
        ),
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

fn unreachable_objective(unreachable: &Unreachable, group: &Group, performance: &Performance) -> Problem {
    let Unreachable { objective, value_ms } = *unreachable;
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
    Problem::new(Reason::ObjectiveUnreachable, message)
}

// ------------------------------------------------------------------------------------------------------------- helpers

/// How far a group is from being feasible: the checks that it has not passed, then how slow it is.
type Distance = (u8, u64);

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
