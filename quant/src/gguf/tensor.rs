//! The description of one tensor in a file.

use crate::formats::Format;

/// One tensor of a file: what it is called, how it is encoded and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, unique in the file.
    pub name: String,
    /// The encoding of its weights.
    pub format: Format,
    /// 1 to 4 sizes in GGUF's order: columns (the contiguous dimension, input features) first.
    pub dims: Vec<u64>,
    /// The part of a split model that holds it, from 0.
    pub part: usize,
    /// Where its bytes begin, counted from the start of the file (of that part).
    pub offset: u64,
    /// How many bytes it has, without padding.
    pub bytes: u64,
}

impl TensorInfo {
    /// Weights in a row: the first dimension.
    pub fn cols(&self) -> usize {
        // Fits: the product of all dimensions fits isize, checked at open by `limits::tensor_bytes`.
        self.dims.first().map_or(0, |&d| d as usize)
    }

    /// Rows: the product of all dimensions but the first, 1 for a vector.
    pub fn rows(&self) -> usize {
        self.dims.iter().skip(1).product::<u64>() as usize
    }
}
