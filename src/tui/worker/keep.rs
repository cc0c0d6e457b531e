//! Where the open conversation is kept, and what is written there.

use super::desk;
use super::model::Worker;
use super::{Report, Talk};
use crate::session::open::Options;
use crate::session::store::{self, Choices, Conversation, Writer};
use crate::session::{Settings, Turn};
use crate::tui::failure::Failure;
use std::io::ErrorKind;

/// The open conversation beside what was said in it.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) writer: Option<Writer>,
    pub(super) title: Option<String>,
    pub(super) private: bool,
    pub(super) copy: bool,
    /// Not all of it is on disk, though it should be.
    pub(super) unsaved: bool,
    pub(super) choices: Option<Choices>,
    /// The engine that its next answer is to come from; `None` is the one that is open.
    pub(super) options: Option<Options>,
}

impl Worker {
    /// The conversation as it is to stand on disk; without an exchange that has no answer when a question follows.
    pub(super) fn conversation(&self, question_follows: bool) -> Conversation {
        let Some((turns, settings, _)) = self.said() else { return Conversation::default() };
        let mut turns = turns.to_vec();
        if question_follows && turns.last().is_some_and(Turn::is_empty) {
            turns.pop();
        }
        let system = settings.system.clone();
        Conversation { title: self.talk.title.clone(), system, choices: self.talk.choices.clone(), turns }
    }

    /// What was said, with which settings, and the fingerprint of the model, be it open or not.
    fn said(&self) -> Option<(&[Turn], &Settings, &str)> {
        match (&self.model, &self.left) {
            (Some(model), _) => {
                Some((model.session.turns(), model.session.settings(), &model.about.fingerprint))
            }
            (None, Some(left)) => Some((&left.turns, &left.settings, &left.fingerprint)),
            (None, None) => None,
        }
    }

    /// Writes to the conversation's file, which is made if there is none; what fails is told.
    pub(super) fn write(&mut self, write: impl Fn(&Self, &mut Writer) -> Result<(), store::Error>) {
        if let Err(why) = self.try_write(write) {
            (self.send)(Report::NotSaved(why));
        }
    }

    /// The same; gives what fails.
    fn try_write(
        &mut self,
        write: impl Fn(&Self, &mut Writer) -> Result<(), store::Error>,
    ) -> Result<(), Failure> {
        let Some(fingerprint) = self.said().map(|(_, _, fingerprint)| fingerprint.to_owned()) else {
            return Ok(());
        };
        if self.talk.private {
            return Ok(());
        }
        let before = self.talk.writer.as_ref().map(|writer| writer.name().to_owned());
        let Some(folder) = self.setup.folder.clone() else {
            if !std::mem::replace(&mut self.homeless, true) {
                (self.send)(Report::DeskFailed(desk::homeless()));
            }
            return Ok(());
        };
        let mut result = Ok(());
        // Twice: what somebody took away while it was written is written to another file.
        for _ in 0..2 {
            let writer = match self.talk.writer.take() {
                Some(writer) => Ok(writer),
                None => Writer::create(&folder, &fingerprint),
            };
            result = writer.and_then(|mut writer| {
                let result = write(self, &mut writer);
                let gone = matches!(result, Err(store::Error::Gone { .. }));
                if result.is_ok() {
                    self.talk.title = writer.title().map(str::to_owned);
                    self.talk.copy = false;
                }
                if gone {
                    self.uncache(writer.name());
                    (self.send)(Report::Moved);
                } else if !writer.is_empty() {
                    self.talk.writer = Some(writer);
                }
                result
            });
            if !matches!(result, Err(store::Error::Gone { .. })) {
                break;
            }
        }
        match result {
            Ok(()) => {
                let writer =
                    self.talk.writer.as_ref().filter(|writer| Some(writer.name()) != before.as_deref());
                if let Some(writer) = writer {
                    (self.send)(Report::Named(writer.name().to_owned(), self.talk.title.clone()));
                }
                if std::mem::take(&mut self.talk.unsaved) {
                    (self.send)(Report::Saved);
                }
                Ok(())
            }
            Err(error) => {
                self.talk.unsaved = true;
                Err(error.into())
            }
        }
    }

    pub(super) fn save(&mut self) {
        self.write(|worker, writer| writer.finish(&worker.conversation(false), None));
    }

    /// Saves what changed about a conversation that is on disk, or should be.
    pub(super) fn save_if_kept(&mut self) {
        if self.talk.writer.is_some() || self.talk.unsaved {
            self.save();
        }
    }

    /// Saves what could not be saved; why that fails.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        if !self.talk.unsaved || self.talk.private {
            return Ok(());
        }
        self.try_write(|worker, writer| writer.finish(&worker.conversation(false), None))
    }

    /// The same before another conversation takes the place of this one; as the reason not to open it.
    pub(super) fn settle_first(&mut self) -> Result<(), Option<Failure>> {
        self.settle().map_err(|why| {
            Some(why.after(
                "the open conversation is not saved (Alt+P gives it up): ",
                "当前对话尚未保存（Alt+P 放弃保存）：",
            ))
        })
    }

    pub(super) fn rename(&mut self, title: String) {
        self.talk.title = Some(title);
        self.save_if_kept();
        self.tell();
    }

    pub(super) fn private(&mut self, private: bool) {
        self.talk.private = private;
        self.talk.unsaved &= !private;
        match (private, self.talk.writer.take()) {
            (true, Some(writer)) => {
                let name = writer.name().to_owned();
                self.uncache(&name);
                drop(writer);
                let Some(folder) = self.setup.folder.clone() else { return };
                if let Err(error) = store::erase(&folder, &name) {
                    // It is there: it goes on being saved.
                    self.take_hold(&name);
                    self.talk.private = false;
                    (self.send)(Report::DeskFailed(error.into()));
                }
            }
            (_, writer) => {
                self.talk.writer = writer;
                if self.model.as_ref().is_some_and(|model| !model.session.turns().is_empty()) {
                    self.save();
                }
            }
        }
        self.tell();
    }

    /// Holds the file again that was let go.
    fn take_hold(&mut self, name: &str) {
        if let (Some(folder), Some(model)) = (&self.setup.folder, &self.model) {
            let writer = Writer::open(folder, name, &model.about.fingerprint);
            self.talk.writer = writer.ok().map(|(writer, _)| writer);
        }
    }

    pub(super) fn delete(&mut self) {
        if let (Some(writer), Some(folder)) = (self.talk.writer.take(), self.setup.folder.clone()) {
            let name = writer.name().to_owned();
            // Whoever moves the file must have its lock.
            drop(writer);
            match store::delete(&folder, &name) {
                Ok(trashed) => {
                    self.uncache(&name);
                    (self.send)(Report::Deleted(trashed));
                }
                // Somebody was faster.
                Err(store::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    self.take_hold(&name);
                    return (self.send)(Report::NotOpened(Some(error.into())));
                }
            }
        }
        self.begin();
        self.tell_with(true);
    }

    pub(super) fn tell(&self) {
        self.tell_with(false);
    }

    pub(super) fn tell_with(&self, opened: bool) {
        let Some(model) = &self.model else { return };
        (self.send)(Report::Talk(Box::new(Talk {
            name: self.talk.writer.as_ref().map(|writer| writer.name().to_owned()),
            title: self.talk.title.clone(),
            turns: model.session.turns().to_vec(),
            dropped: model.session.dropped(),
            private: self.talk.private,
            copy: self.talk.copy,
            opened,
            chosen: self.chosen().filter(|_| opened),
        })));
    }
}
