//! Metrics of a gateway's endpoint picker: one answer for all pools.
//!
//! Pure. Series are told apart by `model_name` and, where present, `namespace` and `pool`.

use std::collections::BTreeMap;

use pomarium_kernel::names::PoolId;

use super::exposition::{Sample, samples};
use super::scrape::{Counter, Distribution, Names, Scrape};

/// The prefix of everything that is read.
pub(crate) const PREFIX: &str = "llm_d_epp_request_";

/// The endpoint picker's names.
pub(crate) const NAMES: Names = Names {
    running: &[],
    queued: &[],
    counters: &[(Counter::Requests, &["llm_d_epp_request_total"])],
    distributions: &[
        (Distribution::TimeToFirstToken, &["llm_d_epp_request_ttft_seconds"]),
        (
            Distribution::InterTokenLatency,
            &["llm_d_epp_request_streaming_itl_seconds"],
        ),
        (Distribution::PromptLength, &["llm_d_epp_request_input_tokens"]),
        (Distribution::OutputLength, &["llm_d_epp_request_output_tokens"]),
    ],
};

/// Sorts one answer by pool. Pools are given with the name of their model; a pool without any series is missing.
pub(crate) fn by_pool<'a>(
    text: &str,
    pools: impl IntoIterator<Item = (&'a PoolId, &'a str)>,
) -> BTreeMap<PoolId, Scrape> {
    let seen: Vec<Sample<'_>> = samples(text, |name| name.starts_with(PREFIX)).collect();
    sort_by_pool(&seen, pools)
}

/// The same for samples that have been read already.
pub(crate) fn sort_by_pool<'a>(
    seen: &[Sample<'_>],
    pools: impl IntoIterator<Item = (&'a PoolId, &'a str)>,
) -> BTreeMap<PoolId, Scrape> {
    let mut by_model: BTreeMap<&str, Vec<&Sample<'_>>> = BTreeMap::new();
    for sample in seen {
        if let Some(model) = sample.label("model_name") {
            by_model.entry(model).or_default().push(sample);
        }
    }
    let mut scrapes = BTreeMap::new();
    for (pool, model) in pools {
        let Some(candidates) = by_model.get(model) else {
            continue;
        };
        let own: Vec<_> = candidates
            .iter()
            .copied()
            .filter(|sample| is_of(sample, pool))
            .collect();
        let scrape = Scrape::sort(&own, &NAMES);
        if !scrape.is_empty() {
            scrapes.insert(pool.clone(), scrape);
        }
    }
    scrapes
}

/// Whether the labels that are present name this pool.
///
/// Prometheus renames labels of the source that collide with those of its own target: `exported_` goes first.
pub(super) fn is_of(sample: &Sample<'_>, pool: &PoolId) -> bool {
    let agrees = |exported, plain, wanted: &str| {
        sample
            .label(exported)
            .or_else(|| sample.label(plain))
            .is_none_or(|value| value == wanted)
    };
    agrees("exported_namespace", "namespace", &pool.namespace) && agrees("exported_pool", "pool", &pool.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_go_to_the_pool_that_their_labels_name() {
        let text = "llm_d_epp_request_total{model_name=\"m\",namespace=\"a\",pool=\"chat\"} 1\n\
                    llm_d_epp_request_total{model_name=\"m\",namespace=\"b\",pool=\"chat\"} 2\n\
                    llm_d_epp_request_total{model_name=\"n\"} 4\n\
                    llm_d_epp_request_total{model_name=\"p\",exported_namespace=\"a\",namespace=\"gateway\"} 8\n\
                    llm_d_epp_request_total 16\n";
        let pools = [
            (PoolId::new("a", "chat"), "m"),
            (PoolId::new("b", "chat"), "m"),
            (PoolId::new("a", "other"), "n"),
            (PoolId::new("a", "exported"), "p"),
            (PoolId::new("a", "silent"), "q"),
        ];
        let scrapes = by_pool(text, pools.iter().map(|(pool, model)| (pool, *model)));
        let totals: Vec<_> = scrapes
            .iter()
            .map(|(pool, scrape)| (pool.to_string(), scrape.counters.values().sum::<f64>()))
            .collect();
        let expected = [("a/chat", 1.0), ("a/exported", 8.0), ("a/other", 4.0), ("b/chat", 2.0)];
        assert_eq!(totals, expected.map(|(pool, total)| (pool.to_owned(), total)));
    }
}
