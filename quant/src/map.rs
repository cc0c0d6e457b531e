//! The bytes of a file, mapped or read, shared and cheap to clone.
//!
//! A path comes in; a [`Bytes`] goes out. Knows nothing of what the bytes mean.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

/// How a file becomes bytes in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// Mapped read-only: instant, and the pages are shared with every other process that maps the file.
    #[default]
    Map,
    /// Read into one page-aligned anonymous buffer: slower to open, independent of the file afterwards.
    Read,
}

/// Read in pieces of this size, so that one system call never takes seconds.
const CHUNK_BYTES: usize = 16 << 20;

enum Store {
    Map(Mmap),
    Vec(Vec<u8>),
}

impl Store {
    fn bytes(&self) -> &[u8] {
        match self {
            Store::Map(map) => map,
            Store::Vec(vec) => vec,
        }
    }
}

/// A range of shared immutable bytes. The mapping or buffer lives as long as its last range.
#[derive(Clone)]
pub struct Bytes {
    store: Arc<Store>,
    range: Range<usize>,
}

impl Bytes {
    /// The whole content of the regular file at `path`; an empty file gives empty bytes.
    ///
    /// The start of a file opened here is page-aligned, empty files aside.
    ///
    /// # Errors
    /// Whatever opening, mapping or reading gives; `InvalidInput` for what is not a regular file (a mapped device
    /// or pipe has no length to hold on to); `FileTooLarge` when the address space is too small; with [`How::Read`],
    /// `UnexpectedEof` or `InvalidData` when the file shrinks or grows meanwhile.
    pub fn open(path: &Path, how: How) -> io::Result<Bytes> {
        // Asked before opening: opening a pipe without a writer would block.
        regular(&fs::metadata(path)?)?;
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        regular(&metadata)?;
        let len = usize::try_from(metadata.len()).ok().filter(|&n| isize::try_from(n).is_ok());
        let len = len.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{} bytes do not fit in memory", metadata.len()),
            )
        })?;
        if len == 0 {
            return Ok(Bytes::from(Vec::new()));
        }
        let map = match how {
            How::Map => map_file(&file, len)?,
            How::Read => read_file(&mut file, len)?,
        };
        Ok(Bytes { store: Arc::new(Store::Map(map)), range: 0..len })
    }

    /// `len` bytes in anonymous memory, page-aligned, zero before `fill` writes them and fixed afterwards.
    ///
    /// # Errors
    /// The system has no memory for them.
    pub fn anonymous(len: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Bytes> {
        if len == 0 {
            fill(&mut []);
            return Ok(Bytes::from(Vec::new()));
        }
        let mut buffer = MmapOptions::new().len(len).map_anon()?;
        // Fewer page faults while gigabytes are filled. Advice only.
        #[cfg(target_os = "linux")]
        let _ = buffer.advise(memmap2::Advice::HugePage);
        fill(&mut buffer);
        Ok(Bytes { store: Arc::new(Store::Map(buffer.make_read_only()?)), range: 0..len })
    }

    /// Tells the system that all of these bytes are about to be read, so that it reads ahead. Advice only: a kernel that
    /// refuses it still serves the pages.
    pub fn will_need(&self) {
        #[cfg(unix)]
        if let Store::Map(map) = &*self.store {
            let _ = map.advise_range(memmap2::Advice::WillNeed, self.range.start, self.range.len());
        }
    }

    /// A part of these bytes, sharing them.
    ///
    /// # Panics
    /// As slice indexing does: when `range` is decreasing or ends past `len()`.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Bytes {
        let bounds: (Bound<usize>, Bound<usize>) = (range.start_bound().cloned(), range.end_bound().cloned());
        let part = &self[bounds];
        // From lengths, not from the bounds: an excluded or missing bound is resolved by the indexing above.
        let skipped = match bounds.0 {
            Bound::Included(start) => start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let start = self.range.start + skipped;
        Bytes { store: Arc::clone(&self.store), range: start..start + part.len() }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.store.bytes()[self.range.clone()]
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(vec: Vec<u8>) -> Bytes {
        let range = 0..vec.len();
        Bytes { store: Arc::new(Store::Vec(vec)), range }
    }
}

impl std::fmt::Debug for Bytes {
    /// Says the length and the kind only: the content may be gigabytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match *self.store {
            Store::Map(_) => "mapped",
            Store::Vec(_) => "owned",
        };
        write!(f, "Bytes({} bytes, {kind})", self.range.len())
    }
}

fn regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "a directory, not a file" } else { "not a regular file" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

fn map_file(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: `len` is the length `fstat` gave for this open regular file (checked in `Bytes::open`), and the
    // mapping is read-only. That is all we can check. A mapping is a window on a file that belongs to everybody:
    // another process may truncate it, and then touching a lost page ends the process with SIGBUS; or write to it,
    // and then bytes behind a `&[u8]` change, which Rust's memory model does not allow for. No lock of ours can
    // prevent either. What we do: nothing in this workspace writes a model file in place (a new file is written
    // under another name and renamed over), readers of `gguf` re-check every length they take from the mapping,
    // so changed bytes give wrong text or wrong numbers but no access outside the mapping, and whoever cannot trust
    // the file's other users has `How::Read`. As with ripgrep's use of memory maps, this reasoning should be
    // treated as suspect.
    unsafe { MmapOptions::new().len(len).map(file) }
}

fn read_file(file: &mut File, len: usize) -> io::Result<Mmap> {
    let mut buffer = MmapOptions::new().len(len).map_anon()?;
    for chunk in buffer.chunks_mut(CHUNK_BYTES) {
        file.read_exact(chunk).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(e.kind(), format!("the file shrank below its {len} bytes while it was read"))
            }
            _ => e,
        })?;
    }
    if file.read(&mut [0])? != 0 {
        let grew = format!("the file grew past its {len} bytes while it was read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, grew));
    }
    buffer.make_read_only()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let f = tempfile::NamedTempFile::new().unwrap();
        fs::write(f.path(), content).unwrap();
        f
    }

    #[test]
    fn both_ways_give_the_file() {
        // More than a chunk, not a multiple of one.
        let content: Vec<u8> = (0..CHUNK_BYTES + 12345).map(|i| (i * 7 % 251) as u8).collect();
        let f = file(&content);
        for how in [How::Map, How::Read] {
            let bytes = Bytes::open(f.path(), how).unwrap();
            assert!(*bytes == content[..], "{how:?}");
            assert_eq!(bytes.as_ptr() as usize % 4096, 0, "{how:?}");
        }
    }

    #[test]
    fn anonymous_bytes_are_what_was_filled_in() {
        let bytes = Bytes::anonymous(10_000, |buffer| {
            assert!(buffer.iter().all(|&b| b == 0));
            buffer[9_999] = 7;
        });
        let bytes = bytes.unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[9_999], bytes.as_ptr() as usize % 4096), (10_000, 0, 7, 0));
        assert!(Bytes::anonymous(0, |_| {}).unwrap().is_empty());
        assert!(Bytes::anonymous(isize::MAX as usize, |_| {}).is_err());
    }

    #[test]
    fn an_empty_file_is_empty_bytes() {
        let f = file(b"");
        for how in [How::Map, How::Read] {
            assert!(Bytes::open(f.path(), how).unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path(), Path::new("/dev/zero")] {
            let e = Bytes::open(path, How::Map).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{e}");
        }
        let e = Bytes::open(&dir.path().join("absent"), How::Read).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_slice_outlives_what_it_was_cut_from() {
        let whole = Bytes::from((0..100).collect::<Vec<u8>>());
        let part = whole.slice(10..20);
        let inner = part.slice(5..);
        let (empty, last) = (part.slice(10..10), part.slice(..=0));
        drop((whole, part));
        assert_eq!(*inner, [15, 16, 17, 18, 19]);
        assert_eq!(*last, [10]);
        assert!(empty.is_empty());
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_slice_past_its_own_end_panics_although_the_buffer_goes_on() {
        Bytes::from(vec![0; 100]).slice(10..20).slice(0..11);
    }

    #[test]
    fn a_file_that_is_not_as_long_as_it_was_is_an_error() {
        let f = file(&[1; 100]);
        let mut open = File::open(f.path()).unwrap();
        assert_eq!(read_file(&mut open, 101).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut open = File::open(f.path()).unwrap();
        assert_eq!(read_file(&mut open, 99).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
