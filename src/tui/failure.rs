//! What went wrong, as a value: [`super::words`] says it in the language of the interface.

use crate::session::catalog::Found;
use crate::session::{self, open, store};
use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A reason, to be shown to a person.
#[derive(Clone, Debug)]
pub enum Failure {
    /// A session.
    Session(Arc<session::Error>),
    /// A model was not opened.
    Open(Arc<open::Error>),
    /// A conversation was not read or written.
    Store(Arc<store::Error>),
    /// A file that is no model for us; it is told without its path.
    Unusable(Arc<Found>),
    /// The system, about a file.
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: Arc<io::Error>,
    },
    /// Not a file but something else.
    NotAFile(PathBuf),
    /// A file that is too long for a message.
    TooLong {
        /// The file.
        path: PathBuf,
        /// The longest file that is attached, in KiB.
        most_kib: u64,
    },
    /// A file that holds no text.
    NotText {
        /// The file.
        path: PathBuf,
        /// The encoding that all of it but some bytes is in.
        encoding: Option<&'static str>,
        /// The first byte that is wrong.
        at: usize,
        /// Its line, from 1.
        line: usize,
    },
    /// A thread panicked, with this message.
    Panic(String),
    /// There is no open model.
    NoModel,
    /// The environment names no folder for conversations.
    NoPlaceForConversations,
    /// The environment names no folder for the choices of the interface.
    NoPlaceForPrefs,
    /// The trash is empty.
    NothingInTrash,
    /// The last conversation is open in another process.
    LastOpenElsewhere,
    /// The last conversation cannot be opened.
    LastNotOpened(Box<Failure>),
    /// The open conversation cannot be saved, and another one was asked for.
    LeavesUnsaved(Box<Failure>),
    /// An answer to a question that was edited was stopped before its first token: the old exchange is kept.
    StoppedBeforeAnswer,
    /// The disk took too long when the program ended.
    DiskSlow,
    /// Anything else, told as the system or the library says it.
    System(String),
}

impl Failure {
    /// What a thread panicked with.
    pub fn panic(panic: &(dyn Any + Send)) -> Self {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        Self::Panic(what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown").to_owned())
    }

    /// What the system says about a file.
    pub fn file(path: &Path, error: io::Error) -> Self {
        Self::File { path: path.to_owned(), error: Arc::new(error) }
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self::System(text.to_owned())
    }
}

impl From<session::Error> for Failure {
    fn from(error: session::Error) -> Self {
        Self::Session(Arc::new(error))
    }
}

impl From<open::Error> for Failure {
    fn from(error: open::Error) -> Self {
        Self::Open(Arc::new(error))
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}
