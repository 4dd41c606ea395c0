//! The closed list of reasons.
//!
//! One name is the condition's reason, the event's reason, the metric's label and the word that the command line prints.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Why something is as it is, or is done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, in the order of the table in the docs.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word itself.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What it means, in one or two sentences.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    // ---- everything is well
    /// Replicas are as many as the demand needs, and serve.
    OnTarget,
    /// The site answers and its cache is complete.
    Reachable,
    /// Every server of the group is accounted for.
    AllAccounted,
    /// The objective holds by measurement.
    ObjectiveAttained,
    /// Metrics are read and recent.
    MetricsRead,
    /// Routes follow the plan.
    RoutesWritten,
    /// Nothing routes for this pool: it asked for no route.
    NoRouteRequested,
    /// Spending is under the budget.
    UnderBudget,
    /// No budget is set.
    NoBudget,
    /// If spending went on as now, the budget would not last for its period.
    BudgetAtRisk,

    // ---- growing
    /// More requests arrive than the replicas sustain.
    DemandGrew,
    /// The measured percentile is over its objective, and the model does not say why: one more replica, by reaction.
    ObjectiveMissed,
    /// Fewer replicas than `replicas.min`.
    BelowMinimum,
    /// Objectives would not survive the loss that `surviveLossOf` names.
    SpareForLoss,
    /// Takes the place of a replica that is being drained or has failed.
    Replacing,
    /// A server is leased or woken because the running ones are not enough.
    ServersNeeded,
    /// The plan ahead wants the server for what is expected to arrive, or it is there and costs the same if it serves.
    PlannedAhead,
    /// A group has fewer servers than `size.min`.
    GroupBelowMinimum,
    /// The replica is ready and takes requests.
    ReplicaReady,

    // ---- shrinking
    /// Fewer replicas would do, for longer than the hold-down.
    DemandFell,
    /// More replicas than `replicas.max`.
    AboveMaximum,
    /// An owned or managed server can do the work of a hosted one.
    ReturnToOwned,
    /// A new revision replaces this replica.
    RevisionReplaced,
    /// The server's paid term has ended and nothing needs it.
    LeaseEnded,
    /// The server serves nobody and is not needed.
    ServerIdle,
    /// People cordoned the server or want it drained.
    ServerCordoned,
    /// The site is in maintenance `Draining`.
    SiteDraining,
    /// The pool is being deleted.
    PoolDeleted,
    /// Replicas of a deleted object are left where nothing can be done: their site or group is gone, paused or out of reach.
    Forgotten,
    /// The replica may not run here any more: trust, residency or licence changed.
    NoLongerPermitted,
    /// The pool does not select the replica's group any more: it is replaced first.
    NoLongerSelected,
    /// The group is being deleted: what runs there is replaced first, then its servers are given back.
    GroupDeleted,
    /// The replica or its server stopped answering for too long.
    ReplicaLost,
    /// The replica did not become ready in time: it is started again, elsewhere if there is a place.
    ReplicaLate,
    /// The engine answers nobody although its probe says that it is ready: it is replaced first.
    EngineSilent,
    /// Somebody else deleted the Pod: it is fenced, and removed as soon as it is quiet.
    PodDeleted,
    /// The server's machine has not answered for so long that it is given back.
    ServerLost,
    /// The provider gave the server up while its Node is Ready: what runs there is replaced first.
    ServerFailed,
    /// A pool of higher priority needs the server, and there is no other.
    Preempted,

    // ---- steps of a drain
    /// The replica takes no new requests; routers are given time to notice.
    Fencing,
    /// Waiting until the requests in flight are finished.
    Quiescing,
    /// The engine reported no running and no queued request.
    Quiet,
    /// The deadline passed and the pool says `Keep`: waiting on.
    DeadlineKept,
    /// The deadline passed and the pool says `Cut`: the rest is cut, and counted.
    DeadlineCut,
    /// The drain was called off: the replica serves again.
    DrainCancelled,

    // ---- held
    /// Nothing is removed while metrics are missing: unknown is not idle.
    MetricsUnavailable,
    /// The engine exports no such metric; the model alone speaks.
    ModelOnly,
    /// Fewer would do, but not for long enough yet.
    HoldDown,
    /// The rest could not carry the load if one more were gone.
    NeededForLoss,
    /// The server is paid until later and may as well serve.
    LeasePaid,
    /// As many servers of the group are being emptied as its disruption budget allows.
    DisruptionBudget,
    /// No disruption window of the group is open.
    WindowClosed,
    /// Fewer would do by the model, but a measured percentile is close to its objective.
    ObjectiveNear,
    /// Servers seem to be missing, but not for long enough to pay for more.
    DemandUnconfirmed,
    /// The site does not answer: it keeps what it has.
    SiteUnreachable,
    /// The servers of the group cannot be listed: nothing is requested or released.
    InventoryUnknown,
    /// Paused by annotation.
    Paused,
    /// Held by annotation.
    Held,
    /// Proposed only: mode is `Approve` or `Advise`.
    AwaitingApproval,
    /// There is a plan ahead, but it is too old, made without the pool, or proved wrong: the pool is left to what is measured.
    PlanNotFollowed,
    /// What engines do contradicts the figures of their machine: these neither refuse nor buy nor remove anything.
    FiguresDoubted,
    /// Another group comes first in the pool's placement order.
    LaterInOrder,
    /// The same would cost more there.
    CostsMore,
    /// A server from there would serve only after it is needed.
    ComesTooLate,

    // ---- on the way
    /// Servers are on their way.
    ServersComing,
    /// Models are loading.
    ReplicasLoading,
    /// Replicas are being drained.
    ReplicasDraining,
    /// A first look is being taken.
    Starting,
    /// What was remembered of the pool's demand cannot be read: that part of it is learnt anew.
    HistoryUnreadable,

    // ---- cannot
    /// No group satisfies the pool's trust.
    TrustTooLow,
    /// No group satisfies the pool's residency.
    ResidencyForbidden,
    /// No group is licensed for the pool's use.
    UseForbidden,
    /// The model does not fit the memory of any permitted machine.
    DoesNotFit,
    /// No permitted machine meets the objectives even without load.
    ObjectiveUnreachable,
    /// The catalogue knows too little of the machine, and no figures are given.
    MachineUnknown,
    /// No group matches the selector, or none exists.
    NoGroup,
    /// All permitted groups are at their most, or out of stock.
    CapacityExhausted,
    /// Requests will miss an objective more often than its window allows, whatever may be had now.
    ErrorBudgetSpent,
    /// Objectives are missed, or will be, and what is left of the error budget outlasts its window all the same: no server is leased for many hours for it.
    ErrorBudgetLasts,
    /// What is wanted costs more than the budget has left.
    BudgetSpent,
    /// The site has no power left for another server.
    PowerLimited,
    /// The provider has no machine to give.
    OutOfStock,
    /// The server did not come in time; the next group is tried.
    LeaseLate,
    /// The member cluster has no such namespace.
    NamespaceMissing,
    /// The object cannot be used as it is.
    InvalidSpec,
    /// A name in the spec refers to nothing.
    ReferenceMissing,
    /// The kubeconfig asks for something that is refused.
    CredentialRejected,
    /// Something else writes the size of the target.
    ForeignWriter,
    /// Two groups select the same Node. It counts for the one whose name comes first.
    GroupsOverlap,
    /// The provider answers with an error.
    ProviderFailed,
    /// The route cannot be written as asked.
    RouteUnsupported,
    /// The Gateway API is not installed.
    GatewayApiMissing,
    /// A provider that cannot choose its victim only grows, or goes to zero.
    CannotChooseVictim,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason with the sentence that explains this case of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The reason.
    pub reason: Reason,
    /// What exactly, with figures, for people.
    pub message: String,
}

impl Problem {
    /// `reason`, explained by `message`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The table of all reasons for the docs, in Markdown.
pub fn table() -> String {
    let mut text = String::from(
        "# Reasons\n\n\
         Why something is as it is, or is done. One word is the condition's reason, the event's reason, the metric's label and \
         what the command line prints. Generated from `operator/kernel/src/reason.rs`.\n\n\
         | reason | meaning |\n|---|---|\n",
    );
    text.extend(
        Reason::ALL
            .iter()
            .map(|reason| format!("| `{reason}` | {} |\n", reason.meaning().trim())),
    );
    text
}
