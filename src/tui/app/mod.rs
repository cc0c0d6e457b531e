//! The state of the program: a composition of parts, each of which holds its own. Messages change it
//! ([`App::update`]), [`super::view`] shows it.

mod act;
mod outcomes;
mod reports;
mod update;

use super::ask::Wish;
use super::chooser::Chooser;
use super::composer::Composer;
use super::event::Effect;
use super::interface::{Interface, Surroundings};
use super::leaving::Leaving;
use super::live::Busy;
use super::loading::Loading;
use super::messages::Messages;
use super::models::Models;
use super::panels::{PanelSource, Panels};
use super::prefs::Prefs;
use super::talk::TalkView;
use super::transcript::Made;
use super::worker::{DeskTask, ModelTask};
use crate::session::open::{SessionOptions, Source};
use ratatui::layout::Rect;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What stands before the input.
pub const MARK: &str = "> ";
/// Rows of text are not wider than this: longer ones are hard to read.
const MOST: usize = 110;

/// What the program was started with.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The model to open at once.
    pub source: Option<Source>,
    /// How models are opened.
    pub options: SessionOptions,
    /// Whether to begin a new conversation instead of going on with the last.
    pub fresh: bool,
    /// What environment and command line say about the interface.
    pub around: Surroundings,
    /// What was chosen before.
    pub prefs: Prefs,
    /// The configuration file and keys in it that mean nothing, if there are some.
    pub unknown_keys: Option<(PathBuf, Vec<String>)>,
}

/// What is on the screen.
pub enum Screen {
    /// A model is chosen.
    Choose(Chooser),
    /// One is being opened.
    Load(Loading),
    /// The conversation.
    Chat,
}

/// Where things are on the screen, as the last layout has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The conversation.
    pub transcript: Rect,
    /// The input, without its mark.
    pub input: Rect,
}

/// The state.
pub struct App {
    options: SessionOptions,
    fresh: bool,
    /// Cells of the screen.
    size: (u16, u16),
    places: Places,
    screen: Screen,
    interface: Interface,
    panels: Panels,
    models: Models,
    talk: TalkView,
    composer: Composer,
    messages: Messages,
    leaving: Leaving,
    /// The file that was asked for last, as it was typed.
    asked: Option<(Wish, String)>,
    /// Bytes of memory in use.
    memory: Option<u64>,
}

impl App {
    /// The state at the start, and what is to be done first.
    pub fn new(start: Start, size: (u16, u16), now: Instant) -> (Self, Vec<Effect>) {
        let mut app = Self {
            options: start.options,
            fresh: start.fresh,
            size,
            places: Places::default(),
            screen: Screen::Choose(Chooser::default()),
            interface: Interface::new(start.prefs, start.around),
            panels: Panels::default(),
            models: Models::default(),
            talk: TalkView::default(),
            composer: Composer::default(),
            messages: Messages::default(),
            leaving: Leaving::default(),
            asked: None,
            memory: None,
        };
        let mut effects = vec![Effect::Desk(DeskTask::Models)];
        effects.extend(start.source.map(|source| app.load(source, now)));
        if let Some((path, keys)) = start.unknown_keys {
            let words = app.interface.words();
            let keys = keys.join(words.list_comma);
            app.messages.note((words.unknown_keys)(&keys, &path.display().to_string()), now);
        }
        (app, effects)
    }

    /// Cells of the screen: columns, rows.
    pub fn size(&self) -> (u16, u16) {
        self.size
    }

    /// Where things are on the screen.
    pub fn places(&self) -> Places {
        self.places
    }

    /// What is on the screen.
    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// How the interface looks.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// What lies over the chat.
    pub fn panels(&self) -> &Panels {
        &self.panels
    }

    /// The models.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The open conversation.
    pub fn talk(&self) -> &TalkView {
        &self.talk
    }

    /// The message that is being written.
    pub fn composer(&self) -> &Composer {
        &self.composer
    }

    /// The message at the bottom.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// Whether the program ends.
    pub fn is_quitting(&self) -> bool {
        self.leaving.is_quitting()
    }

    /// Whether something on the screen changes as time passes.
    pub fn animated(&self) -> bool {
        self.messages.current().is_some()
            || !matches!(self.talk.busy(), Busy::Idle)
            || matches!(self.screen, Screen::Load(_))
            || self.composer.is_draft_waiting()
    }

    /// What the open pane is read from.
    pub fn panel_source(&self) -> PanelSource<'_> {
        PanelSource {
            interface: &self.interface,
            chosen: self.models.chosen(),
            open_talk: self.talk.name(),
            screen: self.whole(),
        }
    }

    /// The whole screen.
    fn whole(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.size.0, height: self.size.1 }
    }

    /// Takes another size of the screen.
    pub fn resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
    }

    /// Lays out the screen, and makes the rows that are missing: before every frame, and before a message
    /// that depends on where things are.
    pub fn prepare(&mut self) {
        let (width, height) = self.size;
        let mark = MARK.len() as u16;
        let room = width.saturating_sub(mark);
        // Title, state and figures have a row each; the input at most a third of the screen.
        let most = (height / 3).max(1);
        let input = self.composer.input_mut();
        let rows = input.rows(usize::from(room)).len();
        let input_height = (rows.min(usize::from(most)) as u16).max(1);
        let transcript = Rect { x: 0, y: 1, width, height: height.saturating_sub(input_height + 3) };
        let place = Rect { x: mark, y: transcript.bottom() + 1, width: room, height: input_height };
        self.places = Places { transcript, input: place };
        let (row, _) = input.position(usize::from(room));
        let shown = usize::from(input_height);
        input.scroll = input.scroll.clamp(row.saturating_sub(shown - 1), row).min(rows.saturating_sub(shown));
        let screen = self.whole();
        self.panels.prepare(screen);
        match &mut self.screen {
            Screen::Choose(chooser) => chooser.prepare(&self.models, self.interface.ui(), screen),
            Screen::Chat => {
                // The last column is for the bar, and one stays free before it.
                let cells = usize::from(width).saturating_sub(2).clamp(2, MOST);
                let raw = self.interface.prefs().raw;
                let made = Made { cells, ui: self.interface.ui(), raw };
                self.talk.prepare(made, usize::from(transcript.height));
            }
            Screen::Load(_) => {}
        }
    }

    /// Begins to open a model.
    pub fn load(&mut self, source: Source, now: Instant) -> Effect {
        let name = match &source {
            Source::File(path) => {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                name.unwrap_or_else(|| path.display().to_string())
            }
            #[cfg(feature = "demo")]
            Source::Demo => self.interface.words().demo_name.to_owned(),
            Source::Memory(reader) => reader.name().to_owned(),
            Source::Random(model) => model.name.clone(),
        };
        let cancel = Arc::new(AtomicBool::new(false));
        self.screen = Screen::Load(Loading::new(name, now, cancel.clone()));
        self.panels.close();
        self.models.open(source.clone());
        // The open conversation goes on with the engine that was chosen for it.
        let options = self.models.chosen().map_or(&self.options, |chosen| &chosen.options).clone();
        Effect::Work(ModelTask::Load { source, options, cancel })
    }

    /// Asks for the list of conversations, if its pane is open.
    fn relist(&self) -> Vec<Effect> {
        let searched = self.panels.searched().map(str::to_owned);
        searched.into_iter().map(|text| Effect::Desk(DeskTask::List(text))).collect()
    }

    /// Puts another conversation on the screen; an answer on its way ends and stays with its own
    /// conversation.
    fn switch(&mut self, task: ModelTask) -> Vec<Effect> {
        let effect = self.talk.switch(task);
        self.composer.leave_editing();
        self.composer.leave_recalled(self.talk.last_question());
        // The message was about the other one.
        self.messages.clear();
        vec![effect]
    }

    /// Whether another conversation is on its way to the screen; says so.
    fn is_switching(&mut self, now: Instant) -> bool {
        if self.talk.is_switching() {
            self.messages.note(self.interface.words().opening_conversation, now);
        }
        self.talk.is_switching()
    }
}
