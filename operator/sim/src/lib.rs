//! Simulation of Pomarium's reference engine, and what a simulation is fed with.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`trace`] | request traces: who arrives when, with how many tokens |
//! | [`world`] | requests, machines and time; the policy decides at every tick |
//! | [`policy`] | the peers' rules, and how they buy machines |
//! | [`steady`] | a fixed set of servers under steady traffic |
//! | [`sweep`] | many runs of one scenario: fronts, and the cheapest that attains |
//! | [`lengths`] | how long requests are, before any is simulated |
//! | [`setting`] | from declared objects to what is simulated |
//! | [`machines`] | leased, booting, loading, serving, draining, given back |
//! | [`Scrapes`] | what a gateway's metrics say, one tick late |
//! | [`score`] | attainment of every objective, per trace, window and hour |
//! | [`schedule`] | what happened to every machine, for third parties, and a check that it is possible |
//! | [`report`] | results as JSON, as a table, and as a page to look at |
//! | [`timeline`] | what happened in buckets of time, for reports |

mod backlog;
mod histogram;
pub mod lengths;
pub mod machines;
pub mod policy;
pub mod report;
pub mod schedule;
pub mod score;
mod scrape;
pub mod setting;
pub mod steady;
pub mod sweep;
pub mod timeline;
pub mod trace;
pub mod world;

pub use scrape::{Scrapes, Totals, Window};
