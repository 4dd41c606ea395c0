//! Says what was done, and why.
