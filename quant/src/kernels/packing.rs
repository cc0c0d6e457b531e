//! How activations lie in memory for a product, and packing them so.
//!
//! A unit says which packing it takes; what is done here depends on that value alone.

use super::layout::{self, Block};
use super::line::pack as line;
use crate::formats::q8_a::{self, BlockQ8A};
use crate::formats::q8_k::{self, BlockQ8K};
use crate::formats::{Activation, Format};

/// How the columns `(m, k)` of activations lie behind each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Row-major f32.
    F32,
    /// Row-major blocks of 32.
    Q8A,
    /// Row-major blocks of 256.
    Q8K {
        /// For weights that `rescale` brings to one scale.
        rescaled: bool,
    },
    /// Each by itself, as `line` says.
    Line(line::Layout),
    /// In groups of `width` columns, the last perhaps of fewer but as long, as `layout` says.
    Group {
        /// Their blocks.
        block: Block,
        /// Columns of a group.
        width: usize,
        /// Columns that lie together.
        across: usize,
        /// Dwords of a column that lie together.
        depth: usize,
    },
}

/// Columns of one group where `m` are cut into groups of at most `most`, about alike: every group but the
/// last has so many.
pub(crate) const fn group_width(m: usize, most: usize) -> usize {
    if m == 0 { 1 } else { m.div_ceil(m.div_ceil(most)) }
}

/// A column in blocks.
pub(crate) enum Quantised {
    /// Blocks of 32.
    Q8A(Vec<BlockQ8A>),
    /// Blocks of 256.
    Q8K(Vec<BlockQ8K>),
}

impl Quantised {
    /// Room for a column of `k` values, to multiply with `format` or, rescaled, with any.
    ///
    /// # Panics
    /// When `k` is not a whole number of blocks, or the format takes no blocks.
    pub fn new(format: Format, rescaled: bool, k: usize) -> Self {
        let blocks = |n: usize| {
            assert!(k.is_multiple_of(n), "k = {k}");
            k / n
        };
        match format.activation() {
            Activation::Q8A if !rescaled => Self::Q8A(vec![bytemuck::Zeroable::zeroed(); blocks(q8_a::N)]),
            Activation::Q8A | Activation::Q8K => {
                Self::Q8K(vec![bytemuck::Zeroable::zeroed(); blocks(q8_k::N)])
            }
            Activation::F32 => panic!("{format} takes no blocks"),
        }
    }
}

impl Packing {
    /// Columns that are packed together.
    pub fn columns(self) -> usize {
        if let Self::Group { width, .. } = self { width } else { 1 }
    }

    /// i32 of so many columns of `k` values.
    pub fn len(self, k: usize) -> usize {
        match self {
            Self::F32 => k,
            Self::Q8A => k / q8_a::N * (size_of::<BlockQ8A>() / 4),
            Self::Q8K { .. } => k / q8_k::N * (size_of::<BlockQ8K>() / 4),
            Self::Line(layout) => layout.column_len(k),
            Self::Group { block, width, across, .. } => {
                k / block.values() * block.len(width, width.next_multiple_of(across))
            }
        }
    }

    /// Packs column `j` of a group that has `w` into `out`, the memory of the whole group.
    ///
    /// # Panics
    /// When `q` has other blocks than this packing takes, or `out` another length than [`len`](Self::len)
    /// says.
    pub fn pack(self, q: &Quantised, (j, w): (usize, usize), out: &mut [i32]) {
        match (self, q) {
            (Self::Q8A, Quantised::Q8A(q)) => out.copy_from_slice(bytemuck::cast_slice(q)),
            (Self::Q8K { .. }, Quantised::Q8K(q)) => out.copy_from_slice(bytemuck::cast_slice(q)),
            (Self::Line(layout), Quantised::Q8A(q)) => line::pack_a(q, layout, out),
            (Self::Line(layout), Quantised::Q8K(q)) => line::pack_k(q, layout, out),
            (Self::Group { block, across, depth, .. }, q) => {
                let column = layout::Column { j, w, padded: w.next_multiple_of(across), depth };
                match (block, q) {
                    (Block::Small, Quantised::Q8A(q)) => layout::pack_a(q, column, out),
                    (Block::Super, Quantised::Q8K(q)) => layout::pack_k(q, column, out),
                    (Block::Rescaled, Quantised::Q8K(q)) => layout::pack_r(q, column, out),
                    _ => panic!("blocks for {self:?}"),
                }
            }
            _ => panic!("blocks for {self:?}"),
        }
    }
}
