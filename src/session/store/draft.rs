//! What is being written and not sent yet: one file a process, held by its lock, which the next process takes over.

use super::{Error, identity, make_private_directory, open_options};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// What a draft's name begins and ends with.
const BEGIN: &str = "draft-";
const END: &str = ".txt";
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

    /// Takes over the latest draft that no process holds: its text, and how many more there are, which wait for the next
    /// process.
    pub fn take(&mut self) -> Option<(String, usize)> {
        let files = fs::read_dir(&self.folder).ok()?.flatten();
        let mut files: Vec<_> = files
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
        // Somebody may have removed or replaced it.
        let there = |(path, file): &(PathBuf, File)| {
            Some(identity(&file.metadata().ok()?) == identity(&fs::symlink_metadata(path).ok()?))
        };
        if !self.own.as_ref().and_then(there).unwrap_or(false) {
            self.own = Some(self.create()?);
        }
        let Some((path, file)) = &mut self.own else { return Ok(()) };
        // The new text is there before the end of the old one goes.
        let written = file.rewind().and_then(|()| file.write_all(text.as_bytes()));
        let written = written.and_then(|()| file.set_len(text.len() as u64));
        written.map_err(|source| Error::Io { path: path.clone(), action: "write", source })
    }

    fn remove(&mut self) -> Result<(), Error> {
        let Some((path, file)) = &self.own else { return Ok(()) };
        // While it is held: nobody is to take it over in between.
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

    fn create(&self) -> Result<(PathBuf, File), Error> {
        let io = |source| Error::Io { path: self.folder.clone(), action: "write into the folder", source };
        make_private_directory(&self.folder).map_err(io)?;
        // Held before it has a name that others look at.
        let file = tempfile::Builder::new().prefix(BEGIN).suffix(".new").tempfile_in(&self.folder);
        let (file, path) = file.map_err(io)?.keep().map_err(|error| io(error.error))?;
        let named = path.with_extension("txt");
        let file = hold(file).ok_or(io::ErrorKind::Unsupported.into()).map_err(io)?;
        fs::rename(&path, &named).map_err(io)?;
        Ok((named, file))
    }
}

/// The file, if this process holds it now; where files cannot be held nothing is kept, as two processes would write it.
fn hold(file: File) -> Option<File> {
    file.try_lock().is_ok().then_some(file)
}
