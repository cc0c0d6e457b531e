//! What follows when a pane says what happened in it.

use super::{App, Screen};
use crate::session::open::Source;
use crate::tui::ask::{AskOutcome, AskPane, Wish};
use crate::tui::chooser::ChooserOutcome;
use crate::tui::event::Effect;
use crate::tui::export::{self, Exported};
use crate::tui::help::HelpPane;
use crate::tui::panels::{Panel, PanelOutcome};
use crate::tui::settings::{self, Item, SettingsOutcome};
use crate::tui::talks::TalksOutcome;
use crate::tui::worker::{Chosen, Completed, DeskTask, ModelTask, path_of};
use jiff::ZonedDateTime;
use std::time::Instant;

/// Ways to complete a path that are shown at most.
const NAMES: usize = 20;

impl App {
    /// Of the choice of a model.
    pub(super) fn chooser_outcome(&mut self, outcome: ChooserOutcome, now: Instant) -> Vec<Effect> {
        match outcome {
            ChooserOutcome::Stay => {}
            ChooserOutcome::Open(source) => return vec![self.load(source, now)],
            ChooserOutcome::AskPath(text) => {
                self.panels.show(Panel::Ask(AskPane::new(Wish::Model, &text)));
            }
            ChooserOutcome::Leave if self.models.about().is_some() => self.screen = Screen::Chat,
            ChooserOutcome::Leave => return self.quit(now),
            ChooserOutcome::Help => self.panels.show(Panel::Help(HelpPane::default())),
            ChooserOutcome::OtherLanguage => return self.other_language(),
            ChooserOutcome::Typed(c) => {
                self.composer.input_mut().insert(c.encode_utf8(&mut [0; 4]));
                self.messages.note(self.interface.words().message_waits, now);
            }
        }
        Vec::new()
    }

    /// Of what lies over the chat.
    pub(super) fn panel_outcome(&mut self, outcome: PanelOutcome, now: Instant) -> Vec<Effect> {
        match outcome {
            PanelOutcome::Stay => Vec::new(),
            PanelOutcome::Close => self.close(),
            PanelOutcome::Settings(outcome) => self.settings_outcome(outcome, now),
            PanelOutcome::Talks(outcome) => self.talks_outcome(outcome, now),
            PanelOutcome::Ask(outcome) => self.ask_outcome(outcome, now),
        }
    }

    fn close(&mut self) -> Vec<Effect> {
        self.panels.close();
        Vec::new()
    }

    fn ask_outcome(&mut self, outcome: AskOutcome, now: Instant) -> Vec<Effect> {
        match outcome {
            AskOutcome::Stay => Vec::new(),
            AskOutcome::Close => self.close(),
            AskOutcome::Complete(text) => vec![Effect::Desk(DeskTask::Complete(text))],
            AskOutcome::Forget => {
                self.panels.close();
                self.talk.set_private();
                vec![Effect::Work(ModelTask::Private(true))]
            }
            AskOutcome::Submit(wish, text) => {
                self.panels.close();
                self.wish(wish, &text, now)
            }
        }
    }

    /// Does what was asked for with the line that was typed.
    pub(super) fn wish(&mut self, wish: Wish, text: &str, now: Instant) -> Vec<Effect> {
        let path = path_of(text);
        self.asked = matches!(wish, Wish::Attach | Wish::Export).then(|| (wish, text.to_owned()));
        match wish {
            Wish::Attach => vec![Effect::Desk(DeskTask::Attach(path))],
            Wish::Export => vec![Effect::Desk(DeskTask::Export(path, self.exported()))],
            Wish::Model => vec![self.load(Source::File(path), now)],
            Wish::Forget => Vec::new(),
        }
    }

    /// The conversation as Markdown.
    fn exported(&self) -> String {
        let exported = Exported {
            talk: &self.talk,
            about: self.models.about(),
            system: self.models.chosen().and_then(|chosen| chosen.settings.system.as_deref()),
        };
        export::markdown(&exported, self.interface.words(), &ZonedDateTime::now())
    }

    /// The file that was asked for last could not be read or written: its path can be mended.
    pub(super) fn ask_again(&mut self) {
        if let (None, Screen::Chat, Some((wish, text))) =
            (self.panels.open(), &self.screen, self.asked.take())
        {
            self.panels.show(Panel::Ask(AskPane::new(wish, &text)));
        }
    }

    /// Takes a path that was completed, unless something else is typed by now.
    pub(super) fn completed(&mut self, completed: &Completed, now: Instant) {
        let Completed { typed, text, names } = completed;
        if !self.panels.complete(typed, text) || text != typed {
            return;
        }
        if names.is_empty() {
            self.messages.note(self.interface.words().nothing_to_complete, now);
        } else {
            let more = if names.len() > NAMES { "  …" } else { "" };
            self.messages.note(names[..names.len().min(NAMES)].join("  ") + more, now);
        }
    }

    fn talks_outcome(&mut self, outcome: TalksOutcome, now: Instant) -> Vec<Effect> {
        match outcome {
            TalksOutcome::Stay => Vec::new(),
            TalksOutcome::Close => self.close(),
            TalksOutcome::Search => self.relist(),
            TalksOutcome::New => {
                self.panels.close();
                self.switch(ModelTask::New)
            }
            TalksOutcome::Open(name) => {
                self.panels.close();
                // The one that is open stays as it is, an answer on its way included.
                if self.talk.name() == Some(&name) && !self.talk.is_switching() {
                    return Vec::new();
                }
                self.switch(ModelTask::Open(name))
            }
            TalksOutcome::Rename(name, title) => self.rename(name, title, now),
            TalksOutcome::Delete(name) => self.delete(name, now),
            TalksOutcome::Undelete(trashed) => {
                // The next key asks for another one.
                if let Some(name) = &trashed {
                    self.panels.talks_mut().restored(name);
                }
                vec![Effect::Desk(DeskTask::Undelete(trashed))]
            }
        }
    }

    /// Gives a conversation of the list another title; the open one is written by the model's thread.
    fn rename(&mut self, name: String, title: String, now: Instant) -> Vec<Effect> {
        let open = self.talk.name() == Some(&name);
        if open && self.is_switching(now) {
            return Vec::new();
        }
        self.panels.talks_mut().rename(&name, &title);
        if open {
            return vec![Effect::Work(ModelTask::Rename(title))];
        }
        let mut effects = vec![Effect::Desk(DeskTask::Rename(name, title))];
        effects.extend(self.relist());
        effects
    }

    /// Throws a conversation of the list away.
    fn delete(&mut self, name: String, now: Instant) -> Vec<Effect> {
        let open = self.talk.name() == Some(&name);
        if open && self.is_switching(now) {
            return Vec::new();
        }
        self.panels.remove(&name);
        match open {
            true => self.switch(ModelTask::Delete),
            false => vec![Effect::Desk(DeskTask::Delete(name))],
        }
    }

    fn settings_outcome(&mut self, outcome: SettingsOutcome, now: Instant) -> Vec<Effect> {
        match outcome {
            SettingsOutcome::Stay => Vec::new(),
            SettingsOutcome::Close => self.close(),
            SettingsOutcome::Put(item, text) => self.put_setting(item, &text, now),
            SettingsOutcome::Step(Item::Setting(name), up) => {
                self.choose(|chosen| settings::step(chosen, name, up), now)
            }
            SettingsOutcome::Step(item, up) => {
                settings::step_pref(&mut self.interface, item, up);
                self.interface_changed(item)
            }
            SettingsOutcome::Reset(name) => {
                let Some(fresh) = self.models.fresh().cloned() else { return Vec::new() };
                self.choose(|chosen| settings::reset(chosen, &fresh, name), now)
            }
        }
    }

    /// Sets what was typed, or says what it must be.
    pub(super) fn put_setting(&mut self, item: Item, text: &str, now: Instant) -> Vec<Effect> {
        let Item::Setting(name) = item else {
            return match settings::set_pref(&mut self.interface, item, text.trim()) {
                Ok(()) => self.interface_changed(item),
                Err(what) => self.refuse(item, &what, now),
            };
        };
        let mut refused = None;
        let set = |chosen: &mut Chosen| match settings::set(chosen, name, text) {
            Ok(()) => true,
            Err(invalid) => {
                refused = Some(invalid);
                false
            }
        };
        let effects = self.choose(set, now);
        match refused {
            Some(invalid) => self.refuse(item, &invalid.needed(self.interface.lang()), now),
            None => effects,
        }
    }

    /// Changes settings of the next answer, unless another conversation is on its way or `change` changes
    /// nothing.
    fn choose(&mut self, change: impl FnOnce(&mut Chosen) -> bool, now: Instant) -> Vec<Effect> {
        if self.is_switching(now) {
            return Vec::new();
        }
        let Some(mut chosen) = self.models.chosen().cloned() else { return Vec::new() };
        if !change(&mut chosen) {
            return Vec::new();
        }
        self.models.choose(chosen.clone());
        vec![Effect::Work(ModelTask::Keep(chosen))]
    }

    fn refuse(&mut self, item: Item, what: &str, now: Instant) -> Vec<Effect> {
        let ui = self.interface.ui();
        self.messages.error(format!("{}{}{what}", item.shown(ui), ui.words.colon), now);
        Vec::new()
    }

    /// What follows a change of the interface.
    fn interface_changed(&self, item: Item) -> Vec<Effect> {
        let mut effects = self.interface.keep();
        match item {
            Item::Mouse => effects.push(Effect::Mouse(self.interface.prefs().mouse)),
            Item::Colours => effects.push(Effect::Redraw),
            _ => {}
        }
        effects
    }
}
