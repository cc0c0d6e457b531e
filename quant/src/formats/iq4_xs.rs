//! IQ4_XS: 256 weights of 4 bits that index [IQ4_NL's table](super::iq4_nl::TABLE), a 6-bit scale for each 32 and
//! one f16 scale for all, `w = d * (ls - 32) * TABLE[q]`. 4.25 bits per weight.
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

use super::F16;
use super::iq4_nl::{PEAKS, level, nearest, values};
use super::q4_0::pack;
use super::q8_k::BlockQ8K;
use super::search::{self, Best, Job, N, Row, Values};

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
        Self { d, scales_h: (high as u16).to_le_bytes(), scales_l: low.to_le_bytes(), qs: [0x88; SUBS * N / 2] }
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

/// A candidate for a block: `d`, and the sub-block scales that go best with it.
#[derive(Clone, Copy)]
struct Choice {
    error: f32,
    d: F16,
    scales: [i32; SUBS],
}

/// The best integer scales for `d`, near the sub-blocks' own scales `free` (two each), by the error they really give.
#[inline(always)]
fn settle(subs: &[Values], free: &[[f32; 2]; SUBS], d: F16) -> Choice {
    let mut choice = Choice { error: 0.0, d, scales: [0; SUBS] };
    let step = d.to_f32();
    for (b, v) in subs.iter().enumerate() {
        if v.peak == 0.0 {
            continue;
        }
        let centres = free[b].map(|s| search::int(search::round(search::clamp(s / step, -32.0, 31.0))));
        let mut least = f32::INFINITY;
        for (k, &centre) in centres.iter().enumerate() {
            for l in [centre, centre - 1, centre + 1] {
                let seen = k > 0 && (l - centres[0]).abs() <= 1;
                if seen || !(-32..32).contains(&l) {
                    continue;
                }
                let e = search::error(v, step * l as f32, level);
                if e < least {
                    (least, choice.scales[b]) = (e, l);
                }
            }
        }
        choice.error += v.unit * least;
    }
    choice
}

/// The least-squares `d` for a choice, to the nearest f16.
#[inline(always)]
fn refit(subs: &[Values], choice: &Choice) -> F16 {
    let (mut lx, mut ll) = (0.0f32, 0.0f32);
    for (v, &l) in subs.iter().zip(&choice.scales) {
        let s = l as f32;
        let (x, l2) = search::fit(v, 1.0 / (choice.d.to_f32() * s), level);
        if l != 0 {
            lx += v.unit * s * x;
            ll += v.unit * (s * s) * l2;
        }
    }
    if ll > 0.0 { search::half(lx / ll) } else { choice.d }
}

/// Finds `d` and the sub-block scales.
#[inline(always)]
fn choose(subs: &[Values]) -> Choice {
    // What each sub-block would like, and how much it minds.
    let mut free = [[0.0f32; 2]; SUBS];
    let mut minds = [0.0f32; SUBS];
    let mut top = 0.0f32;
    for (b, v) in subs.iter().enumerate() {
        if v.peak == 0.0 {
            continue;
        }
        let best = search::candidates::<2>(v, &PEAKS, level);
        let second = if best.scores[1] > 0.0 { best.items[1] } else { best.items[0] };
        free[b] = [best.items[0], second];
        minds[b] = v.unit * best.scores[0] / (best.items[0] * best.items[0]);
        top = if best.items[0].abs() > top.abs() { best.items[0] } else { top };
    }
    // The largest sub-block scale on -32 (or on up to a third less): which grid suits the others.
    let mut best = Best::<F16, TRIED>::new(F16::default());
    for i in 0..GRIDS {
        let d = search::half(top / (-32.4 + GRID_STEP * i as f32));
        let step = d.to_f32();
        let mut cost = 0.0;
        for (s, &minds) in free.iter().zip(&minds) {
            let l = search::round(search::clamp(s[0] / step, -32.0, 31.0));
            let e = s[0] - l * step;
            cost += minds * (e * e);
        }
        // `Best` takes the largest positive.
        best.offer(1.0 / (cost + f32::MIN_POSITIVE), d);
    }
    let mut chosen = settle(subs, &free, best.items[0]);
    for (&d, &score) in best.items.iter().zip(&best.scores).skip(1) {
        if score > 0.0 {
            let c = settle(subs, &free, d);
            chosen = if c.error < chosen.error { c } else { chosen };
        }
    }
    for _ in 0..ROUNDS {
        let d = refit(subs, &chosen);
        let c = settle(subs, &free, d);
        if d == chosen.d || c.error >= chosen.error {
            break;
        }
        chosen = c;
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

/// Encodes a row, see [`Format::encode`](super::Format::encode). A block with a weight that is not finite gets
/// `d` = NaN.
#[inline(always)]
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockIq4Xs]) {
    let row = Row::new(x, importance);
    let importance = importance.map(|p| p.as_chunks::<N>().0);
    'blocks: for (at, (x, out)) in x.as_chunks::<{ SUBS * N }>().0.iter().zip(out).enumerate() {
        let mut subs = [const { Values::ZERO }; SUBS];
        for (b, x) in x.as_chunks::<N>().0.iter().enumerate() {
            match search::prepare(x, importance.map(|p| &p[at * SUBS + b]), row) {
                Job::Zero => {}
                Job::NotFinite => {
                    *out = BlockIq4Xs::new(search::NAN, [0; SUBS]);
                    continue 'blocks;
                }
                Job::Search(v) => subs[b] = v,
            }
        }
        let Choice { d, scales, .. } = choose(&subs);
        *out = BlockIq4Xs::new(d, scales);
        for (b, qs) in out.qs.as_chunks_mut().0.iter_mut().enumerate() {
            let inverse = 1.0 / (d.to_f32() * scales[b] as f32);
            if scales[b] != 0 {
                *qs = pack(&subs[b].x.map(|x| nearest(x * inverse)));
            }
        }
    }
}

/// Dot product of `w` (n) and `a` (n): an exact integer sum over the 256 of a block with the sub-block scales in
/// it, blocks summed in their order.
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
