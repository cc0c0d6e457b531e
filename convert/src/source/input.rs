//! Bytes by range, from a file or from memory, and the folder they are in. Never mapped, never read whole.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use huozi_quant::gguf::check::{hex, sum};

use super::error::{Error, shown};

/// Bytes read at once for a sum.
const PIECE: u64 = 1 << 20;

/// A file under any of its names: device and inode.
pub(crate) type Inode = (u64, u64);

/// One readable file of known length.
#[derive(Debug)]
pub(super) struct Input {
    name: String,
    len: u64,
    data: Data,
}

#[derive(Debug)]
enum Data {
    File(File, Inode),
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
        let meta = file.metadata().map_err(|e| fail("read the size of", e))?;
        Ok(Self { name, len: meta.len(), data: Data::File(file, (meta.dev(), meta.ino())) })
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

    /// The file that is open; `None` for bytes in memory.
    pub(super) fn inode(&self) -> Option<Inode> {
        match self.data {
            Data::File(_, inode) => Some(inode),
            Data::Memory(_) => None,
        }
    }

    /// Name without folders, size, number and times of change as they are now; of bytes in memory their sum.
    /// One line.
    ///
    /// Without the device: some file systems give it another number when the machine starts, and what a power
    /// cut interrupted has to go on after that.
    pub(super) fn identity(&self) -> Result<String, Error> {
        let name = self.name.rsplit('/').next().unwrap_or_default();
        let rest = match &self.data {
            Data::File(file, _) => {
                let fail = |source| Error::Io { file: self.name.clone(), doing: "stat".into(), source };
                let meta = file.metadata().map_err(fail)?;
                // The second time is the system's own: no program can put it back.
                let (written, changed) =
                    ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
                format!("{} bytes, inode {}, {written:?}, {changed:?}", meta.len(), meta.ino())
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
            Data::File(file, _) => file.read_exact_at(out, at).map_err(|source| Error::Io {
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

    /// The CRC-32 of `len` bytes from `at`; `on` receives the length of each piece and may stop with an
    /// error.
    pub(super) fn crc32<E: From<Error>>(
        &self,
        mut at: u64,
        len: u64,
        on: &dyn Fn(u64) -> Result<(), E>,
    ) -> Result<u32, E> {
        let (mut sum, mut left) = (crc32fast::Hasher::new(), len);
        let mut buffer = vec![0; PIECE.min(len) as usize];
        while left > 0 {
            let n = left.min(PIECE);
            let piece = &mut buffer[..n as usize];
            self.read_at(at, piece)?;
            sum.update(piece);
            (at, left) = (at + n, left - n);
            on(n)?;
        }
        Ok(sum.finalize())
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
    /// With every file of it that was opened.
    Dir(PathBuf, Mutex<HashSet<Inode>>),
    Memory(Vec<(String, Arc<Cow<'static, [u8]>>)>),
}

impl Folder {
    pub(super) fn name(&self) -> String {
        match self {
            Folder::Dir(dir, _) => dir.display().to_string(),
            Folder::Memory(_) => "(in memory)".into(),
        }
    }

    /// Every file that was opened.
    pub(super) fn opened(&self) -> HashSet<Inode> {
        match self {
            Folder::Dir(_, opened) => opened.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Folder::Memory(_) => HashSet::new(),
        }
    }

    /// Names of the entries, sorted. Names that are not UTF-8 belong to no checkpoint and are left out.
    pub(super) fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = match self {
            Folder::Dir(dir, _) => {
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

    /// The folder with this plain name, if it exists.
    pub(super) fn folder(&self, name: &str) -> Result<Option<Folder>, Error> {
        if !is_plain(name) {
            return Err(Error::layout(self.name(), "a plain folder name", shown(name)));
        }
        match self {
            Folder::Dir(dir, _) => {
                let inner = dir.join(name);
                Ok(inner.is_dir().then(|| Folder::Dir(inner, Mutex::default())))
            }
            Folder::Memory(_) => Ok(None),
        }
    }

    /// Counts a file of a folder inside this one as opened.
    pub(super) fn add_opened(&self, input: &Input) {
        if let Folder::Dir(_, opened) = self {
            opened.lock().unwrap_or_else(PoisonError::into_inner).extend(input.inode());
        }
    }

    /// The file with this plain name, if it exists.
    pub(super) fn open(&self, name: &str) -> Result<Option<Input>, Error> {
        if !is_plain(name) {
            return Err(Error::layout(self.name(), "a plain file name", shown(name)));
        }
        match self {
            Folder::Dir(dir, opened) => match Input::open(&dir.join(name)) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                input => {
                    let input = input?;
                    opened.lock().unwrap_or_else(PoisonError::into_inner).extend(input.inode());
                    Ok(Some(input))
                }
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
