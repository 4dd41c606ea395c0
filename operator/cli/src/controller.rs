//! `pomarium controller`: its flags, and its logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{ArgAction, Args, ValueEnum};
use pomarium_controller::clock::Clock;
use pomarium_controller::run::{self, Options};
use pomarium_kernel::time::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Flags of the controller.
#[derive(Args)]
pub(crate) struct Flags {
    /// Kubeconfig of the hub. Default: KUBECONFIG, ~/.kube/config, or the Pod's own account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The operator's own namespace: leader Lease, kubeconfig Secrets, plans of groups.
    #[arg(long, value_name = "NS", env = "POD_NAMESPACE", default_value = "pomarium-system")]
    namespace: String,
    /// Where `/metrics` is served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    metrics_bind: SocketAddr,
    /// Where `/healthz` and `/readyz` are served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    health_bind: SocketAddr,
    /// Elect a leader among several replicas. Without, this process must be the only one.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    leader_elect: bool,
    /// How long leadership is honoured after its last renewal, in real time.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = lease)]
    leader_lease_duration: Duration,
    /// The emulated fleet, for groups whose provider is `simulated`.
    #[arg(long, value_name = "URL")]
    fleet_url: Option<String>,
    /// Metrics of the gateway's endpoint picker, for pools whose metrics come from the `Gateway`.
    #[arg(long, value_name = "URL")]
    gateway_metrics_url: Option<String>,
    /// Prometheus, for pools whose metrics come from `Prometheus`, and for the past of all pools of which nothing is remembered.
    #[arg(long, value_name = "URL")]
    prometheus_url: Option<String>,
    /// Where compressed time begins: Unix time in ms. Default: now.
    #[arg(long, value_name = "MS", requires = "time_scale")]
    time_origin: Option<i64>,
    /// Virtual seconds per real second; over 1 for demos and tests only.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_scale: f64,
    /// Longest time between two passes, in virtual time.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = span)]
    tick: Span,
    /// Accept kubeconfigs of member clusters on this very machine or its link. For local test clusters.
    #[arg(long)]
    allow_loopback_members: bool,
    /// Form of the logs on stderr. What is logged is chosen with the environment variable `RUST_LOG`.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// Form of the logs.
#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn span(text: &str) -> Result<Span, String> {
    let span: Span = pomarium_api::duration::Duration::parse(text)
        .map_err(|error| error.to_string())?
        .into();
    if span == Span::ZERO {
        return Err("it must be above zero".to_owned());
    }
    Ok(span)
}

fn lease(text: &str) -> Result<Duration, String> {
    let duration = Duration::from_millis(span(text)?.as_millis());
    // Leases count whole seconds, and a renewal needs several attempts.
    if duration < Duration::from_secs(3) {
        return Err("it must be at least 3s".to_owned());
    }
    Ok(duration)
}

/// Runs the controller until a signal ends it.
pub(crate) fn run(flags: Flags) -> anyhow::Result<()> {
    log(flags.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let result = runtime.block_on(run::run(options(flags)));
    // A plan that is still being computed is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(result?)
}

fn options(flags: Flags) -> Options {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    let clock = if flags.time_scale > 1.0 {
        Clock::compressed(flags.time_origin.unwrap_or(millis), flags.time_scale)
    } else {
        Clock::real()
    };
    // A restarted container keeps its host name; it must not mistake its predecessor's Lease for its own.
    let host = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    let identity = format!(
        "{}_{}_{millis}",
        host.as_deref().unwrap_or("pomarium"),
        std::process::id()
    );
    Options {
        kubeconfig: flags.kubeconfig,
        context: flags.context,
        namespace: flags.namespace,
        identity,
        metrics_bind: flags.metrics_bind,
        health_bind: flags.health_bind,
        leader_elect: flags.leader_elect,
        lease_duration: flags.leader_lease_duration,
        fleet_url: flags.fleet_url,
        gateway_metrics_url: flags.gateway_metrics_url,
        prometheus_url: flags.prometheus_url,
        clock,
        tick: flags.tick,
        allow_loopback_members: flags.allow_loopback_members,
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).init(),
        LogFormat::Json => registry.with(layer.json()).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_flags_are_checked() {
        assert_eq!(span("1m30s"), Ok(Span::from_secs(90)));
        assert!(span("0s").is_err() && span("soon").is_err() && span("-1s").is_err());
        assert_eq!(lease("15s"), Ok(Duration::from_secs(15)));
        assert!(lease("1s").is_err());
    }
}
