//! An answer on its way to the disk.

use crate::session::Event;
use crate::session::store::{Conversation, Error, Writer};
use std::time::{Duration, Instant};

/// A piece of an answer is written when the last is this old.
const PART: Duration = Duration::from_millis(500);
/// What could not be written is tried again after so long.
pub(super) const AGAIN: Duration = Duration::from_secs(3);

/// The question, and what was generated.
pub(super) struct Part {
    /// What was said before.
    before: Conversation,
    question: String,
    attempt: u64,
    retry: bool,
    text: String,
    ids: Vec<u32>,
    /// Bytes of the text and ids that are on disk.
    written: (usize, usize),
    /// When the next piece is written.
    due: Instant,
}

impl Part {
    /// Nothing of the answer to `question`, which follows what was said `before`; with `retry` it is the last
    /// question once more.
    pub(super) fn new(before: Conversation, question: &str, attempt: u64, retry: bool) -> Self {
        let (question, due) = (question.to_owned(), Instant::now() + PART);
        Self { before, question, attempt, retry, text: String::new(), ids: Vec::new(), written: (0, 0), due }
    }

    /// Whether it is time to look at what is on disk.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Whether there is something to write.
    pub(super) fn is_more(&self) -> bool {
        self.ids.len() > self.written.1
    }

    /// All is on disk.
    pub(super) fn wait(&mut self) {
        self.due = Instant::now() + PART;
    }

    /// What is there is written next, however short the time was.
    pub(super) fn is_last(&mut self) {
        self.due = Instant::now();
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

    /// Writes what is new of it.
    pub(super) fn go_on(&mut self, writer: &mut Writer) -> Result<(), Error> {
        writer.part(&self.text[self.written.0..], &self.ids[self.written.1..])?;
        self.done();
        Ok(())
    }

    /// Writes all there is, the question and what was said before it first.
    pub(super) fn begin(&mut self, writer: &mut Writer) -> Result<(), Error> {
        self.due = Instant::now() + AGAIN;
        writer.begin(&self.before, &self.question, self.attempt, self.retry)?;
        if !self.ids.is_empty() {
            writer.part(&self.text, &self.ids)?;
        }
        self.done();
        Ok(())
    }

    fn done(&mut self) {
        self.written = (self.text.len(), self.ids.len());
        self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_with_their_text() {
        let mut part = Part::new(Conversation::default(), "q", 0, false);
        // Two ids make one character.
        assert!(!part.take(&Event::Token(7)));
        assert!(!part.take(&Event::Token(8)));
        assert!(!part.take(&Event::Prompt { done: 1, total: 1 }));
        assert!(part.take(&Event::Text("春".into())));
        assert!(!part.take(&Event::Token(9)), "its text is not there yet");
        assert_eq!((part.text.as_str(), &part.ids[..]), ("春", &[7, 8, 9][..]));
        assert!(!part.is_due(), "not at every token");
        part.is_last();
        assert!(part.is_due() && part.is_more());
        part.done();
        part.is_last();
        assert!(!part.is_more());
    }
}
