//! The simulator's random numbers.
//!
//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014; the
//! constants are those of Vigna's public-domain `splitmix64.c`). Our own twenty lines and not a
//! crate, because a seed in a bug report must mean the same run years later, whatever a crate's
//! next version decides. Everything that draws owns a stream of its own, so that one more draw
//! here never changes what is drawn there.

/// A stream of random numbers, wholly determined by its seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The stream that belongs to one thing, named by a path of numbers below a seed.
    pub fn stream(seed: u64, path: &[u64]) -> Self {
        let mut random = Self::new(seed);
        for step in path {
            random = Self::new(random.bits() ^ step.wrapping_mul(0xd6e8_feb8_6659_fd93));
        }
        random
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which must not be 0.
    ///
    /// By multiplication, without rejection: the bias is at most `bound` in 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        let product = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the product of two u64 has 128 bits")
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Whether something happens that happens `times` in `of` cases.
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// An index below `length`, which must not be 0.
    pub fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("a length fits in 64 bits");
        usize::try_from(self.below(length)).expect("an index is below a length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference_implementation() {
        let mut random = Random::new(1_234_567);
        let drawn = [random.bits(), random.bits(), random.bits()];
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn numbers_stay_in_their_bounds_and_reach_them() {
        let mut random = Random::new(7);
        let mut seen = [false; 4];
        for _ in 0..200 {
            let number = random.between(3, 6);
            assert!((3..=6).contains(&number));
            seen[usize::try_from(number - 3).unwrap()] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn streams_differ_in_every_step_of_their_path() {
        let first = |path: &[u64]| Random::stream(1, path).bits();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        assert_ne!(first(&[1, 2]), first(&[2, 1]));
        assert_ne!(first(&[1]), first(&[1, 0]));
    }
}
