//! A lower bound with whole servers, for pools that share them.
//!
//! Every slot of a class has a price. At these prices servers no longer depend on each other, and neither do pools: each server takes the course that
//! earns most, and each pool rents whole servers slot by slot so that its error budgets hold, as cheaply as it can. What both then cost is never more
//! than the cost of any plan, whatever the prices (Geoffrion, "Lagrangean relaxation for integer programming", 1974). Because no pool may rent a
//! part of a server, this says more than [`super::bound`] where pools want few servers each.
//!
//! Prices rise where more is wanted than there is and fall where less is: by steps along the mean of what was wanting over the last rounds, from the best prices
//! found so far (Barahona and Anbil, "The volume algorithm", 2000).
//!
//! Two things are made easier than they are, so that the bound stays one: a server that begins to serve within a slot serves all of it, and a pool
//! that is large, or may use many kinds of servers, is rented capacity instead of servers at the price of the cheapest.

use super::course::Tariff;
use super::grid::Term;
use super::sweep::Solver;
use super::{Class, Problem, Unit};

/// Prices, and how good a bound they give.
#[derive(Clone, Debug)]
pub(super) struct Market {
    slots: usize,
    /// Per class × slot: what a server costs.
    price: Vec<f64>,
    /// The best ones, and what was wanting at them and lately: servers that are wanted less those that serve.
    center: Vec<f64>,
    wanting: Vec<f64>,
    groups: Vec<Group>,
    /// Per class: identical units, and how many.
    units: Vec<Vec<(Unit, f64)>>,
    /// Per class: courses that were best lately.
    followed: Vec<Vec<Followed>>,
    /// Per pool, per window: of a burnt request, at the best prices of servers and at those of now.
    pub(super) prices: Vec<Vec<f64>>,
    now: Vec<Vec<f64>>,
    /// Share of the way to what a good plan may cost that a step goes.
    pace: f64,
    /// The best bound so far.
    pub(super) best: f64,
    round: Round,
}

/// A course, and how many servers of a class follow it in the mean over the last rounds.
#[derive(Clone, Debug)]
struct Followed {
    unit: Unit,
    terms: Vec<Term>,
    servers: f64,
}

/// Pools that may use the same classes.
#[derive(Clone, Debug)]
struct Group {
    pools: Vec<usize>,
    /// Requests/s of one server, falling, and the classes that have such.
    kinds: Vec<(f64, Vec<usize>)>,
    /// Per slot: with so many requests/s no pool has any use for more.
    enough: Vec<f64>,
}

/// Buffers of a round.
#[derive(Clone, Debug, Default)]
struct Round {
    /// Per class × slot: servers that are wanted less those that serve.
    wanting: Vec<f64>,
    courses: Vec<(usize, Unit, f64, Vec<Term>)>,
    bundles: Vec<Bundle>,
    combined: Vec<Bundle>,
    /// Per slot of the group at hand: where its bundles begin.
    first: Vec<usize>,
    /// Bundles of the pool at hand that are best at some price of a burnt request: (cost, burn, bundle).
    hull: Vec<(f64, f64, usize)>,
    steps: Vec<Step>,
    lease: Vec<f64>,
}

/// Whole servers for a slot.
#[derive(Clone, Copy, Debug)]
struct Bundle {
    cost: f64,
    capacity: f64,
    /// Of each kind; empty if capacity is rented instead.
    counts: [u8; KINDS],
}

/// From one bundle of a slot to the next.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// What a burnt request has to cost so that it pays.
    price: f64,
    cost: f64,
    burn: f64,
    slot: usize,
    from: usize,
    to: usize,
}

impl Market {
    pub(super) fn new(solver: &Solver) -> Self {
        let problem = solver.problem;
        // As if every server could be had for a single slot, and what costs less than most were as dear for what it does.
        let (mut cost, mut capacity) = (0.0, 0.0);
        let each = |class: &Class| class.capacity.iter().copied().flatten().fold(0.0, f64::max);
        for class in &problem.classes {
            cost += (class.hourly + class.energy_hourly) * class.units.len() as f64;
            capacity += each(class) * class.units.len() as f64;
        }
        let per = if capacity > 0.0 {
            (cost / capacity).max(LEAST)
        } else {
            LEAST
        };
        let of = |class: &Class| {
            let hourly = (class.hourly + class.energy_hourly).max(per * each(class));
            let hours = (0..problem.slots()).map(|slot| problem.length_s(slot) / 3_600.0);
            hours.map(move |hours| hourly * hours).collect::<Vec<f64>>()
        };
        let price: Vec<f64> = problem.classes.iter().flat_map(of).collect();
        let units = problem.classes.iter().map(|class| {
            let mut units: Vec<(Unit, f64)> = Vec::new();
            for &unit in &class.units {
                match units.iter_mut().find(|(known, _)| *known == unit) {
                    Some((_, count)) => *count += 1.0,
                    None => units.push((unit, 1.0)),
                }
            }
            units
        });
        Self {
            slots: solver.grid.slots,
            center: price.clone(),
            wanting: vec![0.0; price.len()],
            price,
            groups: groups(solver),
            units: units.collect(),
            followed: vec![Vec::new(); problem.classes.len()],
            prices: problem.pools.iter().map(|pool| vec![0.0; pool.windows.len()]).collect(),
            now: problem.pools.iter().map(|pool| vec![0.0; pool.windows.len()]).collect(),
            pace: PACE,
            best: 0.0,
            round: Round::default(),
        }
    }

    /// So many rounds towards a better bound.
    pub(super) fn improve(&mut self, solver: &mut Solver, rounds: u32) {
        let mut goal = 0.0_f64;
        for round in 0..rounds {
            let value = self.read(solver);
            self.average(if round == 0 { 1.0 } else { FRESH });
            if value > self.best || round == 0 {
                self.pace *= LONGER;
                self.best = self.best.max(value);
                self.center.clone_from(&self.price);
                self.prices.clone_from(&self.now);
            } else {
                self.pace *= SHORTER;
            }
            // What a good plan costs is not known yet.
            goal = goal.max(value * GOAL);
            let moves = |(wanting, price): (&f64, &f64)| {
                if *wanting < 0.0 && *price <= 0.0 {
                    0.0
                } else {
                    wanting * wanting
                }
            };
            let square: f64 = self.wanting.iter().zip(&self.center).map(moves).sum();
            if square <= 1e-12 {
                break;
            }
            let step = self.pace * (goal - self.best) / square;
            for ((price, center), wanting) in self.price.iter_mut().zip(&self.center).zip(&self.wanting) {
                *price = (center + step * wanting).max(0.0);
            }
        }
    }

    /// Moves the means towards what this round says.
    fn average(&mut self, weight: f64) {
        for (mean, now) in self.wanting.iter_mut().zip(&self.round.wanting) {
            *mean += weight * (now - *mean);
        }
        for followed in self.followed.iter_mut().flatten() {
            followed.servers *= 1.0 - weight;
        }
        for (class, unit, servers, terms) in self.round.courses.drain(..) {
            let known = self.followed[class]
                .iter_mut()
                .find(|known| known.unit == unit && known.terms == terms);
            match known {
                Some(known) => known.servers += weight * servers,
                None => self.followed[class].push(Followed {
                    unit,
                    terms,
                    servers: weight * servers,
                }),
            }
        }
        for followed in &mut self.followed {
            followed.retain(|course| course.servers > CRUMB);
        }
    }

    /// Servers of a class that are not there yet and are leased, in parts.
    pub(super) fn fresh(&self, class: usize) -> f64 {
        let fresh = self.followed[class]
            .iter()
            .filter(|course| course.terms.first().is_some_and(|first| !first.given));
        fresh.map(|course| course.servers).sum()
    }

    /// Courses of servers of a class that are not there yet, rounded to `count` whole ones that are spread over time as the parts are.
    pub(super) fn rounded(&self, class: usize, count: usize) -> Vec<(Unit, Vec<Term>)> {
        let mut parts: Vec<&Followed> = self.followed[class]
            .iter()
            .filter(|course| course.terms.first().is_some_and(|first| !first.given))
            .collect();
        parts.sort_by_key(|part| (part.terms[0].from, part.terms.last().map(Term::to)));
        let all: f64 = parts.iter().map(|part| part.servers).sum();
        let mut rounded = Vec::new();
        let mut passed = 0.0;
        for part in parts {
            passed += part.servers;
            // The middle of each of `count` equal parts.
            while rounded.len() < count && (rounded.len() as f64 + 0.5) * all <= passed * count as f64 {
                rounded.push((part.unit, part.terms.clone()));
            }
        }
        rounded
    }

    /// What the prices of now say of the cost of any plan, and what is wanting at them.
    fn read(&mut self, solver: &mut Solver) -> f64 {
        self.round.wanting.clear();
        self.round.wanting.resize(self.price.len(), 0.0);
        self.round.courses.clear();
        self.servers(solver) + self.pools(solver)
    }

    /// What all servers cost on the courses that are best, less what they earn.
    fn servers(&mut self, solver: &mut Solver) -> f64 {
        let round = &mut self.round;
        let mut value = 0.0;
        for (class, units) in self.units.iter().enumerate() {
            let prices = &self.price[class * self.slots..(class + 1) * self.slots];
            let timetable = &solver.grid.timetables[class];
            round.lease.clear();
            let leases = timetable.lease_cost.iter().zip(&timetable.leases);
            round.lease.extend(leases.map(|(cost, serves)| {
                let more = if serves.first < serves.to {
                    (1.0 - serves.share) * prices[serves.first]
                } else {
                    0.0
                };
                cost - more
            }));
            let tariff = Tariff {
                lease: &round.lease,
                ..Tariff::of(timetable)
            };
            solver.planner.sweep(timetable, tariff, prices);
            for &(unit, count) in units {
                let given = solver.grid.given(unit).map(|term| term.serves);
                let more = given.filter(|serves| serves.first < serves.to);
                let more = more.map_or(0.0, |serves| (1.0 - serves.share) * prices[serves.first]);
                value += count * (solver.planner.net(&solver.grid, class, unit) - more);
                let terms = solver.planner.terms(&solver.grid, class, unit);
                for slot in terms.iter().flat_map(|term| term.serves.first..term.serves.to) {
                    round.wanting[class * self.slots + slot] -= count;
                }
                round.courses.push((class, unit, count, terms));
            }
        }
        value
    }

    /// What all pools pay for servers that hold their error budgets.
    fn pools(&mut self, solver: &Solver) -> f64 {
        let mut round = std::mem::take(&mut self.round);
        let mut now = std::mem::take(&mut self.now);
        let mut value = 0.0;
        for group in &self.groups {
            round.bundles.clear();
            round.first.clear();
            for slot in 0..self.slots {
                round.first.push(round.bundles.len());
                self.offer(group, slot, &mut round);
            }
            round.first.push(round.bundles.len());
            for &pool in &group.pools {
                value += self.rent(solver, group, pool, &mut round, &mut now[pool]);
            }
        }
        self.round = round;
        self.now = now;
        value
    }

    /// The cheapest class of a kind in a slot.
    fn cheapest(&self, classes: &[usize], slot: usize) -> (f64, usize) {
        let price = |&class: &usize| (self.price[class * self.slots + slot], class);
        let least = |left: (f64, usize), right: (f64, usize)| if right.0 < left.0 { right } else { left };
        classes.iter().map(price).fold((f64::INFINITY, usize::MAX), least)
    }

    /// Bundles of a slot that are worth their price to some pool: none is dearer than another that has as much.
    fn offer(&self, group: &Group, slot: usize, round: &mut Round) {
        let enough = group.enough[slot];
        let mut kinds: Vec<(f64, f64, usize)> = Vec::new();
        for (kind, (each, classes)) in group.kinds.iter().enumerate() {
            kinds.push((*each, self.cheapest(classes, slot).0, kind));
        }
        let all = kinds.clone();
        // A kind that has no more than another one and is not cheaper is not needed.
        let mut index = 0;
        kinds.retain(|&(each, price, _)| {
            index += 1;
            !all.iter().enumerate().any(|(other, &(more, less, _))| {
                other != index - 1
                    && more >= each
                    && less <= price
                    && (more > each || less < price || other < index - 1)
            })
        });
        let combinations = kinds.iter().fold(1.0, |all, (each, ..)| all * (1.0 + enough / each));
        let first = round.bundles.len();
        if combinations > COMBINATIONS
            || kinds
                .iter()
                .any(|&(each, _, kind)| kind >= KINDS || enough > 200.0 * each)
        {
            let per = all.iter().map(|(each, price, _)| price / each);
            let per = per.fold(f64::INFINITY, f64::min);
            let amount = |point: usize| enough * point.min(POINTS) as f64 / POINTS as f64;
            // What lies between two amounts is at least as dear as the less and at most as good as the more.
            round.bundles.extend((0..=POINTS).map(|point| Bundle {
                cost: if point == 0 { 0.0 } else { per * amount(point - 1) },
                capacity: amount(point),
                counts: [0; KINDS],
            }));
            return;
        }
        round.combined.clear();
        round.combined.push(Bundle {
            cost: 0.0,
            capacity: 0.0,
            counts: [0; KINDS],
        });
        for &(each, price, kind) in &kinds {
            let mut at = 0;
            while at < round.combined.len() {
                let bundle = round.combined[at];
                if bundle.capacity < enough {
                    let mut more = Bundle {
                        cost: bundle.cost + price,
                        capacity: bundle.capacity + each,
                        ..bundle
                    };
                    more.counts[kind] += 1;
                    round.combined.push(more);
                }
                at += 1;
            }
        }
        round.combined.sort_unstable_by(|left, right| {
            left.cost
                .total_cmp(&right.cost)
                .then(right.capacity.total_cmp(&left.capacity))
        });
        for &bundle in &round.combined {
            if round.bundles.len() == first || round.bundles.last().is_some_and(|last| bundle.capacity > last.capacity)
            {
                round.bundles.push(bundle);
            }
        }
    }

    /// What a pool pays.
    fn rent(&self, solver: &Solver, group: &Group, pool: usize, round: &mut Round, prices: &mut [f64]) -> f64 {
        let demand = &solver.problem.pools[pool];
        let mut value = 0.0;
        for (window, price) in demand.windows.iter().zip(prices) {
            let paid = self.rent_in(solver, group, pool, window.slots.clone(), Some(window.budget), round);
            value += paid.0;
            *price = paid.1;
        }
        for slot in (0..self.slots).filter(|slot| solver.window[pool * self.slots + slot].is_none()) {
            value += self.rent_in(solver, group, pool, slot..slot + 1, None, round).0;
        }
        value
    }

    /// What a pool pays in the slots of a window, and the price of a burnt request at which it does.
    fn rent_in(
        &self,
        solver: &Solver,
        group: &Group,
        pool: usize,
        slots: std::ops::Range<usize>,
        budget: Option<f64>,
        round: &mut Round,
    ) -> (f64, f64) {
        let miss_value = solver.problem.pools[pool].miss_value;
        let ceiling = solver.ceilings[pool];
        let (share, lost) = solver.at_best(pool);
        round.steps.clear();
        let (mut value, mut burnt) = (0.0, 0.0);
        for slot in slots {
            let outcomes = &solver.outcomes[pool * self.slots + slot];
            round.hull.clear();
            for index in round.first[slot]..round.first[slot + 1] {
                let bundle = round.bundles[index];
                let burn = outcomes.at(bundle.capacity * share - lost);
                if round.hull.last().is_some_and(|last| burn >= last.1 - 1e-12) {
                    continue;
                }
                while let [.., (cost, burn_before, _), (last_cost, last_burn, _)] = round.hull[..] {
                    // The last one is above the line from the one before it to this one.
                    if (last_cost - cost) * (burn_before - burn) >= (bundle.cost - cost) * (burn_before - last_burn) {
                        round.hull.pop();
                    } else {
                        break;
                    }
                }
                round.hull.push((bundle.cost, burn, index));
            }
            let Some(&(cost, burn, bundle)) = round.hull.first() else {
                continue;
            };
            value += cost + miss_value * burn;
            burnt += burn;
            self.wants(group, slot, &round.bundles[bundle], 1.0, &mut round.wanting);
            for pair in round.hull.windows(2) {
                let ((from_cost, from_burn, from), (to_cost, to_burn, to)) = (pair[0], pair[1]);
                round.steps.push(Step {
                    price: (to_cost - from_cost) / (from_burn - to_burn),
                    cost: to_cost - from_cost,
                    burn: from_burn - to_burn,
                    slot,
                    from,
                    to,
                });
            }
        }
        round.steps.sort_unstable_by(|left, right| {
            left.price
                .total_cmp(&right.price)
                .then(left.slot.cmp(&right.slot))
                .then(left.from.cmp(&right.from))
        });
        let mut paid = 0.0;
        for index in 0..round.steps.len() {
            let step = round.steps[index];
            let over = budget.map_or(0.0, |budget| burnt - budget);
            if step.price > miss_value && over <= 0.0 {
                break;
            }
            if step.price > miss_value + ceiling {
                paid = ceiling;
                break;
            }
            paid = f64::max(paid, step.price - miss_value);
            let part = if step.price > miss_value {
                (over / step.burn).min(1.0)
            } else {
                1.0
            };
            value += part * (step.cost - miss_value * step.burn);
            burnt -= part * step.burn;
            self.wants(group, step.slot, &round.bundles[step.from], -part, &mut round.wanting);
            self.wants(group, step.slot, &round.bundles[step.to], part, &mut round.wanting);
        }
        let over = budget.map_or(0.0, |budget| burnt - budget);
        if over > 1e-9 * (1.0 + burnt) {
            return (value + over * ceiling, ceiling);
        }
        (value, paid)
    }

    /// Notes servers that are wanted.
    fn wants(&self, group: &Group, slot: usize, bundle: &Bundle, part: f64, wanting: &mut [f64]) {
        let mut capacity = bundle.capacity;
        for ((each, classes), &count) in group.kinds.iter().zip(&bundle.counts) {
            if count > 0 {
                let (_, class) = self.cheapest(classes, slot);
                wanting[class * self.slots + slot] += part * f64::from(count);
                capacity -= each * f64::from(count);
            }
        }
        if capacity > 1e-9 {
            let per = |(each, classes): &(f64, Vec<usize>)| {
                let (price, class) = self.cheapest(classes, slot);
                (price / each, class, *each)
            };
            let least =
                group.kinds.iter().map(per).fold(
                    (f64::INFINITY, 0, 1.0),
                    |left, right| if right.0 < left.0 { right } else { left },
                );
            wanting[least.1 * self.slots + slot] += part * capacity / least.2;
        }
    }
}

fn groups(solver: &Solver) -> Vec<Group> {
    let problem: &Problem = solver.problem;
    let mut groups: Vec<Group> = Vec::new();
    let column = |pool: usize| {
        problem
            .classes
            .iter()
            .map(move |class| class.capacity[pool].filter(|each| *each > 0.0).map(f64::to_bits))
    };
    for pool in 0..problem.pools.len() {
        if let Some(group) = groups.iter_mut().find(|group| column(group.pools[0]).eq(column(pool))) {
            group.pools.push(pool);
            continue;
        }
        let mut kinds: Vec<(f64, Vec<usize>)> = Vec::new();
        for (class, spec) in problem
            .classes
            .iter()
            .enumerate()
            .filter(|(_, spec)| !spec.units.is_empty())
        {
            let Some(each) = spec.capacity[pool].filter(|each| *each > 0.0) else {
                continue;
            };
            match kinds.iter_mut().find(|(known, _)| known.total_cmp(&each).is_eq()) {
                Some((_, classes)) => classes.push(class),
                None => kinds.push((each, vec![class])),
            }
        }
        kinds.sort_by(|left, right| right.0.total_cmp(&left.0));
        groups.push(Group {
            pools: vec![pool],
            kinds,
            enough: Vec::new(),
        });
    }
    for group in &mut groups {
        group.enough = (0..solver.grid.slots)
            .map(|slot| {
                let of = |&pool: &usize| {
                    let (share, lost) = solver.at_best(pool);
                    (solver.outcomes[pool * solver.grid.slots + slot].enough() + lost) / share
                };
                group.pools.iter().map(of).fold(0.0, f64::max)
            })
            .collect();
    }
    groups
}

/// Kinds of servers that bundles are made of; with more, capacity is rented.
const KINDS: usize = 8;

/// Bundles of a slot, about; with more, capacity is rented.
const COMBINATIONS: f64 = 2_000.0;

/// Amounts of capacity that are offered then.
const POINTS: usize = 96;

/// Weight of what is wanting now in the mean.
const FRESH: f64 = 0.2;

/// Where servers cost nothing, an hour of a request/s at first has a price all the same: they may run out.
const LEAST: f64 = 0.01;

/// Of the way to the goal, a first step goes so far.
const PACE: f64 = 0.15;

/// Steps become so much longer when one has led to a better bound.
const LONGER: f64 = 1.15;

/// Steps become so much shorter when one has not led to a better bound.
const SHORTER: f64 = 0.8;

/// What a good plan costs, about, over the bound that the first prices give.
const GOAL: f64 = 1.2;

/// So little of a server is forgotten.
const CRUMB: f64 = 1e-3;
