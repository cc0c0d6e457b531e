//! The tokens of a model: their bytes, kinds and special ids.
//!
//! In: the parts of a vocabulary. Out: bytes per id, the masks and lists that
//! sampling and stopping need. All bytes lie in one arena; no token owns an allocation.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::error::Error;
use crate::markers;
use crate::parts::{BOS, END_IDS, EOS, EOT, PAD, SUPPRESS, UNK, VocabularyParts};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// The token for what cannot be written; handled as a control token.
    Unknown,
    /// Structure, never text: markers, begin, end, padding.
    Control,
    /// An added token that is text.
    UserDefined,
    /// A row of the model without a token.
    Unused,
    /// One byte.
    Byte,
}

impl TokenKind {
    /// Whether text must never become this token unless specials are parsed.
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// The tokens of a model.
#[derive(Debug)]
pub struct Vocabulary {
    /// Bytes of all tokens, one after the other.
    arena: Vec<u8>,
    /// Where each token begins in `arena`; one more at the end.
    starts: Vec<usize>,
    kinds: Vec<TokenKind>,
    never: Arc<[bool]>,
    controls: Vec<u32>,
    user_defined: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    unk: Option<u32>,
    pad: Option<u32>,
    /// In id order.
    stops: Vec<u32>,
    warnings: Vec<String>,
}

impl Vocabulary {
    pub(crate) fn new(parts: &VocabularyParts<'_>) -> Result<Self, Error> {
        let n = parts.tokens.len();
        if parts.types.len() != n {
            return Err(Error::Lengths { tokens: n, types: parts.types.len() });
        }
        if n == 0 || u32::try_from(n).is_err() {
            return Err(Error::Size { n });
        }
        let alphabet = Alphabet::new();
        let mut arena = Vec::with_capacity(parts.tokens.iter().map(|t| t.len()).sum());
        let mut starts = Vec::with_capacity(n + 1);
        let mut kinds = Vec::with_capacity(n);
        let mut never = vec![false; n];
        let (mut controls, mut user_defined) = (Vec::new(), Vec::new());
        for (id, (&text, &kind)) in (0..).zip(parts.tokens.iter().zip(&parts.types)) {
            let kind = match kind {
                1 => TokenKind::Normal,
                2 => TokenKind::Unknown,
                3 => TokenKind::Control,
                4 => TokenKind::UserDefined,
                5 => TokenKind::Unused,
                6 => TokenKind::Byte,
                found => return Err(Error::TokenType { id, found }),
            };
            starts.push(arena.len());
            kinds.push(kind);
            match kind {
                TokenKind::Normal => alphabet.decode(text, &mut arena),
                TokenKind::Byte => arena
                    .push(byte_token(text).ok_or_else(|| Error::ByteToken { id, text: text.to_owned() })?),
                _ => arena.extend_from_slice(text.as_bytes()),
            }
            match kind {
                TokenKind::Control | TokenKind::Unknown => controls.push(id),
                TokenKind::UserDefined => user_defined.push(id),
                TokenKind::Unused => never[id as usize] = true,
                TokenKind::Normal | TokenKind::Byte => {}
            }
        }
        starts.push(arena.len());
        for &id in &parts.suppress {
            *usize::try_from(id).ok().and_then(|i| never.get_mut(i)).ok_or(Error::SpecialId {
                key: SUPPRESS,
                id,
                n_vocab: n,
            })? = true;
        }
        let special = |key, id: Option<u64>| match id {
            None => Ok(None),
            Some(id) => match u32::try_from(id) {
                Ok(small) if (small as usize) < n => Ok(Some(small)),
                _ => {
                    let id = i64::try_from(id).unwrap_or(i64::MAX);
                    Err(Error::SpecialId { key, id, n_vocab: n })
                }
            },
        };
        let mut stops = Vec::new();
        for &id in &parts.ends {
            let outside = Error::SpecialId { key: END_IDS, id, n_vocab: n };
            stops.push(u32::try_from(id).ok().filter(|&id| (id as usize) < n).ok_or(outside)?);
        }
        let mut vocab = Self {
            arena,
            starts,
            kinds,
            never: never.into(),
            controls,
            user_defined,
            bos: special(BOS, parts.bos)?,
            eos: special(EOS, parts.eos)?,
            eot: special(EOT, parts.eot)?,
            unk: special(UNK, parts.unk)?,
            pad: special(PAD, parts.pad)?,
            stops,
            warnings: parts.warnings.clone(),
        };
        let spelled = [markers::BEGIN, markers::END, "</s>"].map(|text| vocab.control(text));
        vocab.stops.extend(spelled.into_iter().flatten().chain(vocab.eos).chain(vocab.eot));
        vocab.stops.sort_unstable();
        vocab.stops.dedup();
        Ok(vocab)
    }

    /// What was assumed about the file or ignored in it, one sentence each: for the user, once.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Number of tokens, those without a meaning included.
    #[must_use]
    pub fn n_vocab(&self) -> usize {
        self.kinds.len()
    }

    /// The bytes a token stands for: a part of text for normal ones (not always whole
    /// characters), the spelling for all others. Nothing for an id outside the vocabulary.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        if id < self.kinds.len() { &self.arena[self.starts[id]..self.starts[id + 1]] } else { &[] }
    }

    /// What a token is for; an id outside the vocabulary is unused.
    #[must_use]
    pub fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused)
    }

    /// The control token with this spelling.
    #[must_use]
    pub fn control(&self, spelling: &str) -> Option<u32> {
        self.controls.iter().copied().find(|&id| self.bytes(id) == spelling.as_bytes())
    }

    /// All control tokens (the unknown token among them), in id order.
    #[must_use]
    pub fn controls(&self) -> &[u32] {
        &self.controls
    }

    /// All added tokens that are text, in id order.
    #[must_use]
    pub fn user_defined(&self) -> &[u32] {
        &self.user_defined
    }

    /// Begin of text.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End of text.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// End of a turn.
    #[must_use]
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// The unknown token.
    #[must_use]
    pub fn unk(&self) -> Option<u32> {
        self.unk
    }

    /// Padding.
    #[must_use]
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// True for every id that must never be sampled: rows without a token, and the file's
    /// suppressed tokens. `n_vocab` long; ids beyond its end have no token either.
    #[must_use]
    pub fn never(&self) -> Arc<[bool]> {
        Arc::clone(&self.never)
    }

    /// The ids that end an answer: end of text, end of turn, the other end tokens of the file, and Huozi's
    /// two markers and `</s>` where they are control tokens. In id order, each once.
    #[must_use]
    pub fn stop_ids(&self) -> Vec<u32> {
        self.stops.clone()
    }
}

/// `<0x41>` -> 0x41. Exactly two hexadecimal digits: a sign or a third digit is hostile.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// GPT-2's alphabet: a printable character for each byte, so that a vocabulary is text. Bytes
/// that print in Latin-1 stand for themselves, the other 68 follow from U+0100 in order.
pub(crate) struct Alphabet {
    /// Byte of each character below U+0144.
    bytes: [Option<u8>; 0x144],
    /// Character of each byte.
    pub(crate) chars: [char; 256],
}

impl Alphabet {
    pub(crate) fn new() -> Self {
        let mut bytes = [None; 0x144];
        let mut chars = ['\0'; 256];
        let mut next = 0x100;
        for byte in 0..=255u8 {
            let code = if matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            bytes[code as usize] = Some(byte);
            chars[usize::from(byte)] = char::from_u32(code).unwrap_or('\0');
        }
        Self { bytes, chars }
    }

    /// Appends the bytes that `text` stands for; a text with any character outside the alphabet
    /// stands for itself, as in the `tokenizers` crate.
    fn decode(&self, text: &str, out: &mut Vec<u8>) {
        let start = out.len();
        for c in text.chars() {
            match self.bytes.get(c as usize).copied().flatten() {
                Some(byte) => out.push(byte),
                None => {
                    out.truncate(start);
                    out.extend_from_slice(text.as_bytes());
                    return;
                }
            }
        }
    }
}

/// Token text -> id while a vocabulary is built: open addressing over borrowed strings, since a
/// quarter of a million entries should cost two allocations. Hashes are keyed: the strings come
/// from outside.
pub(crate) struct Lookup<'p, 'a> {
    tokens: &'p [&'a str],
    /// (upper half of the hash, id + 1); 0 = free. A power of two long, at most half full.
    slots: Vec<(u32, u32)>,
    keys: RandomState,
}

impl<'p, 'a> Lookup<'p, 'a> {
    pub(crate) fn new(tokens: &'p [&'a str]) -> Result<Self, Error> {
        let n = tokens.len();
        if u32::try_from(n).is_err() {
            return Err(Error::Size { n });
        }
        let slots = vec![(0, 0); (2 * n).next_power_of_two().max(2)];
        let mut lookup = Self { tokens, slots, keys: RandomState::new() };
        for (id, &text) in (0u32..).zip(tokens) {
            match lookup.find(text.as_bytes()) {
                Ok(first) => {
                    return Err(Error::Duplicate { text: text.to_owned(), first, second: id });
                }
                Err((slot, tag)) => lookup.slots[slot] = (tag, id + 1),
            }
        }
        Ok(lookup)
    }

    /// The id of a token, by its text in the file.
    pub(crate) fn id(&self, text: &[u8]) -> Option<u32> {
        self.find(text).ok()
    }

    /// The same, looked up first at `guess`, where it usually is.
    pub(crate) fn id_near(&self, text: &[u8], guess: u32) -> Option<u32> {
        match self.tokens.get(guess as usize) {
            Some(t) if t.as_bytes() == text => Some(guess),
            _ => self.id(text),
        }
    }

    fn find(&self, text: &[u8]) -> Result<u32, (usize, u32)> {
        let hash = self.keys.hash_one(text);
        let tag = (hash >> 32) as u32;
        let mut slot = hash as usize & (self.slots.len() - 1);
        loop {
            match self.slots[slot] {
                (_, 0) => return Err((slot, tag)),
                (t, id) if t == tag && self.tokens[id as usize - 1].as_bytes() == text => {
                    return Ok(id - 1);
                }
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }
}
