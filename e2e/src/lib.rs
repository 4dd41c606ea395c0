//! Real control planes on one machine, and what the demo and the end-to-end tests run on them.
//!
//! # Layout
//! - [`cluster`]: etcd, API server, controller manager and scheduler as local processes, kubectl and Helm beside them
//! - [`operator_process`]: the `pomarium` binary, started, killed and measured as users run it
//! - [`wait`]: waiting for a condition with a bound, never for a guess
//! - [`watchdog`]: nothing outlives the process that started it

pub mod cluster;
pub mod operator_process;
pub mod wait;
pub mod watchdog;
