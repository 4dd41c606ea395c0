//! Metrics, in a registry of their own. Names of objects never enter: pools and servers come and go, series stay.

use std::time::Duration;

use pomarium_kernel::plan::Plan;
use pomarium_kernel::snapshot::Contact;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::world::World;

/// The metrics of the controller. Clones share them.
#[derive(Clone)]
pub struct Telemetry {
    registry: Registry,
    passes: IntCounterVec,
    pass_seconds: Histogram,
    plan_seconds: Histogram,
    effects: IntCounterVec,
    decisions: IntCounterVec,
    errors: IntCounterVec,
    objects: IntGaugeVec,
    invalid: IntGaugeVec,
    undecodable: IntGauge,
    contact: IntGaugeVec,
    replicas: IntGaugeVec,
    servers: IntGaugeVec,
    hourly_cost: Gauge,
    leading: IntGauge,
}

impl Telemetry {
    /// Metrics that have counted nothing.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("pomarium".to_owned()), None)?;
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<_, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = |name: &str, help: &str| -> Result<_, prometheus::Error> {
            let buckets = prometheus::exponential_buckets(0.000_25, 4.0, 9)?;
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let hourly_cost = Gauge::new(
            "hourly_cost",
            "Cost per hour of everything that runs, in the hub's currency",
        )?;
        registry.register(Box::new(hourly_cost.clone()))?;
        Ok(Self {
            passes: counters("passes_total", "Passes, by what became of them", &["outcome"])?,
            pass_seconds: seconds("pass_duration_seconds", "Real time of a whole pass")?,
            plan_seconds: seconds("plan_duration_seconds", "Real time of planning within a pass")?,
            effects: counters(
                "effects_total",
                "Effects that were carried out, or not",
                &["kind", "outcome"],
            )?,
            decisions: counters("decisions_total", "Decisions, by their reason", &["reason"])?,
            errors: counters("errors_total", "Errors, by category", &["category"])?,
            objects: gauges("objects", "Objects in the caches, by kind", &["kind"])?,
            invalid: gauges(
                "invalid_objects",
                "Objects that cannot be used as they are, by kind",
                &["kind"],
            )?,
            undecodable: gauge("undecodable_objects", "Objects that cannot be decoded")?,
            contact: gauges("sites", "Sites, by whether their cluster answers", &["contact"])?,
            replicas: gauges("replicas", "Replicas of all pools", &["state"])?,
            servers: gauges("servers", "Servers of all groups, by state", &["state"])?,
            hourly_cost,
            leading: gauge("leading", "1 while this replica leads")?,
            registry,
        })
    }

    /// All metrics in the text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// One pass with this outcome took this long.
    pub fn pass(&self, outcome: &'static str, took: Duration) {
        self.passes.with_label_values(&[outcome]).inc();
        self.pass_seconds.observe(took.as_secs_f64());
    }

    /// What was planned, and how long that took.
    pub fn plan(&self, plan: &Plan, took: Duration) {
        self.plan_seconds.observe(took.as_secs_f64());
        for decision in &plan.decisions {
            self.decisions.with_label_values(&[decision.reason.as_str()]).inc();
        }
        let sum = |of: fn(&pomarium_kernel::plan::PoolOutlook) -> u32| plan.pools.values().map(of).map(i64::from).sum();
        for (state, count) in [
            ("target", sum(|pool| pool.target)),
            ("current", sum(|pool| pool.current)),
            ("serving", sum(|pool| pool.serving)),
            ("draining", sum(|pool| pool.draining)),
        ] {
            self.replicas.with_label_values(&[state]).set(count);
        }
        self.servers.reset();
        for group in plan.groups.values() {
            for (state, count) in &group.by_state {
                self.servers.with_label_values(&[state.as_str()]).add(i64::from(*count));
            }
        }
        let hourly = plan.sites.values().map(|site| site.hourly.as_f64()).sum();
        self.hourly_cost.set(hourly);
    }

    /// What is seen of the world.
    pub fn world(&self, world: &World, undecodable: usize) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let total = |of: fn(&crate::world::SiteSeen) -> usize| count(world.sites.values().map(of).sum());
        for (kind, number) in [
            ("ServerPool", count(world.pools.len())),
            ("ServerGroup", count(world.groups.len())),
            ("ServerSite", count(world.sites.len())),
            ("Node", total(|site| site.nodes.len())),
            ("Pod", total(|site| site.pods.len())),
        ] {
            self.objects.with_label_values(&[kind]).set(number);
        }
        for (kind, number) in [
            ("ServerPool", world.invalid.pools.len()),
            ("ServerGroup", world.invalid.groups.len()),
            ("ServerSite", world.invalid.sites.len()),
        ] {
            self.invalid.with_label_values(&[kind]).set(count(number));
        }
        self.undecodable.set(count(undecodable));
        let reachable = total(|site| usize::from(matches!(site.contact, Contact::Reachable)));
        self.contact.with_label_values(&["reachable"]).set(reachable);
        self.contact
            .with_label_values(&["lost"])
            .set(count(world.sites.len()) - reachable);
    }

    /// An effect of this kind had this outcome.
    pub fn effect(&self, kind: &'static str, outcome: &'static str) {
        self.effects.with_label_values(&[kind, outcome]).inc();
    }

    /// An error of this category.
    pub fn error(&self, category: &'static str) {
        self.errors.with_label_values(&[category]).inc();
    }

    /// Whether this replica leads.
    pub fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn metrics_are_exported_under_one_prefix() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.pass("completed", Duration::from_millis(3));
        telemetry.effect("ApplyPod", "applied");
        telemetry.world(&World::default(), 2);
        let text = telemetry.text().unwrap();
        for line in [
            "pomarium_passes_total{outcome=\"completed\"} 1",
            "pomarium_effects_total{kind=\"ApplyPod\",outcome=\"applied\"} 1",
            "pomarium_pass_duration_seconds_count 1",
            "pomarium_undecodable_objects 2",
            "pomarium_sites{contact=\"lost\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let series = text.lines().filter(|line| !line.starts_with('#'));
        assert!(
            series.clone().count() > 10 && series.clone().all(|line| line.starts_with("pomarium_")),
            "{text}"
        );
    }
}
