//! Requests that wait, packed: a server that is far too slow for its traffic leaves most of a trace waiting.
//!
//! A request takes about six bytes: what its arrival differs from that of the one before, and its lengths, each in as few bytes as it needs.

use std::collections::VecDeque;

use crate::trace::Arrival;

/// A queue: first in, first out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog {
    bytes: VecDeque<u8>,
    requests: usize,
    /// Arrival of the request that came in last, and of the one that went out last.
    in_ms: u64,
    out_ms: u64,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests == 0
    }

    pub(crate) fn push(&mut self, request: Arrival) {
        // Requests that come back from another server may be older: small differences of either sign become small numbers.
        let difference = request.arrival_ms.wrapping_sub(self.in_ms).cast_signed();
        self.put(((difference << 1) ^ (difference >> 63)).cast_unsigned());
        self.put(u64::from(request.prompt_tokens));
        self.put(u64::from(request.output_tokens));
        self.in_ms = request.arrival_ms;
        self.requests += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<Arrival> {
        let packed = self.take()?;
        let difference = (packed >> 1) ^ (packed & 1).wrapping_neg();
        let mut tokens = || u32::try_from(self.take()?).ok();
        let (prompt_tokens, output_tokens) = (tokens()?, tokens()?);
        self.out_ms = self.out_ms.wrapping_add(difference);
        self.requests -= 1;
        Some(Arrival {
            arrival_ms: self.out_ms,
            prompt_tokens,
            output_tokens,
        })
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn put(&mut self, mut number: u64) {
        loop {
            let [low, ..] = number.to_le_bytes();
            number >>= 7;
            if number == 0 {
                return self.bytes.push_back(low);
            }
            self.bytes.push_back(low | 0x80);
        }
    }

    fn take(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.bytes.pop_front()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_waits_comes_out_as_it_went_in(
            steps in prop::collection::vec((any::<bool>(), 0_u64..5_000_000_000, any::<u32>(), any::<u32>()), 0..200),
        ) {
            let mut backlog = Backlog::default();
            let mut plain = VecDeque::new();
            for (out, arrival_ms, prompt_tokens, output_tokens) in steps {
                if out {
                    prop_assert_eq!(backlog.pop(), plain.pop_front());
                } else {
                    let request = Arrival { arrival_ms, prompt_tokens, output_tokens };
                    backlog.push(request);
                    plain.push_back(request);
                }
                prop_assert_eq!(backlog.is_empty(), plain.is_empty());
            }
        }
    }

    #[test]
    fn a_request_takes_few_bytes() {
        let mut backlog = Backlog::default();
        for index in 0..1_000_u64 {
            backlog.push(Arrival {
                arrival_ms: index * 1_500,
                prompt_tokens: 1_155,
                output_tokens: 211,
            });
        }
        assert_eq!(backlog.bytes.len(), 6 * 1_000 - 1);
    }
}
