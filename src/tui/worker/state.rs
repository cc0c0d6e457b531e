//! What the model's thread holds: the open model, the open conversation, the setup.

use super::kept::TalkFile;
use super::task::{Chosen, ReportSink, Setup};
use crate::session::kv_cache::KvCache;
use crate::session::open::{self, About, SessionOptions, Source};
use crate::session::{DateTime, Replaced, Session, Settings, Turn};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// An open model.
pub(super) struct OpenModel {
    pub(super) session: Session,
    pub(super) about: About,
    pub(super) source: Source,
    /// What it was opened with.
    pub(super) options: SessionOptions,
    /// What holds for a new conversation.
    pub(super) fresh: Chosen,
    /// The file of the embedded model lives as long as this.
    pub(super) _file: open::Loaded,
}

/// A conversation whose model is gone.
pub(super) struct Left {
    pub(super) turns: Vec<Turn>,
    pub(super) replaced: Replaced,
    pub(super) settings: Settings,
    pub(super) fingerprint: String,
    pub(super) date: Option<DateTime>,
}

/// The thread's state.
pub(super) struct ModelWorker {
    pub(super) setup: Setup,
    pub(super) send: ReportSink,
    pub(super) model: Option<OpenModel>,
    /// What was being said when a model did not open: it goes on with the next one.
    pub(super) left: Option<Left>,
    pub(super) talk: TalkFile,
    /// Keys and values of conversations on disk.
    pub(super) cache: Option<KvCache>,
    /// Work that has not begun.
    pub(super) waiting: Arc<AtomicUsize>,
    /// The engine of new conversations: the first that was opened.
    pub(super) start: Option<SessionOptions>,
    /// It was told that there is no place to save conversations.
    pub(super) no_folder_reported: bool,
}

impl ModelWorker {
    /// Without a model and a conversation.
    pub(super) fn new(setup: Setup, send: ReportSink, waiting: Arc<AtomicUsize>) -> Self {
        let cache = setup.kv_cache();
        let talk = TalkFile::default();
        Self {
            setup,
            send,
            model: None,
            left: None,
            talk,
            cache,
            waiting,
            start: None,
            no_folder_reported: false,
        }
    }

    /// What was said, with which settings, and the fingerprint of the model, be it open or not.
    pub(super) fn said(&self) -> Option<(&[Turn], &Settings, &str)> {
        match (&self.model, &self.left) {
            (Some(model), _) => {
                Some((model.session.turns(), model.session.settings(), &model.about.fingerprint))
            }
            (None, Some(left)) => Some((&left.turns, &left.settings, &left.fingerprint)),
            (None, None) => None,
        }
    }

    /// When the conversation began.
    pub(super) fn date(&self) -> Option<DateTime> {
        match (&self.model, &self.left) {
            (Some(model), _) => model.session.date(),
            (None, left) => left.as_ref()?.date,
        }
    }

    pub(super) fn uncache(&mut self, name: &str) {
        if let Some(cache) = &mut self.cache {
            cache.remove(name);
        }
    }

    /// An empty conversation.
    pub(super) fn begin(&mut self) {
        self.discard_empty();
        self.left = None;
        self.talk = TalkFile::default();
        if let Some(model) = &mut self.model {
            model.session.clear();
            let seed = self.setup.wanted.seed.unwrap_or_else(open::random_seed);
            *model.session.settings_mut() = Settings { seed, ..model.fresh.settings.clone() };
            self.talk.options = Some(model.fresh.options.clone());
        }
    }

    /// The settings of the next answer.
    pub(super) fn chosen(&self) -> Option<Chosen> {
        let model = self.model.as_ref()?;
        let options = self.talk.options.as_ref().unwrap_or(&model.options).clone();
        Some(Chosen { settings: model.session.settings().clone(), options })
    }
}
