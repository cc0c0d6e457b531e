//! Q8_K: activations for the formats with 256 weights a block. Memory only, never in a file.
//!
//! `x = d * q`, q in -127..=127, one f32 scale per 256; `bsums[i]` = sum of `q[16 i .. 16 i + 16]`.

/// Values in a block.
pub const N: usize = 256;

/// 256 activations.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8K {
    /// Scale.
    pub d: f32,
    /// Quantised values.
    pub qs: [i8; N],
    /// Sums of 16 consecutive `qs`.
    pub bsums: [i16; N / 16],
}

const _: () = assert!(size_of::<BlockQ8K>() == 4 + 256 + 32);
