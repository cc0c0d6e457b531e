//! One conversation: messages in, [`Event`]s out. What every front end talks to.
//!
//! A session is a one-sequence client of [`crate::schedule`]. It keeps its own answers as the ids that were generated
//! and builds the next prompt from these ids, so that the keys and values of everything said so far stay valid from turn
//! to turn. It knows no terminal and no flags; where conversations lie on disk is [`store`]'s affair, where models lie
//! is [`catalog`]'s.

pub mod catalog;
pub mod kv_cache;
pub mod open;
mod patched;
pub mod store;

pub use crate::engine::{EngineKind, KvType};
pub use crate::sample::{Sampling, SettingError};
pub use crate::schedule::Stop;

use crate::engine::EngineError;
use crate::schedule::{self, Refused, Request, Scheduler, Timings};
use huozi_token::history::{FittedPrompt, fit};
use huozi_token::{
    ChatError, ChatFormat, DecodeStream, HistoryRule, Message, PromptLimits, Role, TokenKind, Tokenizer,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What can be changed between two turns.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How to choose each token.
    pub sampling: Sampling,
    /// Tokens of an answer at most; what the context leaves may be less.
    pub max_new: usize,
    /// Positions of prompt and answer together.
    pub n_ctx: usize,
    /// The system text; `None` is the format's own.
    pub system: Option<String>,
    /// Which exchanges go when the prompt gets too long.
    pub history: HistoryRule,
    /// Seed of the conversation. A turn draws with a seed made of this and the number of the attempt at the turn.
    pub seed: u64,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What the person said.
    pub question: String,
    /// What the model said, as text.
    pub answer: String,
    /// The same as the ids generated, without the one that ended it. `None` when the answer came from another model:
    /// then the text is tokenised.
    pub ids: Option<Vec<u32>>,
    /// The number of the attempt, 0 for the first.
    pub attempt: u64,
    /// Why the answer ended.
    pub stop: Stop,
}

impl Turn {
    /// Whether the model said nothing at all.
    pub fn is_empty(&self) -> bool {
        self.ids.as_ref().map_or(self.answer.is_empty(), Vec::is_empty)
    }
}

/// What a turn cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// Prompt tokens read in this turn.
    pub prompt_tokens: usize,
    /// Prompt tokens that needed no reading: their keys and values were still there.
    pub reused_tokens: usize,
    /// Seconds spent reading.
    pub prompt_seconds: f64,
    /// Tokens generated, the one that ended the answer included.
    pub generated_tokens: usize,
    /// Seconds spent generating.
    pub generate_seconds: f64,
    /// Positions filled: prompt and answer.
    pub context_used: usize,
    /// Positions there are.
    pub context: usize,
    /// The seed of the conversation.
    pub seed: u64,
    /// The number of the attempt.
    pub attempt: u64,
}

impl Stats {
    /// Prompt tokens read per second.
    pub fn prompt_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prompt_seconds)
    }

    /// Tokens generated per second. The first came with the prompt's last piece.
    pub fn generate_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.generate_seconds)
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// What a person should be told although nothing failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The model ended its answer without saying anything that can be shown.
    EmptyAnswer,
    /// The context is longer than the model was trained with.
    LongContext {
        /// Positions asked for.
        n_ctx: usize,
        /// Positions the model knows.
        trained: usize,
    },
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmptyAnswer => f.write_str("the model gave an empty answer; try again or ask differently"),
            Self::LongContext { n_ctx, trained } => write!(
                f,
                "a context of {n_ctx} tokens is more than the {trained} this model was trained with; quality may suffer"
            ),
        }
    }
}

/// What happens during a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The next id of the answer; the text that it completes, if any, follows.
    Token(u32),
    /// A piece of the answer, whole characters only.
    Text(String),
    /// So much of the prompt is read; comes at least twice a second while it is.
    Prompt {
        /// Tokens whose keys and values are there.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// So many of the oldest exchanges are no longer part of the prompt.
    Dropped {
        /// Exchanges.
        exchanges: usize,
    },
    /// Something to tell.
    Notice(Notice),
    /// The answer ended. Statistics follow, nothing else.
    Stopped(Stop),
    /// What the turn cost; the last event.
    Stats(Stats),
}

/// The name of a reason to stop, in JSON and in stored conversations.
pub fn stop_name(stop: Stop) -> &'static str {
    match stop {
        Stop::EndToken(_) => "end",
        Stop::MaxTokens => "length",
        Stop::ContextFull => "context",
        Stop::Cancelled => "cancelled",
        Stop::BrokenLogits => "broken",
    }
}

/// Why there is no answer. The conversation is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The message alone is longer than a prompt may be.
    #[error(
        "the message is too long: with system text and markers, and no earlier exchange, the prompt would have \
         {tokens} tokens; {limit} of the context's {n_ctx} are allowed"
    )]
    QueryTooLong {
        /// Tokens of the shortest possible prompt.
        tokens: usize,
        /// Tokens allowed.
        limit: usize,
        /// Positions of prompt and answer together.
        n_ctx: usize,
    },
    /// The text to continue leaves no room for a token more.
    #[error("the text is too long: it has {tokens} tokens; {limit} of the context's {n_ctx} are allowed")]
    TextTooLong {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens allowed.
        limit: usize,
        /// Positions of text and continuation together.
        n_ctx: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// There is no turn to repeat.
    #[error("there is nothing to try again yet")]
    NothingToRetry,
    /// The messages gave no prompt.
    #[error(transparent)]
    Chat(ChatError),
    /// The scheduler does not take the request: a setting out of its range.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No logit is a number.
    #[error("the model gives no numbers: its weights are broken")]
    BrokenModel,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The result of one turn or completion, for front ends that want it whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text, control tokens left out.
    pub text: String,
    /// The ids generated, without the one that ended it.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// What it cost.
    pub stats: Stats,
}

/// One conversation with one model.
pub struct Session {
    scheduler: Scheduler,
    tokenizer: Arc<Tokenizer>,
    format: ChatFormat,
    settings: Settings,
    turns: Vec<Turn>,
    /// The first turn that is still part of the prompt.
    first: usize,
    stop_ids: Vec<u32>,
    warned: bool,
}

impl Session {
    /// An empty conversation.
    pub fn new(
        scheduler: Scheduler,
        tokenizer: Arc<Tokenizer>,
        format: ChatFormat,
        settings: Settings,
    ) -> Self {
        let stop_ids = tokenizer.vocab().stop_ids();
        Self { scheduler, tokenizer, format, settings, turns: Vec::new(), first: 0, stop_ids, warned: false }
    }

    /// The settings of the next turn.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings of the next turn, to change.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Everything said, also what is no longer part of the prompt.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// How many of the oldest turns are no longer part of the prompt.
    pub fn dropped(&self) -> usize {
        self.first
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The scheduler, e.g. for what the engine is.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Puts another conversation in the place of this one. An answer's ids stay only if they are what its text says;
    /// otherwise the text is tokenised. A conversation comes from outside, and ids could hold control tokens: a turn of
    /// the system that nobody sees.
    pub fn restore(&mut self, mut turns: Vec<Turn>) {
        let vocab = self.tokenizer.vocab();
        let n_vocab = self.scheduler.info().n_vocab;
        let is_text = |id: u32| {
            let kind = vocab.kind(id);
            (id as usize) < n_vocab && !kind.is_control() && kind != TokenKind::Unused
        };
        for turn in &mut turns {
            turn.ids = turn.ids.take().filter(|ids| {
                ids.iter().all(|&id| is_text(id)) && self.tokenizer.decode(ids, false) == turn.answer
            });
        }
        self.turns = turns;
        self.first = 0;
    }

    /// Forgets everything said.
    pub fn clear(&mut self) {
        self.restore(Vec::new());
    }

    /// Takes the last exchange back; its question, or `None` when there was none.
    pub fn undo(&mut self) -> Option<String> {
        let turn = self.turns.pop()?;
        if self.first >= self.turns.len() {
            // Nothing of the prompt is left: there is room again for what was dropped.
            self.first = 0;
        }
        Some(turn.question)
    }

    /// Asks, and gives the answer in pieces to `on`. Setting `cancel` ends the answer; what was said stays.
    ///
    /// # Errors
    /// A message that is too long, a template that fails, an engine that fails.
    pub fn ask(
        &mut self,
        question: &str,
        cancel: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        // An exchange without an answer stays for `retry` only: in a prompt it would teach the model to say nothing.
        let unanswered = self.turns.pop_if(|last| last.is_empty());
        let result = self.attempt_at(question, 0, cancel, on);
        match &result {
            Ok(answer) => self.turns.push(turn(question, answer, 0)),
            Err(_) => self.turns.extend(unanswered),
        }
        result
    }

    /// Asks the last question again with another draw, and replaces the answer; unless it is cancelled before it began.
    ///
    /// # Errors
    /// As [`Session::ask`], and when nothing was asked yet.
    pub fn retry(&mut self, cancel: &AtomicBool, on: &mut dyn FnMut(Event)) -> Result<Answer, Error> {
        let last = self.turns.pop().ok_or(Error::NothingToRetry)?;
        let attempt = last.attempt.saturating_add(1);
        let first = self.first;
        // After `warm` even the last exchange may have left the prompt; asked again it is the current one.
        self.first = first.min(self.turns.len());
        let result = self.attempt_at(&last.question, attempt, cancel, on);
        self.turns.push(match &result {
            Ok(answer) if !(answer.ids.is_empty() && answer.stop == Stop::Cancelled) => {
                turn(&last.question, answer, attempt)
            }
            _ => {
                self.first = first;
                last
            }
        });
        result
    }

    /// Reads what was said so far, so that the next answer begins at once; `on` is told how far, and how many exchanges no
    /// longer fit. Gives the positions filled.
    ///
    /// # Errors
    /// A template that fails, an engine that fails.
    pub fn warm(&mut self, cancel: &AtomicBool, on: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        let Some(prompt) = self.warm_prompt() else { return Ok(0) };
        let prompt = prompt?;
        if prompt.dropped_exchanges > 0 {
            self.first += prompt.dropped_exchanges;
            on(Event::Dropped { exchanges: prompt.dropped_exchanges });
        }
        let tokens = prompt.ids.len();
        let (max_new, warned) = (std::mem::replace(&mut self.settings.max_new, 0), self.warned);
        let result = self.generate(prompt.ids, 0, cancel, &mut |event| {
            if let Event::Prompt { .. } = event {
                on(event);
            }
        });
        (self.settings.max_new, self.warned) = (max_new, warned);
        result.map(|_| tokens)
    }

    /// The prompt of a question that nobody asked: all before its text is that of the next one, too. `None` while
    /// nothing was said.
    fn warm_prompt(&self) -> Option<Result<FittedPrompt, Error>> {
        // As in `ask`: an exchange without an answer is no part of a prompt.
        let turns =
            &self.turns[..self.turns.len() - usize::from(self.turns.last().is_some_and(Turn::is_empty))];
        (!turns.is_empty()).then(|| self.prompt_of(turns, "?"))
    }

    /// The ids of [`Self::warm_prompt`].
    fn warm_ids(&self) -> Option<Vec<u32>> {
        Some(self.warm_prompt()?.ok()?.ids)
    }

    /// Continues `ids` as they are; no part of the conversation.
    ///
    /// # Errors
    /// No ids at all or too many, an engine that fails.
    pub fn complete(
        &mut self,
        ids: &[u32],
        cancel: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        let n_ctx = self.settings.n_ctx;
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if ids.len() >= n_ctx {
            let (tokens, limit) = (ids.len(), n_ctx.saturating_sub(1));
            return Err(Error::TextTooLong { tokens, limit, n_ctx });
        }
        self.generate(ids.to_vec(), 0, cancel, on)
    }

    /// The messages of the prompt with `question` as the current one, after `turns`.
    fn messages(&self, turns: &[Turn], question: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some(system) = &self.settings.system {
            messages.push(Message::text(Role::System, system));
        }
        for turn in turns.iter().skip(self.first) {
            messages.push(Message::text(Role::User, &turn.question));
            messages.push(match &turn.ids {
                Some(ids) => Message::answer(ids.as_slice()),
                None => Message::text(Role::Assistant, &turn.answer),
            });
        }
        messages.push(Message::text(Role::User, question));
        messages
    }

    /// The prompt with `question` as the current message.
    fn prompt(&self, question: &str) -> Result<FittedPrompt, Error> {
        self.prompt_of(&self.turns, question)
    }

    /// The same after `turns` alone.
    fn prompt_of(&self, turns: &[Turn], question: &str) -> Result<FittedPrompt, Error> {
        let Settings { n_ctx, history, .. } = self.settings;
        let mut limits = PromptLimits::of_context(n_ctx);
        // The rule "context - 248" is for contexts like the original's; a short one still needs room to ask.
        limits.prompt_tokens = limits.prompt_tokens.max(n_ctx / 2);
        let prompt = fit(&self.messages(turns, question), &self.format, &self.tokenizer, history, limits);
        let prompt = prompt.map_err(|error| match error {
            ChatError::TooLong { tokens, limit } => Error::QueryTooLong { tokens, limit, n_ctx },
            other => Error::Chat(other),
        })?;
        if prompt.ids.is_empty() { Err(Error::EmptyPrompt) } else { Ok(prompt) }
    }

    /// One answer to `question`; on an error nothing of the session has changed.
    fn attempt_at(
        &mut self,
        question: &str,
        attempt: u64,
        cancel: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        let prompt = self.prompt(question)?;
        let first = self.first;
        if prompt.dropped_exchanges > 0 {
            self.first += prompt.dropped_exchanges;
            on(Event::Dropped { exchanges: prompt.dropped_exchanges });
        }
        let result = self.generate(prompt.ids, attempt, cancel, on);
        if result.is_err() {
            self.first = first;
        }
        result
    }

    fn generate(
        &mut self,
        ids: Vec<u32>,
        attempt: u64,
        cancel: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        let (n_ctx, trained) = (self.settings.n_ctx, self.scheduler.info().n_ctx_train);
        if n_ctx > trained && !std::mem::replace(&mut self.warned, true) {
            on(Event::Notice(Notice::LongContext { n_ctx, trained }));
        }
        let prompt_len = ids.len();
        let id = self.scheduler.submit(Request {
            ids,
            sampling: self.settings.sampling,
            seed: row_seed(self.settings.seed, attempt),
            stop_ids: self.stop_ids.clone(),
            max_new: self.settings.max_new,
            n_ctx,
        })?;
        let mut answer = Streaming::default();
        let mut ended = None;
        let quiet = AtomicBool::new(false);
        let mut failed = None;
        while ended.is_none() {
            let stopping = failed.is_some() || cancel.load(Ordering::Relaxed);
            if stopping {
                self.scheduler.cancel(id);
            }
            let vocab = self.tokenizer.vocab();
            let step =
                self.scheduler.step(if stopping { &quiet } else { cancel }, &mut |event| match event {
                    schedule::Event::Prompt { id: of, done, total } if of == id => {
                        on(Event::Prompt { done, total });
                    }
                    schedule::Event::Token { id: of, token } if of == id => {
                        let bytes = if vocab.kind(token).is_control() { &[] } else { vocab.bytes(token) };
                        answer.push(token, bytes, on);
                    }
                    schedule::Event::Stopped { id: of, stop, timings } if of == id => {
                        ended = Some((stop, timings))
                    }
                    _ => {}
                });
            match step {
                Ok(more) => {
                    if !more && ended.is_none() {
                        break;
                    }
                }
                // The flag is read again above, and the request is ended in order.
                Err(EngineError::Cancelled) if !stopping => {}
                Err(error) if failed.is_none() => failed = Some(error),
                Err(_) => break,
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        let (stop, timings) = ended.unwrap_or((Stop::Cancelled, Timings::default()));
        answer.finish(on);
        if stop == Stop::BrokenLogits {
            return Err(Error::BrokenModel);
        }
        if stop != Stop::Cancelled && answer.text.trim().is_empty() {
            on(Event::Notice(Notice::EmptyAnswer));
        }
        on(Event::Stopped(stop));
        let stats = Stats {
            prompt_tokens: timings.prompt_tokens,
            reused_tokens: timings.reused_tokens,
            prompt_seconds: timings.prompt_seconds,
            generated_tokens: timings.generated_tokens,
            generate_seconds: timings.generate_seconds,
            context_used: prompt_len + answer.ids.len(),
            context: n_ctx,
            seed: self.settings.seed,
            attempt,
        };
        on(Event::Stats(stats));
        Ok(Answer { text: answer.text, ids: answer.ids, stop, stats })
    }
}

fn turn(question: &str, answer: &Answer, attempt: u64) -> Turn {
    Turn {
        question: question.to_owned(),
        answer: answer.text.clone(),
        ids: Some(answer.ids.clone()),
        attempt,
        stop: answer.stop,
    }
}

/// An answer while it grows.
#[derive(Default)]
struct Streaming {
    ids: Vec<u32>,
    text: String,
    stream: DecodeStream,
}

impl Streaming {
    fn push(&mut self, token: u32, bytes: &[u8], on: &mut dyn FnMut(Event)) {
        self.ids.push(token);
        on(Event::Token(token));
        let piece = self.stream.push(bytes);
        self.give(piece, on);
    }

    fn finish(&mut self, on: &mut dyn FnMut(Event)) {
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

/// The seed of a row: SplitMix64 of the conversation's seed and the number of the attempt at the turn.
pub fn row_seed(seed: u64, attempt: u64) -> u64 {
    let mut z = seed.wrapping_add(attempt.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
