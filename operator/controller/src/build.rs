//! From a plan to effects: pure.
