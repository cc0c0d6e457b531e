//! The file of the open conversation: written to, created again where another program removed it.

use super::part::Part;
use super::task::{Report, ReportSink};
use crate::session::open::SessionOptions;
use crate::session::store::{Error, Writer};
use crate::settings::Patch;
use crate::tui::failure::Failure;
use std::path::Path;
use std::time::Instant;

/// The open conversation beside what was said in it.
#[derive(Default)]
pub(super) struct TalkFile {
    pub(super) writer: Option<Writer>,
    pub(super) title: Option<String>,
    pub(super) private: bool,
    pub(super) copy: bool,
    /// Not all of it is on disk, though it should be.
    pub(super) unsaved: bool,
    pub(super) choices: Option<Patch>,
    /// The engine that its next answer is to come from; `None` is the one that is open.
    pub(super) options: Option<SessionOptions>,
    /// Name and title that the screen was told.
    pub(super) told: Option<(String, Option<String>)>,
    /// Names that it had until another program took the file away.
    pub(super) gone: Vec<String>,
    /// When it was last asked to leave it although it is not saved.
    pub(super) left: Option<Instant>,
}

/// Where conversations are kept, and who is told.
pub(super) struct Shelf<'a> {
    pub(super) folder: &'a Path,
    /// Of the model whose ids are written.
    pub(super) fingerprint: &'a str,
    pub(super) send: &'a ReportSink,
}

impl TalkFile {
    /// Writes to its file, which is made if there is none; in another one if another program took it away.
    pub(super) fn write(
        &mut self,
        shelf: &Shelf<'_>,
        mut write: impl FnMut(&mut Writer) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let mut moved = false;
        let result = loop {
            let writer = match self.writer.take() {
                Some(writer) => Ok(writer),
                None => Writer::create(shelf.folder, shelf.fingerprint),
            };
            let result = writer.and_then(|mut writer| {
                let result = write(&mut writer);
                if matches!(result, Err(Error::Gone { .. })) {
                    self.gone.push(writer.name().to_owned());
                } else if !writer.is_empty() {
                    self.writer = Some(writer);
                }
                result
            });
            if !matches!(result, Err(Error::Gone { .. })) || std::mem::replace(&mut moved, true) {
                break result;
            }
        };
        if let Err(error) = result {
            self.unsaved = true;
            return Err(error.into());
        }
        self.copy = false;
        if let Some(writer) = &self.writer {
            self.title = writer.title().map(str::to_owned);
            let name = Some((writer.name().to_owned(), self.title.clone()));
            if self.told != name {
                (shelf.send)(Report::Named(writer.name().to_owned(), self.title.clone()));
                self.told = name;
            }
        }
        match (moved, std::mem::take(&mut self.unsaved)) {
            (true, _) => (shelf.send)(Report::Moved),
            (false, true) => (shelf.send)(Report::Saved),
            (false, false) => {}
        }
        Ok(())
    }

    /// Writes what is new of an answer, if it is time; all of it where its beginning is not in the file.
    pub(super) fn grow(&mut self, shelf: Option<&Shelf<'_>>, part: &mut Part) {
        let Some(shelf) = shelf.filter(|_| !self.private && part.is_due()) else { return };
        let unsaved = self.unsaved;
        if !unsaved && !part.is_more() && !self.writer.as_mut().is_none_or(Writer::is_touched) {
            return part.wait();
        }
        if self.writer.as_mut().filter(|_| !unsaved).is_some_and(|writer| part.go_on(writer).is_ok()) {
            return;
        }
        match self.write(shelf, |writer| part.begin(writer)) {
            // Once, until it is saved.
            Err(why) if !unsaved => (shelf.send)(Report::NotSaved(why)),
            _ => {}
        }
    }
}
