//! Half-precision numbers as block formats store them.

use super::lanes::Widen;
use super::pick::pick;

/// An IEEE half as it lies in a file: two little-endian bytes, no alignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct F16([u8; 2]);

impl F16 {
    /// +0.
    pub const ZERO: Self = Self([0; 2]);

    /// Rounds to nearest, ties to even; a magnitude past 65504 + half a step becomes infinity. Branch-free as
    /// `to_f32`.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let (sign, a) = ((bits >> 16) & 0x8000, bits & 0x7fff_ffff);
        // Re-biased exponent; half an f16 step, a little less where the kept part is even.
        let normal = a.wrapping_add(0xc800_0fff).wrapping_add((a >> 13) & 1) >> 13;
        // Below 2^-14: adding 0.5 rounds at 2^-24 and leaves the integer in the low bits.
        let subnormal = (f32::from_bits(a) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        // Infinity, or NaN made quiet.
        let special = pick(a > 0x7f80_0000, 0x7e00 | ((a >> 13) & 0x3ff), 0x7c00);
        let finite = pick(a < 113 << 23, subnormal, normal);
        let h = pick(a >= 143 << 23, special, finite);
        Self(((h | sign) as u16).to_le_bytes())
    }

    /// Exact. Branch-free integer and float operations only, so that loops over it vectorise on every ISA.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        let h = u32::from(u16::from_le_bytes(self.0));
        let sign = (h & 0x8000) << 16;
        let magnitude = (h & 0x7fff) << 13;
        // The exponent bias differs by 127 - 15 = 112; the product with 2^112 also normalises subnormals,
        // exactly.
        let finite = f32::from_bits(magnitude) * f32::from_bits((112 + 127) << 23);
        let bits = if magnitude >= 0x7c00 << 13 { magnitude | 0x7f80_0000 } else { finite.to_bits() };
        f32::from_bits(bits | sign)
    }

    /// The number with these 16 bits.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits.to_le_bytes())
    }

    /// The 16 bits.
    #[inline(always)]
    pub fn to_bits(self) -> u16 {
        u16::from_le_bytes(self.0)
    }
}

impl Widen for F16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}
