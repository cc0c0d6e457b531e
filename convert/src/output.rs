//! Files being written: `OUT.partial` in the same directory with `OUT.journal` beside it, then fsync and rename.
//!
//! Whoever holds the lock of a partial file may write, rename and remove it and its journal; the lock ends after its
//! name does. A run that fails removes both. One that is cancelled or killed leaves both, and the next one with the same
//! source and options goes on.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use huozi_quant::Format;
use huozi_quant::gguf::check::sum;
use huozi_quant::gguf::{Layout, TensorInfo, Writer};
use rustix::fs::{CWD, FallocateFlags, OFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::Errno;

use crate::Error;
use crate::journal::{Found, Journal, Loss, Record};
use crate::plan::Preset;

/// What is to become a file.
pub(crate) struct Plan {
    pub preset: Preset,
    pub path: PathBuf,
    pub layout: Layout,
    /// Of everything that decides the bytes of the file.
    pub digest: String,
    /// How many chunks it is written in.
    pub chunks: usize,
}

/// One file on its way.
pub(crate) struct Output<'a> {
    preset: Preset,
    path: PathBuf,
    writer: Writer,
    partial: Partial<'a>,
    /// What the journal says is there, still to be looked at.
    found: Vec<Record>,
    /// Finished chunks that are not in the journal yet.
    pending: Mutex<Vec<Record>>,
    /// What each finished chunk lost.
    losses: Mutex<Vec<Option<Loss>>>,
}

/// The unfinished file and its journal. Both are removed in the end; when the file was renamed, the journal is; when
/// the run was cancelled and something is noted, neither.
struct Partial<'a> {
    path: PathBuf,
    /// Of the same opening as the writer's, so the lock lasts until this is dropped, wherever the writer went.
    file: File,
    inode: Inode,
    journal_path: PathBuf,
    journal_inode: Inode,
    journal: Mutex<Journal>,
    cancel: &'a AtomicBool,
    named: bool,
}

impl Partial<'_> {
    /// Whether the name still means the file that is locked.
    fn is_named(&self) -> bool {
        means(&self.path, self.inode)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // Before the fields go, so under the lock: nobody can have taken the files over. Nothing better to do with an
        // error: the run is failing already, and the names say what these are.
        if !self.named && self.cancel.load(Relaxed) && lock(&self.journal).len() > 0 {
            return;
        }
        if !self.named && self.is_named() {
            let _ = fs::remove_file(&self.path);
        }
        if means(&self.journal_path, self.journal_inode) {
            let _ = fs::remove_file(&self.journal_path);
        }
    }
}

fn means(path: &Path, of: Inode) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| inode(&m) == of)
}

/// A panic elsewhere leaves these lists as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses, before anything is read, outputs that can not be: twice the same, there already, no file names.
pub(crate) fn check_paths(outputs: &[(Preset, PathBuf)], force: bool) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (_, path) in outputs {
        let Some(name) = path.file_name() else {
            return Err(Error::Usage(format!("{} is no file name", path.display())));
        };
        let dir = directory(path);
        let full = dir.canonicalize().map_err(Error::io(dir, "find the directory"))?.join(name);
        if !seen.insert(full) {
            return Err(Error::Usage(format!("{} is written twice", path.display())));
        }
        refuse_existing(path, force)?;
    }
    for path in &seen {
        for own in [beside(path, PARTIAL), beside(path, JOURNAL)] {
            if seen.contains(&own) {
                let what = "is the name of another output while that is written";
                return Err(Error::Usage(format!("{} {what}", own.display())));
            }
        }
    }
    Ok(())
}

const PARTIAL: &str = ".partial";
const JOURNAL: &str = ".journal";

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn refuse_existing(path: &Path, force: bool) -> Result<(), Error> {
    // Of the name itself, so that a dangling link counts.
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => Err(Error::Usage(format!("{} is a directory", path.display()))),
        Ok(_) if !force => Err(Error::Exists(path.to_owned())),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(path, "look at")(e)),
    }
}

/// A file whatever its name.
type Inode = (u64, u64);

fn inode(meta: &fs::Metadata) -> Inode {
    (meta.dev(), meta.ino())
}

impl<'a> Output<'a> {
    /// Opens the partial files at their full length, with what an earlier run of the same conversion left in them.
    /// `sources`: files that must survive this; `notes`: told what was found.
    pub(crate) fn create_all(
        plans: Vec<Plan>,
        sources: &[PathBuf],
        cancel: &'a AtomicBool,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Self>, Error> {
        let sources: HashSet<Inode> =
            sources.iter().filter_map(|p| fs::metadata(p).ok()).map(|m| inode(&m)).collect();
        for plan in &plans {
            if fs::metadata(&plan.path).is_ok_and(|m| sources.contains(&inode(&m))) {
                return Err(Error::SameFile(plan.path.clone()));
            }
        }
        let mut outputs = Vec::new();
        for plan in plans {
            outputs.push(Self::create(plan, &sources, cancel, notes)?);
        }
        refuse_full_disk(&outputs)?;
        for output in &outputs {
            output.reserve()?;
        }
        Ok(outputs)
    }

    fn create(
        plan: Plan,
        sources: &HashSet<Inode>,
        cancel: &'a AtomicBool,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let Plan { preset, path, layout, digest, chunks } = plan;
        let (partial, found) = open_locked(&path, &digest, sources, cancel)?;
        // From here on the files are ours, to be removed when anything fails.
        let file = || partial.file.try_clone().map_err(Error::io(&partial.path, "open"));
        let whole = partial.file.metadata().is_ok_and(|m| m.len() == layout.file_bytes());
        let (writer, found) = match found {
            Found::Same(records) if whole => (Writer::resume(file()?, layout).map_err(gguf(&path))?, records),
            found => {
                if found == Found::Foreign {
                    let what = "was begun with another source, other options or another version";
                    notes.push(format!("{} {what}: started over", partial.path.display()));
                }
                let begun = lock(&partial.journal).begin(&digest);
                begun.map_err(Error::io(&partial.journal_path, "write"))?;
                (Writer::create(file()?, layout).map_err(gguf(&path))?, Vec::new())
            }
        };
        let (pending, losses) = (Mutex::default(), Mutex::new(vec![None; chunks]));
        Ok(Self { preset, path, writer, partial, found, pending, losses })
    }

    /// Takes the room on the disk now, where the file system can: better than to find none at the end.
    fn reserve(&self) -> Result<(), Error> {
        let done = |reserved: Result<(), Errno>| match reserved {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(e) => Err(Error::io(&self.path, "reserve room for")(e.into())),
        };
        done(fallocate(&self.partial.file, FallocateFlags::empty(), 0, self.file_bytes()))?;
        let chunks = lock(&self.losses).len();
        done(lock(&self.partial.journal).reserve(chunks))
    }

    /// The tensors, in order.
    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        self.writer.layout().tensors()
    }

    /// The format of tensor number `tensor`.
    pub(crate) fn format(&self, tensor: usize) -> Format {
        self.tensors()[tensor].format
    }

    /// What the journal says is there.
    pub(crate) fn found(&self) -> &[Record] {
        &self.found
    }

    /// Reads `out` back, and takes it as done when its sum is the record's.
    pub(crate) fn accept(
        &self,
        record: &Record,
        tensor: usize,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        self.writer.read_at(tensor, offset, out).map_err(gguf(&self.path))?;
        if sum(out) == record.sum {
            self.writer.keep(tensor, offset, out.len() as u64).map_err(gguf(&self.path))?;
            lock(&self.losses)[record.chunk] = Some(record.loss);
        }
        Ok(())
    }

    /// Whether a chunk is written.
    pub(crate) fn is_done(&self, chunk: usize) -> bool {
        lock(&self.losses)[chunk].is_some()
    }

    /// Writes a chunk: some bytes of a tensor; any order, any thread.
    pub(crate) fn write(
        &self,
        chunk: usize,
        tensor: usize,
        offset: u64,
        data: &[u8],
        loss: Loss,
    ) -> Result<(), Error> {
        self.writer.write_at(tensor, offset, data).map_err(gguf(&self.path))?;
        lock(&self.losses)[chunk] = Some(loss);
        let record = Record { chunk, sum: sum(data), loss };
        lock(&self.pending).push(record);
        Ok(())
    }

    /// Waits until what is written is on the disk, then notes it in the journal.
    pub(crate) fn note(&self) -> Result<(), Error> {
        let pending = std::mem::take(&mut *lock(&self.pending));
        if pending.is_empty() {
            return Ok(());
        }
        self.partial.file.sync_data().map_err(Error::io(&self.partial.path, "sync"))?;
        let added = lock(&self.partial.journal).add(&pending);
        added.map_err(Error::io(&self.partial.journal_path, "write"))
    }

    /// The preset it is made for.
    pub(crate) fn preset(&self) -> Preset {
        self.preset
    }

    /// Its final name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.writer.layout().file_bytes()
    }

    /// What each chunk lost, in order; nothing for those that are not written.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        lock(&self.losses).iter().map(|loss| loss.unwrap_or_default()).collect()
    }

    /// Puts the whole file on the disk, complete but for its name.
    pub(crate) fn seal(self) -> Result<Sealed<'a>, Error> {
        self.writer.finish().map_err(gguf(&self.path))?;
        Ok(Sealed { path: self.path, partial: self.partial })
    }
}

/// A complete file under the name of a partial one.
pub(crate) struct Sealed<'a> {
    path: PathBuf,
    partial: Partial<'a>,
}

impl Sealed<'_> {
    /// Where it is.
    pub(crate) fn partial_path(&self) -> &Path {
        &self.partial.path
    }

    /// Gives every file its name.
    pub(crate) fn name_all(mut files: Vec<Self>, force: bool, cancel: &AtomicBool) -> Result<(), Error> {
        if cancel.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        for Self { path, partial } in &files {
            refuse_existing(path, force)?;
            if !partial.is_named() {
                return Err(Error::Busy(path.clone()));
            }
        }
        name_all(&mut files, force)
    }
}

/// Gives every file its name, then makes the names last. An error tells which files have theirs.
fn name_all(files: &mut [Sealed<'_>], force: bool) -> Result<(), Error> {
    let mut named = Vec::new();
    let failed = |named: Vec<PathBuf>, error: Error| {
        if named.is_empty() { error } else { Error::Partly { named, source: Box::new(error) } }
    };
    for Sealed { path, partial } in files {
        if let Err(error) = rename(&partial.path, path, force) {
            return Err(failed(named, error));
        }
        partial.named = true;
        named.push(path.clone());
    }
    // Without this a name can be lost in a crash, though not the bytes.
    let directories: BTreeSet<PathBuf> = named.iter().map(|path| directory(path).to_owned()).collect();
    for dir in directories {
        if let Err(error) = File::open(&dir).and_then(|d| d.sync_all()) {
            return Err(failed(named, Error::io(&dir, "sync")(error)));
        }
    }
    Ok(())
}

/// Renames; without `force` a file that has come to `to` in the meantime stays.
fn rename(from: &Path, to: &Path, force: bool) -> Result<(), Error> {
    if !force {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // A kernel or file system without this: a look just before is as good as it gets.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => refuse_existing(to, force)?,
            Err(Errno::EXIST) => return Err(Error::Exists(to.to_owned())),
            done => return done.map_err(|e| Error::io(to, "rename to")(e.into())),
        }
    }
    fs::rename(from, to).map_err(Error::io(to, "rename to"))
}

/// Opens the partial file and its journal without touching their content, and makes sure that nobody else writes them.
fn open_locked<'a>(
    path: &Path,
    digest: &str,
    sources: &HashSet<Inode>,
    cancel: &'a AtomicBool,
) -> Result<(Partial<'a>, Found), Error> {
    let (partial, journal_path) = (beside(path, PARTIAL), beside(path, JOURNAL));
    let (file, of) = open_own(&partial, sources)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(Error::Busy(path.to_owned())),
        // A file system without locks: as good as it gets.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    // Whoever held the lock a moment ago may have renamed or removed the file opened here.
    if !means(&partial, of) {
        return Err(Error::Busy(path.to_owned()));
    }
    let (journal, journal_inode) = open_own(&journal_path, sources)?;
    let opened = Journal::open(journal, digest).map_err(Error::io(&journal_path, "read"));
    let (journal, found) = opened?;
    let journal = Mutex::new(journal);
    let partial = Partial {
        path: partial,
        file,
        inode: of,
        journal_path,
        journal_inode,
        journal,
        cancel,
        named: false,
    };
    Ok((partial, found))
}

/// Opens or creates a file that this program alone works with.
fn open_own(path: &Path, sources: &HashSet<Inode>) -> Result<(File, Inode), Error> {
    // A link would lead the coming `set_len(0)` to a file that is none of our business.
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let foreign = |what| Err(Error::Usage(format!("{} is {what}; move it out of the way", path.display())));
    let file = match options.open(path) {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => return foreign("a symbolic link"),
        file => file.map_err(Error::io(path, "create"))?,
    };
    let meta = file.metadata().map_err(Error::io(path, "look at"))?;
    if sources.contains(&inode(&meta)) {
        return Err(Error::SameFile(path.to_owned()));
    }
    match (meta.is_file(), meta.nlink()) {
        (false, _) => foreign("no regular file"),
        (true, 2..) => foreign("a file with other names too"),
        // 0: removed since it was opened, see above.
        (true, 0 | 1) => Ok((file, inode(&meta))),
    }
}

/// Room that the partial files do not have yet, against what the file system still gives.
fn refuse_full_disk(outputs: &[Output<'_>]) -> Result<(), Error> {
    for output in outputs {
        let Some(free) = free_bytes(&output.path) else { continue };
        let Ok(dev) = fs::metadata(directory(&output.path)).map(|m| m.dev()) else { continue };
        let same = |o: &&Output<'_>| fs::metadata(directory(&o.path)).is_ok_and(|m| m.dev() == dev);
        let missing = |o: &Output<'_>| {
            let has = o.partial.file.metadata().map_or(0, |m| m.blocks().saturating_mul(512));
            o.file_bytes().saturating_sub(has)
        };
        let needed = outputs.iter().filter(same).map(missing).sum();
        if needed > free {
            return Err(Error::DiskFull { path: output.path.clone(), needed, free });
        }
    }
    Ok(())
}

/// Bytes that the file system of `path` still gives; `None` when it does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory(path)).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn gguf(path: &Path) -> impl FnOnce(huozi_quant::gguf::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Gguf { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    static GO_ON: AtomicBool = AtomicBool::new(false);

    fn outputs(dir: &Path, names: &[&str]) -> Vec<Output<'static>> {
        let one = |name: &&str| {
            let (layout, digest) = (Layout::new(&[], Vec::new()).unwrap(), "d".into());
            Plan { preset: Preset::F16, path: dir.join(name), layout, digest, chunks: 0 }
        };
        Output::create_all(names.iter().map(one).collect(), &[], &GO_ON, &mut Vec::new()).unwrap()
    }

    fn sealed(dir: &Path, names: &[&str]) -> Vec<Sealed<'static>> {
        outputs(dir, names).into_iter().map(|o| o.seal().unwrap()).collect()
    }

    fn is_locked(path: &Path) -> bool {
        matches!(File::open(path).unwrap().try_lock(), Err(TryLockError::WouldBlock))
    }

    #[test]
    fn the_lock_ends_after_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.partial");
        let Output { writer, partial, .. } = outputs(dir.path(), &["a"]).pop().unwrap();
        assert!(is_locked(&path));
        // As when `finish` fails and takes its file with it.
        drop(writer);
        assert!(is_locked(&path), "another process could take over a file that is about to be removed");
        drop(partial);
        assert!(!path.exists());
        // A file that took the name by force is not ours to remove, nor to be given the final name.
        let own = sealed(dir.path(), &["a"]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other").unwrap();
        let error = Sealed::name_all(own, true, &GO_ON).unwrap_err();
        assert!(matches!(error, Error::Busy(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"other");
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn renaming_replaces_on_demand_only() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        assert!(matches!(rename(&from, &to, false), Err(Error::Exists(_))));
        assert_eq!(fs::read(&to).unwrap(), b"old");
        rename(&from, &to, true).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        rename(&to, &from, false).unwrap();
        assert_eq!(fs::read(&from).unwrap(), b"new");
    }

    #[test]
    fn a_late_failure_says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut list = sealed(dir.path(), &["a", "b", "c"]);
        // Comes between the last look and the rename.
        fs::write(dir.path().join("b"), "mine").unwrap();
        let error = name_all(&mut list, false).unwrap_err();
        drop(list);
        let Error::Partly { named, .. } = &error else { panic!("{error}") };
        assert_eq!(*named, [dir.path().join("a")]);
        assert_eq!(error.kind(), crate::Kind::Usage);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a", "b"]);
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"mine");
    }
}
