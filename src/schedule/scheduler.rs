//! Runs requests over one engine, a step at a time.

use super::cancels::Cancels;
use super::kept::{Kept, KeptSequences, KvBlock};
use super::request::{Refused, Request, RequestEvent, RequestId, Stop, Timings};
use super::running::{RowOutcome, Running};
use crate::engine::{Engine, EngineError, Info, Seq, Sink, StepItem};
use crate::sample::SamplerPool;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The longest an engine should be silent while it reads a piece of prompt: progress is promised twice a
/// second.
const SILENCE_SECONDS: f64 = 0.3;
/// The longest step that reads a prompt: what is lost when it is cancelled.
const STEP_SECONDS: f64 = 4.0;
/// The same while others generate: they wait for it.
const SHARED_STEP_SECONDS: f64 = 1.0;
/// The shortest time between two events of one prompt.
const EVENT_SECONDS: f64 = 0.1;
/// Maximum number of prompt tokens in one step.
const PIECE_TOKENS: usize = 512;
/// Prompt tokens in the first step, when the engine's speed is not known.
const FIRST_PIECE: usize = 64;
/// A piece is at most so many times the last one.
const PIECE_GROWTH: usize = 4;

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
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self { running: 32, kept: 4, exact: false }
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
    waiting: VecDeque<Running>,
    running: Vec<Running>,
    kept: KeptSequences,
    next_id: u64,
    /// An engine's error in this step concerns the first waiting request only.
    admitting: bool,
    /// Maximum number of prompt tokens in the next step.
    piece: usize,
    /// A request was preempted and none has ended since: letting one in now would push out another.
    crowded: bool,
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
            engine,
            samplers: SamplerPool::new(never),
            options,
            waiting: VecDeque::new(),
            running: Vec::new(),
            kept: KeptSequences::new(options.kept),
            next_id: 0,
            admitting: false,
            piece: FIRST_PIECE,
            crowded: false,
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
        self.kept.import_block(to, before, block, self.engine.as_mut())
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
        for r in self.running.iter_mut().chain(&mut self.waiting).filter(|r| r.id == id) {
            r.ends.get_or_insert(stop);
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
        if self.admitting {
            return self.waiting.pop_front().map(|r| r.id).into_iter().collect();
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
        self.admitting = true;
        self.admit(on)?;
        self.admitting = false;
        self.drop_ended(on);
        while !self.running.is_empty() {
            match self.advance(cancel, on) {
                Err(error) if is_full(&error) && !self.kept.is_empty() => self.evict(),
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
        self.waiting.retain(|r| {
            if let Some(stop) = r.ends {
                let _ = on(RequestEvent::Stopped { id: r.id, stop, timings: r.timings });
            }
            r.ends.is_none()
        });
    }

    /// Lets waiting requests in while the cache has room for their prompts.
    fn admit(&mut self, on: &mut OnEvent<'_>) -> Result<(), EngineError> {
        while let Some(next) = self.waiting.front() {
            let block = self.engine.info().kv_block_positions;
            let alone = self.running.is_empty();
            if !alone && (self.crowded || self.running.len() >= self.options.running) {
                return Ok(());
            }
            let reach = self.best_prefix(next);
            let shared = reach.as_ref().map_or(0, |prefix| prefix.len / block);
            if self.coming_prefix(next) / block > shared {
                return Ok(());
            }
            // One block more for each that runs: it is about to grow.
            let needed = next.ids.len().div_ceil(block) + self.running.len();
            if !alone && needed > self.engine.kv_free_blocks() + shared {
                if self.kept.is_empty() {
                    return Ok(());
                }
                self.evict();
                continue;
            }
            let (seq, common, known) = match reach {
                None => (self.engine.seq_new(), 0, usize::MAX),
                Some(prefix) => match self.take_prefix(prefix.seq, prefix.len) {
                    Ok(seq) => (seq, prefix.len, prefix.known),
                    Err(error) if is_full(&error) && !self.kept.is_empty() => {
                        self.evict();
                        continue;
                    }
                    Err(error) if is_full(&error) && !alone => return Ok(()),
                    Err(error) => return Err(error),
                },
            };
            let mut r = self.waiting.pop_front().expect("looked at");
            r.seq = Some(seq);
            r.done = common;
            r.known = known;
            let (id, total) = (r.id, r.prompt_len());
            r.timings.reused_tokens = common.min(total);
            if on(RequestEvent::Prompt { id, done: common.min(total), total }).is_break() {
                r.ends = Some(Stop::Hook);
            }
            self.running.push(r);
        }
        Ok(())
    }

    /// The longest prefix that `r` can continue from.
    fn best_prefix(&self, r: &Running) -> Option<Prefix> {
        let kept = self.kept.iter().map(|k| (k.seq, &k.ids[..], k.given, k.known));
        let running = self.running.iter();
        let running = running.filter_map(|o| Some((o.seq?, &o.ids[..o.done], o.prompt_len(), o.known)));
        kept.chain(running)
            .map(|(seq, have, given, known)| {
                let (len, known) = self.common(have, given, known, r);
                Prefix { seq, len, known }
            })
            .filter(|prefix| prefix.len > 0)
            .max_by_key(|prefix| prefix.len)
    }

    /// The longest prefix that `r` could continue from once the prompts being read are read.
    fn coming_prefix(&self, r: &Running) -> usize {
        let reading = self.running.iter().filter(|o| o.done < o.prompt_len());
        reading.map(|o| self.common(&o.request.ids, o.prompt_len(), o.known, r).0).max().unwrap_or(0)
    }

    /// Positions of `have`, given below `given` and generated above as far as `known`, that `r` can use; and
    /// how far `r` then has [`Running::known`] phases. A request with log-probabilities uses only those that
    /// it has itself, and so does every request where rows must be exact.
    fn common(&self, have: &[u32], given: usize, known: usize, r: &Running) -> (usize, usize) {
        let common = have.iter().zip(r.reusable()).take_while(|(a, b)| a == b).count();
        // Between the two boundaries one is given and the other generated.
        let (low, high) = (given.min(r.prompt_len()), given.max(r.prompt_len()));
        let same = if low == high { known } else { known.min(low) };
        if common <= same {
            (common, usize::MAX)
        } else if self.options.exact || r.request.log_probs.is_some() {
            (same, usize::MAX)
        } else {
            (common, same)
        }
    }

    /// A sequence with the first `common` positions of `source`: the kept sequence itself where little of it
    /// is lost, a fork otherwise.
    fn take_prefix(&mut self, source: Seq, common: usize) -> Result<Seq, EngineError> {
        let lost = self.engine.info().kv_block_positions;
        if self.kept.take(source, common, lost) {
            self.engine.seq_truncate(source, common)?;
            return Ok(source);
        }
        self.engine.seq_fork(source, common)
    }

    /// Frees the oldest kept sequence.
    fn evict(&mut self) {
        self.kept.evict(self.engine.as_mut());
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
            let given = r.request.ids.len().min(r.done);
            self.kept.keep(Kept { seq, ids: r.ids, given, known: r.known }, self.engine.as_mut());
        }
        let _ = on(RequestEvent::Stopped { id: r.id, stop, timings: r.timings });
    }

    /// Builds the items of a step, runs it, and deals out what was drawn.
    fn advance(&mut self, cancel: &AtomicBool, on: &mut OnEvent<'_>) -> Result<(), EngineError> {
        let mut budget = self.piece;
        // Which running request each item belongs to.
        let mut owners = Vec::new();
        let mut items = Vec::new();
        for (i, r) in self.running.iter().enumerate() {
            let Some(seq) = r.seq else { continue };
            if r.reads() && budget == 0 {
                continue;
            }
            let piece = r.piece(budget);
            if r.reads() {
                budget -= piece.tokens.len();
            }
            owners.push(i);
            items.push(StepItem { seq, tokens: piece.tokens, phase: piece.phase, want: piece.want });
        }
        let sizes: Vec<usize> = items.iter().map(|item| item.tokens.len()).collect();
        let outcomes: Vec<Mutex<Vec<RowOutcome>>> = items.iter().map(|_| Mutex::default()).collect();
        let (running, samplers) = (&self.running, &self.samplers);
        let row = |item: usize, position: usize, logits: &[f32]| {
            let outcome = running[owners[item]].row(position, logits, samplers);
            outcomes[item].lock().unwrap_or_else(PoisonError::into_inner).extend(outcome);
        };
        let start = Instant::now();
        let (mut spoke, mut told, mut silence) = (start, start, 0.0f64);
        let mut stopped = Vec::new();
        let mut progress = |share: f64| {
            silence = silence.max(spoke.elapsed().as_secs_f64());
            spoke = Instant::now();
            if told.elapsed().as_secs_f64() < EVENT_SECONDS {
                return;
            }
            told = spoke;
            for (r, n) in owners.iter().map(|&i| &running[i]).zip(&sizes) {
                if r.done < r.prompt_len() {
                    let done = r.done + (share * *n as f64) as usize;
                    if on(RequestEvent::Prompt { id: r.id, done, total: r.prompt_len() }).is_break() {
                        stopped.push(r.id);
                    }
                }
            }
        };
        if let Some(cancels) = &self.cancels {
            cancels.begin(owners.iter().map(|&i| running[i].id).collect());
        }
        let result = self.engine.step_watched(&items, &mut Sink::Shared(&row), &mut progress, cancel);
        if let Some(cancels) = &self.cancels {
            cancels.end();
        }
        let seconds = start.elapsed().as_secs_f64();
        let silence = silence.max(spoke.elapsed().as_secs_f64());
        let alone = sizes.len() == 1;
        let mut outcomes: Vec<Vec<RowOutcome>> = outcomes
            .into_iter()
            .map(|rows| rows.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect();
        for id in stopped {
            self.end_later(id, Stop::Hook);
        }
        result?;
        // Budget that is left says nothing about speed: only a full piece may grow or shrink the next.
        if budget == 0 {
            let most = if alone { STEP_SECONDS } else { SHARED_STEP_SECONDS };
            let share = (SILENCE_SECONDS / silence.max(1e-6)).min(most / seconds.max(1e-6));
            let fits = self.piece as f64 * share;
            self.piece = (fits as usize).clamp(1, (self.piece * PIECE_GROWTH).min(PIECE_TOKENS));
        }
        let mut ended = Vec::new();
        for ((&i, &n), rows) in owners.iter().zip(&sizes).zip(&mut outcomes) {
            rows.sort_by_key(|row| row.position);
            let r = &mut self.running[i];
            ended.extend(took(r, n, seconds, std::mem::take(rows), on).map(|stop| (i, stop)));
        }
        for (i, stop) in ended.into_iter().rev() {
            self.end(i, stop, on);
        }
        Ok(())
    }
}

/// A sequence whose first positions a request can continue from.
struct Prefix {
    seq: Seq,
    /// How many positions.
    len: usize,
    /// What [`Running::known`] of the request becomes.
    known: usize,
}

/// Whether sequences that are freed make room.
fn is_full(error: &EngineError) -> bool {
    matches!(error, EngineError::KvFull { .. } | EngineError::TooManySeqs { .. })
}

/// Notes that `r` took a piece of `n` tokens in `seconds`, and tells what its rows of logits, by position,
/// led to; says whether it ends.
fn took(
    r: &mut Running,
    n: usize,
    seconds: f64,
    rows: Vec<RowOutcome>,
    on: &mut OnEvent<'_>,
) -> Option<Stop> {
    let (id, total) = (r.id, r.prompt_len());
    let mut goes_on = ControlFlow::Continue(());
    if r.done < total {
        r.timings.prompt_tokens += n;
        r.timings.prompt_seconds += seconds;
        goes_on = on(RequestEvent::Prompt { id, done: r.done + n, total });
    } else {
        r.timings.generate_seconds += seconds;
    }
    r.done += n;
    let mut drawn = None;
    for row in rows {
        if row.drawn.is_some() {
            r.timings.generated_tokens += usize::from(row.drawn != Some(None));
            drawn = row.drawn;
        }
        if let (Some(at), ControlFlow::Continue(())) = (row.log_probs, goes_on) {
            r.told(at.position);
            goes_on = on(RequestEvent::LogProbs { id, at });
        }
    }
    if goes_on.is_break() {
        return Some(Stop::Hook);
    }
    let token = match drawn {
        None => return (r.done == r.ids.len()).then_some(Stop::MaxTokens),
        Some(None) => return Some(Stop::BrokenLogits),
        Some(Some(token)) => token,
    };
    if r.request.stop_ids.contains(&token) {
        return Some(Stop::EndToken(token));
    }
    if r.ids.len() >= r.request.n_ctx {
        return Some(Stop::ContextFull);
    }
    r.ids.push(token);
    if on(RequestEvent::Token { id, token }).is_break() {
        return Some(Stop::Hook);
    }
    if r.ids.len() >= r.request.n_ctx {
        return Some(Stop::ContextFull);
    }
    (r.ids.len() - total >= r.request.max_new).then_some(Stop::MaxTokens)
}
