//! Many pools over many groups: what strategic plans are timed on.

use std::fmt;

use pomarium_kernel::random::SplitMix;
use pomarium_kernel::snapshot::Survive;
use pomarium_kernel::strategy::burn::{BurnTable, LOADS};
use pomarium_kernel::strategy::{Class, Demand, Problem, Unit, Window};

/// Pools × groups, and how many regions neither share.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) pools: usize,
    pub(crate) groups: usize,
    pub(crate) regions: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.pools, self.groups)?;
        if self.regions > 1 {
            write!(f, " in {} regions", self.regions)?;
        }
        Ok(())
    }
}

const fn size(pools: usize, groups: usize, regions: usize) -> Size {
    Size { pools, groups, regions }
}

/// Everything shared, and in regions of 25 or 50 pools over 10 groups.
pub(crate) const SIZES: [Size; 6] = [
    size(10, 5, 1),
    size(50, 20, 1),
    size(200, 50, 1),
    size(200, 50, 5),
    size(1_000, 200, 1),
    size(1_000, 200, 20),
];

const SLOTS: u32 = 80;
const SLOT_S: f64 = 1_620.0;

impl Size {
    /// Pools with a daily peak each at its own hour. Of every three groups one is owned and free, one is rented by the hour and one by the day;
    /// what is owned carries the nights. Every pool may use half of its region's groups.
    ///
    /// With `changed`, a hundredth of the pools expect a twentieth more.
    pub(crate) fn problem(self, changed: bool) -> Problem {
        let mut random = SplitMix::of(7, &[self.pools as u64, self.groups as u64]);
        let boundaries_s: Vec<f64> = (0..=SLOTS).map(|slot| f64::from(slot) * SLOT_S).collect();
        let pools = (0..self.pools)
            .map(|pool| {
                let factor = if changed && pool % 100 == 0 { 1.05 } else { 1.0 };
                demand(&boundaries_s, pool, factor * (0.8 + 0.4 * random.unit()))
            })
            .collect();
        let each = (self.pools * 4).div_ceil(self.groups);
        let classes = (0..self.groups)
            .map(|group| self.class(group, [each / 3, each, each][group % 3].max(1)))
            .collect();
        Problem {
            boundaries_s,
            classes,
            pools,
            power_limits: Vec::new(),
            overhang: 0.1,
            change_hourly: 0.0,
        }
    }

    fn class(self, group: usize, servers: usize) -> Class {
        let kind = group % 3;
        let region = group % self.regions;
        let may_use = |pool: usize| {
            let near = pool % self.regions == region;
            near && (pool / self.regions + group / self.regions).is_multiple_of(2)
        };
        Class {
            tier: u32::from(kind != 0),
            site: group % 4,
            hourly: [0.0, 1.5, 2.0][kind],
            energy_hourly: 0.002,
            minimum_lease_s: [0.0, 3_600.0, 86_400.0][kind],
            lead_s: [90.0, 330.0, 950.0][kind],
            recycle_s: [0.0, 0.0, 6_600.0][kind],
            switch_cost: 0.02,
            busy_watts: 0.0,
            capacity: (0..self.pools)
                .map(|pool| may_use(pool).then_some([1.0, 0.8, 0.5][kind]))
                .collect(),
            units: vec![Unit::Off { from_s: 0.0 }; servers],
        }
    }
}

fn demand(boundaries_s: &[f64], pool: usize, size: f64) -> Demand {
    let slots = boundaries_s.len() - 1;
    let arrivals: Vec<Vec<(f64, f64)>> = (0..slots)
        .map(|slot| {
            let phase = (slot * 3 + pool * 7) % 53;
            let rate = size * (0.4 + if phase < 20 { 1.2 } else { 0.0 });
            vec![(0.25, rate * 0.8), (0.5, rate), (0.25, rate * 1.25)]
        })
        .collect();
    let requests: f64 = arrivals.iter().map(|arrivals| arrivals[1].1 * SLOT_S).sum();
    let burn = LOADS.map(|load| if load < 0.85 { 0.1 } else { 0.1 + (load - 0.85) * 100.0 });
    Demand {
        arrivals,
        burn: BurnTable::new(vec![(1.0, burn)]).unwrap_or_else(|| unreachable!("one entry")),
        windows: vec![Window {
            slots: 0..slots,
            budget: requests * 0.6,
        }],
        miss_value: 0.0,
        survive: Survive::None,
        rank: 0,
        most: u32::MAX,
        budgets: Vec::new(),
        backlog: None,
    }
}
