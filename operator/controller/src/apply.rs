//! Carries effects out.
