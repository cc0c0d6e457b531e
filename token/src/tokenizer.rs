//! Text to token ids and back.

use huozi_quant::gguf::Meta;

use crate::added::AddedTokens;
use crate::bpe::{Bpe, Scratch, pieces};
use crate::error::Error;
use crate::parts::VocabularyParts;
use crate::vocabulary::{Lookup, Vocabulary};

pub use crate::added::TextPart;

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
    added: AddedTokens,
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
        let added = AddedTokens::new(&vocab, parts.normalized.as_deref())?;
        Ok(Self { vocab, bpe, added })
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
        self.added.split(text, specials == Specials::Parse, &mut |part| match part {
            TextPart::Token(id) => ids.push(id),
            TextPart::Text(text) => {
                for piece in pieces(text) {
                    self.bpe.encode(piece.as_bytes(), ids, &mut scratch);
                }
            }
        });
    }

    /// Calls `f` with every control token spelled in `text` and with the text between them, in order.
    pub fn split_controls<'t>(&self, text: &'t str, mut f: impl FnMut(TextPart<'t>)) {
        // The text not given to `f` yet, and where the parts have come to.
        let (mut from, mut at) = (0, 0);
        self.added.split(text, true, &mut |part| match part {
            TextPart::Text(text) => at += text.len(),
            TextPart::Token(id) => {
                let begins = at;
                at += self.vocab.bytes(id).len();
                if self.vocab.kind(id).is_control() {
                    if from < begins {
                        f(TextPart::Text(&text[from..begins]));
                    }
                    f(TextPart::Token(id));
                    from = at;
                }
            }
        });
        if from < text.len() {
            f(TextPart::Text(&text[from..]));
        }
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
