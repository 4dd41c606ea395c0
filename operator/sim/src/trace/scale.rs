//! More or fewer requests at the same times.

use std::collections::VecDeque;

use pomarium_kernel::random::SplitMix;

use super::Arrival;

/// Copies are moved forward by up to a minute.
const JITTER_MS: f64 = 60_000.0;

/// Requests are put in order a span at a time.
const SPAN_MS: u64 = 4_096;

/// A trace at a multiple of its rate, as busy and as quiet at the same times.
///
/// Whole copies are superposed, each but the first jittered by up to a minute; of a last, fractional copy every request is kept with
/// that probability. So a factor under 1 thins. The jitter does not make the trace longer: what would come after its last
/// request is left out. The same seed gives the same requests.
///
/// Only what has been read and is not yet due is held: the copies of little more than a minute.
#[derive(Debug)]
pub struct Scaled<I> {
    source: I,
    copies: Vec<Superposed>,
    /// The latest request of the source, if copies that come before it are still due.
    next: Option<Arrival>,
    /// Copies by the span in which they arrive, the earliest span first; not in order there.
    spans: VecDeque<Vec<Arrival>>,
    /// Which span is the first of them. No copy of what is still to be read comes before it.
    first: u64,
    /// How many copies there are in all spans.
    pending: usize,
    /// What is left of the span before, the latest first.
    due: Vec<Arrival>,
    /// Arrival of the last request that was superposed.
    read_ms: u64,
    ended: bool,
}

/// One copy of the trace. Each draws from the place of the generator where it would be if the copies were made one after the other.
#[derive(Debug)]
struct Superposed {
    random: SplitMix,
    /// Requests are kept with this probability, from 1 on always.
    share: f64,
    jittered: bool,
}

impl<I> Scaled<I> {
    /// The `requests` of `source` at `factor` times their rate.
    pub fn new(source: I, requests: u64, factor: f64, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let mut copies = Vec::new();
        let mut rest = if factor.is_finite() { factor.max(0.0) } else { 1.0 };
        while rest > 1e-9 {
            let copy = Superposed {
                random: random.clone(),
                share: rest,
                jittered: !copies.is_empty(),
            };
            random.skip(copy.draws().wrapping_mul(requests));
            copies.push(copy);
            rest -= 1.0;
        }
        Self {
            source,
            copies,
            next: None,
            spans: VecDeque::new(),
            first: 0,
            pending: 0,
            due: Vec::new(),
            read_ms: 0,
            ended: false,
        }
    }
}

impl Superposed {
    /// How many random numbers one request takes.
    fn draws(&self) -> u64 {
        u64::from(self.share < 1.0) + u64::from(self.jittered)
    }

    fn of(&mut self, arrival: Arrival) -> Option<Arrival> {
        let kept = self.share >= 1.0 || self.random.unit() < self.share;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within a minute")]
        let jitter_ms = if self.jittered {
            (self.random.unit() * JITTER_MS) as u64
        } else {
            0
        };
        kept.then_some(Arrival {
            arrival_ms: arrival.arrival_ms + jitter_ms,
            ..arrival
        })
    }
}

impl<I> Scaled<I> {
    /// Puts the copies of `arrival`, which is in the first span, where they arrive.
    fn superpose(&mut self, arrival: Arrival) {
        self.read_ms = arrival.arrival_ms;
        for copy in self.copies.iter_mut().filter_map(|copy| copy.of(arrival)) {
            let place = usize::try_from(copy.arrival_ms / SPAN_MS - self.first).unwrap_or(usize::MAX);
            if self.spans.len() <= place {
                self.spans.resize_with(place + 1, Vec::new);
            }
            self.spans[place].push(copy);
            self.pending += 1;
        }
    }

    /// Moves on to `span`, or only past the next span in which requests are due.
    fn move_on(&mut self, span: u64) {
        while self.first < span && self.due.is_empty() {
            match self.spans.front_mut() {
                Some(first) if self.pending > 0 => {
                    std::mem::swap(first, &mut self.due);
                    self.pending -= self.due.len();
                    // Requests of one time are in the order of their lengths.
                    self.due.sort_unstable_by(|left, right| right.cmp(left));
                    self.spans.rotate_left(1);
                    self.first += 1;
                }
                _ => self.first = span,
            }
        }
    }
}

impl<I, E> Iterator for Scaled<I>
where
    I: Iterator<Item = Result<Arrival, E>>,
{
    type Item = Result<Arrival, E>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(arrival) = self.due.pop() {
                return (!self.ended || arrival.arrival_ms <= self.read_ms).then_some(Ok(arrival));
            }
            if let Some(next) = self.next {
                self.move_on(next.arrival_ms / SPAN_MS);
                if self.due.is_empty() {
                    self.superpose(next);
                    self.next = None;
                }
            } else if self.ended {
                self.move_on(u64::MAX);
                if self.due.is_empty() {
                    return None;
                }
            } else {
                match self.source.next() {
                    Some(Ok(arrival)) => self.next = Some(arrival),
                    Some(Err(error)) => {
                        self.ended = true;
                        self.pending = 0;
                        self.spans.clear();
                        return Some(Err(error));
                    }
                    None => self.ended = true,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn at(arrival_ms: u64) -> Arrival {
        Arrival {
            arrival_ms,
            prompt_tokens: 1,
            output_tokens: 1,
        }
    }

    fn scaled(trace: &[Arrival], factor: f64, seed: u64) -> Vec<Arrival> {
        let source = trace.iter().copied().map(Ok::<_, Infallible>);
        let scaled = Scaled::new(source, trace.len() as u64, factor, seed);
        scaled.map(|Ok(arrival)| arrival).collect()
    }

    /// One copy after the other, then sorted: what the stream must be equal to.
    fn superposed(trace: &[Arrival], factor: f64, seed: u64) -> Vec<Arrival> {
        let mut random = SplitMix::new(seed);
        let mut all = Vec::new();
        let mut rest = factor;
        while rest > 1e-9 {
            let first = rest.to_bits() == factor.to_bits();
            for arrival in trace {
                let keep = rest >= 1.0 || random.unit() < rest;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within a minute")]
                let jitter = if first { 0 } else { (random.unit() * JITTER_MS) as u64 };
                let arrival_ms = arrival.arrival_ms + jitter;
                all.extend(keep.then_some(Arrival { arrival_ms, ..*arrival }));
            }
            rest -= 1.0;
        }
        all.sort();
        let last_ms = trace.last().map_or(0, |last| last.arrival_ms);
        all.retain(|arrival| arrival.arrival_ms <= last_ms);
        all
    }

    /// Bursts, some at one time, and pauses of more than the jitter.
    fn traces() -> impl Strategy<Value = Vec<Arrival>> {
        let pause = prop_oneof![4 => Just(0), 4 => 1_u64..30_000, 1 => 60_000_u64..400_000];
        prop::collection::vec((pause, 1_u32..4, 1_u32..4), 0..120).prop_map(|requests| {
            let mut arrival_ms = 0;
            requests
                .into_iter()
                .map(|(pause, prompt_tokens, output_tokens)| {
                    arrival_ms += pause;
                    Arrival {
                        arrival_ms,
                        prompt_tokens,
                        output_tokens,
                    }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn the_stream_is_what_superposing_whole_copies_gives(
            trace in traces(),
            factor in prop_oneof![0.0..1.0, 1.0..8.0, (1_u32..8).prop_map(f64::from)],
            seed in any::<u64>(),
        ) {
            prop_assert_eq!(scaled(&trace, factor, seed), superposed(&trace, factor, seed));
        }
    }

    #[test]
    fn scaling_keeps_the_shape_and_the_order() {
        let trace: Vec<_> = (0..10_000).map(|index| at(index * 100)).collect();
        assert_eq!(scaled(&trace, 1.0, 7), trace);
        for factor in [0.25, 1.5, 3.0] {
            let scaled = scaled(&trace, factor, 7);
            let share = scaled.len() as f64 / trace.len() as f64 / factor;
            assert!((0.95..=1.05).contains(&share), "factor {factor} gave {}", scaled.len());
            assert!(scaled.is_sorted());
        }
    }

    #[test]
    fn no_more_is_held_than_the_copies_of_a_minute() {
        // A request each 100 ms, without end: who wanted to hold them would never return.
        let endless = (0_u64..).map(|index| Ok::<_, Infallible>(at(index * 100)));
        let mut scaled = Scaled::new(endless, u64::MAX, 5.0, 1);
        for _ in 0..200_000 {
            assert!(scaled.next().is_some());
            let room: usize = scaled.spans.iter().chain([&scaled.due]).map(Vec::capacity).sum();
            assert!(
                scaled.pending <= 5 * 601 && room < 20_000,
                "{} in room for {room}",
                scaled.pending
            );
        }
    }

    #[test]
    fn an_error_of_the_source_is_the_last_that_comes() {
        let source = [Ok(at(0)), Ok(at(90_000)), Err("gone"), Ok(at(91_000))];
        let all: Vec<_> = Scaled::new(source.into_iter(), 3, 1.0, 1).collect();
        assert_eq!(all, [Ok(at(0)), Err("gone")]);
    }
}
