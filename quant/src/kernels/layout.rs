//! The panel that a tile of weights is unpacked into, and the activations that it is multiplied with.
//!
//! Weights are unpacked (`unpack`) into a *panel*: bytes in the order `[k / 4][row][4]`, with the scales of
//! the rows beside them, so that a vector holds four consecutive weights of each of its rows. A panel is a
//! run of i32 (or bytes or f32 in their place), the rows of the tile to an entry:
//!
//! ```text
//! 256 weights:  64 qs | 16 scales | 8 pairs of mins | d | dmin        32 weights:  8 qs | d | m
//! rescaled:     64 qs | d
//! ```
//!
//! Activations are packed in groups of columns. The dwords `qs` of a block come first, in pieces of `depth`
//! dwords of a column; columns are rounded up to whole pieces (see `Tiled`). Behind them, `W` columns to an
//! entry:
//!
//! ```text
//! 256 values:   d | 16 negated sums of 16 | 8 pairs of sums of 16 | 4 pairs of sums of 32
//! 32 values:    d | negated sum
//! rescaled:     d | negated sum of 256
//! ```
//!
//! A pair is two i16 in one lane. Pairs of sub-blocks `(4 i, 4 i + 2)` and `(4 i + 1, 4 i + 3)` stand
//! together: they fall out of four packed bytes by one mask each.

use crate::formats::{q8_a, q8_k};

/// Entries of a panel per block of 256 weights.
pub(crate) mod k {
    pub const SCALES: usize = 64;
    pub const MINS: usize = 80;
    pub const D: usize = 88;
    pub const DMIN: usize = 89;
    pub const PANEL: usize = 90;
}

/// Entries of a panel per block of 32 weights.
pub(crate) mod b {
    pub const D: usize = 8;
    pub const M: usize = 9;
    pub const PANEL: usize = 10;
}

/// Entries of a panel per rescaled block of 256 weights.
pub(crate) mod r {
    pub const D: usize = 64;
    pub const PANEL: usize = 65;
}

/// Entries of packed activations behind the bytes of a block.
pub(crate) mod act {
    pub const D: usize = 0;
    /// The first of 16 sums in a block of 256, the only one in others.
    pub const NEGATED: usize = 1;
    pub const PAIRS16: usize = 17;
    pub const PAIRS32: usize = 25;
    /// All of a block of 256.
    pub const SUPER: usize = 29;
    /// All of a block of 32 or of a rescaled one.
    pub const PLAIN: usize = 2;
}

/// Blocks of activations that a tile tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Of 32.
    Small,
    /// Of 256 with all sums that scales and minima are multiplied with.
    Super,
    /// Of 256 for weights that `rescale` brings to one scale.
    Rescaled,
}

impl Block {
    /// Values in it.
    pub const fn values(self) -> usize {
        match self {
            Self::Small => q8_a::N,
            Self::Super | Self::Rescaled => q8_k::N,
        }
    }

    /// i32 of one block of each of `w` columns, `padded` with those that fill the last piece.
    #[inline(always)]
    pub const fn len(self, w: usize, padded: usize) -> usize {
        self.values() / 4 * padded + w * if let Self::Super = self { act::SUPER } else { act::PLAIN }
    }
}

/// Weights in a slab, the piece of a row that is unpacked at a time.
pub(crate) const SLAB: usize = 256;

/// Entries of the largest panel of a slab.
pub(crate) const PANEL: usize = k::PANEL;
const _: () = assert!(SLAB / q8_a::N * b::PANEL <= PANEL);

/// What a micro-kernel has to know about a family of formats.
pub(crate) trait Kind {
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
        $($(#[$meta])* pub(crate) struct $name;
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
pub(crate) struct Rescaled;
impl Kind for Rescaled {
    const BLOCK: usize = 256;
    const SUB: usize = 256;
    const MINS: bool = false;
    const WIDE: bool = true;
    const RESCALED: bool = true;
}

/// Entries per block of a panel.
pub(crate) const fn panel_entries<K: Kind>() -> usize {
    match K::BLOCK {
        256 if K::RESCALED => r::PANEL,
        256 => k::PANEL,
        _ => b::PANEL,
    }
}

/// The blocks of activations that a family takes.
pub(crate) const fn act_block<K: Kind>() -> Block {
    match K::BLOCK {
        256 if K::RESCALED => Block::Rescaled,
        256 => Block::Super,
        _ => Block::Small,
    }
}

/// A column's place in its group.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// Which one it is.
    pub j: usize,
    /// Columns of the group.
    pub w: usize,
    /// With those that fill the last piece.
    pub padded: usize,
    /// Dwords of a column that lie together.
    pub depth: usize,
}

impl Column {
    /// Puts the bytes of a block in place and gives what lies behind those of all columns.
    #[inline(always)]
    fn bytes<'a, const N: usize>(self, qs: &[i8; N], out: &'a mut [i32]) -> &'a mut [i32] {
        let Self { j, padded, depth, .. } = self;
        let (to, rest) = out.split_at_mut(N / 4 * padded);
        let dword = |q: [i8; 4]| i32::from_le_bytes(q.map(|q| q as u8));
        let dwords = qs.as_chunks::<4>().0;
        if depth == 1 {
            for (i, &q) in dwords.iter().enumerate() {
                to[i * padded + j] = dword(q);
            }
        } else {
            for (i, piece) in dwords.chunks_exact(depth).enumerate() {
                for (t, &q) in piece.iter().enumerate() {
                    to[(i * padded + j) * depth + t] = dword(q);
                }
            }
        }
        rest
    }
}

/// Packs a column of `blocks` into its group `out`.
pub(crate) fn pack_k(blocks: &[q8_k::BlockQ8K], column: Column, out: &mut [i32]) {
    let Column { j, w, padded, .. } = column;
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(Block::Super.len(w, padded))) {
        let out = column.bytes(&block.qs, out);
        out[act::D * w + j] = block.d.to_bits() as i32;
        let sums = &block.bsums;
        let pair = |x: i16, y: i16| i32::from(x as u16) | i32::from(y) << 16;
        let both = |s: usize| sums[2 * s] + sums[2 * s + 1];
        for s in 0..16 {
            out[(act::NEGATED + s) * w + j] = -i32::from(sums[s]);
        }
        for p in 0..8 {
            let s = 4 * (p / 2) + p % 2;
            out[(act::PAIRS16 + p) * w + j] = pair(sums[s], sums[s + 2]);
            if p < 4 {
                out[(act::PAIRS32 + p) * w + j] = pair(both(s), both(s + 2));
            }
        }
    }
}

/// Packs a column of `blocks` for a rescaled panel into its group `out`.
pub(crate) fn pack_r(blocks: &[q8_k::BlockQ8K], column: Column, out: &mut [i32]) {
    let Column { j, w, padded, .. } = column;
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(Block::Rescaled.len(w, padded))) {
        let out = column.bytes(&block.qs, out);
        out[act::D * w + j] = block.d.to_bits() as i32;
        out[act::NEGATED * w + j] = -block.bsums.iter().map(|&s| i32::from(s)).sum::<i32>();
    }
}

/// Packs a column of `blocks` into its group `out`.
pub(crate) fn pack_a(blocks: &[q8_a::BlockQ8A], column: Column, out: &mut [i32]) {
    let Column { j, w, padded, .. } = column;
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(Block::Small.len(w, padded))) {
        let out = column.bytes(&block.qs, out);
        out[act::D * w + j] = block.d.to_bits() as i32;
        out[act::NEGATED * w + j] = -block.sum;
    }
}
