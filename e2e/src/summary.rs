//! What a run of the demo came to: as JSON for machines, as a table for people.

use std::fmt::Write;

use serde::Serialize;

use crate::load::{Outcome, Record, percentile};

/// The result of one run. Keys of the JSON are part of the demo's interface; more may be added.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// What became of the requests.
    pub requests: Requests,
    /// In the order of the pool's spec.
    pub objectives: Vec<Objective>,
    /// In alphabetical order.
    pub sites: Vec<Site>,
    /// Replicas added after the pool was first Ready.
    pub scale_ups: u64,
    /// Replicas drained to the end.
    pub drains: u64,
    /// Hosted servers.
    pub leases: Leases,
    /// What the run cost, by the prices of the manifests.
    pub cost: Cost,
    /// Real time from the first step to this summary.
    pub seconds: f64,
    /// Virtual time that was replayed, in seconds.
    pub replayed_seconds: f64,
    /// Virtual seconds in one real second.
    pub time_scale: f64,
    /// The trace's file name.
    pub trace: String,
    /// The most that any part of the emulation was behind the virtual clock, in virtual ms.
    pub worst_lag_ms: Lag,
    /// Real time from `kubectl apply` of the manifests until the pool was Ready at its minimum.
    pub seconds_to_ready: f64,
    /// Resident memory of the operator at the end, in MiB.
    pub operator_resident_mib: f64,
    /// Pools that never became Ready.
    pub never_ready: Vec<String>,
    /// Of `seconds`, those in which programs were built or looked up.
    pub seconds_building: f64,
    /// How the replay ended.
    pub ended: Ended,
}

/// How a replay ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Ended {
    /// The whole trace was replayed and every answer awaited.
    #[default]
    Complete,
    /// Somebody stopped it.
    Interrupted,
    /// It was given up, because it took far longer than it should.
    OutOfTime,
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Sent.
    pub sent: u64,
    /// Answered to the end.
    pub completed: u64,
    /// Begun and broken off.
    pub cut: u64,
    /// Never begun: refused or out of time.
    pub failed: u64,
    /// Sent to a second replica because the first failed before its first byte; no loss.
    pub retried: u64,
    /// Of the trace, longer than the model's context: not sent.
    pub rejected: u64,
}

/// How well one objective was met.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Objective {
    /// `TimeToFirstToken` or `InterTokenLatency`.
    pub metric: String,
    /// Percent of requests that must be within the threshold.
    pub percentile: u32,
    /// Share of requests that were within the threshold. Cut and failed ones miss it.
    pub attainment: f64,
    /// The threshold, in virtual seconds.
    pub threshold_seconds: f64,
    /// The measured value at the percentile, in virtual seconds; null if that request got no answer.
    pub value_seconds: Option<f64>,
}

/// What one site contributed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// Its name.
    pub name: String,
    /// `Owned`, `Managed` or `Hosted`.
    pub ownership: String,
    /// Most servers that ran a replica at the same time.
    pub servers_peak: u64,
}

/// Hosted servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leases {
    /// Leased.
    pub bought: u64,
    /// Given back.
    pub returned: u64,
}

/// What a run cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// ISO 4217 code.
    pub currency: String,
    /// Leases and energy.
    pub total: f64,
    /// Leases, at least for their minimum terms.
    pub leases: f64,
    /// Energy, idle and busy.
    pub energy: f64,
}

/// How late the emulation was at worst, in virtual ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Lag {
    /// Requests, against the trace.
    pub load: f64,
    /// Model servers, against their step times.
    pub fleet: f64,
}

/// What an objective asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `TimeToFirstToken` or `InterTokenLatency`.
    pub metric: TargetMetric,
    /// In percent.
    pub percentile: u32,
    /// In ms.
    pub threshold_ms: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetMetric {
    /// From arrival to the first token.
    TimeToFirstToken,
    /// Mean time between the tokens of a request.
    InterTokenLatency,
}

impl TargetMetric {
    /// As in a pool's spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::TimeToFirstToken => "TimeToFirstToken",
            Self::InterTokenLatency => "InterTokenLatency",
        }
    }

    /// As people say.
    pub fn short(self) -> &'static str {
        match self {
            Self::TimeToFirstToken => "TTFT",
            Self::InterTokenLatency => "ITL",
        }
    }
}

impl Target {
    /// How `records` did against it.
    ///
    /// ITL needs two tokens: a whole answer of one token neither attains nor misses it. A request that got no whole
    /// answer misses everything.
    pub fn judge(&self, records: &[Record]) -> Objective {
        let mut values: Vec<f64> = records
            .iter()
            .filter_map(|record| match (self.metric, record.outcome) {
                (_, Outcome::Cut | Outcome::Failed) => Some(f64::INFINITY),
                (TargetMetric::TimeToFirstToken, Outcome::Completed) => Some(record.ttft_or_infinite()),
                (TargetMetric::InterTokenLatency, Outcome::Completed) => record.itl_ms,
            })
            .collect();
        values.sort_by(f64::total_cmp);
        let within = values.partition_point(|value| *value <= self.threshold_ms as f64);
        Objective {
            metric: self.metric.name().to_owned(),
            percentile: self.percentile,
            attainment: round(
                if values.is_empty() {
                    0.0
                } else {
                    within as f64 / values.len() as f64
                },
                5,
            ),
            threshold_seconds: self.threshold_ms as f64 / 1_000.0,
            value_seconds: percentile(&values, self.percentile)
                .filter(|value| value.is_finite())
                .map(|value| round(value / 1_000.0, 4)),
        }
    }
}

/// `value` with `decimals` decimals, so that reports do not pretend more than was measured.
pub fn round(value: f64, decimals: i32) -> f64 {
    let factor = 10_f64.powi(decimals);
    (value * factor).round() / factor
}

impl Summary {
    /// Whether the run kept its promises: all of it replayed, no request lost, every pool Ready.
    pub fn is_good(&self) -> bool {
        let Requests {
            sent,
            completed,
            cut,
            failed,
            ..
        } = self.requests;
        let nothing_lost = cut == 0 && failed == 0 && completed == sent;
        nothing_lost && self.ended == Ended::Complete && self.never_ready.is_empty()
    }

    /// Real time that everything but building took.
    pub fn seconds_once_built(&self) -> f64 {
        self.seconds - self.seconds_building
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            let _ = writeln!(text, "  {label:<14}{value}");
        };
        let Requests {
            sent,
            completed,
            cut,
            failed,
            retried,
            rejected: _,
        } = self.requests;
        line(
            "requests",
            format!("{sent} sent, {completed} completed, {cut} cut, {failed} failed, {retried} retried elsewhere"),
        );
        for objective in &self.objectives {
            let met = objective.attainment * 100.0 >= f64::from(objective.percentile);
            let value = objective
                .value_seconds
                .map_or("none".to_owned(), |value| format!("{value:.2} s"));
            line(
                "objective",
                format!(
                    "p{} {} {value} of {} s: {:.2} % within, {}",
                    objective.percentile,
                    objective.metric,
                    objective.threshold_seconds,
                    objective.attainment * 100.0,
                    if met { "met" } else { "MISSED" },
                ),
            );
        }
        for site in &self.sites {
            line(
                "site",
                format!(
                    "{} ({}): {} servers at peak",
                    site.name, site.ownership, site.servers_peak
                ),
            );
        }
        line("replicas", format!("{} added, {} drained", self.scale_ups, self.drains));
        line(
            "leases",
            format!("{} bought, {} given back", self.leases.bought, self.leases.returned),
        );
        let Cost {
            currency,
            total,
            leases,
            energy,
        } = &self.cost;
        line(
            "cost",
            format!("{total:.2} {currency} (leases {leases:.2}, energy {energy:.2})"),
        );
        line(
            "time",
            format!(
                "{:.0} s for {:.0} min of {}, {} times as fast",
                self.seconds,
                self.replayed_seconds / 60.0,
                self.trace,
                self.time_scale,
            ),
        );
        line(
            "operator",
            format!(
                "{:.0} MiB resident; from kubectl apply to Ready {:.1} s",
                self.operator_resident_mib, self.seconds_to_ready
            ),
        );
        for pool in &self.never_ready {
            line("NEVER READY", pool.clone());
        }
        match self.ended {
            Ended::Complete => {}
            Ended::Interrupted => line("INTERRUPTED", "the figures are those of a part of the trace".to_owned()),
            Ended::OutOfTime => line(
                "OUT OF TIME",
                format!("given up with {} requests unanswered", sent - completed - cut - failed),
            ),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn record(ttft_ms: f64, itl_ms: Option<f64>, outcome: Outcome) -> Record {
        Record {
            arrival_ms: 0,
            ttft_ms: Some(ttft_ms),
            itl_ms,
            outcome,
            ended_ms: 0.0,
        }
    }

    fn target(metric: TargetMetric, threshold_ms: u64) -> Target {
        Target {
            metric,
            percentile: 95,
            threshold_ms,
        }
    }

    fn run() -> Summary {
        let records: Vec<_> = (1..=100)
            .map(|index| record(f64::from(index) * 100.0, Some(f64::from(index)), Outcome::Completed))
            .collect();
        Summary {
            requests: Requests {
                sent: 100,
                completed: 100,
                ..Requests::default()
            },
            objectives: vec![
                target(TargetMetric::TimeToFirstToken, 9_700).judge(&records),
                target(TargetMetric::InterTokenLatency, 200).judge(&records),
            ],
            sites: vec![Site {
                name: "cupertino".into(),
                ownership: "Owned".into(),
                servers_peak: 12,
            }],
            scale_ups: 5,
            drains: 4,
            leases: Leases { bought: 2, returned: 2 },
            cost: Cost {
                currency: "USD".into(),
                total: 3.25,
                leases: 3.0,
                energy: 0.25,
            },
            seconds: 270.5,
            replayed_seconds: 3_600.0,
            time_scale: 15.0,
            trace: "azure-conv-2023.csv.gz".into(),
            seconds_to_ready: 2.5,
            operator_resident_mib: 21.0,
            seconds_building: 1.5,
            ..Summary::default()
        }
    }

    #[test]
    fn the_json_has_the_keys_that_others_read() {
        let json = serde_json::to_string(&run()).unwrap();
        let expected = concat!(
            r#"{"requests":{"sent":100,"completed":100,"cut":0,"failed":0,"retried":0,"rejected":0},"#,
            r#""objectives":[{"metric":"TimeToFirstToken","percentile":95,"attainment":0.97,"thresholdSeconds":9.7,"valueSeconds":9.5},"#,
            r#"{"metric":"InterTokenLatency","percentile":95,"attainment":1.0,"thresholdSeconds":0.2,"valueSeconds":0.095}],"#,
            r#""sites":[{"name":"cupertino","ownership":"Owned","serversPeak":12}],"scaleUps":5,"drains":4,"#,
            r#""leases":{"bought":2,"returned":2},"cost":{"currency":"USD","total":3.25,"leases":3.0,"energy":0.25},"seconds":270.5,"#,
            r#""replayedSeconds":3600.0,"timeScale":15.0,"trace":"azure-conv-2023.csv.gz","worstLagMs":{"load":0.0,"fleet":0.0},"secondsToReady":2.5,"operatorResidentMib":21.0,"neverReady":[],"#,
            r#""secondsBuilding":1.5,"ended":"Complete"}"#,
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn a_lost_request_misses_every_objective_and_a_single_token_has_no_itl() {
        let records = [
            record(100.0, Some(10.0), Outcome::Completed),
            record(100.0, None, Outcome::Completed),
            record(100.0, Some(10.0), Outcome::Cut),
            record(100.0, None, Outcome::Failed),
        ];
        let ttft = target(TargetMetric::TimeToFirstToken, 1_000).judge(&records);
        assert_eq!((ttft.attainment.to_string(), ttft.value_seconds), ("0.5".into(), None));
        let itl = target(TargetMetric::InterTokenLatency, 1_000).judge(&records);
        assert_eq!(itl.attainment.to_string(), "0.33333");
    }

    #[test]
    fn a_run_is_good_only_if_nothing_was_lost_and_everything_got_ready() {
        assert!(run().is_good());
        let mut bad = [run(), run(), run(), run(), run(), run()];
        bad[0].requests.cut = 1;
        bad[1].requests.failed = 1;
        bad[2].never_ready.push("assistants/chat".into());
        bad[3].requests.completed = 99;
        bad[4].ended = Ended::Interrupted;
        bad[5].ended = Ended::OutOfTime;
        assert!(bad.iter().all(|summary| !summary.is_good()));
    }

    #[test]
    fn the_table_says_what_matters() {
        let table = run().table();
        for part in [
            "100 sent, 100 completed, 0 cut",
            "97.00 % within, met",
            "12 servers at peak",
            "3.25 USD",
            "2 bought, 2 given back",
        ] {
            assert!(table.contains(part), "{part:?} in\n{table}");
        }
    }
}
