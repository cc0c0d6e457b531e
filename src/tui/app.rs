//! The state of the program: everything that a frame shows. Changed by [`super::update`] only, shown by [`super::view`].

use super::ask::Wish;
use super::event::Effect;
use super::failure::Failure;
use super::input::Input;
use super::look::{Lang, Look, Theme};
use super::panels::{Choice, Panel};
use super::transcript::Transcript;
use super::worker::{AskKind, Chosen, DeskTask, ModelEntry, ModelTask, Talk};
use crate::session::open::{About, SessionOptions, Source, Step};
use crate::session::store::{Entry, title_of};
use crate::session::{Stats, Stop, Turn};
use ratatui::layout::Rect;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Speeds that the sparkline shows.
const RATES: usize = 24;
/// A message that is being written is on disk after so long.
const DRAFT: Duration = Duration::from_secs(1);
/// Questions that the history keeps.
const HISTORY: usize = 500;

/// What a person chose for the interface; kept from one start to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prefs {
    /// Language; `None` follows the locale.
    pub lang: Option<Lang>,
    /// Colours; `None` follows the terminal.
    pub theme: Option<Theme>,
    /// Enter sends; otherwise Alt+Enter does, and Enter begins a new line.
    pub enter_sends: bool,
    /// The mouse scrolls and chooses; otherwise the terminal has it.
    pub mouse: bool,
    /// Answers are shown as they are instead of as Markdown.
    pub raw: bool,
}

impl Prefs {
    /// The keys that send a message and begin a new line.
    pub fn send_and_newline(&self) -> [&'static str; 2] {
        if self.enter_sends { ["Enter", "Alt+Enter"] } else { ["Alt+Enter", "Enter"] }
    }
}

impl Default for Prefs {
    fn default() -> Self {
        Self { lang: None, theme: None, enter_sends: true, mouse: true, raw: false }
    }
}

/// What the program was started with.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The model to open at once.
    pub source: Option<Source>,
    /// How models are opened.
    pub options: SessionOptions,
    /// Whether to begin a new conversation instead of going on with the last.
    pub fresh: bool,
    /// The language of the locale.
    pub lang: Lang,
    /// The colours that the terminal seems to want.
    pub theme: Theme,
    /// Only ASCII for lines and bars.
    pub ascii: bool,
    /// What was chosen before.
    pub prefs: Prefs,
    /// The language that was typed: before the one chosen before, and not kept.
    pub typed_lang: Option<Lang>,
    /// No colours are wanted this time, whatever was chosen before.
    pub no_color: bool,
}

/// A model that is being opened.
#[derive(Clone, Debug)]
pub struct Loading {
    /// Its name.
    pub name: String,
    /// How far: the step, bytes done and of all.
    pub step: Option<(Step, u64, u64)>,
    /// When it began.
    pub since: Instant,
    /// Ends it.
    pub cancel: Arc<AtomicBool>,
}

/// Which part of the program is on the screen.
#[derive(Clone, Debug)]
pub enum Screen {
    /// Choose a model.
    Choose(Choice),
    /// One is being opened.
    Load(Loading),
    /// Talk.
    Chat,
}

/// What the model does.
#[derive(Clone, Debug)]
pub enum Busy {
    /// Nothing.
    Idle,
    /// It reads what was said before, so that the next answer begins at once.
    Warming {
        /// Tokens read, and of all.
        done: (usize, usize),
        /// Since when, and the tokens that were there then.
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
    /// What was said so far.
    pub text: String,
    /// Tokens of it.
    pub tokens: usize,
    /// Prompt tokens read, and of all.
    pub prompt: (usize, usize),
    /// When reading began, and the tokens that were there then.
    pub reading: Option<(Instant, usize)>,
    /// When the first token came, and the last speed was taken: time, tokens.
    pub first: Option<Instant>,
    /// When the last speed was taken, and the tokens there were.
    pub taken: Option<(Instant, usize)>,
    /// Its question is on disk, where it is to be.
    pub begun: bool,
    /// The person wants it to end.
    pub stopping: bool,
    /// Ends it.
    pub cancel: Arc<AtomicBool>,
}

impl Live {
    /// How many of `turns` stand before it: it takes the place of the one that it replaces, or that nothing was said to.
    pub fn shown_before(&self, turns: &[Turn]) -> usize {
        let replaces = self.ask != AskKind::New || turns.last().is_some_and(Turn::is_empty);
        turns.len().saturating_sub(usize::from(replaces))
    }
}

/// How much a message at the bottom matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It is nice to know.
    Note,
    /// Something did not work.
    Error,
}

/// A message at the bottom.
#[derive(Clone, Debug, PartialEq)]
pub struct Flash {
    /// What it says.
    pub text: String,
    /// How much it matters.
    pub tone: Tone,
    /// Until when.
    pub until: Instant,
}

/// The state.
pub struct App {
    /// What it was started with.
    pub start: Start,
    /// What was chosen for the interface.
    pub prefs: Prefs,
    /// Cells of the screen.
    pub size: (u16, u16),
    /// What is on it.
    pub screen: Screen,
    /// What lies over it.
    pub panel: Option<Panel>,
    /// The model.
    pub about: Option<About>,
    /// Settings of the next answer.
    pub chosen: Option<Chosen>,
    /// Settings of a new conversation.
    pub fresh: Option<Chosen>,
    /// The conversation.
    pub talk: Talk,
    /// Its rows.
    pub transcript: Transcript,
    /// What is being written.
    pub input: Input,
    /// The input is a new version of the last question.
    pub editing: bool,
    /// What the input held before the last question was put into it.
    pub draft: String,
    /// Questions, the oldest first.
    pub history: Vec<String>,
    /// Which of them is in the input, and what was there before.
    pub recalled: Option<(usize, String)>,
    /// What the model does.
    pub busy: Busy,
    /// Other conversations that were asked for and are not there yet: what is on the screen is not what an answer or a
    /// setting would go to.
    pub switching: usize,
    /// Readings of the conversation that the model was told to do and has not ended.
    pub warming: usize,
    /// What the last answer cost.
    pub stats: Option<Stats>,
    /// Positions filled, as far as is known.
    pub context_used: usize,
    /// Tokens per second of the answers, the oldest first.
    pub rates: VecDeque<f64>,
    /// Bytes of memory in use.
    pub memory: Option<u64>,
    /// The model that is opened, or was.
    pub opening: Option<Source>,
    /// Models found, and memory there is.
    pub models: (Vec<ModelEntry>, Option<u64>),
    /// Whether somebody has looked for them.
    pub looked: bool,
    /// Conversations.
    pub talks: Vec<Entry>,
    /// Conversations that were thrown away, the last at the end.
    pub trashed: Vec<String>,
    /// A message.
    pub flash: Option<Flash>,
    /// When Ctrl+C was pressed with nothing to stop.
    pub interrupted: Option<Instant>,
    /// The file that was asked for last, as it was typed.
    pub asked: Option<(Wish, String)>,
    /// Why the conversation is not on disk, where it should be.
    pub unsaved: Option<Failure>,
    /// When somebody last wished to quit without that.
    pub leaving: Option<Instant>,
    /// What is being written was begun in a conversation that leaves nothing.
    pub input_private: bool,
    /// Questions of the history from here on were asked in a conversation that leaves nothing.
    pub private_from: usize,
    /// What the desk was last given to keep of the message being written.
    pub draft_kept: String,
    /// Since when it is another one.
    draft_since: Option<Instant>,
    /// A model was opened in this run.
    pub was_ready: bool,
    /// The program ends.
    pub quitting: bool,
    /// Where a row of the screen can be clicked, as the last frame had it.
    pub places: Places,
}

/// Where things are on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The conversation.
    pub transcript: Rect,
    /// The input, without its mark.
    pub input: Rect,
}

impl App {
    /// The state at the start, and what is to be done first.
    pub fn new(start: Start, size: (u16, u16), now: Instant) -> (Self, Vec<Effect>) {
        let mut app = Self {
            prefs: start.prefs.clone(),
            size,
            screen: Screen::Choose(Choice::default()),
            panel: None,
            about: None,
            chosen: None,
            fresh: None,
            talk: Talk::default(),
            transcript: Transcript::default(),
            input: Input::default(),
            editing: false,
            draft: String::new(),
            history: Vec::new(),
            recalled: None,
            busy: Busy::Idle,
            switching: 0,
            warming: 0,
            stats: None,
            context_used: 0,
            rates: VecDeque::new(),
            memory: None,
            opening: None,
            models: (Vec::new(), None),
            looked: false,
            talks: Vec::new(),
            trashed: Vec::new(),
            flash: None,
            interrupted: None,
            asked: None,
            unsaved: None,
            leaving: None,
            input_private: false,
            private_from: 0,
            draft_kept: String::new(),
            draft_since: None,
            was_ready: false,
            quitting: false,
            places: Places::default(),
            start,
        };
        let mut effects = vec![Effect::Desk(DeskTask::Models)];
        if let Some(source) = app.start.source.clone() {
            effects.push(app.load(source, now));
        }
        (app, effects)
    }

    /// The language of the interface.
    pub fn lang(&self) -> Lang {
        self.start.typed_lang.or(self.prefs.lang).unwrap_or(self.start.lang)
    }

    /// Chooses the language.
    pub fn set_lang(&mut self, lang: Lang) {
        (self.prefs.lang, self.start.typed_lang) = (Some(lang), None);
    }

    /// Text in that language.
    pub fn say<'a>(&self, en: &'a str, zh: &'a str) -> &'a str {
        self.lang().of(en, zh)
    }

    /// How things look.
    pub fn look(&self) -> Look {
        let theme = self.prefs.theme.filter(|_| !self.start.no_color).unwrap_or(self.start.theme);
        Look { theme, ascii: self.start.ascii }
    }

    /// Chooses the colours.
    pub fn set_theme(&mut self, theme: Theme) {
        (self.prefs.theme, self.start.no_color) = (Some(theme), false);
    }

    /// Begins to open a model.
    pub fn load(&mut self, source: Source, now: Instant) -> Effect {
        let name = match &source {
            Source::File(path) => path
                .file_name()
                .map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned()),
            #[cfg(feature = "demo")]
            Source::Demo => self.say("the built-in demo model", "内置演示模型").to_owned(),
            Source::Memory(reader) => reader.name().to_owned(),
            Source::Random(model) => model.name.clone(),
        };
        let cancel = Arc::new(AtomicBool::new(false));
        self.screen = Screen::Load(Loading { name, step: None, since: now, cancel: cancel.clone() });
        self.panel = None;
        self.opening = Some(source.clone());
        // What is being said goes on with the engine that was chosen for it.
        let options = self.chosen.as_ref().map_or(&self.start.options, |chosen| &chosen.options).clone();
        Effect::Work(ModelTask::Load { source, options, cancel })
    }

    /// The models that can be chosen: those found, and the embedded one last.
    pub fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> =
            self.models.0.iter().map(|model| Source::File(PathBuf::from(&model.path))).collect();
        #[cfg(feature = "demo")]
        sources.push(Source::Demo);
        sources
    }

    /// Shows a message for a while.
    pub fn flash(&mut self, text: impl Into<String>, tone: Tone, now: Instant) {
        let text = super::text::one_line(&text.into());
        // Long enough to be read.
        let patience = Duration::from_millis(3000 + 60 * text.chars().count().min(200) as u64);
        self.flash = Some(Flash { text, tone, until: now + patience });
    }

    /// Says that something did not work.
    pub fn fail(&mut self, failure: &Failure, now: Instant) {
        self.flash(failure.text(self.lang()), Tone::Error, now);
    }

    /// Puts a question into the input, as it would be typed.
    pub fn put_question(&mut self, question: &str) {
        self.input.set(&super::commands::written(question));
    }

    /// Ends the edit of the last question; what the input held before is in it again.
    pub fn leave_editing(&mut self) {
        if std::mem::take(&mut self.editing) {
            let draft = std::mem::take(&mut self.draft);
            self.input.set(&draft);
        }
    }

    /// Puts the question of an answer that failed back into the input.
    pub fn give_back(&mut self, live: &Live) {
        match live.ask {
            AskKind::Retry => {}
            // The exchange it would replace is that of another conversation.
            AskKind::Revise if self.switching > 0 => {}
            AskKind::Revise => {
                self.draft = self.input.text().to_owned();
                self.editing = true;
                self.put_question(&live.question);
            }
            AskKind::New if self.input.is_empty() => self.put_question(&live.question),
            // What was written since stays; the question is above it in the history.
            AskKind::New => {}
        }
    }

    /// The answer on its way.
    pub fn live(&self) -> Option<&Live> {
        match &self.busy {
            Busy::Answering(live) => Some(live),
            _ => None,
        }
    }

    /// Tells the model to end what it does.
    pub fn stop(&mut self) -> bool {
        match &mut self.busy {
            Busy::Idle => false,
            Busy::Warming { cancel, .. } => {
                cancel.store(true, Ordering::Relaxed);
                false
            }
            Busy::Answering(live) => {
                live.stopping = true;
                live.cancel.store(true, Ordering::Relaxed);
                true
            }
        }
    }

    /// Has the conversation read, so that the next answer begins at once.
    pub fn warm(&mut self) -> Effect {
        let cancel = Arc::new(AtomicBool::new(false));
        self.busy = Busy::Warming { done: (0, 0), since: None, cancel: cancel.clone() };
        self.warming += 1;
        Effect::Work(ModelTask::Warm(cancel))
    }

    /// So many of the oldest turns are no longer part of the prompt: the mark below them moves.
    pub fn set_dropped(&mut self, dropped: usize) {
        if self.talk.dropped != dropped {
            self.transcript.changed_from(self.talk.dropped.min(dropped).saturating_sub(1));
            self.talk.dropped = dropped;
        }
    }

    /// Remembers a question.
    pub fn remember(&mut self, question: &str) {
        if self.recalled.as_ref().is_some_and(|(_, draft)| !draft.is_empty()) {
            // What stood there before an old question was looked at.
            let written = self.written().into_owned();
            self.input.set(&written);
        }
        self.recalled = None;
        if self.history.last().is_none_or(|last| last != question) {
            self.history.push(question.to_owned());
        }
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
    }

    /// Takes the speed of the answer.
    pub fn rate(&mut self, tokens_per_second: f64) {
        self.rates.push_back(tokens_per_second);
        if self.rates.len() > RATES {
            self.rates.pop_front();
        }
    }

    /// Whether something moves on the screen without a message.
    pub fn animated(&self) -> bool {
        self.flash.is_some()
            || !matches!(self.busy, Busy::Idle)
            || matches!(self.screen, Screen::Load(_))
            || self.draft_since.is_some()
    }

    /// What is being written: not an old question that is looked at, but what the input held before it.
    pub fn written(&self) -> Cow<'_, str> {
        let text = self.input.text();
        let is = |question: &str| *super::commands::written(question) == *text;
        let looked_at = self.recalled.as_ref().and_then(|(at, draft)| Some((self.history.get(*at)?, draft)));
        match (self.talk.turns.last(), looked_at) {
            (Some(last), _) if self.editing => both(&self.draft, if is(&last.question) { "" } else { text }),
            (_, Some((question, draft))) => both(draft, if is(question) { "" } else { text }),
            _ => Cow::Borrowed(text),
        }
    }

    /// What is being written and not sent, or sent and nobody has written it down yet; nothing of a conversation that
    /// leaves nothing.
    fn unsent(&self) -> Cow<'_, str> {
        if self.talk.private || self.input_private {
            return Cow::Borrowed("");
        }
        let written = self.written();
        match self.live() {
            Some(live) if !live.begun && live.ask != AskKind::Retry => {
                Cow::Owned(both(&live.question, &written).into_owned())
            }
            _ => written,
        }
    }

    /// What is to be kept of the message being written: a while after it changed, or at once.
    pub fn draft_due(&mut self, at_once: bool, now: Instant) -> Option<String> {
        self.input_private &= !self.input.is_empty();
        let unsent = self.unsent();
        if unsent == self.draft_kept {
            self.draft_since = None;
            return None;
        }
        let since = self.draft_since.unwrap_or(now);
        if now.saturating_duration_since(since) < DRAFT && !at_once {
            self.draft_since = Some(since);
            return None;
        }
        self.draft_kept = unsent.into_owned();
        self.draft_since = None;
        Some(self.draft_kept.clone())
    }

    /// The positions there are.
    pub fn context(&self) -> usize {
        self.chosen.as_ref().map_or(0, |chosen| chosen.settings.n_ctx)
    }

    /// The title of the conversation.
    pub fn title(&self) -> String {
        let first = || self.talk.turns.first().map(|turn| title_of(&turn.question));
        let live = || self.live().map(|live| title_of(&live.question));
        let given = self.talk.title.clone().filter(|title| !title.trim().is_empty());
        let title = given.or_else(first).or_else(live);
        title.map_or_else(|| self.say("New conversation", "新对话").to_owned(), |t| super::text::one_line(&t))
    }
}

/// Two texts below each other.
fn both<'a>(above: &'a str, below: &'a str) -> Cow<'a, str> {
    match (above.is_empty(), below.is_empty()) {
        (true, _) => Cow::Borrowed(below),
        (_, true) => Cow::Borrowed(above),
        _ => Cow::Owned(format!("{above}\n{below}")),
    }
}

/// What a person should know about the end of an answer.
pub fn stop_note(stop: Stop, lang: Lang) -> Option<&'static str> {
    match stop {
        Stop::EndToken(_) | Stop::Hook => None,
        Stop::MaxTokens => Some(lang.of("stopped: max_new_tokens is reached", "已停止：达到 max_new_tokens")),
        Stop::ContextFull => Some(lang.of("stopped: the context is full", "已停止：上下文已满")),
        Stop::Cancelled => Some(lang.of("stopped", "已停止")),
        Stop::BrokenLogits => Some(lang.of("the model gave no numbers", "模型没有给出数值")),
    }
}
