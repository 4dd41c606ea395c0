//! Where a pool may run, and what is filled first.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Selector;
use crate::schema;
use crate::site::Trust;

/// Where a pool may run. Trust and residency fail closed: rather queue than serve in the wrong place.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// What is filled first. `OwnedFirst`: owned machines, then managed, then hosted ones, and back in reverse. `Cheapest`: by
    /// marginal cost. Default: `OwnedFirst`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<PlacementOrder>")]
    pub order: Option<PlacementOrder>,
    /// A site must serve at least one of these jurisdictions, given as ISO 3166 codes; at most 32. Example: `[US]`. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::jurisdictions")]
    pub residency: Vec<String>,
    /// The least that a site and its servers must prove: `None`, `Verified` or `Attested`. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Trust>")]
    pub minimum_trust: Option<Trust>,
    /// Labels that a ServerGroup must carry. Default: any group will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_selector: Option<Selector>,
    /// Objectives hold with any one of these gone: `None`, `Server` or `Site`. The last two need `replicas.max` of at least 2.
    /// Default: Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Survive>")]
    pub survive_loss_of: Option<Survive>,
}

/// What is filled first.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum PlacementOrder {
    /// Owned, then managed, then hosted; contracting in reverse.
    #[default]
    OwnedFirst,
    /// By marginal cost.
    Cheapest,
}

/// What may be lost.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum Survive {
    /// Nothing.
    None,
    /// Any one server.
    #[default]
    Server,
    /// Any one site.
    Site,
}
