//! What must hold for the requests, what may be spent on it, and where it is measured.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::schema;

/// At least `percentile` percent of requests stay within `threshold`, in every `window`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Objective {
    /// What is measured. `TimeToFirstToken`: from a request's arrival to its first token. `InterTokenLatency`: the mean time
    /// between the tokens of one request.
    #[schemars(schema_with = "schema::choice::<ObjectiveMetric>")]
    pub metric: ObjectiveMetric,
    /// Share of the requests that must be within the threshold, in percent, 1 to 99. Example: 95.
    #[schemars(range(min = 1, max = 99))]
    pub percentile: i32,
    /// The bound on one request. Example: `10s`, or `250ms` between tokens.
    #[schemars(schema_with = "schema::positive_duration")]
    pub threshold: Duration,
    /// The objective holds in every window of this length. Windows follow each other from the start of 1970 in UTC on: those of 24h begin at
    /// midnight, those of 168h on Thursdays. Example: `1h`. Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::positive_duration")]
    pub window: Option<Duration>,
}

/// What is measured.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ObjectiveMetric {
    /// From arrival to the first token.
    TimeToFirstToken,
    /// Mean time between the tokens of a request.
    InterTokenLatency,
}

/// A hard ceiling on spending. Servers that several pools share are split by server-hours.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// The ceiling for one period, as a decimal. Example: `"4000"`.
    #[schemars(schema_with = "schema::money")]
    pub amount: String,
    /// ISO 4217 code; one currency per hub. Example: `EUR`. Default: USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::currency")]
    pub currency: Option<String>,
    /// Calendar period in UTC: `Day`, `Week` (Monday to Sunday) or `Month`. Default: Month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<BudgetPeriod>")]
    pub period: Option<BudgetPeriod>,
}

/// A calendar period in UTC.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum BudgetPeriod {
    /// Midnight to midnight.
    Day,
    /// Monday to Sunday.
    Week,
    /// A calendar month.
    #[default]
    Month,
}

/// Where arrivals, TTFT and ITL are measured.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// `Gateway`: the gateway's endpoint picker. `Engine`: every replica's own `/metrics`. `Prometheus`: a Prometheus. The
    /// addresses of the first and the last are given to the operator, not here. Default: Engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<MetricsSource>")]
    pub source: Option<MetricsSource>,
}

/// Where metrics come from.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum MetricsSource {
    /// The gateway's endpoint picker, at the address that the operator is started with.
    Gateway,
    /// Every replica's own `/metrics`.
    #[default]
    Engine,
    /// The Prometheus that the operator is started with.
    Prometheus,
}

/// A known event that changes the demand.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.end) || self.end > self.start").message("events[].end must be later than its start").field_path(".end"))]
pub struct Event {
    /// Its name, unique in the pool. Example: `launch-jp`.
    #[schemars(schema_with = "schema::dns_label")]
    pub name: String,
    /// When it begins, RFC 3339. Example: `"2027-03-01T00:00:00Z"`.
    #[schemars(schema_with = "schema::time")]
    pub start: String,
    /// When it ends, RFC 3339. Example: `"2027-03-08T00:00:00Z"`. Default: it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub end: Option<String>,
    /// Demand is multiplied by this meanwhile, as a decimal above 0. Example: `"1.6"`.
    #[schemars(schema_with = "schema::positive_decimal")]
    pub demand_factor: String,
}
