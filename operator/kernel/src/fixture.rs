//! Snapshots for tests: builders on the real types, and a small pure world that plays what a plan asks for.
//!
//! Not part of the API of the kernel: only there for its own tests, and for other crates that ask for the feature `fixture`.

mod foresight;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use foresight::Daily;
pub use stage::Stage;

use crate::lifecycle::{NodeHealth, ServerState};
use crate::names::{GroupName, Jurisdiction, PoolId, ServerName, SiteName};
use crate::reason::{Problem, Reason};
use crate::snapshot::{
    Approved, Arrivals, Contact, Delivery, Demand, Discipline, Disruption, DrainPolicy, Energy, Group, GroupMemory,
    Inventory, LeadTime, LengthMix, MachineKey, Maintenance, Measured, MeasuredPerformance, Metric, Mode, Model,
    Objective, OnDeadline, Ownership, Placement, PlacementOrder, Pool, PoolMemory, Power, Pricing, ProviderTraits,
    ReplicaRange, Server, Site, SizeRange, Survive, Trust, Use,
};
use crate::time::{Span, Timestamp};
use crate::units::{Fraction, Money, Rate};

/// Where fixtures begin: Monday, 2 March 2026, 09:00 UTC.
pub const START: Timestamp = Timestamp::from_millis(1_772_442_000_000);

impl Site {
    /// An attested site in the US that answers, with free electricity.
    pub fn fixture(ownership: Ownership) -> Self {
        Self {
            ownership,
            residency: BTreeSet::from([Jurisdiction::new("US")]),
            trust: Trust::Attested,
            permitted_use: Use::Production,
            energy: Energy {
                price_per_kwh: Money::ZERO,
                pue: 1.0,
                power_limit_watts: None,
            },
            maintenance: Maintenance::Active,
            contact: Contact::Reachable,
            problem: None,
            paused: false,
        }
    }

    /// The same, which does not answer since `since`.
    #[must_use]
    pub fn lost(mut self, since: Timestamp) -> Self {
        self.contact = Contact::Lost {
            since,
            message: "connection refused".to_owned(),
        };
        self
    }
}

impl Group {
    /// Own M2 Ultras that are always on and cost nothing: `servers` of them, all Ready for long.
    pub fn owned(site: &str, name: &str, servers: u32) -> Self {
        let inventory = (0..servers)
            .map(|ordinal| {
                (
                    ServerName::new(format!("{name}-{ordinal}")),
                    Server::fixture(START - Span::from_hours(24)),
                )
            })
            .collect();
        Self {
            site: site.into(),
            machine: machine("M2 Ultra", 76, 192),
            labels: BTreeMap::new(),
            size: SizeRange { min: 0, max: servers },
            deliveries: Vec::new(),
            provider: ProviderTraits {
                grows: false,
                releases_chosen: false,
                always_on: true,
            },
            power: Power {
                idle_watts: 10.0,
                busy_watts: 295.0,
            },
            pricing: Pricing {
                hourly: Money::ZERO,
                minimum_lease: Span::ZERO,
            },
            lead_time: LeadTime {
                provision: Span::ZERO,
                recycle: Span::ZERO,
            },
            disruption: Disruption {
                max_unavailable: 1,
                window_open: true,
            },
            mode: Mode::Auto,
            approved: Approved::default(),
            inventory: Inventory::Known(inventory),
            out_of_stock_since: None,
            memory: GroupMemory::default(),
            problem: None,
            overlap: None,
            paused: false,
            deleting: false,
        }
    }

    /// M4 Pros to lease, none yet: 15 minutes to come, 1.97 an hour, 24 hours at least.
    pub fn hosted(site: &str, max: u32) -> Self {
        Self {
            machine: machine("M4 Pro", 20, 64),
            size: SizeRange { min: 0, max },
            provider: ProviderTraits {
                grows: true,
                releases_chosen: true,
                always_on: false,
            },
            power: Power {
                idle_watts: 5.0,
                busy_watts: 65.0,
            },
            pricing: Pricing {
                hourly: Money::from_micros(1_970_000),
                minimum_lease: Span::from_hours(24),
            },
            lead_time: LeadTime {
                provision: Span::from_minutes(15),
                recycle: Span::from_minutes(110),
            },
            ..Self::owned(site, "", 0)
        }
    }

    /// The same with another minimum lease.
    #[must_use]
    pub fn minimum_lease(mut self, span: Span) -> Self {
        self.pricing.minimum_lease = span;
        self
    }

    /// The same with a delivery.
    #[must_use]
    pub fn delivery(mut self, at: Timestamp, servers: u32) -> Self {
        self.deliveries.push(Delivery { at, servers });
        self
    }

    /// The servers, to be changed. Makes the inventory known.
    pub fn servers_mut(&mut self) -> &mut BTreeMap<ServerName, Server> {
        if let Inventory::Unknown { last, .. } = &mut self.inventory {
            self.inventory = Inventory::Known(std::mem::take(last));
        }
        match &mut self.inventory {
            Inventory::Known(servers) | Inventory::Unknown { last: servers, .. } => servers,
        }
    }
}

/// A key of the catalogue.
pub fn machine(chip: &str, gpu_cores: u32, memory_gib: u32) -> MachineKey {
    MachineKey {
        chip: chip.to_owned(),
        gpu_cores,
        memory_gib,
    }
}

impl Server {
    /// A Ready and attested server.
    pub fn fixture(since: Timestamp) -> Self {
        Self {
            state: ServerState::Ready,
            since,
            node: NodeHealth::Ready,
            lease: None,
            cordoned: false,
            held: false,
            proven: Trust::Attested,
        }
    }
}

impl Pool {
    /// An 8B chat model behind an endpoint picker: p95 TTFT 10 s, p95 ITL 200 ms, one to forty replicas, no spare.
    ///
    /// One M2 Ultra sustains about half a request per second, one M4 Pro about a fifth.
    pub fn fixture() -> Self {
        Self {
            usage: Use::Production,
            model: Model {
                name: "llama-3.1-8b-instruct".to_owned(),
                quantization: "Q4_K_M".to_owned(),
                parameters_billions: 8.0,
                active_parameters_billions: 8.0,
                weights_gib: 4.9,
                context_tokens: 16_384,
                kv_bytes_per_token: 131_072,
            },
            objectives: vec![
                objective(Metric::TimeToFirstToken, Span::from_secs(10)),
                objective(Metric::InterTokenLatency, Span::from_millis(250)),
            ],
            miss_penalty: Money::ZERO,
            budget: None,
            degrade_order: 0,
            priority: 0,
            placement: Placement {
                order: PlacementOrder::OwnedFirst,
                residency: BTreeSet::new(),
                minimum_trust: Trust::None,
                group_labels: BTreeMap::new(),
                survive_loss_of: Survive::None,
            },
            replicas: ReplicaRange { min: 1, max: 40 },
            drain: DrainPolicy {
                timeout: Span::from_minutes(15),
                on_deadline: OnDeadline::Keep,
            },
            mode: Mode::Auto,
            approved: BTreeSet::new(),
            discipline: Discipline::LeastWork,
            performance: vec![
                measured_performance("M2 Ultra", 76, [10.2, 2.5, 1.0]),
                measured_performance("M4 Pro", 20, [18.4, 4.6, 2.3]),
            ],
            revision: "r1".into(),
            namespace_at: BTreeSet::new(),
            routable_at: None,
            demand: Demand::Unknown {
                since: START,
                problem: Problem::new(Reason::Starting, "nothing has been measured yet"),
                at_least: None,
            },
            measured: vec![Measured::ModelOnly, Measured::ModelOnly],
            engines: BTreeMap::new(),
            running: BTreeMap::new(),
            events: Vec::new(),
            past: Arc::default(),
            memory: PoolMemory::default(),
            paused: false,
            deleting: false,
        }
    }

    /// The same, that has to survive a loss.
    #[must_use]
    pub fn surviving(mut self, loss: Survive) -> Self {
        self.placement.survive_loss_of = loss;
        self
    }

    /// The same with other bounds.
    #[must_use]
    pub fn replicas(mut self, min: u32, max: u32) -> Self {
        self.replicas = ReplicaRange { min, max };
        self
    }

    /// The same with `per_second` requests per second, measured at `at`.
    #[must_use]
    pub fn demanding(mut self, per_second: f64, at: Timestamp) -> Self {
        self.demand = demand(per_second, at);
        self
    }
}

/// Arrivals at `per_second`, with the lengths of recorded conversations.
pub fn demand(per_second: f64, at: Timestamp) -> Demand {
    Demand::Known(Arrivals {
        rate_1m: Rate::per_second(per_second),
        rate_5m: Rate::per_second(per_second),
        lengths: Some(LengthMix::assumed().clone()),
        at,
    })
}

/// A measured objective at `value_ms`.
pub fn measured(value_ms: f64, attained: f64, at: Timestamp) -> Measured {
    Measured::Known {
        value_ms,
        attained: Fraction::new(attained),
        samples: 500,
        at,
    }
}

fn objective(metric: Metric, threshold: Span) -> Objective {
    Objective {
        metric,
        percentile: Fraction::new(0.95),
        threshold,
        window: Span::from_hours(24),
    }
}

fn measured_performance(chip: &str, gpu_cores: u32, [alpha, beta, delta]: [f64; 3]) -> MeasuredPerformance {
    MeasuredPerformance {
        chip: chip.to_owned(),
        gpu_cores,
        memory_gib: None,
        alpha_ms: Some(alpha),
        beta_ms: Some(beta),
        delta_ms: Some(delta),
        kv_tokens: Some(200_000),
        max_batch: Some(16),
        prefill_chunk: Some(256),
        load_time: Some(Span::from_secs(30)),
    }
}

/// The pool `assistants/{name}`.
pub fn pool_id(name: &str) -> PoolId {
    PoolId::new("assistants", name)
}

/// An owned site `cupertino` with `owned` M2 Ultras, and a hosted site `lease` where up to `hosted` M4 Pros can be leased.
pub fn hybrid(owned: u32, hosted: u32) -> Stage {
    Stage::new(START)
        .site("cupertino", Site::fixture(Ownership::Owned))
        .site("lease", Site::fixture(Ownership::Hosted))
        .group("ultra", Group::owned("cupertino", "ultra", owned))
        .group("m4", Group::hosted("lease", hosted))
}

/// The names of things, from text.
pub fn group(name: &str) -> GroupName {
    name.into()
}

/// A site's name, from text.
pub fn site(name: &str) -> SiteName {
    name.into()
}
