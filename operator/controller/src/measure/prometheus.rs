//! The gateway's metrics from a Prometheus server, by its HTTP API.
//!
//! Pure. One instant query returns the counters of all pools as they are; rates and percentiles are computed from them
//! as from any other source, so that there is one definition of each. A series whose target is gone is missing from
//! the answer at once, because Prometheus marks it stale.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use pomarium_kernel::forecast::Counts;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::time::{Span, Timestamp};
use serde::Deserialize;

use super::exposition::Sample;
use super::gateway::{PREFIX, is_of};
use super::ledger::whole;

/// The path and query of the one request.
pub(crate) fn query_path() -> &'static str {
    // {__name__=~"llm_d_epp_request_(total|(ttft_seconds|streaming_itl_seconds|input_tokens|output_tokens)_(bucket|sum))"}
    "/api/v1/query?query=%7B__name__%3D~%22llm_d_epp_request_%28total%7C%28ttft_seconds%7Cstreaming_itl_seconds\
     %7Cinput_tokens%7Coutput_tokens%29_%28bucket%7Csum%29%29%22%7D"
}

/// A stretch of time and how dense its points are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// The first point.
    pub(crate) from: Timestamp,
    /// The last point.
    pub(crate) until: Timestamp,
    /// Between two points.
    pub(crate) step: Span,
}

/// The path and query that asks for what gateways counted of a model in `range`.
pub(crate) fn range_path(model: &str, range: Range) -> String {
    let quoted = model.replace('\\', "\\\\").replace('"', "\\\"");
    let query = format!(
        "{{__name__=~\"llm_d_epp_request_(total|ttft_seconds_count|(input|output)_tokens_sum)\",model_name=\"{quoted}\"}}"
    );
    let seconds = |at: Timestamp| at.as_millis().div_euclid(1_000);
    format!(
        "/api/v1/query_range?query={}&start={}&end={}&step={}",
        encoded(&query),
        seconds(range.from),
        seconds(range.until),
        range.step.as_millis() / 1_000
    )
}

/// As part of a URL's query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().fold(String::new(), |mut url, byte| {
        if plain(byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}

#[derive(Deserialize)]
struct Line {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

/// What arrived at `pool` from one point to the next, by the first of both. `None` if `text` is no answer. Where a point is missing there is a
/// gap; a counter that falls began anew.
pub(crate) fn counted(text: &str, pool: &PoolId, step: Span) -> Option<Vec<(Timestamp, Counts)>> {
    let answer: Answer = serde_json::from_str(text).ok()?;
    let mut by_name: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
    for line in answer.data.result {
        let Ok(line) = serde_json::from_value::<Line>(line) else {
            continue;
        };
        let labels = line
            .metric
            .iter()
            .map(|(key, value)| (key.as_str(), Cow::Borrowed(value.as_str())));
        let sample = Sample {
            name: line.metric.get("__name__").map_or("", String::as_str),
            labels: labels.collect(),
            value: 0.0,
        };
        if !is_of(&sample, pool) {
            continue;
        }
        let sums = by_name.entry(sample.name.to_owned()).or_default();
        for (at, added) in increments(&line.values, step) {
            *sums.entry(at).or_default() += added;
        }
    }
    let mut of = |name: &str| by_name.remove(&format!("{PREFIX}{name}"));
    let requests = of("total").or_else(|| of("ttft_seconds_count")).unwrap_or_default();
    let (prompts, outputs) = (of("input_tokens_sum"), of("output_tokens_sum"));
    let at_time = |sums: &Option<BTreeMap<i64, f64>>, at: i64| sums.as_ref()?.get(&at).copied();
    let counts = requests.into_iter().map(|(at, requests)| {
        let counts = Counts {
            requests: whole(requests),
            prompt_tokens: whole(at_time(&prompts, at).unwrap_or_default()),
            output_tokens: whole(at_time(&outputs, at).unwrap_or_default()),
        };
        (Timestamp::from_millis(at.saturating_mul(1_000)), counts)
    });
    Some(counts.collect())
}

/// What a counter gained from each point to the next, by the first one's time in seconds.
fn increments(values: &[(f64, String)], step: Span) -> impl Iterator<Item = (i64, f64)> {
    let longest = step.as_secs_f64() * 1.5;
    values.windows(2).filter_map(move |pair| {
        let [(from, before), (until, after)] = pair else {
            return None;
        };
        let (before, after): (f64, f64) = (before.parse().ok()?, after.parse().ok()?);
        let follows = from.is_finite() && until > from && until - from <= longest;
        let gained = if after < before { after } else { after - before };
        (follows && gained.is_finite() && gained >= 0.0).then(|| (whole_seconds(*from), gained))
    })
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates; a time in seconds")]
fn whole_seconds(at: f64) -> i64 {
    at.round() as i64
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    // Elements are decoded one by one: a strange one harms only itself.
    result: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Element {
    metric: BTreeMap<String, String>,
    value: (serde_json::Value, String),
}

/// The series of an answer.
#[derive(Debug, Default)]
pub(crate) struct Answered(Vec<(BTreeMap<String, String>, f64)>);

impl Answered {
    /// Reads an answer. `None` if it is not one.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let answer: Answer = serde_json::from_str(text).ok()?;
        let elements = answer.data.result.into_iter().filter_map(|element| {
            let element: Element = serde_json::from_value(element).ok()?;
            let value: f64 = element.value.1.parse().ok()?;
            (value.is_finite() && value >= 0.0).then_some((element.metric, value))
        });
        Some(Self(elements.collect()))
    }

    /// The series, as if they had been scraped.
    pub(crate) fn samples(&self) -> Vec<Sample<'_>> {
        self.0
            .iter()
            .filter_map(|(labels, value)| {
                Some(Sample {
                    name: labels.get("__name__")?,
                    labels: labels
                        .iter()
                        .filter(|(key, _)| *key != "__name__")
                        .map(|(key, value)| (key.as_str(), Cow::Borrowed(value.as_str())))
                        .collect(),
                    value: *value,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::gateway::sort_by_pool;
    use super::*;

    #[test]
    fn an_answer_reads_like_a_scrape() {
        let text = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"llm_d_epp_request_total","model_name":"m"},"value":[1.5,"42"]},
            {"metric":{"__name__":"llm_d_epp_request_total","model_name":"m"},"value":[1.5,"NaN"]},
            {"metric":{"__name__":"llm_d_epp_request_total"},"values":[]},
            {"metric":{"__name__":"llm_d_epp_request_ttft_seconds_bucket","model_name":"m","le":"1"},"value":[1.5,"7"]},
            17]}}"#;
        let answered = Answered::read(text).unwrap();
        let pool = PoolId::new("a", "b");
        let scrapes = sort_by_pool(&answered.samples(), [(&pool, "m")]);
        let scrape = &scrapes[&pool];
        assert_eq!(scrape.counters.values().copied().collect::<Vec<_>>(), [42.0]);
        assert_eq!(scrape.distributions.len(), 1);
    }

    #[test]
    fn a_range_of_counters_becomes_what_arrived_with_restarts_and_gaps() {
        let text = r#"{"data":{"result":[
            {"metric":{"__name__":"llm_d_epp_request_total","model_name":"m","namespace":"a","pool":"b"},
             "values":[[0,"10"],[300,"40"],[600,"5"],[900,"15"],[1800,"99"],[2100,"100"]]},
            {"metric":{"__name__":"llm_d_epp_request_total","model_name":"m","namespace":"a","pool":"b","replica":"2"},
             "values":[[300,"1000"],[600,"1007"]]},
            {"metric":{"__name__":"llm_d_epp_request_total","model_name":"m","namespace":"a","pool":"c"},"values":[[0,"1"],[300,"9000"]]},
            {"metric":{"__name__":"llm_d_epp_request_input_tokens_sum","model_name":"m"},"values":[[0,"0"],[300,"3000"],[600,"x"]]},
            {"metric":{"__name__":"llm_d_epp_request_ttft_seconds_count","model_name":"m"},"values":[[0,"0"],[300,"77"]]},
            "strange"]}}"#;
        let step = Span::from_minutes(5);
        let counted = counted(text, &PoolId::new("a", "b"), step).unwrap();
        let requests: Vec<_> = counted
            .iter()
            .map(|(at, counts)| (at.as_millis() / 1_000, counts.requests))
            .collect();
        assert_eq!(requests, [(0, 30), (300, 5 + 7), (600, 10), (1_800, 1)]);
        assert_eq!(counted[0].1.prompt_tokens, 3_000);
        assert_eq!(super::counted("<html>", &PoolId::new("a", "b"), step), None);
    }

    #[test]
    fn the_query_names_the_model_whatever_it_is_called() {
        let range = Range {
            from: Timestamp::from_millis(60_000),
            until: Timestamp::from_millis(120_500),
            step: Span::from_minutes(5),
        };
        let path = range_path("a\"b/ü", range);
        assert!(
            path.ends_with("model_name%3D%22a%5C%22b%2F%C3%BC%22%7D&start=60&end=120&step=300"),
            "{path}"
        );
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"status":"error","error":"x"}"#,
            r#"{"data":{"result":{}}}"#,
            "\u{0}",
        ] {
            assert!(Answered::read(text).is_none(), "{text:?}");
        }
    }
}
