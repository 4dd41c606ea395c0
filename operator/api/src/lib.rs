//! The custom resources of Pomarium (`pomarium.dev/v1alpha1`) and their conversion to kernel types.
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`pool`] | `ServerPool`: the demand side |
//! | [`group`] | `ServerGroup`: the supply side |
//! | [`site`] | `ServerSite`: a member cluster |
//! | [`plan`] | `ServerPlan`: what is about to be done, and why |
//! | [`common`] | types that several kinds share |
//! | [`duration`] | spans of time, as Kubernetes writes them |
//! | [`crds`] | the definitions of all kinds |
//! | [`labels`] | labels, annotations and taints on Nodes and Pods |
//! | [`limits`] | longest texts in statuses |
//! | [`validate`] | from API objects to kernel types: after it, no code looks at an API object to decide anything |

// The derive macros of kube and schemars put their helpers into blocks of their own.
#![allow(unreachable_pub)]

pub mod common;
pub mod crds;
pub mod duration;
pub mod group;
pub mod labels;
pub mod limits;
pub mod plan;
pub mod pool;
mod schema;
pub mod site;
pub mod validate;
