//! Ids in, whole characters out, up to a stop string.
//!
//! What a front end shows of an answer while it is generated. A character may be several tokens, and a stop
//! string may begin in one token and end in another: text that could still become either is held back until
//! it is decided.

use crate::decode_stream::DecodeStream;
use crate::vocabulary::Vocabulary;

/// The text of a sequence of ids, given out as soon as it is certain.
///
/// The pieces put together are the same for every way to cut the ids into calls, with these rules: control
/// tokens have no text; bytes that are not UTF-8 become U+FFFD as in [`DecodeStream`]; the text ends before
/// the stop string whose last character comes first, and where several end there, before the longest.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    decode: DecodeStream,
    stops: Vec<String>,
    /// The end of the text so far that a stop string could begin with; shorter than the longest of them.
    held: String,
    /// The stop string that ended the text, an index into `stops`.
    stopped: Option<usize>,
}

impl TextStream {
    /// Ends before the first of `stops`; empty ones are ignored.
    #[must_use]
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, ..Self::default() }
    }

    /// Takes the next id of a vocabulary; gives the text that is certain now. After a stop string there is
    /// none.
    pub fn push(&mut self, id: u32, vocab: &Vocabulary) -> String {
        self.push_bytes(if vocab.kind(id).is_control() { &[] } else { vocab.bytes(id) })
    }

    /// [`Self::push`] of the bytes of a token.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        let text = self.decode.push(bytes);
        self.take(&text)
    }

    /// The end of the ids: what was held back, unless a stop string ended the text.
    pub fn finish(&mut self) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        let rest = self.decode.finish();
        let mut text = self.take(&rest);
        text.push_str(&std::mem::take(&mut self.held));
        text
    }

    /// The stop string that ended the text.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|stop| self.stops[stop].as_str())
    }

    /// Adds whole characters to what is held back; gives what can be no part of a stop string.
    fn take(&mut self, text: &str) -> String {
        if self.stops.is_empty() {
            return text.to_owned();
        }
        let mut all = std::mem::take(&mut self.held);
        for c in text.chars() {
            all.push(c);
            let ends = (0..self.stops.len()).filter(|&stop| all.ends_with(&self.stops[stop]));
            if let Some(stop) = ends.max_by_key(|&stop| self.stops[stop].len()) {
                all.truncate(all.len() - self.stops[stop].len());
                self.stopped = Some(stop);
                self.decode = DecodeStream::new();
                return all;
            }
        }
        let begins = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let certain = all.char_indices().map(|(at, _)| at).find(|&at| begins(&all[at..]));
        self.held = all.split_off(certain.unwrap_or(all.len()));
        all
    }
}
