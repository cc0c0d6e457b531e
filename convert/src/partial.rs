//! The two files of an unfinished output: `OUT.partial` in its directory, and `OUT.journal` beside it.
//!
//! Only the process that holds their locks writes, renames and removes them; it releases the locks after it
//! has renamed or removed the files. Files that a later run can resume are kept however this run ends, others
//! are removed.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::Error;
use crate::journal::{Journal, JournalState, Record};
use crate::source::Inode;

pub(crate) const PARTIAL: &str = ".partial";
pub(crate) const JOURNAL: &str = ".journal";

/// `path` with more at its end.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The directory that `path` is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs the names in a directory.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir, "sync"))
}

/// Locks, also after a panic of another thread: it leaves the data as it was.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the partial files of a run are kept: what the run knows, and what its files report.
#[derive(Debug, Default)]
pub(crate) struct RunOutcome {
    worthless: AtomicBool,
    kept: AtomicBool,
}

impl RunOutcome {
    /// The partial files are of no use to a later run.
    pub(crate) fn set_worthless(&self) {
        self.worthless.store(true, Relaxed);
    }

    /// Whether partial files are left that a later run can resume; known after the files are dropped.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Relaxed)
    }
}

/// An unfinished file and its journal.
pub(crate) struct PartialOutput<'a> {
    /// Of the same opening as the writer's, so the lock lasts until this is dropped, wherever the writer
    /// went.
    data: LockedFile,
    journal: Mutex<Journal>,
    journal_file: LockedFile,
    outcome: &'a RunOutcome,
    /// Whether this run has written to them.
    written: bool,
    named: bool,
}

impl<'a> PartialOutput<'a> {
    /// Opens the files of the output `path` and locks them. Their content stays
    /// as it is.
    ///
    /// `sources`: files that must survive this.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::SameFile`], files under these names that are not this program's.
    pub(crate) fn open(
        path: &Path,
        digest: &str,
        sources: &HashSet<Inode>,
        outcome: &'a RunOutcome,
    ) -> Result<(Self, JournalState), Error> {
        let data = LockedFile::open(path, PARTIAL, sources)?;
        let journal_file = LockedFile::open(path, JOURNAL, sources)?;
        let opened = journal_file
            .handle()
            .and_then(|file| Journal::open(file, digest).map_err(Error::io(&journal_file.path, "read")));
        let (journal, found) = opened?;
        match found {
            JournalState::OtherFile => return Err(foreign(&journal_file.path, "no journal of a conversion")),
            JournalState::Nothing if data.bytes()? > 0 => {
                return Err(foreign(&data.path, "there without the journal of its conversion"));
            }
            _ => {}
        }
        let journal = Mutex::new(journal);
        Ok((Self { data, journal, journal_file, outcome, written: false, named: false }, found))
    }

    /// Where the unfinished file is.
    pub(crate) fn path(&self) -> &Path {
        &self.data.path
    }

    /// The unfinished file.
    pub(crate) fn file(&self) -> &File {
        &self.data.file
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> Result<u64, Error> {
        self.data.bytes()
    }

    /// The unfinished file, to be written from now on.
    pub(crate) fn take(&mut self) -> Result<File, Error> {
        self.written = true;
        self.data.handle()
    }

    /// Empties both files and gives the journal its title. A kill in between leaves neither an unfinished
    /// file without a journal nor a journal beside the content of another conversion.
    pub(crate) fn begin(&mut self, digest: &str) -> Result<(), Error> {
        self.written = true;
        let emptied = self.data.file.set_len(0).and_then(|()| self.data.file.sync_all());
        emptied.map_err(Error::io(&self.data.path, "empty"))?;
        lock(&self.journal).begin(digest).map_err(Error::io(&self.journal_file.path, "write"))?;
        sync_directory(directory(&self.data.path))
    }

    /// Notes chunks whose data is on the disk.
    pub(crate) fn add(&self, records: &[Record]) -> Result<(), Error> {
        lock(&self.journal).add(records).map_err(Error::io(&self.journal_file.path, "write"))
    }

    /// Takes room on the disk for the journal of so many chunks.
    pub(crate) fn reserve_journal(&self, chunks: usize) -> Result<(), Errno> {
        lock(&self.journal).reserve(chunks)
    }

    /// Whether the name still means the file that is locked.
    pub(crate) fn is_named(&self) -> bool {
        self.data.is_named()
    }

    /// Notes that the file has its final name, so that nothing is left to resume.
    pub(crate) fn set_named(&mut self) {
        self.named = true;
    }
}

impl Drop for PartialOutput<'_> {
    fn drop(&mut self) {
        // Before the fields are dropped, so under the locks: no other process can have taken the files over.
        let noted = lock(&self.journal).len() > 0;
        if noted && !self.named && self.data.is_named() && !self.outcome.worthless.load(Relaxed) {
            self.outcome.kept.store(true, Relaxed);
        } else if self.written {
            if !self.named {
                self.data.remove();
            }
            self.journal_file.remove();
        }
    }
}

/// A locked file under a name of this program. An empty one is removed in the end.
struct LockedFile {
    path: PathBuf,
    file: File,
    inode: Inode,
}

impl LockedFile {
    /// Opens or creates the file beside the output `path`, without touching its content.
    fn open(path: &Path, suffix: &str, sources: &HashSet<Inode>) -> Result<Self, Error> {
        let own = beside(path, suffix);
        // A link would redirect the writing to a file of another program.
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let file = match options.open(&own) {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => {
                return Err(foreign(&own, "a symbolic link"));
            }
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Err(foreign(&own, "a directory")),
            file => file.map_err(Error::io(&own, "create"))?,
        };
        let meta = file.metadata().map_err(Error::io(&own, "stat"))?;
        let inode = (meta.dev(), meta.ino());
        if sources.contains(&inode) {
            return Err(Error::SameFile(own));
        }
        match (meta.is_file(), meta.nlink()) {
            (false, _) => return Err(foreign(&own, "no regular file")),
            (true, 2..) => return Err(foreign(&own, "a file with other names too")),
            // 0: removed since it was opened, see below.
            (true, 0 | 1) => {}
        }
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::Busy(path.to_owned())),
            // A file system without locks cannot do better.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let own = Self { path: own, file, inode };
        // The process that held the lock a moment ago may have renamed or removed the file opened here.
        if own.is_named() { Ok(own) } else { Err(Error::Busy(path.to_owned())) }
    }

    /// The same opening once more.
    fn handle(&self) -> Result<File, Error> {
        self.file.try_clone().map_err(Error::io(&self.path, "open"))
    }

    fn bytes(&self) -> Result<u64, Error> {
        self.file.metadata().map(|m| m.len()).map_err(Error::io(&self.path, "stat"))
    }

    /// Whether the name still means this file.
    fn is_named(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode)
    }

    fn remove(&self) {
        if self.is_named() {
            // The run is ending and cannot report an error; the names tell what the files are.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|m| m.len() == 0) {
            self.remove();
        }
    }
}

fn foreign(path: &Path, what: &str) -> Error {
    Error::Usage(format!("{} is {what}; move it out of the way", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Loss;

    fn open<'a>(
        dir: &Path,
        digest: &str,
        outcome: &'a RunOutcome,
    ) -> Result<(PartialOutput<'a>, JournalState), Error> {
        PartialOutput::open(&dir.join("a"), digest, &HashSet::new(), outcome)
    }

    fn record(chunk: usize) -> Record {
        Record { chunk, sum: [1; 32], loss: Loss::default() }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }

    /// A file of an earlier run with one chunk.
    fn earlier(dir: &Path, digest: &str) {
        let outcome = RunOutcome::default();
        let (mut partial, _) = open(dir, digest, &outcome).unwrap();
        partial.begin(digest).unwrap();
        fs::write(dir.join("a.partial"), "chunk").unwrap();
        partial.add(&[record(0)]).unwrap();
        drop(partial);
        assert!(outcome.is_kept());
        assert_eq!(names(dir), ["a.journal", "a.partial"]);
    }

    #[test]
    fn what_a_later_run_can_resume_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        // Opened and nothing else: as it was, be it of this conversion or another.
        for digest in ["d", "e"] {
            earlier(dir, "d");
            let outcome = RunOutcome::default();
            drop(open(dir, digest, &outcome).unwrap());
            assert_eq!(outcome.is_kept(), digest == "d");
            assert_eq!(fs::read(dir.join("a.partial")).unwrap(), b"chunk");
            let (_, found) = open(dir, "d", &outcome).unwrap();
            assert_eq!(found, JournalState::Same(vec![record(0)]));
        }
        // Of no use to a later run.
        let outcome = RunOutcome::default();
        let (partial, _) = open(dir, "d", &outcome).unwrap();
        let mut partial = partial;
        partial.take().unwrap();
        outcome.set_worthless();
        drop(partial);
        assert!(!outcome.is_kept());
        assert_eq!(names(dir), [""; 0]);
        // Written to, and nothing noted yet.
        let outcome = RunOutcome::default();
        let (mut partial, _) = open(dir, "d", &outcome).unwrap();
        partial.begin("d").unwrap();
        fs::write(dir.join("a.partial"), "chunk").unwrap();
        drop(partial);
        assert_eq!((names(dir), outcome.is_kept()), (Vec::new(), false));
        // In a panic as ever.
        let outcome = RunOutcome::default();
        let panicked = std::panic::catch_unwind(|| {
            let (mut partial, _) = open(dir, "d", &outcome).unwrap();
            partial.begin("d").unwrap();
            fs::write(dir.join("a.partial"), "chunk").unwrap();
            partial.add(&[record(0)]).unwrap();
            panic!("planted");
        });
        assert!(panicked.is_err() && outcome.is_kept());
        assert_eq!(names(dir), ["a.journal", "a.partial"]);
    }

    #[test]
    fn another_conversion_s_content_is_gone_before_the_journal_speaks() {
        let dir = tempfile::tempdir().unwrap();
        earlier(dir.path(), "d");
        let outcome = RunOutcome::default();
        let (mut partial, found) = open(dir.path(), "e", &outcome).unwrap();
        assert_eq!(found, JournalState::Foreign);
        partial.begin("e").unwrap();
        assert_eq!(partial.bytes().unwrap(), 0);
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (data, journal) = (dir.path().join("a.partial"), dir.path().join("a.journal"));
        let outcome = RunOutcome::default();
        let refused = || {
            let error = open(dir.path(), "d", &outcome).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{error}");
            error.to_string()
        };
        fs::write(&data, "mine").unwrap();
        assert!(refused().contains("a.partial is there without"));
        assert_eq!(names(dir.path()), ["a.partial"]);
        fs::write(&journal, "Monday: rain\n").unwrap();
        assert!(refused().contains("a.journal is no journal"));
        fs::remove_file(&data).unwrap();
        assert!(refused().contains("a.journal is no journal"));
        assert_eq!(fs::read(&journal).unwrap(), b"Monday: rain\n");
        assert_eq!(names(dir.path()), ["a.journal"]);
        // A journal that cannot be opened leaves no empty file either.
        fs::remove_file(&journal).unwrap();
        fs::create_dir(&journal).unwrap();
        assert!(open(dir.path(), "d", &outcome).is_err());
        assert_eq!(names(dir.path()), ["a.journal"]);
    }

    #[test]
    fn a_journal_that_is_still_held_is_not_shared() {
        let dir = tempfile::tempdir().unwrap();
        // Another run has renamed its file and not yet removed its journal.
        let journal = File::create(dir.path().join("a.journal")).unwrap();
        journal.lock().unwrap();
        let outcome = RunOutcome::default();
        assert!(matches!(open(dir.path(), "d", &outcome), Err(Error::Busy(_))));
        assert_eq!(names(dir.path()), ["a.journal"]);
    }
}
