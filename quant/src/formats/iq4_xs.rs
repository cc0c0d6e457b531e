//! IQ4_XS: 256 weights of 4 bits that index [IQ4_NL's table](super::iq4_nl::TABLE), a 6-bit scale for each 32
//! and one f16 scale for all, `w = d * (ls - 32) * TABLE[q]`. 4.25 bits per weight.
//!
//! ```text
//! byte  0     2          4            8                                            136
//!       | d   | scales_h | scales_l   | qs: 16 bytes for each 32 weights           |
//!       | f16 | u16      | u8 x 4     | low nibble of byte j  = q[j]               |
//!       |     |          |            | high nibble of byte j = q[j+16]            |
//!
//! ls of sub-block i: low 4 bits  = nibble i of scales_l (low nibble first)
//!                    high 2 bits = bits 2i, 2i+1 of scales_h
//! ```

#![allow(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of fixed size: the shape that vectorises"
)]

use super::F16;
use super::batch::{Lane, WIDE, group_max, group_sum, inverses, limit, nearest};
use super::iq4_nl::{PEAKS, Table, values};
use super::pick::pick;
use super::q4_0::pack;
use super::q8_k::BlockQ8K;
use super::search::{self, Batch, Best, Kind, N, Row};

/// Sub-blocks.
const SUBS: usize = 8;

/// 256 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIq4Xs {
    /// Scale of the sub-block scales.
    pub d: F16,
    /// Upper two bits of the sub-block scales, little-endian.
    pub scales_h: [u8; 2],
    /// Lower four bits of the sub-block scales.
    pub scales_l: [u8; SUBS / 2],
    /// Nibbles, 16 bytes for each sub-block.
    pub qs: [u8; SUBS * N / 2],
}

impl BlockIq4Xs {
    /// The sub-block scales, -32..=31.
    #[inline(always)]
    fn scales(&self) -> [i32; SUBS] {
        let high = u32::from(u16::from_le_bytes(self.scales_h));
        let low = u32::from_le_bytes(self.scales_l);
        let mut scales = [0; SUBS];
        for (i, s) in scales.iter_mut().enumerate() {
            *s = ((low >> (4 * i) & 15) | (high >> (2 * i) & 3) << 4) as i32 - 32;
        }
        scales
    }

    /// A block of these scales (-32..=31) and no nibbles yet.
    fn new(d: F16, scales: [i32; SUBS]) -> Self {
        let (mut high, mut low) = (0, 0);
        for (i, s) in scales.iter().enumerate() {
            let s = (s + 32) as u32;
            low |= (s & 15) << (4 * i);
            high |= (s >> 4) << (2 * i);
        }
        // 0x88: the level nearest to zero.
        Self {
            d,
            scales_h: (high as u16).to_le_bytes(),
            scales_l: low.to_le_bytes(),
            qs: [0x88; SUBS * N / 2],
        }
    }
}

/// Decodes `blocks` (n) into `out` (`256 n`); all of both when the lengths agree, else the shorter.
#[inline(always)]
pub fn decode(blocks: &[BlockIq4Xs], out: &mut [f32]) {
    for (b, out) in blocks.iter().zip(out.as_chunks_mut::<{ SUBS * N }>().0) {
        let d = b.d.to_f32();
        let scales = b.scales();
        for (i, (out, qs)) in out.as_chunks_mut::<N>().0.iter_mut().zip(b.qs.as_chunks().0).enumerate() {
            let dl = d * scales[i] as f32;
            for (o, q) in out.iter_mut().zip(values(qs)) {
                *o = dl * f32::from(q);
            }
        }
    }
}

/// What is chosen for each sub-block of a batch: `d` and the integer scale. Errors and `d` are those of the
/// whole block, in each of its lanes.
#[derive(Clone, Copy)]
struct Choice {
    error: Lane,
    d: Lane,
    scales: Lane,
}

impl Choice {
    /// Takes over what is better, block by block.
    #[inline(always)]
    fn take(&mut self, other: &Self) {
        for s in 0..WIDE {
            let better = other.error[s] < self.error[s];
            self.error[s] = pick(better, other.error[s], self.error[s]);
            self.d[s] = pick(better, other.d[s], self.d[s]);
            self.scales[s] = pick(better, other.scales[s], self.scales[s]);
        }
    }
}

/// The best integer scales for `d`, near the sub-blocks' own scales `free` (two each), by the error they
/// really give.
#[inline(always)]
fn settle(b: &Batch, free: &[Lane; 2], d: &Lane) -> Choice {
    let mut least = [f32::INFINITY; WIDE];
    let mut choice = Choice { error: [0.0; WIDE], d: *d, scales: [0.0; WIDE] };
    let inverse = inverses(d);
    for free in free {
        let (mut tried, mut steps) = ([[0.0; WIDE]; 3], [[0.0; WIDE]; 3]);
        for (k, away) in [0.0, -1.0, 1.0].into_iter().enumerate() {
            for s in 0..WIDE {
                let centre = nearest(limit(free[s] * inverse[s], -32.0, 31.0));
                tried[k][s] = limit(centre + away, -32.0, 31.0);
                steps[k][s] = d[s] * tried[k][s];
            }
        }
        let errors = b.errors::<Table, 3>(&steps);
        for k in 0..3 {
            for s in 0..WIDE {
                let better = errors[k][s] < least[s];
                least[s] = pick(better, errors[k][s], least[s]);
                choice.scales[s] = pick(better, tried[k][s], choice.scales[s]);
            }
        }
    }
    for s in 0..WIDE {
        choice.error[s] = b.unit[s] * least[s];
    }
    choice.error = group_sum::<SUBS>(&choice.error);
    choice
}

/// The least-squares `d` for a choice, to the nearest f16.
#[inline(always)]
fn refit(b: &Batch, choice: &Choice) -> Lane {
    let mut step = [0.0; WIDE];
    for s in 0..WIDE {
        step[s] = choice.d[s] * choice.scales[s];
    }
    let (mut lx, mut ll) = b.fit::<Table>(&inverses(&step));
    for s in 0..WIDE {
        lx[s] *= b.unit[s] * choice.scales[s];
        ll[s] *= b.unit[s] * (choice.scales[s] * choice.scales[s]);
    }
    let (lx, ll) = (group_sum::<SUBS>(&lx), group_sum::<SUBS>(&ll));
    let mut d = choice.d;
    for s in 0..WIDE {
        d[s] = pick(ll[s] > 0.0, search::half(lx[s] / ll[s]), d[s]);
    }
    d
}

/// Finds `d` and the sub-block scales of two blocks.
#[inline(always)]
fn choose(b: &Batch) -> Choice {
    // What each sub-block would like, and how much it minds.
    let own = search::candidates::<Table, 2>(b, &PEAKS);
    let mut free = [own.items[0][0]; 2];
    let (mut minds, mut size) = ([0.0; WIDE], [0.0; WIDE]);
    for s in 0..WIDE {
        let best = free[0][s];
        free[1][s] = pick(own.scores[1][s] > 0.0, own.items[1][0][s], best);
        minds[s] = pick(best != 0.0, b.unit[s] * own.scores[0][s] / (best * best), 0.0);
        size[s] = best.abs();
    }
    // The largest, with its sign; of two the positive.
    let size = group_max::<SUBS>(&size);
    let mut top = [0.0; WIDE];
    for s in 0..WIDE {
        top[s] = pick(free[0][s] == size[s], 1.0, 0.0);
    }
    let mut top = group_max::<SUBS>(&top);
    for s in 0..WIDE {
        top[s] = pick(top[s] > 0.0, size[s], -size[s]);
    }
    // The largest sub-block scale on -32 (or on up to a third less): which grid suits the others.
    let mut best = Best::<TRIED, 1>::new();
    for i in 0..GRIDS {
        let mut d = top;
        for s in 0..WIDE {
            d[s] = search::half(top[s] / (-32.4 + GRID_STEP * i as f32));
        }
        let (inverse, mut cost) = (inverses(&d), [0.0; WIDE]);
        for s in 0..WIDE {
            let l = nearest(limit(free[0][s] * inverse[s], -32.0, 31.0));
            let e = free[0][s] - l * d[s];
            cost[s] = minds[s] * (e * e);
        }
        let mut score = group_sum::<SUBS>(&cost);
        for s in 0..WIDE {
            // `Best` takes the largest positive.
            score[s] = 1.0 / (score[s] + f32::MIN_POSITIVE);
        }
        best.offer(&score, &[d]);
    }
    let mut chosen = settle(b, &free, &best.items[0][0]);
    for [d] in &best.items[1..] {
        chosen.take(&settle(b, &free, d));
    }
    for _ in 0..ROUNDS {
        let d = refit(b, &chosen);
        let before = chosen.error;
        chosen.take(&settle(b, &free, &d));
        // A block that got no better once will not: the same would be tried again.
        if chosen.error == before {
            break;
        }
    }
    chosen
}

/// Grids compared by how near their points lie to the sub-blocks' own scales.
const GRIDS: usize = 48;
/// From one grid's level of the largest sub-block scale to the next one's.
const GRID_STEP: f32 = 0.25;
/// Grids tried in earnest.
const TRIED: usize = 3;
/// Rounds of fitting `d` to the choice.
const ROUNDS: usize = 3;

/// Encodes a row, see [`Format::encode`](super::Format::encode). A block with a weight that is not finite
/// gets `d` = NaN.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockIq4Xs]) {
    let row = Row::new(x, importance);
    for (i, (x, out)) in x.chunks(N * WIDE).zip(out.chunks_mut(WIDE / SUBS)).enumerate() {
        let b = Batch::new(x, importance.map(|p| &p[N * WIDE * i..][..x.len()]), row);
        let Choice { d, scales, .. } = choose(&b);
        let mut step = [0.0; WIDE];
        for s in 0..WIDE {
            step[s] = d[s] * scales[s];
        }
        let q = b.indices::<Table>(&step);
        for (g, out) in out.iter_mut().enumerate() {
            let first = g * SUBS;
            if (first..first + SUBS).any(|s| b.kind(s) == Kind::NotFinite) {
                *out = BlockIq4Xs::new(search::NAN, [0; SUBS]);
                continue;
            }
            let mut integers = [0; SUBS];
            for s in 0..SUBS {
                integers[s] = pick(b.kind(first + s) == Kind::Zero, 0, scales[first + s] as i32);
            }
            *out = BlockIq4Xs::new(F16::from_f32(d[first]), integers);
            for (s, qs) in out.qs.as_chunks_mut().0.iter_mut().enumerate() {
                if integers[s] != 0 {
                    *qs = pack(&q[first + s]);
                }
            }
        }
    }
}

/// Dot product of `w` (n) and `a` (n): an exact integer sum over the 256 of a block with the sub-block scales
/// in it, blocks summed in their order.
#[inline(always)]
pub fn dot(w: &[BlockIq4Xs], a: &[BlockQ8K]) -> f32 {
    let mut sum = 0.0;
    for (w, a) in w.iter().zip(a) {
        let scales = w.scales();
        let mut q = 0;
        for (i, (qs, a)) in w.qs.as_chunks().0.iter().zip(a.qs.as_chunks::<N>().0).enumerate() {
            q += scales[i] * super::q8_a::dot(&values(qs), a);
        }
        sum += a.d * (w.d.to_f32() * q as f32);
    }
    sum
}
