//! One leader at a time.
