//! A session over the small model, with an engine whose logits can be rigged.

use crate::common;
use huozi::engine::{Engine, EngineError, KvType, Native, NativeOptions, Sink, StepItem, StepStats};
use huozi::schedule::{Scheduler, SchedulerHandle};
use huozi::session::{Error, Event, Session, Settings};
use huozi_convert::plan::Preset;
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use huozi_token::{ChatFormat, HistoryRule, Tokenizer};
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// What the engine was given, and what it is to say.
#[derive(Default)]
pub struct Strings {
    /// Ids that the next rows must lead to; when empty the model speaks for itself.
    pub script: VecDeque<u32>,
    /// Every id that was read.
    pub read: Vec<u32>,
}

/// The real engine, its logits overruled by the script.
struct Rigged {
    inner: Native,
    strings: Arc<Mutex<Strings>>,
}

impl Engine for Rigged {
    common::forward_to_inner!();

    fn step_watched(
        &mut self,
        items: &[StepItem<'_>],
        sink: &mut Sink<'_>,
        progress: &mut dyn FnMut(f64),
        cancel: &AtomicBool,
    ) -> Result<StepStats, EngineError> {
        let mut strings = self.strings.lock().unwrap();
        items.iter().for_each(|item| strings.read.extend(item.tokens));
        let mut rigged = |item: usize, position: usize, logits: &[f32]| match strings.script.pop_front() {
            Some(id) => {
                let mut row = vec![-1e9; logits.len()];
                row[id as usize] = 1e3;
                sink.give(item, position, &row);
            }
            None => sink.give(item, position, logits),
        };
        self.inner.step_watched(items, &mut Sink::InOrder(&mut rigged), progress, cancel)
    }
}

pub struct World {
    pub session: Session,
    pub strings: Arc<Mutex<Strings>>,
    pub go: AtomicBool,
}

pub fn world(change: impl FnOnce(&mut Settings)) -> World {
    world_of(None, change)
}

/// With this chat template instead of that of the file.
pub fn world_of(template: Option<&str>, change: impl FnOnce(&mut Settings)) -> World {
    let reader = Reader::open(&common::model("nano", Preset::F16), How::Map).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_gguf(reader.meta()).unwrap());
    let format = match template {
        None => ChatFormat::from_gguf(reader.meta(), &tokenizer).unwrap(),
        template => ChatFormat::new(template, &tokenizer).unwrap(),
    };
    let mut settings = Settings {
        sampling: Default::default(),
        max_new: 12,
        n_ctx: 2048,
        system: None,
        history: HistoryRule::TwoThirds,
        seed: 7,
    };
    change(&mut settings);
    let options = NativeOptions { threads: Some(2), kv: KvType::F32, kv_positions: settings.n_ctx };
    let strings = Arc::<Mutex<Strings>>::default();
    let engine = Rigged { inner: Native::open(&reader, &options).unwrap(), strings: strings.clone() };
    let scheduler = SchedulerHandle::of(Scheduler::new(Box::new(engine), tokenizer.vocab().never())).unwrap();
    World {
        session: Session::new(scheduler, tokenizer, format, settings),
        strings,
        go: AtomicBool::new(false),
    }
}

impl World {
    pub fn ask(&mut self, question: &str) -> (Result<huozi::session::Answer, Error>, Vec<Event>) {
        let mut events = Vec::new();
        let result = self.session.ask(question, &self.go, &mut |event| events.push(event));
        (result, events)
    }

    pub fn say(&mut self, question: &str) -> huozi::session::Answer {
        self.ask(question).0.unwrap()
    }

    pub fn rig(&self, ids: &[u32]) {
        self.strings.lock().unwrap().script = ids.iter().copied().collect();
    }

    pub fn end(&self) -> u32 {
        self.session.tokenizer().vocab().control("<|endofutterance|>").unwrap()
    }
}
