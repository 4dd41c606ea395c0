//! Arrivals, latencies and loads, from gateways, engines or Prometheus.
