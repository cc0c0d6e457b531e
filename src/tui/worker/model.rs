//! The thread that owns the model: it opens models, answers, and writes what is said to disk as it grows.

use super::{Ask, Chosen, Report, Send, Setup, Talk, Work};
use crate::session::catalog;
use crate::session::kv_cache::KvCache;
use crate::session::open::{self, About, Options, Source, Step};
use crate::session::store::{self, Choices, Conversation, Writer};
use crate::session::{Answer, Event, KvType, Session, Settings, Turn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// A piece of an answer is written when the last is this old.
const PART: Duration = Duration::from_millis(500);
/// Between two looks at the memory in use.
const MEMORY: Duration = Duration::from_secs(1);
/// An open model.
struct Loaded {
    session: Session,
    about: About,
    source: Source,
    options: Options,
    /// What holds for a new conversation.
    fresh: Settings,
    /// The file of the embedded model lives as long as this.
    _keep: Option<open::Keep>,
}

/// Where the open conversation is kept.
#[derive(Default)]
struct Kept {
    writer: Option<Writer>,
    title: Option<String>,
    private: bool,
    copy: bool,
    choices: Option<Choices>,
    /// The settings it came from disk with.
    opened_with: Option<Chosen>,
}

/// A conversation whose model is gone.
struct Left {
    turns: Vec<Turn>,
    settings: Settings,
    fingerprint: String,
}

/// The thread's state.
pub(super) struct Worker {
    setup: Setup,
    send: Send,
    model: Option<Loaded>,
    /// What was being said when a model did not open: it goes on with the next one.
    left: Option<Left>,
    talk: Kept,
    /// Keys and values of conversations on disk.
    cache: Option<KvCache>,
}

impl Worker {
    /// Without a model and a conversation.
    pub(super) fn new(setup: Setup, send: Send) -> Self {
        let cache = setup.kv_cache();
        Self { setup, send, model: None, left: None, talk: Kept::default(), cache }
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self, works: &Receiver<Work>) {
        while let Ok(work) = works.recv() {
            if matches!(work, Work::Quit) {
                break;
            }
            let what = catch_unwind(AssertUnwindSafe(|| self.on(work)));
            if let Err(panic) = what {
                let what = panic.downcast_ref::<String>().map(String::as_str);
                let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
                let what = format!("internal error: {what}");
                self.leave();
                (self.send)(Report::LoadFailed(what));
            }
        }
    }

    fn on(&mut self, work: Work) {
        match work {
            Work::Load { source, options, cancel } => self.load(source, options, &cancel),
            Work::Resume => self.resume(),
            Work::Open(name) => self.open(&name),
            Work::New => {
                self.begin();
                self.tell_new();
            }
            Work::Ask { ask, question, chosen, cancel } => {
                let error = self.ask(ask, &question, chosen, &cancel);
                self.tell();
                (self.send)(Report::Answered(error));
                self.cache_keys_and_values();
            }
            Work::Undo => {
                if let Some(model) = &mut self.model {
                    model.session.undo();
                }
                self.save();
                self.tell();
            }
            Work::Warm(cancel) => {
                let filled = self.warm(&cancel);
                self.tell();
                (self.send)(Report::Warmed(filled));
                self.cache_keys_and_values();
            }
            Work::Keep(chosen) => {
                self.choose(&chosen);
                if self.talk.writer.is_some() {
                    self.save();
                }
            }
            Work::Rename(title) => self.rename(title),
            Work::Private(private) => self.private(private),
            Work::Delete => self.delete(),
            Work::Quit => {}
        }
    }

    fn load(&mut self, source: Source, options: Options, cancel: &AtomicBool) {
        // The file is the memory: never two models at a time.
        self.leave();
        let send = &self.send;
        let last = Mutex::new((None::<Step>, Instant::now()));
        let progress = |step: Step, done: u64, total: u64| {
            if let Ok(mut last) = last.lock()
                && (last.0 != Some(step) || last.1.elapsed() > Duration::from_millis(50) || done == total)
            {
                *last = (Some(step), Instant::now());
                send(Report::Loading(step, done, total));
            }
        };
        match open::open(&source, &options, &self.setup.wanted, &progress, cancel) {
            Err(error) => (self.send)(Report::LoadFailed(error.to_string())),
            Ok(opened) => {
                let open::Opened { mut session, about, keep } = opened;
                let settings = session.settings_mut();
                settings.system.clone_from(&self.setup.system);
                if let Some(seed) = self.setup.seed {
                    settings.seed = seed;
                }
                let fresh = settings.clone();
                if let Some(Left { mut turns, settings, fingerprint }) = self.left.take() {
                    if fingerprint != about.fingerprint {
                        turns.iter_mut().for_each(|turn| turn.ids = None);
                    }
                    if !turns.is_empty() {
                        *session.settings_mut() = Settings { n_ctx: fresh.n_ctx, ..settings };
                    }
                    session.restore(turns);
                }
                if let Some(writer) = &mut self.talk.writer {
                    writer.set_model(&about.fingerprint);
                }
                let options = Options { threads: Some(about.threads), kv: Some(about.kv), ..options };
                let chosen = Chosen { settings: session.settings().clone(), options: options.clone() };
                (self.send)(Report::Ready(Box::new(about.clone()), Box::new(chosen)));
                self.model = Some(Loaded { session, about, source, options, fresh, _keep: keep });
                self.memory();
                self.tell();
            }
        }
    }

    /// Gives the model up; what was being said is kept.
    fn leave(&mut self) {
        if let Some(cache) = &mut self.cache {
            cache.another_session();
        }
        if let Some(model) = self.model.take() {
            let (turns, settings) = (model.session.turns().to_vec(), model.session.settings().clone());
            self.left = Some(Left { turns, settings, fingerprint: model.about.fingerprint });
        }
    }

    fn memory(&self) {
        if let Some(bytes) = catalog::resident() {
            (self.send)(Report::Memory(bytes));
        }
    }

    fn resume(&mut self) {
        let Some(folder) = self.setup.folder.clone() else { return };
        let Some(last) = store::latest(&folder) else { return };
        let Some(model) = &self.model else { return };
        // One that another process has open stays with it, and so does one that cannot be read.
        if let Ok((writer, conversation)) = Writer::open(&folder, &last, &model.about.fingerprint) {
            self.put(conversation, Some(writer), false);
        }
    }

    fn open(&mut self, name: &str) {
        let (Some(folder), Some(model)) = (self.setup.folder.clone(), &self.model) else { return };
        let fingerprint = model.about.fingerprint.clone();
        // Its lock is held by us otherwise.
        if self.talk.writer.as_ref().is_some_and(|writer| writer.name() == name) {
            return self.tell();
        }
        let opened = match Writer::open(&folder, name, &fingerprint) {
            Ok((writer, conversation)) => Ok((conversation, Some(writer), false)),
            Err(store::Error::Busy { .. }) => {
                store::load(&folder, name, &fingerprint).map(|conversation| (conversation, None, true))
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((conversation, writer, copy)) => self.put(conversation, writer, copy),
            Err(error) => {
                (self.send)(Report::DeskFailed(error.to_string()));
                self.tell();
            }
        }
    }

    /// Puts a conversation from disk in the place of the open one.
    fn put(&mut self, conversation: Conversation, writer: Option<Writer>, copy: bool) {
        self.begin();
        let Some(model) = &mut self.model else { return };
        let settings = model.session.settings_mut();
        settings.system = conversation.system;
        let mut options = model.options.clone();
        if let Some(choices) = &conversation.choices {
            settings.sampling = choices.sampling.unwrap_or(settings.sampling);
            settings.max_new = choices.max_new.unwrap_or(settings.max_new);
            settings.seed = choices.seed.unwrap_or(settings.seed);
            options.threads = choices.threads.or(options.threads);
            let kv = choices.kv.as_deref().and_then(kv_of);
            options.kv = kv.or(options.kv);
            let runs = open::Runs::ALL.iter().find(|runs| Some(runs.name()) == choices.engine.as_deref());
            options.runs = runs.copied().unwrap_or(options.runs);
        }
        let chosen = Chosen { settings: settings.clone(), options };
        model.session.restore(conversation.turns);
        self.talk = Kept {
            writer,
            title: conversation.title,
            private: false,
            copy,
            choices: conversation.choices,
            opened_with: Some(chosen.clone()),
        };
        self.tell_with(Some(chosen), true);
    }

    /// Has the conversation read; gives the positions filled.
    fn warm(&mut self, cancel: &AtomicBool) -> usize {
        // Nothing is read by an engine that the next question would not go to.
        if let Some(chosen) = self.talk.opened_with.take()
            && self.model.as_ref().is_some_and(|model| model.options != chosen.options)
        {
            self.reopen(&chosen);
        }
        let Some(model) = &mut self.model else { return 0 };
        if let (Some(cache), Some(writer)) = (&mut self.cache, &self.talk.writer) {
            // What cannot be loaded is read.
            let _ = cache.load(writer.name(), &model.about.fingerprint, &mut model.session);
        }
        let send = &self.send;
        // What fails here fails again, and is told, when a question is asked.
        model.session.warm(cancel, &mut |event| send(Report::Event(event))).unwrap_or(0)
    }

    /// Lays what was read on disk, so that it need not be read again.
    fn cache_keys_and_values(&mut self) {
        if let (Some(cache), Some(model), Some(writer)) =
            (&mut self.cache, &mut self.model, &self.talk.writer)
        {
            // Where that fails it is read again.
            let _ = cache.save(writer.name(), &model.about.fingerprint, &mut model.session);
        }
    }

    fn uncache(&mut self, name: &str) {
        if let Some(cache) = &mut self.cache {
            cache.remove(name);
        }
    }

    /// An empty conversation.
    fn begin(&mut self) {
        self.talk = Kept::default();
        if let Some(model) = &mut self.model {
            model.session.clear();
            let seed = self.setup.seed.unwrap_or_else(open::random_seed);
            *model.session.settings_mut() = Settings { seed, ..model.fresh.clone() };
        }
    }

    /// Makes the session follow the settings.
    fn choose(&mut self, chosen: &Chosen) {
        if let Some(model) = &mut self.model {
            *model.session.settings_mut() = chosen.settings.clone();
        }
        let settings = &chosen.settings;
        self.talk.choices = Some(Choices {
            sampling: Some(settings.sampling),
            max_new: Some(settings.max_new),
            seed: Some(settings.seed),
            threads: chosen.options.threads,
            kv: chosen.options.kv.map(|kv| kv.name().to_owned()),
            engine: Some(chosen.options.runs.name().to_owned()),
        });
    }

    fn ask(&mut self, ask: Ask, question: &str, chosen: Chosen, cancel: &AtomicBool) -> Option<String> {
        let reopen = self.model.as_ref().is_some_and(|model| model.options != chosen.options);
        if reopen && let Some(error) = self.reopen(&chosen) {
            return Some(error);
        }
        self.choose(&chosen);
        let Some(model) = &mut self.model else { return Some("no model".into()) };
        let attempt = match ask {
            Ask::Retry => model.session.turns().last().map_or(0, |turn| turn.attempt.saturating_add(1)),
            Ask::New | Ask::Revise => 0,
        };
        let undone = if ask == Ask::Revise { model.session.turns().last().cloned() } else { None };
        if undone.is_some() {
            model.session.undo();
        }
        self.write(|worker, writer| {
            writer.begin(&worker.conversation(ask == Ask::New), question, attempt, ask == Ask::Retry)
        });
        let Some(model) = &mut self.model else { return None };
        let (send, writer) = (&self.send, &mut self.talk.writer);
        let mut part = Part { text: String::new(), ids: Vec::new(), since: Instant::now() };
        let mut looked = Instant::now();
        let mut not_saved = None;
        let mut on = |event: Event| {
            match &event {
                Event::Token(id) => part.ids.push(*id),
                Event::Text(text) => part.text.push_str(text),
                _ => {}
            }
            if matches!(event, Event::Token(_) | Event::Text(_)) && part.since.elapsed() >= PART {
                not_saved = part.write(writer.as_mut()).or(not_saved.take());
            }
            if looked.elapsed() >= MEMORY {
                looked = Instant::now();
                if let Some(bytes) = catalog::resident() {
                    send(Report::Memory(bytes));
                }
            }
            send(Report::Event(event));
        };
        let result = match ask {
            Ask::Retry => model.session.retry(cancel, &mut on),
            Ask::New | Ask::Revise => model.session.ask(question, cancel, &mut on),
        };
        not_saved = part.write(writer.as_mut()).or(not_saved);
        if let (Err(_), Some(undone)) = (&result, undone) {
            let mut turns = model.session.turns().to_vec();
            turns.push(undone);
            model.session.restore(turns);
        }
        if let Some(error) = not_saved {
            send(Report::NotSaved(error));
        }
        let stop = result.as_ref().ok().map(|answer: &Answer| answer.stop);
        self.write(|worker, writer| writer.finish(&worker.conversation(false), stop));
        self.memory();
        result.err().map(|error| error.to_string())
    }

    /// Opens the engine anew, with other threads or another cache; what was said stays.
    fn reopen(&mut self, chosen: &Chosen) -> Option<String> {
        let model = self.model.as_ref()?;
        (self.send)(Report::Reopening);
        let (source, before) = (model.source.clone(), model.options.clone());
        let (fresh, name) = (model.fresh.clone(), model.about.name.clone());
        self.leave();
        let never = AtomicBool::new(false);
        let try_open =
            |options: &Options| open::open(&source, options, &self.setup.wanted, &|_, _, _| {}, &never);
        let (opened, options, error) = match try_open(&chosen.options) {
            Ok(opened) => (Ok(opened), chosen.options.clone(), None),
            Err(error) => (try_open(&before), before, Some(error.to_string())),
        };
        match opened {
            Ok(open::Opened { mut session, about, keep }) => {
                session.restore(self.left.take().map(|left| left.turns).unwrap_or_default());
                let loaded = Loaded {
                    session,
                    about: about.clone(),
                    source,
                    options: options.clone(),
                    fresh,
                    _keep: keep,
                };
                self.model = Some(loaded);
                let settings = chosen.settings.clone();
                (self.send)(Report::Ready(Box::new(about), Box::new(Chosen { settings, options })));
                error
            }
            Err(error) => {
                (self.send)(Report::LoadFailed(format!("{name}: {error}")));
                Some(error.to_string())
            }
        }
    }

    /// The conversation as it is to stand on disk; without an exchange that has no answer when a question follows.
    fn conversation(&self, question_follows: bool) -> Conversation {
        let Some(model) = &self.model else { return Conversation::default() };
        let mut turns = model.session.turns().to_vec();
        if question_follows && turns.last().is_some_and(Turn::is_empty) {
            turns.pop();
        }
        let system = model.session.settings().system.clone();
        Conversation { title: self.talk.title.clone(), system, choices: self.talk.choices.clone(), turns }
    }

    /// Writes to the conversation's file, which is made if there is none; what fails is told.
    fn write(&mut self, write: impl FnOnce(&Self, &mut Writer) -> Result<(), store::Error>) {
        let (Some(folder), Some(model)) = (&self.setup.folder, &self.model) else { return };
        if self.talk.private {
            return;
        }
        let writer = match self.talk.writer.take() {
            Some(writer) => Ok(writer),
            None => Writer::create(folder, &model.about.fingerprint),
        };
        match writer {
            Ok(mut writer) => {
                if let Err(error) = write(self, &mut writer) {
                    (self.send)(Report::NotSaved(error.to_string()));
                }
                self.talk.title = writer.title().map(str::to_owned).or(self.talk.title.take());
                self.talk.writer = Some(writer);
                self.talk.copy = false;
            }
            Err(error) => (self.send)(Report::NotSaved(error.to_string())),
        }
    }

    fn save(&mut self) {
        self.write(|worker, writer| writer.finish(&worker.conversation(false), None));
    }

    fn rename(&mut self, title: String) {
        self.talk.title = Some(title.clone());
        if self.talk.writer.is_some() {
            self.write(|_, writer| writer.rename(&title));
        }
        self.tell();
    }

    fn private(&mut self, private: bool) {
        self.talk.private = private;
        match (private, self.talk.writer.take()) {
            (true, Some(writer)) => {
                let name = writer.name().to_owned();
                self.uncache(&name);
                drop(writer);
                if let Some(Err(error)) = self.setup.folder.as_ref().map(|folder| store::erase(folder, &name))
                {
                    (self.send)(Report::NotSaved(error.to_string()));
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

    fn delete(&mut self) {
        if let (Some(writer), Some(folder)) = (self.talk.writer.take(), self.setup.folder.clone()) {
            let name = writer.name().to_owned();
            self.uncache(&name);
            drop(writer);
            match store::delete(&folder, &name) {
                Ok(trashed) => (self.send)(Report::Deleted(trashed)),
                Err(error) => (self.send)(Report::NotSaved(error.to_string())),
            }
        }
        self.begin();
        self.tell_new();
    }

    fn chosen(&self) -> Option<Chosen> {
        let model = self.model.as_ref()?;
        Some(Chosen { settings: model.session.settings().clone(), options: model.options.clone() })
    }

    fn tell(&self) {
        self.tell_with(self.chosen(), false);
    }

    fn tell_new(&self) {
        self.tell_with(self.chosen(), true);
    }

    fn tell_with(&self, chosen: Option<Chosen>, opened: bool) {
        let Some(model) = &self.model else { return };
        (self.send)(Report::Talk(Box::new(Talk {
            name: self.talk.writer.as_ref().map(|writer| writer.name().to_owned()),
            title: self.talk.title.clone(),
            turns: model.session.turns().to_vec(),
            dropped: model.session.dropped(),
            private: self.talk.private,
            copy: self.talk.copy,
            opened,
            chosen,
        })));
    }
}

/// What was generated and is not on disk yet.
struct Part {
    text: String,
    ids: Vec<u32>,
    since: Instant,
}

impl Part {
    /// Writes it; why that failed.
    fn write(&mut self, writer: Option<&mut Writer>) -> Option<String> {
        self.since = Instant::now();
        if self.ids.is_empty() {
            return None;
        }
        let (text, ids) = (std::mem::take(&mut self.text), std::mem::take(&mut self.ids));
        writer?.part(&text, &ids).err().map(|error| error.to_string())
    }
}

/// A KV type by its name.
fn kv_of(name: &str) -> Option<KvType> {
    [KvType::F32, KvType::F16, KvType::Q8].into_iter().find(|kv| kv.name() == name)
}
