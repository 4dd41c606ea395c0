//! The machines of one group, as their lessor or their power switch sees them.
//!
//! Pure: a state machine over virtual time that never looks at a clock. What happens in the cluster follows from the
//! [`Change`]s that it returns.

use std::collections::BTreeMap;

use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Money;
use serde::{Deserialize, Serialize};

/// What a lessor asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Price of one hour, billed to the millisecond after the minimum.
    pub hourly: Money,
    /// Paid in any case.
    pub minimum: Span,
}

/// How the machines of a group come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// Most machines, recycling ones included.
    pub maximum: u32,
    /// All of them are on from the start, and cannot be switched off.
    pub always_on: bool,
    /// From the request until the machine starts.
    pub provision: Span,
    /// From its start until its Node registers.
    pub boot: Span,
    /// From its release until it can be had again.
    pub recycle: Span,
    /// What a server costs; `None` for own machines.
    pub lease: Option<LeaseTerms>,
}

impl Supply {
    /// `count` own machines that are always on.
    pub const fn always_on(count: u32) -> Self {
        Self {
            maximum: count,
            always_on: true,
            provision: Span::ZERO,
            boot: Span::ZERO,
            recycle: Span::ZERO,
            lease: None,
        }
    }
}

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServerState {
    /// The lessor prepares it. Paid from here.
    Provisioning,
    /// It starts.
    Booting,
    /// It runs; its Node registers.
    Ready,
    /// Given back; its Node is being removed.
    Releasing,
    /// The lessor cleans it.
    Recycling,
    /// It did not come up. Kept, and paid, until it is given back.
    Failed,
}

/// A server as the API of the fleet tells it. Times are virtual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its name, and its Node's.
    pub name: String,
    /// Where it is in its life.
    pub state: ServerState,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it came up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// Paid from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_start: Option<Timestamp>,
    /// Paid at least until here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_until: Option<Timestamp>,
    /// While it is being recycled: when it can be had again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_at: Option<Timestamp>,
    /// Its Node, once it has come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What the market is like at the moment of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Market {
    /// Nothing is to be had.
    pub(crate) out_of_stock: bool,
    /// The lead time is multiplied by this.
    pub(crate) lateness: f64,
    /// What comes does not boot.
    pub(crate) boot_fails: bool,
}

impl Default for Market {
    fn default() -> Self {
        Self {
            out_of_stock: false,
            lateness: 1.0,
            boot_fails: false,
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Refusal {
    /// The lessor has none.
    OutOfStock,
    /// It is being cleaned, or so many are that none is left.
    Recycling,
    /// The group has as many as it may.
    AtMaximum,
    /// It cannot be switched off.
    AlwaysOn,
}

/// What has to follow in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The machine runs: register its Node.
    Up(String),
}

/// One paid term. Its cost is fixed once it is returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The server.
    pub server: String,
    /// Paid from here.
    pub bought: Timestamp,
    /// Paid at least until here.
    pub minimum_until: Timestamp,
    /// When it was given back; `None` while it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned: Option<Timestamp>,
    /// What it comes to: until its return but at least for the minimum, or until now if it is held.
    pub cost: Money,
}

/// The machines of one group.
#[derive(Debug)]
pub(crate) struct Machines {
    supply: Supply,
    all: BTreeMap<String, Machine>,
    leases: Vec<Lease>,
    /// Most servers that were up at the same time.
    peak: u32,
}

#[derive(Debug)]
struct Machine {
    server: Server,
    /// When the present state ends by itself.
    due: Option<Timestamp>,
    /// When it is up, if it comes up.
    up: Timestamp,
    boot_fails: bool,
}

impl Machines {
    /// The machines of `group`, all of them up if they are always on.
    pub(crate) fn new(group: &str, supply: Supply, now: Timestamp) -> Self {
        let on = if supply.always_on { supply.maximum } else { 0 };
        let machines = (0..on).map(|ordinal| {
            let name = format!("{group}-{ordinal}");
            let server = Server {
                name: name.clone(),
                state: ServerState::Ready,
                requested_at: now,
                ready_at: Some(now),
                lease_start: None,
                minimum_until: None,
                available_at: None,
                node: Some(name.clone()),
            };
            let machine = Machine {
                server,
                due: None,
                up: now,
                boot_fails: false,
            };
            (name, machine)
        });
        Self {
            supply,
            all: machines.collect(),
            leases: Vec::new(),
            peak: on,
        }
    }

    /// All servers that exist, recycling ones included.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.all.values().map(|machine| &machine.server)
    }

    /// All leases, oldest first, as of `now`.
    pub(crate) fn leases(&self, now: Timestamp) -> Vec<Lease> {
        let hourly = self.supply.lease.map_or(Money::ZERO, |terms| terms.hourly);
        let as_of_now = |lease: &Lease| {
            // The minimum of a lease that is held is owed only when it is given back early.
            let until = lease.returned.map_or(now, |returned| returned.max(lease.minimum_until));
            Lease {
                cost: hourly.for_span(until.since(lease.bought)),
                ..lease.clone()
            }
        };
        self.leases.iter().map(as_of_now).collect()
    }

    /// Asks for a server. True if that made it: asking again for one that exists buys nothing.
    pub(crate) fn request(&mut self, name: &str, now: Timestamp, market: Market) -> Result<(Server, bool), Refusal> {
        if let Some(machine) = self.all.get(name) {
            return match machine.server.state {
                ServerState::Releasing | ServerState::Recycling => Err(Refusal::Recycling),
                _ => Ok((machine.server.clone(), false)),
            };
        }
        if self.all.len() >= usize::try_from(self.supply.maximum).unwrap_or(usize::MAX) {
            let leaving = |server: &Server| matches!(server.state, ServerState::Releasing | ServerState::Recycling);
            let recycling = self.servers().any(leaving);
            return Err(if recycling {
                Refusal::Recycling
            } else {
                Refusal::AtMaximum
            });
        }
        if market.out_of_stock {
            return Err(Refusal::OutOfStock);
        }

        let lease = self.supply.lease;
        let boots = now + stretched(self.supply.provision, market.lateness);
        let server = Server {
            name: name.to_owned(),
            state: ServerState::Provisioning,
            requested_at: now,
            ready_at: None,
            lease_start: lease.map(|_| now),
            minimum_until: lease.map(|terms| now + terms.minimum),
            available_at: None,
            node: None,
        };
        if let Some(terms) = lease {
            self.leases.push(Lease {
                server: name.to_owned(),
                bought: now,
                minimum_until: now + terms.minimum,
                returned: None,
                cost: Money::ZERO,
            });
        }
        let machine = Machine {
            server: server.clone(),
            due: Some(boots),
            up: boots + stretched(self.supply.boot, market.lateness),
            boot_fails: market.boot_fails,
        };
        self.all.insert(name.to_owned(), machine);
        Ok((server, true))
    }

    /// Gives a server back. `None` if it is gone already; the lease ends now, the minimum stays paid.
    pub(crate) fn release(&mut self, name: &str, now: Timestamp) -> Result<Option<Server>, Refusal> {
        if self.supply.always_on && self.all.contains_key(name) {
            return Err(Refusal::AlwaysOn);
        }
        let Some(machine) = self.all.get_mut(name) else {
            return Ok(None);
        };
        if !matches!(machine.server.state, ServerState::Releasing | ServerState::Recycling) {
            machine.server.state = ServerState::Releasing;
            machine.due = None;
            let held = |lease: &&mut Lease| lease.server == name && lease.returned.is_none();
            if let Some(lease) = self.leases.iter_mut().find(held) {
                lease.returned = Some(now);
            }
        }
        Ok(Some(machine.server.clone()))
    }

    /// Nothing runs on a released server any more: it is cleaned, or gone.
    pub(crate) fn vacated(&mut self, name: &str, now: Timestamp) {
        let Some(machine) = self.all.get_mut(name) else {
            return;
        };
        if machine.server.state != ServerState::Releasing {
            return;
        }
        let available = now + self.supply.recycle;
        if available == now {
            self.all.remove(name);
            return;
        }
        machine.server.state = ServerState::Recycling;
        machine.server.available_at = Some(available);
        machine.server.node = None;
        machine.due = Some(available);
    }

    /// Lets everything happen that is due by `now`.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        self.all.retain(|name, machine| {
            while let Some(due) = machine.due.filter(|due| *due <= now) {
                machine.due = None;
                match machine.server.state {
                    ServerState::Provisioning => {
                        machine.server.state = ServerState::Booting;
                        machine.due = Some(machine.up);
                    }
                    ServerState::Booting if machine.boot_fails => machine.server.state = ServerState::Failed,
                    ServerState::Booting => {
                        machine.server.state = ServerState::Ready;
                        machine.server.ready_at = Some(due);
                        machine.server.node = Some(name.clone());
                        changes.push(Change::Up(name.clone()));
                    }
                    ServerState::Recycling => return false,
                    ServerState::Ready | ServerState::Releasing | ServerState::Failed => {}
                }
            }
            true
        });
        let up = self
            .servers()
            .filter(|server| server.state == ServerState::Ready)
            .count();
        self.peak = self.peak.max(u32::try_from(up).unwrap_or(u32::MAX));
        changes
    }

    /// Most servers that were up at the same time.
    pub(crate) fn peak(&self) -> u32 {
        self.peak
    }

    /// When [`Self::advance`] has something to do next.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.all.values().filter_map(|machine| machine.due).min()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and a negative factor counts as zero"
)]
fn stretched(span: Span, factor: f64) -> Span {
    Span::from_millis((span.as_millis() as f64 * factor.max(0.0)).round() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HOSTED: Supply = Supply {
        maximum: 2,
        always_on: false,
        provision: Span::from_minutes(10),
        boot: Span::from_minutes(2),
        recycle: Span::from_minutes(30),
        lease: Some(LeaseTerms {
            hourly: Money::from_micros(2_000_000),
            minimum: Span::from_hours(1),
        }),
    };

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(0) + Span::from_minutes(minutes)
    }

    fn state(machines: &Machines, name: &str) -> Option<ServerState> {
        machines
            .servers()
            .find(|server| server.name == name)
            .map(|server| server.state)
    }

    #[test]
    fn a_server_comes_up_after_its_lead_time_and_not_before() {
        let mut machines = Machines::new("h", HOSTED, at(0));
        machines.request("h-0", at(0), Market::default()).unwrap();
        assert_eq!(machines.next_due(), Some(at(10)));
        assert_eq!(machines.advance(at(9)), []);
        assert_eq!(state(&machines, "h-0"), Some(ServerState::Provisioning));
        assert_eq!(machines.advance(at(10)), []);
        assert_eq!(state(&machines, "h-0"), Some(ServerState::Booting));
        assert_eq!(machines.advance(at(12)), [Change::Up("h-0".into())]);
        let server = machines.servers().next().unwrap();
        assert_eq!((server.state, server.ready_at), (ServerState::Ready, Some(at(12))));
        assert_eq!((server.lease_start, server.minimum_until), (Some(at(0)), Some(at(60))));
        assert_eq!(machines.next_due(), None);
    }

    #[test]
    fn a_late_look_at_the_clock_brings_everything_that_was_due() {
        let mut machines = Machines::new("h", HOSTED, at(0));
        machines.request("h-0", at(0), Market::default()).unwrap();
        assert_eq!(machines.advance(at(500)), [Change::Up("h-0".into())]);
        assert_eq!(machines.servers().next().unwrap().ready_at, Some(at(12)));
    }

    #[test]
    fn asking_twice_buys_once() {
        let mut machines = Machines::new("h", HOSTED, at(0));
        let (first, made) = machines.request("h-0", at(0), Market::default()).unwrap();
        assert!(made);
        let again = machines.request(
            "h-0",
            at(5),
            Market {
                out_of_stock: true,
                ..Market::default()
            },
        );
        assert_eq!(again, Ok((first, false)));
        assert_eq!(machines.leases(at(5)).len(), 1);
    }

    #[test]
    fn a_request_is_refused_for_want_of_stock_or_room() {
        let mut machines = Machines::new("h", HOSTED, at(0));
        let empty = Market {
            out_of_stock: true,
            ..Market::default()
        };
        assert_eq!(machines.request("h-0", at(0), empty), Err(Refusal::OutOfStock));
        for name in ["h-0", "h-1"] {
            machines.request(name, at(0), Market::default()).unwrap();
        }
        assert_eq!(
            machines.request("h-2", at(0), Market::default()),
            Err(Refusal::AtMaximum)
        );
        machines.release("h-1", at(1)).unwrap();
        assert_eq!(
            machines.request("h-2", at(1), Market::default()),
            Err(Refusal::Recycling)
        );
        assert_eq!(machines.leases(at(1)).len(), 2, "a refusal buys nothing");
    }

    #[test]
    fn a_released_server_is_recycled_and_then_free_again() {
        let mut machines = Machines::new("h", HOSTED, at(0));
        machines.request("h-0", at(0), Market::default()).unwrap();
        machines.advance(at(12));
        let released = machines.release("h-0", at(90)).unwrap().unwrap();
        assert_eq!(released.state, ServerState::Releasing);
        machines.vacated("h-0", at(91));
        assert_eq!(machines.servers().next().unwrap().available_at, Some(at(121)));
        assert_eq!(
            machines.request("h-0", at(100), Market::default()),
            Err(Refusal::Recycling)
        );
        // Asking again neither starts the clean-up again nor fails.
        machines.release("h-0", at(100)).unwrap();
        machines.vacated("h-0", at(100));
        machines.advance(at(120));
        assert_eq!(state(&machines, "h-0"), Some(ServerState::Recycling));
        machines.advance(at(121));
        assert_eq!(state(&machines, "h-0"), None);
        assert_eq!(machines.release("h-0", at(122)), Ok(None));
        assert!(machines.request("h-0", at(122), Market::default()).unwrap().1);
    }

    #[test]
    fn a_lease_costs_its_minimum_or_its_whole_time() {
        let cost = |returned| {
            let mut machines = Machines::new("h", HOSTED, at(0));
            machines.request("h-0", at(0), Market::default()).unwrap();
            machines.release("h-0", returned).unwrap();
            machines.leases(at(1_000))[0].cost
        };
        assert_eq!(cost(at(5)), Money::from_micros(2_000_000));
        assert_eq!(cost(at(60)), Money::from_micros(2_000_000));
        assert_eq!(cost(at(90)), Money::from_micros(3_000_000));
    }

    #[test]
    fn a_lease_that_is_held_costs_what_has_passed() {
        let mut machines = Machines::new("h", HOSTED, at(0));
        machines.request("h-0", at(0), Market::default()).unwrap();
        assert_eq!(machines.leases(at(30))[0].cost, Money::from_micros(1_000_000));
        assert_eq!(machines.leases(at(30))[0].returned, None);
    }

    #[test]
    fn a_late_market_stretches_the_lead_time_and_a_bad_one_brings_a_machine_that_fails() {
        let mut machines = Machines::new("h", HOSTED, at(0));
        let late = Market {
            lateness: 3.0,
            ..Market::default()
        };
        machines.request("h-0", at(0), late).unwrap();
        let bad = Market {
            boot_fails: true,
            ..Market::default()
        };
        machines.request("h-1", at(0), bad).unwrap();
        assert_eq!(machines.advance(at(35)), []);
        assert_eq!(state(&machines, "h-1"), Some(ServerState::Failed));
        assert_eq!(machines.advance(at(36)), [Change::Up("h-0".into())]);
        // It is paid for until somebody gives it back.
        assert_eq!(machines.leases(at(60))[1].cost, Money::from_micros(2_000_000));
        machines.release("h-1", at(120)).unwrap();
        assert_eq!(machines.leases(at(500))[1].cost, Money::from_micros(4_000_000));
    }

    #[test]
    fn machines_that_are_always_on_cannot_be_switched_off() {
        let supply = Supply {
            always_on: true,
            lease: None,
            ..HOSTED
        };
        let mut machines = Machines::new("own", supply, at(7));
        let names: Vec<_> = machines.servers().map(|server| server.name.clone()).collect();
        assert_eq!(names, ["own-0", "own-1"]);
        assert_eq!(machines.release("own-0", at(8)), Err(Refusal::AlwaysOn));
        assert!(!machines.request("own-1", at(8), Market::default()).unwrap().1);
        assert_eq!(machines.leases(at(8)), []);
    }

    #[test]
    fn a_server_is_told_as_the_interface_says() {
        let mut machines = Machines::new("h", HOSTED, at(0));
        let (server, _) = machines.request("h-0", at(0), Market::default()).unwrap();
        assert_eq!(
            serde_json::to_value(server).unwrap(),
            serde_json::json!({
                "name": "h-0", "state": "Provisioning", "requestedAt": "1970-01-01T00:00:00.000Z",
                "leaseStart": "1970-01-01T00:00:00.000Z", "minimumUntil": "1970-01-01T01:00:00.000Z"
            })
        );
    }
}
