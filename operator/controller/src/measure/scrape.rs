//! One answer of one source, sorted into the quantities that Pomarium knows.
//!
//! Pure. Which metric means what is a table ([`Names`]): one per engine, one for gateways.

use std::collections::{BTreeMap, BTreeSet};

use super::exposition::{Sample, samples};
use super::histogram::Bound;

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    /// Requests received.
    Requests,
    /// Prompt tokens read.
    PromptTokens,
    /// Tokens generated.
    OutputTokens,
}

/// What a histogram observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Distribution {
    /// Time to first token, in seconds.
    TimeToFirstToken,
    /// Mean time between the tokens of a request, in seconds.
    InterTokenLatency,
    /// Length of prompts, in tokens.
    PromptLength,
    /// Length of outputs, in tokens.
    OutputLength,
}

/// Names of metrics. Where several are given, the first that is present is used: names change with versions.
#[derive(Debug)]
pub(crate) struct Names {
    /// Gauge: requests in the batch.
    pub(crate) running: &'static [&'static str],
    /// Gauge: requests waiting.
    pub(crate) queued: &'static [&'static str],
    /// Counters.
    pub(crate) counters: &'static [(Counter, &'static [&'static str])],
    /// Histograms, without `_bucket`.
    pub(crate) distributions: &'static [(Distribution, &'static [&'static str])],
}

impl Names {
    /// Whether the source exports this distribution at all.
    pub(crate) fn has(&self, wanted: Distribution) -> bool {
        self.distributions
            .iter()
            .any(|(distribution, names)| *distribution == wanted && !names.is_empty())
    }

    fn wants(&self, name: &str) -> bool {
        let base = base_name(name);
        let gauges = self.running.iter().chain(self.queued);
        let counters = self.counters.iter().flat_map(|(_, names)| names.iter());
        let distributions = self.distributions.iter().flat_map(|(_, names)| names.iter());
        gauges.chain(counters).any(|wanted| *wanted == name) || distributions.into_iter().any(|wanted| *wanted == base)
    }
}

/// The labels of a series, without `le`: tells the series of one source apart.
pub(crate) type Series = String;

/// A histogram as a source tells it: cumulative over buckets and since the source's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cumulative {
    /// Observations up to each bound.
    pub(crate) buckets: BTreeMap<Bound, f64>,
    /// Sum of all observations.
    pub(crate) sum: f64,
}

/// One answer of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scrape {
    /// Requests in the batch, if the answer says so.
    pub(crate) running: Option<f64>,
    /// Requests waiting, if the answer says so.
    pub(crate) queued: Option<f64>,
    /// Counters, by series.
    pub(crate) counters: BTreeMap<(Counter, Series), f64>,
    /// Histograms, by series.
    pub(crate) distributions: BTreeMap<(Distribution, Series), Cumulative>,
}

impl Scrape {
    /// Its latencies alone.
    pub(crate) fn latencies(&self) -> Self {
        let is_latency = |distribution| {
            matches!(
                distribution,
                Distribution::TimeToFirstToken | Distribution::InterTokenLatency
            )
        };
        let all = self
            .distributions
            .iter()
            .filter(|((distribution, _), _)| is_latency(*distribution));
        Self {
            distributions: all.map(|(key, seen)| (key.clone(), seen.clone())).collect(),
            ..Self::default()
        }
    }

    /// Reads one answer whole.
    pub(crate) fn read(text: &str, names: &Names) -> Self {
        let seen: Vec<Sample<'_>> = samples(text, |name| names.wants(name)).collect();
        Self::sort(&seen.iter().collect::<Vec<_>>(), names)
    }

    /// Sorts samples into quantities.
    pub(crate) fn sort(samples: &[&Sample<'_>], names: &Names) -> Self {
        let present: BTreeSet<&str> = samples.iter().map(|sample| base_name(sample.name)).collect();
        let exact: BTreeSet<&str> = samples.iter().map(|sample| sample.name).collect();
        let first = |candidates: &[&'static str], present: &BTreeSet<&str>| {
            candidates.iter().find(|name| present.contains(*name)).copied()
        };
        let gauge = |candidates| {
            let name = first(candidates, &exact)?;
            Some(samples.iter().filter(|s| s.name == name).map(|s| s.value).sum())
        };

        let mut scrape = Self {
            running: gauge(names.running),
            queued: gauge(names.queued),
            ..Self::default()
        };
        for (counter, candidates) in names.counters {
            let Some(name) = first(candidates, &exact) else {
                continue;
            };
            for sample in samples.iter().filter(|sample| sample.name == name) {
                *scrape.counters.entry((*counter, series(sample))).or_default() += sample.value;
            }
        }
        for (distribution, candidates) in names.distributions {
            let Some(name) = first(candidates, &present) else {
                continue;
            };
            for sample in samples.iter().filter(|sample| base_name(sample.name) == name) {
                scrape.observe(*distribution, sample);
            }
        }
        // A histogram without buckets cannot be used, whatever its sum says.
        scrape.distributions.retain(|_, seen| !seen.buckets.is_empty());
        scrape
    }

    fn observe(&mut self, distribution: Distribution, sample: &Sample<'_>) {
        let part = sample.name.strip_prefix(base_name(sample.name));
        let key = (distribution, series(sample));
        match part {
            Some("_bucket") => {
                if let Some(bound) = sample.label("le").and_then(Bound::parse) {
                    self.distributions
                        .entry(key)
                        .or_default()
                        .buckets
                        .insert(bound, sample.value);
                }
            }
            Some("_sum") => self.distributions.entry(key).or_default().sum = sample.value,
            _ => {}
        }
    }

    /// Nothing in the answer is a quantity over time.
    pub(crate) fn is_empty(&self) -> bool {
        self.counters.is_empty() && self.distributions.is_empty()
    }
}

/// The name of a histogram from the name of one of its series.
fn base_name(name: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

fn series(sample: &Sample<'_>) -> Series {
    let mut labels: Vec<_> = sample.labels.iter().filter(|(key, _)| *key != "le").collect();
    labels.sort_unstable();
    labels.iter().fold(String::new(), |mut text, (key, value)| {
        text.push_str(key);
        text.push('=');
        text.push_str(value);
        text.push('\u{1f}');
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]

    use super::*;

    const NAMES: Names = Names {
        running: &["new_running", "old_running"],
        queued: &["queued"],
        counters: &[(Counter::PromptTokens, &["prompt_total"])],
        distributions: &[(Distribution::TimeToFirstToken, &["ttft"])],
    };

    #[test]
    fn an_answer_is_sorted_into_quantities() {
        let text = "new_running{i=\"0\"} 2\nnew_running{i=\"1\"} 3\nold_running 9\nprompt_total 70\n\
                    ttft_bucket{m=\"a\",le=\"1\"} 4\nttft_bucket{le=\"+Inf\",m=\"a\"} 5\nttft_sum{m=\"a\"} 6.5\nttft_count{m=\"a\"} 5\nother 1\n";
        let scrape = Scrape::read(text, &NAMES);
        assert_eq!(
            (scrape.running, scrape.queued),
            (Some(5.0), None),
            "the newer name wins; what is missing is unknown"
        );
        assert_eq!(scrape.counters.values().copied().collect::<Vec<_>>(), [70.0]);
        assert_eq!(scrape.distributions.len(), 1);
        let ttft = scrape.distributions.values().next().unwrap();
        assert_eq!(ttft.sum, 6.5);
        assert_eq!(ttft.buckets.values().copied().collect::<Vec<_>>(), [4.0, 5.0]);
    }

    #[test]
    fn a_histogram_without_buckets_is_none() {
        assert!(Scrape::read("ttft_sum 3\nttft_count 1\n", &NAMES).is_empty());
        assert!(Scrape::read("ttft_bucket{le=\"x\"} 3\n", &NAMES).is_empty());
    }
}
