//! Q4_0: 32 weights of 4 bits with one scale, `w = d * (q - 8)`, q in 0..=15. 4.5 bits per weight.
//!
//! ```text
//! byte  0     2                                18
//!       | d   | qs[0] qs[1] ... qs[15]         |
//!       | f16 | low nibble of qs[j]  = q[j]    |
//!       |     | high nibble of qs[j] = q[j+16] |
//! ```
//!
//! `d` may be negative: the range -8..=7 is then used the other way round.

use super::F16;
use super::batch::{WIDE, int, limit, nearest};
use super::q8_a::BlockQ8A;
use super::search::{self, Batch, Kind, Levels, N, Row};

/// 32 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale.
    pub d: F16,
    /// Nibbles: `q[j] | q[j + 16] << 4`.
    pub qs: [u8; N / 2],
}

/// The nibbles in the order of the weights.
#[inline(always)]
pub(super) fn nibbles(qs: &[u8; N / 2]) -> [i8; N] {
    let mut q = [0; N];
    for j in 0..N / 2 {
        q[j] = (qs[j] & 15) as i8;
        q[j + N / 2] = (qs[j] >> 4) as i8;
    }
    q
}

/// The other way round; `q[j]` in 0..=15.
#[inline(always)]
pub(super) fn pack(q: &[u8; N]) -> [u8; N / 2] {
    let mut qs = [0; N / 2];
    for j in 0..N / 2 {
        qs[j] = q[j] | q[j + N / 2] << 4;
    }
    qs
}

/// Decodes `blocks` (n) into `out` (`32 n`); all of both when the lengths agree, else the shorter.
#[inline(always)]
pub fn decode(blocks: &[BlockQ4_0], out: &mut [f32]) {
    for (b, out) in blocks.iter().zip(out.as_chunks_mut::<N>().0) {
        let d = b.d.to_f32();
        for (o, q) in out.iter_mut().zip(nibbles(&b.qs)) {
            *o = f32::from(q - 8) * d;
        }
    }
}

/// The integers -8..=7 themselves.
struct Integers;

impl Levels for Integers {
    #[inline(always)]
    fn level(v: f32) -> f32 {
        nearest(limit(v, -8.0, 7.0))
    }

    #[inline(always)]
    fn index(v: f32) -> u8 {
        (int(Self::level(v)) + 8) as u8
    }
}

/// Levels the largest weight is put on: around -8, and on the short side around 7.
const PEAKS: [f32; 16] =
    [-8.00, -8.80, -8.40, -7.60, -7.20, -6.80, -6.40, -6.00, 7.00, 7.90, 7.60, 7.30, 6.65, 6.30, 5.95, 5.60];

/// Encodes a row, see [`Format::encode`](super::Format::encode). A block with a weight that is not finite
/// gets `d` = NaN.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ4_0]) {
    let row = Row::new(x, importance);
    for (i, (x, out)) in x.chunks(N * WIDE).zip(out.chunks_mut(WIDE)).enumerate() {
        let b = Batch::new(x, importance.map(|p| &p[N * WIDE * i..][..x.len()]), row);
        let d = search::scale::<Integers>(&b, &PEAKS);
        let q = b.indices::<Integers>(&d);
        for (s, out) in out.iter_mut().enumerate() {
            *out = match b.kind(s) {
                Kind::Zero => BlockQ4_0 { d: F16::default(), qs: [0x88; N / 2] },
                Kind::NotFinite => BlockQ4_0 { d: search::NAN, qs: [0x88; N / 2] },
                Kind::Weights => BlockQ4_0 { d: F16::from_f32(d[s]), qs: pack(&q[s]) },
            };
        }
    }
}

/// Dot product of `w` (n) and `a` (n): an exact integer sum in each block, blocks summed in their order.
#[inline(always)]
pub fn dot(w: &[BlockQ4_0], a: &[BlockQ8A]) -> f32 {
    let mut sum = 0.0;
    for (w, a) in w.iter().zip(a) {
        let q = a.dot(&nibbles(&w.qs)) - 8 * a.sum;
        sum += a.d * (w.d.to_f32() * q as f32);
    }
    sum
}
