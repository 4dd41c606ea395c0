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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use axum::Router;
    use axum::routing::any;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::world;

    async fn fleet(code: u16, body: Value) -> Simulated {
        let status = StatusCode::from_u16(code).unwrap();
        let app = Router::new().route(
            "/v1/groups/{*rest}",
            any(move || async move { (status, axum::Json(body)) }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Simulated::new(Some(url))
    }

    fn hosted() -> GroupCall {
        GroupCall {
            name: "hosted".into(),
            object: Arc::clone(&world().groups["hosted"]),
            nodes: 0,
        }
    }

    #[tokio::test]
    async fn a_list_is_complete_or_an_error() {
        let server = json!({"name": "hosted-0", "state": "Booting", "requestedAt": "2027-01-15T08:00:00.250Z",
            "leaseStart": "2027-01-15T08:00:00.250Z", "minimumUntil": "2027-01-16T08:00:00.250Z", "node": "hosted-0"});
        let listed = fleet(200, json!({"servers": [server]}))
            .await
            .list(&hosted())
            .await
            .unwrap();
        let seen = &listed.servers["hosted-0"];
        assert_eq!((seen.state, seen.ready_at), (ProviderState::Booting, None));
        assert_eq!(seen.minimum_until, Timestamp::parse("2027-01-16T08:00:00.250Z"));

        for (code, body) in [
            (200, json!({"servers": [server, {"name": "strange"}]})),
            (200, json!([])),
            (404, json!({})),
            (500, json!({"servers": []})),
        ] {
            let answer = fleet(code, body.clone()).await.list(&hosted()).await;
            assert!(answer.is_err(), "{code} {body}");
        }
        assert!(Simulated::new(None).list(&hosted()).await.is_err());
    }

    #[tokio::test]
    async fn asking_twice_is_harmless_and_refusals_keep_their_reason() {
        let refusal = |reason: &str| json!({"reason": reason, "message": "no"});
        let server: ServerName = "hosted-0".into();
        let ask = async |code, body| fleet(code, body).await.request(&hosted(), &server, 1).await;
        assert_eq!(ask(201, json!({})).await, Ok(true));
        assert_eq!(ask(200, json!({})).await, Ok(false));
        for reason in ["OutOfStock", "Recycling", "AtMaximum"] {
            let answer = ask(409, refusal(reason)).await;
            assert!(
                matches!(&answer, Err(ProviderError::OutOfStock(message)) if message.contains(reason)),
                "{answer:?}"
            );
        }
        assert!(matches!(
            ask(409, refusal("MinimumLease")).await,
            Err(ProviderError::Refused(_))
        ));

        let give_back = async |code| fleet(code, json!({})).await.release(&hosted(), &server).await;
        assert_eq!(give_back(202).await, Ok(true));
        assert_eq!((give_back(200).await, give_back(404).await), (Ok(false), Ok(false)));
        assert!(give_back(500).await.is_err());
    }
}
