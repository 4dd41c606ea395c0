//! The emulated fleet: the lessor's API and the switch of owned machines, by HTTP (see `docs/interfaces.md`).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use pomarium_kernel::names::ServerName;
use pomarium_kernel::time::Timestamp;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::{GroupCall, Listed, Provider, ProviderError};
use crate::fetch::{self, Bounds};
use crate::world::{ProviderServer, ProviderState};

const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(3),
    bytes: 4 * 1024 * 1024,
};

pub(super) struct Simulated {
    url: Option<String>,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Answer {
    servers: Vec<Server>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    name: String,
    state: ProviderState,
    requested_at: Timestamp,
    ready_at: Option<Timestamp>,
    lease_start: Option<Timestamp>,
    minimum_until: Option<Timestamp>,
    available_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Refusal {
    reason: String,
    #[serde(default)]
    message: String,
}

impl Simulated {
    pub(super) fn new(url: Option<String>) -> Self {
        Self {
            url: url.map(|url| url.trim_end_matches('/').to_owned()),
            http: fetch::client(),
        }
    }

    async fn call(&self, method: Method, path: String) -> Result<(StatusCode, String), ProviderError> {
        let Some(url) = &self.url else {
            return Err(ProviderError::Unavailable(
                "the operator was started without --fleet-url".to_owned(),
            ));
        };
        fetch::send(&self.http, method, &format!("{url}/v1/groups/{path}"), BOUNDS)
            .await
            .map_err(|error| ProviderError::Unavailable(error.to_string()))
    }
}

impl Provider for Simulated {
    fn list<'a>(&'a self, group: &'a GroupCall) -> BoxFuture<'a, Result<Listed, ProviderError>> {
        async move {
            let (status, body) = self.call(Method::GET, format!("{}/servers", group.name)).await?;
            if !status.is_success() {
                return Err(refusal(status, &body));
            }
            // A list with one strange element is not a complete list.
            let answer: Answer =
                serde_json::from_str(&body).map_err(|error| ProviderError::Unavailable(error.to_string()))?;
            let servers: BTreeMap<ServerName, ProviderServer> = answer.servers.into_iter().map(convert).collect();
            Ok(Listed { servers, size: None })
        }
        .boxed()
    }

    fn request<'a>(
        &'a self,
        group: &'a GroupCall,
        server: &'a ServerName,
        _: u32,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        async move {
            let path = format!("{}/servers/{server}", group.name);
            match self.call(Method::PUT, path).await? {
                (StatusCode::CREATED, _) => Ok(true),
                (StatusCode::OK, _) => Ok(false),
                (status, body) => Err(refusal(status, &body)),
            }
        }
        .boxed()
    }

    fn release<'a>(
        &'a self,
        group: &'a GroupCall,
        server: &'a ServerName,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        async move {
            let path = format!("{}/servers/{server}", group.name);
            match self.call(Method::DELETE, path).await? {
                (StatusCode::ACCEPTED, _) => Ok(true),
                (StatusCode::OK | StatusCode::NOT_FOUND, _) => Ok(false),
                (status, body) => Err(refusal(status, &body)),
            }
        }
        .boxed()
    }

    fn empty<'a>(&'a self, _: &'a GroupCall) -> BoxFuture<'a, Result<bool, ProviderError>> {
        // It can be told which servers to take, so it is never asked for all of them.
        futures::future::ready(Ok(false)).boxed()
    }
}

fn convert(server: Server) -> (ServerName, ProviderServer) {
    let Server {
        name,
        state,
        requested_at,
        ready_at,
        lease_start,
        minimum_until,
        available_at,
    } = server;
    let converted = ProviderServer {
        state,
        requested_at,
        ready_at,
        lease_start,
        minimum_until,
        available_at,
    };
    (ServerName::new(name), converted)
}

fn refusal(status: StatusCode, body: &str) -> ProviderError {
    let refusal: Option<Refusal> = serde_json::from_str(body).ok();
    match (status, refusal) {
        (StatusCode::CONFLICT, Some(refusal)) => {
            let message = format!("{}: {}", refusal.reason, refusal.message);
            match refusal.reason.as_str() {
                // A machine that is being cleaned or a group at its most is no more to be had than an empty shelf.
                "OutOfStock" | "AtMaximum" | "Recycling" => ProviderError::OutOfStock(message),
                _ => ProviderError::Refused(message),
            }
        }
        (StatusCode::NOT_FOUND, _) => ProviderError::Missing("the fleet has no such group".to_owned()),
        (status, _) => ProviderError::Unavailable(format!("the fleet answered {status}")),
    }
}
