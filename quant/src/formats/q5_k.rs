//! Q5_K: `w = d * scale * q - dmin * min`, q in 0..=31, a 6-bit scale and a 6-bit min per 32 weights.
//!
//! 176 bytes per 256 weights, 5.5 bits per weight.
//!
//! ```text
//! byte 0..2     d       f16
//! byte 2..4     dmin    f16
//! byte 4..8     scales  byte j: scale j (bits 0..6), bits 4..6 of scale j + 4 (bits 6..8)
//! byte 8..12            byte j: min j (bits 0..6), bits 4..6 of min j + 4 (bits 6..8)
//! byte 12..16           byte j: low 4 bits of scale j + 4 (bits 0..4) and of min j + 4 (bits 4..8)
//! byte 16..48   qh      byte l, bit j: fifth bit of weight 32 j + l
//! byte 48..176  qs      byte 32 j + l: low bits of weight 64 j + l (bits 0..4) and
//!                       of weight 64 j + 32 + l (bits 4..8)
//! ```

#![allow(clippy::needless_range_loop, reason = "one index over several fixed-size arrays vectorises")]

use super::F16;
use super::k;
use super::q8_k::BlockQ8K;
use super::search_k::{self, N, Plan, Reach};

/// 256 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the scales.
    pub d: F16,
    /// Scale of the mins.
    pub dmin: F16,
    /// Eight 6-bit scales and eight 6-bit mins.
    pub scales: [u8; 12],
    /// Fifth bit of each integer.
    pub qh: [u8; 32],
    /// Low four bits of each integer.
    pub qs: [u8; 128],
}

/// The integers, 0..=31.
#[inline(always)]
fn unpack(b: &BlockQ5K) -> [i8; N] {
    let mut q = [0; N];
    for j in 0..4 {
        for l in 0..32 {
            q[64 * j + l] = (b.qs[32 * j + l] & 15) as i8;
            q[64 * j + 32 + l] = (b.qs[32 * j + l] >> 4) as i8;
        }
    }
    for j in 0..8 {
        for l in 0..32 {
            q[32 * j + l] |= (((b.qh[l] >> j) & 1) << 4) as i8;
        }
    }
    q
}

/// Decodes `blocks` (n) into `out` (256 n).
#[inline(always)]
pub fn decode(blocks: &[BlockQ5K], out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<N>();
    for (b, out) in blocks.iter().zip(out) {
        let (d, dmin) = (b.d.to_f32(), b.dmin.to_f32());
        let q = unpack(b);
        let (scales, mins) = k::unpack_6bit(&b.scales);
        for s in 0..8 {
            let (scale, min) = (d * f32::from(scales[s]), dmin * f32::from(mins[s]));
            for i in 32 * s..32 * s + 32 {
                out[i] = scale * f32::from(q[i]) - min;
            }
        }
    }
}

const PLAN: Plan<Reach> = Plan {
    emphasis: 1.0,
    square: 0.0,
    flatness: 2.0,
    floor: 0.05,
    grid: &[-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0],
    rounds: &[REACH, NEAR, NEAR],
};

const REACH: Reach =
    &[(0, [0, -1, 1]), (0, [0, -2, 2]), (-1, [-1, 0, 1]), (1, [-1, 0, 1]), (-2, [-2, -1, 0]), (2, [0, 1, 2])];

const NEAR: Reach = &[(0, [0, -1, 1]), (-1, [-1, 0, 1]), (1, [-1, 0, 1])];

/// Encodes one row `x` (256 n) into `out` (n); see `search_k.rs`. `importance`: per column, or `None`.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ5K]) {
    for (i, (x, out)) in x.as_chunks::<N>().0.chunks(2).zip(out.chunks_mut(2)).enumerate() {
        let importance = importance.map(|w| &w.as_chunks::<N>().0[2 * i..][..x.len()]);
        let found = search_k::affine::<8, 32>(x, importance, 31.0, 63.0, &PLAN);
        for (f, out) in found.iter().zip(out) {
            let (scales, mins) = (k::first_8(&f.scales), k::first_8(&f.mins));
            let mut qs = [0; 128];
            for j in 0..4 {
                for l in 0..32 {
                    qs[32 * j + l] = (f.q[64 * j + l] & 15) | (f.q[64 * j + 32 + l] << 4);
                }
            }
            let mut qh = [0; 32];
            for j in 0..8 {
                for l in 0..32 {
                    qh[l] |= (f.q[32 * j + l] >> 4) << j;
                }
            }
            *out = BlockQ5K { d: f.d, dmin: f.dmin, scales: k::pack_6bit(&scales, &mins), qh, qs };
        }
    }
}

/// Dot product of `w` (n) and `a` (at least n blocks).
///
/// Per super-block `a.d * d * I - a.d * dmin * M` with exact integers `I` and `M`, f32 sums in the order of
/// the blocks.
#[inline(always)]
pub fn dot(w: &[BlockQ5K], a: &[BlockQ8K]) -> f32 {
    let a = &a[..w.len()];
    let mut total = 0.0;
    for (w, a) in w.iter().zip(a) {
        let (scales, mins) = k::unpack_6bit(&w.scales);
        let sum = k::scaled_sum(&unpack(w), &a.qs, &k::twice(&scales));
        let min = k::min_sum(&k::twice(&mins), &a.bsums);
        total += a.d * (w.d.to_f32() * sum as f32 - w.dmin.to_f32() * min as f32);
    }
    total
}
