//! What the capacity model says of sets of replicas.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::demand::values;
use super::options::{Options, Place};
use super::policy::{MISPREDICTED, TARGET_UTILIZATION};
use crate::capacity::{Kinds, Prediction, Sets, add};
use crate::feasibility::LengthSource;
use crate::names::{GroupName, SiteName};
use crate::snapshot::{Objective, Pool, Survive};
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
pub(crate) struct Model<'m, 'a> {
    pool: &'a Pool,
    pub(crate) options: &'m Options<'a>,
    /// Sets are asked for again and again, within a pass and from pass to pass.
    sets: &'m RefCell<Sets>,
}

impl<'m, 'a> Model<'m, 'a> {
    /// `sets` are of the pool's traffic.
    pub(crate) fn new(pool: &'a Pool, options: &'m Options<'a>, sets: &'m RefCell<Sets>) -> Self {
        Self { pool, options, sets }
    }

    /// Whether latencies are measured that are so far above the model's prediction that it may not take capacity away.
    ///
    /// Latencies far below the prediction are no reason: a pessimistic model only keeps too much. Nor are small ones,
    /// where a histogram's buckets and the network say more than the engine.
    pub(crate) fn optimistic(&self, serving: &Counts, rate: Rate, now: Timestamp) -> bool {
        let matters =
            |&(objective, value_ms): &(&Objective, f64)| value_ms > objective.threshold.as_millis() as f64 / 4.0;
        let mut slow = values(self.pool, now).filter(matters).peekable();
        if slow.peek().is_none() {
            return false;
        }
        self.predict(serving, rate).is_some_and(|prediction| {
            slow.any(|(objective, value_ms)| {
                let predicted = prediction.of(objective.metric);
                predicted.is_below(objective.percentile, value_ms / MISPREDICTED)
            })
        })
    }

    /// How far the worst objective would be from its threshold with `rest` in place of `serving`: what is measured, and the
    /// model only for what the change adds to it. `None` if it cannot tell.
    pub(crate) fn strain_with(&self, rest: &Counts, serving: &Counts, rate: Rate, now: Timestamp) -> Option<f64> {
        let (before, after) = (self.predict(serving, rate)?, self.predict(rest, rate)?);
        values(self.pool, now)
            .map(|(objective, value_ms)| {
                let at = |prediction: &Prediction| prediction.of(objective.metric).at(objective.percentile);
                let growth = at(&after) / at(&before).max(f64::MIN_POSITIVE);
                value_ms * growth.max(1.0) / (objective.threshold.as_millis().max(1) as f64)
            })
            .reduce(f64::max)
    }

    fn predict(&self, counts: &Counts, rate: Rate) -> Option<Prediction> {
        self.sets.borrow_mut().predict(&self.kinds(counts).0, rate)
    }

    /// The site of a group, if the pool may run there.
    pub(crate) fn site_of(&self, group: &GroupName) -> Option<&SiteName> {
        self.options.choice(group).map(|choice| choice.site)
    }

    /// Where a group comes in the pool's order.
    pub(crate) fn place(&self, group: &GroupName) -> Place {
        self.options.place(group, None)
    }

    /// What `counts` sustain while every objective holds.
    pub(crate) fn sustainable(&self, counts: &Counts) -> Rate {
        self.sets.borrow_mut().sustainable(self.kinds(counts).0)
    }

    /// The servers of `counts` that requests get to, and whether the figures of all of them are known.
    fn kinds(&self, counts: &Counts) -> (Kinds, bool) {
        let (mut kinds, mut fathomed) = (Kinds::new(), true);
        for (group, &count) in counts.iter().filter(|(_, count)| **count > 0) {
            match self.options.choice(group) {
                Some(choice) if choice.routable => add(&mut kinds, &choice.performance, count),
                Some(_) => {}
                None => fathomed = false,
            }
        }
        (kinds, fathomed)
    }

    /// Whether all of `counts` are machines that do the same, and that requests get to.
    pub(crate) fn alike(&self, counts: &Counts) -> bool {
        let mut groups = counts.keys().map(|group| {
            let choice = self.options.choice(group).filter(|choice| choice.routable)?;
            Some(choice.performance.times)
        });
        let first = groups.next().flatten();
        first.is_some() && groups.all(|times| times == first)
    }

    /// What `counts` lack to carry `rate` at `utilization`, and through the loss that the pool wants to survive.
    ///
    /// A loss is an exception, for which the reserve for bursts may be used up: what is left has to carry the rate in full when
    /// capacity is added. The hysteresis between adding and taking away is the same with a loss as without.
    pub(crate) fn lack(&self, counts: &Counts, rate: Rate, utilization: f64) -> Option<Lack> {
        if !self.carries(counts, rate, utilization) {
            return Some(Lack::Capacity);
        }
        let after_loss = utilization / TARGET_UTILIZATION;
        match self.pool.placement.survive_loss_of {
            Survive::None => None,
            Survive::Server => counts
                .keys()
                .any(|group| !self.carries(&without(counts, group), rate, after_loss))
                .then_some(Lack::Server),
            Survive::Site => self
                .sites(counts)
                .into_iter()
                .find(|site| !self.carries(&self.without_site(counts, site), rate, after_loss))
                .map(Lack::Site),
        }
    }

    /// Whether there are replicas among `counts` whose figures nobody knows: the spec of their group is broken, say.
    pub(crate) fn unfathomed(&self, counts: &Counts) -> bool {
        let known = |group: &GroupName| self.options.choice(group).is_some();
        counts.iter().any(|(group, count)| *count > 0 && !known(group))
    }

    /// Whether servers of `group` bring `counts` nearer to what they lack: one more, or all that are `offered` of its kind of machine.
    ///
    /// Not every server does: where requests are sent to all servers alike, the slowest one sets the pace. Those that come after the first one may
    /// still do what it does not.
    pub(crate) fn helps(&self, counts: &Counts, group: &GroupName, offered: &Counts, lack: &Lack) -> bool {
        let now = self.strength(counts, lack);
        self.strength(&with(counts, group), lack) > now || {
            let mut all = counts.clone();
            for (other, count) in offered.iter().filter(|(other, _)| self.same_machines(group, other)) {
                *all.entry(other.clone()).or_default() += count;
            }
            self.strength(&all, lack) > now
        }
    }

    /// Whether machines of two groups do the same, and requests get to both.
    fn same_machines(&self, group: &GroupName, other: &GroupName) -> bool {
        group == other || self.alike(&[(group.clone(), 1), (other.clone(), 1)].into())
    }

    /// Whether one more server of `group` lowers what all sustain.
    pub(crate) fn harms(&self, counts: &Counts, group: &GroupName) -> bool {
        self.sustainable(&with(counts, group)) < self.sustainable(counts)
    }

    /// Whether it has nothing to say: with lengths that nobody has measured lately every objective is out of reach anywhere.
    pub(crate) fn is_silent(&self) -> bool {
        self.options.feasibility.source() != LengthSource::Measured
            && self.options.choices().all(|(_, choice)| choice.doubt.is_some())
    }

    /// What is left of `counts` when that happens whose consequences are lacking, in requests per second.
    fn strength(&self, counts: &Counts, lack: &Lack) -> f64 {
        let left = |counts: &Counts| self.sustainable(counts).as_per_second();
        match lack {
            Lack::Capacity => left(counts),
            Lack::Server => counts
                .keys()
                .map(|group| left(&without(counts, group)))
                .reduce(f64::min)
                .unwrap_or(0.0),
            Lack::Site(site) => left(&self.without_site(counts, site)),
        }
    }

    /// Whether `counts` carry `rate` at `utilization`. Nothing at all is always carried, and replicas whose figures nobody
    /// knows are believed to carry what arrives: if they do not, measured objectives say so.
    pub(crate) fn carries(&self, counts: &Counts, rate: Rate, utilization: f64) -> bool {
        let needed = rate.as_per_second();
        if needed <= 0.0 {
            return true;
        }
        let (kinds, fathomed) = self.kinds(counts);
        !fathomed || self.sets.borrow_mut().carries(kinds, needed, utilization)
    }

    pub(crate) fn sites(&self, counts: &Counts) -> Vec<SiteName> {
        let mut sites: Vec<_> = counts
            .keys()
            .filter_map(|group| self.options.choice(group))
            .map(|choice| choice.site.clone())
            .collect();
        sites.sort();
        sites.dedup();
        sites
    }

    pub(crate) fn without_site(&self, counts: &Counts, site: &SiteName) -> Counts {
        counts
            .iter()
            .filter(|(group, _)| self.options.choice(group).is_some_and(|choice| choice.site != site))
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
