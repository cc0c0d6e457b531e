//! F16: IEEE half, little-endian. 16 bits per weight.

/// One weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct BlockF16(pub [u8; 2]);

impl BlockF16 {
    /// The weight, exactly.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        bytemuck::cast::<_, super::F16>(self).to_f32()
    }

    /// Rounds to nearest, ties to even.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        Self(bytemuck::cast(super::F16::from_f32(x)))
    }
}

/// Decodes `blocks` (n) into `out` (n).
#[inline(always)]
pub fn decode(blocks: &[BlockF16], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(blocks) {
        *o = b.to_f32();
    }
}

/// Encodes `x` (n) into `out` (n); importance changes nothing where there is no scale to choose.
#[inline(always)]
pub fn encode(x: &[f32], _importance: Option<&[f32]>, out: &mut [BlockF16]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = BlockF16::from_f32(x);
    }
}

impl super::lanes::Widen for BlockF16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Dot product of `w` (n) and `a` (n), summed in 16 lanes.
#[inline(always)]
pub fn dot(w: &[BlockF16], a: &[f32]) -> f32 {
    super::lanes::dot(w, a)
}
