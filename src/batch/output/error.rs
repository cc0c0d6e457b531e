//! Why results cannot be written, taken up again or merged.

use std::io;
use std::path::{Path, PathBuf};

/// Why results cannot be written, taken up again or merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The path is no place for a file.
    #[error(transparent)]
    Target(#[from] huozi_quant::output::Error),
    /// The operating system refused. [`source`](std::error::Error::source) has the kind.
    #[error("{}: cannot {action}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Standard output, or what stands for it, takes no more.
    #[error("standard output: {0}")]
    Stream(#[source] io::Error),
    /// Another process writes the same output.
    #[error(
        "{}: another process writes it at this moment ({} is locked): wait until it has ended, or choose \
         another output",
        out.display(), partial.display()
    )]
    Busy {
        /// The output.
        out: PathBuf,
        /// The file that is locked.
        partial: PathBuf,
    },
    /// The output was begun by a run with another model, input or settings.
    #[error(
        "{}: was begun by a run that differs from this one: {}; run it as before, choose another output, or \
         start anew with --restart (this drops the results so far)",
        out.display(), differences.join("; ")
    )]
    Different {
        /// The output.
        out: PathBuf,
        /// What differs, each with what it was and what it is.
        differences: Vec<String>,
    },
    /// A file that no batch left is where results would go.
    #[error("{}: {why}; choose another output, or replace it with --restart", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why it is not taken for ours.
        why: &'static str,
    },
    /// A complete run whose file of errors is gone.
    #[error(
        "{}: the file with the error lines of {} is gone; run the rows that failed again with \
         --retry-errors, or all with --restart",
        path.display(), out.display()
    )]
    ErrorsGone {
        /// The file with the error lines.
        path: PathBuf,
        /// The output.
        out: PathBuf,
    },
    /// Errors are to go into the output of another batch.
    #[error("{}: is the output of another batch; name another file with --errors", path.display())]
    OtherOutput {
        /// The file.
        path: PathBuf,
    },
    /// The output is one of the files that are read.
    #[error("{}: is also read by this run; choose another output", path.display())]
    Source {
        /// The file.
        path: PathBuf,
    },
    /// One file for results and errors.
    #[error(
        "{}: is to hold the results and the errors; without --errors they go to one file",
        path.display()
    )]
    Same {
        /// The file.
        path: PathBuf,
    },
    /// A manifest that cannot be used.
    #[error("{}: no usable manifest of a batch: {why}; choose another output, or start anew with \
         --restart", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A line that is no result of this run.
    #[error("{}: line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// The row of a line cannot be looked up in the input.
    #[error("{0}")]
    Input(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Rows are missing at the end.
    #[error("{}: {missing} of {rows} rows have no result yet; the results so far are kept", out.display())]
    Unfinished {
        /// The output.
        out: PathBuf,
        /// Rows without a result.
        missing: usize,
        /// Rows of the run.
        rows: usize,
    },
    /// Parts that do not make a whole.
    #[error("{0}")]
    Merge(String),
}

impl OutputError {
    /// For `map_err`: the system refused `action` on a file.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }
}

/// What to do about an error of the disk.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; finished rows are kept: make room and run the same command again"
        }
        _ => "",
    }
}
