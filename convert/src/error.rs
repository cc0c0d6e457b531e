//! The errors of a conversion, and their exit codes.

use std::io;
use std::path::{Path, PathBuf};

use huozi_quant::{gguf, output};

use crate::source;
use huozi_quant::message::size;

/// Why a conversion failed. Every variant names its subject: file, tensor, key or token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request contradicts itself or would destroy something.
    #[error("{0}")]
    Usage(String),
    /// The output is a device, a directory or something else that must not be replaced.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// The output exists.
    #[error("{} exists; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// The output is one of the files read.
    #[error("{} is one of the files that are read; choose another output", .0.display())]
    SameFile(PathBuf),
    /// Another process writes the same output.
    #[error("{} is being written by another conversion", .0.display())]
    Busy(PathBuf),
    /// `config.json`, or the architecture keys of a GGUF file.
    #[error("{file}: {what}")]
    Config {
        /// The file read.
        file: String,
        /// Key, value, expectation.
        what: String,
    },
    /// Tensor names or shapes that are not this model's.
    #[error("{0}")]
    Tensors(String),
    /// `tokenizer.json` and its neighbours.
    #[error("{file}: {what}")]
    Vocabulary {
        /// The file read.
        file: &'static str,
        /// Token, id, expectation.
        what: String,
    },
    /// The file would not run.
    #[error("{source_name}: {what}")]
    Unusable {
        /// The checkpoint or file that is converted.
        source_name: String,
        /// The reason, and what to do.
        what: String,
    },
    /// NaN or infinite weights.
    #[error(
        "{file}: tensor {tensor}: {count} of {total} weights are NaN or infinite; the checkpoint is damaged \
         (--allow-nan converts it anyway)"
    )]
    NotFinite {
        /// The file that holds it.
        file: String,
        /// Its name in the source.
        tensor: String,
        /// How many.
        count: u64,
        /// Of how many.
        total: u64,
    },
    /// Finite weights that an F16 tensor cannot hold.
    #[error(
        "{file}: tensor {tensor}: {count} of {total} weights are beyond F16's range (65504); use bf16 or f32 \
         (--allow-nan writes them as infinite)"
    )]
    Overflow {
        /// The file that holds it.
        file: String,
        /// Its name in the source.
        tensor: String,
        /// How many.
        count: u64,
        /// Of how many.
        total: u64,
    },
    /// Not enough room on the output's disk.
    #[error("{}: {} needed, {} free", path.display(), size(*needed), size(*free))]
    DiskFull {
        /// The output.
        path: PathBuf,
        /// Bytes the file will have.
        needed: u64,
        /// Bytes the file system still gives.
        free: u64,
    },
    /// A finished file that does not match the source.
    #[error(
        "the file written does not match the source: tensor {tensor}: {what}; \
         no output was renamed into place"
    )]
    Verify {
        /// Its name in the file.
        tensor: String,
        /// What is wrong.
        what: String,
    },
    /// The source changed while it was read.
    #[error("{0} changed while it was read; nothing was written")]
    Changed(String),
    /// `--imatrix`.
    #[error("{}: {what}", file.display())]
    Imatrix {
        /// The file.
        file: PathBuf,
        /// Entry, expectation.
        what: String,
    },
    /// Reading the source.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Laying out or writing the GGUF file.
    #[error("{}", path.display())]
    Gguf {
        /// The output.
        path: PathBuf,
        /// What happened.
        source: gguf::Error,
    },
    /// The operating system refused something.
    #[error("{}: cannot {doing}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// `create`, `rename to`, ...
        doing: &'static str,
        /// The reason that it gives.
        source: io::Error,
    },
    /// An error that leaves the finished chunks usable.
    #[error("not finished; the finished part is kept, and the same command resumes")]
    Unfinished {
        /// What went wrong.
        source: Box<Error>,
    },
    /// Some outputs have their final names, the others have not.
    #[error("{} finished, but not all outputs", list(named))]
    Partly {
        /// The outputs that are there, each complete.
        named: Vec<PathBuf>,
        /// What went wrong after that.
        source: Box<Error>,
    },
    /// The cancel flag was set. Finished chunks, if any, are in `OUT.partial`.
    #[error("interrupted; the same command resumes")]
    Interrupted,
}

/// The classes of errors that have exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Exit code 1.
    Failed,
    /// Exit code 2.
    Usage,
    /// Exit code 4.
    BadInput,
    /// Exit code 5: disk or memory.
    NoRoom,
    /// Exit code 130 or 143, by signal.
    Interrupted,
}

impl Error {
    /// The class of exit code.
    pub fn kind(&self) -> ErrorKind {
        if io_cause(self).is_some_and(no_room) {
            return ErrorKind::NoRoom;
        }
        match self {
            Self::Usage(_) | Self::Exists(_) | Self::SameFile(_) => ErrorKind::Usage,
            Self::Config { .. } | Self::Tensors(_) | Self::Vocabulary { .. } | Self::Source(_) => {
                ErrorKind::BadInput
            }
            Self::Unusable { .. } => ErrorKind::BadInput,
            Self::NotFinite { .. } | Self::Overflow { .. } => ErrorKind::BadInput,
            Self::Changed(_) | Self::Imatrix { .. } => ErrorKind::BadInput,
            Self::DiskFull { .. } => ErrorKind::NoRoom,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Partly { source, .. } | Self::Unfinished { source } => source.kind(),
            Self::Output(output::Error::Kind { .. }) => ErrorKind::Usage,
            Self::Output(_) => ErrorKind::Failed,
            Self::Busy(_) | Self::Verify { .. } | Self::Gguf { .. } | Self::Io { .. } => ErrorKind::Failed,
        }
    }

    /// Whether the chunks finished so far are of no use to a later run with this source and these options.
    pub(crate) fn is_worthless(&self) -> bool {
        let damaged = matches!(self, Self::Source(source::Error::Format { .. }));
        let refused = matches!(self, Self::NotFinite { .. } | Self::Overflow { .. });
        damaged || refused || matches!(self, Self::Changed(_) | Self::Verify { .. })
    }

    /// A file given besides the source cannot be read.
    pub(crate) fn input(path: &Path, doing: &str) -> impl FnOnce(io::Error) -> Self {
        let (file, doing) = (path.display().to_string(), doing.to_owned());
        move |source| source::Error::Io { file, doing, source }.into()
    }

    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, doing, source }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn no_room(error: &io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory | FileTooLarge)
}

/// The first `io::Error` in the chain of sources.
fn io_cause(error: &Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = e.source();
    }
    None
}
