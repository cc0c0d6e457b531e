//! What can be wrong with a GGUF file: the rules, the place, the error.

use std::fmt;
use std::io;

/// Which rule of the format, of our limits or of the writer was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The file begins with `GGUF`.
    Magic,
    /// The file is little-endian.
    Endianness,
    /// The version is 2 or 3.
    Version,
    /// What the header announces is there.
    Truncated,
    /// A count is at most what the remaining bytes can hold, and within the cap.
    Count,
    /// A string is at most [`MAX_STRING_BYTES`](super::limits::MAX_STRING_BYTES) long.
    StringLength,
    /// A string is UTF-8.
    Utf8,
    /// A metadata value has one of the 13 known types.
    ValueType,
    /// Arrays are nested at most [`MAX_ARRAY_DEPTH`](super::limits::MAX_ARRAY_DEPTH) deep.
    ArrayDepth,
    /// A truth value is the byte 0 or 1.
    Bool,
    /// A key has 1 to [`MAX_KEY_BYTES`](super::limits::MAX_KEY_BYTES) bytes.
    KeyName,
    /// A key appears once.
    KeyTwice,
    /// `general.alignment` is a `u32`, a power of two from 8 to 64 KiB.
    Alignment,
    /// A tensor name is not empty and not too long.
    TensorName,
    /// A tensor name appears once.
    TensorTwice,
    /// A tensor has 1 to 4 dimensions.
    DimCount,
    /// No dimension is 0.
    DimZero,
    /// A tensor's number of weights or bytes fits 63 bits and the address space.
    TensorSize,
    /// A tensor has one of the formats of [`Format`](crate::Format).
    TensorType,
    /// A row is a whole number of blocks.
    Block,
    /// A tensor begins at a multiple of the alignment.
    Offset,
    /// A tensor's bytes are in the file.
    OutsideFile,
    /// No two tensors share a byte.
    Overlap,
    /// The parts of a split model are all there, each once and of one model, and the first one is opened.
    Split,
    /// A metadata value has the type it is asked for.
    WrongType,
    /// A metadata key that is needed is there.
    Missing,
    /// A metadata value means something: checked by the code that reads it, see
    /// [`Meta::refuse`](super::Meta::refuse).
    Value,
    /// What is written lies inside its tensor.
    WriteRange,
    /// No byte of a tensor is written twice.
    WrittenTwice,
    /// Every byte of every tensor is written before the file is finished.
    Incomplete,
}

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere more exact than the offset.
    Header,
    /// At a metadata entry. For an entry whose key cannot be read, its number from 0, as `#7`.
    Key(String),
    /// At a tensor. For a tensor whose name cannot be read, its number from 0, as `#7`.
    Tensor(String),
}

/// A broken rule: where, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The rule.
    pub rule: Rule,
    /// The path, or the name given to [`Reader::from_bytes`](super::Reader::from_bytes).
    pub file: String,
    /// The metadata entry or tensor.
    pub place: Place,
    /// Offset in the file of what breaks the rule, where there is such a byte.
    pub byte: Option<u64>,
    /// What should have been there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// At most this many characters of a name go into a message: a key may be 64 KiB.
const SHOWN_CHARS: usize = 100;

/// Quoted and escaped: a name comes from the file and may hold anything, terminal escapes included.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS) {
        None => format!("{name:?}"),
        Some((cut, _)) => format!("{:?}... ({} bytes)", &name[..cut], name.len()),
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        match &self.place {
            Place::Header => {}
            Place::Key(key) => write!(f, "metadata key {}: ", shown(key))?,
            Place::Tensor(name) => write!(f, "tensor {}: ", shown(name))?,
        }
        if let Some(byte) = self.byte {
            write!(f, "at byte {byte}: ")?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

impl std::error::Error for Malformed {}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system says no.
    #[error("{file}: cannot {action}: {source}")]
    Io {
        /// The path or name.
        file: String,
        /// What was tried, e.g. `open`.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The content breaks a rule.
    #[error(transparent)]
    Malformed(Box<Malformed>),
}

impl Error {
    /// The broken rule; `None` for an I/O error.
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Error::Io { .. } => None,
            Error::Malformed(m) => Some(m.rule),
        }
    }

    pub(super) fn malformed(
        rule: Rule,
        file: &str,
        place: Place,
        byte: Option<u64>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        let (expected, found) = (expected.into(), found.into());
        Error::Malformed(Box::new(Malformed { rule, file: file.to_owned(), place, byte, expected, found }))
    }
}
