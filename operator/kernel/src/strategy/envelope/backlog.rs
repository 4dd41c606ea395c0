//! Requests that wait already, or will until servers can come: what a forecast of arrivals does not contain.
//!
//! As long as a backlog lasts whatever arrives waits behind it, and a server that carries what arrives and no more never works it off.
//! How much will be waiting when more servers can first be there follows from what is there, what is coming, and the lead times of what can be
//! asked for; how long it then lasts is what the plan decides.

use super::Situation;
use super::known::Known;
use crate::snapshot::Metric;
use crate::strategy::Backlog;
use crate::strategy::horizon::Horizon;
use crate::strategy::past::per_miss;
use crate::time::{Span, Timestamp};

/// Servers that can finish this much more than what arrives work a backlog off.
const AHEAD: f64 = 1.1;

/// A backlog that what is there or coming has not worked off after so long is no matter of chance.
const LONG: Span = Span::from_minutes(20);

/// What arrives is taken to be the mean of so long.
const LOOK: Span = Span::from_hours(1);

/// What backlogs of all pools are told from.
pub(super) struct Backlogs<'s> {
    situation: &'s Situation<'s>,
    pools: &'s [Known],
    horizon: &'s Horizon,
    /// Per pool: what arrives, in requests/s.
    rates: Vec<f64>,
    /// Per group: servers that all pools together need of it, as if each used no other.
    needs: Vec<f64>,
    /// What is there, is coming or can be asked for, ascending by time.
    servers: Vec<Due>,
}

/// A server of a group.
struct Due {
    from: Timestamp,
    group: usize,
    /// It is there or coming.
    held: bool,
}

impl<'s> Backlogs<'s> {
    pub(super) fn new(situation: &'s Situation<'s>, pools: &'s [Known], horizon: &'s Horizon) -> Self {
        let rates: Vec<f64> = pools.iter().map(|known| known.rate(horizon, LOOK)).collect();
        let needs = |group: usize| {
            pools
                .iter()
                .zip(&rates)
                .map(|(known, rate)| need(known, group, *rate))
                .sum()
        };
        let needs = (0..situation.supplies.len()).map(needs).collect();
        let mut servers = Vec::new();
        for (group, supply) in situation.supplies.iter().enumerate() {
            let held = supply.held.iter().map(|held| (held.serves_at, true));
            let free = supply.free.iter().map(|from| (*from + supply.lead(), false));
            servers.extend(held.chain(free).map(|(from, held)| Due { from, group, held }));
        }
        servers.sort_by_key(|server| server.from);
        Self {
            situation,
            pools,
            horizon,
            rates,
            needs,
            servers,
        }
    }

    /// What will wait for the pool with this index when more servers can first be there; `None` if that is nothing, or nothing to any objective.
    pub(super) fn expected(&self, index: usize) -> Option<Backlog> {
        let pool = &self.situation.pools[index];
        let late = pool
            .objectives
            .iter()
            .filter(|objective| objective.metric == Metric::TimeToFirstToken);
        let strictest = late.max_by(|left, right| per_miss(left).total_cmp(&per_miss(right)))?;
        let queue = self.queue(index);
        let (at, capacity) = queue.relief()?;
        let starts = &self.horizon.boundaries[..self.horizon.slots()];
        let slot = starts.partition_point(|start| *start < at);
        let patience = strictest.threshold.as_secs_f64() * capacity.max(queue.rate);
        let requests = queue.waiting(at) - patience;
        (requests > 0.0 && slot < starts.len()).then(|| Backlog {
            slot,
            requests,
            rate: queue.rate,
            burn: per_miss(strictest),
        })
    }

    /// Whether what is there or coming will not have worked off what waits and arrives for the pool with this index for a long time.
    pub(super) fn lasts(&self, index: usize) -> bool {
        let mut queue = self.queue(index);
        queue.servers.retain(|server| server.held);
        let thresholds = self.situation.pools[index].objectives.iter();
        let thresholds = thresholds.map(|objective| objective.threshold.as_secs_f64());
        let patience = thresholds.fold(0.0, f64::max) * queue.rate;
        queue.waiting(self.situation.now + LONG) > patience
    }

    fn queue(&self, index: usize) -> Queue {
        let (known, rate) = (&self.pools[index], self.rates[index]);
        let share = |(group, each): (usize, &Option<f64>)| each.map(|each| each * self.share(index, group));
        let capacity: Vec<Option<f64>> = known.capacity.iter().enumerate().map(share).collect();
        let servers = self.servers.iter().filter_map(|due| {
            Some(Server {
                from: due.from,
                capacity: capacity[due.group]?,
                held: due.held,
            })
        });
        Queue {
            now: self.situation.now,
            waiting: self.situation.pools[index].waiting,
            rate,
            servers: servers.collect(),
        }
    }

    /// The part of a group that a pool can count on: by what its demand needs of it, beside that of others.
    fn share(&self, index: usize, group: usize) -> f64 {
        if self.pools.len() == 1 {
            return 1.0;
        }
        let all = self.needs[group];
        if all > 0.0 {
            need(&self.pools[index], group, self.rates[index]) / all
        } else {
            0.0
        }
    }
}

/// Servers of a group that a pool needs if it uses no other.
fn need(known: &Known, group: usize, rate: f64) -> f64 {
    known.capacity[group].map_or(0.0, |each| rate / each)
}

/// What waits, what arrives, and who can work on it from when on.
struct Queue {
    now: Timestamp,
    waiting: f64,
    rate: f64,
    /// Ascending by time.
    servers: Vec<Server>,
}

struct Server {
    from: Timestamp,
    /// Requests/s.
    capacity: f64,
    /// It is there or coming.
    held: bool,
}

impl Queue {
    /// When what can be asked for can first work a backlog off together with what is there, or, if it never can, when the last of it is there;
    /// and what can be finished just before.
    fn relief(&self) -> Option<(Timestamp, f64)> {
        let mut capacity = 0.0;
        let mut last = None;
        for server in &self.servers {
            let before = capacity;
            capacity += server.capacity;
            if !server.held {
                if last.is_none_or(|(at, _)| at < server.from) {
                    last = Some((server.from, before));
                }
                if capacity > self.rate * AHEAD {
                    break;
                }
            }
        }
        last
    }

    /// What waits at `at`, if all servers that can be there work on it.
    fn waiting(&self, at: Timestamp) -> f64 {
        let (mut now, mut waiting, mut capacity) = (self.now, self.waiting, 0.0);
        for server in self.servers.iter().filter(|server| server.from < at) {
            let from = server.from.max(now);
            waiting = (waiting + (self.rate - capacity) * from.since(now).as_secs_f64()).max(0.0);
            capacity += server.capacity;
            now = from;
        }
        (waiting + (self.rate - capacity) * at.since(now).as_secs_f64()).max(0.0)
    }
}
