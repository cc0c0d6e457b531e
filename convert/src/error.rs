//! What can go wrong in a conversion, and which exit code it deserves.

use std::io;
use std::path::{Path, PathBuf};

use huozi_quant::gguf;

use crate::source;

/// Why a conversion did not happen. Every variant names its subject: file, tensor, key or token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request contradicts itself or would destroy something.
    #[error("{0}")]
    Usage(String),
    /// The output is there already.
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
    /// NaN or infinite weights.
    #[error(
        "{file}: tensor {tensor}: {count} of {total} weights are NaN or infinite; the checkpoint is damaged (--allow-nan converts it all the same)"
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
        "{file}: tensor {tensor}: {count} of {total} weights are beyond F16's range (65504); use bf16 or f32 (--allow-nan writes them as infinite)"
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
    #[error("{}: {needed} bytes needed, {free} free", path.display())]
    DiskFull {
        /// The output.
        path: PathBuf,
        /// Bytes the file will have.
        needed: u64,
        /// Bytes the file system still gives.
        free: u64,
    },
    /// A finished file that is not what it should be.
    #[error("the file written is not what the source has: tensor {tensor}: {what}; nothing was given a name")]
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
        /// What it said.
        source: io::Error,
    },
    /// Something went wrong, but not with what is done.
    #[error("not finished, but what is done is kept, and the same command goes on there")]
    Unfinished {
        /// What went wrong.
        source: Box<Error>,
    },
    /// Some outputs have their final names, the others will not get theirs.
    #[error("{} finished, but not all is well", .named.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Partly {
        /// The outputs that are there, each complete.
        named: Vec<PathBuf>,
        /// What went wrong after that.
        source: Box<Error>,
    },
    /// The cancel flag was set. What is done lies in `OUT.partial`, if anything is.
    #[error("interrupted; the same command goes on where it stopped")]
    Interrupted,
}

/// The classes that exit codes tell apart.
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
    /// Which exit code this deserves.
    pub fn kind(&self) -> ErrorKind {
        if io_cause(self).is_some_and(no_room) {
            return ErrorKind::NoRoom;
        }
        match self {
            Self::Usage(_) | Self::Exists(_) | Self::SameFile(_) => ErrorKind::Usage,
            Self::Config { .. } | Self::Tensors(_) | Self::Vocabulary { .. } | Self::Source(_) => {
                ErrorKind::BadInput
            }
            Self::NotFinite { .. } | Self::Overflow { .. } => ErrorKind::BadInput,
            Self::Changed(_) | Self::Imatrix { .. } => ErrorKind::BadInput,
            Self::DiskFull { .. } => ErrorKind::NoRoom,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Partly { source, .. } | Self::Unfinished { source } => source.kind(),
            Self::Busy(_) | Self::Verify { .. } | Self::Gguf { .. } | Self::Io { .. } => ErrorKind::Failed,
        }
    }

    /// Whether what is done with this source and these options is of no use to another run.
    pub(crate) fn is_worthless(&self) -> bool {
        let damaged = matches!(self, Self::Source(source::Error::Format { .. }));
        let refused = matches!(self, Self::NotFinite { .. } | Self::Overflow { .. });
        damaged || refused || matches!(self, Self::Changed(_) | Self::Verify { .. })
    }

    /// A file given beside the source can not be read.
    pub(crate) fn input(path: &Path, doing: &str) -> impl FnOnce(io::Error) -> Self {
        let (file, doing) = (path.display().to_string(), doing.to_owned());
        move |source| source::Error::Io { file, doing, source }.into()
    }

    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, doing, source }
    }
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
