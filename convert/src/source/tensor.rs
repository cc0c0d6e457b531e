//! A tensor as a checkpoint lists it.

use super::dtype::Dtype;
use super::error::{Error, shown};
use super::rows::{Place, rows_cols};

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTensor {
    /// The name in the checkpoint.
    pub name: String,
    /// Dimensions, the last one varies fastest. Empty for a scalar.
    pub shape: Vec<u64>,
    /// How its numbers are stored.
    pub dtype: Dtype,
    /// The file that holds it.
    pub file: String,
    /// Bytes of its numbers as stored.
    pub bytes: u64,
}

impl SourceTensor {
    /// Product of all dimensions but the last; 1 for a vector.
    pub fn rows(&self) -> u64 {
        rows_cols(&self.shape).map_or(0, |(rows, _)| rows)
    }

    /// The last dimension.
    pub fn cols(&self) -> u64 {
        rows_cols(&self.shape).map_or(0, |(_, cols)| cols)
    }

    /// The error for numbers of a type that cannot be read.
    pub(crate) fn unreadable(&self) -> Error {
        let (file, tensor, dtype) = (self.file.clone(), shown(&self.name), self.dtype.clone());
        Error::Dtype { file, tensor, dtype }
    }
}

/// A tensor that the reader of one file found.
pub(super) struct Entry {
    pub tensor: SourceTensor,
    pub place: Place,
}
