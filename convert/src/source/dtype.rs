//! How a source stores its numbers.

use huozi_quant::Format;

/// How a source stores its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of a single.
    BF16,
    /// A block format with fewer bits, in a GGUF source: what is read has been rounded already.
    Quantised(Format),
    /// Any other type, by its name in the file: listed, not readable.
    Other(String),
}

impl Dtype {
    /// The name, e.g. `BF16`.
    pub fn name(&self) -> &str {
        match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::Quantised(format) => format.name(),
            Dtype::Other(name) => name,
        }
    }

    /// The format with the same bytes; `None` when rows of this type cannot be read.
    pub fn format(&self) -> Option<Format> {
        match self {
            Dtype::F32 => Some(Format::F32),
            Dtype::F16 => Some(Format::F16),
            Dtype::BF16 => Some(Format::BF16),
            Dtype::Quantised(format) => Some(*format),
            Dtype::Other(_) => None,
        }
    }
}
