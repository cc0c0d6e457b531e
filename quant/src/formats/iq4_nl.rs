//! IQ4_NL: 32 weights of 4 bits that index a fixed table, one scale, `w = d * TABLE[q]`. 4.5 bits per weight.
//!
//! ```text
//! byte  0     2                                18
//!       | d   | qs[0] qs[1] ... qs[15]         |
//!       | f16 | low nibble of qs[j]  = q[j]    |
//!       |     | high nibble of qs[j] = q[j+16] |
//! ```
//!
//! The levels are dense around zero, where weights are. The table is not symmetric, so the sign of `d` is a
//! choice.

use super::F16;
use super::batch::{WIDE, int, limit};
use super::q4_0::pack;
use super::q8_a::BlockQ8A;
use super::search::{self, Batch, Kind, Levels, N, Row};

/// What a nibble stands for.
pub const TABLE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// Scale.
    pub d: F16,
    /// Nibbles: `q[j] | q[j + 16] << 4`.
    pub qs: [u8; N / 2],
}

/// Both values of a byte: the low nibble's, the high nibble's.
const PAIRS: [[i8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        pairs[i] = [TABLE[i & 15], TABLE[i >> 4]];
        i += 1;
    }
    pairs
};

/// The table's values for the nibbles, in the order of the weights. One load gives two of them: the compiler
/// makes no byte shuffle out of an indexed load, and comparing with each of the 16 was ten times slower.
#[inline(always)]
pub(super) fn values(qs: &[u8; N / 2]) -> [i8; N] {
    let mut v = [0; N];
    for j in 0..N / 2 {
        [v[j], v[j + N / 2]] = PAIRS[usize::from(qs[j])];
    }
    v
}

/// Decodes `blocks` (n) into `out` (`32 n`); all of both when the lengths agree, else the shorter.
#[inline(always)]
pub fn decode(blocks: &[BlockIq4Nl], out: &mut [f32]) {
    for (b, out) in blocks.iter().zip(out.as_chunks_mut::<N>().0) {
        let d = b.d.to_f32();
        for (o, q) in out.iter_mut().zip(values(&b.qs)) {
            *o = d * f32::from(q);
        }
    }
}

/// Index of the table's value nearest to `(i - 256) / 2 .. (i - 255) / 2`: every midpoint of the table is a
/// whole number of halves.
const NEAREST: [u8; 512] = {
    let mut nearest = [0; 512];
    let mut i = 0;
    while i < 512 {
        let mut q = 0;
        // Twice the midpoint of q and q + 1.
        while q < 15 && TABLE[q] as i32 + TABLE[q + 1] as i32 <= i as i32 - 256 {
            q += 1;
        }
        nearest[i] = q as u8;
        i += 1;
    }
    nearest
};

/// `TABLE[NEAREST[i]]`.
const LEVELS: [f32; 512] = {
    let mut levels = [0.0; 512];
    let mut i = 0;
    while i < 512 {
        levels[i] = TABLE[NEAREST[i] as usize] as f32;
        i += 1;
    }
    levels
};

/// The cell of `NEAREST` that `v` falls into. A `v` on a boundary may go either way, always the same.
#[inline(always)]
fn cell(v: f32) -> usize {
    ((int(limit(v + v - 0.5, -256.0, 255.0)) + 256) & 511) as usize
}

/// The values of [`TABLE`].
pub(super) struct Table;

impl Levels for Table {
    #[inline(always)]
    fn level(v: f32) -> f32 {
        LEVELS[cell(v)]
    }

    #[inline(always)]
    fn index(v: f32) -> u8 {
        NEAREST[cell(v)]
    }
}

/// Levels the largest weight is put on: around -127, and on the short side around 113.
pub(super) const PEAKS: [f32; 16] = [
    -127.0, -138.0, -132.5, -121.5, -116.0, -110.5, -105.0, -99.5, 113.0, 122.0, 117.5, 108.0, 103.0, 98.0,
    93.0, 88.0,
];

/// Encodes a row, see [`Format::encode`](super::Format::encode). A block with a weight that is not finite
/// gets `d` = NaN.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockIq4Nl]) {
    let row = Row::new(x, importance);
    for (i, (x, out)) in x.chunks(N * WIDE).zip(out.chunks_mut(WIDE)).enumerate() {
        let b = Batch::new(x, importance.map(|p| &p[N * WIDE * i..][..x.len()]), row);
        let d = search::scale::<Table>(&b, &PEAKS);
        let q = b.indices::<Table>(&d);
        for (s, out) in out.iter_mut().enumerate() {
            *out = match b.kind(s) {
                Kind::Zero => BlockIq4Nl { d: F16::ZERO, qs: [0x88; N / 2] },
                Kind::NotFinite => BlockIq4Nl { d: search::NAN, qs: [0x88; N / 2] },
                Kind::Weights => BlockIq4Nl { d: F16::from_f32(d[s]), qs: pack(&q[s]) },
            };
        }
    }
}

/// Dot product of `w` (n) and `a` (n): an exact integer sum in each block, blocks summed in their order.
#[inline(always)]
pub fn dot(w: &[BlockIq4Nl], a: &[BlockQ8A]) -> f32 {
    let mut sum = 0.0;
    for (w, a) in w.iter().zip(a) {
        sum += a.d * (w.d.to_f32() * a.dot(&values(&w.qs)) as f32);
    }
    sum
}
