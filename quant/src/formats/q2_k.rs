//! Q2_K: `w = d * scale * q - dmin * min`, q in 0..=3, a 4-bit scale and a 4-bit min per 16 weights.
//!
//! 84 bytes per 256 weights, 2.625 bits per weight.
//!
//! ```text
//! byte 0..16   scales  byte s: scale of weights 16 s .. 16 s + 16 (bits 0..4), min (bits 4..8)
//! byte 16..80  qs      byte 32 h + l: weights 128 h + 32 k + l, k = 0..4, bits 2 k and 2 k + 1
//! byte 80..82  d       f16
//! byte 82..84  dmin    f16
//! ```

#![allow(clippy::needless_range_loop, reason = "one index over several fixed-size arrays vectorises")]

use super::F16;
use super::k;
use super::q8_k::BlockQ8K;
use super::search_k::{self, N, Plan, Reach};

/// 256 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// Scale (low nibble) and min (high nibble) of each 16 weights.
    pub scales: [u8; 16],
    /// The integers, two bits each.
    pub qs: [u8; 64],
    /// Scale of the scales.
    pub d: F16,
    /// Scale of the mins.
    pub dmin: F16,
}

/// Decodes `blocks` (n) into `out` (256 n).
#[inline(always)]
pub fn decode(blocks: &[BlockQ2K], out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<N>();
    for (b, out) in blocks.iter().zip(out) {
        let (d, dmin) = (b.d.to_f32(), b.dmin.to_f32());
        let q = k::unpack_2bit(&b.qs);
        for s in 0..16 {
            let (scale, min) = (d * f32::from(b.scales[s] & 15), dmin * f32::from(b.scales[s] >> 4));
            for i in 16 * s..16 * s + 16 {
                out[i] = scale * f32::from(q[i]) - min;
            }
        }
    }
}

const PLAN: Plan<Reach> = Plan {
    emphasis: 10.0,
    square: 1.0,
    flatness: 1.0,
    floor: 0.05,
    grid: &[-0.9, -0.75, -0.6, -0.45, -0.3, -0.15, 0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.1, 1.3, 1.6],
    rounds: &[REACH, REACH, NEAR, NEAR],
};

const REACH: Reach =
    &[(0, [0, -1, 1]), (0, [0, -2, 2]), (-1, [-1, 0, 1]), (1, [-1, 0, 1]), (-2, [-2, -1, 0]), (2, [0, 1, 2])];

const NEAR: Reach = &[(0, [0, -1, 1]), (-1, [-1, 0, 1]), (1, [-1, 0, 1])];

/// Encodes one row `x` (256 n) into `out` (n); see `search_k.rs`. `importance`: per column, or `None`.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ2K]) {
    for (i, (x, out)) in x.as_chunks::<N>().0.chunks(1).zip(out.chunks_mut(1)).enumerate() {
        let importance = importance.map(|w| &w.as_chunks::<N>().0[i..][..x.len()]);
        let found = search_k::affine::<16, 16>(x, importance, 3.0, 15.0, &PLAN);
        for (f, out) in found.iter().zip(out) {
            let mut scales = [0; 16];
            for s in 0..16 {
                scales[s] = f.scales[s] | (f.mins[s] << 4);
            }
            *out = BlockQ2K { scales, qs: k::pack_2bit(&f.q), d: f.d, dmin: f.dmin };
        }
    }
}

/// Dot product of `w` (n) and `a` (at least n blocks).
///
/// Per super-block `a.d * d * I - a.d * dmin * M` with exact integers `I` and `M`, f32 sums in the order of
/// the blocks.
#[inline(always)]
pub fn dot(w: &[BlockQ2K], a: &[BlockQ8K]) -> f32 {
    let a = &a[..w.len()];
    let mut total = 0.0;
    for (w, a) in w.iter().zip(a) {
        let (mut scales, mut mins) = ([0; 16], [0; 16]);
        for s in 0..16 {
            scales[s] = i16::from(w.scales[s] & 15);
            mins[s] = i16::from(w.scales[s] >> 4);
        }
        let sum = k::scaled_sum(&k::unpack_2bit(&w.qs), &a.qs, &scales);
        let min = k::min_sum(&mins, &a.bsums);
        total += a.d * (w.d.to_f32() * sum as f32 - w.dmin.to_f32() * min as f32);
    }
    total
}
