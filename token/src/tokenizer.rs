//! Text to token ids and back.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use huozi_quant::gguf::Meta;

use crate::bpe::{Bpe, Scratch, pieces};
use crate::error::Error;
use crate::vocabulary::{Lookup, Vocabulary, VocabularyParts};

/// What happens to control tokens spelled in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// A spelled control token becomes its id: for template text.
    Parse,
    /// A spelled control token is text like any other: for everything that a person typed. Added tokens that
    /// are text (user-defined ones) are still found.
    Plain,
}

/// Turns text into ids and ids into text. Threads share it by reference.
pub struct Tokenizer {
    vocab: Vocabulary,
    bpe: Bpe,
    controls: AddedTokens,
    user_defined: AddedTokens,
}

impl Tokenizer {
    /// From the metadata of a GGUF file.
    ///
    /// # Errors
    /// Anything in the metadata that does not make a complete BLOOM tokenizer.
    pub fn from_gguf(meta: Meta<'_>) -> Result<Self, Error> {
        Self::from_parts(&VocabularyParts::from_gguf(meta)?)
    }

    /// From the parts of a vocabulary, of a file or put together by a program.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`].
    pub fn from_parts(parts: &VocabularyParts<'_>) -> Result<Self, Error> {
        let lookup = Lookup::new(&parts.tokens)?;
        let vocab = Vocabulary::new(parts)?;
        let bpe = Bpe::new(&vocab, &lookup, &parts.merges)?;
        let controls = AddedTokens::new(&vocab, vocab.controls())?;
        let user_defined = AddedTokens::new(&vocab, vocab.user_defined())?;
        Ok(Self { vocab, bpe, controls, user_defined })
    }

    /// The vocabulary.
    #[must_use]
    pub fn vocab(&self) -> &Vocabulary {
        &self.vocab
    }

    /// The ids of `text`; no token is added before or after.
    #[must_use]
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.encode_into(text, specials, &mut ids);
        ids
    }

    /// Appends the ids of `text` to `ids`.
    pub fn encode_into(&self, text: &str, specials: Specials, ids: &mut Vec<u32>) {
        let mut scratch = Scratch::default();
        match specials {
            Specials::Plain => self.encode_plain(text, ids, &mut scratch),
            Specials::Parse => self.controls.split(text, |part| match part {
                TextPart::Token(id) => ids.push(id),
                TextPart::Text(text) => self.encode_plain(text, ids, &mut scratch),
            }),
        }
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>, scratch: &mut Scratch) {
        self.user_defined.split(text, |part| match part {
            TextPart::Token(id) => ids.push(id),
            TextPart::Text(text) => {
                for piece in pieces(text) {
                    self.bpe.encode(piece.as_bytes(), ids, scratch);
                }
            }
        });
    }

    /// Calls `f` with every control token spelled in `text` and with the text between them, in order.
    pub fn split_controls<'t>(&self, text: &'t str, f: impl FnMut(TextPart<'t>)) {
        self.controls.split(text, f);
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD. Control tokens are spelled out if
    /// `show_controls`, else skipped, as are ids outside the vocabulary.
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
pub enum TextPart<'t> {
    /// A spelled token.
    Token(u32),
    /// Text between two spelled tokens; never empty.
    Text(&'t str),
}

/// Finds added tokens in text: the leftmost match, of several there the longest.
struct AddedTokens {
    search: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl AddedTokens {
    fn new(vocab: &Vocabulary, ids: &[u32]) -> Result<Self, Error> {
        // An empty pattern would match everywhere.
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

    fn split<'t>(&self, text: &'t str, mut f: impl FnMut(TextPart<'t>)) {
        let mut at = 0;
        if let Some(search) = &self.search {
            for found in search.find_iter(text) {
                if at < found.start() {
                    f(TextPart::Text(&text[at..found.start()]));
                }
                f(TextPart::Token(self.ids[found.pattern().as_usize()]));
                at = found.end();
            }
        }
        if at < text.len() {
            f(TextPart::Text(&text[at..]));
        }
    }
}
