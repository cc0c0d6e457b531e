//! One conversation: messages in, [`Event`]s out. What every front end talks to.
//!
//! A session is a client of [`crate::schedule`] with one request at a time. It keeps its own answers as the
//! ids that were generated and builds the next prompt from these ids, so that the keys and values of
//! everything said so far stay valid from turn to turn. It knows no terminal and no flags; conversations on
//! disk are in [`store`], model files in [`catalog`].

pub mod catalog;
mod date;
mod event;
pub mod kv_cache;
pub mod open;
mod patched;
pub mod store;
mod streaming;
mod turns;

pub use crate::engine::{EngineKind, KvType};

pub use crate::sample::{Sampling, SettingError};
pub use crate::schedule::Stop;
pub use date::local_now;
pub use event::{Answer, Event, Notice, Stats, dropped_note, stop_name};
pub use huozi_token::{ChatError, DateTime, HistoryLimit};
pub use turns::{Replaced, Turn};

use crate::engine::{EngineError, Info};
use crate::sample::row_seed;
use crate::schedule::{Refused, Request, RequestError, RequestEvent, SchedulerHandle, Speculate};
use huozi_token::history::{FittedPrompt, fit};
use huozi_token::{ChatFormat, HistoryRule, Message, PromptLimits, Role, Specials, TokenKind, Tokenizer};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use streaming::Streaming;

/// How often the flag that cancels an answer is read.
const POLL: Duration = Duration::from_millis(10);
/// A question of one token. The exchanges that are dropped from its prompt are dropped for every question.
const SHORT_QUESTION: &str = "?";

/// What can be changed between two turns.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How to choose each token.
    pub sampling: Sampling,
    /// Maximum number of tokens of an answer; the context may leave fewer.
    pub max_new: usize,
    /// Positions of prompt and answer together.
    pub n_ctx: usize,
    /// The system text; `None` is the chat format's default.
    pub system: Option<String>,
    /// Which exchanges are dropped when the prompt gets too long.
    pub history: HistoryRule,
    /// Seed of the conversation. A turn draws with a seed made of this and the number of the attempt at the
    /// turn.
    pub seed: u64,
}

/// Why there is no answer. The conversation is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The message alone is longer than a prompt may be.
    #[error(
        "the message is too long: with system text and markers, and no earlier exchange, the prompt would \
         have {tokens} tokens; {limit} of the context's {n_ctx} are allowed"
    )]
    QueryTooLong {
        /// Tokens of the shortest possible prompt.
        tokens: usize,
        /// Tokens allowed.
        limit: usize,
        /// Positions of prompt and answer together.
        n_ctx: usize,
    },
    /// The text to continue leaves no room for another token.
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
    /// No prompt can be built from the messages.
    #[error(transparent)]
    Chat(ChatError),
    /// The scheduler refused the request, e.g. because a setting is out of its range.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// All logits are NaN or minus infinity.
    #[error("the model gives no numbers: its weights are broken")]
    BrokenModel,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The scheduler's thread panicked: this session cannot answer any more.
    #[error("the engine has ended: {0}")]
    Ended(String),
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Engine(error) => Self::Engine(error),
            RequestError::Ended(why) => Self::Ended(why),
        }
    }
}

/// One conversation with one model.
pub struct Session {
    scheduler: SchedulerHandle,
    tokenizer: Arc<Tokenizer>,
    format: ChatFormat,
    settings: Settings,
    turns: Vec<Turn>,
    /// The end of the conversation that was replaced last.
    replaced: Replaced,
    /// Set when the conversation begins, at the latest with the first turn.
    date: Option<DateTime>,
    /// Index of the first turn that is part of the prompt.
    first: usize,
    stop_ids: Vec<u32>,
    warned: bool,
}

impl Session {
    /// An empty conversation.
    pub fn new(
        scheduler: SchedulerHandle,
        tokenizer: Arc<Tokenizer>,
        format: ChatFormat,
        settings: Settings,
    ) -> Self {
        let stop_ids = tokenizer.vocab().stop_ids();
        Self {
            scheduler,
            tokenizer,
            format,
            settings,
            turns: Vec::new(),
            replaced: Replaced::default(),
            date: None,
            first: 0,
            stop_ids,
            warned: false,
        }
    }

    /// The settings of the next turn.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings of the next turn, to change.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// All turns, also those that were dropped from the prompt.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The date of the conversation, for templates that write it; `None` before the first question.
    pub fn date(&self) -> Option<DateTime> {
        self.date
    }

    /// Gives the conversation another date; `None`: that of the next question.
    pub fn set_date(&mut self, date: Option<DateTime>) {
        self.date = date;
    }

    /// The date of the conversation, which begins now unless it has begun.
    pub fn begin(&mut self) -> DateTime {
        *self.date.get_or_insert_with(local_now)
    }

    /// How many of the oldest turns were dropped from the prompt.
    pub fn dropped(&self) -> usize {
        self.first
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &SchedulerHandle {
        &self.scheduler
    }

    /// The engine.
    pub fn info(&self) -> &Info {
        self.scheduler.info()
    }

    /// Replaces the turns; the date stays. An answer's ids are kept only if they decode to its text; else the
    /// text is tokenised. A conversation comes from outside, and ids could hold control tokens: a turn of the
    /// system that is not shown.
    pub fn restore(&mut self, turns: Vec<Turn>) {
        self.turns = self.checked(turns);
        self.replaced = Replaced::default();
        self.first = 0;
    }

    /// The turns, without ids that do not decode to their text.
    fn checked(&self, mut turns: Vec<Turn>) -> Vec<Turn> {
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
        turns
    }

    /// Begins an empty conversation.
    pub fn clear(&mut self) {
        self.restore(Vec::new());
        self.date = None;
    }

    /// The end of the conversation that was replaced last; [`Session::bring_back`] gives it its place back.
    pub fn replaced(&self) -> &Replaced {
        &self.replaced
    }

    /// Sets what [`Session::bring_back`] brings back, e.g. after [`Session::restore`].
    pub fn set_replaced(&mut self, replaced: Replaced) {
        self.replaced = replaced;
    }

    /// Gives the end of the conversation that was replaced last, by [`Session::undo`] or
    /// [`Session::retry`], its place back; called again, the one that it had replaced. False when there is
    /// nothing to bring back.
    pub fn bring_back(&mut self) -> bool {
        let mut turns = std::mem::take(&mut self.turns);
        let at = self.replaced.swap(&mut turns);
        if let Some(at) = at {
            let back = turns.split_off(at);
            turns.extend(self.checked(back));
            if self.first >= at {
                // Where no turn of the prompt is left there is room again for those that were dropped.
                self.first = 0;
            }
        }
        self.turns = turns;
        at.is_some()
    }

    /// The number of the attempt that [`Session::retry`] would make.
    pub fn next_attempt(&self) -> u64 {
        let last = self.turns.len().saturating_sub(1);
        self.turns.last().map_or(0, |turn| self.replaced.attempts(last, turn).saturating_add(1))
    }

    /// Removes the last exchange and gives its question; `None` when there was none.
    pub fn undo(&mut self) -> Option<String> {
        let turn = self.turns.pop()?;
        let question = turn.question.clone();
        self.replaced.take(self.turns.len(), turn);
        if self.first >= self.turns.len() {
            // No turn of the prompt is left: there is room again for those that were dropped.
            self.first = 0;
        }
        Some(question)
    }

    /// Asks, and gives the answer in pieces to `on`. Setting `cancel` ends the answer; what was generated
    /// stays.
    ///
    /// # Errors
    /// A message that is too long, a template that fails, an engine that fails.
    pub fn ask(
        &mut self,
        question: &str,
        cancel: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        // An exchange without an answer stays for `retry` only: in a prompt it would teach the model to say
        // nothing.
        let unanswered = self.turns.pop_if(|last| last.is_empty());
        let result = self.attempt_at(question, 0, cancel, on);
        match &result {
            Ok(answer) => self.turns.push(turn(question, answer, 0)),
            Err(_) => self.turns.extend(unanswered),
        }
        result
    }

    /// Asks the last question again with another draw, and replaces the answer, unless the new one is
    /// cancelled before its first token.
    ///
    /// # Errors
    /// As [`Session::ask`], and when nothing was asked yet.
    pub fn retry(&mut self, cancel: &AtomicBool, on: &mut dyn FnMut(Event)) -> Result<Answer, Error> {
        let attempt = self.next_attempt();
        let last = self.turns.pop().ok_or(Error::NothingToRetry)?;
        let first = self.first;
        // After `warm` even the last exchange may have left the prompt; asked again it is the current one.
        self.first = first.min(self.turns.len());
        let result = self.attempt_at(&last.question, attempt, cancel, on);
        let kept = match &result {
            Ok(answer) if !(answer.ids.is_empty() && answer.stop == Stop::Cancelled) => {
                let new = turn(&last.question, answer, attempt);
                self.replaced.put(self.turns.len(), last);
                new
            }
            _ => {
                self.first = first;
                last
            }
        };
        self.turns.push(kept);
        result
    }

    /// Reads the conversation, so that the next answer begins at once; `on` is told how far, and how many
    /// exchanges were dropped. Gives the number of positions filled.
    ///
    /// # Errors
    /// A template that fails, an engine that fails.
    pub fn warm(&mut self, cancel: &AtomicBool, on: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        let Some(prompt) = self.next_prompt() else { return Ok(0) };
        let prompt = prompt?;
        if let Some(limit) = prompt.limit {
            self.first += prompt.dropped_exchanges;
            on(Event::Dropped { exchanges: prompt.dropped_exchanges, limit });
        }
        let tokens = prompt.ids.len();
        self.run(prompt.ids, Attempt { number: 0, max_new: 0 }, cancel, &mut |event| {
            if let Event::Prompt { .. } = event {
                on(event);
            }
        })?;
        Ok(tokens)
    }

    /// The ids that the prompt of every next question begins with, and how many exchanges are dropped for the
    /// shortest question. `None` while there is no turn.
    fn next_prompt(&self) -> Option<Result<FittedPrompt, Error>> {
        // As in `ask`: an exchange without an answer is no part of a prompt.
        let unanswered = usize::from(self.turns.last().is_some_and(Turn::is_empty));
        let turns = &self.turns[..self.turns.len() - unanswered];
        if turns.is_empty() {
            return None;
        }
        let FittedPrompt { dropped_exchanges, limit, .. } = match self.prompt_of(turns, SHORT_QUESTION) {
            Ok(prompt) => prompt,
            Err(error) => return Some(Err(error)),
        };
        let said = self.messages(turns, self.first + dropped_exchanges);
        let ids = self.format.prefix_ids(&said, self.date_or_now(), &self.tokenizer).map_err(Error::Chat);
        Some(ids.map(|ids| FittedPrompt { ids, dropped_exchanges, limit }))
    }

    /// The ids that the prompt of every next question begins with; `None` while there is no turn.
    pub fn next_prefix(&self) -> Option<Vec<u32>> {
        Some(self.next_prompt()?.ok()?.ids)
    }

    /// Drops the oldest `dropped` turns from the prompt, as the session did that saved the keys and values.
    /// The last turn stays.
    pub fn resume_at(&mut self, dropped: usize) {
        self.first = dropped.min(self.turns.len().saturating_sub(1));
    }

    /// The ids of the prompt that [`Session::ask`] would have read for `question`.
    ///
    /// # Errors
    /// A message that is too long, a template that fails.
    pub fn question_ids(&mut self, question: &str) -> Result<Vec<u32>, Error> {
        self.begin();
        Ok(self.prompt(question)?.ids)
    }

    /// The chat format.
    pub fn format(&self) -> &ChatFormat {
        &self.format
    }

    /// The ids of a text to continue as it is.
    ///
    /// # Errors
    /// No ids at all, or too many for one more.
    pub fn text_ids(&self, text: &str, specials: Specials) -> Result<Vec<u32>, Error> {
        let n_ctx = self.settings.n_ctx;
        let ids = self.tokenizer.encode(text, specials);
        match ids.len() {
            0 => Err(Error::EmptyPrompt),
            tokens if tokens >= n_ctx => {
                Err(Error::TextTooLong { tokens, limit: n_ctx.saturating_sub(1), n_ctx })
            }
            _ => Ok(ids),
        }
    }

    /// Turns that were put in without a date get one with the next question.
    fn date_or_now(&self) -> DateTime {
        self.date.unwrap_or_else(local_now)
    }

    /// The system message and the messages of `turns[first..]`.
    fn messages(&self, turns: &[Turn], first: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some(system) = &self.settings.system {
            messages.push(Message::text(Role::System, system));
        }
        for turn in turns.iter().skip(first) {
            messages.push(Message::text(Role::User, &turn.question));
            messages.push(match &turn.ids {
                Some(ids) => Message::answer(ids.as_slice()),
                None => Message::text(Role::Assistant, &turn.answer),
            });
        }
        messages
    }

    /// The prompt with `question` as the current message.
    fn prompt(&self, question: &str) -> Result<FittedPrompt, Error> {
        self.prompt_of(&self.turns, question)
    }

    /// The same after `turns`.
    fn prompt_of(&self, turns: &[Turn], question: &str) -> Result<FittedPrompt, Error> {
        let Settings { n_ctx, history, .. } = self.settings;
        let mut limits = PromptLimits::of_context(n_ctx, history);
        // The rule "context - 248" is for contexts like the original's; a short one still needs room to ask.
        limits.prompt_tokens = limits.prompt_tokens.max(n_ctx / 2);
        let mut messages = self.messages(turns, self.first);
        messages.push(Message::text(Role::User, question));
        let prompt = fit(&messages, self.date_or_now(), &self.format, &self.tokenizer, history, limits);
        let prompt = prompt.map_err(|error| match error {
            ChatError::TooLong { tokens, limit } => Error::QueryTooLong { tokens, limit, n_ctx },
            other => Error::Chat(other),
        })?;
        if prompt.ids.is_empty() { Err(Error::EmptyPrompt) } else { Ok(prompt) }
    }

    /// One answer to `question`; on an error the session is unchanged.
    fn attempt_at(
        &mut self,
        question: &str,
        attempt: u64,
        cancel: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        self.begin();
        let prompt = self.prompt(question)?;
        let first = self.first;
        if let Some(limit) = prompt.limit {
            self.first += prompt.dropped_exchanges;
            on(Event::Dropped { exchanges: prompt.dropped_exchanges, limit });
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
        let attempt = Attempt { number: attempt, max_new: self.settings.max_new };
        let answer = self.run(ids, attempt, cancel, on)?;
        if answer.stop != Stop::Cancelled && answer.text.trim().is_empty() {
            on(Event::Notice(Notice::EmptyAnswer));
        }
        on(Event::Stopped(answer.stop));
        on(Event::Stats(answer.stats));
        Ok(answer)
    }

    /// Has the scheduler read `ids` and generate; tells `on` progress, tokens and text.
    fn run(
        &self,
        ids: Vec<u32>,
        attempt: Attempt,
        cancel: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        let Settings { sampling, n_ctx, seed, .. } = self.settings;
        let prompt_len = ids.len();
        let request = Request {
            ids,
            sampling,
            seed: row_seed(seed, attempt.number),
            stop_ids: self.stop_ids.clone(),
            max_new: attempt.max_new,
            n_ctx,
            log_probs: None,
            speculate: Speculate::Off,
        };
        let (tell, events) = mpsc::channel();
        let id = self.scheduler.submit(request, move |event| match tell.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })?;
        let mut answer = Streaming::default();
        // Tokens that arrive after the answer was cancelled are not part of it.
        let (mut stopping, mut cut) = (false, false);
        let (stop, timings) = loop {
            if !stopping && cancel.load(Ordering::Relaxed) {
                stopping = true;
                self.scheduler.cancel(id);
            }
            match events.recv_timeout(POLL) {
                Ok(RequestEvent::Prompt { done, total, .. }) if !stopping => {
                    on(Event::Prompt { done, total })
                }
                Ok(RequestEvent::Token { token, .. }) if !stopping => answer.push(token, &self.tokenizer, on),
                Ok(RequestEvent::Token { .. }) => cut = true,
                Ok(RequestEvent::Stopped { stop, timings, .. }) => break (stop, timings),
                Ok(RequestEvent::Failed { error, .. }) => return Err(error.into()),
                Ok(RequestEvent::Prompt { .. } | RequestEvent::LogProbs { .. })
                | Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Error::Ended("a request ended without a reason".into()));
                }
            }
        };
        answer.finish(on);
        let stop = if cut { Stop::Cancelled } else { stop };
        if stop == Stop::BrokenLogits {
            return Err(Error::BrokenModel);
        }
        let Streaming { ids, text, .. } = answer;
        let stats = Stats {
            prompt_tokens: timings.prompt_tokens,
            reused_tokens: timings.reused_tokens,
            prompt_seconds: timings.prompt_seconds,
            generated_tokens: if stop == Stop::Cancelled { ids.len() } else { timings.generated_tokens },
            generate_seconds: timings.generate_seconds,
            context_used: prompt_len + ids.len(),
            context: n_ctx,
            seed,
            attempt: attempt.number,
        };
        Ok(Answer { text, ids, stop, stats })
    }
}

/// Which answer is generated.
struct Attempt {
    /// The number of the attempt at the turn.
    number: u64,
    /// Maximum number of tokens.
    max_new: usize,
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
