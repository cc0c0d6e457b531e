//! Q8_0: 32 weights of 8 bits with one scale, `w = d * q`. 8.5 bits per weight.
//!
//! ```text
//! byte  0     2                        34
//!       | d   | qs[0] qs[1] ... qs[31] |
//!       | f16 | i8, one per weight     |
//! ```
//!
//! q is -127..=127 in what we write; a file may hold -128.

use super::F16;
use super::batch::{WIDE, int, limit, nearest};
use super::q8_a::BlockQ8A;
use super::search::{self, Batch, Kind, Levels, N, Row};

/// 32 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale.
    pub d: F16,
    /// Weights in units of `d`.
    pub qs: [i8; N],
}

/// Decodes `blocks` (n) into `out` (`32 n`); all of both when the lengths agree, else the shorter.
#[inline(always)]
pub fn decode(blocks: &[BlockQ8_0], out: &mut [f32]) {
    for (b, out) in blocks.iter().zip(out.as_chunks_mut::<N>().0) {
        let d = b.d.to_f32();
        for (o, &q) in out.iter_mut().zip(&b.qs) {
            *o = f32::from(q) * d;
        }
    }
}

/// The integers -127..=127 themselves.
struct Integers;

impl Levels for Integers {
    #[inline(always)]
    fn level(v: f32) -> f32 {
        nearest(limit(v, -127.0, 127.0))
    }

    #[inline(always)]
    fn index(v: f32) -> u8 {
        int(Self::level(v)) as i8 as u8
    }
}

/// Encodes a row, see [`Format::encode`](super::Format::encode). A block with a weight that is not finite
/// gets `d` = NaN.
///
/// With 127 levels a clipped weight costs more than finer steps gain, but the 32 rounding errors of one block
/// differ from scale to scale as if drawn anew: a walk over the f16 scales from `amax / 127.5` upwards finds
/// a lucky one.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ8_0]) {
    let row = Row::new(x, importance);
    for (i, (x, out)) in x.chunks(N * WIDE).zip(out.chunks_mut(WIDE)).enumerate() {
        let b = Batch::new(x, importance.map(|p| &p[N * WIDE * i..][..x.len()]), row);
        let d = search::walk::<Integers>(&b, WALK);
        let q = b.indices::<Integers>(&d);
        for (s, out) in out.iter_mut().enumerate() {
            *out = match b.kind(s) {
                Kind::Zero => BlockQ8_0 { d: F16::ZERO, qs: [0; N] },
                Kind::NotFinite => BlockQ8_0 { d: search::NAN, qs: [0; N] },
                Kind::Weights => BlockQ8_0 { d: F16::from_f32(d[s]), qs: bytemuck::cast(q[s]) },
            };
        }
    }
}

/// Levels of the largest weight: first and last scale of the walk, and f16 steps between two scales.
const WALK: (f32, f32, i32) = (127.4, 116.0, 2);

/// Dot product of `w` (n) and `a` (n): an exact integer sum in each block, blocks summed in their order.
#[inline(always)]
pub fn dot(w: &[BlockQ8_0], a: &[BlockQ8A]) -> f32 {
    let mut sum = 0.0;
    for (w, a) in w.iter().zip(a) {
        sum += a.d * (w.d.to_f32() * a.dot(&w.qs) as f32);
    }
    sum
}
