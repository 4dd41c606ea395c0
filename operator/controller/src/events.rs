//! Kubernetes events: once per decision.
