//! Puts everything together.
