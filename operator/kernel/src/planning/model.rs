//! What the capacity model says of sets of replicas.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::options::{Options, Place};
use super::policy::{MEASURE_MAX_AGE, MIN_SAMPLES, MISPREDICTED};
use crate::capacity::{Servers, predict, sustainable};
use crate::feasibility::lengths;
use crate::names::{GroupName, SiteName};
use crate::snapshot::{LengthMix, Measured, Pool, Survive};
use crate::time::Timestamp;
use crate::units::Rate;

/// Replicas by group. Groups without any are left out.
pub(crate) type Counts = BTreeMap<GroupName, u32>;

/// What a set of replicas lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// It does not carry the demand.
    Capacity,
    /// It would not, if any one server were gone.
    Server,
    /// It would not, if this site were gone.
    Site(SiteName),
}

/// The model of one pool's capacity in one pass.
#[derive(Debug)]
pub(crate) struct Model<'a> {
    pool: &'a Pool,
    options: &'a Options<'a>,
    lengths: LengthMix,
    /// Sets are asked for again and again while a pass compares them.
    known: RefCell<BTreeMap<Counts, f64>>,
}

impl<'a> Model<'a> {
    pub(crate) fn new(pool: &'a Pool, options: &'a Options<'a>) -> Self {
        Self {
            pool,
            options,
            lengths: lengths(pool),
            known: RefCell::default(),
        }
    }

    /// Whether latencies are measured that are so far above the model's prediction that it may not take capacity away.
    ///
    /// Latencies far below the prediction are no reason: a pessimistic model only keeps too much. Nor are small ones,
    /// where a histogram's buckets and the network say more than the engine.
    pub(crate) fn optimistic(&self, serving: &Counts, rate: Rate, now: Timestamp) -> bool {
        let Some(prediction) = predict(&self.servers(serving), &self.lengths, self.pool.discipline, rate) else {
            return false;
        };
        self.pool
            .objectives
            .iter()
            .zip(&self.pool.measured)
            .any(|(objective, measured)| match *measured {
                Measured::Known {
                    value_ms, samples, at, ..
                } if samples >= MIN_SAMPLES && now.since(at) <= MEASURE_MAX_AGE => {
                    let predicted = prediction.of(objective.metric).at(objective.percentile);
                    let matters = objective.threshold.as_millis() as f64 / 4.0;
                    value_ms > matters && value_ms > predicted * MISPREDICTED
                }
                _ => false,
            })
    }

    /// The site of a group, if the pool may run there.
    pub(crate) fn site_of(&self, group: &GroupName) -> Option<&SiteName> {
        self.options.choices.get(group).map(|choice| choice.site)
    }

    /// Where a group comes in the pool's order.
    pub(crate) fn place(&self, group: &GroupName) -> Place {
        self.options.place(group, true)
    }

    /// What `counts` sustain while every objective holds.
    pub(crate) fn sustainable(&self, counts: &Counts) -> Rate {
        if let Some(rate) = self.known.borrow().get(counts) {
            return Rate::per_second(*rate);
        }
        let servers = self.servers(counts);
        let rate = sustainable(&servers, &self.lengths, &self.pool.objectives, self.pool.discipline);
        self.known.borrow_mut().insert(counts.clone(), rate.as_per_second());
        rate
    }

    fn servers(&self, counts: &Counts) -> Vec<Servers<'_>> {
        counts
            .iter()
            .filter_map(|(group, &count)| {
                let choice = self.options.choices.get(group)?;
                (count > 0).then_some(Servers {
                    performance: &choice.performance,
                    count,
                })
            })
            .collect()
    }

    /// What `counts` lack to carry `rate` at `utilization`, and through the loss that the pool wants to survive.
    pub(crate) fn lack(&self, counts: &Counts, rate: Rate, utilization: f64) -> Option<Lack> {
        if !self.carries(counts, rate, utilization) {
            return Some(Lack::Capacity);
        }
        match self.pool.placement.survive_loss_of {
            Survive::None => None,
            Survive::Server => counts
                .keys()
                .any(|group| !self.carries(&without(counts, group), rate, 1.0))
                .then_some(Lack::Server),
            Survive::Site => self
                .sites(counts)
                .into_iter()
                .find(|site| !self.carries(&self.without_site(counts, site), rate, 1.0))
                .map(Lack::Site),
        }
    }

    /// Whether there are replicas among `counts` whose figures nobody knows: the spec of their group is broken, say.
    pub(crate) fn unfathomed(&self, counts: &Counts) -> bool {
        let known = |group: &GroupName| self.options.choices.contains_key(group);
        counts.iter().any(|(group, count)| *count > 0 && !known(group))
    }

    /// Whether `counts` carry `rate` at `utilization`. Nothing at all is always carried, and replicas whose figures nobody
    /// knows are believed to carry what arrives: if they do not, measured objectives say so.
    pub(crate) fn carries(&self, counts: &Counts, rate: Rate, utilization: f64) -> bool {
        let needed = rate.as_per_second();
        needed <= 0.0 || self.unfathomed(counts) || self.sustainable(counts).as_per_second() * utilization >= needed
    }

    fn sites(&self, counts: &Counts) -> Vec<SiteName> {
        let mut sites: Vec<_> = counts
            .keys()
            .filter_map(|group| self.options.choices.get(group))
            .map(|choice| choice.site.clone())
            .collect();
        sites.sort();
        sites.dedup();
        sites
    }

    fn without_site(&self, counts: &Counts, site: &SiteName) -> Counts {
        counts
            .iter()
            .filter(|(group, _)| {
                self.options
                    .choices
                    .get(*group)
                    .is_some_and(|choice| choice.site != site)
            })
            .map(|(group, count)| (group.clone(), *count))
            .collect()
    }
}

/// `counts` with one more in `group`.
pub(crate) fn with(counts: &Counts, group: &GroupName) -> Counts {
    let mut more = counts.clone();
    *more.entry(group.clone()).or_default() += 1;
    more
}

/// `counts` with one less in `group`.
pub(crate) fn without(counts: &Counts, group: &GroupName) -> Counts {
    let mut less = counts.clone();
    if let Some(count) = less.get_mut(group) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            less.remove(group);
        }
    }
    less
}

/// How many in all.
pub(crate) fn total(counts: &Counts) -> u32 {
    counts.values().sum()
}
