//! What is made to go wrong, by whom it is felt, and until when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machines::Market;

/// Names an injected fault.
pub type FaultId = u64;

/// Something that goes wrong, until it is cleared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// The machine is gone without a word: no heartbeat, no answer, connections stay open. It boots again when cleared.
    SilentDeath {
        /// The server.
        server: String,
    },
    /// The engine yields no token and answers its probes.
    Hang {
        /// The server.
        server: String,
    },
    /// Every iteration takes `factor` times as long.
    SlowTokens {
        /// The server.
        server: String,
        /// 2 is half the speed.
        factor: f64,
    },
    /// `/metrics` cannot be used.
    LostMetrics {
        /// The server.
        server: String,
        /// What it answers instead.
        answer: MetricsAnswer,
    },
    /// The Node says that it is not ready. Engines go on.
    NodeNotReady {
        /// The server.
        server: String,
    },
    /// Nothing is to be had.
    OutOfStock {
        /// The group.
        group: String,
    },
    /// Servers that are asked for now take `factor` times their lead time.
    LateProvisioning {
        /// The group.
        group: String,
        /// 2 is twice the time.
        factor: f64,
    },
    /// Servers that are asked for now will fail to boot.
    BootFailure {
        /// The group.
        group: String,
    },
}

/// What a broken `/metrics` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricsAnswer {
    /// 404.
    NotFound,
    /// Nothing, for ever.
    Hang,
    /// 200 and no text format.
    Garbage,
    /// 200 and 64 MiB of well-formed samples of something else.
    Huge,
}

/// What a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Server(&'a str),
    Group(&'a str),
}

impl Fault {
    pub(crate) fn target(&self) -> Target<'_> {
        match self {
            Self::SilentDeath { server }
            | Self::Hang { server }
            | Self::SlowTokens { server, .. }
            | Self::LostMetrics { server, .. }
            | Self::NodeNotReady { server } => Target::Server(server),
            Self::OutOfStock { group } | Self::LateProvisioning { group, .. } | Self::BootFailure { group } => {
                Target::Group(group)
            }
        }
    }
}

/// What one server suffers from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ailments {
    pub(crate) dead: bool,
    pub(crate) hangs: bool,
    /// Factor on every iteration's time.
    pub(crate) slowness: f64,
    pub(crate) metrics: Option<MetricsAnswer>,
    pub(crate) not_ready: bool,
}

impl Default for Ailments {
    fn default() -> Self {
        Self {
            dead: false,
            hangs: false,
            slowness: 1.0,
            metrics: None,
            not_ready: false,
        }
    }
}

/// The faults that are active now.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    last: FaultId,
    active: BTreeMap<FaultId, Fault>,
}

impl Faults {
    pub(crate) fn inject(&mut self, fault: Fault) -> FaultId {
        self.last += 1;
        self.active.insert(self.last, fault);
        self.last
    }

    /// False if there is none of that id.
    pub(crate) fn clear(&mut self, id: FaultId) -> bool {
        self.active.remove(&id).is_some()
    }

    pub(crate) fn active(&self) -> &BTreeMap<FaultId, Fault> {
        &self.active
    }

    pub(crate) fn ailments(&self, name: &str) -> Ailments {
        let mut ailments = Ailments::default();
        let mine = |fault: &&Fault| fault.target() == Target::Server(name);
        for fault in self.active.values().filter(mine) {
            match fault {
                Fault::SilentDeath { .. } => ailments.dead = true,
                Fault::Hang { .. } => ailments.hangs = true,
                Fault::SlowTokens { factor, .. } => ailments.slowness *= positive(*factor),
                Fault::LostMetrics { answer, .. } => ailments.metrics = Some(*answer),
                Fault::NodeNotReady { .. } => ailments.not_ready = true,
                Fault::OutOfStock { .. } | Fault::LateProvisioning { .. } | Fault::BootFailure { .. } => {}
            }
        }
        ailments
    }

    pub(crate) fn market(&self, name: &str) -> Market {
        let mut market = Market::default();
        let mine = |fault: &&Fault| fault.target() == Target::Group(name);
        for fault in self.active.values().filter(mine) {
            match fault {
                Fault::OutOfStock { .. } => market.out_of_stock = true,
                Fault::LateProvisioning { factor, .. } => market.lateness *= positive(*factor),
                Fault::BootFailure { .. } => market.boot_fails = true,
                Fault::SilentDeath { .. }
                | Fault::Hang { .. }
                | Fault::SlowTokens { .. }
                | Fault::LostMetrics { .. }
                | Fault::NodeNotReady { .. } => {}
            }
        }
        market
    }
}

fn positive(factor: f64) -> f64 {
    if factor.is_finite() && factor > 0.0 {
        factor
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_fault_is_felt_by_its_target_until_it_is_cleared() {
        let mut faults = Faults::default();
        let slow = faults.inject(serde_json::from_str(r#"{"kind":"SlowTokens","server":"a-0","factor":2.0}"#).unwrap());
        let slower = faults.inject(Fault::SlowTokens {
            server: "a-0".into(),
            factor: 1.5,
        });
        faults.inject(Fault::OutOfStock { group: "a".into() });
        assert!((faults.ailments("a-0").slowness - 3.0).abs() < 1e-9);
        assert_eq!(faults.ailments("a-1"), Ailments::default());
        assert!(faults.market("a").out_of_stock);
        assert_eq!(faults.market("b"), Market::default());
        assert!(faults.clear(slow) && faults.clear(slower) && !faults.clear(slower));
        assert_eq!(faults.ailments("a-0"), Ailments::default());
        assert_eq!(faults.active().len(), 1);
    }

    #[test]
    fn a_fault_with_a_typing_error_is_refused() {
        for text in [
            r#"{"kind":"Sleepy","server":"a-0"}"#,
            r#"{"kind":"Hang","group":"a"}"#,
            r#"{"kind":"LostMetrics","server":"a-0","answer":"Lost"}"#,
        ] {
            assert!(serde_json::from_str::<Fault>(text).is_err(), "{text}");
        }
    }
}
