//! Files being written: `OUT.partial` in the same directory, then fsync and rename. What is not finished is removed.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use huozi_quant::Format;
use huozi_quant::gguf::{Layout, Writer};

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

/// Removes the unfinished file unless it was renamed.
struct Partial {
    path: PathBuf,
    keep: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.keep {
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
    Ok(())
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
            let mut name = path.as_os_str().to_owned();
            name.push(".partial");
            let partial = PathBuf::from(name);
            let file = open_locked(&partial, &path, &sources)?;
            // From here on it is ours, to be removed when anything fails.
            let partial = Partial { path: partial, keep: false };
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
        let mut done: Vec<(PathBuf, Partial, File)> = Vec::new();
        for Self { path, writer, partial, .. } in outputs {
            // The file stays open, and with it the lock, until it has its name.
            let file = writer.finish().map_err(gguf(&path))?;
            done.push((path, partial, file));
        }
        if cancel.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        for (path, _, _) in &done {
            refuse_existing(path, force)?;
        }
        for (path, partial, _file) in &mut done {
            fs::rename(&partial.path, &*path).map_err(Error::io(path, "rename to"))?;
            partial.keep = true;
            // Without this the name can be lost in a crash, though not the bytes.
            let dir = directory(path);
            File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir, "sync"))?;
        }
        Ok(())
    }
}

/// Opens the partial file without touching its content, and makes sure that nobody else writes it.
fn open_locked(partial: &Path, path: &Path, sources: &HashSet<Inode>) -> Result<File, Error> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(partial);
    let file = file.map_err(Error::io(partial, "create"))?;
    let meta = file.metadata().map_err(Error::io(partial, "look at"))?;
    if sources.contains(&inode(&meta)) {
        return Err(Error::SameFile(partial.to_owned()));
    }
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(Error::Busy(path.to_owned())),
        // A file system without locks: as good as it gets.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    // Whoever held the lock a moment ago may have renamed or removed the file opened here.
    let named = fs::metadata(partial).ok().map(|m| inode(&m));
    if named != Some(inode(&meta)) {
        return Err(Error::Busy(path.to_owned()));
    }
    Ok(file)
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
