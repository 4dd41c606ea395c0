//! Pseudo-random numbers for simulations: seeded, and the same on every machine.

/// The generator `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): small, seeded, and good enough for a simulation.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

/// What the state grows by with every number.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

impl SplitMix {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for everything that `seed` and `parts` name, so that what one machine suffers does not
    /// depend on what a policy does with another.
    pub fn of(seed: u64, parts: &[u64]) -> Self {
        let mut generator = Self(seed);
        for &part in parts {
            generator = Self(generator.bits() ^ part);
        }
        generator
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Leaves out the next `numbers`.
    pub fn skip(&mut self, numbers: u64) {
        self.0 = self.0.wrapping_add(GAMMA.wrapping_mul(numbers));
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform below `bound`; zero if that is zero.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the high half of a product with a usize is below it"
    )]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipping_is_drawing_and_not_looking() {
        for numbers in [0, 1, 2, 1_000] {
            let (mut drawn, mut skipped) = (SplitMix::new(7), SplitMix::new(7));
            (0..numbers).for_each(|_| {
                drawn.bits();
            });
            skipped.skip(numbers);
            assert_eq!(drawn.bits(), skipped.bits());
        }
    }
}
