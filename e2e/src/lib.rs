//! Real control planes on one machine, and what the demo and the end-to-end tests run on them.
//!
//! # Layout
//! - [`chart`]: installs the Helm chart, for the rights that everything here runs with
//! - [`cluster`]: etcd, API server, controller manager and scheduler as local processes, kubectl and Helm beside them
//! - [`operator_process`]: the `pomarium` binary, started, killed and measured as users run it
//! - [`host`], [`readiness`]: what the machine, and the conditions of Pods and Nodes, say
//! - [`time`]: the compressed time that all of them share
//! - [`wait`]: waiting for a condition with a bound, never for a guess
//! - [`watchdog`]: nothing outlives the process that started it
//! - [`fleet`]: emulated Macs: Nodes, Pods, model servers with real HTTP and the engines' metrics, faults on demand
//! - [`router`]: a small inference gateway with the discipline `LeastWork`
//! - [`load`]: replays a trace as real HTTP streams
//! - [`view`]: what the demo shows while it runs
//! - [`demo`]: all of it together, for people to watch
//! - [`summary`]: what a run of the demo came to

pub mod chart;
pub mod cluster;
pub mod demo;
pub mod fleet;
pub mod host;
pub mod load;
pub mod operator_process;
pub mod readiness;
pub mod router;
pub mod summary;
pub mod time;
pub mod view;
pub mod wait;
pub mod watchdog;
