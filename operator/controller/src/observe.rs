//! From the world to the kernel's snapshot.
