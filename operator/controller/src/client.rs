//! API clients.
