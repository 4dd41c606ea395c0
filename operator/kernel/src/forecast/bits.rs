//! A few numbers of about the same size, packed.

/// Up to 255 numbers: the least of them, and how much more each is in as many bits as the largest needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    least: u64,
    length: u8,
    width: u8,
    bytes: Box<[u8]>,
}

impl Bits {
    /// Those of `numbers` beyond the 255th are left out.
    pub(crate) fn new(numbers: impl IntoIterator<Item = u64>) -> Self {
        let numbers: Vec<u64> = numbers.into_iter().take(usize::from(u8::MAX)).collect();
        let least = numbers.iter().min().copied().unwrap_or(0);
        let most = numbers.iter().map(|number| number - least).max().unwrap_or(0);
        let width = u64::BITS - most.leading_zeros();
        let mut bytes = Vec::with_capacity((numbers.len() * 8).max(1));
        // Those that do not fill a byte yet.
        let (mut rest, mut filled) = (0_u128, 0);
        for number in &numbers {
            rest |= u128::from(number - least) << filled;
            filled += width;
            while filled >= 8 {
                bytes.push(rest.to_le_bytes()[0]);
                (rest, filled) = (rest >> 8, filled - 8);
            }
        }
        if filled > 0 {
            bytes.push(rest.to_le_bytes()[0]);
        }
        Self {
            least,
            length: u8::try_from(numbers.len()).unwrap_or(u8::MAX),
            width: u8::try_from(width).unwrap_or(u8::MAX),
            bytes: bytes.into(),
        }
    }

    pub(crate) fn unpack(&self) -> impl Iterator<Item = u64> {
        let width = u32::from(self.width);
        let mask = (1_u128 << width) - 1;
        let mut bytes = self.bytes.iter();
        let (mut rest, mut filled) = (0_u128, 0);
        (0..self.length).map(move |_| {
            while filled < width {
                rest |= u128::from(bytes.next().copied().unwrap_or(0)) << filled;
                filled += 8;
            }
            let more = u64::try_from(rest & mask).unwrap_or(u64::MAX);
            (rest, filled) = (rest >> width, filled - width);
            self.least.saturating_add(more)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_what_it_was(numbers in prop::collection::vec(prop_oneof![any::<u64>(), 0..9_u64, 1_000..1_200_u64], 0..99)) {
            prop_assert_eq!(Bits::new(numbers.iter().copied()).unpack().collect::<Vec<_>>(), numbers);
        }
    }

    #[test]
    fn numbers_of_about_the_same_size_take_little() {
        let bits = Bits::new((0..240).map(|index| 1_000 + index % 60));
        assert_eq!((bits.width, bits.bytes.len()), (6, 180));
        assert_eq!(Bits::new([7; 48]).bytes.len(), 0);
    }
}
