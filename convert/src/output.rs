//! Files being written: `OUT.partial` in the same directory, then fsync and rename. What is not finished is removed.
//!
//! Whoever holds the lock of a partial file may write, rename and remove it; the lock ends after its name does.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use huozi_quant::Format;
use huozi_quant::gguf::{Layout, Writer};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::Error;
use crate::pipeline::{FormatCount, Written};
use crate::plan::Preset;

/// One file on its way.
pub(crate) struct Output {
    preset: Preset,
    path: PathBuf,
    writer: Writer,
    partial: Partial,
}

/// The unfinished file: removed unless it was renamed.
struct Partial {
    path: PathBuf,
    keep: bool,
    inode: Inode,
    /// Of the same opening as the writer's, so the lock lasts until this is dropped, wherever the writer went.
    file: File,
}

impl Partial {
    /// Whether the name still means the file that is locked.
    fn is_named(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|m| inode(&m) == self.inode)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Before the fields go, so under the lock: nobody can have taken the file over.
        if !self.keep && self.is_named() {
            // Nothing better to do with an error: the run is failing already, and the name says what it is.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses, before anything is read, outputs that can not be: twice the same, there already, no file names.
pub(crate) fn check_paths(outputs: &[(Preset, PathBuf)], force: bool) -> Result<(), Error> {
    if outputs.is_empty() {
        return Err(Error::Usage("no output: -t TYPE -o OUT.gguf".into()));
    }
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
        if seen.contains(&partial_of(path)) {
            let what = "is the name of another output while that is written";
            return Err(Error::Usage(format!("{} {what}", partial_of(path).display())));
        }
    }
    Ok(())
}

fn partial_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
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

impl Output {
    /// Creates the partial files at their full length. `sources`: files that must survive this.
    pub(crate) fn create_all(
        list: Vec<(Preset, PathBuf, Layout)>,
        sources: &[PathBuf],
    ) -> Result<Vec<Self>, Error> {
        let sources: HashSet<Inode> =
            sources.iter().filter_map(|p| fs::metadata(p).ok()).map(|m| inode(&m)).collect();
        for (_, path, _) in &list {
            if fs::metadata(path).is_ok_and(|m| sources.contains(&inode(&m))) {
                return Err(Error::SameFile(path.clone()));
            }
        }
        let mut outputs = Vec::new();
        for (preset, path, layout) in list {
            let partial = open_locked(partial_of(&path), &path, &sources)?;
            // From here on it is ours, to be removed when anything fails.
            let file = partial.file.try_clone().map_err(Error::io(&partial.path, "open"))?;
            let writer = Writer::create(file, layout).map_err(gguf(&path))?;
            outputs.push(Self { preset, path, writer, partial });
        }
        refuse_full_disk(&outputs)?;
        Ok(outputs)
    }

    /// The format of tensor number `tensor`.
    pub(crate) fn format(&self, tensor: usize) -> Format {
        self.writer.layout().tensors()[tensor].format
    }

    /// Writes some bytes of a tensor; any order, any thread.
    pub(crate) fn write(&self, tensor: usize, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.writer.write_at(tensor, offset, data).map_err(gguf(&self.path))
    }

    /// What this file will be; `weights`: those of the model.
    pub(crate) fn report(&self, weights: u64) -> Written {
        let layout = self.writer.layout();
        let count = |format: &Format| {
            let of = layout.tensors().iter().filter(|t| t.format == *format);
            FormatCount {
                format: format.name(),
                tensors: of.clone().count(),
                bytes: of.map(|t| t.bytes).sum(),
            }
        };
        let formats: Vec<FormatCount> = Format::ALL.iter().map(count).filter(|c| c.tensors > 0).collect();
        let bytes: u64 = formats.iter().map(|f| f.bytes).sum();
        Written {
            path: self.path.clone(),
            preset: self.preset.name().into(),
            bytes: layout.file_bytes(),
            bits_per_weight: bytes as f64 * 8.0 / weights as f64,
            formats,
        }
    }

    /// Puts every file on the disk, then gives each its name.
    pub(crate) fn finish_all(outputs: Vec<Self>, force: bool, cancel: &AtomicBool) -> Result<(), Error> {
        let mut done: Vec<(PathBuf, Partial)> = Vec::new();
        for Self { path, writer, partial, .. } in outputs {
            writer.finish().map_err(gguf(&path))?;
            done.push((path, partial));
        }
        if cancel.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        for (path, partial) in &done {
            refuse_existing(path, force)?;
            if !partial.is_named() {
                return Err(Error::Busy(path.clone()));
            }
        }
        name_all(&mut done, force)
    }
}

/// Gives every file its name, then makes the names last. An error tells which files have theirs.
fn name_all(files: &mut [(PathBuf, Partial)], force: bool) -> Result<(), Error> {
    let mut named = Vec::new();
    let failed = |named: Vec<PathBuf>, error: Error| {
        if named.is_empty() { error } else { Error::Partly { named, source: Box::new(error) } }
    };
    for (path, partial) in files {
        if let Err(error) = rename(&partial.path, path, force) {
            return Err(failed(named, error));
        }
        partial.keep = true;
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

/// Opens the partial file without touching its content, and makes sure that nobody else writes it.
fn open_locked(partial: PathBuf, path: &Path, sources: &HashSet<Inode>) -> Result<Partial, Error> {
    // A link would lead the coming `set_len(0)` to a file that is none of our business.
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let foreign =
        |what| Err(Error::Usage(format!("{} is {what}; move it out of the way", partial.display())));
    let file = match options.open(&partial) {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => return foreign("a symbolic link"),
        file => file.map_err(Error::io(&partial, "create"))?,
    };
    let meta = file.metadata().map_err(Error::io(&partial, "look at"))?;
    if sources.contains(&inode(&meta)) {
        return Err(Error::SameFile(partial));
    }
    match (meta.is_file(), meta.nlink()) {
        (false, _) => return foreign("no regular file"),
        (true, 2..) => return foreign("a file with other names too"),
        // 0: removed since it was opened, see below.
        (true, 0 | 1) => {}
    }
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(Error::Busy(path.to_owned())),
        // A file system without locks: as good as it gets.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    let locked = Partial { path: partial, keep: false, inode: inode(&meta), file };
    // Whoever held the lock a moment ago may have renamed or removed the file opened here.
    if !locked.is_named() {
        return Err(Error::Busy(path.to_owned()));
    }
    Ok(locked)
}

/// The length is set, but a file of holes takes its room only as it is written: better to know now.
fn refuse_full_disk(outputs: &[Output]) -> Result<(), Error> {
    for output in outputs {
        let Ok(stat) = rustix::fs::statvfs(directory(&output.path)) else { continue };
        let Ok(dev) = fs::metadata(directory(&output.path)).map(|m| m.dev()) else { continue };
        let same = |o: &&Output| fs::metadata(directory(&o.path)).is_ok_and(|m| m.dev() == dev);
        let needed = outputs.iter().filter(same).map(|o| o.writer.layout().file_bytes()).sum();
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed > free {
            return Err(Error::DiskFull { path: output.path.clone(), needed, free });
        }
    }
    Ok(())
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

    fn outputs(dir: &Path, names: &[&str]) -> Vec<Output> {
        let one = |name: &&str| {
            let layout = Layout::new(&[], Vec::new()).unwrap();
            (Preset::F16, dir.join(name), layout)
        };
        Output::create_all(names.iter().map(one).collect(), &[]).unwrap()
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
        let own = outputs(dir.path(), &["a"]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other").unwrap();
        let error = Output::finish_all(own, true, &AtomicBool::new(false)).unwrap_err();
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
        let list = outputs(dir.path(), &["a", "b", "c"]);
        let mut list: Vec<_> = list.into_iter().map(|o| (o.path, o.partial)).collect();
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
