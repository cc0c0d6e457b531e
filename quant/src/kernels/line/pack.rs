//! Activations of single columns.
//!
//! A column of `blocks` blocks, rounded up to [`PAD`] with zeros:
//!
//! ```text
//! qs, in the order of the weights in the vectors | d | sums as pairs of i16, or negated sums (32 weights)
//! ```
//!
//! Bytes and sums are laid out in *parts* of 16 bytes, of which a vector holds one, two or four (see
//! `Parts`).

use crate::formats::{q8_a, q8_k};

/// Blocks of a row are rounded up to a multiple of this in activations and scratch: the lanes of the widest
/// vector.
pub(crate) const PAD: usize = 16;

/// Where the 16 weights of each part of a vector come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they follow each other.
    Natural,
    /// Bytes hold weight `i` of 32 low and weight `i + 32` high (Q4_K, Q5_K).
    Nibbles32,
    /// Bytes hold weight `i` of 16 low and weight `i + 16` high (IQ4_XS).
    Nibbles16,
}

impl Order {
    /// Which 16 weights of a block of 256 lie in part `l` of vector `v` of `lanes` lanes.
    pub const fn sixteen(self, lanes: usize, v: usize, l: usize) -> usize {
        let parts = lanes / 4;
        // Sixteenth byte group of the packed nibbles, low or high.
        let (byte, high) = (v / 2 * parts + l, v % 2);
        match self {
            Self::Natural => v * parts + l,
            Self::Nibbles32 => byte / 2 * 4 + 2 * high + byte % 2,
            Self::Nibbles16 => 2 * byte + high,
        }
    }
}

/// What the columns of a format look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Lanes of the unit.
    pub lanes: usize,
    /// Order of the weights.
    pub order: Order,
    /// Weights in a block: 32 or 256.
    pub block: usize,
    /// Sums per block of 256: 8 or 16.
    pub sums: usize,
}

/// i32 in a column of `blocks` blocks of 256 or 32 weights, `sums` sums in each of 256.
pub(crate) const fn column_len(blocks: usize, block: usize, sums: usize) -> usize {
    blocks.next_multiple_of(PAD) * (block / 4 + 1 + if block == 256 { sums / 2 } else { 1 })
}

impl Layout {
    /// i32 in a column of `k` values.
    pub const fn column_len(self, k: usize) -> usize {
        column_len(k / self.block, self.block, self.sums)
    }
}

/// The part in which eight of the `sums` sums of block `b` of 256 lie, the first eight or (`h` = 1) the last:
/// such that adding across vectors leaves the blocks in order.
pub(super) const fn sums_part(lanes: usize, sums: usize, b: usize, h: usize) -> usize {
    let (r, first, parts) = (b % lanes, b / lanes * lanes, lanes / 4);
    let (quad, i) = (r / 4, r % 4);
    match (sums, parts) {
        (8, _) => first + i * parts + quad,
        // The parts of a pair are vectors of their own.
        (_, 1) => 2 * first + 4 * h + i,
        _ => {
            let pairs = parts / 2;
            2 * (first + quad / pairs * 4 * pairs + i * pairs + quad % pairs) + h
        }
    }
}

/// The part in which the first (`h` = 0) or the last 16 values of block `b` of 32 lie.
const fn block_part(lanes: usize, b: usize, h: usize) -> usize {
    if lanes == 4 {
        return b / 4 * 8 + 4 * h + b % 4;
    }
    let pairs = lanes / 8;
    let r = b % (4 * pairs);
    2 * (b - r + r % 4 * pairs + r / 4) + h
}

/// Packs one column of `blocks` into `out`, [`column_len`] long.
pub(crate) fn pack_k(blocks: &[q8_k::BlockQ8K], layout: Layout, out: &mut [i32]) {
    let Layout { lanes, order, sums, .. } = layout;
    let (padded, parts) = (blocks.len().next_multiple_of(PAD), lanes / 4);
    out.fill(0);
    let (qs, rest) = out.split_at_mut(padded * 64);
    let (d, pairs) = rest.split_at_mut(padded);
    for (b, block) in blocks.iter().enumerate() {
        let (from, to) = (block.qs.as_chunks::<16>().0, qs[b * 64..][..64].as_chunks_mut::<4>().0);
        for (i, to) in to.iter_mut().enumerate() {
            *to = bytemuck::cast(from[order.sixteen(lanes, i / parts, i % parts)]);
        }
        d[b] = block.d.to_bits() as i32;
        let pair = |x: i16, y: i16| i32::from(x as u16) | i32::from(y) << 16;
        let s = &block.bsums;
        for i in 0..sums / 2 {
            pairs[4 * sums_part(lanes, sums, b, i / 4) + i % 4] = match sums {
                8 => pair(s[4 * i] + s[4 * i + 1], s[4 * i + 2] + s[4 * i + 3]),
                _ => pair(s[2 * i], s[2 * i + 1]),
            };
        }
    }
}

/// Packs one column of `blocks` into `out`, [`column_len`] long.
pub(crate) fn pack_a(blocks: &[q8_a::BlockQ8A], layout: Layout, out: &mut [i32]) {
    let padded = blocks.len().next_multiple_of(PAD);
    out.fill(0);
    let (qs, rest) = out.split_at_mut(padded * 8);
    let (d, negated) = rest.split_at_mut(padded);
    for (b, block) in blocks.iter().enumerate() {
        for (h, values) in block.qs.as_chunks::<16>().0.iter().enumerate() {
            let to = &mut qs[4 * block_part(layout.lanes, b, h)..][..4];
            to.copy_from_slice(&bytemuck::cast::<_, [i32; 4]>(*values));
        }
        d[b] = block.d.to_bits() as i32;
        negated[b] = -block.sum;
    }
}
