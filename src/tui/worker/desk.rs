//! The thread for what takes a moment on disk.

use super::part::AGAIN;
use super::paths;
use super::task::{DeskTask, ModelEntry, Pending, Report, ReportSink, Setup};
use crate::session::catalog::{self, Found, Memory};
use crate::session::store::{self, Draft};
use crate::text_file::{self, TextError, TextFile};
use crate::tui::failure::Failure;
use std::any::Any;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// What was thrown away can be brought back for so long.
const DAYS_IN_TRASH: u64 = 30;

/// A file that is attached is at most this long: a context holds far less.
const MAX_ATTACHED_BYTES: u64 = 256 << 10;

/// The thread's state.
pub(super) struct DeskWorker {
    setup: Setup,
    send: ReportSink,
    /// Lists that were asked for.
    lists: Arc<AtomicUsize>,
    /// Nothing that is only shown matters any more.
    ending: Arc<AtomicBool>,
    draft: Option<Draft>,
    /// What lay there at the start, until the screen has it.
    adopted: Option<String>,
    /// What is to be kept and could not be.
    unkept: Option<(String, Pending)>,
}

impl DeskWorker {
    /// Without a draft.
    pub(super) fn new(
        setup: Setup,
        send: ReportSink,
        lists: Arc<AtomicUsize>,
        ending: Arc<AtomicBool>,
    ) -> Self {
        let draft = setup.drafts.clone().map(Draft::new);
        Self { setup, send, lists, ending, draft, adopted: None, unkept: None }
    }

    /// Works until nothing more can come.
    pub(super) fn run(&mut self, tasks: &Receiver<(DeskTask, Pending)>) {
        if let Some((text, more)) = self.draft.as_mut().and_then(Draft::take) {
            self.adopted = Some(text.clone());
            (self.send)(Report::Draft(text, more));
        }
        if let Some(folder) = &self.setup.folder {
            store::empty_trash(folder, DAYS_IN_TRASH);
        }
        let mut lists = 0;
        loop {
            let (task, pending) =
                match tasks.recv_timeout(self.unkept.as_ref().map_or(Duration::MAX, |_| AGAIN)) {
                    Ok(task) => task,
                    Err(RecvTimeoutError::Timeout) => {
                        // Why it cannot be kept was told.
                        let _ = self.keep_unkept();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                };
            lists += usize::from(matches!(task, DeskTask::List(_)));
            let report = catch_unwind(AssertUnwindSafe(|| self.on(task, pending, lists)));
            let report = report.unwrap_or_else(|panic| Some(panicked(&*panic)));
            if let Some(report) = report {
                (self.send)(report);
            }
        }
        if let Err(why) = self.keep_unkept() {
            (self.send)(Report::DraftNotKept(why));
        }
        self.unkept = None;
    }

    /// Does a task; a list is the one with number `list`.
    fn on(&mut self, task: DeskTask, pending: Pending, list: usize) -> Option<Report> {
        let done = match task {
            DeskTask::Models => {
                let first = self.setup.models.clone();
                return self.aside(move || Some(models(&first)));
            }
            DeskTask::List(text) => {
                let (lists, ending, folder) =
                    (self.lists.clone(), self.ending.clone(), self.setup.folder.clone());
                return self.aside(move || {
                    let go_on = || lists.load(Ordering::SeqCst) == list && !ending.load(Ordering::Relaxed);
                    let found = match folder {
                        Some(folder) => store::search(&folder, &text, &go_on)?,
                        // That there are none is told where one is to be saved.
                        None => Vec::new(),
                    };
                    Some(Report::Talks(text, found))
                });
            }
            DeskTask::Rename(name, title) => match self.folder() {
                Ok(folder) => match store::rename(folder, &name, &title) {
                    Ok(()) => return None,
                    Err(error) => Err(failed(error)),
                },
                Err(report) => Err(report),
            },
            DeskTask::Delete(name) => self.folder().and_then(|folder| {
                let trashed = store::delete(folder, &name).map_err(failed)?;
                if let Some(mut cache) = self.setup.kv_cache() {
                    cache.remove(&name);
                }
                Ok(Report::Deleted(trashed))
            }),
            DeskTask::Undelete(trashed) => self.folder().and_then(|folder| {
                let nothing = || Report::DeskFailed(Failure::NothingInTrash);
                let trashed = trashed.or_else(|| store::trashed_last(folder)).ok_or_else(nothing)?;
                let name = store::undelete(folder, &trashed).map_err(failed)?;
                Ok(Report::Undeleted(trashed, name))
            }),
            DeskTask::Export(path, text) => {
                let exported = store::export(&path, &text);
                let whole = |path: PathBuf| Report::Exported(fs::canonicalize(&path).unwrap_or(path));
                exported.map(whole).map_err(|error| Report::PathFailed(error.into()))
            }
            DeskTask::Attach(path) => return self.aside(move || Some(attach(path))),
            DeskTask::Complete(text) => {
                return self.aside(move || Some(Report::Completed(paths::complete(text))));
            }
            DeskTask::Prefs(text) => return self.keep_prefs(&text),
            DeskTask::Draft(text) => {
                let told = self.unkept.replace((text, pending)).is_some();
                let why = self.keep_unkept().err().filter(|_| !told)?;
                return Some(Report::DraftNotKept(why));
            }
            DeskTask::DraftTaken => {
                self.adopted = None;
                return None;
            }
        };
        Some(done.unwrap_or_else(|report| report))
    }

    fn folder(&self) -> Result<&Path, Report> {
        self.setup.folder.as_deref().ok_or_else(|| Report::DeskFailed(Failure::NoPlaceForConversations))
    }

    /// Reads something in a thread of its own: a slow disk, or a file that gives nothing and does not end
    /// either, is to keep nothing from being written.
    fn aside(&self, work: impl FnOnce() -> Option<Report> + Send + 'static) -> Option<Report> {
        let send = self.send.clone();
        let work = move || {
            let report = catch_unwind(AssertUnwindSafe(work));
            if let Some(report) = report.unwrap_or_else(|panic| Some(panicked(&*panic))) {
                send(report);
            }
        };
        let why = std::thread::Builder::new().name("aside".into()).spawn(work).err()?;
        Some(Report::DeskFailed(Failure::System(why.to_string())))
    }

    fn keep_prefs(&self, text: &str) -> Option<Report> {
        let Some(path) = &self.setup.prefs else {
            return Some(Report::DeskFailed(Failure::NoPlaceForPrefs));
        };
        let error = store::replace(path, text).err()?;
        Some(Report::DeskFailed(Failure::file(path, error)))
    }

    /// Keeps what is being written, and until the screen has it what lay there before.
    fn keep_unkept(&mut self) -> Result<(), Failure> {
        let (Some(draft), Some((text, _))) = (&mut self.draft, &self.unkept) else {
            self.unkept = None;
            return Ok(());
        };
        let both = self.adopted.as_ref().map(|before| format!("{before}\n{text}"));
        draft.keep(both.as_ref().unwrap_or(text))?;
        self.unkept = None;
        Ok(())
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Report {
    Report::DeskFailed(Failure::panic(panic))
}

fn failed(error: store::Error) -> Report {
    Report::DeskFailed(error.into())
}

fn models(first: &[PathBuf]) -> Report {
    let found = catalog::everywhere(first);
    let mut models: Vec<ModelEntry> = found
        .iter()
        .map(|path| {
            let found = Arc::new(Found::look(path));
            let needs = found.needs().map_err(|_| Failure::Unusable(found.clone()));
            ModelEntry { path: found.path.clone(), bytes: found.bytes, needs }
        })
        .collect();
    models.sort_by_key(|model| model.needs.is_err());
    Report::Models(models, Memory::now().map(|memory| memory.available))
}

fn attach(path: PathBuf) -> Report {
    match read_text(&path) {
        Ok(file) => {
            let encoding = file.other_encoding();
            Report::Attached(path, file.text, encoding)
        }
        Err(why) => Report::PathFailed(why),
    }
}

fn read_text(path: &Path) -> Result<TextFile, Failure> {
    let system = |error| Failure::file(path, error);
    if !fs::metadata(path).map_err(system)?.is_file() {
        return Err(Failure::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(system)?;
    let read = text_file::read(file, MAX_ATTACHED_BYTES).and_then(|file| match file.text.find('\0') {
        // The input of a message has no sign for it.
        Some(at) => Err(TextError::NotText { at, line: 1 + file.text[..at].matches('\n').count() }),
        None => Ok(file),
    });
    read.map_err(|error| match error {
        TextError::Io(error) => system(error),
        TextError::TooLong { most_bytes } => {
            Failure::TooLong { path: path.to_owned(), most_kib: most_bytes >> 10 }
        }
        TextError::Damaged { encoding, at, line } => {
            Failure::NotText { path: path.to_owned(), encoding: Some(encoding), at, line }
        }
        TextError::NotText { at, line } => {
            Failure::NotText { path: path.to_owned(), encoding: None, at, line }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_long_as_a_message_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let of = |bytes: u64| {
            let path = dir.path().join("a.txt");
            fs::write(&path, vec![b'a'; bytes as usize]).unwrap();
            attach(path)
        };
        assert!(matches!(of(MAX_ATTACHED_BYTES), Report::Attached(_, text, None) if text.len() == 256 << 10));
        let Report::PathFailed(why) = of(MAX_ATTACHED_BYTES + 1) else { panic!("it was read") };
        assert!(matches!(why, Failure::TooLong { most_kib: 256, .. }), "{why:?}");
    }

    #[test]
    fn a_message_holds_text_without_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let of = |bytes: &[u8]| {
            let path = dir.path().join("a.txt");
            fs::write(&path, bytes).unwrap();
            attach(path)
        };
        let read = of(b"\xc7\xb0\xd4\xc2\xb9\xe2");
        assert!(matches!(&read, Report::Attached(_, text, Some("gb18030")) if text == "前月光"), "{read:?}");
        let Report::PathFailed(why) = of(b"a\n\0b") else { panic!("it was read") };
        assert!(matches!(why, Failure::NotText { encoding: None, at: 2, line: 2, .. }), "{why:?}");
        let Report::PathFailed(why) = of(b"\xff\xfea\0\n") else { panic!("it was read") };
        assert!(
            matches!(why, Failure::NotText { encoding: Some("UTF-16LE"), at: 4, line: 1, .. }),
            "{why:?}"
        );
    }
}
