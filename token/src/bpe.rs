//! Byte-level BPE: a piece of text to ids.
//!
//! In: text. Out: ids. Knows nothing of added tokens; [`crate::Tokenizer`] finds those first.
//!
//! Text is first cut by BLOOM's pattern `` ?[^(\s|[.,!?…。，、।۔،])]+`` (every match is a piece,
//! and so is every stretch between two matches). The class inside is nested: it holds everything
//! but `(`, `)`, `|`, white space and the listed punctuation. Then each piece becomes one token
//! per byte, and neighbours are merged, the strongest merge first, the leftmost of equal ones.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::error::Error;
use crate::vocabulary::{Alphabet, Lookup, Vocabulary};

/// The merges of a vocabulary.
pub struct Bpe {
    /// The token of each byte alone; [`NO_TOKEN`] for bytes that no UTF-8 text holds.
    bytes: [u32; 256],
    /// (left, right) -> (rank, merged).
    merges: HashMap<(u32, u32), (u32, u32)>,
}

const NO_TOKEN: u32 = u32::MAX;

impl Bpe {
    /// A merge into a control token is left out: text must never become one, even if the file
    /// says so. A merge listed twice has its later rank, as in the `tokenizers` crate.
    ///
    /// # Errors
    /// A merge that names tokens which do not exist; a byte without a token.
    pub(crate) fn new(vocab: &Vocabulary, lookup: &Lookup<'_, '_>, merges: &[&str]) -> Result<Self, Error> {
        let mut bytes = [NO_TOKEN; 256];
        for (byte, c) in (0..=255u8).zip(Alphabet::new().chars) {
            let id = lookup.id(c.encode_utf8(&mut [0; 4]).as_bytes());
            // A control token may happen to be spelled with one character.
            match id.filter(|&id| !vocab.kind(id).is_control()) {
                Some(id) => bytes[usize::from(byte)] = id,
                // These never occur in UTF-8.
                None if matches!(byte, 0xC0 | 0xC1 | 0xF5..=0xFF) => {}
                None => return Err(Error::NoByte { byte }),
            }
        }
        let mut map = HashMap::with_capacity(merges.len());
        let mut whole = Vec::new();
        let mut next = 0;
        for (index, &merge) in merges.iter().enumerate() {
            let bad = || Error::BadMerge { index, merge: merge.to_owned() };
            let (left, right) = merge.split_once(' ').ok_or_else(bad)?;
            if left.is_empty() || right.is_empty() || right.contains(' ') {
                return Err(bad());
            }
            whole.clear();
            whole.extend_from_slice(left.as_bytes());
            whole.extend_from_slice(right.as_bytes());
            let missing = |text: &[u8]| Error::MergeToken {
                index,
                merge: merge.to_owned(),
                token: String::from_utf8_lossy(text).into_owned(),
            };
            let find = |text: &[u8]| lookup.id(text).ok_or_else(|| missing(text));
            let pair = (find(left.as_bytes())?, find(right.as_bytes())?);
            // Trainers number tokens in the order of their merges.
            let merged = lookup.id_near(&whole, next).ok_or_else(|| missing(&whole))?;
            next = merged.wrapping_add(1);
            let rank = u32::try_from(index).map_err(|_| Error::Size { n: merges.len() })?;
            if !vocab.kind(merged).is_control() {
                map.insert(pair, (rank, merged));
            }
        }
        Ok(Self { bytes, merges: map })
    }

    /// Appends the ids of one piece, in O(n log n).
    pub(crate) fn encode(&self, piece: &[u8], ids: &mut Vec<u32>, scratch: &mut Scratch) {
        let Scratch { symbols, heap } = scratch;
        symbols.clear();
        heap.clear();
        // 0xC0 and the like cannot come out of a `str`, so every byte has a token.
        symbols.extend(piece.iter().enumerate().map(|(i, &byte)| Symbol {
            id: self.bytes[usize::from(byte)],
            before: i.wrapping_sub(1),
            after: i + 1,
        }));
        let n = symbols.len();
        for at in 1..n {
            self.offer(symbols, at - 1, at, heap);
        }
        while let Some(Reverse((_, at, merged))) = heap.pop() {
            let Symbol { id, before, after } = symbols[at];
            if id == GONE || after >= n {
                continue;
            }
            // The entry is stale when its pair has changed. Only what the pair merges *into* is
            // compared, as in the `tokenizers` crate: a changed pair with the same result is
            // merged at the rank of the old one.
            match self.merges.get(&(id, symbols[after].id)) {
                Some(&(_, now)) if now == merged => {}
                _ => continue,
            }
            let beyond = symbols[after].after;
            symbols[after].id = GONE;
            symbols[at].id = merged;
            symbols[at].after = beyond;
            if beyond < n {
                symbols[beyond].before = at;
                self.offer(symbols, at, beyond, heap);
            }
            if before < n {
                self.offer(symbols, before, at, heap);
            }
        }
        ids.extend(symbols.iter().map(|s| s.id).filter(|&id| id != GONE));
    }

    fn offer(&self, symbols: &[Symbol], left: usize, right: usize, heap: &mut Heap) {
        if let Some(&(rank, merged)) = self.merges.get(&(symbols[left].id, symbols[right].id)) {
            heap.push(Reverse((rank, left, merged)));
        }
    }
}

/// A symbol that was merged into the one before it.
const GONE: u32 = u32::MAX;

/// One token of a piece: a link of a list that lies in an array.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    /// Its neighbours; outside the array at the ends.
    before: usize,
    after: usize,
}

/// Possible merges: (rank, left symbol, merged id), the smallest first.
type Heap = BinaryHeap<Reverse<(u32, usize, u32)>>;

/// Memory kept from piece to piece.
#[derive(Default)]
pub(crate) struct Scratch {
    symbols: Vec<Symbol>,
    heap: Heap,
}

/// Whether a character may be part of a word of BLOOM's pattern.
fn in_word(c: char) -> bool {
    !matches!(c, '(' | ')' | '|' | '.' | ',' | '!' | '?' | '…' | '。' | '，' | '、' | '।' | '۔' | '،')
        && !c.is_whitespace()
}

/// The pieces of a text: words with at most one space in front, and what lies between words.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match word(rest) {
            Some(end) => end,
            // Not a word: up to the first place where one begins.
            None => {
                rest.char_indices().map(|(i, _)| i).find(|&i| word_begins(&rest[i..])).unwrap_or(rest.len())
            }
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

fn word_begins(text: &str) -> bool {
    text.strip_prefix(' ').unwrap_or(text).starts_with(in_word)
}

/// Length of the word that `text` begins with.
fn word(text: &str) -> Option<usize> {
    if !word_begins(text) {
        return None;
    }
    let space = usize::from(text.starts_with(' '));
    let inside = &text[space..];
    Some(space + inside.find(|c| !in_word(c)).unwrap_or(inside.len()))
}
