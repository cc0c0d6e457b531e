//! Q6_K: `w = d * scale * q`, q in -32..=31, an int8 scale per 16 weights.
//!
//! 210 bytes per 256 weights, 6.5625 bits per weight. `q` is stored plus 32.
//!
//! ```text
//! byte 0..128    ql      byte 64 h + l: low 4 bits of weight 128 h + l (bits 0..4) and
//!                        of weight 128 h + 64 + l (bits 4..8), l < 64
//! byte 128..192  qh      byte 32 h + l: high 2 bits of weights 128 h + 32 k + l, k = 0..4,
//!                        in bits 2 k and 2 k + 1
//! byte 192..208  scales  int8
//! byte 208..210  d       f16
//! ```

use super::F16;
use super::k;
use super::q8_k::BlockQ8K;
use super::search_k::{self, N, Plan};

/// 256 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// Low four bits of each integer.
    pub ql: [u8; 128],
    /// High two bits of each integer.
    pub qh: [u8; 64],
    /// Scale of each 16 weights.
    pub scales: [i8; 16],
    /// Scale of the scales.
    pub d: F16,
}

/// The integers, -32..=31.
#[inline(always)]
fn unpack(b: &BlockQ6K) -> [i8; N] {
    let mut q = k::unpack_2bit(&b.qh);
    for h in 0..2 {
        for l in 0..64 {
            let (i, byte) = (128 * h + l, b.ql[64 * h + l]);
            q[i] = ((q[i] << 4) | (byte & 15) as i8) - 32;
            q[i + 64] = ((q[i + 64] << 4) | (byte >> 4) as i8) - 32;
        }
    }
    q
}

/// Decodes `blocks` (n) into `out` (256 n).
#[inline(always)]
pub fn decode(blocks: &[BlockQ6K], out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<N>();
    for (b, out) in blocks.iter().zip(out) {
        let d = b.d.to_f32();
        let q = unpack(b);
        for s in 0..16 {
            let scale = d * f32::from(b.scales[s]);
            for i in 16 * s..16 * s + 16 {
                out[i] = scale * f32::from(q[i]);
            }
        }
    }
}

const PLAN: Plan<&[(i8, i8)]> = Plan {
    emphasis: 1.0,
    square: 0.5,
    flatness: 4.0,
    floor: 0.05,
    grid: &[31.0, 31.2, 31.4, 31.6, 31.8, 32.0, 32.2, 32.4, 32.6, 32.8, 33.0, 33.5, 34.0, -31.0, -31.3],
    rounds: &[REACH, REACH, NEAR],
};

const REACH: &[(i8, i8)] = &[(0, 0), (-1, 0), (1, 0), (-2, 0), (2, 0), (-3, 0), (3, 0)];

const NEAR: &[(i8, i8)] = &[(0, 0), (-1, 0), (1, 0)];

/// Encodes one row `x` (256 n) into `out` (n); see `search_k.rs`. `importance`: per column, or `None`.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ6K]) {
    for (i, (x, out)) in x.as_chunks::<N>().0.iter().zip(out).enumerate() {
        let importance = importance.map(|w| &w.as_chunks::<N>().0[i]);
        let f = search_k::symmetric(x, importance, 32.0, 128.0, &PLAN);
        let q = f.q;
        let mut ql = [0; 128];
        for h in 0..2 {
            for l in 0..64 {
                ql[64 * h + l] = (q[128 * h + l] & 15) | (q[128 * h + 64 + l] << 4);
            }
        }
        let high = q.map(|q| q >> 4);
        *out = BlockQ6K { ql, qh: k::pack_2bit(&high), scales: f.scales, d: f.d };
    }
}

/// Dot product of `w` (n) and `a` (at least n blocks).
///
/// Per super-block `a.d * d * I` with an exact integer `I`, f32 sums in the order of the blocks.
#[inline(always)]
pub fn dot(w: &[BlockQ6K], a: &[BlockQ8K]) -> f32 {
    let a = &a[..w.len()];
    let mut total = 0.0;
    for (w, a) in w.iter().zip(a) {
        let sum = k::scaled_sum(&unpack(w), &a.qs, &w.scales.map(i16::from));
        total += a.d * (w.d.to_f32() * sum as f32);
    }
    total
}
