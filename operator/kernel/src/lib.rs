//! The decision core of Pomarium.
//!
//! Pure: everything it knows comes in as arguments, `now` included, and everything that it wants done goes out as
//! values. No Kubernetes, no async runtime, no clock, no environment, no I/O. The same input gives the same bytes.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`time`], [`units`], [`names`] | values with units, and the names of things |
//! | [`catalogue`] | what is known about Apple-silicon machines, with sources |
//! | [`performance`] | a machine's step times for one model: from the catalogue or measured |
//! | [`engine`] | the reference engine, one iteration at a time |
//! | [`capacity`] | what servers sustain for a pool's traffic while every objective holds |
//! | [`forecast`] | what will arrive, as quantiles, from what arrived |
//! | [`feasibility`] | which pool may run where: trust, residency, permitted use, memory, objectives |
//! | [`snapshot`] | everything that one pass has seen |
//! | [`planning`] | from a snapshot to a plan |
//! | [`strategy`] | which servers to lease, wake and give back over the next 36 hours |
//! | [`plan`] | what a pass wants done, with the reason for each thing |
//! | [`lifecycle`] | the states of servers and replicas, and the steps of a drain |
//! | [`calendar`] | recurring windows of wall-clock time |
//! | [`random`] | pseudo-random numbers for simulations |
//! | [`reason`] | the closed list of reasons |

pub mod calendar;
pub mod capacity;
pub mod catalogue;
pub mod engine;
pub mod feasibility;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod forecast;
pub mod lifecycle;
pub mod names;
pub mod performance;
pub mod plan;
pub mod planning;
pub mod random;
pub mod reason;
pub mod snapshot;
pub mod spending;
pub mod strategy;
pub mod time;
pub mod units;
pub mod work;
