//! Sets of identical machines and the servers that exist of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Trust;
use crate::lifecycle::{NodeHealth, ServerState};
use crate::names::{ServerName, SiteName};
use crate::reason::Problem;
use crate::time::{Span, Timestamp};
use crate::units::Money;

/// The key into the catalogue: bandwidth and speed differ within one chip name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MachineKey {
    /// Such as `M2 Ultra`.
    pub chip: String,
    /// GPU cores.
    pub gpu_cores: u32,
    /// Unified memory in GiB.
    pub memory_gib: u32,
}

/// A scalable set of identical machines at one site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Where they are.
    pub site: SiteName,
    /// What they are.
    pub machine: MachineKey,
    /// Labels of the `ServerGroup` object, which a pool's `groupSelector` selects on.
    pub labels: BTreeMap<String, String>,
    /// Fewest and most servers.
    pub size: SizeRange,
    /// Ordered machines that raise the most, sorted by date.
    pub deliveries: Vec<Delivery>,
    /// What the provider can do.
    pub provider: ProviderTraits,
    /// Watts of one machine; overrides of the catalogue are already in.
    pub power: Power,
    /// What one server costs.
    pub pricing: Pricing,
    /// How long servers take to come, and to be available again.
    pub lead_time: LeadTime,
    /// How many servers Pomarium may take out at once, by choice, and when.
    pub disruption: Disruption,
    /// Whether Pomarium may spend money here by itself.
    pub mode: Mode,
    /// What people have approved, where they want to be asked.
    #[serde(default, skip_serializing_if = "Approved::is_empty")]
    pub approved: Approved,
    /// All servers that exist or have been asked for, or unknown if the provider or the site does not answer.
    pub inventory: Inventory,
    /// When the provider last refused for want of machines.
    pub out_of_stock_since: Option<Timestamp>,
    /// What the last pass wrote down for this one.
    pub memory: GroupMemory,
    /// Why the object cannot be used as it is. The figures here are those that can be read; what runs there counts by
    /// them, and nothing is done to it.
    pub problem: Option<Problem>,
    /// Another group selects Nodes that this one selects too. Each counts for one group only.
    pub overlap: Option<Problem>,
    /// Pomarium only watches.
    pub paused: bool,
    /// The object is being deleted: what runs is moved, then every server is given back.
    pub deleting: bool,
}

impl Group {
    /// Servers that may be asked for because people have approved it, and that do not exist yet. Who only advises is not told to act.
    pub fn approved_requests(&self) -> impl Iterator<Item = &ServerName> {
        let servers = self.inventory.servers();
        let approved = self.approved.requests.iter();
        approved.filter(|name| self.mode != Mode::Advise && !servers.contains_key(*name))
    }

    /// Whether people have approved that this server is given back.
    pub fn may_release(&self, server: &ServerName) -> bool {
        self.mode != Mode::Advise && self.approved.releases.contains(server)
    }
}

/// What people have approved and what has not expired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// Servers that may be asked for.
    pub requests: BTreeSet<ServerName>,
    /// Servers that may be given back.
    pub releases: BTreeSet<ServerName>,
}

impl Approved {
    /// Nothing is approved.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.releases.is_empty()
    }
}

/// Fewest and most servers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeRange {
    /// Kept even without demand.
    pub min: u32,
    /// Never exceeded.
    pub max: u32,
}

/// Machines that will raise a group's most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// From when on.
    pub at: Timestamp,
    /// How many.
    pub servers: u32,
}

/// What a group's provider can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderTraits {
    /// It can bring up another server.
    pub grows: bool,
    /// It can give back a server of our choice. One that cannot may only go to zero after all are drained.
    pub releases_chosen: bool,
    /// Servers are always on and cannot be switched off: their idle watts are sunk.
    pub always_on: bool,
}

/// Watts of one machine at the wall.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// On, without work.
    pub idle_watts: f64,
    /// Under full load.
    pub busy_watts: f64,
}

/// What one server of a group costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pricing {
    /// Per hour while leased.
    pub hourly: Money,
    /// Paid in any case, from the start of the lease.
    pub minimum_lease: Span,
}

/// How long servers of a group take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadTime {
    /// From the decision to a Ready server; the model's load comes on top.
    pub provision: Span,
    /// From release until the machine can be leased again.
    pub recycle: Span,
}

/// How many servers may be taken out at once by choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disruption {
    /// At most this many servers draining by choice at the same time.
    pub max_unavailable: u32,
    /// Whether a window for voluntary disruption is open now. Always true without windows.
    pub window_open: bool,
}

/// How far Pomarium may go by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// All the way.
    Auto,
    /// It proposes; people approve.
    Approve,
    /// It only says what it would do.
    Advise,
}

/// The servers of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Inventory {
    /// The complete list.
    Known(BTreeMap<ServerName, Server>),
    /// The list as it was when the site or the provider last answered. Not to be acted on.
    Unknown {
        /// The last complete list.
        last: BTreeMap<ServerName, Server>,
        /// Since when nothing newer is known.
        since: Timestamp,
    },
}

impl Inventory {
    /// The servers, current or last known.
    pub fn servers(&self) -> &BTreeMap<ServerName, Server> {
        match self {
            Self::Known(servers) | Self::Unknown { last: servers, .. } => servers,
        }
    }

    /// Whether the list is complete and current.
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Where it is in its life. See [`crate::lifecycle::server_state`].
    pub state: ServerState,
    /// When it got there.
    pub since: Timestamp,
    /// What its Node says of the machine, whatever the provider says.
    pub node: NodeHealth,
    /// The paid term, if it is leased.
    pub lease: Option<Lease>,
    /// People have cordoned it, or put a taint on it that replicas do not tolerate: no new work, and what runs is moved.
    pub cordoned: bool,
    /// People have asked to leave it alone, with the annotation `pomarium.dev/hold`.
    pub held: bool,
    /// What its Node proves, checked: the highest trust level with valid evidence.
    pub proven: Trust,
}

/// The paid term of a hosted server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Paid from here.
    pub start: Timestamp,
    /// Paid at least until here.
    pub minimum_until: Timestamp,
}

/// What Pomarium remembers of a group between passes, kept in the object's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMemory {
    /// When a server was last asked for by decision.
    pub last_requested_at: Option<Timestamp>,
}
