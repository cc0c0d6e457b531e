//! Keys and values of conversations on disk: a long conversation goes on at once instead of being read again.
//!
//! One file a conversation, `NAME.kv`: a head, then a record for every block of 64 positions. After each answer what is
//! new is appended and the record of a block that was not full is written again, so that a file costs no more writing
//! than it is long. Every record carries a hash: a file that was torn or damaged ends before the first bad one.
//!
//! | bytes | head |
//! |---|---|
//! | 8 | magic and version |
//! | 8 | exchanges that are no longer part of the prompt |
//! | 4 | length of the text that follows |
//! | | the model's fingerprint, a line break, what the bytes mean ([`Scheduler::kv_layout`](crate::schedule::Scheduler::kv_layout)) |
//!
//! | bytes | record |
//! |---|---|
//! | 4, 4 | positions, and how many of them were given |
//! | 4 x 64 | their ids |
//! | as the layout says | keys and values |
//! | 32 | SHA-256 of the record's number (8 bytes) and all before |
//!
//! Numbers are little-endian. What is here can be dropped at any time.

use super::Session;
use super::store::{make_private_directory, open_options};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const MAGIC: [u8; 8] = *b"HUOZIKV1";
/// Bytes of the head before its text.
const HEAD: u64 = 20;
/// Positions of a record.
const BLOCK: usize = 64;
/// A conversation is kept from so many positions on: fewer are read in a moment.
const MIN_POSITIONS: usize = 128;
/// Bytes of a file system that stay free.
const SPARE: u64 = 1 << 30;

/// The folder with these files and what they may take together.
#[derive(Debug)]
pub struct KvCache {
    folder: PathBuf,
    limit: u64,
    /// By conversation: what its file holds.
    known: HashMap<String, Saved>,
}

/// The keys and values of these ids lie in a file, as the session at hand computed or loaded them.
#[derive(Debug)]
struct Saved {
    ids: Vec<u32>,
    /// Length and time of the file: another process may have written it since.
    stamp: Option<(u64, SystemTime)>,
}

impl KvCache {
    /// In `folder`, which is made when something is saved; all files together take at most `limit` bytes, the oldest
    /// make room, 0 saves nothing.
    pub fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit, known: HashMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.kv"))
    }

    /// Removes what is kept of conversation `name`.
    pub fn remove(&mut self, name: &str) {
        self.known.remove(name);
        // It is not there, or stays until it is the oldest.
        let _ = fs::remove_file(self.path(name));
    }

    /// The session at hand is another one: what it computes need not have the bits of what was saved.
    pub fn another_session(&mut self) {
        self.known.clear();
    }

    /// Gives `session`, whose turns and settings are those of conversation `name`, the keys and values that were kept
    /// for this model and KV type, if any. Gives the positions that are there now.
    ///
    /// # Errors
    /// What the system says.
    pub fn load(&mut self, name: &str, fingerprint: &str, session: &mut Session) -> io::Result<usize> {
        let Some(ids) = session.warm_ids() else { return Ok(0) };
        let there = session.scheduler.kept(&ids);
        // The file may hold more than the prompt can use: what was said last was taken back.
        if self.known.get(name).is_some_and(|saved| common(&saved.ids, &ids) <= there) {
            return Ok(there);
        }
        self.known.remove(name);
        let Some((layout, bytes)) = session.scheduler.kv_layout() else { return Ok(there) };
        let path = self.path(name);
        let mut file = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(there),
            // A pipe would keep this thread waiting.
            Ok(meta) if !meta.is_file() => return Ok(there),
            _ => File::open(&path)?,
        };
        let text = head_text(fingerprint, &layout);
        let mut head = vec![0; HEAD as usize + text.len()];
        if file.read_exact(&mut head).is_err() || head[..8] != MAGIC || head[16..] != with_length(&text) {
            return Ok(there);
        }
        let dropped = u64::from_le_bytes(head[8..16].try_into().expect("8 bytes"));
        let mut number = 0;
        let mut all = Vec::new();
        let positions = session.scheduler.import(&mut |ids, block| {
            let record = read_record(&mut file, number, bytes, ids, block)?;
            number += 1;
            all.extend_from_slice(ids);
            Ok(record)
        })?;
        all.truncate(positions);
        // The beginning of the conversation may have left the prompt before.
        let turns = session.turns.len();
        session.first = usize::try_from(dropped).unwrap_or(0).min(turns.saturating_sub(1));
        let mut there = kept(session);
        // No hash covers that number: it counts only if what was kept is of use with it.
        if there <= positions / 2 {
            session.first = 0;
            there = kept(session);
        }
        self.known.insert(name.to_owned(), Saved { ids: all, stamp: stamp(&path) });
        Ok(there)
    }

    /// Saves what `session` has read of conversation `name`.
    ///
    /// `go_on` is asked before every record: what was written until it says no stays, and the next call goes on there.
    ///
    /// # Errors
    /// What the system says, or `Interrupted` after a no; the file then ends before what was not written.
    pub fn save(
        &mut self,
        name: &str,
        fingerprint: &str,
        session: &mut Session,
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let Some((layout, bytes)) = session.scheduler.kv_layout() else { return Ok(()) };
        let text = head_text(fingerprint, &layout);
        let (start, record) = (HEAD + text.len() as u64, record_bytes(bytes));
        let Some(ids) = session.warm_ids() else { return Ok(()) };
        let room = usize::try_from(self.limit.saturating_sub(start) / record).unwrap_or(usize::MAX);
        let n = session.scheduler.kept(&ids).min(room.saturating_mul(BLOCK));
        if n < MIN_POSITIONS {
            return Ok(());
        }
        let (ids, path) = (&ids[..n], self.path(name));
        let before =
            self.known.remove(name).filter(|saved| saved.stamp.is_some() && saved.stamp == stamp(&path));
        let had = before.as_ref().map_or(&[][..], |saved| &saved.ids);
        let common = common(had, ids);
        let first = common / BLOCK;
        let more = (n.div_ceil(BLOCK) - first) as u64 * record;
        make_private_directory(&self.folder)?;
        self.shrink(name, start + n.div_ceil(BLOCK) as u64 * record)?;
        // On a disk that is nearly full a little less is kept than could be.
        if (common, n) == (n, had.len()) || free(&self.folder)? < more.saturating_add(SPARE) {
            self.known.extend(before.map(|saved| (name.to_owned(), saved)));
            return Ok(());
        }
        let mut file = open_options().create(true).open(&path)?;
        file.set_len(start + first as u64 * record)?;
        file.write_all(&MAGIC)?;
        file.write_all(&(session.first as u64).to_le_bytes())?;
        file.write_all(&with_length(&text))?;
        file.seek(SeekFrom::End(0))?;
        let mut saved = ids[..first * BLOCK].to_vec();
        let mut number = first as u64;
        let result = session.scheduler.export(ids, first, &mut |ids, given, block| {
            if !go_on() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            write_record(&mut file, number, ids, given, block)?;
            number += 1;
            saved.extend_from_slice(ids);
            Ok(())
        });
        if result.is_err() {
            // What was written in part is cut.
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

/// Ids that both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How much of what the next prompt begins with is there.
fn kept(session: &Session) -> usize {
    session.warm_ids().map_or(0, |ids| session.scheduler.kept(&ids))
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

fn head_text(fingerprint: &str, layout: &str) -> String {
    format!("{fingerprint}\n{layout}")
}

fn with_length(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn record_bytes(block: usize) -> u64 {
    (8 + 4 * BLOCK + block + 32) as u64
}

fn digest(number: u64, head: &[u8], block: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(number.to_le_bytes()).chain_update(head).chain_update(block).finalize().into()
}

fn write_record(to: &mut impl Write, number: u64, ids: &[u32], given: usize, block: &[u8]) -> io::Result<()> {
    let mut head = Vec::with_capacity(8 + 4 * BLOCK);
    head.extend_from_slice(&(ids.len() as u32).to_le_bytes());
    head.extend_from_slice(&(given as u32).to_le_bytes());
    head.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    head.resize(8 + 4 * BLOCK, 0);
    to.write_all(&head)?;
    to.write_all(block)?;
    to.write_all(&digest(number, &head, block))
}

/// How many ids of the record were given; `None` at the end, whether the file ends or its good part.
fn read_record(
    from: &mut impl Read,
    number: u64,
    bytes: usize,
    ids: &mut Vec<u32>,
    block: &mut Vec<u8>,
) -> io::Result<Option<usize>> {
    let mut head = [0; 8 + 4 * BLOCK];
    let mut hash = [0; 32];
    block.resize(bytes, 0);
    for part in [&mut head[..], block, &mut hash] {
        match from.read_exact(part) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
    }
    let mut numbers = head.as_chunks::<4>().0.iter().map(|x| u32::from_le_bytes(*x));
    let (n, given) = (numbers.next().unwrap_or(0) as usize, numbers.next().unwrap_or(0) as usize);
    if digest(number, &head, block) != hash || n == 0 || n > BLOCK || given > n {
        return Ok(None);
    }
    ids.extend(numbers.take(n));
    Ok(Some(given))
}
