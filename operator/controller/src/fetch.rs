//! HTTP requests to engines, gateways, providers and Prometheus: bounded in time and size, and never led elsewhere.

use std::time::Duration;

use reqwest::{Method, StatusCode};

/// What one answer may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From the first byte sent to the last one read, in real time.
    pub(crate) time: Duration,
    /// Of the body.
    pub(crate) bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// It took too long.
    #[error("no answer within {0:?}")]
    Slow(Duration),
    /// It was too much.
    #[error("an answer of more than {0} bytes")]
    Huge(usize),
    /// Nobody answered, or not in HTTP.
    #[error("no answer: {0}")]
    Unreachable(String),
}

/// A client that follows no redirects and uses no proxies: an address is asked, and no other.
pub(crate) fn client() -> reqwest::Client {
    // The first one to ask installs the cryptography; later calls change nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(Duration::from_secs(3))
        .pool_max_idle_per_host(2)
        .build()
        .unwrap_or_default()
}

/// One request without a body.
pub(crate) async fn send(
    http: &reqwest::Client,
    method: Method,
    url: &str,
    bounds: Bounds,
) -> Result<(StatusCode, String), FetchError> {
    let exchange = async {
        let unreachable = |error: reqwest::Error| FetchError::Unreachable(root_cause(&error));
        let mut answer = http.request(method, url).send().await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > bounds.bytes {
                return Err(FetchError::Huge(bounds.bytes));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((answer.status(), String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(bounds.time, exchange)
        .await
        .unwrap_or(Err(FetchError::Slow(bounds.time)))
}

/// The innermost error: "connection refused" rather than "error sending request".
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
