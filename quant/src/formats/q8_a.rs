//! Q8_A: activations for the formats with 32 weights a block. Ours, memory only, never in a file.
//!
//! `x = d * q`, q in -127..=127, one f32 scale per 32 (an f16 scale overflows), `sum` = sum of `q`.

/// Values in a block.
pub const N: usize = 32;

/// 32 activations.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8A {
    /// Scale.
    pub d: f32,
    /// Sum of `qs`.
    pub sum: i32,
    /// Quantised values.
    pub qs: [i8; N],
}

const _: () = assert!(size_of::<BlockQ8A>() == 40);
