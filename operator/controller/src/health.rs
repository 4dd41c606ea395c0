//! Probes: `/healthz`, `/readyz` and, on their own address, `/metrics` and `/debug/snapshot`.
//!
//! What `/debug` tells goes beyond figures: it is for people who may forward a port, and answers callers from this very machine only, as
//! `kubectl port-forward` is one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::time::Instant;

use crate::export::Exporter;
use crate::telemetry::Telemetry;

/// A loop that has not begun a turn for this long is stuck, and a restart helps.
const STUCK: Duration = Duration::from_secs(300);

/// A plan is made at most once a minute, and may take a while.
const DECISION: Duration = Duration::from_secs(120);

/// What must be true before this replica counts as ready, in the order in which it becomes true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The custom resources are installed.
    Crds,
    /// The hub's objects have been listed.
    Caches,
    /// Every site was reached or given up on for the moment.
    Members,
    /// This replica leads, or stands by for one that does.
    Election,
    /// A pass has been carried out; a standby replica has nothing to do and passes.
    FirstPass,
}

impl Check {
    const ALL: [Self; 5] = [Self::Crds, Self::Caches, Self::Members, Self::Election, Self::FirstPass];

    const fn name(self) -> &'static str {
        match self {
            Self::Crds => "crds",
            Self::Caches => "caches",
            Self::Members => "members",
            Self::Election => "leader-election",
            Self::FirstPass => "first-pass",
        }
    }
}

/// The state of all checks. Clones share it.
#[derive(Clone, Default)]
pub struct Health {
    passed: Arc<[AtomicBool; Check::ALL.len()]>,
    alive: Arc<Mutex<Option<Instant>>>,
}

impl Health {
    /// Says whether `check` passes.
    pub fn set(&self, check: Check, passes: bool) {
        self.passed[check as usize].store(passes, Ordering::Relaxed);
    }

    /// Says that the loop turns.
    pub fn beat(&self) {
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the loop turns, or has not started.
    fn is_alive(&self) -> bool {
        let alive = *self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.is_none_or(|beat| beat.elapsed() < STUCK)
    }

    /// Whether all checks pass, and the list of them.
    fn report(&self) -> (bool, String) {
        let mut ready = true;
        let mut text = String::new();
        for check in Check::ALL {
            let passes = self.passed[check as usize].load(Ordering::Relaxed);
            ready &= passes;
            let (mark, word) = if passes { ("+", "ok") } else { ("-", "not yet") };
            text.extend(["[", mark, "]", check.name(), " ", word, "\n"]);
        }
        (ready, text)
    }
}

/// Serves the probes on `address` until the process ends.
pub async fn serve_probes(address: SocketAddr, health: Health) -> std::io::Result<()> {
    let healthz = |State(health): State<Health>| async move {
        if health.is_alive() {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the loop does not turn\n")
        }
    };
    let readyz = |State(health): State<Health>| async move {
        let (ready, text) = health.report();
        let code = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (code, text)
    };
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health);
    axum::serve(tokio::net::TcpListener::bind(address).await?, router).await
}

/// Serves the metrics, and decisions to be planned again, on `address` until the process ends.
pub async fn serve_metrics(address: SocketAddr, telemetry: Telemetry, exporter: Exporter) -> std::io::Result<()> {
    let metrics = |State(telemetry): State<Telemetry>| async move {
        match telemetry.text() {
            Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    };
    let debug = Router::new()
        .route("/debug/snapshot", get(snapshot))
        .with_state(exporter);
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(telemetry)
        .merge(debug)
        .into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(tokio::net::TcpListener::bind(address).await?, router).await
}

/// The next strategic plan and the pass that follows it, with what they were made from.
async fn snapshot(ConnectInfo(caller): ConnectInfo<SocketAddr>, State(exporter): State<Exporter>) -> Response {
    if !caller.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "only for callers on this machine\n").into_response();
    }
    match tokio::time::timeout(DECISION, exporter.next()).await {
        Ok(Some(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "this replica does not lead\n").into_response(),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "nothing was planned in time\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_check_passes_and_names_the_ones_that_do_not() {
        let health = Health::default();
        for check in Check::ALL {
            let (ready, text) = health.report();
            assert!(!ready, "{text}");
            assert!(text.contains(&format!("[-]{} not yet", check.name())), "{text}");
            health.set(check, true);
        }
        let (ready, text) = health.report();
        assert!(ready && !text.contains("[-]"), "{text}");
        health.set(Check::Caches, false);
        assert!(!health.report().0);
    }
}
