//! The controller of Pomarium: one loop that observes, plans and acts, for all pools, groups and sites together.
//!
//! ```text
//! observe ──► validate ──► plan ──► build ──► apply ──► status
//!  caches       pure        pure     pure      I/O       I/O
//! ```
//!
//! One pass handles all objects, because budgets, groups and power limits are shared between them. A pass never waits
//! for a slow network: watches fill stores, and background tasks poll engines, gateways and providers; the pass reads
//! their last answers with their age. Only `apply` and `status` talk to API servers, each site in its own bounded task.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`run`] | puts everything together; the only place that knows all parts |
//! | [`clock`] | real and compressed time |
//! | [`latest`] | the last answers of background tasks, and how they wake the loop |
//! | [`kubeconfig`] | which kubeconfigs are accepted |
//! | [`client`] | API clients: time-outs, rate limits, and the gate that only a leader's writes pass |
//! | [`member`] | the hub and the member clusters, and whether they answer |
//! | [`store`] | watches, projected into small caches |
//! | [`world`] | what has been seen, as one value per pass |
//! | [`observe`] | from the world to the kernel's snapshot |
//! | [`pass`] | the loop |
//! | [`effect`], [`build`] | what a plan means for API objects and providers, as values |
//! | [`apply`] | carries effects out |
//! | [`status`], [`events`] | says what was done, and why |
//! | [`provider`] | who brings servers up and takes them down |
//! | [`measure`] | arrivals, latencies and loads, from gateways, engines or Prometheus |
//! | `history` | what outlives this process: each pool's past, and the last strategic plan |
//! | [`strategist`] | plans ahead beside the loop |
//! | [`route`] | weights in HTTPRoutes |
//! | [`leader`] | one leader at a time |
//! | [`export`] | a decision with everything that it was made from |
//! | [`telemetry`], [`health`] | metrics and probes |

pub mod apply;
pub mod build;
pub mod client;
pub mod clock;
pub mod effect;
pub mod events;
pub mod export;
pub(crate) mod fetch;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod health;
pub(crate) mod history;
pub mod kubeconfig;
pub mod latest;
pub mod leader;
pub mod measure;
pub mod member;
pub mod observe;
pub mod pass;
pub mod provider;
pub mod route;
pub mod run;
pub mod status;
pub mod store;
pub mod strategist;
pub mod telemetry;
pub mod world;
