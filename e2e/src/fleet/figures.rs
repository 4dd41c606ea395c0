//! What an engine counts, and how each kind of engine tells it in Prometheus' text format.
//!
//! Names and units are the real engines' own; seconds are virtual. What an engine does not export is not exported here
//! either: llama.cpp knows no distribution of TTFT or ITL, and counts an answer's tokens when it is finished.

use std::fmt::Write as _;

use pomarium_api::pool::EngineType;

const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
/// vllm-mlx stops at 10 s: what is slower is only known to be slower.
const TTFT_UP_TO_10: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const PER_TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const WHOLE: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
const LENGTH: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0,
];

#[derive(Clone, Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// One per bound, and one beyond the last.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }
}

/// One finished request, in virtual ns of the engine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    pub(crate) arrived: u64,
    pub(crate) first_token: u64,
    pub(crate) last_token: u64,
    pub(crate) prompt: u32,
    pub(crate) output: u32,
}

/// What one engine has counted since its process started.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Requests in the batch.
    pub(crate) running: u64,
    /// Tokens of KV cache reserved.
    pub(crate) kv_reserved: u64,
    /// Requests that have left the engine, finished or cancelled.
    pub(crate) left: u64,
    finished: u64,
    prompt_tokens: u64,
    prompt_secs: f64,
    tokens: u64,
    finished_tokens: u64,
    finished_secs: f64,
    iterations: u64,
    /// Sum over iterations of the sequences in them.
    busy: u64,
    ttft: Histogram,
    itl: Histogram,
    per_token: Histogram,
    whole: Histogram,
    prompt_length: Histogram,
    output_length: Histogram,
}

/// What never changes of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) engine: EngineType,
    pub(crate) model: String,
    pub(crate) kv_tokens: u64,
}

fn secs(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Figures {
    pub(crate) fn new(engine: EngineType) -> Self {
        let ttft = if engine == EngineType::VllmMlx {
            TTFT_UP_TO_10
        } else {
            TTFT
        };
        Self {
            running: 0,
            kv_reserved: 0,
            left: 0,
            finished: 0,
            prompt_tokens: 0,
            prompt_secs: 0.0,
            tokens: 0,
            finished_tokens: 0,
            finished_secs: 0.0,
            iterations: 0,
            busy: 0,
            ttft: Histogram::new(ttft),
            itl: Histogram::new(PER_TOKEN),
            per_token: Histogram::new(PER_TOKEN),
            whole: Histogram::new(WHOLE),
            prompt_length: Histogram::new(LENGTH),
            output_length: Histogram::new(LENGTH),
        }
    }

    /// An iteration with `sequences` in it has ended.
    pub(crate) fn iteration(&mut self, sequences: u64) {
        self.iterations += 1;
        self.busy += sequences;
    }

    /// A request that came `waited_ns` ago has its first token.
    pub(crate) fn first_token(&mut self, waited_ns: u64, prompt: u32) {
        self.tokens += 1;
        self.prompt_tokens += u64::from(prompt);
        self.prompt_secs += secs(waited_ns);
        self.ttft.observe(secs(waited_ns));
    }

    /// A request has another token, `gap_ns` after the one before.
    pub(crate) fn next_token(&mut self, gap_ns: u64) {
        self.tokens += 1;
        self.itl.observe(secs(gap_ns));
    }

    /// A request has its last token, which was counted already.
    pub(crate) fn finished(&mut self, request: Finished) {
        self.finished += 1;
        self.left += 1;
        let decoding = secs(request.last_token.saturating_sub(request.first_token));
        self.finished_tokens += u64::from(request.output);
        self.finished_secs += decoding;
        if request.output > 1 {
            self.per_token.observe(decoding / f64::from(request.output - 1));
        }
        self.whole
            .observe(secs(request.last_token.saturating_sub(request.arrived)));
        self.prompt_length.observe(f64::from(request.prompt));
        self.output_length.observe(f64::from(request.output));
    }

    /// Tokens yielded.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The answer of `/metrics`, with `queued` requests waiting.
    pub(crate) fn text(&self, kind: &Kind, queued: u64) -> String {
        let mut text = Text::default();
        match kind.engine {
            EngineType::LlamaCpp => self.llama_cpp(&mut text, queued),
            EngineType::Vllm | EngineType::VllmMetal => {
                text.labels = format!("engine=\"0\",model_name=\"{}\"", kind.model);
                self.vllm(&mut text, kind, queued);
            }
            EngineType::VllmMlx => self.vllm_mlx(&mut text, kind, queued),
            EngineType::SGLang => {
                text.labels = format!("model_name=\"{}\"", kind.model);
                self.sglang(&mut text, kind, queued);
            }
        }
        text.out
    }

    fn kv_usage(&self, kind: &Kind) -> f64 {
        self.kv_reserved as f64 / kind.kv_tokens.max(1) as f64
    }

    fn llama_cpp(&self, text: &mut Text, queued: u64) {
        text.counter("llamacpp:prompt_tokens_total", self.prompt_tokens as f64);
        text.counter("llamacpp:prompt_seconds_total", self.prompt_secs);
        text.counter("llamacpp:tokens_predicted_total", self.finished_tokens as f64);
        text.counter("llamacpp:tokens_predicted_seconds_total", self.finished_secs);
        text.counter("llamacpp:n_decode_total", self.iterations as f64);
        text.gauge(
            "llamacpp:n_busy_slots_per_decode",
            ratio(self.busy as f64, self.iterations as f64),
        );
        text.gauge(
            "llamacpp:prompt_tokens_seconds",
            ratio(self.prompt_tokens as f64, self.prompt_secs),
        );
        text.gauge(
            "llamacpp:predicted_tokens_seconds",
            ratio(self.finished_tokens as f64, self.finished_secs),
        );
        text.gauge("llamacpp:requests_processing", self.running as f64);
        text.gauge("llamacpp:requests_deferred", queued as f64);
    }

    fn vllm(&self, text: &mut Text, kind: &Kind, queued: u64) {
        text.gauge("vllm:num_requests_running", self.running as f64);
        text.gauge("vllm:num_requests_waiting", queued as f64);
        text.gauge("vllm:kv_cache_usage_perc", self.kv_usage(kind));
        text.counter("vllm:num_preemptions_total", 0.0);
        text.counter("vllm:prompt_tokens_total", self.prompt_tokens as f64);
        text.counter("vllm:generation_tokens_total", self.tokens as f64);
        text.counter("vllm:request_success_total", self.finished as f64);
        text.histogram("vllm:time_to_first_token_seconds", &self.ttft);
        text.histogram("vllm:inter_token_latency_seconds", &self.itl);
        text.histogram("vllm:request_time_per_output_token_seconds", &self.per_token);
        text.histogram("vllm:e2e_request_latency_seconds", &self.whole);
        text.histogram("vllm:request_prompt_tokens", &self.prompt_length);
        text.histogram("vllm:request_generation_tokens", &self.output_length);
    }

    fn vllm_mlx(&self, text: &mut Text, kind: &Kind, queued: u64) {
        text.gauge("vllm_mlx_scheduler_running_requests", self.running as f64);
        text.gauge("vllm_mlx_scheduler_waiting_requests", queued as f64);
        text.gauge("vllm_mlx_cache_utilization_ratio", self.kv_usage(kind));
        text.counter("vllm_mlx_prompt_tokens_total", self.prompt_tokens as f64);
        text.counter("vllm_mlx_completion_tokens_total", self.tokens as f64);
        text.histogram("vllm_mlx_inference_ttft_seconds", &self.ttft);
    }

    fn sglang(&self, text: &mut Text, kind: &Kind, queued: u64) {
        text.gauge("sglang:num_running_reqs", self.running as f64);
        text.gauge("sglang:num_queue_reqs", queued as f64);
        text.gauge("sglang:token_usage", self.kv_usage(kind));
        text.gauge("sglang:cache_hit_rate", 0.0);
        text.counter("sglang:prompt_tokens_total", self.prompt_tokens as f64);
        text.counter("sglang:generation_tokens_total", self.tokens as f64);
        text.counter("sglang:num_requests_total", self.finished as f64);
        text.histogram("sglang:time_to_first_token_seconds", &self.ttft);
        text.histogram("sglang:inter_token_latency_seconds", &self.itl);
        text.histogram("sglang:e2e_request_latency_seconds", &self.whole);
    }
}

fn ratio(of: f64, per: f64) -> f64 {
    if per > 0.0 { of / per } else { 0.0 }
}

#[derive(Default)]
struct Text {
    labels: String,
    out: String,
}

// Writing into a String cannot fail.
impl Text {
    fn counter(&mut self, name: &str, value: f64) {
        self.sample("counter", name, value);
    }

    fn gauge(&mut self, name: &str, value: f64) {
        self.sample("gauge", name, value);
    }

    fn sample(&mut self, kind: &str, name: &str, value: f64) {
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        let _ = match self.labels.as_str() {
            "" => writeln!(self.out, "{name} {value}"),
            labels => writeln!(self.out, "{name}{{{labels}}} {value}"),
        };
    }

    fn histogram(&mut self, name: &str, histogram: &Histogram) {
        let (open, comma) = (&self.labels, if self.labels.is_empty() { "" } else { "," });
        let _ = writeln!(self.out, "# TYPE {name} histogram");
        let mut total = 0;
        let bounds = histogram.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (count, bound) in histogram.counts.iter().zip(bounds) {
            total += count;
            let _ = writeln!(self.out, "{name}_bucket{{{open}{comma}le=\"{bound}\"}} {total}");
        }
        let braces = if open.is_empty() {
            String::new()
        } else {
            format!("{{{open}}}")
        };
        let _ = writeln!(self.out, "{name}_sum{braces} {}", histogram.sum);
        let _ = writeln!(self.out, "{name}_count{braces} {total}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn counted(engine: EngineType) -> String {
        let mut figures = Figures::new(engine);
        figures.running = 2;
        figures.kv_reserved = 250;
        figures.iteration(2);
        figures.first_token(3 * S, 40);
        figures.next_token(S / 10);
        figures.finished(Finished {
            arrived: 0,
            first_token: 3 * S,
            last_token: 3 * S + S / 10,
            prompt: 40,
            output: 2,
        });
        let kind = Kind {
            engine,
            model: "m".into(),
            kv_tokens: 1_000,
        };
        figures.text(&kind, 5)
    }

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn each_engine_tells_its_load_and_tokens_under_its_own_names() {
        let vllm = "{engine=\"0\",model_name=\"m\"}";
        for (engine, labels, names) in [
            (
                EngineType::LlamaCpp,
                "",
                [
                    "llamacpp:requests_processing",
                    "llamacpp:requests_deferred",
                    "llamacpp:prompt_tokens_total",
                    "llamacpp:tokens_predicted_total",
                ],
            ),
            (
                EngineType::VllmMetal,
                vllm,
                [
                    "vllm:num_requests_running",
                    "vllm:num_requests_waiting",
                    "vllm:prompt_tokens_total",
                    "vllm:generation_tokens_total",
                ],
            ),
            (
                EngineType::VllmMlx,
                "",
                [
                    "vllm_mlx_scheduler_running_requests",
                    "vllm_mlx_scheduler_waiting_requests",
                    "vllm_mlx_prompt_tokens_total",
                    "vllm_mlx_completion_tokens_total",
                ],
            ),
            (
                EngineType::SGLang,
                "{model_name=\"m\"}",
                [
                    "sglang:num_running_reqs",
                    "sglang:num_queue_reqs",
                    "sglang:prompt_tokens_total",
                    "sglang:generation_tokens_total",
                ],
            ),
        ] {
            let text = counted(engine);
            for (name, expected) in names.into_iter().zip([2.0, 5.0, 40.0, 2.0]) {
                assert_eq!(
                    value(&text, &format!("{name}{labels}")),
                    Some(expected),
                    "{name} of\n{text}"
                );
            }
        }
    }

    #[test]
    fn histograms_are_cumulative_and_in_virtual_seconds() {
        let text = counted(EngineType::Vllm);
        let bucket = |le: &str| {
            let series =
                format!("vllm:time_to_first_token_seconds_bucket{{engine=\"0\",model_name=\"m\",le=\"{le}\"}}");
            value(&text, &series)
        };
        assert_eq!(
            (bucket("2.5"), bucket("5"), bucket("+Inf")),
            (Some(0.0), Some(1.0), Some(1.0))
        );
        let sum = "vllm:inter_token_latency_seconds_sum{engine=\"0\",model_name=\"m\"}";
        assert_eq!(value(&text, sum), Some(0.1));
    }

    #[test]
    fn llama_cpp_exports_no_distribution() {
        let text = counted(EngineType::LlamaCpp);
        assert!(
            !text.contains("_bucket") && !text.contains("time_to_first_token"),
            "{text}"
        );
    }
}
