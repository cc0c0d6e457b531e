//! Runs requests over one engine, a step at a time.

mod admit;
mod advance;

use super::cancels::Cancels;
use super::drafts::Rates;
use super::kept::{Kept, KeptSequences, KvBlock};
use super::request::{Refused, Request, RequestEvent, RequestId, Stop, Timings};
use super::running::Running;
use super::step_costs::StepCosts;
use super::waiting::Waiting;
use crate::engine::{Engine, EngineError, Info, Seq};
use crate::sample::SamplerPool;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Prompt tokens in the first step, when the engine's speed is not known.
const FIRST_PIECE: usize = 64;

/// How a [`Scheduler`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// Maximum number of requests that run at a time, at least 1: their tokens share a step.
    pub running: usize,
    /// Maximum number of sequences of ended requests that are kept for their prefix.
    pub kept: usize,
    /// Keys and values are reused only for tokens of the phase they were computed in, so that a row's text is
    /// the same in any company. Without it a prompt that repeats an earlier answer, as the next turn of a
    /// chat does, continues from what was computed while that answer was generated.
    pub exact: bool,
    /// Tokens per second of all requests count, not how soon a request gets its next one. Reading a prompt
    /// costs as much as some 60 of its tokens before the first: requests that wait are let in when a quarter
    /// of those that run has ended, or when they have enough to read, and prompts are read in large pieces.
    pub grouped: bool,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self { running: 32, kept: 4, exact: false, grouped: false }
    }
}

/// Receives the events; `Break` ends the request that the event belongs to, with [`Stop::Hook`]; while the
/// engine computes, after the step.
pub type OnEvent<'a> = dyn FnMut(RequestEvent) -> ControlFlow<()> + 'a;

/// Runs requests over one engine.
pub struct Scheduler {
    engine: Box<dyn Engine>,
    samplers: SamplerPool,
    options: SchedulerOptions,
    waiting: Waiting,
    running: Vec<Running>,
    kept: KeptSequences,
    next_id: u64,
    /// The waiting request that an engine's error in this step concerns.
    admitting: Option<RequestId>,
    /// Maximum number of prompt tokens in the next step.
    piece: usize,
    /// A request was preempted and none has ended since: letting one in now would push out another.
    crowded: bool,
    /// What steps cost that only generate; measured while a request speculates.
    costs: StepCosts,
    /// How many draft tokens were accepted, of all requests.
    rates: Rates,
    /// Who may cancel a step from outside.
    cancels: Option<Arc<Cancels>>,
}

impl Scheduler {
    /// With the default options. `never[id]`: ids that are never sampled; those past its end have no token
    /// and are not sampled either.
    pub fn new(engine: Box<dyn Engine>, never: Arc<[bool]>) -> Self {
        Self::with_options(engine, never, SchedulerOptions::default())
    }

    /// As [`Self::new`], with options.
    pub fn with_options(engine: Box<dyn Engine>, never: Arc<[bool]>, options: SchedulerOptions) -> Self {
        Self {
            waiting: Waiting::new(engine.info().kv_block_positions),
            engine,
            samplers: SamplerPool::new(never),
            options,
            running: Vec::new(),
            kept: KeptSequences::new(options.kept),
            next_id: 0,
            admitting: None,
            piece: FIRST_PIECE,
            crowded: false,
            costs: StepCosts::default(),
            rates: Rates::default(),
            cancels: None,
        }
    }

    /// Has `cancels` told which requests each step carries.
    pub(super) fn watched_by(&mut self, cancels: Arc<Cancels>) {
        self.cancels = Some(cancels);
    }

    /// What the engine is.
    pub fn info(&self) -> &Info {
        self.engine.info()
    }

    /// Gives the engine back, without the sequences of the scheduler.
    pub fn into_engine(mut self) -> Box<dyn Engine> {
        while self.evict(None) {}
        for seq in self.running.iter().filter_map(|r| r.seq) {
            self.engine.seq_free(seq);
        }
        self.engine
    }

    /// How many of `ids`, from the first on, have their keys and values in one kept sequence.
    pub fn kept(&self, ids: &[u32]) -> usize {
        self.kept.like(ids).map_or(0, |(_, n)| n)
    }

    /// What keys and values taken out mean, and bytes of a block of them; `None` for an engine that gives
    /// none.
    pub fn kv_layout(&mut self) -> Option<(String, usize)> {
        self.engine.kv_state().map(|state| (state.kv_layout(), state.kv_export_bytes()))
    }

    /// Takes out block `block` of the keys and values of `ids` that [`Self::kept`] counts; `None` past their
    /// end, and for an engine that gives none.
    ///
    /// # Errors
    /// What the engine says.
    pub fn export_block(&mut self, ids: &[u32], block: usize) -> Result<Option<KvBlock>, EngineError> {
        self.kept.export_block(ids, block, self.engine.as_mut())
    }

    /// Puts back what [`Self::export_block`] gave: as a new kept sequence, or at the end of `to`, which the
    /// last call gave. `before`: the ids of the blocks that are in `to`; between two calls a request may take
    /// or change that sequence. `None`: it did, the block does not fit, or no sequences are kept; what came
    /// before the block stays kept.
    pub fn import_block(&mut self, to: Option<Seq>, before: &[u32], block: &KvBlock) -> Option<Seq> {
        self.kept.import_block(to, before, block, self.waiting.wanted(), self.engine.as_mut())
    }

    /// Queues a request.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Refused> {
        request.check(self.engine.info())?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.push(id, request);
        Ok(id)
    }

    /// The id of the next request that is submitted.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Queues a request that was checked, under an id that no other has.
    pub(super) fn push(&mut self, id: RequestId, request: Request) {
        self.waiting.push_back(Running::new(id, request));
    }

    /// Ends a request; its `Stopped` event comes with the next step. Unknown or ended ids are ignored.
    pub fn cancel(&mut self, id: RequestId) {
        self.end_later(id, Stop::Cancelled);
    }

    fn end_later(&mut self, id: RequestId, stop: Stop) {
        match self.running.iter_mut().find(|r| r.id == id) {
            Some(r) => _ = r.ends.get_or_insert(stop),
            None => self.waiting.end_later(id, stop),
        }
    }

    /// Whether no request waits or runs.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The requests that run, and how long they took so far.
    pub fn timings(&self) -> impl Iterator<Item = (RequestId, Timings)> {
        self.running.iter().map(|r| (r.id, r.timings))
    }

    /// Drops the requests that the error of the last step concerns, without an event, and gives their ids:
    /// those that run, or the one that was being admitted. What was read of them is kept for its prefix.
    pub(super) fn abandon(&mut self) -> Vec<RequestId> {
        if let Some(id) = self.admitting.take() {
            self.waiting.remove_id(id);
            return vec![id];
        }
        let ids = self.running.iter().map(|r| r.id).collect();
        while !self.running.is_empty() {
            self.end(0, Stop::Cancelled, &mut |_| ControlFlow::Continue(()));
        }
        ids
    }

    /// One step of the engine over what is queued. Returns whether requests remain.
    ///
    /// # Errors
    /// What the engine says; after `Cancelled` the same step can be taken again.
    pub fn step(&mut self, cancel: &AtomicBool, on: &mut OnEvent<'_>) -> Result<bool, EngineError> {
        self.drop_ended(on);
        self.admit(on)?;
        self.drop_ended(on);
        let mut drafting = true;
        while !self.running.is_empty() {
            match self.advance(drafting, cancel, on) {
                // A draft pushes nothing out.
                Err(error) if is_full(&error) && drafting => drafting = false,
                Err(error) if is_full(&error) && self.evict(None) => {}
                Err(error) if is_full(&error) && self.running.len() > 1 => self.preempt(),
                Err(EngineError::KvFull { .. }) => self.end(0, Stop::ContextFull, on),
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        Ok(!self.is_idle())
    }

    fn drop_ended(&mut self, on: &mut OnEvent<'_>) {
        for i in (0..self.running.len()).rev() {
            if let Some(stop) = self.running[i].ends {
                self.end(i, stop, on);
            }
        }
        self.waiting.drop_ended(|r, stop| {
            let _ = on(RequestEvent::Stopped { id: r.id, stop, timings: r.timings });
        });
    }

    /// Frees a kept sequence other than `spared`; says whether there was one.
    fn evict(&mut self, spared: Option<Seq>) -> bool {
        self.kept.evict(spared, self.waiting.wanted(), self.engine.as_mut())
    }

    /// The youngest request gives its blocks back and waits.
    fn preempt(&mut self) {
        if let Some(mut r) = self.running.pop() {
            if let Some(seq) = r.seq {
                self.engine.seq_free(seq);
            }
            r.restart();
            self.waiting.push_front(r);
            self.crowded = true;
        }
    }

    /// Ends running request `i`; its sequence is kept for its prefix.
    fn end(&mut self, i: usize, stop: Stop, on: &mut OnEvent<'_>) {
        let mut r = self.running.remove(i);
        self.crowded = false;
        if let Some(seq) = r.seq {
            r.ids.truncate(r.done);
            let given = r.prompt_len().min(r.done);
            let kept = Kept { seq, ids: r.ids, given, known: r.known, prefixes: Vec::new() };
            self.kept.keep(kept, self.waiting.wanted(), self.engine.as_mut());
        }
        let _ = on(RequestEvent::Stopped { id: r.id, stop, timings: r.timings });
    }
}

/// Whether sequences that are freed make room.
fn is_full(error: &EngineError) -> bool {
    matches!(error, EngineError::KvFull { .. } | EngineError::TooManySeqs { .. })
}
