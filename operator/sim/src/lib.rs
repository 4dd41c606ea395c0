//! Simulation of Pomarium's reference engine, and what a simulation is fed with.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`trace`] | request traces: who arrives when, with how many tokens |
//! | [`world`] | requests, machines and time; the policy decides at every tick |
//! | [`machines`] | leased, booting, loading, serving, draining, given back |
//! | [`Scrapes`] | what a gateway's metrics say, one tick late |
//! | [`score`] | attainment of every objective, per trace, window and hour |
//! | [`schedule`] | what happened to every machine, for third parties |

pub mod machines;
pub mod schedule;
pub mod score;
mod scrape;
pub mod trace;
pub mod world;

pub use scrape::{Scrapes, Window};
