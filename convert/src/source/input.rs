//! Bytes by range, from a file or from memory, and the folder they are in. Never mapped, never read whole.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use huozi_quant::gguf::check::{hex, sum};

use super::error::{Error, shown};

/// One readable file of known length.
#[derive(Debug)]
pub(super) struct Input {
    name: String,
    len: u64,
    data: Data,
}

#[derive(Debug)]
enum Data {
    File(File),
    Memory(Arc<Cow<'static, [u8]>>),
}

impl Input {
    /// Opens a regular file (links are followed: the Hugging Face cache is made of them).
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let fail = |doing: &str, source| Error::Io { file: name.clone(), doing: doing.into(), source };
        // Asked before opening: opening a pipe would wait for a writer.
        if !std::fs::metadata(path).map_err(|e| fail("open", e))?.is_file() {
            return Err(Error::layout(name, "a regular file", "a directory or device"));
        }
        let file = File::open(path).map_err(|e| fail("open", e))?;
        let len = file.metadata().map_err(|e| fail("read the size of", e))?.len();
        Ok(Self { name, len, data: Data::File(file) })
    }

    pub(super) fn memory(name: &str, bytes: Arc<Cow<'static, [u8]>>) -> Self {
        Self { name: name.into(), len: bytes.len() as u64, data: Data::Memory(bytes) }
    }

    /// The path, or the name in memory, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Name without folders, size and time of change as they are now; of bytes in memory their sum. One line.
    pub(super) fn identity(&self) -> Result<String, Error> {
        let name = self.name.rsplit('/').next().unwrap_or_default();
        let rest = match &self.data {
            Data::File(file) => {
                let fail = |source| Error::Io { file: self.name.clone(), doing: "look at".into(), source };
                let meta = file.metadata().map_err(fail)?;
                format!("{} bytes, changed {}.{:09}", meta.len(), meta.mtime(), meta.mtime_nsec())
            }
            Data::Memory(bytes) => hex(&sum(bytes)),
        };
        Ok(format!("{name:?} {rest}\n"))
    }

    /// Fills `out` from `at`.
    pub(super) fn read_at(&self, at: u64, out: &mut [u8]) -> Result<(), Error> {
        let end = at.checked_add(out.len() as u64).filter(|&end| end <= self.len).ok_or_else(|| {
            let (n, left) = (out.len(), self.len.saturating_sub(at));
            Error::format(&self.name, at, format!("{n} bytes"), format!("{left} before the end of the file"))
        })?;
        match &self.data {
            Data::File(file) => file.read_exact_at(out, at).map_err(|source| Error::Io {
                file: self.name.clone(),
                doing: format!("read bytes {at}..{end}"),
                source,
            }),
            Data::Memory(bytes) => {
                // `end <= len`, and `len` came from a `usize`.
                out.copy_from_slice(&bytes[at as usize..end as usize]);
                Ok(())
            }
        }
    }

    /// `len` bytes from `at`; allocates only what the file really holds and at most `cap`.
    pub(super) fn read_vec(&self, at: u64, len: u64, cap: u64, what: &str) -> Result<Vec<u8>, Error> {
        let left = self.len.saturating_sub(at);
        if len > left {
            let found = format!("{left} before the end of the file");
            return Err(Error::format(&self.name, at, format!("{what} of {len} bytes"), found));
        }
        if len > cap {
            let found = format!("{len} bytes");
            return Err(Error::format(&self.name, at, format!("{what} of at most {cap} bytes"), found));
        }
        let mut out = vec![0; usize::try_from(len).expect("capped")];
        self.read_at(at, &mut out)?;
        Ok(out)
    }
}

/// Where a checkpoint's files are.
#[derive(Debug)]
pub(super) enum Folder {
    Dir(PathBuf),
    Memory(Vec<(String, Arc<Cow<'static, [u8]>>)>),
}

impl Folder {
    pub(super) fn name(&self) -> String {
        match self {
            Folder::Dir(dir) => dir.display().to_string(),
            Folder::Memory(_) => "(in memory)".into(),
        }
    }

    /// Names of the entries, sorted. Names that are not UTF-8 belong to no checkpoint and are left out.
    pub(super) fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = match self {
            Folder::Dir(dir) => {
                let fail = |source| Error::Io { file: self.name(), doing: "list".into(), source };
                let mut names = Vec::new();
                for entry in std::fs::read_dir(dir).map_err(fail)? {
                    names.extend(entry.map_err(fail)?.file_name().into_string());
                }
                names
            }
            Folder::Memory(files) => files.iter().map(|(name, _)| name.clone()).collect(),
        };
        names.sort();
        Ok(names)
    }

    /// The file with this plain name, if it exists.
    pub(super) fn open(&self, name: &str) -> Result<Option<Input>, Error> {
        if !is_plain(name) {
            return Err(Error::layout(self.name(), "a plain file name", shown(name)));
        }
        match self {
            Folder::Dir(dir) => match Input::open(&dir.join(name)) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                input => input.map(Some),
            },
            Folder::Memory(files) => {
                let file = files.iter().find(|(n, _)| n == name);
                Ok(file.map(|(name, bytes)| Input::memory(name, bytes.clone())))
            }
        }
    }
}

/// Whether `name` can only mean an entry of one directory.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == '\\' || c == ':' || c.is_control())
}
