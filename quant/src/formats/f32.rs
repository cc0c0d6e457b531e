//! F32: `w` as it is, little-endian. 32 bits per weight.

/// One weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct BlockF32(pub [u8; 4]);

impl BlockF32 {
    /// The weight, exactly.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_le_bytes(self.0)
    }

    /// Rounds to nearest, ties to even.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        Self(x.to_le_bytes())
    }
}

/// Decodes `blocks` (n) into `out` (n).
#[inline(always)]
pub fn decode(blocks: &[BlockF32], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(blocks) {
        *o = b.to_f32();
    }
}

/// Encodes `x` (n) into `out` (n); importance changes nothing where there is no scale to choose.
#[inline(always)]
pub fn encode(x: &[f32], _importance: Option<&[f32]>, out: &mut [BlockF32]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = BlockF32::from_f32(x);
    }
}

impl super::lanes::Widen for BlockF32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Dot product of `w` (n) and `a` (n), summed in 16 lanes.
#[inline(always)]
pub fn dot(w: &[BlockF32], a: &[f32]) -> f32 {
    super::lanes::dot(w, a)
}
