//! The part of the state that knows the models: those found, the one that is opened, the one that is open.

use super::worker::{Chosen, ModelEntry};
use crate::session::open::{About, Source};
use std::path::PathBuf;

/// The part.
#[derive(Default)]
pub struct Models {
    found: Vec<ModelEntry>,
    /// Bytes of memory available when they were looked for.
    available: Option<u64>,
    /// Whether they were looked for.
    looked: bool,
    /// The model that is being opened, or was last.
    opening: Option<Source>,
    about: Option<About>,
    /// Settings of the next answer.
    chosen: Option<Chosen>,
    /// Settings of a new conversation.
    fresh: Option<Chosen>,
    /// A model was opened in this run.
    opened_before: bool,
}

impl Models {
    /// Model files found.
    pub fn found(&self) -> &[ModelEntry] {
        &self.found
    }

    /// Bytes of memory available.
    pub fn available(&self) -> Option<u64> {
        self.available
    }

    /// Whether models were looked for.
    pub fn looked(&self) -> bool {
        self.looked
    }

    /// The models that can be chosen: those found, and the embedded one last.
    pub fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> =
            self.found.iter().map(|model| Source::File(PathBuf::from(&model.path))).collect();
        #[cfg(feature = "demo")]
        sources.push(Source::Demo);
        sources
    }

    /// The model that is being opened, or was last.
    pub fn opening(&self) -> Option<&Source> {
        self.opening.as_ref()
    }

    /// The row of the model that was opened last; one that is in no list has the row after the last, where a
    /// path is typed.
    pub fn row_of_opening(&self) -> usize {
        let sources = self.sources();
        let row = |source| sources.iter().position(|other| other == source).unwrap_or(sources.len());
        self.opening.as_ref().map_or(0, row)
    }

    /// The open model.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// Settings of the next answer.
    pub fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_ref()
    }

    /// Settings of a new conversation.
    pub fn fresh(&self) -> Option<&Chosen> {
        self.fresh.as_ref()
    }

    /// Positions of the context.
    pub fn context(&self) -> usize {
        self.chosen.as_ref().map_or(0, |chosen| chosen.settings.n_ctx)
    }

    /// Takes the models found; gives the sources there were before, unless this is the first time.
    pub fn listed(&mut self, found: Vec<ModelEntry>, available: Option<u64>) -> Option<Vec<Source>> {
        let before = self.sources();
        (self.found, self.available) = (found, available);
        std::mem::replace(&mut self.looked, true).then_some(before)
    }

    /// Begins to open a model.
    pub fn open(&mut self, source: Source) {
        self.opening = Some(source);
    }

    /// A model is open; whether it is the first of this run.
    pub fn ready(&mut self, about: About, fresh: Chosen, chosen: Chosen) -> bool {
        (self.about, self.fresh, self.chosen) = (Some(about), Some(fresh), Some(chosen));
        !std::mem::replace(&mut self.opened_before, true)
    }

    /// No model is open any more.
    pub fn lost(&mut self) {
        (self.about, self.chosen) = (None, None);
    }

    /// The engine was opened again.
    pub fn reopened(&mut self, about: About) {
        self.about = Some(about);
    }

    /// Chooses settings of the next answer.
    pub fn choose(&mut self, chosen: Chosen) {
        self.chosen = Some(chosen);
    }
}
