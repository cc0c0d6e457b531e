//! Why an input is refused as a whole.

use crate::text_file::TextError;
use huozi_quant::message::shown;
use std::io;

/// Why an input is refused as a whole. `name` is its file, or `standard input`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The system cannot open or read it.
    #[error("{name}: cannot read: {cause}")]
    Read {
        /// The input.
        name: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The copy that is read by offset cannot be written.
    #[error("{name}: cannot write a temporary copy in {folder} (TMPDIR names another folder): {cause}")]
    Copy {
        /// The input.
        name: String,
        /// Where.
        folder: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is compressed, and what is there is damaged.
    #[error("{name}: the gzip data is damaged or cut off: {cause}")]
    Gzip {
        /// The input.
        name: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is of a kind that is not read.
    #[error("{name}: {kind}; {help}")]
    Kind {
        /// The input.
        name: String,
        /// What it is.
        kind: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// It is no text.
    #[error("{name}: {cause}")]
    Encoding {
        /// The input.
        name: String,
        /// Why.
        #[source]
        cause: TextError,
    },
    /// A column that is asked for is not there once.
    #[error(
        "{name}: the first line has {} column \"{}\": it names {}; choose one with --column",
        if *.twice { "more than one" } else { "no" },
        shown(.column),
        .columns.iter().map(|c| format!("\"{}\"", shown(c))).collect::<Vec<_>>().join(", "),
    )]
    Column {
        /// The input.
        name: String,
        /// The column asked for.
        column: String,
        /// The names in the first line.
        columns: Vec<String>,
        /// Whether it is there more than once.
        twice: bool,
    },
    /// The first line of a delimited input cannot be read.
    #[error("{name}: the first line, which names the columns, {fault}")]
    Names {
        /// The input.
        name: String,
        /// What is wrong.
        fault: String,
    },
    /// There is no row.
    #[error("{name}: there are no rows")]
    NoRows {
        /// The input.
        name: String,
    },
    /// Two rows have one id.
    #[error(
        "{name}: lines {first} and {second} both have the id \"{}\": results are told apart by it, so give \
         each row one of its own",
        shown(.id)
    )]
    Duplicate {
        /// The input.
        name: String,
        /// The id.
        id: String,
        /// The line of the earlier row.
        first: u64,
        /// The line of the later row.
        second: u64,
    },
    /// A row is not what it was when it was checked.
    #[error("{name}: line {line} changed while the run was reading it: start again with a file that stays")]
    Changed {
        /// The input.
        name: String,
        /// The line.
        line: u64,
    },
    /// Lines of text cannot be messages.
    #[error(
        "{name}: this model has no chat format and can only continue text: --raw continues each prompt as it \
         is"
    )]
    NoChat {
        /// The input.
        name: String,
    },
    /// There are more rows or lines than this program counts.
    #[error("{name}: more than {} lines: split it", u32::MAX)]
    TooMany {
        /// The input.
        name: String,
    },
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}
