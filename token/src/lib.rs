//! Text to token ids and back, chat formats, and the limits of a conversation.
//!
//! In: the vocabulary of a GGUF file, text, messages. Out: ids, and text from the bytes of ids.
//! Knows nothing of models, engines or sampling.
//!
//! The ids are those of the checkpoint's `tokenizer.json` under the `tokenizers` crate, in both
//! modes of [`Specials`]. Message text is always tokenised with [`Specials::Plain`]: it can spell
//! a control token, it can never become one.

#![forbid(unsafe_code)]

pub mod bpe;
pub mod chat;
pub mod decode_stream;
pub mod history;
mod template;
pub mod text_stream;
pub mod vocabulary;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use huozi_quant::gguf::{self, Meta};

pub use chat::{ChatError, ChatFormat, Content, Message, Role};
pub use decode_stream::DecodeStream;
pub use history::{HistoryRule, Limits, Prompt};
pub use text_stream::TextStream;
pub use vocabulary::{Kind, Parts, Vocabulary};

/// What happens to control tokens spelled in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// A spelled control token becomes its id: for template text.
    Parse,
    /// A spelled control token is text like any other: for everything a person typed. Added
    /// tokens that control nothing (user-defined ones) are still found.
    Plain,
}

/// Why a vocabulary was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The metadata could not be read.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// A key that every vocabulary needs is absent.
    #[error("the file has no `{key}`: it holds no tokenizer")]
    Missing {
        /// The metadata key.
        key: &'static str,
    },
    /// A tokenizer of another kind.
    #[error("`{key}` is \"{found}\"; this program has the tokenizer of BLOOM (\"{wanted}\") only")]
    Unsupported {
        /// The metadata key.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// Two arrays that go together differ in length.
    #[error("{tokens} tokens, but {types} token types")]
    Lengths {
        /// Entries of `tokenizer.ggml.tokens`.
        tokens: usize,
        /// Entries of `tokenizer.ggml.token_type`.
        types: usize,
    },
    /// More tokens than ids can name, or none.
    #[error("a vocabulary of {n} tokens")]
    Size {
        /// Entries of `tokenizer.ggml.tokens`.
        n: usize,
    },
    /// A token type that does not exist.
    #[error("token {id} has the unknown type {found}")]
    TokenType {
        /// The token.
        id: u32,
        /// Its entry in `tokenizer.ggml.token_type`.
        found: i64,
    },
    /// A byte token whose text is not `<0x00>` to `<0xFF>`.
    #[error("token {id} is a byte token, but its text is {text:?}")]
    ByteToken {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// Two tokens with one text.
    #[error("tokens {first} and {second} are both {text:?}")]
    Duplicate {
        /// The text.
        text: String,
        /// The smaller id.
        first: u32,
        /// The larger id.
        second: u32,
    },
    /// A merge that is not two tokens with one space between.
    #[error("merge {index} is not two tokens: {merge:?}")]
    BadMerge {
        /// Its place in `tokenizer.ggml.merges`.
        index: usize,
        /// Its text.
        merge: String,
    },
    /// A merge of, or into, something the vocabulary does not hold.
    #[error("merge {index} ({merge:?}) needs the token {token:?}, which does not exist")]
    MergeToken {
        /// Its place in `tokenizer.ggml.merges`.
        index: usize,
        /// Its text.
        merge: String,
        /// What is missing.
        token: String,
    },
    /// An id of the metadata is outside the vocabulary.
    #[error("`{key}` is {id}, but there are {n_vocab} tokens")]
    SpecialId {
        /// The metadata key.
        key: &'static str,
        /// What it says.
        id: i64,
        /// Number of tokens.
        n_vocab: usize,
    },
    /// Some text could not be tokenised at all.
    #[error("no token stands for the byte 0x{byte:02X} alone, so some text could not be written")]
    NoByte {
        /// The byte.
        byte: u8,
    },
    /// The added tokens are too many or too long to search for.
    #[error("the added tokens cannot be searched for: {0}")]
    Added(#[from] aho_corasick::BuildError),
}

/// Tokenises and detokenises. Shared by reference between threads.
pub struct Tokenizer {
    vocab: Vocabulary,
    bpe: bpe::Bpe,
    controls: Added,
    user_defined: Added,
}

impl Tokenizer {
    /// From the metadata of a GGUF file.
    ///
    /// # Errors
    /// Anything in the metadata that does not make a complete BLOOM tokenizer.
    pub fn from_gguf(meta: Meta<'_>) -> Result<Self, Error> {
        Self::from_parts(&Parts::from_gguf(meta)?)
    }

    /// From the parts of a vocabulary, wherever they come from.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`].
    pub fn from_parts(parts: &Parts<'_>) -> Result<Self, Error> {
        let lookup = vocabulary::Lookup::new(&parts.tokens)?;
        let vocab = Vocabulary::new(parts)?;
        let bpe = bpe::Bpe::new(&vocab, &lookup, &parts.merges)?;
        let controls = Added::new(&vocab, vocab.controls())?;
        let user_defined = Added::new(&vocab, vocab.user_defined())?;
        Ok(Self { vocab, bpe, controls, user_defined })
    }

    /// The vocabulary.
    #[must_use]
    pub fn vocab(&self) -> &Vocabulary {
        &self.vocab
    }

    /// The ids of `text`. Nothing is added in front or behind.
    #[must_use]
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.encode_into(text, specials, &mut ids);
        ids
    }

    /// Appends the ids of `text` to `ids`.
    pub fn encode_into(&self, text: &str, specials: Specials, ids: &mut Vec<u32>) {
        let mut scratch = bpe::Scratch::default();
        match specials {
            Specials::Plain => self.encode_plain(text, ids, &mut scratch),
            Specials::Parse => self.controls.split(text, |part| match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => self.encode_plain(text, ids, &mut scratch),
            }),
        }
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>, scratch: &mut bpe::Scratch) {
        self.user_defined.split(text, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(text) => {
                for piece in bpe::pieces(text) {
                    self.bpe.encode(piece.as_bytes(), ids, scratch);
                }
            }
        });
    }

    /// Calls `f` with every control token spelled in `text` and every stretch of text between.
    pub fn split_controls<'t>(&self, text: &'t str, f: impl FnMut(Part<'t>)) {
        self.controls.split(text, f);
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD. Control tokens are spelled out
    /// if `show_controls`, else left out. Ids outside the vocabulary stand for nothing.
    #[must_use]
    pub fn decode(&self, ids: &[u32], show_controls: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if show_controls || !self.vocab.kind(id).is_control() {
                bytes.extend_from_slice(self.vocab.bytes(id));
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        }
    }
}

/// A part of a text that was split at added tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// A spelled token.
    Token(u32),
    /// Text between two of them; never empty.
    Text(&'t str),
}

/// A set of added tokens to find in text: the leftmost, of those the longest.
struct Added {
    search: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl Added {
    fn new(vocab: &Vocabulary, ids: &[u32]) -> Result<Self, Error> {
        // An empty pattern would match everywhere and mean nothing.
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| !vocab.bytes(id).is_empty()).collect();
        let search = if ids.is_empty() {
            None
        } else {
            Some(
                AhoCorasickBuilder::new()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(ids.iter().map(|&id| vocab.bytes(id)))?,
            )
        };
        Ok(Self { search, ids })
    }

    fn split<'t>(&self, text: &'t str, mut f: impl FnMut(Part<'t>)) {
        let mut at = 0;
        if let Some(search) = &self.search {
            for found in search.find_iter(text) {
                if at < found.start() {
                    f(Part::Text(&text[at..found.start()]));
                }
                f(Part::Token(self.ids[found.pattern().as_usize()]));
                at = found.end();
            }
        }
        if at < text.len() {
            f(Part::Text(&text[at..]));
        }
    }
}
