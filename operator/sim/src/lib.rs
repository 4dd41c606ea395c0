//! Simulation of Pomarium's reference engine, and what a simulation is fed with.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`trace`] | request traces: who arrives when, with how many tokens |

pub mod machines;
pub mod schedule;
pub mod score;
mod scrape;
pub mod trace;
pub mod world;

pub use scrape::{Scrapes, Window};
