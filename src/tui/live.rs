//! What the model does at the moment.

use super::worker::AskKind;
use crate::session::Turn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two speeds of the sparkline.
const RATE: Duration = Duration::from_millis(400);

/// What the model does.
#[derive(Clone, Debug)]
pub enum Busy {
    /// Nothing.
    Idle,
    /// It reads the conversation, so that the next answer begins at once.
    Warming {
        /// Tokens read, and of all.
        done: (usize, usize),
        /// Since when, and the tokens that were read then.
        since: Option<(Instant, usize)>,
        /// Ends it.
        cancel: Arc<AtomicBool>,
    },
    /// It answers.
    Answering(Box<Live>),
}

/// An answer on its way.
#[derive(Clone, Debug)]
pub struct Live {
    /// Which question.
    pub ask: AskKind,
    /// Its text.
    pub question: String,
    /// The answer so far.
    pub text: String,
    /// Tokens of it.
    pub tokens: usize,
    /// Prompt tokens read, and of all.
    pub prompt: (usize, usize),
    /// When reading began, and the tokens that were read then.
    pub reading: Option<(Instant, usize)>,
    /// Its question is on disk, if it is to be.
    pub begun: bool,
    /// It is being stopped.
    pub stopping: bool,
    /// When the first token came.
    first: Option<Instant>,
    /// When the last speed was taken, and the tokens there were.
    taken: Option<(Instant, usize)>,
    cancel: Arc<AtomicBool>,
}

impl Live {
    /// An answer that was just asked for; `cancel` ends it.
    pub fn new(ask: AskKind, question: String, cancel: Arc<AtomicBool>) -> Self {
        Self {
            ask,
            question,
            text: String::new(),
            tokens: 0,
            prompt: (0, 0),
            reading: None,
            begun: false,
            stopping: false,
            first: None,
            taken: None,
            cancel,
        }
    }

    /// How many of `turns` stand before it: it takes the place of the turn that it replaces, or of one
    /// without an answer.
    pub fn shown_before(&self, turns: &[Turn]) -> usize {
        let replaces = self.ask != AskKind::New || turns.last().is_some_and(Turn::is_empty);
        turns.len().saturating_sub(usize::from(replaces))
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Counts a token; gives the speed in tokens per second, if it is time for one.
    pub fn count(&mut self, now: Instant) -> Option<f64> {
        self.tokens += 1;
        self.first.get_or_insert(now);
        let (since, tokens) = *self.taken.get_or_insert((now, self.tokens));
        let elapsed = now.saturating_duration_since(since);
        if elapsed < RATE {
            return None;
        }
        self.taken = Some((now, self.tokens));
        Some((self.tokens - tokens) as f64 / elapsed.as_secs_f64())
    }

    /// Tokens per second from the first token on.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        let elapsed = now.saturating_duration_since(self.first?).as_secs_f64();
        (self.tokens > 1 && elapsed > 0.05).then(|| (self.tokens - 1) as f64 / elapsed)
    }
}
