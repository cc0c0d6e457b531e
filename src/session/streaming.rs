//! The ids and the text of an answer while it grows.

use super::event::Event;
use huozi_token::{TextStream, Tokenizer};

/// An answer while it grows.
#[derive(Default)]
pub(super) struct Streaming {
    pub(super) ids: Vec<u32>,
    pub(super) text: String,
    stream: TextStream,
}

impl Streaming {
    pub(super) fn push(&mut self, token: u32, tokenizer: &Tokenizer, on: &mut dyn FnMut(Event)) {
        self.ids.push(token);
        on(Event::Token(token));
        let piece = self.stream.push(token, tokenizer.vocab());
        self.give(piece, on);
    }

    pub(super) fn finish(&mut self, on: &mut dyn FnMut(Event)) {
        let piece = self.stream.finish();
        self.give(piece, on);
    }

    fn give(&mut self, piece: String, on: &mut dyn FnMut(Event)) {
        if !piece.is_empty() {
            self.text.push_str(&piece);
            on(Event::Text(piece));
        }
    }
}
