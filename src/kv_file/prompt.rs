//! Prompt caches: the keys and values of a prefix in a file that the user names.
//!
//! A file that does not exist is made, under another name until it is whole; one that exists is never
//! changed. It is mapped, and every record is checked before the scheduler gets any. A file of another model,
//! KV type, engine or arithmetic is refused, as is a damaged one: of a cache that silently does nothing a
//! user would see only the time that it does not save.

use super::{BLOCK, HEAD_START, MAGIC, head, head_bytes, head_text, read_record, record_bytes, write_record};
use crate::schedule::{KvBlock, RequestError, SchedulerHandle};
use huozi_quant::map::{Bytes, How};
use huozi_quant::output;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of the text of a head that are looked at; ours is shorter.
const MAX_TEXT: usize = 4096;

/// Why there is no prompt cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path cannot be a file.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// The file is something else.
    #[error("{}: not a prompt cache of this version: delete it or name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was made in another way than this run would make it.
    #[error(
        "{}: was made with {name} {file}, this run has {name} {run}: delete the file to make it again, name \
         another one, or run with {name} {file}",
        path.display()
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// What differs: model, engine, arithmetic, KV type, shape.
        name: String,
        /// What it is in the file.
        file: String,
        /// What it is here.
        run: String,
    },
    /// A record is not what was written.
    #[error(
        "{}: damaged at byte {at} ({what}): delete the file, and the next run makes it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the bad record begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The engine gives no keys and values.
    #[error("a prompt cache needs the native engine: llama.cpp gives no keys and values in our form")]
    NoKeysAndValues,
    /// The keys and values of the prefix are no longer in memory.
    #[error("{}: not made: the keys and values of the prompt are no longer in memory", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The scheduler has ended, or its engine failed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A prompt cache of a model, whether its file exists or not.
#[derive(Debug)]
pub struct PromptCache {
    path: PathBuf,
    fingerprint: String,
}

/// The prefix that the file of a prompt cache holds, checked.
#[derive(Debug)]
pub struct SavedPrefix {
    file: Bytes,
    /// Where the first record begins.
    start: usize,
    /// Bytes of keys and values of a record.
    block: usize,
    ids: Vec<u32>,
}

impl PromptCache {
    /// The file `path` for the model with `fingerprint`. Only the name is looked at.
    ///
    /// # Errors
    /// A path that cannot be a regular file, or whose folder does not exist.
    pub fn at(path: &Path, fingerprint: String) -> Result<Self, Error> {
        let target = output::file(path)?;
        if target.metadata.is_none() {
            let folder = folder(&target.path);
            fs::metadata(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
        }
        Ok(Self { path: target.path, fingerprint })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }

    /// The text of the head, and bytes of a block.
    fn layout(&self, scheduler: &SchedulerHandle) -> Result<(String, usize), Error> {
        let (layout, block) = scheduler.kv_layout()?.ok_or(Error::NoKeysAndValues)?;
        Ok((head_text(&self.fingerprint, &layout), block))
    }

    /// The prefix in the file, for an engine as that of `scheduler`; `None` where there is no file.
    ///
    /// # Errors
    /// A file that is something else, of another model or engine, or damaged; what the system says.
    pub fn open(&self, scheduler: &SchedulerHandle) -> Result<Option<SavedPrefix>, Error> {
        let (text, block) = self.layout(scheduler)?;
        let file = match Bytes::open(&self.path, How::Map) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| self.io(e))?,
        };
        self.check_head(&file, &text)?;
        let (start, record) = (head_bytes(&text) as usize, record_bytes(block));
        let mut saved = SavedPrefix { file, start, block, ids: Vec::new() };
        let n_vocab = scheduler.info().n_vocab;
        let mut at = start as u64;
        let mut last = BLOCK;
        for number in 0.. {
            let damaged = |what| Error::Damaged { path: self.path.clone(), at, what };
            match saved.file.len() as u64 - at {
                0 if number > 0 => break,
                left if left < record => return Err(damaged("the file is cut off")),
                _ => {}
            }
            let read = saved.record(number).map_err(|e| self.io(e))?;
            let read = read.ok_or_else(|| damaged("the checksum of a block does not match"))?;
            let bad = |id: &u32| *id as usize >= n_vocab;
            let given = read.given == read.ids.len() && read.certain;
            if last != BLOCK || !given || read.ids.iter().any(bad) {
                return Err(damaged("a block that no prompt cache has"));
            }
            last = read.ids.len();
            saved.ids.extend(read.ids);
            at += record;
        }
        Ok(Some(saved))
    }

    /// Checks that a file begins with a head that has `text`, and finds out what differs.
    fn check_head(&self, file: &[u8], text: &str) -> Result<(), Error> {
        let foreign = || Error::Foreign { path: self.path.clone() };
        if file.starts_with(&head(0, text)) {
            return Ok(());
        }
        let (start, rest) = file.split_at_checked(HEAD_START).ok_or_else(foreign)?;
        let (len, ours) =
            (u32::from_le_bytes([start[16], start[17], start[18], start[19]]), start[..8] == MAGIC);
        let said = rest.get(..len as usize).filter(|said| ours && said.len() <= MAX_TEXT);
        let said = said.and_then(|said| std::str::from_utf8(said).ok()).ok_or_else(foreign)?;
        let lines = said.lines().zip(text.lines()).filter(|(file, run)| file != run);
        let mut differ =
            lines.filter_map(|(file, run)| Some((file.split_once(": ")?, run.split_once(": ")?)));
        match differ.next() {
            Some(((name, file), (same, run))) if name == same => {
                let [name, file, run] = [name, file, run].map(str::to_owned);
                Err(Error::Differs { path: self.path.clone(), name, file, run })
            }
            _ => Err(foreign()),
        }
    }

    /// Makes the file: the keys and values of `ids`, all given, which a request of `scheduler` has read. It
    /// has its name when it is whole.
    ///
    /// # Errors
    /// They are no longer there; what the system says.
    pub fn save(&self, scheduler: &SchedulerHandle, ids: &[u32]) -> Result<(), Error> {
        let (text, _) = self.layout(scheduler)?;
        let file = tempfile::NamedTempFile::new_in(folder(&self.path)).map_err(|e| self.io(e))?;
        let mut out = BufWriter::new(file);
        out.write_all(&head(0, &text)).map_err(|e| self.io(e))?;
        let ids = Arc::<[u32]>::from(ids);
        for (number, part) in ids.chunks(BLOCK).enumerate() {
            let block = scheduler.export_block(ids.clone(), number)?;
            let whole = |block: &KvBlock| block.ids == part && block.given == part.len() && block.certain;
            let block = block.filter(whole).ok_or_else(|| Error::Gone { path: self.path.clone() })?;
            write_record(&mut out, number as u64, &block).map_err(|e| self.io(e))?;
        }
        let file = out.into_inner().map_err(|e| self.io(e.into_error()))?;
        file.as_file().sync_all().map_err(|e| self.io(e))?;
        file.persist(&self.path).map_err(|e| self.io(e.error))?;
        Ok(())
    }
}

impl SavedPrefix {
    /// Its ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Gives `scheduler` the keys and values of the first positions, at least `positions` of them if there
    /// are so many: whole blocks. Gives how many it took; it takes fewer where its cache is too small.
    ///
    /// # Errors
    /// The file was shortened meanwhile; the scheduler has ended.
    pub fn load(&self, scheduler: &SchedulerHandle, positions: usize) -> Result<usize, RequestError> {
        let (mut seq, mut done) = (None, 0);
        let wanted = positions.min(self.ids.len());
        for number in 0..wanted.div_ceil(BLOCK) {
            // Records are checked again: the file may have been changed since.
            let intact = self.file.check_length().and_then(|()| self.record(number as u64));
            let Ok(Some(block)) = intact else { break };
            if self.ids.get(done..done + block.ids.len()) != Some(&block.ids) {
                break;
            }
            let n = block.ids.len();
            let Some(to) = scheduler.import_block(seq, &self.ids[..done], block)? else { break };
            seq = Some(to);
            done += n;
        }
        Ok(done)
    }

    fn record(&self, number: u64) -> io::Result<Option<KvBlock>> {
        let record = record_bytes(self.block);
        let at = number.checked_mul(record).and_then(|at| at.checked_add(self.start as u64));
        let rest = at.and_then(|at| self.file.get(usize::try_from(at).ok()?..));
        read_record(&mut rest.unwrap_or(&[]), number, self.block)
    }
}

/// The folder of a file.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
