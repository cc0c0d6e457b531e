//! What the tests of the scheduler share: one over a small model, and an engine that does something before
//! each step.

use crate::common;
use huozi::engine::{Engine, EngineError, Info, KvType, Native, Seq, Sink, StepItem, StepStats, Want};
use huozi::sample::Sampling;
use huozi::schedule::{
    PositionLogProbs, Request, RequestEvent, RequestId, Scheduler, SchedulerOptions, Speculate, Stop, Timings,
};
use huozi_convert::plan::Preset;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Over the engine of a tiny model.
pub fn scheduler(kv_positions: usize) -> Scheduler {
    with_options(kv_positions, SchedulerOptions::default())
}

/// The same with options.
pub fn with_options(kv_positions: usize, options: SchedulerOptions) -> Scheduler {
    let file = common::model("tiny-f32", Preset::F32);
    let engine = common::open(&file, KvType::F32, kv_positions, 2).1;
    Scheduler::with_options(Box::new(engine), Arc::from(vec![false; 1024]), options)
}

/// Random ids that begin with `first`, random draws.
pub fn request(first: u32, prompt: usize, max_new: usize) -> Request {
    Request {
        ids: (0..prompt as u32).map(|i| (first + i * 37) % 1000).collect(),
        sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() },
        seed: u64::from(first),
        stop_ids: Vec::new(),
        max_new,
        n_ctx: 2048,
        log_probs: None,
        speculate: Speculate::Off,
    }
}

/// What a request's client was told.
#[derive(Default)]
pub struct Outcome {
    pub tokens: Vec<u32>,
    /// `done` of each event about the prompt.
    pub prompt: Vec<usize>,
    pub log_probs: Vec<PositionLogProbs>,
    pub stop: Option<(Stop, Timings)>,
}

/// Takes an event, and goes on.
pub fn note(outcomes: &mut BTreeMap<RequestId, Outcome>, event: RequestEvent) -> ControlFlow<()> {
    match event.clone() {
        RequestEvent::Prompt { id, done, .. } => outcomes.entry(id).or_default().prompt.push(done),
        RequestEvent::Token { id, token } => outcomes.entry(id).or_default().tokens.push(token),
        RequestEvent::Stopped { id, stop, timings } => {
            let before = outcomes.entry(id).or_default().stop.replace((stop, timings));
            assert!(before.is_none(), "stopped twice");
        }
        RequestEvent::LogProbs { id, at } => outcomes.entry(id).or_default().log_probs.push(*at),
        RequestEvent::Failed { .. } => panic!("{event:?}"),
    }
    ControlFlow::Continue(())
}

/// Steps until nothing is left.
pub fn run(scheduler: &mut Scheduler) -> BTreeMap<RequestId, Outcome> {
    let mut outcomes = BTreeMap::new();
    while scheduler.step(&common::NEVER, &mut |event| note(&mut outcomes, event)).unwrap() {}
    outcomes
}

/// What a request leads to in a scheduler of its own.
pub fn alone(request: Request) -> Outcome {
    let mut s = scheduler(2048);
    let id = s.submit(request).unwrap();
    run(&mut s).remove(&id).unwrap()
}

/// Called before each step with its items, its progress and the flag that cancels it.
pub trait BeforeStep:
    FnMut(&[StepItem<'_>], &mut dyn FnMut(f64), &AtomicBool) -> Result<(), EngineError> + Send + 'static
{
}

impl<F> BeforeStep for F where
    F: FnMut(&[StepItem<'_>], &mut dyn FnMut(f64), &AtomicBool) -> Result<(), EngineError> + Send + 'static
{
}

/// The native engine, with something before each step.
pub struct Watched {
    inner: Native,
    before: Box<dyn BeforeStep>,
}

impl Watched {
    /// Over a tiny model.
    pub fn new(kv_positions: usize, before: impl BeforeStep) -> Self {
        let file = common::model("tiny-f32", Preset::F32);
        let inner = common::open(&file, KvType::F32, kv_positions, 1).1;
        Self { inner, before: Box::new(before) }
    }

    /// A scheduler over this.
    pub fn scheduler(self, options: SchedulerOptions) -> Scheduler {
        Scheduler::with_options(Box::new(self), Arc::from(vec![false; 1024]), options)
    }
}

impl Engine for Watched {
    common::forward_to_inner!();

    fn step_watched(
        &mut self,
        items: &[StepItem<'_>],
        sink: &mut Sink<'_>,
        progress: &mut dyn FnMut(f64),
        cancel: &AtomicBool,
    ) -> Result<StepStats, EngineError> {
        (self.before)(items, progress, cancel)?;
        self.inner.step(items, sink, cancel)
    }
}

/// An engine that computes nothing: each row of logits prefers id 1.
pub struct Idle {
    /// Gives the numbers of sequences.
    inner: Native,
    lens: BTreeMap<Seq, usize>,
    logits: Vec<f32>,
}

impl Idle {
    pub fn scheduler(options: SchedulerOptions) -> Scheduler {
        let inner = common::open(&common::model("tiny-f32", Preset::F32), KvType::F32, 64 * 4096, 1).1;
        let mut logits = vec![0.0; 1024];
        logits[1] = 1.0;
        let engine = Self { inner, lens: BTreeMap::new(), logits };
        Scheduler::with_options(Box::new(engine), Arc::from(vec![false; 1024]), options)
    }
}

impl Engine for Idle {
    fn info(&self) -> &Info {
        self.inner.info()
    }
    fn seq_new(&mut self) -> Seq {
        let seq = self.inner.seq_new();
        self.lens.insert(seq, 0);
        seq
    }
    fn seq_len(&self, seq: Seq) -> usize {
        self.lens[&seq]
    }
    fn seq_fork(&mut self, src: Seq, len: usize) -> Result<Seq, EngineError> {
        assert!(len <= self.lens[&src]);
        let seq = self.seq_new();
        self.lens.insert(seq, len);
        Ok(seq)
    }
    fn seq_truncate(&mut self, seq: Seq, len: usize) -> Result<(), EngineError> {
        self.lens.insert(seq, len);
        Ok(())
    }
    fn seq_free(&mut self, seq: Seq) {
        self.lens.remove(&seq);
    }
    fn kv_free_blocks(&self) -> usize {
        self.inner.info().kv_blocks
    }
    fn step_watched(
        &mut self,
        items: &[StepItem<'_>],
        sink: &mut Sink<'_>,
        _: &mut dyn FnMut(f64),
        _: &AtomicBool,
    ) -> Result<StepStats, EngineError> {
        for (i, item) in items.iter().enumerate() {
            let len = self.lens.get_mut(&item.seq).expect("a sequence");
            for j in 0..item.tokens.len() {
                if item.want == Want::All || (item.want == Want::Last && j + 1 == item.tokens.len()) {
                    sink.give(i, *len + j, &self.logits);
                }
            }
            *len += item.tokens.len();
        }
        Ok(StepStats::default())
    }
}
