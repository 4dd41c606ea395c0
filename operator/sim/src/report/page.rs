//! The page: one file that needs nothing else, drawn by its own script from the data inside it.

use serde::Serialize;

use super::comparison::{Compared, Tried, compare};
use super::result::PolicyResult;
use super::series::Series;
use super::{Report, describe, knob, short};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    pool: String,
    label: &'a str,
    command: &'a str,
    version: &'a str,
    seed: u64,
    currency: &'a str,
    explanation: Option<String>,
    facts: Vec<(&'static str, String)>,
    remarks: Vec<String>,
    groups: Vec<&'a str>,
    objectives: Vec<Objective>,
    /// Where the scored part begins, in ms from the trace's start.
    scored_from: i64,
    /// The trace's start by the planner's calendar, in ms of Unix time.
    epoch: i64,
    policies: Vec<Policy>,
    /// Runs of the sweeps, for the scatter of cost and attainment.
    runs: Vec<Tried>,
    bound: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Objective {
    name: String,
    text: String,
    metric: pomarium_kernel::snapshot::Metric,
    threshold: f64,
    percentile: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    #[serde(flatten)]
    result: PolicyResult,
    /// The knob, for people.
    knob_text: Option<String>,
    attains: bool,
    compared: Option<Compared>,
    series: Option<Series>,
}

impl Report<'_> {
    /// What `--html` writes.
    ///
    /// # Errors
    /// If the data cannot be written as JSON, which no finite numbers cause.
    pub fn page(&self) -> Result<String, serde_json::Error> {
        let several = self.played.len() > 1;
        let compared = several.then(|| compare(self));
        let results = self.results();
        let policies = self.played.iter().zip(results.policies).enumerate();
        let data = Data {
            pool: self.setting.pool.to_string(),
            label: &self.trace.label,
            command: &self.command,
            version: &self.version,
            seed: self.seed,
            currency: &self.currency,
            explanation: several.then(|| self.explanation()),
            facts: self.facts(),
            remarks: self.remarks(),
            groups: self
                .setting
                .scenario
                .groups
                .iter()
                .map(|group| group.name.as_str())
                .collect(),
            objectives: self
                .setting
                .scenario
                .objectives
                .iter()
                .map(|objective| Objective {
                    name: short(objective),
                    text: describe(objective),
                    metric: objective.metric,
                    threshold: objective.threshold.as_secs_f64(),
                    percentile: objective.percentile.get(),
                })
                .collect(),
            scored_from: self.setting.scenario.score_from_ms.max(0),
            epoch: crate::policy::pomarium::EPOCH_MS,
            policies: policies
                .map(|(index, (played, result))| Policy {
                    result,
                    knob_text: played
                        .knob
                        .as_ref()
                        .map(|meaning| format!("{} {meaning}", knob(played.run.knob))),
                    attains: played.run.outcome.attains(self.goal.over),
                    compared: compared
                        .as_ref()
                        .and_then(|compared| compared.policies.get(index))
                        .cloned(),
                    series: played
                        .timeline
                        .as_ref()
                        .map(|timeline| Series::of(timeline, self.played.len())),
                })
                .collect(),
            runs: compared.map(|compared| compared.runs).unwrap_or_default(),
            bound: self.bound,
        };
        // Inside a script element only "</" and "<!--" end or change it.
        let json = serde_json::to_string(&data)?.replace('<', "\\u003c");
        let title = format!("{} · replay of {}", self.setting.pool, self.trace.name);
        Ok(fill(
            PAGE,
            &[
                ("{{title}}", &escape(&title)),
                ("{{style}}", STYLE),
                ("{{data}}", &json),
                ("{{script}}", SCRIPT),
            ],
        ))
    }
}

/// Replaces each mark once, left to right, so that nothing inside a value is taken for a mark.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    let mut rest = template;
    while let Some((start, mark, value)) = values
        .iter()
        .filter_map(|&(mark, value)| rest.find(mark).map(|start| (start, mark, value)))
        .min_by_key(|(start, _, _)| *start)
    {
        text.push_str(&rest[..start]);
        text.push_str(value);
        rest = &rest[start + mark.len()..];
    }
    text + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
