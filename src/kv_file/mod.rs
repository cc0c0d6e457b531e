//! Keys and values of sequences in files: a head, then a record for every block of 64 positions. Every record
//! has a hash. [`prompt`] keeps the prefix of prompts in such files, `session::kv_cache` conversations.
//!
//! | bytes | head |
//! |---|---|
//! | 8 | magic and version |
//! | 8 | exchanges that are no longer part of a conversation's prompt, 0 for a prefix |
//! | 4 | length of the text that follows |
//! | | lines `NAME: VALUE`: the model's fingerprint, what the bytes mean (`engine::KvState`) |
//!
//! | bytes | record |
//! |---|---|
//! | 4, 4 | positions, and how many of them were given |
//! | 4 | 1 where it is certain that each was computed in its own phase, else 0 |
//! | 4 x 64 | their ids |
//! | as the layout says | keys and values |
//! | 32 | SHA-256 of the record's number (8 bytes) and all before |
//!
//! Numbers are little-endian. These files can be deleted at any time.

pub mod prompt;

use crate::schedule::KvBlock;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = *b"HUOZIKV2";
/// Bytes of the head before its text.
const HEAD_START: usize = 20;
/// Positions of a record.
pub const BLOCK: usize = 64;
/// Bytes of a record before its keys and values.
const RECORD_HEAD: usize = 12 + 4 * BLOCK;
/// Bytes of the hash at its end.
const HASH: usize = 32;

/// The text of a head: lines `NAME: VALUE`.
pub fn head_text(fingerprint: &str, layout: &str) -> String {
    format!("model: {fingerprint}\n{layout}")
}

/// Bytes of a head with `text`.
pub fn head_bytes(text: &str) -> u64 {
    (HEAD_START + text.len()) as u64
}

/// A head.
pub fn head(dropped: u64, text: &str) -> Vec<u8> {
    let len = text.len() as u32;
    [&MAGIC[..], &dropped.to_le_bytes(), &len.to_le_bytes(), text.as_bytes()].concat()
}

/// The exchanges that a head with exactly `text` says are dropped; `None` for any other head.
pub fn dropped(head_read: &[u8], text: &str) -> Option<u64> {
    let number = u64::from_le_bytes(head_read.get(8..16)?.try_into().ok()?);
    (head_read == head(number, text)).then_some(number)
}

/// Bytes of a record whose keys and values are `block` bytes.
pub fn record_bytes(block: usize) -> u64 {
    (RECORD_HEAD + HASH) as u64 + block as u64
}

fn digest(number: u64, head: &[u8], block: &[u8]) -> [u8; HASH] {
    Sha256::new().chain_update(number.to_le_bytes()).chain_update(head).chain_update(block).finalize().into()
}

/// Writes record `number`.
///
/// # Errors
/// Those of `to`.
pub fn write_record(to: &mut impl Write, number: u64, block: &KvBlock) -> io::Result<()> {
    let KvBlock { ids, given, certain, bytes } = block;
    let mut head = Vec::with_capacity(RECORD_HEAD);
    for number in [ids.len() as u32, *given as u32, u32::from(*certain)].iter().chain(ids) {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.resize(RECORD_HEAD, 0);
    to.write_all(&head)?;
    to.write_all(bytes)?;
    to.write_all(&digest(number, &head, bytes))
}

/// Record `number`, whose keys and values are `bytes` bytes; `None` at the end of the file and for a bad
/// record.
///
/// # Errors
/// Those of `from`.
pub fn read_record(from: &mut impl Read, number: u64, bytes: usize) -> io::Result<Option<KvBlock>> {
    let mut head = [0; RECORD_HEAD];
    let mut hash = [0; HASH];
    let mut block = vec![0; bytes];
    for part in [&mut head[..], &mut block, &mut hash] {
        match from.read_exact(part) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
    }
    let mut numbers = head.as_chunks::<4>().0.iter().map(|x| u32::from_le_bytes(*x));
    let mut next = || numbers.next().unwrap_or(0) as usize;
    let (n, given, certain) = (next(), next(), next() == 1);
    if digest(number, &head, &block) != hash || n == 0 || n > BLOCK || given > n {
        return Ok(None);
    }
    Ok(Some(KvBlock { ids: numbers.take(n).collect(), given, certain, bytes: block }))
}
