//! What a rule needs, and how a count of equal replicas maps to unequal machines.
//!
//! The peers know equal replicas. Here machines differ, so a need is an *amount* in *units per machine* of each group:
//!
//! - A rule that only counts replicas (HPA, KEDA, static peak) gives every machine one unit: it sees Pods, and a Pod on a slow
//!   machine looks like any other.
//! - A rule that knows what one replica carries (WVA's sizing per variant, Dynamo's profiles, `SkyServe`'s rate per
//!   instance type) gives every machine what that rule itself thinks it carries, and needs the load.
//!
//! Both translate to a number of machines in the order of placement and back, so that limits which the peers put on
//! replicas (steps, stabilisation, hysteresis) apply to machines.

use crate::machines::GroupModel;

/// `minReplicas` of every rule: the machines without an hourly price, and at least one. Their owner pays no more than some idle watts
/// for them, and whoever ran one of the peers on them would set it so.
pub(crate) fn least(groups: &[GroupModel]) -> u32 {
    let free = groups.iter().filter(|group| group.hourly <= 0.0);
    free.map(|group| group.max).sum::<u32>().max(1)
}

/// `maxReplicas` of every rule: all machines that there are.
pub(crate) fn most(groups: &[GroupModel]) -> u32 {
    groups.iter().map(|group| group.max).sum()
}

/// How much is needed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Need {
    /// What one machine of each group counts for; a group with zero is of no use to the rule.
    pub(crate) units: Vec<f64>,
    /// How much all of them have to sum up to.
    pub(crate) amount: f64,
}

/// Amounts are sums of few units: anything less is rounding.
const ROUNDING: f64 = 1e-9;

impl Need {
    /// So many machines, whichever.
    pub(crate) fn replicas(count: u32, groups: &[GroupModel]) -> Self {
        Self {
            units: vec![1.0; groups.len()],
            amount: f64::from(count),
        }
    }

    /// What the first `count` machines in the order of placement carry.
    pub(crate) fn first(count: u32, units: Vec<f64>, groups: &[GroupModel]) -> Self {
        let mut left = count;
        let mut amount = 0.0;
        for (group, unit) in groups.iter().zip(&units).filter(|(_, unit)| **unit > 0.0) {
            let taken = left.min(group.max);
            left -= taken;
            amount += f64::from(taken) * unit;
        }
        Self { units, amount }
    }

    /// How many machines in the order of placement it takes; all, if that is not enough.
    pub(crate) fn count(&self, groups: &[GroupModel]) -> u32 {
        let mut filled = Filled::default();
        let mut count = 0;
        for (group, model) in groups.iter().enumerate() {
            for _ in 0..model.max {
                if !filled.takes(self, group) {
                    break;
                }
                count += 1;
            }
        }
        count
    }
}

/// A need being filled, machine by machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filled(f64);

impl Filled {
    /// Counts one more machine of `group` if the need is not filled yet. False if it is, or such a machine is of no use.
    pub(crate) fn takes(&mut self, need: &Need, group: usize) -> bool {
        let unit = need.units[group];
        let wanted = unit > 0.0 && self.0 < need.amount * (1.0 - ROUNDING);
        if wanted {
            self.0 += unit;
        }
        wanted
    }

    /// Counts a machine that is there anyway.
    pub(crate) fn has(&mut self, need: &Need, group: usize) {
        self.0 += need.units[group];
    }
}
