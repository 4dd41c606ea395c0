//! Who brings servers up and takes them down.
