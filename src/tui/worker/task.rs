//! What goes between the screen and the two threads: tasks one way, reports the other.

use super::paths::Completed;
use crate::session::kv_cache::KvCache;
use crate::session::open::{About, SessionOptions, Source, Step};
use crate::session::store;
use crate::session::{Event, Settings, Turn};
use crate::settings::{InvalidSetting, Patch};
use crate::tui::failure::Failure;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether a question is new, repeated or revised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskKind {
    /// A new question.
    New,
    /// The last question once more.
    Retry,
    /// A question in place of the last.
    Revise,
}

/// Work of the model's thread.
#[derive(Clone, Debug)]
pub enum ModelTask {
    /// Open a model; what is being said goes on with it.
    Load {
        /// Which.
        source: Source,
        /// How.
        options: SessionOptions,
        /// Ends a conversion or the reading of the file.
        cancel: Arc<AtomicBool>,
    },
    /// Open the conversation that was used last, unless another process has it.
    Resume,
    /// Open this conversation.
    Open(String),
    /// A new conversation.
    New,
    /// Answer.
    Ask {
        /// Which question.
        ask: AskKind,
        /// Its text.
        question: String,
        /// The settings.
        chosen: Chosen,
        /// Ends the answer.
        cancel: Arc<AtomicBool>,
    },
    /// Take the last exchange back.
    Undo,
    /// Give the answer, or the end of the conversation, that was replaced last its place back. A
    /// [`Report::Talk`] and a [`Report::BroughtBack`] follow.
    BringBack,
    /// Read what was said, so that the next answer begins at once.
    Warm(Arc<AtomicBool>),
    /// Keep settings with the conversation.
    Keep(Chosen),
    /// Give the open conversation another title.
    Rename(String),
    /// Leave nothing of the open conversation on disk, or keep it again.
    Private(bool),
    /// Throw the open conversation away and begin a new one.
    Delete,
    /// End.
    Quit,
}

/// Work of the other thread.
#[derive(Clone, Debug)]
pub enum DeskTask {
    /// Look for models.
    Models,
    /// Look at the conversations; only those that hold this text, unless it is empty.
    List(String),
    /// Give another title to a conversation that is not open.
    Rename(String, String),
    /// Throw away a conversation that is not open.
    Delete(String),
    /// Bring back what was thrown away under this name.
    Undelete(Option<String>),
    /// Write a text file.
    Export(PathBuf, String),
    /// Read a text file.
    Attach(PathBuf),
    /// Complete a path that is typed.
    Complete(String),
    /// Keep what was chosen for the interface.
    Prefs(String),
    /// Keep what is being written.
    Draft(String),
    /// [`Report::Draft`] was taken: what is to be kept from now on holds it.
    DraftTaken,
}

/// All that can be changed about an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Of the session.
    pub settings: Settings,
    /// Of the engine.
    pub options: SessionOptions,
}

/// What the threads tell.
#[derive(Clone, Debug)]
pub enum Report {
    /// A model is being opened.
    Loading(Step, u64, u64),
    /// The model is there. A [`Report::Talk`] follows.
    Ready {
        /// What it is.
        about: Box<About>,
        /// Settings of a new conversation with it.
        fresh: Box<Chosen>,
        /// Settings of the conversation that goes on.
        chosen: Box<Chosen>,
    },
    /// It is not, and why; there is none now.
    LoadFailed(Failure),
    /// It is none, and why: the one before stays.
    Refused(Failure),
    /// Something of an answer.
    Event(Event),
    /// The answer ended, or failed for a reason. A [`Report::Talk`] comes before.
    Answered(Option<Failure>),
    /// The conversation as it is now.
    Talk(Box<Talk>),
    /// What was replaced has its place back, if there was something.
    BroughtBack,
    /// Settings of a model or a conversation that are not valid: it has the defaults instead.
    InvalidSettings(Vec<InvalidSetting>),
    /// The conversation has a file from now on: its name on disk, and its title.
    Named(String, Option<String>),
    /// No other conversation is open than before, and why, if that was asked for.
    NotOpened(Option<Failure>),
    /// The conversation was read, or as much as was wanted.
    Warmed {
        /// Positions filled.
        filled: usize,
        /// Turns that are no part of the prompt.
        dropped: usize,
    },
    /// The conversation could not be saved; it is tried again until it is.
    NotSaved(Failure),
    /// What could not be saved is.
    Saved,
    /// The question is on disk, where it is to be.
    Begun,
    /// Another program took the conversation's file away while it was open: it is written to another one.
    Moved,
    /// The engine is opened again, as the settings say.
    Reopening,
    /// It is open; with the options it had before, if the others did not work, and why.
    Reopened(Box<About>, Option<(Box<SessionOptions>, Failure)>),
    /// Bytes of memory this process holds.
    Memory(u64),
    /// Models found; memory there is.
    Models(Vec<ModelEntry>, Option<u64>),
    /// Conversations, the latest first: those that hold the text, unless it is empty.
    Talks(String, Vec<store::Entry>),
    /// What was being written and not sent when the program ended, and how many such texts wait for another
    /// start.
    Draft(String, usize),
    /// What is being written cannot be kept.
    DraftNotKept(Failure),
    /// A conversation was thrown away, and lies in the trash under this name.
    Deleted(String),
    /// What lay in the trash under the first name is back under the second.
    Undeleted(String, String),
    /// A file was written.
    Exported(PathBuf),
    /// A text file was read, and its encoding if that is another than UTF-8.
    Attached(PathBuf, String, Option<&'static str>),
    /// Something of the desk failed.
    DeskFailed(Failure),
    /// The same with the file that was asked for last: its path can be mended.
    PathFailed(Failure),
    /// A path was completed.
    Completed(Completed),
}

/// A model file in the list.
#[derive(Clone, Debug)]
pub struct ModelEntry {
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Bytes of memory it needs, or why it is no model for us.
    pub needs: Result<u64, Failure>,
}

/// A conversation as the screen shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Talk {
    /// Its name on disk; `None` while it is not there.
    pub name: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// What was said.
    pub turns: Vec<Turn>,
    /// Something that these turns replaced can be brought back.
    pub replaced: bool,
    /// How many of the oldest turns are no longer part of the prompt.
    pub dropped: usize,
    /// Nothing of it is kept.
    pub private: bool,
    /// Another process writes the original: it goes on in a copy.
    pub copy: bool,
    /// It is another one than before.
    pub opened: bool,
    /// Its settings, where it is another one.
    pub chosen: Option<Chosen>,
}

/// What the threads are started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Settings of new conversations, typed or configured; the others come from the model file.
    pub wanted: Patch,
    /// Settings that were typed: they come before those that a conversation was saved with.
    pub typed: Patch,
    /// Where conversations are kept.
    pub folder: Option<PathBuf>,
    /// Where keys and values of conversations are kept.
    pub kv_folder: Option<PathBuf>,
    /// Bytes they may take; 0 keeps none.
    pub kv_bytes: u64,
    /// Where is kept what was chosen for the interface.
    pub prefs: Option<PathBuf>,
    /// Where is kept what is being written.
    pub drafts: Option<PathBuf>,
    /// Model files to offer first.
    pub models: Vec<PathBuf>,
}

impl Setup {
    /// Keys and values of conversations on disk, where any are kept.
    pub(super) fn kv_cache(&self) -> Option<KvCache> {
        // Without conversations on disk there is nothing they could belong to.
        self.folder.as_ref()?;
        Some(KvCache::new(self.kv_folder.clone()?, self.kv_bytes))
    }
}

/// Lives as long as something that was asked for may not be on disk.
pub(super) struct Pending(Arc<AtomicUsize>);

impl Pending {
    /// One more.
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where reports go.
pub type ReportSink = Arc<dyn Fn(Report) + Send + Sync>;
