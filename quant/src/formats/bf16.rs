//! BF16: the upper half of an f32, rounded to nearest even, little-endian. 16 bits per weight.

/// One weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct BlockBf16(pub [u8; 2]);

impl BlockBf16 {
    /// The weight, exactly.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(self.0)) << 16)
    }

    /// Rounds to nearest, ties to even.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // A NaN could become an infinity: it is made quiet instead.
        let h = super::pick::pick(bits & 0x7fff_ffff > 0x7f80_0000, (bits >> 16) | 0x40, rounded);
        Self((h as u16).to_le_bytes())
    }
}

/// Decodes `blocks` (n) into `out` (n).
#[inline(always)]
pub fn decode(blocks: &[BlockBf16], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(blocks) {
        *o = b.to_f32();
    }
}

/// Encodes `x` (n) into `out` (n); importance changes nothing where there is no scale to choose.
#[inline(always)]
pub fn encode(x: &[f32], _importance: Option<&[f32]>, out: &mut [BlockBf16]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = BlockBf16::from_f32(x);
    }
}

impl super::lanes::Widen for BlockBf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Dot product of `w` (n) and `a` (n), summed in 16 lanes.
#[inline(always)]
pub fn dot(w: &[BlockBf16], a: &[f32]) -> f32 {
    super::lanes::dot(w, a)
}
