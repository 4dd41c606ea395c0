//! How long requests are, as far as it must be known before any is simulated.
//!
//! Counted as they stream by: memory does not grow with their number.

use pomarium_kernel::random::SplitMix;
use pomarium_kernel::snapshot::LengthMix;
use pomarium_kernel::units::Rate;

use crate::trace::Arrival;

/// Classes of the length mix that objectives are judged by: fine enough that a 99th percentile is one of them.
const FINE: usize = 2_000;

/// Classes of the length mix that a planner gets: as many as the controller measures.
const COARSE: usize = 64;

/// Lengths of so many requests are kept, 24 MB: of more a random sample, which moves a percentile by less than a hundredth of a percent
/// of the requests.
const MOST: usize = 3_000_000;

/// What is known of the requests before any is simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Lengths {
    pub(crate) fine: LengthMix,
    pub(crate) coarse: LengthMix,
    /// Mean prompt, in tokens.
    pub mean_prompt: f64,
    /// 95th percentile of the prompts, in tokens.
    pub p95_prompt: u32,
    /// Mean output, in tokens.
    pub mean_output: f64,
    pub(crate) rate: Rate,
}

/// Counts requests as they come.
#[derive(Debug)]
pub struct Tally {
    requests: u64,
    first_ms: u64,
    last_ms: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    sample: Sample,
}

impl Default for Tally {
    fn default() -> Self {
        Self::keeping(MOST)
    }
}

impl Tally {
    /// Keeps the lengths of at most so many.
    fn keeping(most: usize) -> Self {
        Self {
            requests: 0,
            first_ms: 0,
            last_ms: 0,
            prompt_tokens: 0,
            output_tokens: 0,
            sample: Sample {
                kept: Vec::new(),
                most,
                random: SplitMix::new(0),
            },
        }
    }

    /// The next request.
    pub fn add(&mut self, request: &Arrival) {
        if self.requests == 0 {
            self.first_ms = request.arrival_ms;
        }
        self.last_ms = request.arrival_ms;
        self.prompt_tokens += u64::from(request.prompt_tokens);
        self.output_tokens += u64::from(request.output_tokens);
        self.sample
            .add(self.requests, (request.prompt_tokens, request.output_tokens));
        self.requests += 1;
    }

    /// How many there were.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// When the last one came, in ms.
    pub fn last_ms(&self) -> Option<u64> {
        (self.requests > 0).then_some(self.last_ms)
    }

    /// Their lengths; `None` if there were none.
    pub fn lengths(self) -> Option<Lengths> {
        let mut samples = self.sample.kept;
        samples.sort_unstable();
        let rank = (samples.len() * 95).div_ceil(100).saturating_sub(1);
        let (p95_prompt, _) = *samples.get(rank)?;
        let count = self.requests as f64;
        let seconds = self.last_ms.saturating_sub(self.first_ms) as f64 / 1e3;
        Some(Lengths {
            fine: LengthMix::from_sorted(&samples, FINE)?,
            coarse: LengthMix::from_sorted(&samples, COARSE)?,
            mean_prompt: self.prompt_tokens as f64 / count,
            p95_prompt,
            mean_output: self.output_tokens as f64 / count,
            rate: Rate::per_second(if seconds > 0.0 { count / seconds } else { 0.0 }),
        })
    }
}

/// The first requests, and when there are more than are kept, a random choice of all: each is as likely to be in it as any other
/// (Vitter's algorithm R).
#[derive(Debug)]
struct Sample {
    kept: Vec<(u32, u32)>,
    most: usize,
    random: SplitMix,
}

impl Sample {
    /// The request that comes after `before` others.
    fn add(&mut self, before: u64, lengths: (u32, u32)) {
        if self.kept.len() < self.most {
            self.kept.push(lengths);
            return;
        }
        let place = self
            .random
            .below(usize::try_from(before).unwrap_or(usize::MAX).saturating_add(1));
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = lengths;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request(index: u64) -> Arrival {
        // Every second prompt is long, so that a sample of every second request would be of one kind.
        let prompt_tokens = if index.is_multiple_of(2) { 100 } else { 900 } + u32::try_from(index % 89).unwrap();
        Arrival {
            arrival_ms: index * 50,
            prompt_tokens,
            output_tokens: 10 + u32::try_from(index % 7).unwrap(),
        }
    }

    #[test]
    fn few_requests_are_counted_exactly() {
        let mut tally = Tally::default();
        assert_eq!(tally.last_ms(), None);
        (0..2_000).for_each(|index| tally.add(&request(index)));
        assert_eq!((tally.requests(), tally.last_ms()), (2_000, Some(99_950)));
        let lengths = tally.lengths().unwrap();
        let mut prompts: Vec<u32> = (0..2_000).map(|index| request(index).prompt_tokens).collect();
        prompts.sort_unstable();
        assert_eq!(lengths.p95_prompt, prompts[1_899]);
        let mean = prompts.iter().map(|&prompt| f64::from(prompt)).sum::<f64>() / 2_000.0;
        assert_eq!(lengths.mean_prompt.to_bits(), mean.to_bits());
        let pairs = (0..2_000).map(|index| (request(index).prompt_tokens, request(index).output_tokens));
        assert_eq!(LengthMix::from_samples(pairs, COARSE), Some(lengths.coarse));
        assert_eq!(Tally::default().lengths(), None);
    }

    #[test]
    fn of_many_requests_no_more_is_kept_than_of_some() {
        let of = |requests: u64, most: usize| {
            let mut tally = Tally::keeping(most);
            for index in 0..requests {
                tally.add(&request(index));
                assert!(tally.sample.kept.len() <= most);
            }
            tally.lengths().unwrap()
        };
        let (exact, sampled) = (of(400_000, 400_000), of(400_000, 40_000));
        assert_eq!(
            (exact.mean_prompt.to_bits(), exact.mean_output.to_bits(), exact.rate),
            (
                sampled.mean_prompt.to_bits(),
                sampled.mean_output.to_bits(),
                sampled.rate
            )
        );
        assert!(exact.p95_prompt.abs_diff(sampled.p95_prompt) <= 2);
        // Not at one half, where the prompts jump from short to long.
        for at in [10, 40, 60, 90, 99] {
            let class = |lengths: &Lengths| f64::from(lengths.fine.classes[at * FINE / 100].0);
            let (exact, sampled) = (class(&exact), class(&sampled));
            assert!((exact / sampled - 1.0).abs() < 0.03, "at {at} %: {exact} and {sampled}");
        }
    }
}
