//! The file that grows while a batch runs, `OUT.partial`: locked by the process that writes it.

use super::error::OutputError;
use super::manifest::beside;
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a line of results, with its line feed.
pub(super) const MAX_LINE_BYTES: usize = 256 << 20;
/// How long a lock may take to be given back by a process that is ending, or by one that was just started and
/// holds a copy of its parent's open files until it runs its program.
const GIVEN_BACK: Duration = Duration::from_millis(200);
/// What a power failure may cost.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// Where the results of an output are until it is finished: `OUT.partial`.
#[must_use]
pub fn partial_path(out: &Path) -> PathBuf {
    beside(out, ".partial")
}

/// The open and locked file. Where it is empty it goes when it is dropped.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    /// Length of the whole lines.
    end: u64,
    synced: Instant,
}

impl Partial {
    /// Opens or creates the file of an output, without touching its content.
    pub fn open(out: &Path) -> Result<Self, OutputError> {
        let path = partial_path(out);
        let foreign = |why| OutputError::Foreign { path: path.clone(), why };
        let busy = || OutputError::Busy { out: out.to_owned(), partial: path.clone() };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        // A link would redirect the writing to a file of another program.
        options.custom_flags(OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32);
        let file = match options.open(&path) {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => {
                return Err(foreign("is a symbolic link, where the results so far would be"));
            }
            file => file.map_err(OutputError::io(&path, "create"))?,
        };
        let meta = file.metadata().map_err(OutputError::io(&path, "read"))?;
        if !meta.is_file() {
            return Err(foreign("is no regular file, where the results so far would be"));
        }
        let begun = Instant::now();
        // A file system without locks cannot do better than to go on.
        while let Err(TryLockError::WouldBlock) = file.try_lock() {
            if begun.elapsed() > GIVEN_BACK {
                return Err(busy());
            }
            std::thread::sleep(GIVEN_BACK / 20);
        }
        // The process that held the lock a moment ago may have finished and removed the file opened here.
        let named = fs::symlink_metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == (meta.dev(), meta.ino()));
        if !named {
            return Err(busy());
        }
        let end = file.metadata().map_err(OutputError::io(&path, "read"))?.len();
        Ok(Self { path, file, end, synced: Instant::now() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Drops the content.
    pub fn clear(&mut self) -> Result<(), OutputError> {
        self.truncate(0)
    }

    /// Appends a line and gives where it begins. After an error the file is as before.
    pub fn append(&mut self, line: &[u8]) -> Result<u64, OutputError> {
        let begin = self.end;
        if let Err(source) = self.file.write_all_at(line, begin) {
            // What is left of it would be cut as a torn line in any case.
            let _ = self.file.set_len(begin);
            return Err(OutputError::Io { path: self.path.clone(), action: "write", source });
        }
        self.end += line.len() as u64;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(begin)
    }

    /// Brings what is written onto the disk.
    pub fn sync(&mut self) -> Result<(), OutputError> {
        self.file.sync_data().map_err(OutputError::io(&self.path, "write"))?;
        self.synced = Instant::now();
        Ok(())
    }

    /// Calls `each` with the number, the place and the bytes of every whole line, and cuts a torn one at the
    /// end.
    pub fn take_up(
        &mut self,
        mut each: impl FnMut(u64, u64, &[u8]) -> Result<(), OutputError>,
    ) -> Result<(), OutputError> {
        let mut end = 0;
        for_each_line(&self.path, self.reader()?, |number, line| {
            if line.ends_with(b"\n") {
                each(number, end, line)?;
                end += line.len() as u64;
            }
            Ok(())
        })?;
        if end < self.end { self.truncate(end) } else { Ok(()) }
    }

    /// A second reader of the file, from its beginning.
    pub fn reader(&self) -> Result<BufReader<File>, OutputError> {
        let mut file = self.file.try_clone().map_err(OutputError::io(&self.path, "open"))?;
        file.rewind().map_err(OutputError::io(&self.path, "read"))?;
        Ok(BufReader::with_capacity(1 << 18, file))
    }

    /// Removes the file.
    pub fn remove(mut self) -> Result<(), OutputError> {
        self.end = 0;
        fs::remove_file(&self.path).map_err(OutputError::io(&self.path, "remove"))
    }

    fn truncate(&mut self, end: u64) -> Result<(), OutputError> {
        self.file.set_len(end).map_err(OutputError::io(&self.path, "write"))?;
        self.end = end;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|meta| meta.len() == 0 && meta.nlink() > 0) {
            // Locked, so still ours; what cannot be removed does no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Calls `each` with the number and the bytes of every line, the line feed included.
pub(super) fn for_each_line(
    path: &Path,
    mut reader: impl BufRead,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    let mut line = Vec::new();
    for number in 1.. {
        read_line(path, &mut reader, number, &mut line)?;
        if line.is_empty() {
            break;
        }
        each(number, &line)?;
    }
    Ok(())
}

/// Reads the next line into `line`, the line feed included; nothing at the end.
pub(super) fn read_line(
    path: &Path,
    reader: &mut impl BufRead,
    number: u64,
    line: &mut Vec<u8>,
) -> Result<(), OutputError> {
    line.clear();
    let limit = MAX_LINE_BYTES as u64 + 1;
    let read = reader.by_ref().take(limit).read_until(b'\n', line);
    read.map_err(OutputError::io(path, "read"))?;
    if line.len() > MAX_LINE_BYTES {
        let why = format!("it has more than {} MiB: no line of results", MAX_LINE_BYTES >> 20);
        return Err(OutputError::Line { path: path.to_owned(), line: number, why });
    }
    Ok(())
}

/// What a line of results is about.
pub(super) struct LineHead {
    /// `custom_id`.
    pub id: String,
    /// Whether it is an error line.
    pub failed: bool,
}

/// Reads a line of results as far as it says whose it is.
pub(super) fn head(path: &Path, number: u64, line: &[u8]) -> Result<LineHead, OutputError> {
    #[derive(Deserialize)]
    struct Line {
        custom_id: String,
        response: Option<IgnoredAny>,
        error: Option<IgnoredAny>,
    }
    let bad = |why: String| OutputError::Line { path: path.to_owned(), line: number, why };
    let bad = |why: &str| bad(format!("no line of results: {why}; remove the line, or use --restart"));
    let line: Line = serde_json::from_slice(line).map_err(|e| bad(&e.to_string()))?;
    if line.response.is_some() == line.error.is_some() {
        return Err(bad("it must have either a response or an error"));
    }
    Ok(LineHead { id: line.custom_id, failed: line.error.is_some() })
}

/// Reads from a place, with what is buffered where it lies there.
pub(super) fn seek(reader: &mut BufReader<File>, at: &mut u64, to: u64) -> io::Result<()> {
    reader.seek_relative(to as i64 - *at as i64)?;
    *at = to;
    Ok(())
}
