//! Local control planes, the emulated fleet, the demo and the end-to-end tests of Pomarium.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`load`] | replays a trace as real HTTP streams |
//! | [`router`] | a small inference gateway with the discipline `LeastWork` |
//! | [`summary`] | what a run of the demo came to |
//! | [`view`] | what the demo shows while it runs |

pub mod load;
pub mod router;
pub mod summary;
pub mod view;
