//! Nodes that exist. There is nothing to bring up and nothing to take down.

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use pomarium_kernel::names::ServerName;

use super::{GroupCall, Listed, Provider, ProviderError};

pub(super) struct Static;

impl Provider for Static {
    /// Nothing beyond the Nodes that the site shows.
    fn list<'a>(&'a self, _: &'a GroupCall) -> BoxFuture<'a, Result<Listed, ProviderError>> {
        ready(Ok(Listed::default())).boxed()
    }

    fn request<'a>(
        &'a self,
        group: &'a GroupCall,
        _: &'a ServerName,
        _: u32,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        let message = format!("{} has the machines that it has", group.name);
        ready(Err(ProviderError::Refused(message))).boxed()
    }

    fn release<'a>(&'a self, _: &'a GroupCall, _: &'a ServerName) -> BoxFuture<'a, Result<bool, ProviderError>> {
        ready(Ok(false)).boxed()
    }

    fn empty<'a>(&'a self, _: &'a GroupCall) -> BoxFuture<'a, Result<bool, ProviderError>> {
        ready(Ok(false)).boxed()
    }
}
