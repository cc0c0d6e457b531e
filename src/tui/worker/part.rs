//! What of an answer is written next.

use crate::session::Event;
use crate::session::store::Writer;
use crate::tui::failure::Failure;
use std::time::{Duration, Instant};

/// A piece of an answer is written when the last is this old.
const PART: Duration = Duration::from_millis(500);

/// What was generated and is not on disk yet.
pub(super) struct Part {
    text: String,
    ids: Vec<u32>,
    since: Instant,
}

impl Part {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self { text: String::new(), ids: Vec::new(), since: Instant::now() }
    }

    /// Whether it has waited long enough.
    pub(super) fn is_due(&self) -> bool {
        self.since.elapsed() >= PART
    }

    /// Takes what is generated; whether the ids are those of the text. The text of an id comes after it.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Token(id) => self.ids.push(*id),
            Event::Text(text) => self.text.push_str(text),
            _ => {}
        }
        matches!(event, Event::Text(_))
    }

    /// Writes it; why that failed.
    pub(super) fn write(&mut self, writer: Option<&mut Writer>) -> Option<Failure> {
        self.since = Instant::now();
        if self.ids.is_empty() {
            return None;
        }
        let (text, ids) = (std::mem::take(&mut self.text), std::mem::take(&mut self.ids));
        writer?.part(&text, &ids).err().map(Failure::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_with_their_text() {
        let mut part = Part::new();
        // Two ids make one character.
        assert!(!part.take(&Event::Token(7)));
        assert!(!part.take(&Event::Token(8)));
        assert!(!part.take(&Event::Prompt { done: 1, total: 1 }));
        assert!(part.take(&Event::Text("春".into())));
        assert!(!part.take(&Event::Token(9)), "its text is not there yet");
        assert_eq!((part.text.as_str(), &part.ids[..]), ("春", &[7, 8, 9][..]));
    }
}
