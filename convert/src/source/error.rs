//! What can be wrong with a checkpoint, and where.

use std::path::PathBuf;

use huozi_quant::files::{Diagnosis, hub};
pub use huozi_quant::message::shown;

use super::dtype::Dtype;

/// Why a checkpoint could not be opened or read; every variant names its subject.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{file}: cannot {doing}")]
    Io {
        /// The file or directory.
        file: String,
        /// What was attempted, e.g. `open`.
        doing: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Nothing is where the caller pointed.
    #[error("{what}; searched: {}", list(looked))]
    NotFound {
        /// What is missing.
        what: String,
        /// Every place that was tried, in order.
        looked: Vec<PathBuf>,
    },
    /// The Hugging Face cache has the model, but no snapshot of it that can be chosen.
    #[error("{why}")]
    Cache {
        /// What is there, and what to do.
        why: String,
    },
    /// The files of a checkpoint do not form a whole.
    #[error("{file}: expected {expected}, found {found}")]
    Layout {
        /// The directory or the file that says so.
        file: String,
        /// What a checkpoint would have.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Bytes that break the rules of their format.
    #[error("{file}: at byte {at}: expected {expected}, found {found}")]
    Format {
        /// The file, and the archive member after a `!` where there is one.
        file: String,
        /// Offset from the start of that file or member.
        at: u64,
        /// What the format asks for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A pickle that asks for more than building tensors. Nothing of it was carried out.
    #[error(
        "{file}: refused at byte {at}: {what}; a checkpoint needs plain tensors only, so this file may be \
         harmful. If its origin is trusted, load it in Python and save its tensors alone: \
         model.save_pretrained(DIR, safe_serialization=True)"
    )]
    Refused {
        /// The file and the archive member.
        file: String,
        /// Offset in the pickle.
        at: u64,
        /// The opcode or global that was refused.
        what: String,
    },
    /// A tensor is listed, but its numbers cannot be read.
    #[error(
        "{file}: tensor {tensor} has type {}; readable are F32, F16 and BF16: convert the original \
         checkpoint, or an F16 GGUF of it, instead", .dtype.name()
    )]
    Dtype {
        /// The file that holds it.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
    },
    /// The caller asked for rows that a tensor does not have, or gave a buffer of another size.
    #[error("tensor {tensor}: expected {expected}, found {found}")]
    Rows {
        /// The tensor.
        tensor: String,
        /// What it has.
        expected: String,
        /// What was asked for.
        found: String,
    },
    /// A file or folder that is something else than a checkpoint or a GGUF file, or did not arrive.
    #[error(transparent)]
    Unusable(#[from] Diagnosis),
    /// A GGUF source is broken.
    #[error(transparent)]
    Gguf(#[from] huozi_quant::gguf::Error),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Error {
    pub(super) fn format(file: &str, at: u64, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Error::Format { file: file.into(), at, expected: expected.into(), found: found.into() }
    }

    pub(super) fn layout(
        file: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Error::Layout { file: file.into(), expected: expected.into(), found: found.into() }
    }
}

impl From<hub::Error> for Error {
    fn from(error: hub::Error) -> Self {
        match error {
            hub::Error::NoSuchSnapshot { model, main, dir } => {
                let what = format!("the cache's snapshot of {model} that refs/main names is missing");
                Error::NotFound { what, looked: vec![main, dir] }
            }
            hub::Error::NotFound { what, looked } => Error::NotFound { what, looked },
            hub::Error::BadRef { path, found } => {
                Error::layout(path.display().to_string(), "the name of a snapshot", found)
            }
            hub::Error::Io { path, source } => {
                Error::Io { file: path.display().to_string(), doing: "read".into(), source }
            }
            // The enum may grow.
            other => Error::Cache { why: other.to_string() },
        }
    }
}

/// As [`shown`], between quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// A JSON value as it may stand in a message.
pub(crate) fn shown_json(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| shown(&value.to_string()), quoted)
}
