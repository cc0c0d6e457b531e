//! Keys and values of conversations on disk: a long conversation is loaded instead of being read again.
//!
//! One file a conversation, `NAME.kv`, in the form of [`crate::kv_file`]. After each answer the new blocks
//! are appended and the record of a block that was not full is written again, so that each block is written
//! about once. A file that is incomplete or damaged is used up to the first bad record. These files can be
//! deleted at any time.

use super::Session;
use super::store::{make_private_directory, open_options};
use crate::kv_file::{BLOCK, dropped, head, head_bytes, head_text, read_record, record_bytes, write_record};
use crate::schedule::RequestError;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Minimum number of positions of a conversation that is saved: fewer are read quickly.
const MIN_POSITIONS: usize = 128;
/// Bytes of the file system that are left free.
const SPARE: u64 = 1 << 30;

/// The folder with these files, and how many bytes they may take together.
#[derive(Debug)]
pub struct KvCache {
    folder: PathBuf,
    limit: u64,
    /// By conversation: what its file holds.
    known: HashMap<String, Saved>,
}

/// The ids whose keys and values are in a file, with the bits that the current session has computed or
/// loaded.
#[derive(Debug)]
struct Saved {
    ids: Vec<u32>,
    /// Length and time of the file: another process may have written it since.
    stamp: Option<(u64, SystemTime)>,
}

impl KvCache {
    /// In `folder`, which is made when something is saved; all files together take at most `limit` bytes, the
    /// oldest make room, 0 saves nothing.
    pub fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit, known: HashMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.kv"))
    }

    /// Removes what is kept of conversation `name`.
    pub fn remove(&mut self, name: &str) {
        self.known.remove(name);
        // A file that cannot be removed is removed later, when it is the oldest.
        let _ = fs::remove_file(self.path(name));
    }

    /// The session is replaced: what the new one computes need not have the bits that were saved.
    pub fn another_session(&mut self) {
        self.known.clear();
    }

    /// Gives `session`, whose turns and settings are those of conversation `name`, the keys and values that
    /// were kept for this model and KV type, if any. Gives the positions that are there now.
    ///
    /// # Errors
    /// An error of the file system; the scheduler's thread has ended.
    pub fn load(&mut self, name: &str, fingerprint: &str, session: &mut Session) -> io::Result<usize> {
        let Some(ids) = session.next_prefix() else { return Ok(0) };
        let there = session.scheduler().kept(&ids).map_err(ended)?;
        // The file may hold more than the prompt can use: what was said last was taken back.
        if self.known.get(name).is_some_and(|saved| common(&saved.ids, &ids) <= there) {
            return Ok(there);
        }
        self.known.remove(name);
        let Some((layout, bytes)) = session.scheduler().kv_layout().map_err(ended)? else { return Ok(there) };
        let path = self.path(name);
        let mut file = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(there),
            // A pipe would keep this thread waiting.
            Ok(meta) if !meta.is_file() => return Ok(there),
            _ => File::open(&path)?,
        };
        let text = head_text(fingerprint, &layout);
        let mut start = vec![0; head_bytes(&text) as usize];
        let dropped = file.read_exact(&mut start).ok().and_then(|()| dropped(&start, &text));
        let Some(dropped) = dropped else { return Ok(there) };
        let mut all = Vec::new();
        let mut seq = None;
        for number in 0.. {
            let Some(block) = read_record(&mut file, number, bytes)? else { break };
            let ids = block.ids.clone();
            let Some(to) = session.scheduler().import_block(seq, &all, block).map_err(ended)? else { break };
            all.extend(ids);
            seq = Some(to);
        }
        // The beginning of the conversation may have left the prompt before.
        session.resume_at(usize::try_from(dropped).unwrap_or(0));
        let mut there = kept(session)?;
        // That number is not covered by a hash: it is used only if the loaded blocks match the prompt with
        // it.
        if there <= all.len() / 2 {
            session.resume_at(0);
            there = kept(session)?;
        }
        self.known.insert(name.to_owned(), Saved { ids: all, stamp: stamp(&path) });
        Ok(there)
    }

    /// Saves what `session` has read of conversation `name`.
    ///
    /// `go_on` is called before every record. When it gives false the records written so far stay, and the
    /// next call continues after them.
    ///
    /// # Errors
    /// An error of the file system; `Interrupted` when `go_on` gave false. The file then has the records that
    /// were written.
    pub fn save(
        &mut self,
        name: &str,
        fingerprint: &str,
        session: &Session,
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let Some((layout, bytes)) = session.scheduler().kv_layout().map_err(ended)? else { return Ok(()) };
        let text = head_text(fingerprint, &layout);
        let (start, record) = (head_bytes(&text), record_bytes(bytes));
        let Some(ids) = session.next_prefix() else { return Ok(()) };
        let room = usize::try_from(self.limit.saturating_sub(start) / record).unwrap_or(usize::MAX);
        let n = session.scheduler().kept(&ids).map_err(ended)?.min(room.saturating_mul(BLOCK));
        if n < MIN_POSITIONS {
            return Ok(());
        }
        let (ids, path) = (Arc::<[u32]>::from(&ids[..n]), self.path(name));
        let before =
            self.known.remove(name).filter(|saved| saved.stamp.is_some() && saved.stamp == stamp(&path));
        let had = before.as_ref().map_or(&[][..], |saved| &saved.ids);
        let common = common(had, &ids);
        let first = common / BLOCK;
        let more = (n.div_ceil(BLOCK) - first) as u64 * record;
        make_private_directory(&self.folder)?;
        self.shrink(name, start + n.div_ceil(BLOCK) as u64 * record)?;
        // On a disk that is nearly full nothing more is saved.
        if (common, n) == (n, had.len()) || free(&self.folder)? < more.saturating_add(SPARE) {
            self.known.extend(before.map(|saved| (name.to_owned(), saved)));
            return Ok(());
        }
        let mut file = open_options().create(true).open(&path)?;
        file.set_len(start + first as u64 * record)?;
        file.write_all(&head(session.dropped() as u64, &text))?;
        file.seek(SeekFrom::End(0))?;
        let mut saved = ids[..first * BLOCK].to_vec();
        let result = (first..n.div_ceil(BLOCK)).try_for_each(|number| {
            if !go_on() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // The file ends before a block that is no longer in memory.
            let block = session.scheduler().export_block(ids.clone(), number).map_err(ended)?;
            let block = block.ok_or(io::ErrorKind::Interrupted)?;
            write_record(&mut file, number as u64, &block)?;
            saved.extend_from_slice(&block.ids);
            Ok(())
        });
        if result.is_err() {
            // A record that was written in part is cut.
            file.set_len(start + saved.len().div_ceil(BLOCK) as u64 * record)?;
        }
        drop(file);
        self.known.insert(name.to_owned(), Saved { ids: saved, stamp: stamp(&path) });
        result
    }

    /// Removes the oldest files until those of other conversations leave room for `bytes`.
    fn shrink(&self, name: &str, bytes: u64) -> io::Result<()> {
        let own = self.path(name);
        let mut files: Vec<_> = fs::read_dir(&self.folder)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| *path != own && path.extension().is_some_and(|e| e == "kv"))
            .filter_map(|path| {
                let meta = fs::metadata(&path).ok()?;
                Some((meta.modified().ok()?, meta.len(), path))
            })
            .collect();
        files.sort();
        let mut total = files.iter().fold(bytes, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        for (_, bytes, path) in files {
            if total <= self.limit {
                break;
            }
            fs::remove_file(path)?;
            total = total.saturating_sub(bytes);
        }
        Ok(())
    }
}

/// How many ids both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How many positions of the next prompt are in memory.
fn kept(session: &Session) -> io::Result<usize> {
    session.next_prefix().map_or(Ok(0), |ids| session.scheduler().kept(&ids).map_err(ended))
}

fn ended(error: RequestError) -> io::Error {
    io::Error::other(error)
}

/// Length and time of a file.
fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

/// Free bytes of the file system that `folder` lies on.
fn free(folder: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(folder)?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}
