//! The seeded random generator of the workspace: for synthetic weights, benchmarks and tests.
//!
//! SplitMix64: small, seeded with any number, the same numbers on every machine. Not for sampling and not for
//! secrets. Files of random weights are made of these numbers, so that their bytes depend on every line here.

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator for part `part` (e.g. tensor and piece) of the data made from `seed`; parts have
    /// independent numbers.
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

    /// From 0 up to, but not, 1: 24 bits.
    pub const fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }

    /// From -1 up to, but not, 1: 24 bits.
    pub const fn signed_unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Between 0 and 1, neither of them: 53 bits.
    pub const fn open_unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Normal, of mean 0 and standard deviation 1, to the tails that [`normal`](Self::normal) cuts off. Takes
    /// a logarithm and a cosine, which may differ in the last bit between machines.
    pub fn gauss(&mut self) -> f64 {
        (-2.0 * self.open_unit().ln()).sqrt() * (std::f64::consts::TAU * self.open_unit()).cos()
    }

    /// Student's t with four degrees of freedom: heavy tails. As [`gauss`](Self::gauss) otherwise.
    pub fn student4(&mut self) -> f64 {
        let chi: f64 = (0..4).map(|_| self.gauss().powi(2)).sum();
        self.gauss() / (chi / 4.0).sqrt()
    }

    /// Nearly normal, of mean 0 and standard deviation 1: a sum of uniform numbers, without a function that
    /// rounds differently elsewhere.
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

    /// SplitMix64 of Sebastiano Vigna, seed 1234567: files of random weights depend on these numbers.
    #[test]
    fn bits_are_those_of_the_reference() {
        let mut random = Random::new(1_234_567);
        let bits = [random.bits(), random.bits(), random.bits()];
        assert_eq!(bits, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn normal_numbers_are() {
        let mut random = Random::new(9);
        let (mean, deviation) = moments(&(0..100_000).map(|_| random.normal()).collect::<Vec<_>>());
        assert!(mean.abs() < 0.02 && (deviation - 1.0).abs() < 0.02, "{mean} {deviation}");
        let (mean, deviation) = moments(&(0..100_000).map(|_| random.gauss() as f32).collect::<Vec<_>>());
        assert!(mean.abs() < 0.02 && (deviation - 1.0).abs() < 0.02, "{mean} {deviation}");
        let signed: Vec<f32> = (0..100_000).map(|_| random.signed_unit()).collect();
        assert!(signed.iter().all(|x| (-1.0..1.0).contains(x)) && moments(&signed).0.abs() < 0.02);
        let unit: Vec<f32> = (0..100_000).map(|_| random.unit()).collect();
        assert!(unit.iter().all(|x| (0.0..1.0).contains(x)) && (moments(&unit).0 - 0.5).abs() < 0.01);
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
