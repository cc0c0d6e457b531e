//! What is being written and not sent yet: one file a process, held by its lock, which the next process takes over.

use super::{Error, lock, make_private_directory, open_options};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

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

    /// Takes over the latest draft that no process holds; its text. The others wait for the next process.
    pub fn take(&mut self) -> Option<String> {
        let files = fs::read_dir(&self.folder).ok()?.flatten().map(|file| file.path());
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "txt") && path.is_file());
        let mut files: Vec<_> =
            files.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).collect();
        files.sort();
        files.into_iter().rev().find_map(|(_, path)| self.take_over(path))
    }

    fn take_over(&mut self, path: PathBuf) -> Option<String> {
        let mut file = open_options().open(&path).ok()?;
        lock(&file, &path).ok()?;
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
            let Some((path, _)) = self.own.take() else { return Ok(()) };
            return fs::remove_file(&path).map_err(|source| Error::Io { path, action: "remove", source });
        }
        if text.len() as u64 > MAX_DRAFT_BYTES {
            return Err(Error::TooLarge { path: self.folder.clone(), bytes: text.len() as u64 });
        }
        let gone = |own: &mut (PathBuf, File)| !own.0.exists();
        if self.own.as_mut().is_none_or(gone) {
            self.own = Some(self.create()?);
        }
        let Some((path, file)) = &mut self.own else { return Ok(()) };
        // The new text is there before the end of the old one goes.
        let written = file.rewind().and_then(|()| file.write_all(text.as_bytes()));
        let written = written.and_then(|()| file.set_len(text.len() as u64));
        written.map_err(|source| Error::Io { path: path.clone(), action: "write", source })
    }

    fn create(&self) -> Result<(PathBuf, File), Error> {
        let io = |source| Error::Io { path: self.folder.clone(), action: "write into the folder", source };
        make_private_directory(&self.folder).map_err(io)?;
        let file = tempfile::Builder::new().prefix("draft-").suffix(".txt").tempfile_in(&self.folder);
        let (file, path) = file.map_err(io)?.keep().map_err(|error| io(error.error))?;
        lock(&file, &path)?;
        Ok((path, file))
    }
}
