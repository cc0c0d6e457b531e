//! Q3_K: `w = d * scale * q`, q in -4..=3, a signed 6-bit scale per 16 weights.
//!
//! 110 bytes per 256 weights, 3.4375 bits per weight. `q` is two bits plus a third, less 4; `scale` is stored
//! plus 32.
//!
//! ```text
//! byte 0..32    hmask   byte l, bit j: third bit of weight 32 j + l
//! byte 32..96   qs      byte 32 h + l: low bits of weights 128 h + 32 k + l, k = 0..4, bits 2 k and 2 k + 1
//! byte 96..104  scales  byte j: low 4 bits of scale j (bits 0..4) and of scale j + 8 (bits 4..8)
//! byte 104..108         byte j: high 2 bits of scales j, j + 4, j + 8, j + 12, two bits each from bit 0
//! byte 108..110 d       f16
//! ```

#![allow(clippy::needless_range_loop, reason = "one index over several fixed-size arrays vectorises")]

use super::F16;
use super::k;
use super::q8_k::BlockQ8K;
use super::search_k::{self, N, Plan};

/// 256 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// Third bit of each integer.
    pub hmask: [u8; 32],
    /// Low two bits of each integer.
    pub qs: [u8; 64],
    /// Sixteen 6-bit scales, plus 32.
    pub scales: [u8; 12],
    /// Scale of the scales.
    pub d: F16,
}

/// The scales, -32..=31.
#[inline(always)]
fn unpack_scales(packed: &[u8; 12]) -> [i16; 16] {
    let mut out = [0; 16];
    for j in 0..8 {
        out[j] = i16::from(packed[j] & 15);
        out[j + 8] = i16::from(packed[j] >> 4);
    }
    for k in 0..4 {
        for j in 0..4 {
            out[4 * k + j] += i16::from((packed[8 + j] >> (2 * k)) & 3) * 16 - 32;
        }
    }
    out
}

/// The inverse of [`unpack_scales`].
#[inline(always)]
fn pack_scales(scales: &[i8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (j, &scale) in scales.iter().enumerate() {
        let s = (scale + 32) as u8;
        packed[j % 8] |= (s & 15) << (4 * (j / 8));
        packed[8 + j % 4] |= (s >> 4) << (2 * (j / 4));
    }
    packed
}

/// The integers, -4..=3.
#[inline(always)]
fn unpack(b: &BlockQ3K) -> [i8; N] {
    let mut q = k::unpack_2bit(&b.qs);
    for j in 0..8 {
        for l in 0..32 {
            q[32 * j + l] += (((b.hmask[l] >> j) & 1) << 2) as i8 - 4;
        }
    }
    q
}

/// Decodes `blocks` (n) into `out` (256 n).
#[inline(always)]
pub fn decode(blocks: &[BlockQ3K], out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<N>();
    for (b, out) in blocks.iter().zip(out) {
        let d = b.d.to_f32();
        let (q, scales) = (unpack(b), unpack_scales(&b.scales));
        for s in 0..16 {
            let scale = d * f32::from(scales[s]);
            for i in 16 * s..16 * s + 16 {
                out[i] = scale * f32::from(q[i]);
            }
        }
    }
}

const PLAN: Plan<&[(i8, i8)]> = Plan {
    emphasis: 5.0,
    square: 0.0,
    flatness: 2.0,
    floor: 0.1,
    grid: &[
        3.0, 3.15, 3.3, 3.45, 3.6, 3.75, 3.9, 4.05, 4.2, 4.35, 4.5, 4.65, 4.8, 5.0, 5.3, -2.6, -2.8, -3.0,
        -3.15, -3.3, -3.45, -3.6, -3.8, -4.0, -4.3,
    ],
    rounds: &[REACH, NEAR, NEAR],
};

const REACH: &[(i8, i8)] =
    &[(0, 0), (-1, 0), (1, 0), (-2, 0), (2, 0), (-3, 0), (3, 0), (0, -1), (-1, -1), (1, -1)];

const NEAR: &[(i8, i8)] = &[(0, 0), (-1, 0), (1, 0)];

/// Encodes one row `x` (256 n) into `out` (n); see `search_k.rs`. `importance`: per column, or `None`.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ3K]) {
    for (i, (x, out)) in x.as_chunks::<N>().0.iter().zip(out).enumerate() {
        let importance = importance.map(|w| &w.as_chunks::<N>().0[i]);
        let f = search_k::symmetric(x, importance, 4.0, 32.0, &PLAN);
        let q = f.q;
        let mut hmask = [0; 32];
        for j in 0..8 {
            for l in 0..32 {
                hmask[l] |= (q[32 * j + l] >> 2) << j;
            }
        }
        *out = BlockQ3K { hmask, qs: k::pack_2bit(&q), scales: pack_scales(&f.scales), d: f.d };
    }
}

/// Dot product of `w` (n) and `a` (at least n blocks).
///
/// Per super-block `a.d * d * I` with an exact integer `I`, f32 sums in the order of the blocks.
#[inline(always)]
pub fn dot(w: &[BlockQ3K], a: &[BlockQ8K]) -> f32 {
    let a = &a[..w.len()];
    let mut total = 0.0;
    for (w, a) in w.iter().zip(a) {
        let sum = k::scaled_sum(&unpack(w), &a.qs, &unpack_scales(&w.scales));
        total += a.d * (w.d.to_f32() * sum as f32);
    }
    total
}
