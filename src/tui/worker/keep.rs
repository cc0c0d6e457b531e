//! What the model's thread writes of the open conversation.

use super::kept::Shelf;
use super::state::ModelWorker;
use super::task::{Report, Talk};
use crate::session::Turn;
use crate::session::store::{self, Conversation, Error, Writer};
use crate::tui::failure::Failure;
use std::time::{Duration, Instant};

/// A second wish to leave what cannot be saved counts if it comes this soon.
const AFTER_ALL: Duration = Duration::from_secs(10);
/// And not sooner than this: a key that is held down is one wish.
const LEAST: Duration = Duration::from_millis(300);

impl ModelWorker {
    /// The conversation as it is to stand on disk; without an exchange that has no answer when a question
    /// follows.
    pub(super) fn conversation(&self, question_follows: bool) -> Conversation {
        let Some((turns, settings, _)) = self.said() else { return Conversation::default() };
        let mut turns = turns.to_vec();
        if question_follows && turns.last().is_some_and(Turn::is_empty) {
            turns.pop();
        }
        let system = settings.system.clone();
        let (title, choices) = (self.talk.title.clone(), self.talk.choices.clone());
        Conversation { title, system, choices, turns, date: self.date(), ..Conversation::default() }
    }

    /// Writes to the conversation's file, which is made if there is none; what fails is told.
    pub(super) fn write(&mut self, write: impl FnMut(&mut Writer) -> Result<(), Error>) {
        if let Err(why) = self.try_write(write) {
            (self.send)(Report::NotSaved(why));
        }
    }

    /// The same; gives what fails.
    fn try_write(&mut self, write: impl FnMut(&mut Writer) -> Result<(), Error>) -> Result<(), Failure> {
        let Some(fingerprint) = self.said().map(|(_, _, fingerprint)| fingerprint.to_owned()) else {
            return Ok(());
        };
        if self.talk.private {
            return Ok(());
        }
        let Some(folder) = &self.setup.folder else {
            if !std::mem::replace(&mut self.no_folder_reported, true) {
                (self.send)(Report::DeskFailed(Failure::NoPlaceForConversations));
            }
            return Ok(());
        };
        let shelf = Shelf { folder, fingerprint: &fingerprint, send: &self.send };
        let result = self.talk.write(&shelf, write);
        self.forget_gone();
        result
    }

    /// Removes the keys and values of conversations whose files another program took away.
    pub(super) fn forget_gone(&mut self) {
        for name in std::mem::take(&mut self.talk.gone) {
            self.uncache(&name);
        }
    }

    /// Makes the file say what was said.
    pub(super) fn save(&mut self) {
        if let Err(why) = self.try_save() {
            (self.send)(Report::NotSaved(why));
        }
    }

    fn try_save(&mut self) -> Result<(), Failure> {
        let conversation = self.conversation(false);
        if self.talk.writer.is_none() && conversation.turns.is_empty() {
            // Nothing is said, or all of it taken back before it could be saved.
            if std::mem::take(&mut self.talk.unsaved) {
                (self.send)(Report::Saved);
            }
            return Ok(());
        }
        self.try_write(|writer| writer.finish(&conversation, None))
    }

    /// Saves what changed about a conversation that is on disk, or should be.
    pub(super) fn save_if_kept(&mut self) {
        if self.talk.writer.is_some() || self.talk.unsaved {
            self.save();
        }
    }

    /// Saves what could not be saved, or is not there any more; why that fails.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        let touched = self.talk.writer.as_mut().is_some_and(Writer::is_touched);
        if self.talk.unsaved || touched { self.try_save() } else { Ok(()) }
    }

    /// The same before another conversation takes the place of this one; the reason not to open it, the first
    /// time.
    pub(super) fn settle_first(&mut self) -> Result<(), Option<Failure>> {
        let Err(why) = self.settle() else { return Ok(()) };
        // A key that is held down is one wish.
        let before = self.talk.left.replace(Instant::now()).map(|then| then.elapsed());
        if before.is_some_and(|time| (LEAST..AFTER_ALL).contains(&time)) {
            return Ok(());
        }
        Err(Some(Failure::LeavesUnsaved(Box::new(why))))
    }

    pub(super) fn rename(&mut self, title: String) {
        self.talk.title = Some(title);
        self.save_if_kept();
        self.tell();
    }

    pub(super) fn private(&mut self, private: bool) {
        self.talk.private = private;
        // Another file with its name belongs to another program.
        let gone = self.talk.writer.as_mut().is_some_and(Writer::is_gone);
        match (private, self.talk.writer.take().filter(|_| !gone)) {
            (true, Some(writer)) => {
                let name = writer.name().to_owned();
                self.uncache(&name);
                drop(writer);
                let Some(folder) = self.setup.folder.clone() else { return };
                match store::erase(&folder, &name) {
                    Ok(()) => self.talk.unsaved = false,
                    Err(error) => {
                        // It is there: it goes on being saved.
                        self.talk.private = false;
                        self.reopen_file(&name);
                        (self.send)(Report::DeskFailed(error.into()));
                    }
                }
            }
            (true, None) => self.talk.unsaved = false,
            (false, writer) => {
                self.talk.writer = writer;
                self.save();
            }
        }
        self.tell();
    }

    /// Holds the file again that was let go.
    fn reopen_file(&mut self, name: &str) {
        if let (Some(folder), Some((_, _, fingerprint))) = (&self.setup.folder, self.said()) {
            let writer = Writer::open(folder, name, fingerprint).ok().map(|(writer, _)| writer);
            self.talk.unsaved |= writer.is_none();
            self.talk.writer = writer;
        }
    }

    pub(super) fn delete(&mut self) {
        // What is thrown away is what is on the screen.
        if let Err(why) = self.settle_first() {
            return (self.send)(Report::NotOpened(why));
        }
        if let (Some(writer), Some(folder)) = (self.talk.writer.take(), self.setup.folder.clone()) {
            let name = writer.name().to_owned();
            // The file is moved by the code that holds its lock.
            drop(writer);
            match store::delete(&folder, &name) {
                Ok(trashed) => {
                    self.uncache(&name);
                    (self.send)(Report::Deleted(trashed));
                }
                Err(error) => {
                    self.reopen_file(&name);
                    return (self.send)(Report::NotOpened(Some(error.into())));
                }
            }
        }
        self.begin();
        self.tell_with(true);
    }

    /// Throws the file of the open conversation away if the conversation has neither turns nor a title, and
    /// no branch of the file has an answer: every question failed, and no list shows it.
    pub(super) fn discard_empty(&mut self) {
        let empty = self.said().is_some_and(|(turns, ..)| turns.is_empty()) && self.talk.title.is_none();
        // Another file with its name belongs to another program.
        let writer = self.talk.writer.take_if(|writer| empty && !writer.has_answers() && !writer.is_gone());
        if let (Some(writer), Some(folder)) = (writer, self.setup.folder.clone()) {
            let name = writer.name().to_owned();
            drop(writer);
            self.uncache(&name);
            // One that stays is not shown.
            let _ = store::delete(&folder, &name);
        }
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
            replaced: !model.session.replaced().is_empty(),
            dropped: model.session.dropped(),
            private: self.talk.private,
            copy: self.talk.copy,
            opened,
            chosen: self.chosen().filter(|_| opened),
        })));
    }
}
