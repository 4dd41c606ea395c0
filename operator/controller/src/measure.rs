//! Arrivals, latencies and loads, from gateways, engines or Prometheus.

pub(crate) mod engine;
pub(crate) mod exposition;
pub(crate) mod gateway;
pub(crate) mod histogram;
pub(crate) mod ledger;
pub(crate) mod prometheus;
pub(crate) mod scrape;
