//! The thread that owns the model: it opens models, answers, and writes what is said to disk as it grows.

use super::kept::{Shelf, TalkFile};
use super::part::{AGAIN, Part};
use super::state::{Left, ModelWorker, OpenModel};
use super::task::{AskKind, Chosen, ModelTask, Pending, Report};
use crate::session::catalog;
use crate::session::open::{self, About, SessionOptions, Source, Step};
use crate::session::store::{self, Conversation, Writer};
use crate::session::{self, Answer, Event, Notice, Replaced, Settings, Stop, Turn};
use crate::settings::{InvalidSetting, Patch};
use crate::tui::failure::Failure;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Between two looks at the memory in use.
const MEMORY: Duration = Duration::from_secs(1);

/// Between two tries to save what cannot be saved, at most.
const RARELY: Duration = Duration::from_secs(60);
/// Between two looks at the file of a conversation in which nothing is said.
const LOOK: Duration = Duration::from_secs(30);
/// How long another of our threads may hold a conversation's file.
const MOMENT: Duration = Duration::from_secs(1);

impl ModelWorker {
    /// Works until it is told to end.
    pub(super) fn run(mut self, works: &Receiver<(ModelTask, Pending)>) {
        let mut again = AGAIN;
        loop {
            again = if self.talk.unsaved { (2 * again).min(RARELY) } else { AGAIN };
            let idle = if self.talk.writer.is_some() { LOOK } else { Duration::MAX };
            let work = match works.recv_timeout(if self.talk.unsaved { again / 2 } else { idle }) {
                // Why it cannot be saved was told; or another program may have taken its file away.
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(work) => Some(work),
            };
            let last = matches!(work, Some((ModelTask::Quit, _)));
            let done = catch_unwind(AssertUnwindSafe(|| match work {
                None => drop(self.settle()),
                Some((ModelTask::Quit, pending)) => {
                    if let Err(why) = self.settle() {
                        (self.send)(Report::NotSaved(why));
                    }
                    drop(pending);
                }
                Some((work, pending)) => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.on(work, pending);
                }
            }));
            if let Err(panic) = done {
                self.leave();
                (self.send)(Report::LoadFailed(Failure::panic(&*panic)));
            }
            if last {
                break;
            }
        }
    }

    /// Does work; `pending` goes when all that was said is on disk.
    fn on(&mut self, work: ModelTask, pending: Pending) {
        match work {
            ModelTask::Load { source, options, cancel } => {
                drop(pending);
                self.load(source, options, &cancel);
            }
            ModelTask::Resume => {
                if let Err(error) = self.resume() {
                    (self.send)(Report::NotOpened(error));
                }
            }
            ModelTask::Open(name) => {
                if let Err(error) = self.open(&name) {
                    (self.send)(Report::NotOpened(error));
                }
            }
            ModelTask::New => match self.settle_first() {
                Ok(()) => {
                    self.begin();
                    self.tell_with(true);
                }
                Err(why) => (self.send)(Report::NotOpened(why)),
            },
            ModelTask::Ask { ask, question, chosen, cancel } => {
                let error = self.ask(ask, &question, chosen, &cancel);
                self.tell();
                (self.send)(Report::Answered(error));
                drop(pending);
                self.cache_keys_and_values();
            }
            ModelTask::Undo => {
                if let Some(model) = &mut self.model {
                    model.session.undo();
                }
                self.save();
                self.tell();
            }
            ModelTask::BringBack => {
                if self.model.as_mut().is_some_and(|model| model.session.bring_back()) {
                    self.save();
                }
                self.tell();
                (self.send)(Report::BroughtBack);
            }
            ModelTask::Warm(cancel) => {
                drop(pending);
                let filled = self.warm(&cancel);
                // No turns: what is on the screen may be ahead of what this thread has been told.
                let dropped = self.model.as_ref().map_or(0, |model| model.session.dropped());
                (self.send)(Report::Warmed { filled, dropped });
                self.memory();
                self.cache_keys_and_values();
            }
            ModelTask::Keep(chosen) => {
                self.choose(&chosen);
                self.save_if_kept();
            }
            ModelTask::Rename(title) => self.rename(title),
            ModelTask::Private(private) => self.private(private),
            ModelTask::Delete => self.delete(),
            ModelTask::Quit => {}
        }
    }

    fn load(&mut self, source: Source, options: SessionOptions, cancel: &AtomicBool) {
        // What cannot be a model is no reason to lose the one that is open.
        if let (Some(_), Source::File(path)) = (&self.model, &source)
            && let Err(error) = open::look(path)
        {
            return (self.send)(Report::Refused(error.into()));
        }
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
            Err(error) => (self.send)(Report::LoadFailed(error.into())),
            Ok(opened) => {
                let open::Opened { mut session, about, invalid, file } = opened;
                let settings = session.settings_mut();
                let fewer = Notice::fewer_threads(options.threads, about.threads);
                let options = SessionOptions { threads: Some(about.threads), kv: Some(about.kv), ..options };
                let start = self.start.get_or_insert_with(|| options.clone()).clone();
                let fresh = Chosen { settings: settings.clone(), options: start };
                if let Some(Left { mut turns, mut replaced, settings, fingerprint, date }) = self.left.take()
                {
                    if fingerprint != about.fingerprint {
                        turns.iter_mut().for_each(|turn| turn.ids = None);
                        replaced.forget_ids();
                    }
                    if !turns.is_empty() || self.talk.choices.is_some() {
                        let n_ctx = fresh.settings.n_ctx;
                        *session.settings_mut() = Settings { n_ctx, ..settings };
                    }
                    session.restore(turns);
                    session.set_replaced(replaced);
                    session.set_date(date);
                }
                if let Some(writer) = &mut self.talk.writer {
                    writer.set_model(&about.fingerprint);
                }
                let (told, usual) = (Box::new(about.clone()), Box::new(fresh.clone()));
                self.model = Some(OpenModel { session, about, source, options, fresh, _file: file });
                let chosen = Box::new(self.chosen().unwrap_or_else(|| (*usual).clone()));
                (self.send)(Report::Ready { about: told, fresh: usual, chosen });
                self.memory();
                self.tell();
                self.tell_invalid(invalid);
                self.notice(fewer);
            }
        }
    }

    fn notice(&self, notice: Option<Notice>) {
        if let Some(notice) = notice {
            (self.send)(Report::Event(Event::Notice(notice)));
        }
    }

    fn tell_invalid(&self, invalid: Vec<InvalidSetting>) {
        if !invalid.is_empty() {
            (self.send)(Report::InvalidSettings(invalid));
        }
    }

    /// Gives the model up; what was being said is kept.
    fn leave(&mut self) {
        if let Some(cache) = &mut self.cache {
            cache.another_session();
        }
        if let Some(model) = self.model.take() {
            let session = model.session;
            self.left = Some(Left {
                turns: session.turns().to_vec(),
                replaced: session.replaced().clone(),
                settings: session.settings().clone(),
                fingerprint: model.about.fingerprint,
                date: session.date(),
            });
        }
    }

    fn memory(&self) {
        if let Some(bytes) = catalog::resident_bytes() {
            (self.send)(Report::Memory(bytes));
        }
    }

    /// Opens the conversation that was used last, or says why not; `None` where there is none.
    fn resume(&mut self) -> Result<(), Option<Failure>> {
        let (Some(folder), Some(model)) = (&self.setup.folder, &self.model) else { return Err(None) };
        let last = store::latest(folder).ok_or(None)?;
        match Writer::open(folder, &last, &model.about.fingerprint) {
            Ok((writer, conversation)) => self.put(conversation, Some(writer), false),
            // It stays with the other process.
            Err(store::Error::Busy { .. }) => {
                return Err(Some(Failure::LastOpenElsewhere));
            }
            Err(store::Error::Unknown { .. }) => return Err(None),
            Err(error) => {
                return Err(Some(Failure::LastNotOpened(Box::new(error.into()))));
            }
        }
        Ok(())
    }

    /// Opens a conversation, or says why not; `None` where it is open already.
    fn open(&mut self, name: &str) -> Result<(), Option<Failure>> {
        let folder = &self.setup.folder.clone().ok_or_else(|| Some(Failure::NoPlaceForConversations))?;
        let name = &store::find(folder, name).map_err(|error| Some(error.into()))?;
        // Its lock is held by us otherwise.
        if self.talk.writer.as_ref().is_some_and(|writer| writer.name() == *name) {
            return Err(None);
        }
        self.settle_first()?;
        let Some(OpenModel { about: About { fingerprint, .. }, .. }) = &self.model else { return Err(None) };
        // The desk may be giving it another title.
        let until = Instant::now() + MOMENT;
        let opened = loop {
            match Writer::open(folder, name, fingerprint) {
                Err(store::Error::Busy { .. }) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                opened => break opened,
            }
        };
        let unwritable = |source: &io::Error| {
            matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        };
        let (conversation, writer, copy) = match opened {
            Ok((writer, conversation)) => (conversation, Some(writer), false),
            Err(error)
                if matches!(&error, store::Error::Busy { .. })
                    || matches!(&error, store::Error::Io { source, .. } if unwritable(source)) =>
            {
                (store::load(folder, name, fingerprint).map_err(|error| Some(error.into()))?, None, true)
            }
            Err(error) => return Err(Some(error.into())),
        };
        self.put(conversation, writer, copy);
        Ok(())
    }

    /// Puts a conversation from disk in the place of the open one. What was typed at the start holds for it,
    /// too.
    fn put(&mut self, conversation: Conversation, writer: Option<Writer>, copy: bool) {
        self.begin();
        let Some(model) = &mut self.model else { return };
        let typed = &self.setup.typed;
        let patch = typed.clone().or(conversation.choices.clone().unwrap_or_default());
        let settings = model.session.settings_mut();
        settings.apply(&patch);
        settings.system = typed.system.clone().or(conversation.system);
        let mut options = model.fresh.options.clone();
        options.apply(&patch);
        model.session.restore(conversation.turns);
        model.session.set_replaced(conversation.replaced);
        model.session.set_date(conversation.date);
        let (title, choices) = (conversation.title, conversation.choices);
        let options = Some(options);
        self.talk = TalkFile { writer, title, copy, choices, options, ..TalkFile::default() };
        self.tell_with(true);
        self.tell_invalid(conversation.invalid);
    }

    /// Has the conversation read; gives the positions filled.
    fn warm(&mut self, cancel: &AtomicBool) -> usize {
        // Nothing is read by an engine that the next question would not go to.
        if let Some(chosen) = self.chosen() {
            self.reopen(&chosen.options, cancel);
        }
        if cancel.load(Ordering::Relaxed) {
            return 0;
        }
        let Some(model) = &mut self.model else { return 0 };
        if let (Some(cache), Some(writer)) = (&mut self.cache, &self.talk.writer) {
            // What cannot be loaded is read.
            let _ = cache.load(writer.name(), &model.about.fingerprint, &mut model.session);
        }
        let send = &self.send;
        // What fails here fails again, and is told, when a question is asked.
        alive(model.session.warm(cancel, &mut |event| send(Report::Event(event)))).unwrap_or(0)
    }

    /// Lays what was read on disk, so that it need not be read again.
    fn cache_keys_and_values(&mut self) {
        if let (Some(cache), Some(model), Some(writer)) =
            (&mut self.cache, &mut self.model, &self.talk.writer)
        {
            // Where that fails it is read again; what was saved before other work came stays.
            let waiting = &self.waiting;
            let go_on = || waiting.load(Ordering::Relaxed) == 0;
            let _ = cache.save(writer.name(), &model.about.fingerprint, &model.session, &go_on);
        }
    }

    /// Makes the session follow the settings; what differs from a new conversation's is kept with this one.
    fn choose(&mut self, chosen: &Chosen) {
        let Some(model) = &mut self.model else { return };
        *model.session.settings_mut() = chosen.settings.clone();
        let (settings, options) = (&chosen.settings, &chosen.options);
        let Chosen { settings: usual, options: start } = &model.fresh;
        let sampling = Some(settings.sampling).filter(|&sampling| sampling != usual.sampling);
        self.talk.choices = Some(Patch {
            max_new: Some(settings.max_new).filter(|&n| n != usual.max_new),
            seed: Some(settings.seed),
            threads: options.threads.filter(|_| options.threads != start.threads),
            kv: options.kv.filter(|_| options.kv != start.kv),
            engine: Some(options.engine).filter(|&engine| engine != start.engine),
            ..sampling.as_ref().map_or_else(Patch::default, Patch::of_sampling)
        });
        self.talk.options = Some(options.clone());
    }

    fn ask(&mut self, ask: AskKind, question: &str, chosen: Chosen, cancel: &AtomicBool) -> Option<Failure> {
        self.choose(&chosen);
        let Some(model) = &mut self.model else { return Some(Failure::NoModel) };
        let attempt = match ask {
            AskKind::Retry => model.session.next_attempt(),
            AskKind::New | AskKind::Revise => 0,
        };
        let revised = model.session.turns().last().filter(|_| ask == AskKind::Revise).cloned();
        let undone = revised.map(|turn| (turn, model.session.replaced().clone()));
        if undone.is_some() {
            model.session.undo();
        }
        model.session.begin();
        // The question is on disk before anything that takes long.
        let retry = ask == AskKind::Retry;
        let last = model.session.turns().last().filter(|_| retry).map(|turn| turn.question.clone());
        let question = last.as_deref().unwrap_or(question);
        let mut part = Part::new(self.conversation(ask == AskKind::New), question, attempt, retry);
        self.write(|writer| part.begin(writer));
        if !self.talk.unsaved {
            (self.send)(Report::Begun);
        }
        if let Some(error) = self.reopen(&chosen.options, cancel) {
            self.take_back(undone, false);
            if let Some(back) = self.chosen() {
                self.choose(&back);
            }
            self.save();
            return Some(error);
        }
        let Self { model, talk, setup, send, .. } = self;
        let Some(OpenModel { session, about, .. }) = model else { return None };
        let fingerprint = &about.fingerprint;
        let shelf = setup.folder.as_deref().map(|folder| Shelf { folder, fingerprint, send });
        let mut looked = Instant::now();
        let mut on = |event: Event| {
            if part.take(&event) || matches!(event, Event::Prompt { .. }) {
                talk.grow(shelf.as_ref(), &mut part);
            }
            if looked.elapsed() >= MEMORY {
                looked = Instant::now();
                if let Some(bytes) = catalog::resident_bytes() {
                    send(Report::Memory(bytes));
                }
            }
            send(Report::Event(event));
        };
        let result = match ask {
            AskKind::Retry => session.retry(cancel, &mut on),
            AskKind::New | AskKind::Revise => session.ask(question, cancel, &mut on),
        };
        let result = alive(result);
        part.is_last();
        talk.grow(shelf.as_ref(), &mut part);
        // A question that was changed and has no answer does not cost the exchange that was there.
        let unanswered = undone.is_some()
            && matches!(&result, Ok(answer) if answer.stop == Stop::Cancelled && answer.ids.is_empty());
        if result.is_err() || unanswered {
            self.take_back(undone, unanswered);
        }
        let stop = result.as_ref().ok().map(|answer: &Answer| answer.stop);
        let conversation = self.conversation(false);
        self.write(|writer| writer.finish(&conversation, stop));
        self.forget_gone();
        self.memory();
        if unanswered {
            return Some(Failure::StoppedBeforeAnswer);
        }
        result.err().map(Failure::from)
    }

    /// Puts the exchange whose question was to be changed back to its place, `instead` of the one without an
    /// answer, and what could be brought back then.
    fn take_back(&mut self, undone: Option<(Turn, Replaced)>, instead: bool) {
        let Some((undone, replaced)) = undone else { return };
        match (&mut self.model, &mut self.left) {
            (Some(model), _) => {
                let mut turns = model.session.turns().to_vec();
                if instead {
                    turns.pop();
                }
                turns.push(undone);
                model.session.restore(turns);
                model.session.set_replaced(replaced);
            }
            (None, Some(left)) => {
                left.turns.push(undone);
                left.replaced = replaced;
            }
            (None, None) => {}
        }
    }

    /// Opens the engine again if it is not open with these options; what was said and set stays. Why that
    /// failed; then the engine has the options it had.
    fn reopen(&mut self, wanted: &SessionOptions, cancel: &AtomicBool) -> Option<Failure> {
        let model = self.model.as_ref().filter(|model| model.options != *wanted)?;
        (self.send)(Report::Reopening);
        let (source, before, fresh) = (model.source.clone(), model.options.clone(), model.fresh.clone());
        self.leave();
        let never = AtomicBool::new(false);
        let try_open = |options: &SessionOptions, cancel: &AtomicBool| {
            open::open(&source, options, &self.setup.wanted, &|_, _, _| {}, cancel)
        };
        let (opened, options, error) = match try_open(wanted, cancel) {
            Ok(opened) => (Ok(opened), wanted.clone(), None),
            Err(error) => (try_open(&before, &never), before, Some(error)),
        };
        // Options that did not work are given up; those whose opening was cancelled still hold.
        let stopped = matches!(error, Some(open::Error::Cancelled { .. }));
        let error = error.map(Failure::from);
        match opened {
            Ok(open::Opened { mut session, about, file, .. }) => {
                if let Some(left) = self.left.take() {
                    let n_ctx = session.settings().n_ctx;
                    *session.settings_mut() = Settings { n_ctx, ..left.settings };
                    session.restore(left.turns);
                    session.set_replaced(left.replaced);
                    session.set_date(left.date);
                }
                self.talk.options = Some(if stopped { wanted } else { &options }.clone());
                let back = error.clone().filter(|_| !stopped).map(|error| (Box::new(options.clone()), error));
                let fewer = Notice::fewer_threads(options.threads, about.threads);
                (self.send)(Report::Reopened(Box::new(about.clone()), back));
                self.notice(fewer);
                self.model = Some(OpenModel { session, about, source, options, fresh, _file: file });
                error
            }
            Err(error) => {
                let error = Failure::from(error);
                (self.send)(Report::LoadFailed(error.clone()));
                Some(error)
            }
        }
    }
}

/// A panic of the engine's thread is one of this thread: the model is given up.
fn alive<T>(result: Result<T, session::Error>) -> Result<T, session::Error> {
    match result {
        Err(session::Error::Ended(why)) => resume_unwind(Box::new(why)),
        result => result,
    }
}
