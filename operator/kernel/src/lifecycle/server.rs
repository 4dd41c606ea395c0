//! The life of a server, derived from facts alone.
//!
//! Nothing here is remembered: the provider's list, the Node and our own drain mark say everything, so that a crash at
//! any point loses nothing and two operators come to the same answer.
//!
//! | state | deadline | then |
//! |---|---|---|
//! | Requested, Provisioning, Booting | [`arrival_deadline`]: three lead times and ten minutes | Failed: the next group is tried |
//! | Suspect | [`SUSPECT_LIMIT`] | still Suspect; the planner gives up on what runs there |
//! | Failed | [`FAILED_RETENTION`] | released: until then it is looked at, and its group is not asked again |
//! | Draining | that of the drains on it | |
//! | Ready, Releasing, Recycling | none | a recycling host is unavailable, not failed |

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp};

/// A server that is not heard of for so long is given up: more than a reboot takes, less than a lease is worth.
pub const SUSPECT_LIMIT: Span = Span::from_minutes(10);

/// How long a failed server is kept for investigation. Meanwhile its group is not asked for another one.
pub const FAILED_RETENTION: Span = Span::from_minutes(15);

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServerState {
    /// Asked for; the provider has not confirmed.
    Requested,
    /// The provider is preparing it. Paid from here if leased.
    Provisioning,
    /// It starts; its Node is not Ready yet.
    Booting,
    /// Its Node is Ready.
    Ready,
    /// No new work; what runs is being drained; it will be released.
    Draining,
    /// Given back; the provider has not confirmed.
    Releasing,
    /// The provider is cleaning it: unavailable, not failed.
    Recycling,
    /// It does not exist any more.
    Gone,
    /// It stopped answering: out of capacity, investigated before release.
    Suspect,
    /// It did not come up within its time-box, or the provider gave up on it.
    Failed,
}

impl ServerState {
    /// All states.
    pub const ALL: [Self; 10] = [
        Self::Requested,
        Self::Provisioning,
        Self::Booting,
        Self::Ready,
        Self::Draining,
        Self::Releasing,
        Self::Recycling,
        Self::Gone,
        Self::Suspect,
        Self::Failed,
    ];

    /// The word for it in statuses and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "Requested",
            Self::Provisioning => "Provisioning",
            Self::Booting => "Booting",
            Self::Ready => "Ready",
            Self::Draining => "Draining",
            Self::Releasing => "Releasing",
            Self::Recycling => "Recycling",
            Self::Gone => "Gone",
            Self::Suspect => "Suspect",
            Self::Failed => "Failed",
        }
    }

    /// On its way to Ready.
    pub const fn is_coming(self) -> bool {
        matches!(self, Self::Requested | Self::Provisioning | Self::Booting)
    }

    /// Whether an observer may see `next` after `self`.
    ///
    /// States may be skipped, because nobody looks all the time; what may never be seen is a server that comes back
    /// from where there is no way back.
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            // A machine that has been given back only comes back as a new one.
            (Self::Releasing, next) => matches!(next, Self::Releasing | Self::Recycling | Self::Gone | Self::Failed),
            (Self::Recycling, next) => matches!(next, Self::Recycling | Self::Gone | Self::Failed | Self::Requested),
            (Self::Gone, next) => matches!(next, Self::Gone | Self::Requested | Self::Provisioning),
            // What was up does not become new again. A late machine may still come up after it was given up.
            (Self::Ready | Self::Draining | Self::Suspect, next) => {
                !matches!(next, Self::Requested | Self::Provisioning)
            }
            (Self::Booting, next) => !matches!(next, Self::Requested | Self::Provisioning),
            (Self::Provisioning, next) => !matches!(next, Self::Requested),
            (Self::Requested | Self::Failed, _) => true,
        }
    }
}

/// What a provider says of one of its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProviderState {
    /// Being prepared.
    Provisioning,
    /// Starting.
    Booting,
    /// Up, as far as the provider can see.
    Ready,
    /// Being taken back.
    Releasing,
    /// Being cleaned for the next customer.
    Recycling,
    /// Given up.
    Failed,
}

/// A provider's entry for one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFacts {
    /// Where it is.
    pub state: ProviderState,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it came up, if it has.
    pub ready_at: Option<Timestamp>,
}

/// What is seen of a server's Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its Ready condition is True.
    pub ready: bool,
    /// When that last changed.
    pub ready_since: Timestamp,
}

/// What a server's Node says of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeHealth {
    /// There is no Node: the server has not enrolled yet, or is gone.
    Absent,
    /// It is Ready: the machine answers, whatever its provider says of it.
    Ready,
    /// It is not Ready, or does not report any more.
    Down {
        /// Since when.
        since: Timestamp,
    },
}

impl NodeHealth {
    /// The health that a Node's facts come to.
    pub fn of(node: Option<&NodeFacts>) -> Self {
        match node {
            None => Self::Absent,
            Some(node) if node.ready => Self::Ready,
            Some(node) => Self::Down {
                since: node.ready_since,
            },
        }
    }
}

/// Everything that is known of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// The provider's entry; `None` if it lists none or is of a kind that lists nothing.
    pub provider: Option<ProviderFacts>,
    /// The provider answered. If not, `provider` is what it last said.
    pub provider_known: bool,
    /// The machine is always on: there is nobody to ask.
    pub always_on: bool,
    /// Its Node, if there is one.
    pub node: Option<NodeFacts>,
    /// Since when Pomarium drains it, by our own mark on the Node.
    pub draining_since: Option<Timestamp>,
    /// The group's lead time.
    pub lead_time: Span,
}

/// Until when a server that was asked for at `requested_at` must be up.
///
/// Three lead times, because published lead times are typical ones, and ten minutes for those that say zero.
pub fn arrival_deadline(requested_at: Timestamp, lead_time: Span) -> Timestamp {
    requested_at + lead_time * 3 + Span::from_minutes(10)
}

/// Where a server is, and since when.
///
/// # Guarantees
/// Depends on nothing but its arguments. A silent provider never makes a server Gone or Failed.
pub fn server_state(facts: &ServerFacts, now: Timestamp) -> (ServerState, Timestamp) {
    let Some(provider) = facts.provider else {
        return by_node(facts, None);
    };
    let left_at = facts
        .draining_since
        .or(provider.ready_at)
        .unwrap_or(provider.requested_at);
    match provider.state {
        ProviderState::Releasing => (ServerState::Releasing, left_at),
        ProviderState::Recycling => (ServerState::Recycling, left_at),
        ProviderState::Failed => (ServerState::Failed, provider.ready_at.unwrap_or(provider.requested_at)),
        // A Node that is Ready is a fact, and the provider's word may be a moment old.
        ProviderState::Provisioning | ProviderState::Booting if facts.node.is_some_and(|node| node.ready) => {
            by_node(facts, Some(&provider))
        }
        ProviderState::Provisioning => coming(ServerState::Provisioning, &provider, facts, now),
        ProviderState::Booting => coming(ServerState::Booting, &provider, facts, now),
        ProviderState::Ready => match facts.node {
            Some(_) => by_node(facts, Some(&provider)),
            // Up, but not enrolled yet: it is of no use before its Node is there.
            None => coming(ServerState::Booting, &provider, facts, now),
        },
    }
}

fn coming(
    state: ServerState,
    provider: &ProviderFacts,
    facts: &ServerFacts,
    now: Timestamp,
) -> (ServerState, Timestamp) {
    let deadline = arrival_deadline(provider.requested_at, facts.lead_time);
    if facts.provider_known && now >= deadline {
        (ServerState::Failed, deadline)
    } else if let Some(since) = facts.draining_since {
        (ServerState::Draining, since)
    } else {
        (state, provider.requested_at)
    }
}

/// Judged by its Node and our mark. The mark outranks a Node that is not Ready: our intent does not depend on it.
fn by_node(facts: &ServerFacts, provider: Option<&ProviderFacts>) -> (ServerState, Timestamp) {
    match (facts.draining_since, facts.node) {
        (_, None) => {
            let since = provider.map_or(Timestamp::default(), |provider| provider.requested_at);
            (ServerState::Gone, since)
        }
        (Some(since), Some(_)) => (ServerState::Draining, since),
        (None, Some(node)) if node.ready => (ServerState::Ready, node.ready_since),
        (None, Some(node)) => (ServerState::Suspect, node.ready_since),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD: Span = Span::from_minutes(5);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_millis(minutes * 60_000)
    }

    fn facts(state: Option<ProviderState>, node: Option<bool>, draining: bool) -> ServerFacts {
        ServerFacts {
            provider: state.map(|state| ProviderFacts {
                state,
                requested_at: at(0),
                ready_at: None,
            }),
            provider_known: true,
            always_on: state.is_none(),
            node: node.map(|ready| NodeFacts {
                ready,
                ready_since: at(6),
            }),
            draining_since: draining.then(|| at(9)),
            lead_time: LEAD,
        }
    }

    #[test]
    fn the_state_follows_from_the_facts() {
        use ProviderState as P;
        use ServerState as S;
        // provider, Node ready, draining, minutes after the request, expected
        let table = [
            (Some(P::Provisioning), None, false, 1, (S::Provisioning, at(0))),
            (Some(P::Booting), None, false, 4, (S::Booting, at(0))),
            (Some(P::Booting), Some(false), false, 4, (S::Booting, at(0))),
            (Some(P::Booting), Some(true), false, 7, (S::Ready, at(6))),
            (Some(P::Ready), None, false, 7, (S::Booting, at(0))),
            (Some(P::Ready), Some(true), false, 7, (S::Ready, at(6))),
            (Some(P::Ready), Some(false), false, 7, (S::Suspect, at(6))),
            (Some(P::Ready), Some(true), true, 10, (S::Draining, at(9))),
            (Some(P::Ready), Some(false), true, 10, (S::Draining, at(9))),
            (Some(P::Provisioning), Some(true), false, 24, (S::Ready, at(6))),
            (Some(P::Provisioning), None, false, 24, (S::Provisioning, at(0))),
            (Some(P::Provisioning), None, false, 25, (S::Failed, at(25))),
            (Some(P::Booting), Some(false), false, 26, (S::Failed, at(25))),
            (Some(P::Failed), Some(true), false, 3, (S::Failed, at(0))),
            (Some(P::Releasing), Some(true), true, 12, (S::Releasing, at(9))),
            (Some(P::Recycling), None, false, 100, (S::Recycling, at(0))),
            (None, Some(true), false, 7, (S::Ready, at(6))),
            (None, Some(false), false, 7, (S::Suspect, at(6))),
            (None, None, false, 7, (S::Gone, at(0))),
        ];
        for (state, node, draining, now, expected) in table {
            assert_eq!(
                server_state(&facts(state, node, draining), at(now)),
                expected,
                "{state:?}, Node {node:?}, draining {draining}, minute {now}"
            );
        }
    }

    #[test]
    fn a_silent_provider_fails_no_server() {
        let mut silent = facts(Some(ProviderState::Provisioning), None, false);
        silent.provider_known = false;
        assert_eq!(server_state(&silent, at(10_000)).0, ServerState::Provisioning);
    }

    #[test]
    fn a_recycling_host_is_unavailable_and_never_fails_by_time() {
        let recycling = facts(Some(ProviderState::Recycling), None, false);
        assert_eq!(server_state(&recycling, at(110)).0, ServerState::Recycling);
        assert!(!ServerState::Recycling.may_become(ServerState::Ready));
    }

    #[test]
    fn there_is_no_way_back_from_a_release() {
        use ServerState as S;
        for gone in [S::Releasing, S::Recycling, S::Gone] {
            for up in [S::Booting, S::Ready, S::Draining, S::Suspect] {
                assert!(!gone.may_become(up), "{gone:?} must not become {up:?}");
            }
        }
        for state in S::ALL {
            assert!(state.may_become(state), "{state:?} may stay");
        }
        let life = [
            S::Requested,
            S::Provisioning,
            S::Booting,
            S::Ready,
            S::Draining,
            S::Releasing,
            S::Recycling,
            S::Gone,
        ];
        for pair in life.windows(2) {
            assert!(pair[0].may_become(pair[1]), "{:?} to {:?}", pair[0], pair[1]);
        }
        assert!(S::Draining.may_become(S::Ready), "a drain may be called off");
        assert!(S::Suspect.may_become(S::Ready), "a suspect may recover");
    }
}
