//! From a snapshot to what a strategic plan is made of, and from the plan back to names.
//!
//! | what | becomes |
//! |---|---|
//! | a pool whose demand is known, that is not paused and not being deleted | a consumer |
//! | a pool whose demand is not known | nothing: not zero, and what serves it is not there for others |
//! | a group that some consumer may use | one supply for each kind of evidence that its servers give and that makes a difference |
//! | a server that serves a consumer, is free for one, or is coming | held, from when on it can serve |
//! | one that has to go, does not answer, or serves somebody else | nothing: what stands in its place has to be planned |
//! | one that may be asked for, now or later: at a delivery, once it is recycled, when a group that had none is asked again | free, from then on |
//!
//! Where several pools share groups and disagree about the order, `OwnedFirst` counts: it is a promise to people, `Cheapest` a wish to save.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::instead::chosen;
use super::limits::Limits;
use super::{Ahead, Missing, PoolAhead, Spending};
use crate::lifecycle::{NodeHealth, ReplicaState, ServerState};
use crate::names::{GroupName, PoolId, ServerName, SiteName};
use crate::planning::{
    Crew, DRAIN_ESTIMATE, MEASURE_MAX_AGE, Member, Need, Options, Power, Standing, World, is_usable, may_grow, need,
    planned_lengths, recallable, retained_until,
};
use crate::reason::{Problem, Reason};
use crate::snapshot::{Demand, Group, LengthMix, Load, Ownership, PlacementOrder, Pool, Server, Snapshot, Trust};
use crate::strategy::dwell::Considered;
use crate::strategy::envelope::{Consumer, Envelope, Held, Method, PoolPlan, Situation, Supply};
use crate::strategy::horizon::LENGTH;
use crate::strategy::past::per_miss;
use crate::time::{Span, Timestamp};
use crate::units::{Money, Rate};

/// A start is only worth it from this saving on, in the hub's currency: below it plans would change for nothing.
const SWITCH_COST: f64 = 0.02;

/// A machine of one's own that does not answer is repaired at some time; until then others stand in.
const REPAIR: Span = Span::from_hours(1);

/// Everything that a plan is made of, with names.
pub(super) struct Scene<'a> {
    pub(super) now: Timestamp,
    pub(super) pools: Vec<Planned<'a>>,
    pub(super) sources: Vec<Source<'a>>,
    limits: Limits,
    /// Why no server of a group may be asked for now.
    pub(super) unavailable: BTreeMap<&'a GroupName, Problem>,
    /// What the last plans wanted.
    considered: Considered,
}

/// Whether a pool can be planned for: what arrives is known, and it is to be served.
fn is_planned_for(pool: &Pool, now: Timestamp) -> bool {
    !pool.paused && !pool.deleting && !pool.objectives.is_empty() && matches!(need(pool, now), Need::Known { .. })
}

/// A pool that is planned for.
pub(super) struct Planned<'a> {
    pub(super) id: &'a PoolId,
    pub(super) pool: &'a Pool,
    pub(super) options: Options<'a>,
    mix: LengthMix,
    waiting: f64,
    recent: Rate,
}

impl Planned<'_> {
    fn may_use(&self, group: &GroupName) -> bool {
        self.options.satisfies(group)
    }

    fn trust(&self) -> Trust {
        self.pool.placement.minimum_trust
    }
}

/// Servers of one group that give the same evidence.
pub(super) struct Source<'a> {
    pub(super) group: &'a GroupName,
    /// What they prove, as far as some pool asks for it.
    proven: Trust,
    /// Names of all that there are of the group.
    existing: BTreeSet<ServerName>,
    /// Names of those that are held, in the order of `supply.held`.
    pub(super) servers: Vec<&'a ServerName>,
    pub(super) supply: Supply,
}

/// Replicas by the server that they stand on.
type Occupants<'c, 'a> = BTreeMap<(&'a SiteName, &'a ServerName), Vec<(&'a PoolId, &'a Pool, &'c Member<'a>)>>;

impl<'a> Scene<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let world = World::new(snapshot, now);
        let pools: Vec<Planned> = snapshot
            .pools
            .iter()
            .filter(|(_, pool)| is_planned_for(pool, now))
            .filter_map(|(id, pool)| {
                let waiting = waiting(pool, now);
                Some(Planned {
                    id,
                    pool,
                    options: Options::of(&world, pool),
                    mix: planned_lengths(pool, now),
                    waiting,
                    recent: recent(pool, waiting)?,
                })
            })
            .filter(|planned| snapshot.groups.keys().any(|group| planned.may_use(group)))
            .collect();
        let crews: Vec<Crew> = snapshot
            .pools
            .iter()
            .map(|(id, pool)| Crew::muster(&world, id, pool))
            .collect();
        let mut occupants = Occupants::new();
        for crew in &crews {
            for member in &crew.members {
                let at = (&member.replica.site, &member.replica.server);
                occupants.entry(at).or_default().push((crew.id, crew.pool, member));
            }
        }
        let mut order: Vec<_> = snapshot
            .groups
            .iter()
            .filter_map(|(name, group)| Some((place(&pools, name)?, name, group)))
            .collect();
        order.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        let sources = order.into_iter().enumerate().flat_map(|(tier, (_, name, group))| {
            let users = pools.iter().filter(|planned| planned.may_use(name)).collect();
            let yard = Yard {
                world: &world,
                users,
                occupants: &occupants,
                name,
                group,
            };
            yard.sources(u32::try_from(tier).unwrap_or(u32::MAX))
        });
        let sources: Vec<Source> = sources.collect();
        let limits = Limits::of(&world, &pools, &sources);
        let last = snapshot.ahead.as_ref();
        Self {
            now,
            pools,
            sources,
            limits,
            unavailable: unavailable(&world),
            considered: last.map_or_else(Considered::default, |ahead| ahead.considered.clone()),
        }
    }

    /// What to plan; `None` if there is no pool to plan for.
    pub(super) fn situation(&self, method: Method) -> Option<Situation<'_>> {
        (!self.pools.is_empty()).then(|| Situation {
            now: self.now,
            supplies: self.sources.iter().map(|source| source.supply.clone()).collect(),
            pools: (0..self.pools.len())
                .map(|index| self.consumer(index, method))
                .collect(),
            power: self.limits.power.clone(),
            considered: self.considered.clone(),
        })
    }

    fn consumer(&self, index: usize, method: Method) -> Consumer<'_> {
        let planned = &self.pools[index];
        let pool = planned.pool;
        let performance = self.sources.iter().map(|source| {
            let usable = planned.may_use(source.group) && planned.trust() <= source.proven;
            let choice = planned.options.choice(source.group).filter(|_| usable);
            choice.map(|choice| choice.performance.as_ref())
        });
        Consumer {
            performance: performance.collect(),
            mix: &planned.mix,
            discipline: pool.discipline,
            objectives: &pool.objectives,
            survive: pool.placement.survive_loss_of,
            rank: self.limits.ranks.get(index).copied().unwrap_or(0),
            most: pool.replicas.max,
            allowances: self.limits.allowances.get(index).cloned().unwrap_or_default(),
            miss_penalty: pool.miss_penalty.as_f64(),
            method,
            waiting: planned.waiting,
            recent: Some(planned.recent),
            past: &pool.past,
            events: &pool.events,
        }
    }

    /// The plan by names.
    pub(super) fn named(&self, envelope: &Envelope) -> Ahead {
        let mut ahead = Ahead {
            made_at: self.now,
            cost: envelope.cost,
            bound: envelope.bound,
            considered: envelope.considered.clone(),
            ..Ahead::default()
        };
        for (index, (planned, plan)) in self.pools.iter().zip(&envelope.pools).enumerate() {
            let chosen = chosen(self, index, envelope);
            ahead.pools.insert(
                planned.id.clone(),
                PoolAhead {
                    chosen,
                    ..self.pool(index, plan)
                },
            );
        }
        for (source, plan) in self.sources.iter().zip(&envelope.supplies) {
            let group = ahead.groups.entry(source.group.clone()).or_default();
            group.known.clone_from(&source.existing);
            let mut serves = |pool: Option<usize>| {
                let planned = pool.and_then(|pool| self.pools.get(pool))?;
                let replicas = &mut ahead.pools.get_mut(planned.id)?.replicas;
                // One that takes over from another serves when that one has gone.
                if replicas.values().sum::<u32>() >= planned.pool.replicas.max {
                    return Some(planned.id);
                }
                *replicas.entry(source.group.clone()).or_default() += 1;
                Some(planned.id)
            };
            for (server, (until, pool)) in source.servers.iter().zip(plan.until.iter().zip(&plan.serves)) {
                if let Some(until) = until {
                    group.until.insert((*server).clone(), *until);
                }
                if until.is_none_or(|until| until > self.now) {
                    group.servers += 1;
                    serves(*pool);
                }
            }
            for pool in &plan.buyers {
                if let Some(id) = serves(Some(*pool)) {
                    group.servers += 1;
                    *group.buyers.entry(id.clone()).or_default() += 1;
                }
            }
            group.later.append(&mut counted(&plan.later));
            group.later.sort_unstable();
        }
        ahead
    }

    fn pool(&self, index: usize, plan: &PoolPlan) -> PoolAhead {
        let capacity = self.sources.iter().zip(&plan.capacity);
        let allowances = self.limits.allowances.get(index).into_iter().flatten();
        let spending = allowances.zip(&plan.spending).map(|(allowance, planned)| Spending {
            from: allowance.from,
            to: allowance.to,
            left: allowance.left.as_f64(),
            planned: *planned,
        });
        let strictest = self.pools[index]
            .pool
            .objectives
            .iter()
            .map(per_miss)
            .fold(1.0, f64::max);
        let missing = plan.shortfalls.iter().filter_map(|short| {
            let (window, _) = plan.windows.get(short.window)?;
            Some(Missing {
                window: *window,
                requests: short.burn / strictest,
                cost: short.cost,
            })
        });
        PoolAhead {
            replicas: BTreeMap::new(),
            windows: plan.windows.clone(),
            prices: plan.prices.clone(),
            forecast: plan.forecast.clone(),
            work: self.pools[index].mix.work(),
            burn: plan.burn.clone(),
            capacity: capacity
                .filter_map(|(source, each)| Some((source.group.clone(), (*each)?)))
                .collect(),
            cost: plan.cost,
            spending: spending.collect(),
            forgone: plan.forgone,
            missing: missing.collect(),
            chosen: BTreeMap::new(),
        }
    }
}

fn unavailable<'a>(world: &World<'a>) -> BTreeMap<&'a GroupName, Problem> {
    let power = Power::of(world);
    let groups = world.snapshot.groups.iter();
    let problem = |(name, group)| {
        let refused = || may_grow(world, name, group).err().map(|(problem, _)| problem);
        let problem = world.takes_no_work(name).or_else(refused);
        Some((name, problem.or_else(|| power.refuses(name))?))
    };
    groups.filter_map(problem).collect()
}

/// How many at each time.
fn counted(times: &[Timestamp]) -> Vec<(Timestamp, u32)> {
    let mut counts: BTreeMap<Timestamp, u32> = BTreeMap::new();
    for at in times {
        *counts.entry(*at).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// Requests that wait in its engines, as far as they say.
fn waiting(pool: &Pool, now: Timestamp) -> f64 {
    let queued = pool.running.values().map(|replica| match replica.load {
        Load::Known { queued, at, .. } if now.since(at) <= MEASURE_MAX_AGE => f64::from(queued),
        Load::Known { .. } | Load::Unknown => 0.0,
    });
    queued.sum()
}

/// What arrives right now, if it is known. Where more waits than would be served in time, a surge of a minute is no matter of chance.
fn recent(pool: &Pool, waiting: f64) -> Option<Rate> {
    let patience = pool
        .objectives
        .iter()
        .map(|objective| objective.threshold.as_secs_f64());
    let patience_s = patience.fold(f64::INFINITY, f64::min);
    match &pool.demand {
        Demand::Known(arrivals) if waiting > arrivals.rate_1m.as_per_second() * patience_s => Some(Rate::per_second(
            arrivals.recent().as_per_second().max(arrivals.rate_1m.as_per_second()),
        )),
        Demand::Known(arrivals) => Some(arrivals.recent()),
        Demand::Unknown { .. } => None,
    }
}

/// Where a group comes in the order; `None` if no pool may use it.
fn place(pools: &[Planned], name: &GroupName) -> Option<(Ownership, Money)> {
    let owned_first = pools
        .iter()
        .any(|planned| planned.pool.placement.order == PlacementOrder::OwnedFirst);
    let user = pools.iter().find(|planned| planned.may_use(name))?;
    let choice = user.options.choice(name)?;
    let ownership = if owned_first {
        choice.ownership
    } else {
        Ownership::Owned
    };
    Some((ownership, choice.hourly()))
}

/// One group, as those pools see it that may use it.
struct Yard<'y, 'a> {
    world: &'y World<'a>,
    users: Vec<&'y Planned<'a>>,
    occupants: &'y Occupants<'y, 'a>,
    name: &'a GroupName,
    group: &'a Group,
}

impl<'a> Yard<'_, 'a> {
    fn sources(&self, tier: u32) -> Vec<Source<'a>> {
        let mut servers: Vec<(Trust, &ServerName, Held)> = self
            .group
            .inventory
            .servers()
            .iter()
            .filter_map(|(name, server)| Some((self.proven(server.proven)?, name, self.held(name, server)?)))
            .collect();
        // The best to keep first: of equal ones the planner keeps the first.
        servers.sort_by_key(|(_, name, held)| (!held.fixed, Reverse(held.paid_until), held.serves_at, *name));
        let minimum = usize::try_from(self.group.size.min).unwrap_or(usize::MAX);
        for (_, _, held) in servers.iter_mut().take(minimum) {
            held.fixed = true;
        }
        let most = self
            .users
            .iter()
            .map(|planned| planned.trust())
            .max()
            .unwrap_or(Trust::None);
        let mut free = self.free(servers.len());
        let mut levels: BTreeSet<Trust> = servers.iter().map(|(proven, ..)| *proven).collect();
        levels.insert(most);
        levels
            .into_iter()
            .rev()
            .map(|proven| {
                let here = || servers.iter().filter(|(level, ..)| *level == proven);
                let held = here().map(|(_, _, held)| *held).collect();
                // What comes is taken to prove what its site can.
                let free = if proven == most {
                    std::mem::take(&mut free)
                } else {
                    Vec::new()
                };
                Source {
                    group: self.name,
                    proven,
                    existing: self.existing(),
                    servers: here().map(|(_, name, _)| *name).collect(),
                    supply: self.supply(tier, held, free),
                }
            })
            .collect()
    }

    fn existing(&self) -> BTreeSet<ServerName> {
        let servers = self.group.inventory.servers().iter();
        let exists = servers.filter(|(_, server)| server.state != ServerState::Gone);
        exists.map(|(name, _)| name.clone()).collect()
    }

    fn supply(&self, tier: u32, held: Vec<Held>, free: Vec<Timestamp>) -> Supply {
        let group = self.group;
        let site = self.world.snapshot.sites.get(&group.site);
        let kwh = site.map_or(0.0, |site| {
            site.energy.price_per_kwh.as_f64() * site.energy.pue.max(1.0)
        });
        Supply {
            tier,
            site: self
                .world
                .snapshot
                .sites
                .keys()
                .position(|name| *name == group.site)
                .unwrap_or(0),
            hourly: group.pricing.hourly.as_f64(),
            energy_hourly: group.power.idle_watts / 1_000.0 * kwh,
            busy_watts: group.power.busy_watts,
            minimum_lease: group.pricing.minimum_lease,
            provision: group.lead_time.provision,
            load: self.load(),
            recycle: group.lead_time.recycle,
            switch_cost: SWITCH_COST,
            held,
            free,
        }
    }

    /// The slowest model's: which one it will be is not known yet.
    fn load(&self) -> Span {
        let load = |planned: &&Planned| Some(planned.options.choice(self.name)?.performance.load_time);
        self.users.iter().filter_map(load).max().unwrap_or(Span::ZERO)
    }

    /// What a server proves, as far as it makes a difference; `None` if it is of no use to any pool.
    fn proven(&self, proven: Trust) -> Option<Trust> {
        let trusts = self.users.iter().map(|planned| planned.trust());
        trusts.filter(|trust| *trust <= proven).max()
    }

    /// From when on a server serves, if it can be counted on.
    fn held(&self, name: &'a ServerName, server: &Server) -> Option<Held> {
        let (world, now, group) = (self.world, self.world.now, self.group);
        let mut held = Held {
            serves_at: now,
            paid_until: self.paid_until(server),
            fixed: group.provider.always_on || !group.provider.releases_chosen || server.held,
        };
        let arrives_at = now.max(server.since + group.lead_time.provision);
        let mut loaded_at = now + self.load();
        for (id, pool, member) in self.occupants.get(&(&group.site, name)).into_iter().flatten() {
            match member.standing {
                Standing::Keeper | Standing::OutOfSight | Standing::Leaving(Reason::RevisionReplaced) => {
                    let planned = self.users.iter().any(|planned| planned.id == *id);
                    let out_of_sight = member.standing == Standing::OutOfSight;
                    if !planned || (out_of_sight && !member.serving) {
                        return None;
                    }
                    held.fixed |= member.hands_off;
                    if member.replica.state != ReplicaState::Ready {
                        held.serves_at = now.max(member.replica.created + self.load());
                    }
                    return Some(held);
                }
                Standing::Draining if recallable(member, pool) => loaded_at = now,
                Standing::Draining | Standing::Over | Standing::Leaving(_) | Standing::Lost => {
                    loaded_at = loaded_at.max(now + DRAIN_ESTIMATE + self.load());
                }
            }
        }
        if world.takes_no_work(self.name).is_some() {
            world.expected_until(self.name, server)?;
            held.fixed = true;
            held.serves_at = if server.state.is_coming() {
                arrives_at + self.load()
            } else {
                loaded_at
            };
            return Some(held);
        }
        let reversible = server.state == ServerState::Draining
            && server.node == NodeHealth::Ready
            && !server.cordoned
            && !server.held;
        if is_usable(server) || reversible {
            held.serves_at = loaded_at;
        } else if server.state.is_coming() && !server.cordoned && !server.held {
            held.serves_at = arrives_at + self.load();
        } else if server.state == ServerState::Suspect && group.provider.always_on {
            held.serves_at = now + REPAIR;
        } else {
            return None;
        }
        Some(held)
    }

    fn paid_until(&self, server: &Server) -> Timestamp {
        match server.lease {
            Some(lease) => lease.minimum_until,
            // Its provider has not confirmed yet.
            None if server.state.is_coming() => server.since + self.group.pricing.minimum_lease,
            None => self.world.now,
        }
    }

    /// When each further server can be asked for.
    fn free(&self, held: usize) -> Vec<Timestamp> {
        let (world, now, group) = (self.world, self.world.now, self.group);
        let servers = group.inventory.servers();
        let unproven =
            |server: &Server| is_usable(server) && self.users.iter().any(|user| user.trust() > server.proven);
        let idle = |name: &'a ServerName| !self.occupants.contains_key(&(&group.site, name));
        // More like one that has no valid evidence would be just as useless.
        let useless = servers.iter().any(|(name, server)| unproven(server) && idle(name));
        if world.takes_no_work(self.name).is_some() || !group.provider.grows || useless {
            return Vec::new();
        }
        let from = match may_grow(world, self.name, group) {
            Err((_, Some(retry_at))) => retry_at.max(now),
            Ok(_) | Err((_, None)) => now,
        };
        let recycle = group.lead_time.recycle;
        let mut back: Vec<Timestamp> = servers
            .values()
            .filter_map(|server| match server.state {
                ServerState::Recycling => Some(server.since + recycle),
                ServerState::Releasing => Some(now + recycle),
                ServerState::Failed => Some(retained_until(server) + recycle),
                _ => None,
            })
            .collect();
        back.sort_unstable();
        let existing = servers
            .values()
            .filter(|server| server.state != ServerState::Gone)
            .count();
        let most = usize::try_from(world.most(group)).unwrap_or(usize::MAX);
        let deliveries = group
            .deliveries
            .iter()
            .filter(|delivery| delivery.at > now && delivery.at < now + LENGTH)
            .flat_map(|delivery| (0..delivery.servers).map(|_| delivery.at));
        // More than the pools may have are of no use, however many there could be.
        let useful: u64 = self
            .users
            .iter()
            .map(|planned| u64::from(planned.pool.replicas.max))
            .sum();
        let useful = usize::try_from(useful).unwrap_or(usize::MAX).saturating_sub(held);
        let mut free: Vec<Timestamp> = std::iter::repeat_n(from, most.saturating_sub(existing).min(useful))
            .chain(
                back.into_iter()
                    .skip(existing.saturating_sub(most))
                    .map(|at| at.max(from)),
            )
            .chain(deliveries.take(useful).map(|at| at.max(from)))
            .collect();
        free.sort_unstable();
        free.truncate(useful);
        free
    }
}
