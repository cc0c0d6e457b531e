//! The part of the state that holds the message at the bottom of the screen.

use super::text::one_line;
use std::time::{Duration, Instant};

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It is nice to know.
    Note,
    /// Something did not work.
    Error,
}

/// A message that is shown for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Flash {
    text: String,
    tone: Tone,
    until: Instant,
}

impl Flash {
    /// What it says.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How much it matters.
    pub fn tone(&self) -> Tone {
        self.tone
    }
}

/// The part.
#[derive(Default)]
pub struct Messages {
    flash: Option<Flash>,
}

impl Messages {
    /// The message that is shown.
    pub fn current(&self) -> Option<&Flash> {
        self.flash.as_ref()
    }

    /// Shows a note, as long as it takes to read it.
    pub fn note(&mut self, text: impl Into<String>, now: Instant) {
        self.show(text.into(), Tone::Note, now);
    }

    /// Shows an error, as long as it takes to read it.
    pub fn error(&mut self, text: impl Into<String>, now: Instant) {
        self.show(text.into(), Tone::Error, now);
    }

    fn show(&mut self, text: String, tone: Tone, now: Instant) {
        let text = one_line(&text);
        let time = Duration::from_millis(3000 + 60 * text.chars().count().min(200) as u64);
        self.flash = Some(Flash { text, tone, until: now + time });
    }

    /// Shows the message until `until`, however long it is.
    pub fn keep_until(&mut self, until: Instant) {
        if let Some(flash) = &mut self.flash {
            flash.until = until;
        }
    }

    /// Takes the message away.
    pub fn clear(&mut self) {
        self.flash = None;
    }

    /// Takes the message away when its time is over.
    pub fn expire(&mut self, now: Instant) {
        if self.flash.as_ref().is_some_and(|flash| now >= flash.until) {
            self.flash = None;
        }
    }
}
