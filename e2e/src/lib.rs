//! Local control planes, the emulated fleet, the demo and the end-to-end tests of Pomarium.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`load`] | replays a trace as real HTTP streams |
//! | [`router`] | a small inference gateway with the discipline `LeastWork` |

pub mod load;
pub mod router;
