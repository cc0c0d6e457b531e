//! Output files: laid out with their disk space reserved, filled in any order, renamed when all are complete.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use huozi_quant::Format;
use huozi_quant::gguf::check::sum;
use huozi_quant::gguf::{Layout, TensorInfo, Writer};
use huozi_quant::output;
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::Errno;

use crate::error::Error;
use crate::journal::{JournalState, Loss, Record};
use crate::partial::{JOURNAL, PARTIAL, PartialOutput, RunOutcome, beside, directory, lock, sync_directory};
use crate::plan::Preset;
use crate::progress::Progress;
use crate::source::Inode;

/// An output before its files are opened.
pub(crate) struct OutputPlan {
    pub preset: Preset,
    pub path: PathBuf,
    pub layout: Layout,
    /// The digest of everything that decides the bytes of the file.
    pub digest: String,
    /// The number of chunks.
    pub chunks: usize,
}

/// An output that is being written.
pub(crate) struct Output<'a> {
    preset: Preset,
    path: PathBuf,
    writer: Writer,
    partial: PartialOutput<'a>,
    /// Chunks that the journal lists, still to be checked.
    found: Vec<Record>,
    /// Finished chunks that are not in the journal yet.
    pending: Mutex<Vec<Record>>,
    /// The encoding error of each finished chunk.
    losses: Mutex<Vec<Option<Loss>>>,
}

/// The regular files that the outputs stand for, behind symbolic links. Refuses outputs before anything is
/// read: the same twice, files that exist, what is no regular file.
pub(crate) fn targets(outputs: &[(Preset, PathBuf)], force: bool) -> Result<Vec<(Preset, PathBuf)>, Error> {
    let (mut seen, mut targets) = (HashSet::new(), Vec::new());
    for (preset, given) in outputs {
        let path = target(given, force)?;
        let dir = directory(&path);
        let full = dir.canonicalize().map_err(Error::io(dir, "find the directory"))?;
        // `output::file` gives paths with a file name.
        let full = full.join(path.file_name().unwrap_or_default());
        if !seen.insert(full) {
            return Err(Error::Usage(format!("{} is written twice", path.display())));
        }
        targets.push((*preset, path));
    }
    for path in &seen {
        for own in [beside(path, PARTIAL), beside(path, JOURNAL)] {
            if seen.contains(&own) {
                let what = "is the name of another output while that is written";
                return Err(Error::Usage(format!("{} {what}", own.display())));
            }
        }
    }
    Ok(targets)
}

/// The regular file that `path` stands for; without `force` it must not exist.
fn target(path: &Path, force: bool) -> Result<PathBuf, Error> {
    let found = output::file(path)?;
    if found.metadata.is_some() && !force {
        return Err(Error::Exists(found.path));
    }
    Ok(found.path)
}

/// Checks once more what [`targets`] found: whether only a regular file, and only with `force`, is replaced.
fn check_again(path: &Path, force: bool) -> Result<(), Error> {
    if target(path, force)? != *path {
        let what = "has become a symbolic link since the conversion began";
        return Err(Error::Usage(format!("{} {what}", path.display())));
    }
    Ok(())
}

impl<'a> Output<'a> {
    /// Opens the partial files at their full length, with what an earlier run of the same conversion left in
    /// them. `sources`: files that must survive this; `notes`: receives what was found. No file is changed
    /// before every file is open and the disk known to have the space.
    pub(crate) fn create_all(
        plans: Vec<OutputPlan>,
        sources: &HashSet<Inode>,
        outcome: &'a RunOutcome,
        cancel: &AtomicBool,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Self>, Error> {
        let mut opened = Vec::new();
        for plan in plans {
            if fs::metadata(&plan.path).is_ok_and(|m| sources.contains(&(m.dev(), m.ino()))) {
                return Err(Error::SameFile(plan.path));
            }
            let (partial, found) = PartialOutput::open(&plan.path, &plan.digest, sources, outcome)?;
            opened.push((plan, partial, found));
        }
        refuse_full_disk(&opened)?;
        let outputs = opened.into_iter().map(|(plan, partial, found)| {
            let output = Self::create(plan, partial, found, notes)?;
            output.reserve(cancel)?;
            Ok(output)
        });
        outputs.collect()
    }

    fn create(
        plan: OutputPlan,
        mut partial: PartialOutput<'a>,
        found: JournalState,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let OutputPlan { preset, path, layout, digest, chunks } = plan;
        let whole = partial.bytes()? == layout.file_bytes();
        let (writer, found) = match found {
            JournalState::Same(records) if whole => {
                (Writer::resume(partial.take()?, layout).map_err(gguf(&path))?, records)
            }
            found => {
                let what = match found {
                    JournalState::Foreign => {
                        Some("belongs to another source, other options or another version")
                    }
                    JournalState::Same(records) if !records.is_empty() => {
                        Some("has another length than its journal says")
                    }
                    _ => None,
                };
                notes.extend(what.map(|what| format!("{} {what}: started over", partial.path().display())));
                partial.begin(&digest)?;
                (Writer::create(partial.take()?, layout).map_err(gguf(&path))?, Vec::new())
            }
        };
        let (pending, losses) = (Mutex::default(), Mutex::new(vec![None; chunks]));
        Ok(Self { preset, path, writer, partial, found, pending, losses })
    }

    /// Reserves the disk space, where the file system can.
    fn reserve(&self, cancel: &AtomicBool) -> Result<(), Error> {
        let file = self.partial.file();
        let chunks = lock(&self.losses).len();
        reserve_space(&self.path, cancel, || fallocate(file, FallocateFlags::empty(), 0, self.file_bytes()))?;
        reserve_space(&self.path, cancel, || self.partial.reserve_journal(chunks))
    }

    /// The tensors, in order.
    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        self.writer.layout().tensors()
    }

    /// The format of tensor number `tensor`.
    pub(crate) fn format(&self, tensor: usize) -> Format {
        self.tensors()[tensor].format
    }

    /// The chunks that the journal lists.
    pub(crate) fn found(&self) -> &[Record] {
        &self.found
    }

    /// Reads `out` back and marks the chunk as done if its checksum matches the record.
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

    /// Syncs the written chunks to disk, then notes them in the journal.
    pub(crate) fn note(&self) -> Result<(), Error> {
        let pending = std::mem::take(&mut *lock(&self.pending));
        if pending.is_empty() {
            return Ok(());
        }
        self.partial.file().sync_data().map_err(Error::io(self.partial.path(), "sync"))?;
        self.partial.add(&pending)
    }

    /// The preset.
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

    /// The encoding error of each chunk, in order; 0 for those that are not written.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        lock(&self.losses).iter().map(|loss| loss.unwrap_or_default()).collect()
    }

    /// Puts the whole file on the disk, complete but for its name. What is read back for its sums is told to
    /// `progress`.
    pub(crate) fn seal(self, progress: &dyn Progress, cancel: &AtomicBool) -> Result<Sealed<'a>, Error> {
        let on = |bytes| {
            progress.summed(bytes);
            if cancel.load(Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        };
        let finished = self.writer.finish_watched(&on);
        if cancel.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        finished.map_err(gguf(&self.path))?;
        Ok(Sealed { path: self.path, partial: self.partial })
    }
}

/// A complete file under the name of a partial one.
pub(crate) struct Sealed<'a> {
    path: PathBuf,
    partial: PartialOutput<'a>,
}

impl Sealed<'_> {
    /// Where it is.
    pub(crate) fn partial_path(&self) -> &Path {
        self.partial.path()
    }

    /// Renames every file to its final name.
    pub(crate) fn name_all(mut files: Vec<Self>, force: bool, cancel: &AtomicBool) -> Result<(), Error> {
        if cancel.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        for Self { path, partial } in &files {
            check_again(path, force)?;
            if !partial.is_named() {
                return Err(Error::Busy(path.clone()));
            }
        }
        name_all(&mut files, force)
    }
}

/// Renames every file to its final name, then syncs the directories. An error lists the renamed files.
fn name_all(files: &mut [Sealed<'_>], force: bool) -> Result<(), Error> {
    let mut named = Vec::new();
    let failed = |named: Vec<PathBuf>, error: Error| {
        if named.is_empty() { error } else { Error::Partly { named, source: Box::new(error) } }
    };
    for Sealed { path, partial } in files {
        if let Err(error) = rename(partial.path(), path, force) {
            return Err(failed(named, error));
        }
        partial.set_named();
        named.push(path.clone());
    }
    // Without this a name can be lost in a crash, though not the bytes.
    let directories: BTreeSet<PathBuf> = named.iter().map(|path| directory(path).to_owned()).collect();
    for dir in directories {
        if let Err(error) = sync_directory(&dir) {
            return Err(failed(named, error));
        }
    }
    Ok(())
}

/// Renames; without `force` a file that has come to `to` in the meantime stays.
fn rename(from: &Path, to: &Path, force: bool) -> Result<(), Error> {
    if !force {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // A kernel or file system without this flag: check just before the rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => check_again(to, force)?,
            Err(Errno::EXIST) => return Err(Error::Exists(to.to_owned())),
            done => return done.map_err(|e| Error::io(to, "rename to")(e.into())),
        }
    }
    fs::rename(from, to).map_err(Error::io(to, "rename to"))
}

/// Compares the space that the partial files still need with the free space of the file system.
fn refuse_full_disk(opened: &[(OutputPlan, PartialOutput<'_>, JournalState)]) -> Result<(), Error> {
    for (plan, ..) in opened {
        let (Some(free), Some(disk)) = (free_bytes(&plan.path), device(&plan.path)) else { continue };
        let on_it = || opened.iter().filter(|(other, ..)| device(&other.path) == Some(disk));
        let whole: u64 = on_it().map(|(plan, ..)| plan.layout.file_bytes()).sum();
        let has = |partial: &PartialOutput<'_>| {
            partial.file().metadata().map_or(0, |m| m.blocks().saturating_mul(512))
        };
        let needed = whole.saturating_sub(on_it().map(|(_, partial, _)| has(partial)).sum());
        if needed > free {
            return Err(Error::DiskFull { path: plan.path.clone(), needed, free });
        }
    }
    Ok(())
}

/// Reserves disk space for the output `path`; repeats the call when a signal interrupts it.
fn reserve_space(
    path: &Path,
    cancel: &AtomicBool,
    mut take: impl FnMut() -> Result<(), Errno>,
) -> Result<(), Error> {
    loop {
        match take() {
            Err(Errno::INTR) if cancel.load(Relaxed) => return Err(Error::Interrupted),
            Err(Errno::INTR) => {}
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(()),
            Err(e) => return Err(Error::io(path, "reserve room for")(e.into())),
        }
    }
}

/// Free bytes on the file system of `path`; `None` when it does not tell.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory(path)).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The file system of `path`; `None` when the system does not tell.
pub(crate) fn device(path: &Path) -> Option<u64> {
    fs::metadata(directory(path)).ok().map(|m| m.dev())
}

fn gguf(path: &Path) -> impl FnOnce(huozi_quant::gguf::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Gguf { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    static GO_ON: AtomicBool = AtomicBool::new(false);

    fn outputs<'a>(dir: &Path, names: &[&str], outcome: &'a RunOutcome) -> Vec<Output<'a>> {
        let one = |name: &&str| {
            let (layout, digest) = (Layout::new(&[], Vec::new()).unwrap(), "d".into());
            OutputPlan { preset: Preset::F16, path: dir.join(name), layout, digest, chunks: 0 }
        };
        let plans = names.iter().map(one).collect();
        Output::create_all(plans, &HashSet::new(), outcome, &GO_ON, &mut Vec::new()).unwrap()
    }

    fn sealed<'a>(dir: &Path, names: &[&str], outcome: &'a RunOutcome) -> Vec<Sealed<'a>> {
        outputs(dir, names, outcome).into_iter().map(|o| o.seal(&(), &GO_ON).unwrap()).collect()
    }

    fn is_locked(path: &Path) -> bool {
        matches!(fs::File::open(path).unwrap().try_lock(), Err(fs::TryLockError::WouldBlock))
    }

    #[test]
    fn the_lock_ends_after_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.partial");
        let outcome = RunOutcome::default();
        let Output { writer, partial, .. } = outputs(dir.path(), &["a"], &outcome).pop().unwrap();
        assert!(is_locked(&path));
        // As when `finish` fails and takes its file with it.
        drop(writer);
        assert!(is_locked(&path), "another process could take over a file that is about to be removed");
        drop(partial);
        assert!(!path.exists());
        // A file of another program under the partial name is neither removed nor renamed.
        let own = sealed(dir.path(), &["a"], &outcome);
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
    fn a_late_failure_lists_the_renamed_files() {
        let dir = tempfile::tempdir().unwrap();
        let outcome = RunOutcome::default();
        let mut list = sealed(dir.path(), &["a", "b", "c"], &outcome);
        // Appears between the last check and the rename.
        fs::write(dir.path().join("b"), "mine").unwrap();
        let error = name_all(&mut list, false).unwrap_err();
        drop(list);
        let Error::Partly { named, .. } = &error else { panic!("{error}") };
        assert_eq!(*named, [dir.path().join("a")]);
        assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a", "b"]);
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"mine");
    }

    #[test]
    fn an_interrupted_reservation_is_repeated() {
        let cancel = AtomicBool::new(false);
        let mut answers = vec![Ok(()), Err(Errno::INTR), Err(Errno::INTR)];
        reserve_space(Path::new("a"), &cancel, || answers.pop().unwrap()).unwrap();
        assert!(answers.is_empty());
        let full = reserve_space(Path::new("a"), &cancel, || Err(Errno::NOSPC)).unwrap_err();
        assert_eq!(full.kind(), crate::error::ErrorKind::NoRoom);
        cancel.store(true, Relaxed);
        let stopped = reserve_space(Path::new("a"), &cancel, || Err(Errno::INTR)).unwrap_err();
        assert!(matches!(stopped, Error::Interrupted), "{stopped}");
    }
}
