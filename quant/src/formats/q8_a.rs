//! Q8_A: activations for the formats with 32 weights a block. Ours, memory only, never in a file.
//!
//! `x = d * q`, q in -127..=127, one f32 scale per 32 (an f16 scale overflows), `sum` = sum of `q`.
//! 10 bits per value.
//!
//! ```text
//! byte  0      4      8                    40
//!       | d f32| sum  | qs: i8 x 32        |
//! ```
//!
//! The arithmetic, the same on every ISA: `d = amax / 127`, `q = x / d` rounded to the nearest integer, ties
//! to even, held inside ±127; both divisions are IEEE divisions in f32. `amax` is taken over the bit patterns
//! without their sign, so a NaN or an infinity is never lost: such a block has `d` = NaN and `q` = 0, and
//! every product with it is NaN.

/// Values in a block.
pub const N: usize = 32;

/// 32 activations.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
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

/// 1.5 * 2^23: added to a value below 2^22 it leaves the nearest integer, ties to even, in the low bits.
/// Plain SSE2 has no rounding instruction, and a call of `rintf` would keep the loop from being vectorised.
const MAGIC: f32 = 12_582_912.0;

/// The scale of `x` and the value to divide by: `(0, inf)` when everything is zero (or `amax / 127`
/// underflows to zero), `(NaN, inf)` when something is not finite; dividing a finite value by `inf` then
/// gives 0.
#[inline(always)]
pub(super) fn scale(x: &[f32]) -> (f32, f32) {
    let mut amax = 0u32;
    for v in x {
        // As signed integers, which every SIMD unit compares; without their sign the patterns are not
        // negative.
        let bits = (v.to_bits() & 0x7fff_ffff) as i32;
        amax = if bits > amax as i32 { bits as u32 } else { amax };
    }
    if amax >= f32::INFINITY.to_bits() {
        return (f32::NAN, f32::INFINITY);
    }
    let d = f32::from_bits(amax) / 127.0;
    (d, if d > 0.0 { d } else { f32::INFINITY })
}

/// `v / by`, inside ±127, to the nearest integer.
#[inline(always)]
pub(super) fn quantum(v: f32, by: f32) -> i8 {
    let r = v / by;
    // Not `clamp` or `min`: a comparison and a choice is one instruction, and NaN takes the constant.
    let r = if r < 127.0 { r } else { 127.0 };
    let r = if r > -127.0 { r } else { -127.0 };
    ((r + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32) as i8
}

/// Sum of `w[i] * q[i]`, exact.
#[inline(always)]
pub(super) fn dot(w: &[i8; N], q: &[i8; N]) -> i32 {
    let mut sum = 0;
    for (&w, &q) in w.iter().zip(q) {
        sum += i32::from(w) * i32::from(q);
    }
    sum
}

impl BlockQ8A {
    /// Sum of `w[i] * qs[i]`, exact.
    #[inline(always)]
    pub fn dot(&self, w: &[i8; N]) -> i32 {
        dot(w, &self.qs)
    }
}

/// Quantises `x` (`32 n`) into `out` (n), each block by itself. See the module for the arithmetic.
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
pub fn quantize(x: &[f32], out: &mut [BlockQ8A]) {
    let (blocks, rest) = x.as_chunks::<N>();
    assert!(rest.is_empty() && blocks.len() == out.len(), "32 activations for each Q8_A block");
    for (x, out) in blocks.iter().zip(out) {
        let (d, by) = scale(x);
        let mut sum = 0i32;
        if d.is_nan() {
            *out = BlockQ8A { d, sum, qs: [0; N] };
            continue;
        }
        for (q, &v) in out.qs.iter_mut().zip(x) {
            *q = quantum(v, by);
        }
        for &q in &out.qs {
            sum += i32::from(q);
        }
        (out.d, out.sum) = (d, sum);
    }
}

/// Decodes `blocks` (n) into `out` (`32 n`).
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
pub fn decode(blocks: &[BlockQ8A], out: &mut [f32]) {
    let (out, rest) = out.as_chunks_mut::<N>();
    assert!(rest.is_empty() && blocks.len() == out.len(), "32 activations for each Q8_A block");
    for (b, out) in blocks.iter().zip(out) {
        for (o, &q) in out.iter_mut().zip(&b.qs) {
            *o = b.d * f32::from(q);
        }
    }
}
