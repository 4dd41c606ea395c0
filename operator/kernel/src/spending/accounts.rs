//! Who pays for which server, found once for all pools.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{is_asked_for, price};
use crate::names::{GroupName, PoolId, ServerName};
use crate::snapshot::{Group, Pool, Server, Snapshot};
use crate::time::Timestamp;
use crate::units::Money;

/// The accounts of all pools of a snapshot. Empty as long as no pool has a budget.
#[derive(Debug, Default)]
pub struct Accounts<'a> {
    /// Per pool: servers that its replicas are on.
    serving: BTreeMap<&'a PoolId, Vec<Share<'a>>>,
    /// Servers that serve nobody, by group.
    idle: Vec<Idle<'a>>,
    /// Per pool: in which of those groups the strategic plan has more servers for it than it uses, and how many.
    waits: BTreeMap<&'a PoolId, Vec<(usize, u32)>>,
    /// Per pool: which of `selections` is its.
    selects: BTreeMap<&'a PoolId, usize>,
    selections: Vec<Selection>,
    /// When leases began, sorted.
    began: Vec<Timestamp>,
    /// What idling costs in a group: kilowatts, their price per hour, and what cooling adds.
    prices: BTreeMap<&'a GroupName, [f64; 3]>,
}

/// Servers of a group that serve nobody.
#[derive(Debug)]
struct Idle<'a> {
    group_name: &'a GroupName,
    group: &'a Group,
    servers: Vec<(&'a ServerName, &'a Server)>,
    /// How many pools wait for.
    waited_for: u32,
}

/// Pools that select the same groups: what is idle there and nobody waits for, they pay in the same parts.
#[derive(Debug, Default)]
struct Selection {
    /// Which of the groups, and by how many pools in all each is selected.
    groups: Vec<(usize, u32)>,
    /// What was found out for some span of time.
    accrued: RefCell<BTreeMap<(Timestamp, Timestamp), Money>>,
    asked: RefCell<Option<Money>>,
}

/// A server, and what part of it a pool pays for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share<'a> {
    pub(super) group_name: &'a GroupName,
    group: &'a Group,
    pub(super) server_name: &'a ServerName,
    server: &'a Server,
    own: u32,
    all: u32,
}

impl Share<'_> {
    /// One pool's part of `amount`.
    pub(super) fn of(&self, amount: Money) -> Money {
        let micros = i128::from(amount.as_micros()) * i128::from(self.own) / i128::from(self.all.max(1));
        Money::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// One pool's part of what it costs at least, if it has been asked for and its lease has not begun.
    fn asked(&self) -> Money {
        if self.server.lease.is_none() && is_asked_for(self.server) {
            self.of(price(self.group))
        } else {
            Money::ZERO
        }
    }
}

impl<'a> Accounts<'a> {
    /// Finds out who pays for what.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let mut accounts = Self::default();
        if snapshot.pools.values().all(|pool| pool.budget.is_none()) {
            return accounts;
        }
        let mut on: BTreeMap<(&GroupName, &ServerName), Vec<&PoolId>> = BTreeMap::new();
        for (id, pool) in &snapshot.pools {
            for replica in pool.running.values() {
                let payers = on.entry((&replica.group, &replica.server)).or_default();
                // One after the other.
                if payers.last() != Some(&id) {
                    payers.push(id);
                }
            }
        }
        for (group_name, group) in &snapshot.groups {
            let mut idle = Vec::new();
            for (server_name, server) in group.inventory.servers() {
                accounts.began.extend(server.lease.map(|lease| lease.start));
                let Some(payers) = on.get(&(group_name, server_name)) else {
                    idle.push((server_name, server));
                    continue;
                };
                let share = Share {
                    group_name,
                    group,
                    server_name,
                    server,
                    own: 1,
                    all: u32::try_from(payers.len()).unwrap_or(u32::MAX),
                };
                for id in payers {
                    accounts.serving.entry(id).or_default().push(share);
                }
            }
            accounts.idle.push(Idle {
                group_name,
                group,
                servers: idle,
                waited_for: 0,
            });
            let energy = snapshot.sites.get(&group.site).map(|site| &site.energy);
            let price = energy.map_or([0.0; 3], |energy| {
                [
                    group.power.idle_watts / 1_000.0,
                    energy.price_per_kwh.as_f64(),
                    energy.pue,
                ]
            });
            accounts.prices.insert(group_name, price);
        }
        accounts.began.sort_unstable();
        accounts.wait(snapshot);
        accounts.select(snapshot);
        accounts
    }

    fn wait(&mut self, snapshot: &'a Snapshot) {
        let Some(ahead) = &snapshot.ahead else { return };
        for (id, pool) in &snapshot.pools {
            let Some(planned) = ahead.pools.get(id) else { continue };
            let mut there: BTreeMap<&GroupName, u32> = BTreeMap::new();
            for replica in pool.running.values() {
                *there.entry(&replica.group).or_default() += 1;
            }
            for (group, planned) in &planned.replicas {
                let missing = planned.saturating_sub(there.get(group).copied().unwrap_or(0));
                let index = self.idle.binary_search_by(|idle| idle.group_name.cmp(group));
                if let Ok(index) = index
                    && let Some(idle) = self.idle.get_mut(index).filter(|_| missing > 0)
                {
                    idle.waited_for = idle.waited_for.saturating_add(missing);
                    self.waits.entry(id).or_default().push((index, missing));
                }
            }
        }
    }

    fn select(&mut self, snapshot: &'a Snapshot) {
        let mut alike: BTreeMap<_, Vec<&PoolId>> = BTreeMap::new();
        for (id, pool) in &snapshot.pools {
            let by = (&pool.namespace_at, &pool.placement.group_labels);
            alike.entry(by).or_default().push(id);
        }
        let mut pools = vec![0_u32; self.idle.len()];
        for ids in alike.values() {
            let Some(pool) = ids.first().and_then(|id| snapshot.pools.get(*id)) else {
                continue;
            };
            let groups = self.idle.iter().enumerate();
            let selected: Vec<usize> = groups
                .filter(|(_, idle)| idle.waited_for == 0 && selects(pool, idle.group))
                .map(|(index, _)| index)
                .collect();
            for index in &selected {
                pools[*index] += u32::try_from(ids.len()).unwrap_or(u32::MAX);
            }
            self.selects.extend(ids.iter().map(|id| (*id, self.selections.len())));
            self.selections.push(Selection {
                groups: selected.into_iter().map(|index| (index, 0)).collect(),
                ..Selection::default()
            });
        }
        for (index, count) in self.selections.iter_mut().flat_map(|selection| &mut selection.groups) {
            *count = pools[*index];
        }
    }

    /// Whether a lease has begun in `(from, to]`.
    pub(super) fn began(&self, from: Timestamp, to: Timestamp) -> bool {
        let first = self.began.partition_point(|at| *at <= from);
        self.began.get(first).is_some_and(|at| *at <= to)
    }

    /// All servers that a pool pays for.
    pub(super) fn shares(&self, id: &PoolId) -> impl Iterator<Item = Share<'a>> {
        let selected = self
            .selection(id)
            .into_iter()
            .flat_map(|selection| self.idle(selection));
        self.own(id).chain(selected)
    }

    /// Those that it pays for as no other pool does: servers that its replicas are on, and those that it waits for.
    fn own(&self, id: &PoolId) -> impl Iterator<Item = Share<'a>> {
        let serving = self.serving.get(id).into_iter().flatten().copied();
        let waits = self.waits.get(id).into_iter().flatten();
        serving.chain(waits.flat_map(|(index, own)| self.of_group(*index, *own, None)))
    }

    /// What a pool spends in `(from, to]`.
    pub(super) fn accrued(&self, id: &PoolId, from: Timestamp, to: Timestamp) -> Money {
        let cost = |share: Share| share.of(self.cost(&share, from, to));
        let own: Money = self.own(id).map(cost).sum();
        let Some(selection) = self.selection(id) else {
            return own;
        };
        let known = selection.accrued.borrow().get(&(from, to)).copied();
        let idle = known.unwrap_or_else(|| {
            let idle = self.idle(selection).map(cost).sum();
            selection.accrued.borrow_mut().insert((from, to), idle);
            idle
        });
        own + idle
    }

    /// What servers will cost a pool at least that have been asked for.
    pub(super) fn asked(&self, id: &PoolId) -> Money {
        let own: Money = self.own(id).map(|share| share.asked()).sum();
        let idle = self.selection(id).map_or(Money::ZERO, |selection| {
            let sum = || self.idle(selection).map(|share| share.asked()).sum();
            *selection.asked.borrow_mut().get_or_insert_with(sum)
        });
        own + idle
    }

    /// What a server costs in `(from, to]`.
    pub(super) fn cost(&self, share: &Share, from: Timestamp, to: Timestamp) -> Money {
        let (group, server) = (share.group, share.server);
        let mut amount = Money::ZERO;
        if let Some(lease) = server.lease {
            if lease.start > from && lease.start <= to {
                amount = amount + group.pricing.hourly.for_span(lease.minimum_until.since(lease.start));
            }
            amount = amount + group.pricing.hourly.for_span(to.since(lease.minimum_until.max(from)));
        }
        if group.provider.always_on || is_asked_for(server) {
            return amount;
        }
        let began = server.lease.map_or(server.since, |lease| lease.start);
        let on = to.since(from.max(began)).as_hours_f64();
        let [kilowatts, price, pue] = self.prices.get(share.group_name).copied().unwrap_or_default();
        amount + Money::from_f64(kilowatts * price * pue * on)
    }

    fn selection(&self, id: &PoolId) -> Option<&Selection> {
        self.selections.get(*self.selects.get(id)?)
    }

    fn idle(&self, selection: &Selection) -> impl Iterator<Item = Share<'a>> {
        let groups = selection.groups.iter();
        groups.flat_map(|(index, payers)| self.of_group(*index, 1, Some(*payers)))
    }

    /// Servers of a group that serve nobody, of which a pool pays `own` parts; of all that pools wait for, if not said otherwise.
    fn of_group(&self, index: usize, own: u32, all: Option<u32>) -> impl Iterator<Item = Share<'a>> {
        self.idle.get(index).into_iter().flat_map(move |idle| {
            idle.servers.iter().map(move |(server_name, server)| Share {
                group_name: idle.group_name,
                group: idle.group,
                server_name,
                server,
                own,
                all: all.unwrap_or(idle.waited_for),
            })
        })
    }
}

fn selects(pool: &Pool, group: &Group) -> bool {
    let labels = &pool.placement.group_labels;
    pool.namespace_at.contains(&group.site) && labels.iter().all(|(key, value)| group.labels.get(key) == Some(value))
}
