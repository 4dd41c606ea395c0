//! Simulation of Pomarium's reference engine, and what a simulation is fed with.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`trace`] | request traces: who arrives when, with how many tokens |

pub mod trace;
