//! Added tokens in text.
//!
//! In: text. Out: the added tokens spelled in it and the text between them. As in the `tokenizers` crate
//! there are two passes, each taking the leftmost match and of several there the longest: first the tokens
//! that are not normalized, then the others in what is left.

use std::collections::HashSet;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use crate::error::Error;
use crate::vocabulary::{TokenKind, Vocabulary};

/// A part of a text that was split at added tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPart<'t> {
    /// A spelled token.
    Token(u32),
    /// Text between two spelled tokens; never empty.
    Text(&'t str),
}

/// Finds added tokens.
pub(crate) struct AddedTokens {
    passes: [Pass; 2],
}

impl AddedTokens {
    /// `normalized`: the tokens of the second pass; `None`: those that are text, as nearly all files have it.
    pub(crate) fn new(vocab: &Vocabulary, normalized: Option<&[i64]>) -> Result<Self, Error> {
        let normalized: Option<HashSet<i64>> = normalized.map(|ids| ids.iter().copied().collect());
        let second = |id: u32| match &normalized {
            Some(ids) => ids.contains(&i64::from(id)),
            None => vocab.kind(id) == TokenKind::UserDefined,
        };
        let all = vocab.controls().iter().chain(vocab.user_defined()).copied();
        let (second, first): (Vec<u32>, Vec<u32>) = all.partition(|&id| second(id));
        Ok(Self { passes: [Pass::new(vocab, &first)?, Pass::new(vocab, &second)?] })
    }

    /// Calls `f` with every added token spelled in `text` and with the text between them, in order. Control
    /// tokens only if `controls`; else they are text, in which tokens of the same pass are not looked for.
    pub(crate) fn split<'t>(&self, text: &'t str, controls: bool, f: &mut dyn FnMut(TextPart<'t>)) {
        let [first, second] = &self.passes;
        first.split(text, controls, &mut |part| match part {
            TextPart::Token(_) => f(part),
            TextPart::Text(text) => second.split(text, controls, f),
        });
    }
}

/// A longer token takes seconds to prepare the search for, and no text has it.
const MAX_BYTES: usize = 4096;

struct Pass {
    search: Option<AhoCorasick>,
    /// The id of each pattern, and whether it is a control token.
    ids: Vec<(u32, bool)>,
    only_controls: bool,
}

impl Pass {
    fn new(vocab: &Vocabulary, ids: &[u32]) -> Result<Self, Error> {
        // An empty pattern would match everywhere.
        let ids = ids.iter().filter(|&&id| !vocab.bytes(id).is_empty());
        let ids: Vec<(u32, bool)> = ids.map(|&id| (id, vocab.kind(id).is_control())).collect();
        if let Some(&(id, _)) = ids.iter().find(|&&(id, _)| vocab.bytes(id).len() > MAX_BYTES) {
            return Err(Error::AddedLength { id, bytes: vocab.bytes(id).len(), most: MAX_BYTES });
        }
        let search = if ids.is_empty() {
            None
        } else {
            let mut builder = AhoCorasickBuilder::new();
            builder.match_kind(MatchKind::LeftmostLongest);
            Some(builder.build(ids.iter().map(|&(id, _)| vocab.bytes(id)))?)
        };
        let only_controls = ids.iter().all(|&(_, control)| control);
        Ok(Self { search, ids, only_controls })
    }

    fn split<'t>(&self, text: &'t str, controls: bool, f: &mut dyn FnMut(TextPart<'t>)) {
        let mut at = 0;
        if let Some(search) = self.search.as_ref().filter(|_| controls || !self.only_controls) {
            for found in search.find_iter(text) {
                let (id, control) = self.ids[found.pattern().as_usize()];
                if control && !controls {
                    continue;
                }
                if at < found.start() {
                    f(TextPart::Text(&text[at..found.start()]));
                }
                f(TextPart::Token(id));
                at = found.end();
            }
        }
        if at < text.len() {
            f(TextPart::Text(&text[at..]));
        }
    }
}
