//! Buckets in a row, packed in blocks: a thousand pools have more than a million of them, and nearly all are passed on from copy to copy
//! without a change.

use std::collections::VecDeque;
use std::sync::Arc;

use super::bits::Bits;
use super::history::{Bucket, Counts};

/// Buckets of a block.
const BLOCK: usize = 24;

/// A queue of buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buckets {
    /// Full ones.
    blocks: VecDeque<Arc<Block>>,
    /// So many buckets of the first block are gone.
    gone: usize,
    /// Those that do not fill a block yet.
    open: Vec<Bucket>,
}

impl PartialEq for Buckets {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Buckets {}

impl FromIterator<Bucket> for Buckets {
    fn from_iter<I: IntoIterator<Item = Bucket>>(buckets: I) -> Self {
        let mut new = Self::default();
        buckets.into_iter().for_each(|bucket| new.push_back(bucket));
        new
    }
}

impl Buckets {
    pub(crate) const fn new() -> Self {
        Self {
            blocks: VecDeque::new(),
            gone: 0,
            open: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len() * BLOCK + self.open.len() - self.gone
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Bucket> {
        let blocks = self.blocks.iter().flat_map(|block| block.unpack());
        blocks.chain(self.open.iter().copied()).skip(self.gone)
    }

    /// The last ones, at most so many.
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = Bucket> {
        // Blocks that are not wanted are not unpacked.
        let skipped = self.len().saturating_sub(count) + self.gone;
        let blocks = self
            .blocks
            .iter()
            .skip(skipped / BLOCK)
            .flat_map(|block| block.unpack());
        let first = (skipped / BLOCK).min(self.blocks.len()) * BLOCK;
        blocks.chain(self.open.iter().copied()).skip(skipped - first)
    }

    pub(crate) fn push_back(&mut self, bucket: Bucket) {
        self.open.push(bucket);
        if self.open.len() > BLOCK {
            let block = self.open.drain(..BLOCK);
            self.blocks.push_back(Arc::new(Block::new(block.as_slice())));
        }
    }

    pub(crate) fn pop_front(&mut self) {
        if self.blocks.is_empty() {
            if !self.open.is_empty() {
                self.open.remove(0);
            }
            return;
        }
        self.gone += 1;
        if self.gone == BLOCK {
            self.blocks.pop_front();
            self.gone = 0;
        }
    }

    /// Changes one; the last one is changed most of the time. False if there is none.
    pub(crate) fn change(&mut self, index: usize, change: impl FnOnce(&mut Bucket)) -> bool {
        let at = index + self.gone;
        let packed = self.blocks.len() * BLOCK;
        if let Some(bucket) = at.checked_sub(packed).and_then(|at| self.open.get_mut(at)) {
            change(bucket);
            return true;
        }
        let Some(block) = self.blocks.get_mut(at / BLOCK) else {
            return false;
        };
        let mut buckets: Vec<Bucket> = block.unpack().collect();
        if let Some(bucket) = buckets.get_mut(at % BLOCK) {
            change(bucket);
        }
        *block = Arc::new(Block::new(&buckets));
        true
    }

    /// Puts so many empty ones in front.
    pub(crate) fn prepend(&mut self, count: usize) {
        let empty = std::iter::repeat_n(Bucket::default(), count);
        *self = empty.chain(self.iter()).collect();
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        if length < self.len() {
            *self = self.iter().take(length).collect();
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

/// Columns of a block.
#[derive(Clone, Debug)]
struct Block {
    requests: Bits,
    prompt_tokens: Bits,
    output_tokens: Bits,
    measured_ms: Bits,
}

impl Block {
    fn new(buckets: &[Bucket]) -> Self {
        let column = |of: fn(&Bucket) -> u64| Bits::new(buckets.iter().map(of));
        Self {
            requests: column(|bucket| bucket.counts.requests),
            prompt_tokens: column(|bucket| bucket.counts.prompt_tokens),
            output_tokens: column(|bucket| bucket.counts.output_tokens),
            measured_ms: column(|bucket| u64::from(bucket.measured_ms)),
        }
    }

    fn unpack(&self) -> impl Iterator<Item = Bucket> {
        let tokens = self.prompt_tokens.unpack().zip(self.output_tokens.unpack());
        let each = self.requests.unpack().zip(tokens).zip(self.measured_ms.unpack());
        each.map(|((requests, (prompt_tokens, output_tokens)), measured_ms)| Bucket {
            counts: Counts {
                requests,
                prompt_tokens,
                output_tokens,
            },
            measured_ms: u32::try_from(measured_ms).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(requests: u64) -> Bucket {
        Bucket {
            counts: Counts {
                requests,
                prompt_tokens: requests.wrapping_mul(997),
                output_tokens: requests / 3,
            },
            measured_ms: u32::from(requests > 0) * 300_000,
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_queue_does(steps in prop::collection::vec((0..8_u8, any::<u64>(), 0..90_usize), 0..400)) {
            let (mut packed, mut plain) = (Buckets::new(), VecDeque::new());
            for (kind, value, index) in steps {
                match kind {
                    0 => {
                        packed.pop_front();
                        plain.pop_front();
                    }
                    1 => {
                        let known = packed.change(index, |changed| *changed = bucket(value));
                        prop_assert_eq!(known, index < plain.len());
                        if let Some(changed) = plain.get_mut(index) {
                            *changed = bucket(value);
                        }
                    }
                    2 if value % 16 == 0 => {
                        packed.truncate(index);
                        plain.truncate(index);
                    }
                    3 if value % 16 == 0 => {
                        packed.prepend(index % 5);
                        (0..index % 5).for_each(|_| plain.push_front(Bucket::default()));
                    }
                    _ => {
                        packed.push_back(bucket(value % 5_000));
                        plain.push_back(bucket(value % 5_000));
                    }
                }
                prop_assert_eq!(packed.len(), plain.len());
            }
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), Vec::from(plain.clone()));
            prop_assert_eq!(&packed, &plain.iter().copied().collect());
            for count in [0, 1, 30, 1_000] {
                let last = plain.iter().copied().skip(plain.len().saturating_sub(count));
                prop_assert!(packed.last(count).eq(last));
            }
        }
    }
}
