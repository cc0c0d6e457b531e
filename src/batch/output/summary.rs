//! What a batch came to.

use std::path::PathBuf;

/// What a batch came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSummary {
    /// Rows with a line.
    pub rows: usize,
    /// Rows with an error line.
    pub failed: usize,
    /// It was complete before.
    pub already: bool,
    /// `OUT`; `-` for a stream.
    pub out: PathBuf,
    /// The file with the error lines, unless they are in `out`.
    pub errors: Option<PathBuf>,
}
