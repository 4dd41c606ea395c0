//! Counts of 15 s in a row, packed by the hour: a thousand pools have eleven million of them, and most are passed on from copy to copy
//! without a change.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{BIN, RENEWED};
use crate::forecast::bits::Bits;

/// So many counts are an hour.
const HOUR: i64 = (RENEWED.as_millis() / BIN.as_millis()).cast_signed();

/// A count, one higher than it is so that 0 is a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count(pub(super) u32);

impl Count {
    /// `None` is a gap.
    pub(super) fn get(self) -> Option<u32> {
        self.0.checked_sub(1)
    }

    pub(super) fn of(count: u32) -> Self {
        Self(count.saturating_add(1))
    }

    fn plus(self, more: u32) -> Self {
        Self::of(self.get().unwrap_or(0).saturating_add(more))
    }
}

/// Counts without holes in their numbering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// The number of the first one, in bins of Unix time.
    first: i64,
    /// Whole hours of the clock; the first one may have begun before `first`.
    hours: VecDeque<Arc<Bits>>,
    /// The hour under way.
    open: Vec<Count>,
}

impl Counts {
    pub(super) fn new(first: i64, counts: impl IntoIterator<Item = Count>) -> Self {
        let mut new = Self {
            first,
            ..Self::default()
        };
        counts.into_iter().for_each(|count| new.push(count));
        new
    }

    pub(super) fn first(&self) -> i64 {
        self.first
    }

    /// The number after the last one.
    pub(super) fn end(&self) -> i64 {
        self.open_since() + i64::try_from(self.open.len()).unwrap_or(0)
    }

    pub(super) fn len(&self) -> usize {
        usize::try_from(self.end() - self.first).unwrap_or(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Count> {
        self.closed().chain(self.open.iter().copied())
    }

    /// Those from count `number` on.
    pub(super) fn since(&self, number: i64) -> impl Iterator<Item = Count> {
        let hour = usize::try_from(number.div_euclid(HOUR) - self.first.div_euclid(HOUR)).unwrap_or(0);
        let hour = hour.min(self.hours.len());
        let before = usize::try_from(number - self.begin(hour)).unwrap_or(0);
        let packed = self.hours.range(hour..).flat_map(|hour| unpack(hour));
        packed.chain(self.open.iter().copied()).skip(before)
    }

    /// Those of whole hours.
    pub(super) fn closed(&self) -> impl Iterator<Item = Count> {
        self.hours.iter().flat_map(|hour| unpack(hour))
    }

    /// Whether those of whole hours are the same.
    pub(super) fn closed_alike(&self, other: &Self) -> bool {
        self.first == other.first && self.hours == other.hours
    }

    /// The same without the hour under way.
    pub(super) fn without_open(&self) -> Self {
        Self {
            first: self.first,
            hours: self.hours.clone(),
            open: Vec::new(),
        }
    }

    /// Adds to count `number`; what lies between is a gap.
    pub(super) fn add(&mut self, number: i64, more: u32) {
        while self.end() <= number {
            self.push(Count::default());
        }
        let since = self.open_since();
        if let Some(count) = usize::try_from(number - since)
            .ok()
            .and_then(|at| self.open.get_mut(at))
        {
            *count = count.plus(more);
            return;
        }
        let hour = number.div_euclid(HOUR) - self.first.div_euclid(HOUR);
        let start = (number - number.rem_euclid(HOUR)).max(self.first);
        let (hour, at) = (usize::try_from(hour), usize::try_from(number - start));
        if let (Ok(hour), Ok(at)) = (hour, at)
            && let Some(packed) = self.hours.get_mut(hour)
        {
            let mut counts: Vec<Count> = unpack(packed).collect();
            if let Some(count) = counts.get_mut(at) {
                *count = count.plus(more);
            }
            *packed = pack(&counts);
        }
    }

    /// Forgets the first hour.
    pub(super) fn forget_hour(&mut self) {
        let next = (self.first.div_euclid(HOUR) + 1) * HOUR;
        if self.hours.pop_front().is_some() {
            self.first = next;
        } else {
            self.open.clear();
        }
    }

    /// The number of the first count of the hour under way.
    fn open_since(&self) -> i64 {
        self.begin(self.hours.len())
    }

    /// The number of the first count of an hour, the one under way included.
    fn begin(&self, hour: usize) -> i64 {
        match i64::try_from(hour) {
            Ok(hour) if hour > 0 => (self.first.div_euclid(HOUR) + hour) * HOUR,
            _ => self.first,
        }
    }

    fn push(&mut self, count: Count) {
        self.open.push(count);
        if self.end().rem_euclid(HOUR) == 0 {
            self.hours.push_back(pack(&self.open));
            self.open.clear();
        }
    }
}

fn pack(counts: &[Count]) -> Arc<Bits> {
    Arc::new(Bits::new(counts.iter().map(|count| u64::from(count.0))))
}

fn unpack(hour: &Bits) -> impl Iterator<Item = Count> {
    hour.unpack()
        .map(|count| Count(u32::try_from(count).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = Vec<u32>> {
        let one = prop_oneof![Just(0_u32), 0..9_u32, 0..70_000_u32, Just(u32::MAX)];
        prop::collection::vec(one, 0..800)
    }

    proptest! {
        #[test]
        fn the_counts_from_a_number_on_are_the_last_ones(first in -500..500_i64, values in counts(), skipped in -20..900_i64) {
            let plain: Vec<Count> = values.into_iter().map(Count).collect();
            let since = Counts::new(first, plain.clone()).since(first + skipped).collect::<Vec<_>>();
            let skipped = usize::try_from(skipped).unwrap_or(0);
            prop_assert_eq!(since, plain.into_iter().skip(skipped).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_packed_is_what_it_was(first in -500..500_i64, values in counts(), more in prop::collection::vec((0..900_i64, 0..9_u32), 0..9)) {
            let mut plain: Vec<Count> = values.into_iter().map(Count).collect();
            let mut packed = Counts::new(first, plain.clone());
            for (at, requests) in more {
                packed.add(first + at, requests);
                let at = usize::try_from(at).unwrap_or(0);
                plain.resize(plain.len().max(at + 1), Count::default());
                plain[at] = plain[at].plus(requests);
            }
            prop_assert_eq!(packed.len(), plain.len());
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), plain.clone());
            let end = first + i64::try_from(plain.len()).unwrap_or(0);
            let closed = usize::try_from(end.div_euclid(HOUR) * HOUR - first).unwrap_or(0);
            prop_assert_eq!(packed.closed().count(), closed);
            prop_assert_eq!(&packed, &Counts::new(first, plain.clone()), "however it came about");
            if !packed.hours.is_empty() {
                packed.forget_hour();
                let gone = usize::try_from(HOUR - first.rem_euclid(HOUR)).unwrap_or(0);
                prop_assert_eq!(packed.iter().collect::<Vec<_>>(), plain.split_off(gone));
            }
        }
    }
}
