//! Local control planes, the emulated fleet, the demo and the end-to-end tests of Pomarium.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`router`] | a small inference gateway with the discipline `LeastWork` |

pub mod router;
