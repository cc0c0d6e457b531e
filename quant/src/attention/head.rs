//! The shapes of what attention reads and writes: a head's blocks of keys and values, its queries.

use crate::kv::BLOCK;

/// Queries that share stored numbers once they are loaded.
pub(super) const TILE: usize = 6;

/// The keys and values of one head in one KV block.
#[derive(Clone, Copy, Debug)]
pub struct HeadBlock<'a, T> {
    /// `[head_dim][64]`, row-major.
    pub keys: &'a [T],
    /// `[64][head_dim]`, row-major.
    pub values: &'a [T],
    /// A scale per position for the keys, for types that have one.
    pub key_scales: &'a [f32],
    /// A scale per position for the values.
    pub value_scales: &'a [f32],
    /// Of a full block: no key in it is longer. Infinite when keys or values are not all finite. See
    /// [`store`](super::store()).
    pub bound: f32,
}

/// As [`HeadBlock`], to write to.
#[derive(Debug)]
pub struct HeadBlockMut<'a, T> {
    /// `[head_dim][64]`, row-major.
    pub keys: &'a mut [T],
    /// `[64][head_dim]`, row-major.
    pub values: &'a mut [T],
    /// A scale per position for the keys, for types that have one.
    pub key_scales: &'a mut [f32],
    /// A scale per position for the values.
    pub value_scales: &'a mut [f32],
    /// See [`HeadBlock::bound`].
    pub bound: &'a mut f32,
}

/// Where a query stands.
#[derive(Clone, Copy, Debug)]
pub struct QueryPlace<'a> {
    /// Its absolute position.
    pub position: usize,
    /// The table of its sequence: the block with this number holds positions `64 b ..`, the query's own
    /// included. Blocks that two tables have in common are their first ones.
    pub blocks: &'a [usize],
}

impl QueryPlace<'_> {
    /// Index in the table of the block that holds the query's own position.
    #[inline(always)]
    pub(super) fn newest(&self) -> usize {
        self.position / BLOCK
    }

    /// Positions of block `b` that the query sees.
    #[inline(always)]
    pub(super) fn seen(&self, b: usize) -> usize {
        seen(self.position, b)
    }

    /// How many blocks, from the first on, the table has in common with that of `other`.
    pub(super) fn shared(&self, other: &Self) -> usize {
        if std::ptr::eq(self.blocks, other.blocks) {
            return self.blocks.len();
        }
        self.blocks.iter().zip(other.blocks).take_while(|(a, b)| a == b).count()
    }
}

/// Queries of one head, of any sequences: in order of their tables, those that have most blocks in common
/// side by side.
pub struct Queries<'a, T> {
    /// Values of a query, key or value.
    pub head_dim: usize,
    /// The head's ALiBi slope, not negative.
    pub slope: f32,
    /// Where each query stands.
    pub places: &'a [QueryPlace<'a>],
    /// Query `i`: `q[i * stride..][..head_dim]`.
    pub q: &'a [f32],
    /// See `q`.
    pub stride: usize,
    /// The block with a number that a table has.
    pub block: &'a dyn Fn(usize) -> HeadBlock<'a, T>,
}

/// Rows of keys and values of one head, to be stored at consecutive positions of a block.
pub struct Rows<'a> {
    /// Values of a key or value.
    pub head_dim: usize,
    /// Position in the block of the first row.
    pub offset: usize,
    /// Rows.
    pub n: usize,
    /// Key `i`: `k[i * stride..][..head_dim]`.
    pub k: &'a [f32],
    /// Value `i`: `v[i * stride..][..head_dim]`.
    pub v: &'a [f32],
    /// See `k` and `v`.
    pub stride: usize,
}

/// Positions of block `b` that a query at `position` sees.
#[inline(always)]
pub(super) fn seen(position: usize, b: usize) -> usize {
    (position + 1).saturating_sub(b * BLOCK).min(BLOCK)
}

/// An upper bound of a length from its square as computed, `n` squares summed.
#[inline(always)]
pub(super) fn at_least(square: f32, n: usize) -> f32 {
    square.sqrt() * 1.001 + 1.1e-19 * (n as f32).sqrt()
}
