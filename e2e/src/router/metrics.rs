//! What the router exports, by the names of the llm-d endpoint picker (`operator/docs/interfaces.md`, "Measurements").

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, Opts, Registry, TextEncoder};

/// Series of one pool. Times are virtual seconds.
pub(crate) struct Metrics {
    registry: Registry,
    /// Requests received, answered or not.
    pub(crate) requests: IntCounter,
    /// From arrival to the first token.
    pub(crate) ttft: Histogram,
    /// Mean time between the tokens of one request.
    pub(crate) itl: Histogram,
    /// Prompt tokens of one request.
    pub(crate) input_tokens: Histogram,
    /// Output tokens of one request.
    pub(crate) output_tokens: Histogram,
}

/// Whose requests these are.
#[derive(Clone, Debug)]
pub struct Labels {
    /// The model's name, as in `spec.model.name`.
    pub model_name: String,
    /// The pool's namespace.
    pub namespace: String,
    /// The pool's name.
    pub pool: String,
}

/// Virtual seconds that an objective names, so that every threshold is a bucket's bound and attainment is exact.
#[derive(Clone, Debug, Default)]
pub struct Thresholds {
    /// Of TTFT objectives.
    pub ttft: Vec<f64>,
    /// Of ITL objectives.
    pub itl: Vec<f64>,
}

const TTFT: [f64; 20] = [
    0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 60.0, 120.0,
];
const ITL: [f64; 18] = [
    0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0,
];
/// Fine, because the capacity model is fed with the mix of lengths that these show.
const TOKENS: [f64; 24] = [
    8.0, 16.0, 32.0, 64.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 640.0, 768.0, 1024.0, 1280.0, 1536.0, 2048.0,
    2560.0, 3072.0, 3584.0, 4096.0, 4608.0, 6144.0, 8192.0, 16384.0,
];

impl Metrics {
    /// Registers all series with a registry of their own.
    pub(crate) fn new(labels: &Labels, thresholds: &Thresholds) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let constant = [
            ("model_name", &labels.model_name),
            ("namespace", &labels.namespace),
            ("pool", &labels.pool),
        ];
        let opts = |name: &str, help: &str| {
            let start = Opts::new(name, help);
            constant
                .iter()
                .fold(start, |opts, (label, value)| opts.const_label(*label, value.as_str()))
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let opts = HistogramOpts::from(opts(name, help)).buckets(buckets);
            let histogram = Histogram::with_opts(opts)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let requests = IntCounter::with_opts(opts("llm_d_epp_request_total", "Requests received."))?;
        registry.register(Box::new(requests.clone()))?;
        Ok(Self {
            ttft: histogram(
                "llm_d_epp_request_ttft_seconds",
                "From arrival to the first token, in seconds.",
                merged(&TTFT, &thresholds.ttft),
            )?,
            itl: histogram(
                "llm_d_epp_request_streaming_itl_seconds",
                "Mean time between the tokens of a request, in seconds.",
                merged(&ITL, &thresholds.itl),
            )?,
            input_tokens: histogram(
                "llm_d_epp_request_input_tokens",
                "Prompt tokens of a request.",
                TOKENS.to_vec(),
            )?,
            output_tokens: histogram(
                "llm_d_epp_request_output_tokens",
                "Output tokens of a request.",
                TOKENS.to_vec(),
            )?,
            requests,
            registry,
        })
    }

    /// In Prometheus' text format.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// `bounds` with `extra` ones, in order, each once.
fn merged(bounds: &[f64], extra: &[f64]) -> Vec<f64> {
    let usable = extra.iter().filter(|bound| bound.is_finite() && **bound > 0.0);
    let mut all: Vec<f64> = bounds.iter().chain(usable).copied().collect();
    all.sort_by(f64::total_cmp);
    all.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_threshold_is_a_bound_of_its_histogram_and_every_series_says_whose_it_is() {
        let labels = Labels {
            model_name: "m".into(),
            namespace: "n".into(),
            pool: "p".into(),
        };
        let thresholds = Thresholds {
            ttft: vec![9.5, 10.0],
            itl: vec![0.22],
        };
        let metrics = Metrics::new(&labels, &thresholds).unwrap();
        metrics.ttft.observe(9.6);
        let text = metrics.render().unwrap();
        assert!(
            text.contains(r#"ttft_seconds_bucket{model_name="m",namespace="n",pool="p",le="9.5"} 0"#),
            "{text}"
        );
        assert!(
            text.contains(r#"ttft_seconds_bucket{model_name="m",namespace="n",pool="p",le="10"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"itl_seconds_bucket{model_name="m",namespace="n",pool="p",le="0.22"} 0"#),
            "{text}"
        );
        assert!(
            text.contains(r#"llm_d_epp_request_total{model_name="m",namespace="n",pool="p"} 0"#),
            "{text}"
        );
        assert_eq!(text.matches(r#"le="10""#).count(), 1);
    }
}
