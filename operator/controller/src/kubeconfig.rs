//! Which kubeconfigs are accepted.
