//! The seeded random generator of the workspace: for synthetic weights, benchmarks and tests.
//!
//! SplitMix64: small, seeded with any number, the same numbers on every machine. Not for sampling and not for secrets.
//! Files of random weights are made of these numbers, so that their bytes depend on every line here.

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator for part `part` (e.g. tensor and piece) of the data made from `seed`; parts have independent numbers.
    pub fn of_part(seed: u64, part: [u64; 2]) -> Self {
        let mut mix = Self(seed);
        for part in part {
            mix = Self(mix.bits() ^ part);
        }
        Self(mix.bits())
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.bits() as u128 * n as u128) >> 64) as u64
    }

    /// Nearly normal, of mean 0 and standard deviation 1: a sum of uniform numbers, without a function that rounds
    /// differently elsewhere.
    pub fn normal(&mut self) -> f32 {
        // Twelve uniform numbers of 16 bits have the variance 1.
        let sum: u64 = (0..3)
            .map(|_| {
                let bits = self.bits();
                (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum::<u64>()
            })
            .sum();
        (sum as f32 + 6.0) / 65536.0 - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(x: &[f32]) -> (f64, f64) {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let square = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, square.sqrt())
    }

    #[test]
    fn normal_numbers_are() {
        let mut random = Random::new(9);
        let (mean, deviation) = moments(&(0..100_000).map(|_| random.normal()).collect::<Vec<_>>());
        assert!(mean.abs() < 0.02 && (deviation - 1.0).abs() < 0.02, "{mean} {deviation}");
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
