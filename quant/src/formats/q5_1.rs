//! Q5_1: 32 weights of 5 bits with a scale and a minimum, `w = q * d + m`, q in 0..=31. 6 bits per weight.
//!
//! ```text
//! byte  0     2     4                     8                                           24
//!       | d   | m   | qh: u32             | qs[0] qs[1] ... qs[15]                    |
//!       | f16 | f16 | bit j = bit 4 of    | low nibble of qs[j]  = bits 0-3 of q[j]   |
//!       |     |     | q[j], j in 0..32    | high nibble of qs[j] = bits 0-3 of q[j+16]|
//! ```

use super::F16;
use super::batch::WIDE;
use super::q5_0::{fives, pack_fives};
use super::q8_a::BlockQ8A;
use super::search::{self, Batch, Kind, N, Row};

/// 32 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale.
    pub d: F16,
    /// Minimum.
    pub m: F16,
    /// Fifth bits, bit `j % 8` of byte `j / 8` for weight `j`.
    pub qh: [u8; N / 8],
    /// Nibbles: `(q[j] & 15) | (q[j + 16] & 15) << 4`.
    pub qs: [u8; N / 2],
}

/// Decodes `blocks` (n) into `out` (`32 n`); all of both when the lengths agree, else the shorter.
#[inline(always)]
pub fn decode(blocks: &[BlockQ5_1], out: &mut [f32]) {
    for (b, out) in blocks.iter().zip(out.as_chunks_mut::<N>().0) {
        let (d, m) = (b.d.to_f32(), b.m.to_f32());
        for (o, q) in out.iter_mut().zip(fives(&b.qh, &b.qs)) {
            *o = f32::from(q) * d + m;
        }
    }
}

/// Levels by which each end of the range is moved inwards.
const CUTS: [f32; 4] = [0.0, -0.3, 0.35, 0.7];

const ZERO: BlockQ5_1 = BlockQ5_1 { d: F16::ZERO, m: F16::ZERO, qh: [0; N / 8], qs: [0; N / 2] };

/// Encodes a row, see [`Format::encode`](super::Format::encode). A block with a weight that is not finite
/// gets `d` = NaN.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ5_1]) {
    let row = Row::new(x, importance);
    for (i, (x, out)) in x.chunks(N * WIDE).zip(out.chunks_mut(WIDE)).enumerate() {
        let b = Batch::new(x, importance.map(|p| &p[N * WIDE * i..][..x.len()]), row);
        let [d, m] = search::affine(&b, 31.0, &CUTS);
        let q = search::affine_levels(&b, &[d, m], 31.0);
        for (s, out) in out.iter_mut().enumerate() {
            *out = match b.kind(s) {
                Kind::Zero => ZERO,
                Kind::NotFinite => BlockQ5_1 { d: search::NAN, ..ZERO },
                Kind::Weights => {
                    let (qh, qs) = pack_fives(&q[s]);
                    BlockQ5_1 { d: F16::from_f32(d[s]), m: F16::from_f32(m[s]), qh, qs }
                }
            };
        }
    }
}

/// Dot product of `w` (n) and `a` (n): exact integer sums in each block, blocks summed in their order.
#[inline(always)]
pub fn dot(w: &[BlockQ5_1], a: &[BlockQ8A]) -> f32 {
    let mut sum = 0.0;
    for (w, a) in w.iter().zip(a) {
        let q = a.dot(&fives(&w.qh, &w.qs));
        sum += a.d * (w.d.to_f32() * q as f32 + w.m.to_f32() * a.sum as f32);
    }
    sum
}
