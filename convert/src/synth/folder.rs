//! A new folder and its files, under a temporary name until everything is on the disk.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use huozi_quant::output;

use crate::error::Error;

/// The folder that `dir` stands for, behind symbolic links. Refuses one that has entries, and anything that
/// is no folder.
pub(super) fn target(dir: &Path) -> Result<PathBuf, Error> {
    let found = output::directory(dir)?;
    if found.metadata.is_none() {
        return Ok(found.path);
    }
    // The folder itself is replaced by a rename, so a link to it has to be resolved.
    let dir = dir.canonicalize().map_err(Error::io(dir, "find the directory"))?;
    match fs::read_dir(&dir).map_err(Error::io(&dir, "list"))?.next() {
        None => Ok(dir),
        Some(_) => Err(Error::Usage(format!("{} is not empty; name a new directory", dir.display()))),
    }
}

/// `DIR.partial`: removed with all its files unless [`finish`](Self::finish) has renamed it.
pub(super) struct NewFolder {
    partial: PathBuf,
    dir: PathBuf,
    keep: bool,
}

impl NewFolder {
    pub fn create(dir: &Path) -> Result<Self, Error> {
        let no_name = || Error::Usage(format!("{} is not the name of a directory", dir.display()));
        let mut name = dir.file_name().ok_or_else(no_name)?.to_owned();
        name.push(".partial");
        // `file_name` has dropped a trailing slash.
        let partial = dir.with_file_name(name);
        match fs::create_dir(&partial) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let what = "exists: another run is writing it, or was killed; remove it if none is running";
                Err(Error::Usage(format!("{} {what}", partial.display())))
            }
            made => {
                made.map_err(Error::io(&partial, "create"))?;
                Ok(Self { partial, dir: dir.to_owned(), keep: false })
            }
        }
    }

    pub fn refuse_full_disk(&self, needed: u64) -> Result<(), Error> {
        // Where the system does not say, the disk will.
        let Ok(stat) = rustix::fs::statvfs(&self.partial) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed > free {
            return Err(Error::DiskFull { path: self.dir.clone(), needed, free });
        }
        Ok(())
    }

    pub fn create_file(&self, name: &str) -> Result<NewFile, Error> {
        let path = self.partial.join(name);
        let file = File::create_new(&path).map_err(Error::io(&path, "create"))?;
        Ok(NewFile { path, file })
    }

    /// Renames the folder to its final name and syncs that.
    pub fn finish(mut self) -> Result<(), Error> {
        let sync = |dir: &Path| File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir, "sync"));
        sync(&self.partial)?;
        // Replaces an empty folder and nothing else.
        fs::rename(&self.partial, &self.dir).map_err(Error::io(&self.dir, "rename to"))?;
        self.keep = true;
        sync(self.dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.keep {
            // The caller has an error already; the name of a folder that stays tells what it is.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// A file that is being written.
pub(super) struct NewFile {
    path: PathBuf,
    file: File,
}

impl NewFile {
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, at).map_err(Error::io(&self.path, "write"))
    }

    pub fn write_all(self, bytes: &[u8]) -> Result<Self, Error> {
        self.write_at(0, bytes)?;
        Ok(self)
    }

    pub fn finish(self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io(&self.path, "sync"))
    }
}
