//! Watches, projected into small caches.
