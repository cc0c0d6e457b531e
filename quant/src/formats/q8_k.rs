//! Q8_K: activations for the formats with 256 weights a block. Memory only, never in a file.
//!
//! `x = d * q`, q in -127..=127, one f32 scale per 256; `bsums[i]` = sum of `q[16 i .. 16 i + 16]`.
//! 9.125 bits per value.
//!
//! ```text
//! byte  0      4                     260                 292
//!       | d f32| qs: i8 x 256        | bsums: i16 x 16   |
//! ```
//!
//! The arithmetic is that of [Q8_A](super::q8_a) over 256 values: `d = amax / 127`, `q = x / d` to the
//! nearest integer, ties to even, inside ±127; a value that is not finite gives `d` = NaN and `q` = 0.
//! (ggml's Q8_K lets the largest magnitude be -128 and so may have a negative `d`; the two never meet in a
//! file.)

use super::q8_a::{quantum, scale};

/// Values in a block.
pub const N: usize = 256;

/// 256 activations.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
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

/// Quantises `x` (`256 n`) into `out` (n), each block by itself. See the module for the arithmetic.
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
pub fn quantize(x: &[f32], out: &mut [BlockQ8K]) {
    let (blocks, rest) = x.as_chunks::<N>();
    assert!(rest.is_empty() && blocks.len() == out.len(), "256 activations for each Q8_K block");
    for (x, out) in blocks.iter().zip(out) {
        let (d, by) = scale(x);
        if d.is_nan() {
            *out = BlockQ8K { d, qs: [0; N], bsums: [0; N / 16] };
            continue;
        }
        for (q, &v) in out.qs.iter_mut().zip(x) {
            *q = quantum(v, by);
        }
        for (sum, qs) in out.bsums.iter_mut().zip(out.qs.as_chunks::<16>().0) {
            *sum = qs.iter().map(|&q| i16::from(q)).sum();
        }
        out.d = d;
    }
}

/// Decodes `blocks` (n) into `out` (`256 n`).
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
pub fn decode(blocks: &[BlockQ8K], out: &mut [f32]) {
    let (out, rest) = out.as_chunks_mut::<N>();
    assert!(rest.is_empty() && blocks.len() == out.len(), "256 activations for each Q8_K block");
    for (b, out) in blocks.iter().zip(out) {
        for (o, &q) in out.iter_mut().zip(&b.qs) {
            *o = b.d * f32::from(q);
        }
    }
}
