//! The gateway's metrics from a Prometheus server, by its HTTP API.
//!
//! Pure. One instant query returns the counters of all pools as they are; rates and percentiles are computed from them
//! as from any other source, so that there is one definition of each. A series whose target is gone is missing from
//! the answer at once, because Prometheus marks it stale.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::exposition::Sample;

/// The path and query of the one request.
pub(crate) fn query_path() -> &'static str {
    // {__name__=~"llm_d_epp_request_(total|(ttft_seconds|streaming_itl_seconds|input_tokens|output_tokens)_(bucket|sum))"}
    "/api/v1/query?query=%7B__name__%3D~%22llm_d_epp_request_%28total%7C%28ttft_seconds%7Cstreaming_itl_seconds\
     %7Cinput_tokens%7Coutput_tokens%29_%28bucket%7Csum%29%29%22%7D"
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

    use pomarium_kernel::names::PoolId;

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
