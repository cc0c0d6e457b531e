//! The integer product of one tile of rows with columns of int8 activations, one row of weights per lane.
//!
//! Weights are first unpacked (`unpack`) into a *panel*: bytes in the order `[k / 4][row][4]`, with the scales of the
//! rows beside them, so that a vector holds four consecutive weights of each of its rows. Activations are packed
//! (`pack`) in groups of columns, `[k / 4][column][4]`. A micro-kernel then multiplies each vector of weights with one
//! dword of activations, broadcast: no shuffle, no horizontal sum. Sums inside a block are exact integers; `f32` sums
//! over blocks run in the order of the blocks and multiply and add are rounded apart, so an output has the bits of the
//! scalar `formats::*::dot`, whatever runs beside it.
//!
//! A panel is a run of i32 (or bytes or f32 in their place), the rows of the tile to an entry:
//!
//! ```text
//! 256 weights:  64 qs | 16 scales | 8 pairs of mins | d | dmin        32 weights:  8 qs | d | m
//! rescaled:     64 qs | d
//! ```
//!
//! Packed activations of a group, `W` columns to an entry:
//!
//! ```text
//! 256 values:   64 qs | d | 16 negated sums of 16 | 8 pairs of sums of 16 | 4 pairs of sums of 32
//! 32 values:    8 qs | d | negated sum
//! rescaled:     64 qs | d | negated sum of 256
//! ```
//!
//! A pair is two i16 in one lane. Pairs of sub-blocks `(4 i, 4 i + 2)` and `(4 i + 1, 4 i + 3)` stand together: they fall
//! out of four packed bytes by one mask each.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on what that function asks of its callers"
)]
#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::simd::Simd;
use crate::formats::{q8_a, q8_k};

/// Entries of a panel and of packed activations, per block of 256 weights.
pub(crate) mod k {
    pub const SCALES: usize = 64;
    pub const MINS: usize = 80;
    pub const D: usize = 88;
    pub const DMIN: usize = 89;
    pub const PANEL: usize = 90;

    pub const ACT_D: usize = 64;
    pub const ACT_NEGATED: usize = 65;
    pub const ACT_PAIRS16: usize = 81;
    pub const ACT_PAIRS32: usize = 89;
    pub const ACT: usize = 93;
}

/// Entries of a panel and of packed activations, per block of 32 weights.
pub(crate) mod b {
    pub const D: usize = 8;
    pub const M: usize = 9;
    pub const PANEL: usize = 10;

    pub const ACT_D: usize = 8;
    pub const ACT_NEGATED: usize = 9;
    pub const ACT: usize = 10;
}

/// Entries of a rescaled panel and of packed activations, per block of 256 weights.
pub(crate) mod r {
    pub const D: usize = 64;
    pub const PANEL: usize = 65;

    pub const ACT_D: usize = 64;
    pub const ACT_NEGATED: usize = 65;
    pub const ACT: usize = 66;
}

/// Weights in a slab, the piece of a row that is unpacked at a time.
pub(super) const SLAB: usize = 256;

/// Entries of the largest panel of a slab.
pub(super) const PANEL: usize = k::PANEL;
const _: () = assert!(SLAB / q8_a::N * b::PANEL <= PANEL);

/// What a micro-kernel has to know about a family of formats.
pub(super) trait Kind {
    /// Weights per block: 256 with integer scales inside, or 32.
    const BLOCK: usize;
    /// Weights that share an integer scale, 16 or 32; of no meaning in a block of 32.
    const SUB: usize;
    /// Whether a minimum is subtracted (added in a block of 32).
    const MINS: bool;
    /// Whether bytes use all 8 bits, stored plus 128.
    const WIDE: bool;
    /// Whether one scale in a block of 256 is all there is (`rescale`).
    const RESCALED: bool = false;
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident: $block:literal, $sub:literal, $mins:literal, $wide:literal;)*) => {
        $($(#[$meta])* pub(super) struct $name;
        impl Kind for $name {
            const BLOCK: usize = $block;
            const SUB: usize = $sub;
            const MINS: bool = $mins;
            const WIDE: bool = $wide;
        })*
    };
}
kinds! {
    /// Q4_K, Q5_K.
    Sub32Mins: 256, 32, true, false;
    /// IQ4_XS.
    Sub32Wide: 256, 32, false, true;
    /// Q2_K.
    Sub16Mins: 256, 16, true, false;
    /// Q3_K, Q6_K.
    Sub16: 256, 16, false, false;
    /// Q4_0, Q5_0.
    Block32: 32, 32, false, false;
    /// Q8_0, IQ4_NL.
    Block32Wide: 32, 32, false, true;
    /// Q4_1, Q5_1.
    Block32Min: 32, 32, true, false;
}

/// Any format after `rescale`.
pub(super) struct Rescaled;
impl Kind for Rescaled {
    const BLOCK: usize = 256;
    const SUB: usize = 256;
    const MINS: bool = false;
    const WIDE: bool = true;
    const RESCALED: bool = true;
}

/// Entries per block of a panel.
pub(super) const fn panel_entries<K: Kind>() -> usize {
    match K::BLOCK {
        256 if K::RESCALED => r::PANEL,
        256 => k::PANEL,
        _ => b::PANEL,
    }
}

/// i32 per block and column of packed activations.
pub(super) const fn act_entries<K: Kind>() -> usize {
    match K::BLOCK {
        256 if K::RESCALED => r::ACT,
        256 => k::ACT,
        _ => b::ACT,
    }
}

/// `c += panel x a` for one group of columns.
///
/// `R`: vectors of rows, `N = R * LANES` rows. `W`: columns. `panel`: `blocks` blocks. `a`: as many blocks of the group.
/// `zero`: what is subtracted from every stored byte is `1 << zero` (nothing with mins). `c`: `[W][N]`.
///
/// # Safety
/// The CPU has what `V` needs; the pointers reach as far as said.
#[inline(always)]
pub(super) unsafe fn micro<V: Simd, K: Kind, const R: usize, const W: usize>(
    panel: *const i32,
    a: *const i32,
    blocks: usize,
    zero: u32,
    c: *mut f32,
) {
    // SAFETY: the caller's promises; every offset below stays inside the entries of `k` and `b`.
    unsafe {
        if K::RESCALED {
            for i in 0..blocks {
                let (panel, a) = (panel.add(i * r::PANEL * R * V::LANES), a.add(i * r::ACT * W));
                rescaled_block::<V, K, R, W>(panel, a, c);
            }
        } else if K::BLOCK == 256 {
            for i in 0..blocks {
                let (panel, a) = (panel.add(i * k::PANEL * R * V::LANES), a.add(i * k::ACT * W));
                super_block::<V, K, R, W>(panel, a, zero, c);
            }
        } else {
            small_blocks::<V, K, R, W>(panel, a, blocks, zero, c);
        }
    }
}

/// Sixteen or 32 weights: `acc += qs x a`, `n` entries of four.
#[inline(always)]
unsafe fn dots<V: Simd, K: Kind, const R: usize, const W: usize>(
    acc: &mut [[V::I; R]; W],
    qs: *const i32,
    a: *const i32,
    n: usize,
) {
    unsafe {
        let signed = K::WIDE && !V::DOT4_WIDE;
        for i in 0..n {
            let mut w = [V::splat(0); R];
            for r in 0..R {
                w[r] = V::load(qs.add((i * R + r) * V::LANES));
                if signed {
                    w[r] = V::xor(w[r], V::splat(0x8080_8080_u32 as i32));
                }
            }
            for j in 0..W {
                let a = V::splat(*a.add(i * W + j));
                for r in 0..R {
                    acc[j][r] = match signed {
                        true => V::dot4_signed(acc[j][r], w[r], a),
                        false => V::dot4(acc[j][r], w[r], a),
                    };
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn super_block<V: Simd, K: Kind, const R: usize, const W: usize>(
    panel: *const i32,
    a: *const i32,
    zero: u32,
    c: *mut f32,
) {
    unsafe {
        let rows = R * V::LANES;
        let dwords = K::SUB / 4;
        let mut total = [[V::splat(0); R]; W];
        for s in 0..256 / K::SUB {
            let mut acc = [[V::splat(0); R]; W];
            // Bytes are stored with something added: the sum starts where that cancels out.
            if !K::MINS && (V::DOT4_WIDE || !K::WIDE) {
                for j in 0..W {
                    let at = |s: usize| V::splat(*a.add((k::ACT_NEGATED + s) * W + j));
                    let negated = if K::SUB == 16 { at(s) } else { V::add(at(2 * s), at(2 * s + 1)) };
                    acc[j] = [V::shl(negated, zero); R];
                }
            }
            dots::<V, K, R, W>(&mut acc, panel.add(s * dwords * rows), a.add(s * dwords * W), dwords);
            for r in 0..R {
                let scale = V::load(panel.add((k::SCALES + s) * rows + r * V::LANES));
                for j in 0..W {
                    total[j][r] = V::add(total[j][r], V::mul(acc[j][r], scale));
                }
            }
        }
        let mut min = [[V::splat(0); R]; W];
        if K::MINS {
            let (pairs, first) = if K::SUB == 16 { (8, k::ACT_PAIRS16) } else { (4, k::ACT_PAIRS32) };
            for p in 0..pairs {
                for r in 0..R {
                    let mins = V::load(panel.add((k::MINS + p) * rows + r * V::LANES));
                    for j in 0..W {
                        min[j][r] = V::dot2(min[j][r], mins, V::splat(*a.add((first + p) * W + j)));
                    }
                }
            }
        }
        for r in 0..R {
            let d = V::fload(panel.add(k::D * rows + r * V::LANES).cast());
            // Kinds without minima leave their place in the panel unwritten.
            let dmin = match K::MINS {
                true => V::fload(panel.add(k::DMIN * rows + r * V::LANES).cast()),
                false => V::fsplat(0.0),
            };
            for j in 0..W {
                let mut x = V::fmul(d, V::from_i32(total[j][r]));
                if K::MINS {
                    x = V::fsub(x, V::fmul(dmin, V::from_i32(min[j][r])));
                }
                let a = V::fsplat(*a.add(k::ACT_D * W + j).cast());
                let c = c.add(j * rows + r * V::LANES);
                V::fstore(c, V::fadd(V::fload(c), V::fmul(a, x)));
            }
        }
    }
}

#[inline(always)]
unsafe fn rescaled_block<V: Simd, K: Kind, const R: usize, const W: usize>(
    panel: *const i32,
    a: *const i32,
    c: *mut f32,
) {
    unsafe {
        let rows = R * V::LANES;
        let mut acc = [[V::splat(0); R]; W];
        if V::DOT4_WIDE {
            for j in 0..W {
                acc[j] = [V::shl(V::splat(*a.add(r::ACT_NEGATED * W + j)), 7); R];
            }
        }
        dots::<V, K, R, W>(&mut acc, panel, a, 64);
        for r in 0..R {
            let d = V::fload(panel.add(r::D * rows + r * V::LANES).cast());
            for j in 0..W {
                let x = V::fmul(d, V::from_i32(acc[j][r]));
                let a = V::fsplat(*a.add(r::ACT_D * W + j).cast());
                let c = c.add(j * rows + r * V::LANES);
                V::fstore(c, V::fadd(V::fload(c), V::fmul(a, x)));
            }
        }
    }
}

#[inline(always)]
unsafe fn small_blocks<V: Simd, K: Kind, const R: usize, const W: usize>(
    panel: *const i32,
    a: *const i32,
    blocks: usize,
    zero: u32,
    c: *mut f32,
) {
    unsafe {
        let rows = R * V::LANES;
        let mut sum = [[V::fsplat(0.0); R]; W];
        for j in 0..W {
            for r in 0..R {
                sum[j][r] = V::fload(c.add(j * rows + r * V::LANES));
            }
        }
        for i in 0..blocks {
            let (panel, a) = (panel.add(i * b::PANEL * rows), a.add(i * b::ACT * W));
            let negated = |j: usize| V::splat(*a.add(b::ACT_NEGATED * W + j));
            let mut acc = [[V::splat(0); R]; W];
            if !K::MINS && (V::DOT4_WIDE || !K::WIDE) {
                for j in 0..W {
                    acc[j] = [V::shl(negated(j), zero); R];
                }
            }
            dots::<V, K, R, W>(&mut acc, panel, a, 8);
            for r in 0..R {
                let d = V::fload(panel.add(b::D * rows + r * V::LANES).cast());
                let m = match K::MINS {
                    true => V::fload(panel.add(b::M * rows + r * V::LANES).cast()),
                    false => V::fsplat(0.0),
                };
                for j in 0..W {
                    let mut x = V::fmul(d, V::from_i32(acc[j][r]));
                    if K::MINS {
                        x = V::fsub(x, V::fmul(m, V::from_i32(negated(j))));
                    }
                    let a = V::fsplat(*a.add(b::ACT_D * W + j).cast());
                    sum[j][r] = V::fadd(sum[j][r], V::fmul(a, x));
                }
            }
        }
        for j in 0..W {
            for r in 0..R {
                V::fstore(c.add(j * rows + r * V::LANES), sum[j][r]);
            }
        }
    }
}

/// Columns of one group where `m` are cut into groups of at most `most`, about alike: every group but the last has so
/// many.
pub(crate) const fn group_width(m: usize, most: usize) -> usize {
    if m == 0 { 1 } else { m.div_ceil(m.div_ceil(most)) }
}

/// Packs column `j` of a group of `w` columns: `blocks` into `out`, which holds `blocks.len() * w` times 93 i32.
pub(crate) fn pack_k(blocks: &[q8_k::BlockQ8K], j: usize, w: usize, out: &mut [i32]) {
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(k::ACT * w)) {
        for (i, q) in block.qs.as_chunks::<4>().0.iter().enumerate() {
            out[i * w + j] = i32::from_le_bytes(q.map(|q| q as u8));
        }
        out[k::ACT_D * w + j] = block.d.to_bits() as i32;
        let sums = &block.bsums;
        let pair = |x: i16, y: i16| i32::from(x as u16) | i32::from(y) << 16;
        let both = |s: usize| sums[2 * s] + sums[2 * s + 1];
        for s in 0..16 {
            out[(k::ACT_NEGATED + s) * w + j] = -i32::from(sums[s]);
        }
        for p in 0..8 {
            let s = 4 * (p / 2) + p % 2;
            out[(k::ACT_PAIRS16 + p) * w + j] = pair(sums[s], sums[s + 2]);
            if p < 4 {
                out[(k::ACT_PAIRS32 + p) * w + j] = pair(both(s), both(s + 2));
            }
        }
    }
}

/// Packs column `j` of a group of `w` columns for a rescaled panel: `blocks` into `out`, which holds
/// `blocks.len() * w` times 66 i32.
pub(crate) fn pack_r(blocks: &[q8_k::BlockQ8K], j: usize, w: usize, out: &mut [i32]) {
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(r::ACT * w)) {
        for (i, q) in block.qs.as_chunks::<4>().0.iter().enumerate() {
            out[i * w + j] = i32::from_le_bytes(q.map(|q| q as u8));
        }
        out[r::ACT_D * w + j] = block.d.to_bits() as i32;
        out[r::ACT_NEGATED * w + j] = -block.bsums.iter().map(|&s| i32::from(s)).sum::<i32>();
    }
}

/// Packs column `j` of a group of `w` columns: `blocks` into `out`, which holds `blocks.len() * w` times 10 i32.
pub(crate) fn pack_a(blocks: &[q8_a::BlockQ8A], j: usize, w: usize, out: &mut [i32]) {
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(b::ACT * w)) {
        for (i, q) in block.qs.as_chunks::<4>().0.iter().enumerate() {
            out[i * w + j] = i32::from_le_bytes(q.map(|q| q as u8));
        }
        out[b::ACT_D * w + j] = block.d.to_bits() as i32;
        out[b::ACT_NEGATED * w + j] = -block.sum;
    }
}
