//! Where another replica of a pool could go, in the order in which they are taken.

use std::collections::{BTreeMap, BTreeSet};

use super::crew::{Crew, recallable};
use super::options::{Options, Place, is_paid};
use super::stock::{Shelf, Stock};
use crate::lifecycle::ServerState;
use crate::names::{GroupName, ReplicaId, ServerName};
use crate::plan::Verdict;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, Mode, Pool, Server};

/// One place for one more replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) group: GroupName,
    pub(crate) source: Source,
    /// Whether it may be taken, or only proposed.
    pub(crate) verdict: Verdict,
}

/// What makes the place. The order is the order of preference within a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A replica of the pool itself, whose drain is called off.
    Recall(ReplicaId, ServerName),
    /// An empty server.
    Free(ServerName),
    /// A server that is being emptied and stays after all.
    Reclaim(ServerName),
    /// A server whose replica is leaving.
    Vacating(ServerName),
    /// A server on its way in.
    Coming,
    /// A server that has to be asked for.
    Purchase,
}

impl Slot {
    /// It has to be asked for.
    pub(crate) fn is_purchase(&self) -> bool {
        self.source == Source::Purchase
    }
}

/// Drains called off first, then what may be taken before what may only be proposed, then the placement's order.
type Order = (bool, Verdict, Place, bool);

/// Slots of one group that are all in the same place of the order.
struct Run<'s> {
    order: Order,
    group: &'s GroupName,
    what: What<'s>,
}

/// What makes the places of a run, in their order. Servers are looked for when they are taken: most runs come too late.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What<'s> {
    Recall(&'s ReplicaId, &'s ServerName),
    /// All servers of the group's shelf, or those whose paid term runs on, or those whose does not.
    Servers(Option<bool>),
    Coming(u32),
    Purchases(u32),
}

impl Run<'_> {
    fn slot(&self, source: Source) -> Slot {
        Slot {
            group: self.group.clone(),
            source,
            verdict: self.order.1,
        }
    }
}

/// A server, as [`Source`] has it.
#[derive(Clone, Copy)]
enum There<'s> {
    Free(&'s ServerName),
    Reclaim(&'s ServerName),
    Vacating(&'s ServerName),
}

impl There<'_> {
    fn source(self) -> Source {
        match self {
            There::Free(server) => Source::Free(server.clone()),
            There::Reclaim(server) => Source::Reclaim(server.clone()),
            There::Vacating(server) => Source::Vacating(server.clone()),
        }
    }
}

/// All slots that a pool could take, at most `limit`, and why groups have none.
pub(crate) fn slots(
    crew: &Crew,
    options: &Options,
    stock: &Stock,
    limit: u32,
) -> (Vec<Slot>, BTreeMap<GroupName, Problem>) {
    let mut runs: Vec<Run> = Vec::new();
    let mut unavailable = BTreeMap::new();
    let mut recalled = BTreeSet::new();
    for member in &crew.members {
        let (replica, group) = (member.replica, member.group);
        if recallable(member, crew.pool) && options.satisfies(group) {
            recalled.insert(&replica.server);
            let order = (false, Verdict::Act, options.place(group, member.server), false);
            let what = What::Recall(member.name, &replica.server);
            runs.push(Run { order, group, what });
        }
    }
    let proven = |server: &Server| server.proven >= crew.pool.placement.minimum_trust;
    for (group, choice) in options.choices().filter(|(_, choice)| choice.open) {
        let Some(shelf) = stock.shelves.get(group) else {
            continue;
        };
        let order = |server, verdict, coming| (true, verdict, options.place_of(choice, server), coming);
        // A server's place depends on nothing but whether its paid term runs on.
        let (mut paid, mut unpaid) = (None, None);
        for (_, server) in there(shelf, &recalled, proven) {
            let first = if is_paid(server, options.now()) {
                &mut paid
            } else {
                &mut unpaid
            };
            first.get_or_insert_with(|| order(Some(server), Verdict::Act, false));
            if paid.is_some() && unpaid.is_some() {
                break;
            }
        }
        let run = |order, paid| Run {
            order,
            group,
            what: What::Servers(paid),
        };
        match (paid, unpaid) {
            (Some(paid), Some(unpaid)) if paid != unpaid => {
                runs.extend([run(paid, Some(true)), run(unpaid, Some(false))]);
            }
            // All in one place, or none at all.
            (paid, unpaid) => runs.extend(paid.or(unpaid).map(|order| run(order, None))),
        }
        if shelf.coming > 0 {
            // Where nothing can be done at the moment, servers that are there count as coming too.
            let servers = choice.group.inventory.servers();
            let coming = servers
                .values()
                .find(|server| server.state.is_coming())
                .or_else(|| servers.values().find(|server| server.state == ServerState::Ready));
            let order = order(coming, Verdict::Act, true);
            let what = What::Coming(shelf.coming);
            runs.push(Run { order, group, what });
        }
        let power = stock.power.refuses(group);
        let unproven = || shelf.free.iter().find(|(_, server)| !proven(server));
        match growable(shelf, power, unproven().map(|(name, _)| *name)) {
            Ok(more) => {
                let more = more.min(limit);
                let approved = approved(group, choice.group, shelf, crew.pool).len();
                let approved = u32::try_from(approved).unwrap_or(u32::MAX).min(more);
                for (count, verdict) in [(approved, Verdict::Act), (more - approved, choice.verdict)] {
                    if count > 0 {
                        let order = order(None, verdict, false);
                        let what = What::Purchases(count);
                        runs.push(Run { order, group, what });
                    }
                }
            }
            Err(problem) => {
                unavailable.insert(group.clone(), problem);
            }
        }
        if choice.verdict == Verdict::Propose {
            let message = format!("servers of group {group} may only be proposed");
            let problem = || Problem::new(Reason::AwaitingApproval, message);
            unavailable.entry(group.clone()).or_insert_with(problem);
        }
    }
    runs.sort_by(|left, right| (&left.order, left.group, &left.what).cmp(&(&right.order, right.group, &right.what)));
    let recalled = &recalled;
    let servers = |group: &GroupName, paid: Option<bool>| {
        let fits =
            move |server: &Server| proven(server) && paid.is_none_or(|paid| is_paid(server, options.now()) == paid);
        let shelf = stock.shelves.get(group).into_iter();
        shelf.flat_map(move |shelf| there(shelf, recalled, fits))
    };
    (filled(&runs, saturating(limit), servers), unavailable)
}

/// The slots of `runs`, at most `limit`. `servers` are those of a group's shelf.
fn filled<'s, I>(runs: &[Run], limit: usize, servers: impl Fn(&GroupName, Option<bool>) -> I) -> Vec<Slot>
where
    I: Iterator<Item = (There<'s>, &'s Server)>,
{
    let mut slots = Vec::new();
    for run in runs {
        let room = limit - slots.len();
        if room == 0 {
            break;
        }
        let repeated = |count: u32| 0..saturating(count).min(room);
        match run.what {
            What::Recall(replica, server) => slots.push(run.slot(Source::Recall(replica.clone(), server.clone()))),
            What::Servers(paid) => {
                let servers = servers(run.group, paid).take(room);
                slots.extend(servers.map(|(there, _)| run.slot(there.source())));
            }
            What::Coming(count) => slots.extend(repeated(count).map(|_| run.slot(Source::Coming))),
            What::Purchases(count) => slots.extend(repeated(count).map(|_| run.slot(Source::Purchase))),
        }
    }
    slots
}

fn saturating(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Servers of a shelf, but for those that are recalled, in the order of preference.
fn there<'s>(
    shelf: &Shelf<'s>,
    recalled: &BTreeSet<&ServerName>,
    wanted: impl Fn(&Server) -> bool,
) -> impl Iterator<Item = (There<'s>, &'s Server)> {
    let fresh = |(name, _): &(&&'s ServerName, &&'s Server)| !recalled.contains(**name);
    let free = shelf.free.iter().map(|(name, server)| (There::Free(name), *server));
    let reclaim = shelf.reversible.iter().filter(fresh);
    let reclaim = reclaim.map(|(name, server)| (There::Reclaim(name), *server));
    let vacating = shelf.vacating.iter().filter(fresh);
    let vacating = vacating.map(|(name, server)| (There::Vacating(name), *server));
    free.chain(reclaim)
        .chain(vacating)
        .filter(move |(_, server)| wanted(server))
}

/// Servers that people have approved, those of the group or those of the pool, and that nobody has asked for yet.
pub(crate) fn approved<'p>(
    name: &'p GroupName,
    group: &'p Group,
    shelf: &Shelf,
    pool: &'p Pool,
) -> BTreeSet<&'p ServerName> {
    let taken = |server: &ServerName| shelf.asked.iter().any(|ask| ask.name.as_ref() == Some(server));
    let approved = group.approved_requests().chain(pool.approved_requests(name, group));
    approved
        .filter(|server| pool.mode != Mode::Advise && !taken(server))
        .collect()
}

/// How many more servers of a group may be asked for, or why none. `power` is why there is no power for another; `unproven` is a free one
/// without valid evidence.
fn growable(shelf: &Shelf, power: Option<Problem>, unproven: Option<&ServerName>) -> Result<u32, Problem> {
    match (shelf.refused.clone().or(power), unproven) {
        (Some(problem), _) => Err(problem),
        // More of the same would be just as useless.
        (None, Some(server)) => Err(Problem::new(
            Reason::TrustTooLow,
            format!("server {server} has no valid evidence; no more like it is asked for"),
        )),
        (None, None) if shelf.growable == 0 => Err(Problem::new(
            Reason::CapacityExhausted,
            "all servers that may be asked for are taken by other pools",
        )),
        (None, None) => Ok(shelf.growable),
    }
}

/// Takes `slot` off the shelves, so that no other pool gets it.
pub(crate) fn take(slot: &Slot, stock: &mut Stock, server_state: Option<ServerState>) {
    let shelf = stock.shelf(&slot.group);
    match &slot.source {
        Source::Free(server) => {
            shelf.free.remove(server);
        }
        Source::Reclaim(server) => {
            shelf.reversible.remove(server);
            shelf.reclaimed.insert(server.clone());
        }
        Source::Recall(_, server) => {
            shelf.vacating.remove(server);
            shelf.reversible.remove(server);
            if server_state == Some(ServerState::Draining) {
                shelf.reclaimed.insert(server.clone());
            }
        }
        Source::Vacating(server) => {
            shelf.vacating.remove(server);
        }
        Source::Coming => shelf.coming = shelf.coming.saturating_sub(1),
        Source::Purchase => {
            shelf.growable = shelf.growable.saturating_sub(1);
            stock.power.take(&slot.group);
        }
    }
}
