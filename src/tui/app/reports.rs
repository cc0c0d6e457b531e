//! What the threads tell, to state: a function per part.

use super::{App, Screen};
use crate::session::Event;
use crate::session::open::{About, SessionOptions};
use crate::settings::InvalidSetting;
use crate::tui::chooser::Chooser;
use crate::tui::event::Effect;
use crate::tui::failure::Failure;
use crate::tui::live::Live;
use crate::tui::talk::{TalkNote, Told};
use crate::tui::worker::{AskKind, Chosen, DeskTask, ModelEntry, ModelTask, Report, Talk};
use std::path::Path;
use std::time::Instant;

/// Settings that are not used, and named in a message, at most.
const NOTES: usize = 2;

impl App {
    /// Takes a report.
    pub(super) fn report(&mut self, report: Report, now: Instant) -> Vec<Effect> {
        match report {
            // The model.
            Report::Loading(step, done, total) => {
                if let Screen::Load(loading) = &mut self.screen {
                    loading.progress(step, done, total);
                }
            }
            Report::Ready { about, fresh, chosen } => return self.ready(*about, *fresh, *chosen),
            Report::LoadFailed(why) => return self.load_failed(why),
            Report::Refused(why) => return self.choose_again(why),
            Report::Reopening => self.messages.note(self.interface.words().reopening, now),
            Report::Reopened(about, back) => self.reopened(*about, back, now),
            Report::Memory(bytes) => self.memory = Some(bytes),
            Report::Models(found, available) => self.models_listed(found, available),
            // The open conversation.
            Report::Event(event) => self.event(event, now),
            Report::Talk(talk) => return self.told(*talk, now),
            Report::Answered(error) => self.answered(error, now),
            Report::Begun => self.talk.begun(),
            Report::Warmed { filled, dropped } => self.talk.warmed(filled, dropped),
            Report::Named(name, title) => {
                self.talk.named(name, title);
                return self.relist();
            }
            Report::NotOpened(why) => {
                self.talk.not_opened();
                if let Some(why) = why {
                    self.fail(&why, now);
                }
                return self.relist();
            }
            Report::NotSaved(why) => self.not_saved(why, now),
            Report::Saved => {
                self.leaving.forget_wish();
                if self.talk.saved() {
                    self.messages.note(self.interface.words().saved_again, now);
                }
            }
            Report::BroughtBack => {
                let again = self.talk.has_replaced();
                self.messages.note((self.interface.words().brought_back)(again), now);
            }
            Report::InvalidSettings(invalid) => self.invalid(&invalid, now),
            Report::Moved => {
                self.messages.error(self.interface.words().moved, now);
                self.talk.saved();
                self.leaving.forget_wish();
            }
            report => return self.desk_report(report, now),
        }
        Vec::new()
    }

    /// Takes a report of the desk.
    fn desk_report(&mut self, report: Report, now: Instant) -> Vec<Effect> {
        let words = self.interface.words();
        match report {
            Report::Talks(text, found) => self.panels.listed(&text, found),
            Report::Deleted(name) => {
                self.panels.talks_mut().trashed(name);
                self.messages.note(words.deleted, now);
                return self.relist();
            }
            Report::Undeleted(trashed, name) => {
                self.panels.restored(&trashed, name);
                return self.relist();
            }
            Report::Draft(text, others) => {
                self.composer.adopt(text);
                self.messages.note((words.draft_back)(others), now);
                return vec![Effect::Desk(DeskTask::DraftTaken)];
            }
            Report::DraftNotKept(why) => {
                self.messages.error(format!("{}{}", words.draft_not_kept, (words.failure)(&why)), now);
            }
            Report::Exported(path) => {
                self.messages.note(format!("{}{}", words.written, path.display()), now);
            }
            Report::Attached(path, text, encoding) => self.attached(&path, &text, encoding, now),
            Report::Completed(completed) => self.completed(&completed, now),
            Report::PathFailed(why) => {
                self.ask_again();
                self.fail(&why, now);
            }
            Report::DeskFailed(why) => {
                self.fail(&why, now);
                // What was shown as done already is not.
                return self.relist();
            }
            _ => {}
        }
        Vec::new()
    }

    /// Says which settings of a model or a conversation are not used, the first of many.
    fn invalid(&mut self, invalid: &[InvalidSetting], now: Instant) {
        let (words, lang) = (self.interface.words(), self.interface.lang());
        let mut notes = Vec::from_iter(invalid.iter().take(NOTES).map(|invalid| invalid.note(lang)));
        if invalid.len() > NOTES {
            notes.push((words.and_more)(invalid.len() - NOTES));
        }
        self.messages.note(notes.join(words.semicolon), now);
    }

    /// Says that something did not work.
    fn fail(&mut self, why: &Failure, now: Instant) {
        self.messages.error((self.interface.words().failure)(why), now);
    }

    /// A model is open.
    fn ready(&mut self, about: About, fresh: Chosen, chosen: Chosen) -> Vec<Effect> {
        let first = self.models.ready(about, fresh, chosen);
        self.screen = Screen::Chat;
        self.talk.model_ready();
        if !first && !self.talk.turns().is_empty() {
            // What this model makes of the conversation.
            return vec![self.talk.warm()];
        }
        if !first || self.fresh {
            return Vec::new();
        }
        vec![self.talk.switch(ModelTask::Resume)]
    }

    /// No model is open any more. The question that was asked is not lost; the exchange that it was to
    /// replace may be, then it is a question of its own.
    fn load_failed(&mut self, why: Failure) -> Vec<Effect> {
        self.composer.leave_editing();
        if let Some(live) = self.talk.model_lost()
            && live.ask != AskKind::Retry
        {
            self.composer.give_back(&live.question);
        }
        self.models.lost();
        self.panels.close();
        self.choose_again(why)
    }

    /// Back to the choice of a model.
    fn choose_again(&mut self, why: Failure) -> Vec<Effect> {
        self.screen = Screen::Choose(Chooser::after_failure(why, &self.models));
        vec![Effect::Desk(DeskTask::Models)]
    }

    /// The engine was opened again; with the options it had before, if the others did not work.
    fn reopened(&mut self, about: About, back: Option<(Box<SessionOptions>, Failure)>, now: Instant) {
        self.models.reopened(about);
        // It is not being opened any more.
        self.messages.clear();
        if let Some((options, why)) = back {
            if let Some(chosen) = self.models.chosen().cloned() {
                self.models.choose(Chosen { options: *options, ..chosen });
            }
            self.fail(&why, now);
        }
    }

    fn models_listed(&mut self, found: Vec<ModelEntry>, available: Option<u64>) {
        let before = self.models.listed(found, available);
        if let Screen::Choose(chooser) = &mut self.screen {
            chooser.relisted(before.as_deref(), &self.models);
        }
    }

    fn event(&mut self, event: Event, now: Instant) {
        let words = self.interface.words();
        match self.talk.event(event, now) {
            Some(TalkNote::Dropped(exchanges, limit)) => {
                self.messages.note((words.dropped)(exchanges, limit), now);
            }
            Some(TalkNote::Notice(notice)) => self.messages.note((words.notice)(&notice), now),
            None => {}
        }
    }

    /// The answer ended, or failed: then its question is not lost.
    fn answered(&mut self, error: Option<Failure>, now: Instant) {
        let live = self.talk.answered();
        match (live, error) {
            (Some(live), Some(error)) => {
                self.fail(&error, now);
                self.give_back(&live);
            }
            // What the model noted about the answer comes first.
            (Some(live), None)
                if live.ask != AskKind::New
                    && self.talk.has_replaced()
                    && self.messages.current().is_none() =>
            {
                self.messages.note(self.interface.words().can_bring_back, now);
            }
            _ => {}
        }
    }

    fn give_back(&mut self, live: &Live) {
        match live.ask {
            AskKind::Retry => {}
            // The exchange that it would replace is one of another conversation.
            AskKind::Revise if self.talk.is_switching() => {}
            AskKind::Revise => self.composer.edit_again(&live.question),
            AskKind::New => self.composer.give_back(&live.question),
        }
    }

    fn not_saved(&mut self, why: Failure, now: Instant) {
        let words = self.interface.words();
        self.messages.error(format!("{}{}", words.not_saved, (words.failure)(&why)), now);
        self.talk.not_saved(why);
        self.leaving.forget_wish();
    }

    /// Takes the conversation as it is now.
    fn told(&mut self, talk: Talk, now: Instant) -> Vec<Effect> {
        let copy = talk.copy;
        let Told { switched, chosen, left_private, became_private } = self.talk.told(talk);
        if let Some(turns) = left_private {
            self.composer.leave_private(&turns);
        }
        if became_private {
            self.composer.enter_private();
        }
        // The list shows titles and times.
        let mut effects = self.relist();
        if !switched {
            return effects;
        }
        if let Some(chosen) = chosen {
            self.models.choose(chosen);
        }
        self.composer.leave_recalled(self.talk.last_question());
        for turn in self.talk.turns() {
            self.composer.remember(&turn.question, self.talk.last_question());
        }
        let words = self.interface.words();
        if copy {
            self.messages.note(words.goes_on_in_copy, now);
        } else if self.talk.is_others() {
            self.messages.note(words.others_answer, now);
        }
        effects.extend(self.talk.warm_if_idle());
        effects
    }

    /// Puts a text file into the message, in a fence of its own.
    fn attached(&mut self, path: &Path, text: &str, encoding: Option<&str>, now: Instant) {
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let fence = if text.contains("```") { "~~~~" } else { "```" };
        let input = self.composer.input_mut();
        let before = if input.is_empty() || input.before().ends_with('\n') { "" } else { "\n" };
        input.insert(&format!("{before}{name}\n{fence}\n{}\n{fence}\n", text.trim_end()));
        if let Some(encoding) = encoding {
            self.messages.note((self.interface.words().read_as)(encoding), now);
        }
    }
}
