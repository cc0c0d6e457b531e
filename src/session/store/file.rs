//! What every part of the store shares: the conversation as it is stored, errors, and how its files are
//! opened.

use crate::session::{Replaced, Turn, date};
use crate::settings::{InvalidSetting, Patch};
use huozi_token::DateTime;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Version of the lines.
pub const SCHEMA: u32 = 1;
/// The largest id and number of an attempt: what is larger was not counted by us, and the next one must fit.
pub(super) const MAX_NUMBER: u64 = i64::MAX as u64;
/// A conversation file is at most this long: what is larger was not written by us.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;

/// Why a conversation was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system says no.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// No conversation has this name.
    #[error("there is no conversation called {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The file has no line that was written to its end.
    #[error("{}: holds no conversation: not one line of it is whole", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
    },
    /// A line is not what it should be.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The file is longer than any conversation.
    #[error("{}: {bytes} bytes are more than a conversation can have", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// It was thrown away.
    #[error("{}: this conversation was deleted", path.display())]
    Deleted {
        /// The file.
        path: PathBuf,
    },
    /// There is no id left for what is to be added.
    #[error("{}: nothing can be added after line id {last}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The last id in it.
        last: u64,
    },
    /// Another program removed or replaced the file while it was written, or made it something else; or the
    /// answer that goes on has no beginning in it.
    #[error("{}: was removed, replaced or damaged by another program", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// Another process is writing the file.
    #[error("{}: another huozi is writing it", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A name that cannot be a file name.
    #[error(
        "{name:?} is no name for a conversation: letters, digits, - and _ are fine, / and a leading dot \
         are not"
    )]
    Name {
        /// The name.
        name: String,
    },
}

/// A conversation as it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// The title; `None` is the one that stands there, or the beginning of the first question.
    pub title: Option<String>,
    /// The system text; `None` is the format's own.
    pub system: Option<String>,
    /// Settings that were chosen for it; `None` leaves those of the file. The system text is not among them.
    pub choices: Option<Patch>,
    /// Settings of the file that are not valid: the conversation was read without them.
    pub invalid: Vec<InvalidSetting>,
    /// When it began, in local time: templates may write the date into the prompt. Read from a file without
    /// it: when the file was begun.
    pub date: Option<DateTime>,
    /// The turns, oldest first.
    pub turns: Vec<Turn>,
    /// The branch that those turns took the place of last, as it was read; the file keeps every branch, and
    /// saving does not look at this.
    pub replaced: Replaced,
}

/// The file of the conversation called `name`.
///
/// # Errors
/// A name that could leave the folder or is hidden.
pub fn path(directory: &Path, name: &str) -> Result<PathBuf, Error> {
    let good = !name.is_empty()
        && name.len() <= 100
        && !name.starts_with('.')
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
    if !good {
        return Err(Error::Name { name: name.chars().take(100).collect() });
    }
    Ok(directory.join(format!("{name}.jsonl")))
}

pub(super) fn read(path: &Path, file: &mut File) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), action: "read", source };
    let length = file.metadata().map_err(io)?.len();
    if length > MAX_FILE_BYTES {
        return Err(Error::TooLarge { path: path.to_owned(), bytes: length });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Names that [`fresh_name`] gives begin so; the seconds since 1970 follow.
const FRESH: &str = "chat-";

/// When a conversation began whose file does not say it: the time in its name, else the last change.
pub(super) fn begun(name: &str, file: &File) -> Option<DateTime> {
    let named = name.strip_prefix(FRESH).and_then(|seconds| seconds.parse().ok());
    let named = named.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let changed = || file.metadata().and_then(|meta| meta.modified()).ok();
    date::local(named.filter(|time| *time <= SystemTime::now()).or_else(changed)?)
}

/// A name that no conversation has: the time in seconds, so that names sort.
pub fn fresh_name(directory: &Path) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut seconds = since.map_or(0, |d| d.as_secs());
    loop {
        let name = format!("{FRESH}{seconds}");
        if !path(directory, &name).is_ok_and(|path| path.exists()) {
            return name;
        }
        seconds += 1;
    }
}

/// To read and write, readable by its owner only.
pub(in crate::session) fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

pub(super) fn lock(file: &File, path: &Path) -> Result<(), Error> {
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(Error::Busy { path: path.to_owned() }),
        // A file system without locks: go on as if no other process had it.
        Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(()),
    }
}

/// What tells a file from another one that has its name now, where the system tells that.
pub(super) fn identity(meta: &fs::Metadata) -> impl PartialEq + use<> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (meta.dev(), meta.ino())
    }
    #[cfg(not(unix))]
    {
        meta.file_type()
    }
}

pub(in crate::session) fn make_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}
