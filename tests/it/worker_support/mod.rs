//! The threads behind the terminal chat, with a small model: what their tests share.
#![allow(dead_code)] // every user takes a part of it

use crate::common;
use huozi::session::open::{SessionOptions, Source};
use huozi::session::store::{self, Conversation};
use huozi::session::{KvType, Sampling, Stop, Turn};
use huozi::settings::Patch;
use huozi::tui::failure::Failure;
use huozi::tui::worker::{AskKind, Chosen, ModelTask, Report, Setup, Talk, Workers};
use huozi_convert::plan::Preset;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Both threads, and what they tell.
pub struct Threads {
    pub workers: Workers,
    pub reports: Receiver<Report>,
}

pub fn nothing() -> Arc<AtomicBool> {
    Arc::default()
}

impl Threads {
    pub fn start(setup: Setup) -> Self {
        let (send, reports) = mpsc::channel();
        let workers = Workers::start(setup, Arc::new(move |report| drop(send.send(report)))).unwrap();
        Self { workers, reports }
    }

    /// What `found` takes of the reports; those before it are dropped.
    #[track_caller]
    pub fn wait<T>(&self, found: impl Fn(Report) -> Option<T>) -> T {
        loop {
            let report = self.reports.recv_timeout(PATIENCE).expect("a report in time");
            if let Some(found) = found(report) {
                return found;
            }
        }
    }

    /// Opens the model and stops that at once: why it did not open.
    pub fn stopped(&self) -> Failure {
        let source = Source::File(common::model("nano", Preset::Q8_0));
        let cancel = Arc::new(AtomicBool::new(true));
        self.workers.work(ModelTask::Load { source, options: SessionOptions::default(), cancel });
        self.wait(|report| match report {
            Report::Ready { .. } => panic!("it opened"),
            Report::LoadFailed(why) => Some(why),
            _ => None,
        })
    }

    /// Opens the model; settings of a new conversation, and of the one that goes on.
    pub fn load(&self, options: SessionOptions) -> (Chosen, Chosen) {
        let source = Source::File(common::model("nano", Preset::Q8_0));
        self.workers.work(ModelTask::Load { source, options, cancel: nothing() });
        let chosen = self.wait(|report| match report {
            Report::Ready { fresh, chosen, .. } => Some((*fresh, *chosen)),
            Report::LoadFailed(why) => panic!("{why:?}"),
            _ => None,
        });
        self.talk();
        chosen
    }

    pub fn talk(&self) -> Talk {
        self.wait(|report| if let Report::Talk(talk) = report { Some(*talk) } else { None })
    }

    /// The settings of the conversation that `work` opens.
    pub fn opened(&self, work: ModelTask) -> Chosen {
        self.workers.work(work);
        self.wait(|report| match report {
            Report::Talk(talk) if talk.opened => Some(talk.chosen.expect("settings")),
            Report::NotOpened(why) => panic!("{why:?}"),
            _ => None,
        })
    }

    /// Asks, and waits for the end of the answer.
    pub fn ask(&self, question: &str, chosen: &Chosen) -> Vec<Report> {
        let (question, chosen) = (question.to_owned(), chosen.clone());
        self.workers.work(ModelTask::Ask { ask: AskKind::New, question, chosen, cancel: nothing() });
        let mut all = Vec::new();
        while !matches!(all.last(), Some(Report::Answered(_))) {
            all.push(self.reports.recv_timeout(PATIENCE).expect("an answer in time"));
        }
        all
    }
}

pub fn setup(home: &Path) -> Setup {
    Setup { folder: Some(home.join("sessions")), ..Setup::default() }
}

/// Few tokens and one thread.
pub fn options() -> SessionOptions {
    SessionOptions { threads: Some(1), kv: Some(KvType::F16), ..SessionOptions::default() }
}

pub fn short(chosen: &Chosen) -> Chosen {
    let mut chosen = chosen.clone();
    chosen.settings.max_new = 3;
    chosen
}

/// Two questions and their answers.
pub fn talked(home: &Path) -> (Threads, Chosen) {
    let threads = Threads::start(setup(home));
    let chosen = short(&threads.load(options()).1);
    for question in ["你好", "写诗"] {
        threads.ask(question, &chosen);
    }
    (threads, chosen)
}

/// A conversation on disk with settings of its own.
pub fn saved(home: &Path, choices: Patch) {
    let turn = Turn {
        question: "写一首关于月的诗。".into(),
        answer: "床前明月光".into(),
        ids: None,
        attempt: 0,
        stop: Stop::MaxTokens,
    };
    let conversation = Conversation {
        title: Some("月".into()),
        system: Some("你是诗人。".into()),
        choices: Some(choices),
        turns: vec![turn],
        ..Conversation::default()
    };
    store::save(&home.join("sessions"), "old", &conversation, "").unwrap();
}

pub fn choices() -> Patch {
    let sampling = Sampling { temperature: 0.9, top_k: 3, ..Sampling::default() };
    Patch {
        max_new: Some(5),
        seed: Some(77),
        threads: Some(2),
        kv: Some(KvType::Q8),
        ..Patch::of_sampling(&sampling)
    }
}
