//! The life of a server, of a replica, and the steps of a drain.

pub mod drain;
pub mod replica;
pub mod server;

pub use drain::{Drain, DrainFacts, DrainStep, FENCE_GRACE, Transition};
pub use replica::{ReplicaFacts, ReplicaState, replica_state};
pub use server::{NodeFacts, NodeHealth, ProviderFacts, ProviderState, ServerFacts, ServerState, server_state};
