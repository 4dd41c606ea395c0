//! What a plan means for API objects and providers, as values.
