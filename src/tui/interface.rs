//! The part of the state that says how the interface looks: what was chosen, and what holds for this run
//! only.

use super::event::Effect;
use super::look::{Lang, Look, Theme};
use super::prefs::Prefs;
use super::words::{Words, words};
use super::worker::DeskTask;

/// What the environment and the command line say about the interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings {
    /// The language of the locale.
    pub lang: Lang,
    /// The colours that suit the terminal.
    pub theme: Theme,
    /// Only ASCII for lines and bars.
    pub ascii: bool,
    /// The language that was typed: it goes before the one chosen before, and is not kept.
    pub typed_lang: Option<Lang>,
    /// No colours in this run, whatever was chosen before.
    pub no_color: bool,
}

/// The part.
pub struct Interface {
    prefs: Prefs,
    around: Surroundings,
}

/// What a pane needs to be shown: words, colours and glyphs.
#[derive(Clone, Copy)]
pub struct Ui {
    /// Words of the language.
    pub words: &'static Words,
    /// Colours and glyphs.
    pub look: Look,
    /// The language.
    pub lang: Lang,
}

impl Interface {
    /// What was chosen before, in these surroundings.
    pub fn new(prefs: Prefs, around: Surroundings) -> Self {
        Self { prefs, around }
    }

    /// What was chosen.
    pub fn prefs(&self) -> &Prefs {
        &self.prefs
    }

    /// The language.
    pub fn lang(&self) -> Lang {
        self.around.typed_lang.or(self.prefs.lang).unwrap_or(self.around.lang)
    }

    /// How things look.
    pub fn look(&self) -> Look {
        let theme = self.prefs.theme.filter(|_| !self.around.no_color).unwrap_or(self.around.theme);
        Look { theme, ascii: self.around.ascii }
    }

    /// The words of the language.
    pub fn words(&self) -> &'static Words {
        words(self.lang())
    }

    /// All that a pane needs to be shown.
    pub fn ui(&self) -> Ui {
        Ui { words: self.words(), look: self.look(), lang: self.lang() }
    }

    /// Chooses the language.
    pub fn set_lang(&mut self, lang: Lang) {
        (self.prefs.lang, self.around.typed_lang) = (Some(lang), None);
    }

    /// Chooses the colours.
    pub fn set_theme(&mut self, theme: Theme) {
        (self.prefs.theme, self.around.no_color) = (Some(theme), false);
    }

    /// Chooses the key that sends.
    pub fn set_enter_sends(&mut self, sends: bool) {
        self.prefs.enter_sends = sends;
    }

    /// Chooses whether this program or the terminal has the mouse.
    pub fn set_mouse(&mut self, mouse: bool) {
        self.prefs.mouse = mouse;
    }

    /// Answers as Markdown, or as they are.
    pub fn toggle_raw(&mut self) {
        self.prefs.raw = !self.prefs.raw;
    }

    /// Keeps what was chosen for the next start.
    pub fn keep(&self) -> Vec<Effect> {
        let text = serde_json::to_string_pretty(&self.prefs);
        text.into_iter().map(|text| Effect::Desk(DeskTask::Prefs(text))).collect()
    }
}
