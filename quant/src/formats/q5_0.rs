//! Q5_0: 32 weights of 5 bits with one scale, `w = d * (q - 16)`, q in 0..=31. 5.5 bits per weight.
//!
//! ```text
//! byte  0     2                     6                                           22
//!       | d   | qh: u32             | qs[0] qs[1] ... qs[15]                    |
//!       | f16 | bit j = bit 4 of    | low nibble of qs[j]  = bits 0-3 of q[j]   |
//!       |     | q[j], j in 0..32    | high nibble of qs[j] = bits 0-3 of q[j+16]|
//! ```
//!
//! `d` may be negative: the range -16..=15 is then used the other way round.

use super::F16;
use super::batch::{WIDE, int, limit, nearest};
use super::q4_0::{nibbles, pack};
use super::q8_a::BlockQ8A;
use super::search::{self, Batch, Kind, Levels, N, Row};

/// 32 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale.
    pub d: F16,
    /// Fifth bits, bit `j % 8` of byte `j / 8` for weight `j`.
    pub qh: [u8; N / 8],
    /// Nibbles: `(q[j] & 15) | (q[j + 16] & 15) << 4`.
    pub qs: [u8; N / 2],
}

/// The five bits of each weight, in the order of the weights.
#[inline(always)]
pub(super) fn fives(qh: &[u8; N / 8], qs: &[u8; N / 2]) -> [i8; N] {
    let mut q = nibbles(qs);
    // Each byte of qh eight times over, then one bit of each copy: no variable shift, which SSE2 has not.
    let mut copies = [0u8; N];
    for (copy, &h) in copies.as_chunks_mut::<8>().0.iter_mut().zip(qh) {
        *copy = (u64::from(h) * 0x0101_0101_0101_0101).to_le_bytes();
    }
    for j in 0..N {
        q[j] |= if copies[j] & (1 << (j % 8)) != 0 { 16 } else { 0 };
    }
    q
}

/// The other way round; `q[j]` in 0..=31.
#[inline(always)]
pub(super) fn pack_fives(q: &[u8; N]) -> ([u8; N / 8], [u8; N / 2]) {
    let mut qh = [0; N / 8];
    for (j, q) in q.iter().enumerate() {
        qh[j / 8] |= (q >> 4) << (j % 8);
    }
    (qh, pack(&q.map(|q| q & 15)))
}

/// Decodes `blocks` (n) into `out` (`32 n`); all of both when the lengths agree, else the shorter.
#[inline(always)]
pub fn decode(blocks: &[BlockQ5_0], out: &mut [f32]) {
    for (b, out) in blocks.iter().zip(out.as_chunks_mut::<N>().0) {
        let d = b.d.to_f32();
        for (o, q) in out.iter_mut().zip(fives(&b.qh, &b.qs)) {
            *o = f32::from(q - 16) * d;
        }
    }
}

/// The integers -16..=15 themselves.
struct Integers;

impl Levels for Integers {
    #[inline(always)]
    fn level(v: f32) -> f32 {
        nearest(limit(v, -16.0, 15.0))
    }

    #[inline(always)]
    fn index(v: f32) -> u8 {
        (int(Self::level(v)) + 16) as u8
    }
}

/// Levels the largest weight is put on: around -16, and on the short side around 15.
const PEAKS: [f32; 16] = [
    -16.00, -16.80, -16.40, -15.60, -15.20, -14.80, -14.40, -14.00, 15.00, 15.90, 15.60, 15.30, 14.65, 14.30,
    13.95, 13.60,
];

/// q = 16 everywhere.
const ZERO: BlockQ5_0 = BlockQ5_0 { d: F16::ZERO, qh: [255; N / 8], qs: [0; N / 2] };

/// Encodes a row, see [`Format::encode`](super::Format::encode). A block with a weight that is not finite
/// gets `d` = NaN.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ5_0]) {
    let row = Row::new(x, importance);
    for (i, (x, out)) in x.chunks(N * WIDE).zip(out.chunks_mut(WIDE)).enumerate() {
        let b = Batch::new(x, importance.map(|p| &p[N * WIDE * i..][..x.len()]), row);
        let d = search::scale::<Integers>(&b, &PEAKS);
        let q = b.indices::<Integers>(&d);
        for (s, out) in out.iter_mut().enumerate() {
            *out = match b.kind(s) {
                Kind::Zero => ZERO,
                Kind::NotFinite => BlockQ5_0 { d: search::NAN, ..ZERO },
                Kind::Weights => {
                    let (qh, qs) = pack_fives(&q[s]);
                    BlockQ5_0 { d: F16::from_f32(d[s]), qh, qs }
                }
            };
        }
    }
}

/// Dot product of `w` (n) and `a` (n): an exact integer sum in each block, blocks summed in their order.
#[inline(always)]
pub fn dot(w: &[BlockQ5_0], a: &[BlockQ8A]) -> f32 {
    let mut sum = 0.0;
    for (w, a) in w.iter().zip(a) {
        let q = a.dot(&fives(&w.qh, &w.qs)) - 16 * a.sum;
        sum += a.d * (w.d.to_f32() * q as f32);
    }
    sum
}
