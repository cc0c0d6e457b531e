//! The bytes of a file, mapped or read, shared and cheap to clone.
//!
//! A path comes in; a [`Bytes`] goes out. Knows nothing of what the bytes mean.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::{Bound, ControlFlow, Deref, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Pages that are sampled to tell whether a file is in memory.
const PROBES: usize = 256;

/// Longer than a page takes that is in memory (under 5 microseconds), less than any disk takes.
const SLOW: Duration = Duration::from_micros(25);

/// No system we run on has smaller pages.
const PAGE_BYTES: usize = 4096;

enum Store {
    /// Kept open, to ask for its length.
    File(Mmap, File),
    Map(Mmap),
    Vec(Vec<u8>),
}

impl Store {
    fn bytes(&self) -> &[u8] {
        match self {
            Store::File(map, _) | Store::Map(map) => map,
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
    /// The error of opening, mapping or reading; `InvalidInput` for what is not a regular file (a mapped
    /// device or pipe has no length to hold on to); `FileTooLarge` when the address space is too small; with
    /// [`How::Read`], `UnexpectedEof` or `InvalidData` when the file shrinks or grows meanwhile.
    pub fn open(path: &Path, how: How) -> io::Result<Bytes> {
        Self::open_watched(path, how, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Self::open`], and with [`How::Read`] `on(bytes read so far)` after each piece,
    /// which may stop the reading.
    ///
    /// # Errors
    /// As [`Self::open`]; `Interrupted` where `on` gives [`ControlFlow::Break`].
    pub fn open_watched(
        path: &Path,
        how: How,
        on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> io::Result<Bytes> {
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
        let store = match how {
            How::Map => Store::File(map_file(&file, len)?, file),
            How::Read => Store::Map(read_file(&mut file, len, on)?),
        };
        Ok(Bytes { store: Arc::new(store), range: 0..len })
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

    /// Brings these bytes in from the file, front to back, `on(bytes so far)` after each piece: what a cold
    /// file costs is paid here, with progress and a cancel flag, and not by the first token. Gives back
    /// at once where they are in memory already.
    pub fn page_in(&self, on: &mut dyn FnMut(u64) -> ControlFlow<()>) {
        if self.seems_cold() {
            self.fetch(on);
        }
    }

    fn fetch(&self, on: &mut dyn FnMut(u64) -> ControlFlow<()>) {
        let mut done = 0;
        self.will_need(0..CHUNK_BYTES);
        for chunk in self.chunks(CHUNK_BYTES) {
            // The disk works on the next piece while this one is waited for.
            self.will_need(done + CHUNK_BYTES..done + 2 * CHUNK_BYTES);
            for page in chunk.chunks(PAGE_BYTES) {
                std::hint::black_box(page[0]);
            }
            done += chunk.len();
            if on(done as u64).is_break() {
                return;
            }
        }
    }

    /// Whether bytes here and there had to be fetched: more than a few took longer than memory ever does.
    fn seems_cold(&self) -> bool {
        let slow = (0..PROBES).filter(|i| {
            let start = Instant::now();
            std::hint::black_box(self.get(self.len() / PROBES * i));
            start.elapsed() > SLOW
        });
        slow.count() > PROBES / 64
    }

    /// Tells the system that a part of these bytes is about to be read, what lies past their end aside.
    /// Advice only: a kernel that refuses it still serves the pages.
    fn will_need(&self, part: Range<usize>) {
        #[cfg(unix)]
        if let Store::File(map, _) | Store::Map(map) = &*self.store {
            let (start, end) = (part.start.min(self.len()), part.end.min(self.len()));
            let _ = map.advise_range(memmap2::Advice::WillNeed, self.range.start + start, end - start);
        }
    }

    /// Keeps the whole mapping or buffer in memory until its last range is dropped: no page of it is dropped
    /// or swapped.
    ///
    /// # Errors
    /// What `mlock` says, mostly that the process may not lock so much; `Unsupported` for bytes that were
    /// allocated elsewhere.
    pub fn lock(&self) -> io::Result<()> {
        match &*self.store {
            #[cfg(unix)]
            Store::File(map, _) | Store::Map(map) => map.lock(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether a mapped file still is as long as the mapping: a page past its end could only end the process.
    /// Checks the length now; it may change later. Bytes that are no mapped file are always complete.
    ///
    /// # Errors
    /// `UnexpectedEof` when it is shorter, what the system says when it does not tell.
    pub fn check_length(&self) -> io::Result<()> {
        let Store::File(map, file) = &*self.store else { return Ok(()) };
        let (len, was) = (file.metadata()?.len(), map.len());
        if len < was as u64 {
            let what = format!("the file was shortened from {was} to {len} bytes while it was in use");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        Ok(())
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
            Store::File(..) | Store::Map(_) => "mapped",
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
    // mapping is read-only. That is all we can check. A mapping is a window on a file that belongs to
    // everybody: another process may truncate it, and then touching a lost page ends the process with SIGBUS;
    // or write to it, and then bytes behind a `&[u8]` change, which Rust's memory model does not allow for.
    // No lock of ours can prevent either. What we do: nothing in this workspace writes a model file in place
    // (a new file is written under another name and renamed over), readers of `gguf` re-check every length
    // they take from the mapping, so changed bytes give wrong text or wrong numbers but no access outside the
    // mapping, `Bytes::check_length` finds a file that was shortened between two steps, and a program that
    // cannot trust the file's other users has `How::Read`. As with ripgrep's use of memory maps, this
    // reasoning should be treated as suspect.
    unsafe { MmapOptions::new().len(len).map(file) }
}

fn read_file(file: &mut File, len: usize, on: &mut dyn FnMut(u64) -> ControlFlow<()>) -> io::Result<Mmap> {
    let mut buffer = MmapOptions::new().len(len).map_anon()?;
    let mut done = 0;
    for chunk in buffer.chunks_mut(CHUNK_BYTES) {
        file.read_exact(chunk).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(e.kind(), format!("the file shrank below its {len} bytes while it was read"))
            }
            _ => e,
        })?;
        done += chunk.len();
        if on(done as u64).is_break() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the reading of the file was stopped"));
        }
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
    fn progress_counts_every_byte_once() {
        let len = (2 * CHUNK_BYTES + 5) as u64;
        let f = file(&vec![1; len as usize]);
        let pieces = [CHUNK_BYTES as u64, 2 * CHUNK_BYTES as u64, len];
        let mut seen = Vec::new();
        let watched = Bytes::open_watched(f.path(), How::Read, &mut |n| {
            seen.push(n);
            ControlFlow::Continue(())
        });
        assert_eq!(watched.unwrap().len() as u64, len);
        assert_eq!(seen, pieces);
        seen.clear();
        let stopped = Bytes::open_watched(f.path(), How::Read, &mut |n| {
            seen.push(n);
            ControlFlow::Break(())
        });
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(seen, pieces[..1]);
        seen.clear();
        for how in [How::Map, How::Read] {
            seen.clear();
            Bytes::open(f.path(), how).unwrap().fetch(&mut |n| {
                seen.push(n);
                ControlFlow::Continue(())
            });
            assert_eq!(seen, pieces, "{how:?}");
        }
        seen.clear();
        let part = Bytes::open(f.path(), How::Map).unwrap().slice(3..CHUNK_BYTES);
        part.fetch(&mut |n| {
            seen.push(n);
            ControlFlow::Continue(())
        });
        assert_eq!(seen, [part.len() as u64]);
        seen.clear();
        Bytes::open(f.path(), How::Map).unwrap().fetch(&mut |n| {
            seen.push(n);
            ControlFlow::Break(())
        });
        assert_eq!(seen, pieces[..1], "stopped");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn locked_bytes_are_locked() {
        let locked = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let f = file(&[1; 40_000]);
        for how in [How::Map, How::Read] {
            let bytes = Bytes::open(f.path(), how).unwrap();
            bytes.lock().unwrap();
            assert!(locked() >= 40, "{how:?}");
        }
        assert_eq!(Bytes::from(vec![0]).lock().unwrap_err().kind(), io::ErrorKind::Unsupported);
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
    fn a_mapped_file_that_shrinks_is_noticed() {
        let f = file(&[1; 100]);
        let [map, read] = [How::Map, How::Read].map(|how| Bytes::open(f.path(), how).unwrap().slice(1..));
        File::options().append(true).open(f.path()).unwrap().set_len(101).unwrap();
        assert!(map.check_length().is_ok());
        File::options().append(true).open(f.path()).unwrap().set_len(99).unwrap();
        let error = map.check_length().unwrap_err();
        assert!(error.kind() == io::ErrorKind::UnexpectedEof && error.to_string().contains("100 to 99"));
        assert!(read.check_length().is_ok());
        assert!(Bytes::from(vec![1]).check_length().is_ok());
    }

    #[test]
    fn a_file_that_is_not_as_long_as_it_was_is_an_error() {
        let f = file(&[1; 100]);
        let mut open = File::open(f.path()).unwrap();
        let go_on = &mut |_| ControlFlow::Continue(());
        assert_eq!(read_file(&mut open, 101, go_on).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut open = File::open(f.path()).unwrap();
        assert_eq!(read_file(&mut open, 99, go_on).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
