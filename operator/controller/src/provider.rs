//! Who brings servers up and takes them down.
//!
//! A new provider is one file here, one variant of the API's `Provider`, and one line in [`Providers::of`].

mod poll;
mod scale;
mod simulated;
mod r#static;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use pomarium_api::group::ServerGroup;
use pomarium_kernel::names::{GroupName, ServerName};

use crate::clock::Clock;
use crate::member::{Hub, Members};
use crate::world::ProviderServer;

pub use poll::Inventories;

/// One group, as its provider is told about it.
#[derive(Clone, Debug)]
pub struct GroupCall {
    /// Its name.
    pub name: GroupName,
    /// The object.
    pub object: Arc<ServerGroup>,
    /// How many Nodes of it exist, for providers that only know a size.
    pub nodes: u32,
}

/// What a provider lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// All servers that exist or are on their way.
    pub servers: BTreeMap<ServerName, ProviderServer>,
    /// The size that its target is set to, if it has one.
    pub size: Option<u32>,
}

/// Why a provider did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It has no machine to give now.
    #[error("the provider has no machine to give: {0}")]
    OutOfStock(String),
    /// It refuses for a reason that time may heal.
    #[error("the provider refuses: {0}")]
    Refused(String),
    /// Something else writes what only Pomarium may write.
    #[error("something else writes the size: {0}")]
    ForeignWriter(String),
    /// What the spec names does not exist.
    #[error("the provider does not know it: {0}")]
    Missing(String),
    /// It cannot be reached, or does not answer as agreed.
    #[error("asking the provider: {0}")]
    Unavailable(String),
}

impl ProviderError {
    /// A stable word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::OutOfStock(_) => "out_of_stock",
            Self::Refused(_) => "refused",
            Self::ForeignWriter(_) => "foreign_writer",
            Self::Missing(_) => "missing",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// Brings up and takes down the servers of groups.
///
/// # Contract
/// - `list` is complete or an error: a server that is missing from it does not exist.
/// - `request` for a name that is listed already changes nothing, so that neither a crash nor a second operator buys twice.
/// - `release` of a server that is gone already changes nothing.
/// - Every call is bounded in time. No call is retried inside: the next pass asks again if it still wants to.
pub trait Provider: Send + Sync {
    /// All servers of a group.
    fn list<'a>(&'a self, group: &'a GroupCall) -> BoxFuture<'a, Result<Listed, ProviderError>>;

    /// Asks for `server`. `size` is the group's size with it. True if anything was done.
    fn request<'a>(
        &'a self,
        group: &'a GroupCall,
        server: &'a ServerName,
        size: u32,
    ) -> BoxFuture<'a, Result<bool, ProviderError>>;

    /// Gives `server` back. True if anything was done.
    fn release<'a>(
        &'a self,
        group: &'a GroupCall,
        server: &'a ServerName,
    ) -> BoxFuture<'a, Result<bool, ProviderError>>;

    /// Gives all servers back, for providers that cannot be told which. True if anything was done.
    fn empty<'a>(&'a self, group: &'a GroupCall) -> BoxFuture<'a, Result<bool, ProviderError>>;
}

/// All providers.
#[derive(Clone)]
pub struct Providers {
    r#static: Arc<r#static::Static>,
    simulated: Arc<simulated::Simulated>,
    scale: Arc<scale::Scale>,
}

impl Providers {
    /// Providers that reach the emulated fleet at `fleet_url`, if there is one.
    pub fn new(hub: Hub, members: Members, fleet_url: Option<String>, clock: Clock) -> Self {
        Self {
            r#static: Arc::new(r#static::Static),
            simulated: Arc::new(simulated::Simulated::new(fleet_url)),
            scale: Arc::new(scale::Scale::new(hub, members, clock)),
        }
    }

    /// The provider that a group names.
    pub fn of(&self, group: &ServerGroup) -> Arc<dyn Provider> {
        let provider = &group.spec.provider;
        if provider.simulated.is_some() {
            Arc::clone(&self.simulated) as Arc<dyn Provider>
        } else if provider.scale.is_some() {
            Arc::clone(&self.scale) as Arc<dyn Provider>
        } else {
            Arc::clone(&self.r#static) as Arc<dyn Provider>
        }
    }
}
