//! What is being written and not sent yet: one file a process, held by its lock, which the next process takes
//! over.

use super::file::{Error, identity, make_private_directory, open_options};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a draft's name begins and ends with.
const BEGIN: &str = "draft-";
const END: &str = ".txt";
/// What it ends with while it is written, and how old such a file is when no process writes it.
const NEW: &str = ".new";
const STALE: Duration = Duration::from_secs(60);
/// A draft is at most this long.
const MAX_DRAFT_BYTES: u64 = 16 << 20;

/// The draft of this process.
pub struct Draft {
    folder: PathBuf,
    own: Option<(PathBuf, File)>,
}

impl Draft {
    /// None yet; drafts lie in `folder`, which is made when one is kept.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, own: None }
    }

    /// Takes over the latest draft that no process holds: its text, and how many more there are, which wait
    /// for the next process.
    pub fn take(&mut self) -> Option<(String, usize)> {
        let files = fs::read_dir(&self.folder).ok()?.flatten();
        let mut files: Vec<_> = files
            .inspect(|file| {
                let old = file.metadata().ok().and_then(|meta| meta.modified().ok()?.elapsed().ok());
                if file.file_name().to_string_lossy().ends_with(NEW) && old.is_some_and(|age| age > STALE) {
                    // Of a process that was killed while it wrote.
                    let _ = fs::remove_file(file.path());
                }
            })
            .filter(|file| {
                let name = file.file_name();
                let name = name.to_string_lossy();
                name.starts_with(BEGIN) && name.ends_with(END) && file.file_type().is_ok_and(|t| t.is_file())
            })
            .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
            .collect();
        files.sort();
        let text = std::iter::from_fn(|| files.pop()).find_map(|(_, path)| self.take_over(path))?;
        let waits = |path: &Path| open_options().open(path).ok().and_then(hold).is_some();
        Some((text, files.iter().filter(|(_, path)| waits(path)).count()))
    }

    fn take_over(&mut self, path: PathBuf) -> Option<String> {
        let mut file = hold(open_options().open(&path).ok()?)?;
        // It may have been sent, and removed, just now.
        if identity(&file.metadata().ok()?) != identity(&fs::symlink_metadata(&path).ok()?) {
            return None;
        }
        let mut bytes = Vec::new();
        // What is longer is nothing that was written here.
        (&mut file).take(MAX_DRAFT_BYTES + 1).read_to_end(&mut bytes).ok()?;
        if bytes.is_empty() {
            // Begun, and nothing written.
            let _ = fs::remove_file(&path);
        }
        if bytes.is_empty() || bytes.len() as u64 > MAX_DRAFT_BYTES {
            return None;
        }
        self.own = Some((path, file));
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Keeps `text` in place of what was kept before; an empty one leaves nothing.
    ///
    /// # Errors
    /// What the system says; a text of more than 16 MiB.
    pub fn keep(&mut self, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            return self.remove();
        }
        if text.len() as u64 > MAX_DRAFT_BYTES {
            return Err(Error::TooLarge { path: self.folder.clone(), bytes: text.len() as u64 });
        }
        // The old one stays until the new one is whole; this process holds one of them all the time.
        let io = |source| Error::Io { path: self.folder.clone(), action: "write into the folder", source };
        make_private_directory(&self.folder).map_err(io)?;
        let new = tempfile::Builder::new().prefix(BEGIN).suffix(NEW).tempfile_in(&self.folder);
        let mut new = new.map_err(io)?;
        new.write_all(text.as_bytes()).map_err(io)?;
        if new.as_file().try_lock().is_err() {
            // Where files cannot be held nothing is kept: two processes would write one.
            return Err(io(io::ErrorKind::Unsupported.into()));
        }
        let path = match &self.own {
            Some((path, _)) => path.clone(),
            None => new.path().with_extension(END.trim_start_matches('.')),
        };
        let file = new.persist(&path).map_err(|error| io(error.error))?;
        self.own = Some((path, file));
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Error> {
        let Some((path, file)) = &self.own else { return Ok(()) };
        // While it is held: no other process is to take it over in between.
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let emptied = file.set_len(0);
                emptied.map_err(|_| Error::Io { path: path.clone(), action: "remove", source })
            }
            _ => {
                self.own = None;
                Ok(())
            }
        }
    }
}

/// The file, if this process holds it now.
fn hold(file: File) -> Option<File> {
    file.try_lock().is_ok().then_some(file)
}
