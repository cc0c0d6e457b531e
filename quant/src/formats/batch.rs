//! Sixteen blocks side by side, one per lane: what the searches of all encoders work on.
//!
//! Whatever is done to one block is done to sixteen at once, lane by lane; a sum runs over the weights of a
//! block in their order, in its own lane, so the width of the vector unit cannot change a bit. Multiplication
//! and addition are rounded apart, comparisons are written so that a NaN never wins. Plain loops over
//! [`Lane`]s: the shape that vectorises on every ISA. No closures, which LLVM may leave compiled for the
//! baseline.

#![allow(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of fixed size: the shape that vectorises"
)]

use super::f16_bits::F16;
use super::pick::pick;

/// Blocks in a batch.
pub(super) const WIDE: usize = 16;

/// One number of each block.
pub(super) type Lane = [f32; WIDE];

/// 1.5 * 2^23. Adding and taking it away rounds to the nearest integer, ties to even, for magnitudes below
/// 2^22. Two additions vectorise under SSE2, where `round_ties_even` is a call.
const MAGIC: f32 = 12_582_912.0;

/// The nearest integer of a magnitude below 2^22, ties to even.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    (x + MAGIC) - MAGIC
}

/// The integer in an integral `x` below 2^22.
#[inline(always)]
pub(super) fn int(x: f32) -> i32 {
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// `x` between `lo` and `hi`; NaN becomes `lo`. Two compare-and-selects, unlike `f32::clamp`.
#[inline(always)]
pub(super) fn limit(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x > lo { x } else { lo };
    if x < hi { x } else { hi }
}

/// The smallest positive f16, 2^-24.
pub(super) const SMALLEST_F16: f32 = 1.0 / 16_777_216.0;

/// Rounds to an f16 that is finite, and not zero unless `x` is: a super-scale of zero would lose the block.
#[inline(always)]
pub(super) fn storable(x: f32) -> f32 {
    let a = x.abs();
    let a = pick(a < 65504.0, a, 65504.0);
    let a = pick(a > 0.0 && a < SMALLEST_F16, SMALLEST_F16, a);
    F16::from_f32(pick(x < 0.0, -a, a)).to_f32()
}

/// The f16 `steps` away from the f16 `h` (away from zero when positive), never across zero or past the
/// largest.
#[inline(always)]
pub(super) fn neighbour(h: f32, steps: i32) -> f32 {
    let bits = F16::from_f32(h).to_bits();
    let moved = i32::from(bits & 0x7fff) + steps;
    let moved = pick(moved < 0, 0, moved);
    let moved = pick(moved > 0x7bff, 0x7bff, moved);
    F16::from_bits(moved as u16 | (bits & 0x8000)).to_f32()
}

/// One over each, zero for zero.
#[inline(always)]
pub(super) fn inverses(x: &Lane) -> Lane {
    let mut out = [0.0; WIDE];
    for s in 0..WIDE {
        out[s] = pick(x[s] != 0.0, 1.0 / x[s], 0.0);
    }
    out
}

/// In each lane the sum over its group of `G` lanes: halves of the group are added until one is left.
#[inline(always)]
pub(super) fn group_sum<const G: usize>(x: &Lane) -> Lane {
    let mut sum = *x;
    let mut half = G / 2;
    while half > 0 {
        let before = sum;
        for s in 0..WIDE {
            sum[s] = before[s] + before[s ^ half];
        }
        half /= 2;
    }
    sum
}

/// The same in f64.
#[inline(always)]
pub(super) fn group_sum_f64<const G: usize>(x: &[f64; WIDE]) -> [f64; WIDE] {
    let mut sum = *x;
    let mut half = G / 2;
    while half > 0 {
        let before = sum;
        for s in 0..WIDE {
            sum[s] = before[s] + before[s ^ half];
        }
        half /= 2;
    }
    sum
}

/// In each lane the largest of its group of `G` lanes.
#[inline(always)]
pub(super) fn group_max<const G: usize>(x: &Lane) -> Lane {
    let mut max = *x;
    let mut half = G / 2;
    while half > 0 {
        let before = max;
        for s in 0..WIDE {
            max[s] = pick(before[s ^ half] > before[s], before[s ^ half], before[s]);
        }
        half /= 2;
    }
    max
}

/// Up to sixteen blocks of `L` consecutive values each, block `s` into lane `s`; lanes without a block get
/// zeros.
#[inline(always)]
pub(super) fn gather<const L: usize>(values: &[f32]) -> [Lane; L] {
    let mut out = [[0.0; WIDE]; L];
    for (s, block) in values.as_chunks::<L>().0.iter().enumerate().take(WIDE) {
        for i in 0..L {
            out[i][s] = block[i];
        }
    }
    out
}

/// The way back for bytes: `out[s][i]` is `values[i][s]`.
#[inline(always)]
pub(super) fn scatter<const L: usize>(values: &[[u8; WIDE]; L]) -> [[u8; L]; WIDE] {
    let mut out = [[0; L]; WIDE];
    for s in 0..WIDE {
        for i in 0..L {
            out[s][i] = values[i][s];
        }
    }
    out
}
