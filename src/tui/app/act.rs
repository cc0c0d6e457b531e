//! What the keys of the chat and the commands do.

use super::{App, Screen};
use crate::tui::ask::{AskPane, Wish};
use crate::tui::chooser::Chooser;
use crate::tui::commands::{SlashCommand, command, message};
use crate::tui::event::Effect;
use crate::tui::export;
use crate::tui::help::HelpPane;
use crate::tui::keys::Action;
use crate::tui::panels::Panel;
use crate::tui::settings::{Item, SettingsPane, unknown};
use crate::tui::talks::TalksPane;
use crate::tui::worker::{AskKind, DeskTask, ModelTask};
use std::time::Instant;

impl App {
    /// Does what a key of the chat stands for.
    pub(super) fn act(&mut self, what: Action, now: Instant) -> Vec<Effect> {
        match what {
            Action::Send => return self.send(now),
            Action::Stop => {
                if !self.talk.stop() {
                    self.composer.leave_editing();
                    // It told how to leave.
                    self.messages.clear();
                }
            }
            Action::EndOfInput if self.composer.is_empty() => return self.quit(now),
            Action::Help => self.panels.show(Panel::Help(HelpPane::default())),
            Action::Settings => self.panels.show(Panel::Settings(SettingsPane::default())),
            Action::Talks => {
                self.panels.show(Panel::Talks(TalksPane::default()));
                return self.relist();
            }
            Action::Models => {
                if self.is_free(now) {
                    self.screen = Screen::Choose(Chooser::default());
                    return vec![Effect::Desk(DeskTask::Models)];
                }
            }
            Action::Retry => return self.retry(now),
            Action::Undo => return self.undo(now),
            Action::EditLast => self.edit_last(now),
            Action::BringBack => return self.bring_back(now),
            Action::Copy => return self.copy(now),
            Action::Attach => self.panels.show(Panel::Ask(AskPane::new(Wish::Attach, ""))),
            Action::New => return self.switch(ModelTask::New),
            Action::Export => {
                let name = export::name(&self.talk.title(self.interface.words()));
                self.panels.show(Panel::Ask(AskPane::new(Wish::Export, &name)));
            }
            Action::Raw => {
                self.interface.toggle_raw();
                return self.interface.keep();
            }
            Action::Private => return self.toggle_private(now),
            Action::Language => return self.other_language(),
            Action::Editor => return vec![Effect::Edit(self.composer.text().to_owned())],
            Action::PageUp => self.talk.transcript_mut().page(-1),
            Action::PageDown => self.talk.transcript_mut().page(1),
            Action::RowUp => self.talk.transcript_mut().scroll(-1),
            Action::RowDown => self.talk.transcript_mut().scroll(1),
            Action::Top => self.talk.transcript_mut().to_top(),
            Action::End => self.talk.transcript_mut().to_end(),
            Action::Unfold => self.talk.transcript_mut().unfold(),
            Action::Newline => self.composer.input_mut().insert("\n"),
            Action::EndOfInput => self.composer.input_mut().delete(),
            Action::InputUndo => self.composer.input_mut().undo(),
            Action::InputRedo => self.composer.input_mut().redo(),
            Action::Yank => self.composer.input_mut().yank(),
            Action::Interrupt | Action::Quit | Action::Redraw | Action::Suspend => {}
        }
        Vec::new()
    }

    /// Chooses the other language.
    pub(super) fn other_language(&mut self) -> Vec<Effect> {
        self.interface.set_lang(self.interface.lang().other());
        self.interface.keep()
    }

    fn retry(&mut self, now: Instant) -> Vec<Effect> {
        if !self.is_free(now) {
            return Vec::new();
        }
        match self.talk.last_question().map(str::to_owned) {
            Some(question) => self.ask(AskKind::Retry, question),
            None => self.nothing_said(now),
        }
    }

    fn undo(&mut self, now: Instant) -> Vec<Effect> {
        if !self.is_free(now) {
            return Vec::new();
        }
        let Some(question) = self.talk.undo() else { return self.nothing_said(now) };
        self.composer.remember(&question, self.talk.last_question());
        self.composer.leave_editing();
        let words = self.interface.words();
        if self.composer.is_empty() {
            self.composer.put_undone(&question);
            self.messages.note(words.undone, now);
        } else {
            self.messages.note(words.undone_history, now);
        }
        self.talk.undone()
    }

    /// Gives what was replaced last its place back: by another attempt, an edited question, or nothing.
    fn bring_back(&mut self, now: Instant) -> Vec<Effect> {
        if !self.is_free(now) {
            return Vec::new();
        }
        if !self.talk.has_replaced() {
            self.messages.note(self.interface.words().nothing_replaced, now);
            return Vec::new();
        }
        self.composer.leave_editing();
        self.composer.leave_recalled(self.talk.last_question());
        self.talk.bring_back()
    }

    fn edit_last(&mut self, now: Instant) {
        // The last question is known when the answer has ended.
        if self.is_busy(now) {
            return;
        }
        match self.talk.last_question() {
            Some(question) => {
                self.composer.edit(question);
                let [sends, _] = self.interface.prefs().send_and_newline();
                self.messages.note((self.interface.words().editing)(sends), now);
            }
            None => drop(self.nothing_said(now)),
        }
    }

    fn copy(&mut self, now: Instant) -> Vec<Effect> {
        let live = self.talk.live().map(|live| live.text.clone()).filter(|text| !text.is_empty());
        match live.or_else(|| self.talk.turns().last().map(|turn| turn.answer.clone())) {
            Some(text) => {
                self.messages.note(self.interface.words().copied, now);
                vec![Effect::Copy(text)]
            }
            None => self.nothing_said(now),
        }
    }

    fn toggle_private(&mut self, now: Instant) -> Vec<Effect> {
        if !self.is_free(now) {
            return Vec::new();
        }
        if !self.talk.is_private() && self.talk.name().is_some() {
            self.panels.show(Panel::Ask(AskPane::new(Wish::Forget, "")));
            return Vec::new();
        }
        vec![Effect::Work(ModelTask::Private(!self.talk.is_private()))]
    }

    fn nothing_said(&mut self, now: Instant) -> Vec<Effect> {
        self.messages.note(self.interface.words().nothing_said, now);
        Vec::new()
    }

    /// Whether the model answers, or another conversation is on its way; says so.
    fn is_busy(&mut self, now: Instant) -> bool {
        if self.talk.live().is_some() {
            self.messages.note(self.interface.words().model_is_busy, now);
            return true;
        }
        self.is_switching(now)
    }

    /// Whether the model is there for something new; says why not. What it reads in the background is given
    /// up.
    fn is_free(&mut self, now: Instant) -> bool {
        let free = !self.is_busy(now);
        if free {
            self.talk.stop();
        }
        free
    }

    /// Sends the message, or does the command that it is.
    pub(super) fn send(&mut self, now: Instant) -> Vec<Effect> {
        let text = self.composer.text().to_owned();
        if text.trim().is_empty() {
            return Vec::new();
        }
        if let Some(command) = command(&text) {
            return self.run(command, now);
        }
        if !self.is_free(now) {
            return Vec::new();
        }
        let message = message(&text).trim_end().to_owned();
        let revises = self.composer.is_editing() && !self.talk.turns().is_empty();
        self.composer.take_message();
        self.ask(if revises { AskKind::Revise } else { AskKind::New }, message)
    }

    fn ask(&mut self, ask: AskKind, question: String) -> Vec<Effect> {
        let Some(chosen) = self.models.chosen().cloned() else { return Vec::new() };
        self.composer.remember(&question, self.talk.last_question());
        // What the model does is what matters now.
        self.messages.clear();
        self.leaving.forget_interrupt();
        vec![self.talk.ask(ask, question, chosen)]
    }

    /// Does a command; the input is emptied if it can be done.
    fn run(&mut self, command: SlashCommand, now: Instant) -> Vec<Effect> {
        self.messages.clear();
        match command {
            SlashCommand::Unknown(name) => {
                self.messages.error((self.interface.words().no_command)(&name), now);
                return Vec::new();
            }
            SlashCommand::Rename(_) if self.is_switching(now) => return Vec::new(),
            SlashCommand::Revise(_) if !self.is_free(now) => return Vec::new(),
            _ => drop(self.composer.input_mut().take()),
        }
        match command {
            SlashCommand::Act(Action::Quit) => self.quit(now),
            SlashCommand::Act(action) => self.act(action, now),
            SlashCommand::Language(text) => self.put_setting(Item::Language, &text, now),
            SlashCommand::Set(key, value) => self.set(&key, &value, now),
            SlashCommand::AttachFile(path) => self.wish(Wish::Attach, &path, now),
            SlashCommand::ExportTo(path) => {
                let path = path.unwrap_or_else(|| export::name(&self.talk.title(self.interface.words())));
                self.wish(Wish::Export, &path, now)
            }
            SlashCommand::Rename(title) => vec![Effect::Work(ModelTask::Rename(title))],
            SlashCommand::Revise(_) if self.talk.turns().is_empty() => self.nothing_said(now),
            SlashCommand::Revise(question) => {
                self.composer.leave_editing();
                self.ask(AskKind::Revise, question)
            }
            SlashCommand::Open(name) => self.switch(ModelTask::Open(name)),
            SlashCommand::Saved => self.tell_saved(now),
            SlashCommand::Stats => self.tell_stats(now),
            SlashCommand::Unknown(_) => Vec::new(),
        }
    }

    /// Says what the last answer cost.
    fn tell_stats(&mut self, now: Instant) -> Vec<Effect> {
        let words = self.interface.words();
        match self.talk.stats().map(words.stats) {
            Some(stats) => self.messages.note(stats, now),
            None => self.messages.note(words.no_stats, now),
        }
        Vec::new()
    }

    /// Says where the conversation is saved.
    fn tell_saved(&mut self, now: Instant) -> Vec<Effect> {
        let words = self.interface.words();
        let said = match self.talk.name() {
            _ if self.talk.is_private() => words.is_private.to_owned(),
            Some(name) => (words.saved_as)(name),
            None => words.nothing_said.to_owned(),
        };
        self.messages.note(said, now);
        Vec::new()
    }

    /// Sets what was typed, and says so; without a value the settings are shown.
    fn set(&mut self, key: &str, value: &str, now: Instant) -> Vec<Effect> {
        match Item::find(key) {
            Some(item) if !value.is_empty() => {
                let effects = self.put_setting(item, value, now);
                if !effects.is_empty() {
                    self.messages.note(format!("{} = {value}", item.shown(self.interface.ui())), now);
                }
                effects
            }
            None if !key.is_empty() => {
                self.messages.error(unknown(key, self.interface.lang()), now);
                Vec::new()
            }
            _ => self.act(Action::Settings, now),
        }
    }
}
