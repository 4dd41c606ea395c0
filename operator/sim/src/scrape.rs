//! What a gateway's metrics say about the simulated requests: scraped at every tick, seen one tick later.

use std::collections::VecDeque;

use pomarium_kernel::snapshot::{Metric, Objective};

use crate::histogram::{Histogram, bucket};
use crate::score::Answered;

/// How far back the rings reach: five minutes of ticks of 15 s, and one more to take differences.
const KEPT: usize = 21;
/// Lengths of so many requests are kept for the mix.
const LENGTHS: usize = 2_000;

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    arrived: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    answered: u64,
    answered_prompt_tokens: u64,
    answered_output_tokens: u64,
    ttft_ms: f64,
    itl_ms: f64,
    with_itl: u64,
    /// Answered with a latency of its metric, per objective, at most four.
    measured: [u64; 4],
    /// Within the threshold, of these.
    within: [u64; 4],
}

/// What the metrics said at a tick.
#[derive(Clone, Debug)]
struct Sample {
    at_ms: i64,
    counters: Counters,
    /// A gauge: requests without an answer, running and waiting.
    in_flight: u64,
    ttft: Histogram,
    itl: Histogram,
    engines: Vec<Engines>,
}

/// What the engines of one group have answered.
#[derive(Clone, Debug, Default)]
struct Engines {
    answered: u64,
    ttft: Histogram,
    itl: Histogram,
}

/// What the metrics said lately.
#[derive(Clone, Debug)]
pub struct Scrapes {
    thresholds: Vec<(Metric, f64)>,
    now: Counters,
    ttft: Histogram,
    itl: Histogram,
    engines: Vec<Engines>,
    samples: VecDeque<Sample>,
    lengths: VecDeque<(u32, u32)>,
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// When they were scraped, in ms.
    pub at_ms: i64,
    /// Requests that arrived.
    pub requests: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Prompt tokens of these.
    pub prompt_tokens: u64,
    /// Output tokens of these.
    pub output_tokens: u64,
    /// Those of them with a latency of its metric, per objective.
    pub measured: Vec<u64>,
    /// Those of these that were over the threshold.
    pub missed: Vec<u64>,
}

/// Differences over a span of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The newest sample.
    pub at_ms: i64,
    /// Its length.
    pub seconds: f64,
    /// Requests per second.
    pub rate: f64,
    /// Mean prompt, in tokens; 0 without requests.
    pub mean_prompt: f64,
    /// Mean output, in tokens; 0 without requests.
    pub mean_output: f64,
    /// Answered requests.
    pub answered: u64,
    /// Their mean TTFT, in ms.
    pub mean_ttft_ms: f64,
    /// Their mean ITL, in ms.
    pub mean_itl_ms: f64,
    /// Share within the threshold, per objective.
    pub attained: [f64; 4],
    /// Requests without an answer, running and waiting, on average over the samples.
    pub in_flight: f64,
}

impl Scrapes {
    pub(crate) fn new(objectives: &[Objective], groups: usize) -> Self {
        let threshold = |objective: &Objective| (objective.metric, objective.threshold.as_millis() as f64);
        Self {
            thresholds: objectives.iter().take(4).map(threshold).collect(),
            now: Counters::default(),
            ttft: Histogram::default(),
            itl: Histogram::default(),
            engines: vec![Engines::default(); groups],
            samples: VecDeque::with_capacity(KEPT + 1),
            lengths: VecDeque::with_capacity(LENGTHS + 1),
        }
    }

    pub(crate) fn arrived(&mut self, prompt: u32, output: u32) {
        self.now.arrived += 1;
        self.now.prompt_tokens += u64::from(prompt);
        self.now.output_tokens += u64::from(output);
        self.lengths.push_back((prompt, output));
        if self.lengths.len() > LENGTHS {
            self.lengths.pop_front();
        }
    }

    pub(crate) fn answered(&mut self, group: usize, request: &Answered) {
        // Gateway and engines count in the same buckets.
        let ttft = bucket(request.ttft_ms);
        let itl = request.itl_ms.map(bucket);
        let mut counted = [Some((&mut self.ttft, &mut self.itl)), None];
        if let Some(engines) = self.engines.get_mut(group) {
            engines.answered += 1;
            counted[1] = Some((&mut engines.ttft, &mut engines.itl));
        }
        for (first_token, between_tokens) in counted.into_iter().flatten() {
            first_token.count(ttft);
            if let Some(itl) = itl {
                between_tokens.count(itl);
            }
        }
        self.now.answered += 1;
        self.now.answered_prompt_tokens += u64::from(request.prompt_tokens);
        self.now.answered_output_tokens += u64::from(request.output_tokens);
        self.now.ttft_ms += request.ttft_ms;
        self.now.itl_ms += request.itl_ms.unwrap_or(0.0);
        self.now.with_itl += u64::from(request.itl_ms.is_some());
        let counts = self.now.measured.iter_mut().zip(&mut self.now.within);
        for ((measured, within), (metric, threshold_ms)) in counts.zip(&self.thresholds) {
            let value_ms = match metric {
                Metric::TimeToFirstToken => Some(request.ttft_ms),
                Metric::InterTokenLatency => request.itl_ms,
            };
            *measured += u64::from(value_ms.is_some());
            *within += u64::from(value_ms.is_some_and(|value_ms| value_ms <= *threshold_ms));
        }
    }

    pub(crate) fn scrape(&mut self, at_ms: i64, in_flight: u64) {
        self.samples.push_back(Sample {
            at_ms,
            counters: self.now,
            in_flight,
            ttft: self.ttft.clone(),
            itl: self.itl.clone(),
            engines: self.engines.clone(),
        });
        if self.samples.len() > KEPT {
            self.samples.pop_front();
        }
    }

    /// What was counted since the start, up to the newest sample; `None` before the first.
    pub fn totals(&self) -> Option<Totals> {
        let newest = self.samples.back()?;
        let counters = &newest.counters;
        let measured = &counters.measured[..self.thresholds.len()];
        let missed = measured.iter().zip(&counters.within);
        Some(Totals {
            at_ms: newest.at_ms,
            requests: newest.counters.arrived,
            answered: newest.counters.answered,
            prompt_tokens: newest.counters.answered_prompt_tokens,
            output_tokens: newest.counters.answered_output_tokens,
            measured: measured.to_vec(),
            missed: missed.map(|(measured, within)| measured - within).collect(),
        })
    }

    /// The last `seconds`, or as much of them as there is; `None` with fewer than two samples.
    pub fn window(&self, seconds: f64) -> Option<Window> {
        let (oldest, newest) = self.ends(seconds)?;
        let (new, old) = (&newest.counters, &oldest.counters);
        let seconds = (newest.at_ms - oldest.at_ms) as f64 / 1_000.0;
        let arrived = (new.arrived - old.arrived) as f64;
        let answered = new.answered - old.answered;
        let per = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        let mut attained = [1.0; 4];
        for (objective, share) in attained.iter_mut().enumerate() {
            let measured = new.measured[objective] - old.measured[objective];
            if measured > 0 {
                *share = (new.within[objective] - old.within[objective]) as f64 / measured as f64;
            }
        }
        Some(Window {
            at_ms: newest.at_ms,
            seconds,
            rate: arrived / seconds,
            mean_prompt: per((new.prompt_tokens - old.prompt_tokens) as f64, arrived),
            mean_output: per((new.output_tokens - old.output_tokens) as f64, arrived),
            answered,
            mean_ttft_ms: per(new.ttft_ms - old.ttft_ms, answered as f64),
            mean_itl_ms: per(new.itl_ms - old.itl_ms, (new.with_itl - old.with_itl) as f64),
            in_flight: self.in_flight(oldest.at_ms),
            attained,
        })
    }

    /// The value of `metric` at `percentile` over the requests answered in the last `seconds`, in ms, as a gateway's histogram
    /// tells it; `None` if none was.
    pub fn percentile(&self, metric: Metric, percentile: f64, seconds: f64) -> Option<f64> {
        let (oldest, newest) = self.ends(seconds)?;
        match metric {
            Metric::TimeToFirstToken => newest.ttft.since(Some(&oldest.ttft), percentile),
            Metric::InterTokenLatency => newest.itl.since(Some(&oldest.itl), percentile),
        }
    }

    /// The same of the engines of one group alone.
    pub(crate) fn percentile_of(&self, group: usize, metric: Metric, percentile: f64, seconds: f64) -> Option<f64> {
        let (oldest, newest) = self.ends(seconds)?;
        let (oldest, newest) = (oldest.engines.get(group)?, newest.engines.get(group)?);
        match metric {
            Metric::TimeToFirstToken => newest.ttft.since(Some(&oldest.ttft), percentile),
            Metric::InterTokenLatency => newest.itl.since(Some(&oldest.itl), percentile),
        }
    }

    /// Requests that the engines of one group answered in the last `seconds`.
    pub(crate) fn answered_by(&self, group: usize, seconds: f64) -> Option<u64> {
        let (oldest, newest) = self.ends(seconds)?;
        Some(newest.engines.get(group)?.answered - oldest.engines.get(group)?.answered)
    }

    /// The oldest and the newest sample of the last `seconds`; `None` with fewer than two.
    fn ends(&self, seconds: f64) -> Option<(&Sample, &Sample)> {
        let newest = self.samples.back()?;
        let oldest = self
            .samples
            .iter()
            .find(|sample| (newest.at_ms - sample.at_ms) as f64 <= seconds * 1_000.0)
            .filter(|sample| sample.at_ms < newest.at_ms)?;
        Some((oldest, newest))
    }

    /// Mean of the gauge over the samples after `from_ms`.
    fn in_flight(&self, from_ms: i64) -> f64 {
        let after = self.samples.iter().filter(|sample| sample.at_ms > from_ms);
        let (count, sum) = after.fold((0_u32, 0), |(count, sum), sample| (count + 1, sum + sample.in_flight));
        sum as f64 / f64::from(count.max(1))
    }

    /// Prompt and output lengths of the requests seen lately, oldest first.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        self.lengths.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pomarium_kernel::time::Span;
    use pomarium_kernel::units::Fraction;

    use super::*;

    #[test]
    fn an_answer_of_one_token_has_no_latency_between_tokens_and_neither_meets_nor_misses_it() {
        let objective = |metric, millis| Objective {
            metric,
            percentile: Fraction::new(0.95),
            threshold: Span::from_millis(millis),
            window: Span::from_hours(24),
        };
        let mut scrapes = Scrapes::new(
            &[
                objective(Metric::TimeToFirstToken, 1_000),
                objective(Metric::InterTokenLatency, 50),
            ],
            1,
        );
        scrapes.scrape(0, 0);
        for itl_ms in [None, None, Some(40.0), Some(60.0)] {
            let request = Answered {
                arrival_ms: 0,
                prompt_tokens: 100,
                output_tokens: 1,
                ttft_ms: 500.0,
                itl_ms,
            };
            scrapes.answered(0, &request);
        }
        scrapes.scrape(15_000, 0);
        let totals = scrapes.totals().unwrap();
        assert_eq!(
            (totals.answered, totals.measured, totals.missed),
            (4, vec![4, 2], vec![0, 1])
        );
        let window = scrapes.window(60.0).unwrap();
        assert_eq!(window.attained[..2], [1.0, 0.5]);
    }
}
