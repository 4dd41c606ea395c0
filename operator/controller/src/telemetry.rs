//! Metrics, in a registry of their own. Names of pools and servers never enter: they come and go, series stay. Groups are few.

use std::time::Duration;

use pomarium_kernel::forecast::{Forecast, Quantiles};
use pomarium_kernel::plan::Plan;
use pomarium_kernel::snapshot::Contact;
use pomarium_kernel::strategy::Burnt;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Fraction;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::strategist::Made;
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
    ahead: Ahead,
    leading: IntGauge,
}

/// What strategic plans say.
#[derive(Clone)]
struct Ahead {
    plans: IntCounterVec,
    seconds: Histogram,
    /// Money over the horizon: `cost` and `bound`.
    money: GaugeVec,
    gap: Gauge,
    servers: IntGaugeVec,
    forecast: GaugeVec,
    error_budget: Gauge,
}

/// A budget that is overdrawn by more is simply overdrawn.
const MOST_OVERDRAWN: f64 = 100.0;

/// Groups beyond these are counted together: the number of series stays bounded.
const MOST_GROUPS: usize = 250;

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
        let figure = |name: &str, help: &str| -> Result<_, prometheus::Error> {
            let metric = Gauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let figures = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let metric = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let hourly_cost = figure(
            "hourly_cost",
            "Cost per hour of everything that runs, in the hub's currency",
        )?;
        let ahead = Ahead {
            plans: counters("ahead_plans_total", "Strategic plans, by why they were made", &["due"])?,
            seconds: seconds("ahead_plan_duration_seconds", "Real time of planning ahead")?,
            money: figures(
                "ahead_money",
                "Expected cost of the next 36 hours and its lower bound, in the hub's currency",
                &["figure"],
            )?,
            gap: figure(
                "ahead_gap_ratio",
                "What a better plan could save at most, as a share of the cost",
            )?,
            servers: gauges("ahead_servers", "Servers planned for now", &["group"])?,
            forecast: figures(
                "ahead_forecast_requests_per_second",
                "Requests per second expected in the next hour, of all pools together",
                &["quantile"],
            )?,
            error_budget: figure(
                "ahead_error_budget_ratio",
                "Share of what is left of its error budget that the pool with the least to spare is planned to spend",
            )?,
        };
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
            ahead,
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

    /// A strategic plan, and how long it took.
    pub(crate) fn ahead(&self, made: &Made) {
        let metrics = &self.ahead;
        let Made { ahead, due, took, .. } = made;
        metrics.plans.with_label_values(&[due.as_str()]).inc();
        metrics.seconds.observe(took.as_secs_f64());
        for (figure, value) in [("cost", ahead.cost), ("bound", ahead.bound)] {
            metrics.money.with_label_values(&[figure]).set(value);
        }
        metrics.gap.set(ahead.gap());
        metrics.servers.reset();
        for (index, (name, group)) in ahead.groups.iter().enumerate() {
            let label = if index < MOST_GROUPS { name.as_str() } else { "others" };
            metrics
                .servers
                .with_label_values(&[label])
                .add(i64::from(group.servers));
        }
        let hour = |forecast: &Forecast| forecast.over(made.now, made.now + Span::from_hours(1));
        let forecasts = ahead.pools.values().filter_map(|pool| pool.forecast.as_ref());
        let expected: Vec<Quantiles> = forecasts.filter_map(hour).collect();
        for level in [0.05, 0.5, 0.95] {
            let at = |quantiles: &Quantiles| quantiles.at(Fraction::new(level)).as_per_second();
            let label = level.to_string();
            let sum = expected.iter().map(at).sum();
            metrics.forecast.with_label_values(&[label.as_str()]).set(sum);
        }
        let spent = ahead.pools.values().filter_map(|pool| pool.windows.first());
        let share = |(_, burnt): &(Timestamp, Burnt)| burnt.expected / burnt.budget.max(f64::MIN_POSITIVE);
        metrics
            .error_budget
            .set(spent.map(share).fold(0.0, f64::max).min(MOST_OVERDRAWN));
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
